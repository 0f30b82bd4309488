//! When a call is answered, packets are judged by what it made.

use anyhow::{Context as _, Result, ensure};
use tests::api::{Api, Clients};
use tests::daemon::eventually;
use tests::sockets::Outcome::{Connected, TimedOut};
use tests::sockets::{TcpEcho, tcp_connects};

#[test]
fn a_rule_opens_its_port_when_it_is_answered_and_closes_it_when_it_is_revoked() -> Result<()> {
    let Some(clients) = Clients::find("packets are judged by the API's rules") else {
        return Ok(());
    };
    let api = Api::serve()?;
    let _web = TcpEcho::listen(&api.pair.host, ":80")?;
    let made = api.aws(
        &clients,
        &[
            "create-security-group",
            "--group-name",
            "web",
            "--description",
            "the web",
        ],
    )?;
    let id = made["GroupId"].as_str().context("no GroupId")?;
    api.sg
        .run(&["attach", "eth0", "--group", "web"])?
        .succeeded()?;
    let connects = || tcp_connects(&api.pair.world, "10.0.0.10:80");
    ensure!(connects()? == TimedOut);
    let rule = [
        "--group-id",
        id,
        "--protocol",
        "tcp",
        "--port",
        "80",
        "--cidr",
        "10.0.0.0/24",
    ];
    api.aws(
        &clients,
        &[&["authorize-security-group-ingress"], &rule[..]].concat(),
    )?;
    // The answer comes when it is so: nothing is waited for.
    let outcome = connects()?;
    ensure!(outcome == Connected, "{outcome:?}: {}", api.daemon.log());
    api.aws(
        &clients,
        &[&["revoke-security-group-ingress"], &rule[..]].concat(),
    )?;
    ensure!(connects()? == TimedOut);
    let told = api.aws(&clients, &["describe-network-interfaces"])?;
    let groups = &told["NetworkInterfaces"][0]["Groups"];
    ensure!(groups[0]["GroupId"].as_str() == Some(id), "{told}");
    Ok(())
}

#[test]
fn an_interface_of_a_client_waits_for_its_device_and_protects_it() -> Result<()> {
    let Some(clients) = Clients::find("interfaces of the API protect devices") else {
        return Ok(());
    };
    let api = Api::serve()?;
    let (world, host) = (&api.pair.world, &api.pair.host);
    let made = api.python(&clients, "interfaces.py", &["late0"])?;
    let nic = made.trim();
    let status = || -> Result<String> {
        let words = [
            "describe-network-interfaces",
            "--network-interface-ids",
            nic,
        ];
        let told = api.aws(&clients, &words)?;
        let status = told["NetworkInterfaces"][0]["Status"].as_str();
        Ok(status.context("no status")?.to_owned())
    };
    ensure!(status()? == "available");
    api.pair.lab.join((world, "late0"), (host, "late0"))?;
    world.add_addresses("late0", &["10.0.1.1/24"])?;
    host.add_addresses("late0", &["10.0.1.10/24"])?;
    let _web = TcpEcho::listen(host, ":80")?;
    let _other = TcpEcho::listen(host, ":81")?;
    eventually("the device is protected", || Ok(status()? == "in-use"))?;
    // The rule is for others than these.
    ensure!(tcp_connects(world, "10.0.1.10:80")? == TimedOut);
    let told = api.aws(
        &clients,
        &["describe-security-groups", "--group-names", "nic"],
    )?;
    let group = told["SecurityGroups"][0]["GroupId"]
        .as_str()
        .context("no group")?;
    let rule = [
        "--group-id",
        group,
        "--protocol",
        "tcp",
        "--port",
        "80",
        "--cidr",
        "10.0.1.0/24",
    ];
    api.aws(
        &clients,
        &[&["authorize-security-group-ingress"], &rule[..]].concat(),
    )?;
    ensure!(tcp_connects(world, "10.0.1.10:80")? == Connected);
    ensure!(tcp_connects(world, "10.0.1.10:81")? == TimedOut);
    let words = ["delete-network-interface", "--network-interface-id", nic];
    let refused = format!("{:#}", api.aws(&clients, &words).err().context("it goes")?);
    ensure!(
        refused.contains("InvalidNetworkInterface.InUse"),
        "{refused}"
    );
    host.ip("link del late0")?;
    eventually("the device is gone", || Ok(status()? == "available"))?;
    api.aws(&clients, &words)?;
    Ok(())
}
