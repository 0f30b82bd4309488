//! Groups on a device mean what they say, or the device is refused with a sentence.

use anyhow::{Context as _, Result, ensure};
use tests::lab::{Lab, Pair};
use tests::sg::{Ran, Sg};
use tests::sockets::Outcome::{Connected, TimedOut};
use tests::sockets::{TcpEcho, tcp_connects};

const WEB: &str = "{groups: {web: {ingress: [{protocol: tcp, ports: 80, from: 0.0.0.0/0}]}}";

fn machine() -> Result<(Pair, Sg)> {
    let pair = Lab::pair()?;
    let sg = Sg::on(&pair.host)?;
    Ok((pair, sg))
}

fn is_refused(ran: &Ran, sentence: &str) -> Result<()> {
    ensure!(ran.code == Some(2), "{ran}");
    ensure!(ran.stderr.contains(sentence), "{ran}");
    Ok(())
}

#[test]
fn generic_xdp_is_only_taken_by_its_name() -> Result<()> {
    let (pair, sg) = machine()?;
    let (host, world) = (&pair.host, &pair.world);
    // Its driver runs no XDP programs, and that of the veth under it does.
    host.ip("link add link eth0 name mac0 type macvlan mode private")?;
    host.ip("link set mac0 up")?;
    host.add_addresses("mac0", &["172.16.0.11/24"])?;
    world.add_addresses("eth0", &["172.16.0.1/24"])?;
    // The veth would answer for the address too, and packets would come through it.
    let mac = host
        .mac("mac0")?
        .map(|byte| format!("{byte:02x}"))
        .join(":");
    world.ip(&format!(
        "neigh replace 172.16.0.11 lladdr {mac} dev eth0 nud permanent"
    ))?;
    let _web = (
        TcpEcho::listen(host, "172.16.0.11:80")?,
        TcpEcho::listen(host, "172.16.0.11:81")?,
    );
    let sentence = "interface mac0 has a driver that does not run XDP programs; choose the hook \
                    `tc` (`auto` does), or `xdp-generic`";
    is_refused(&sg.run(&["attach", "mac0", "--hook", "xdp"])?, sentence)?;
    let policy =
        |hook: &str| format!("{WEB}, interfaces: {{mac0: {{groups: [web], hook: {hook}}}}}}}");
    let path = sg.write_policy(&policy("xdp"))?;
    is_refused(&sg.run(&["apply", &path])?, sentence)?;
    let status = sg.json(&["status"])?;
    ensure!(
        status["interfaces"].as_array().is_some_and(Vec::is_empty),
        "{status}"
    );
    for hook in ["xdp-generic", "tc"] {
        sg.apply(&policy(hook))?;
        let status = sg.json(&["status"])?;
        ensure!(status["interfaces"][0]["hook"] == hook, "{status}");
        let exported = sg.run(&["export"])?.succeeded()?;
        ensure!(
            exported.stdout.contains(&format!("hook: {hook}")),
            "{exported}"
        );
        let open = tcp_connects(world, "172.16.0.11:80")?;
        let closed = tcp_connects(world, "172.16.0.11:81")?;
        ensure!(
            (open, closed) == (Connected, TimedOut),
            "{hook}: {open:?}, {closed:?}"
        );
    }
    Ok(())
}

#[test]
fn xdp_is_refused_where_packets_have_no_ethernet_header() -> Result<()> {
    let (pair, sg) = machine()?;
    pair.host.ip("tuntap add tun0 mode tun")?;
    for hook in ["xdp", "xdp-generic"] {
        let ran = sg.run(&["attach", "tun0", "--hook", hook])?;
        is_refused(
            &ran,
            "interface tun0 has packets without an Ethernet header; choose the hook `tc`",
        )?;
    }
    sg.run(&["attach", "tun0"])?.succeeded()?;
    Ok(())
}

#[test]
fn doctor_tells_of_macvlan_devices_over_a_protected_one() -> Result<()> {
    let (pair, sg) = machine()?;
    sg.apply(&format!("{WEB}, interfaces: {{eth0: {{groups: [web]}}}}}}"))?;
    let told = || -> Result<bool> {
        let checks = sg.json(&["doctor"])?;
        let checks = checks["checks"].as_array().context("no checks")?.clone();
        let mut found = checks.iter().filter(|check| check["name"] == "macvlan");
        Ok(found.any(|check| {
            check["found"]
                .as_str()
                .is_some_and(|text| text.contains("mac0"))
        }))
    };
    ensure!(!told()?);
    pair.host
        .ip("link add link eth0 name mac0 type macvlan mode bridge")?;
    ensure!(told()?);
    Ok(())
}
