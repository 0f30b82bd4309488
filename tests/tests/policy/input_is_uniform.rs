//! Words, ports and times are read alike by every command, and what does not exist is refused.

use anyhow::{Result, ensure};
use tests::lab::Lab;
use tests::sg::Sg;

const POLICY: &str = "
groups: {web: {ingress: [{service: https, from: 10.0.0.0/8}]}}
interfaces:
  eth0: {groups: [web]}
  vnet0: {groups: [web], side: guest, addresses: [10.0.5.2]}
";

#[test]
fn what_does_not_exist_is_refused_everywhere() -> Result<()> {
    let (_pair, sg) = Sg::protecting(POLICY)?;
    for (line, wanted) in [
        ("flows list --state open", "there is no state \"open\""),
        (
            "flows show --state establishd",
            "did you mean \"established\"?",
        ),
        ("flows list --port htps", "did you mean \"https\"?"),
        (
            "flows list --interface nope",
            "interface \"nope\" is not attached",
        ),
        ("events --interface eht0 --for 0", "did you mean \"eth0\"?"),
        ("events --port 70000 --for 0", "is not a port"),
        ("diagnose 10.0.0.1 htps", "did you mean \"https\"?"),
        (
            "diagnose 10.0.0.1 ssh --timeout soon",
            "is not a time from 50ms to 5m",
        ),
        ("stats --watch 1x", "is not a time from 1s to 1h"),
        ("version", "did you mean '--version'?"),
        (
            "rule add web --ingress --service ssh --cidr 10.0.0.0/8",
            "did you mean '--from'?",
        ),
        (
            "rule add web --ingress --protocol ping --from 10.0.0.0/8",
            "did you mean \"icmp\"?",
        ),
        (
            "attach vnet1 --group web --side guest --address 10.0.5.2",
            "has the address 10.0.5.2 of interface \"vnet0\"",
        ),
    ] {
        let ran = sg.run(&line.split(' ').collect::<Vec<_>>())?;
        ensure!(ran.code == Some(2), "{ran}");
        ensure!(ran.stderr.contains(wanted), "{wanted}: {ran}");
    }
    let file = sg.write_policy("{groups: {web: {ingress: [{service: ssh, cidr: 10.0.0.0/8}]}}}")?;
    let ran = sg.run(&["check", &file])?;
    ensure!(
        ran.stdout.contains("did you mean \"from\"?")
            || ran.stderr.contains("did you mean \"from\"?"),
        "{ran}"
    );
    let twice = sg.write_policy(
        "{groups: {g: {}}, interfaces: {
           a: {groups: [g], side: guest, addresses: [10.0.5.2]},
           b: {groups: [g], side: guest, addresses: [10.0.5.2, 10.0.5.3]}}}",
    )?;
    let ran = sg.run(&["apply", &twice])?;
    ensure!(ran.code == Some(2), "{ran}");
    ensure!(
        ran.stderr
            .contains("has the address 10.0.5.2 of interface \"a\""),
        "{ran}"
    );
    Ok(())
}

#[test]
fn services_and_times_are_read_by_every_command() -> Result<()> {
    let (_pair, sg) = Sg::protecting(POLICY)?;
    for line in [
        "flows list --port https",
        "events --for 100ms --port dns",
        "events --for 0s --interface eth0",
        "rule add web --ingress --protocol tcp --ports http,8080 --from 10.0.0.0/8",
        "attach eth0 --tcp-established 1h --udp 30s --udp-stream 2m",
    ] {
        sg.run(&line.split(' ').collect::<Vec<_>>())?.succeeded()?;
    }
    let told = sg.json(&["diagnose", "10.0.0.1", "ntp", "--timeout", "100ms"])?;
    ensure!(told["port"] == 123 && told["protocol"] == 17, "{told}");
    Ok(())
}

#[test]
fn a_file_takes_services_and_times_as_commands_do() -> Result<()> {
    let pair = Lab::pair()?;
    let sg = Sg::on(&pair.host)?;
    let policy = |ports: &str, established: &str| {
        format!(
            "groups: {{web: {{ingress: [{{protocol: tcp, ports: {ports}, from: 10.0.0.0/8}}]}}}}
interfaces: {{eth0: {{groups: [web], timeouts: {{tcp_established: {established}}}}}}}
"
        )
    };
    sg.apply(&policy("[https, 8080, ssh]", "1h"))?;
    // What is in force is the numbers, and so is what is exported.
    let numbers = sg.write_policy(&policy("[443, 8080, 22]", "3600"))?;
    let same = sg.run(&["diff", &numbers])?;
    ensure!(same.code == Some(0), "{same}");
    let exported = sg.run(&["export"])?.stdout;
    ensure!(
        exported.contains("443") && exported.contains("tcp_established: 3600"),
        "{exported}"
    );
    let wrong = sg.write_policy(&policy("[htps, 8080]", "1 hour"))?;
    let refused = sg.run(&["apply", &wrong])?;
    ensure!(refused.code == Some(2), "{refused}");
    for wanted in [
        ":1:50: \"htps\" is not a port; did you mean \"https\"?",
        ":2:64: tcp_established: \"1 hour\" is not a time; did you mean \"1h\"?",
    ] {
        ensure!(refused.stderr.contains(wanted), "{wanted}: {refused}");
    }
    Ok(())
}

#[test]
fn what_many_interfaces_have_in_common_is_said_once() -> Result<()> {
    let pair = Lab::pair()?;
    let sg = Sg::on(&pair.host)?;
    let interfaces: Vec<_> = (0..22)
        .map(|number| format!("a{number}: {{groups: [g], netns: not-there-yet}}"))
        .collect();
    let policy = format!(
        "{{groups: {{g: {{}}}}, interfaces: {{{}}}}}",
        interfaces.join(", ")
    );
    let applied = sg.apply(&policy)?;
    let said = applied.stderr.matches("not-there-yet").count();
    // The name and its path, in one line.
    ensure!(
        applied.stderr.lines().count() == 1 && said <= 2,
        "{applied}"
    );
    Ok(())
}

#[test]
fn verify_says_that_a_device_is_absent() -> Result<()> {
    let pair = Lab::pair()?;
    let sg = Sg::on(&pair.host)?;
    pair.host.ip("link add vnet2 type veth peer name peer2")?;
    pair.host.ip("address add 10.9.0.2/24 dev vnet2")?;
    sg.apply(
        "
groups: {app: {}, db: {ingress: [{protocol: all, from: sg:app}]}}
interfaces: {eth0: {groups: [db]}, vnet2: {groups: [app]}}
",
    )?;
    pair.host.ip("link del vnet2")?;
    let verified = sg.run(&["verify"])?;
    ensure!(
        verified.stdout.contains("! vnet2 is absent\n"),
        "{verified}"
    );
    ensure!(!verified.stdout.contains("does not have it"), "{verified}");
    let member = "- 10.9.0.2 no longer belongs to group app\n";
    ensure!(verified.stdout.contains(member), "{verified}");
    Ok(())
}
