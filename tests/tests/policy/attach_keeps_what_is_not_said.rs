//! A second `attach` changes what it says and keeps everything else.

use anyhow::{Context as _, Result, ensure};
use tests::lab::Lab;
use tests::sg::Sg;

const POLICY: &str = "
groups: {web: {}, db: {}, other: {}}
interfaces:
  eth0:
    groups: [web, db]
    side: guest
    addresses: [10.0.5.2]
    macs: any
    vlans: [7]
    hook: tc
    ethertypes: [0x8915]
    tcp_pickup: false
    fragments: strict
    egress_drops: told
    timeouts: {tcp_established: 3600, udp: 60, udp_stream: 120}
    max_flows: 1000
    audit: true
";

/// The lines of the exported policy that are about interfaces.
fn interfaces(sg: &Sg) -> Result<String> {
    let exported = sg.run(&["export"])?.succeeded()?.stdout;
    let (_, interfaces) = exported.split_once("\ninterfaces:").context("none")?;
    Ok(interfaces.to_owned())
}

#[test]
fn one_setting_changes_and_the_others_stay() -> Result<()> {
    let (_pair, sg) = Sg::protecting(POLICY)?;
    let before = interfaces(&sg)?;
    let nothing = sg.run(&["attach", "eth0"])?.succeeded()?;
    ensure!(nothing.stdout == "nothing to change\n", "{nothing}");
    for (words, wanted) in [
        ("--add-group other", "groups +other"),
        ("--remove-group other", "groups -other"),
        ("--group other", "groups +other, -db, -web"),
        ("--group web,db", "groups +db, +web, -other"),
        ("--max-flows 2000", "max_flows 1,000 → 2,000"),
        ("--max-flows 1000", "max_flows 2,000 → 1,000"),
        ("--enforce", "audit yes → no"),
        ("--audit", "audit no → yes"),
        ("--tcp-established 2h", "tcp_established 3600 s → 7200 s"),
        ("--tcp-established 1h", "tcp_established 7200 s → 3600 s"),
        ("--tcp-pickup", "TCP pickup no → yes"),
        ("--no-tcp-pickup", "TCP pickup yes → no"),
        ("--vlan none", "VLANs -7"),
        ("--vlan 7", "VLANs +7"),
    ] {
        let words = [vec!["attach", "eth0"], words.split(' ').collect()].concat();
        let ran = sg.run(&words)?.succeeded()?;
        let told = format!("~ interface eth0: {wanted}\n");
        ensure!(ran.stdout == told, "{ran}");
    }
    let after = interfaces(&sg)?;
    ensure!(after == before, "{before}\nbecame\n{after}");
    Ok(())
}

#[test]
fn the_side_changes_only_when_it_is_said() -> Result<()> {
    let (_pair, sg) = Sg::protecting(POLICY)?;
    let ran = sg.run(&["attach", "eth0", "--group", "web"])?.succeeded()?;
    ensure!(!ran.stdout.contains("side"), "{ran}");
    let status = sg.json(&["status"])?;
    ensure!(status["interfaces"][0]["side"] == "guest", "{status}");
    let ran = sg.run(&["attach", "eth0", "--side", "host"])?.succeeded()?;
    ensure!(ran.stdout.contains("side guest → host"), "{ran}");
    // A guest without addresses would reach nothing.
    let ran = sg.run(&["attach", "eth0", "--side", "guest"])?;
    ensure!(ran.code == Some(2), "{ran}");
    ensure!(ran.stderr.contains("has no addresses"), "{ran}");
    Ok(())
}

#[test]
fn several_interfaces_are_attached_at_once_or_none() -> Result<()> {
    let lab = Lab::new()?;
    let host = lab.host("a")?;
    for device in ["eth0", "eth1"] {
        host.ip(&format!(
            "link add {device} type veth peer name {device}-peer"
        ))?;
    }
    let sg = Sg::on(&host)?;
    sg.run(&["group", "create", "web"])?.succeeded()?;
    let refused = sg.run(&["attach", "eth0", "eth9", "--group", "web"])?;
    ensure!(refused.code == Some(2), "{refused}");
    ensure!(refused.stderr.contains("eth9"), "{refused}");
    let status = sg.json(&["status"])?;
    ensure!(status["interfaces"] == serde_json::json!([]), "{status}");
    let both = ["attach", "eth0", "eth1", "--group", "web"];
    sg.run(&both)?.succeeded()?;
    let status = sg.json(&["status"])?;
    for interface in [0, 1] {
        let interface = &status["interfaces"][interface];
        ensure!(interface["attached"] == true, "{status}");
        ensure!(interface["groups"][0] == "web", "{status}");
    }
    Ok(())
}

#[test]
fn an_interface_of_another_vpc_is_found_by_its_name() -> Result<()> {
    let (_pair, sg) =
        Sg::protecting("{vpc: prod, groups: {web: {}}, interfaces: {eth0: {groups: [web]}}}")?;
    let audited = sg.run(&["attach", "eth0", "--audit"])?.succeeded()?;
    ensure!(
        audited.stdout == "VPC prod\n~ interface eth0: audit no → yes\n",
        "{audited}"
    );
    let status = sg.json(&["status"])?;
    let interface = &status["interfaces"][0];
    ensure!(
        interface["vpc"] == "prod" && interface["audit"] == true,
        "{status}"
    );
    ensure!(interface["groups"][0] == "web", "{status}");
    Ok(())
}

#[test]
fn a_group_that_it_is_not_in_cannot_be_removed() -> Result<()> {
    let (_pair, sg) = Sg::protecting(POLICY)?;
    for (group, wanted) in [
        ("other", "interface \"eth0\" is not in group \"other\""),
        ("web,db", "has no group; give it at least one"),
    ] {
        let ran = sg.run(&["attach", "eth0", "--remove-group", group])?;
        ensure!(ran.code == Some(2) && ran.stderr.contains(wanted), "{ran}");
    }
    Ok(())
}

#[test]
fn members_are_shown_with_where_they_come_from() -> Result<()> {
    let pair = Lab::pair()?;
    let sg = Sg::on(&pair.host)?;
    sg.apply(
        "
groups: {app: {members: [192.0.2.7]}, empty: {}}
interfaces:
  eth0: {groups: [app]}
  vnet0: {groups: [app], side: guest, addresses: [10.0.5.2]}
  eth1: {groups: [app]}
",
    )?;
    let shown = sg.run(&["group", "members", "app"])?.succeeded()?.stdout;
    for (address, from) in [
        ("10.0.0.10", "interface eth0"),
        ("10.0.5.2", "the guest behind vnet0"),
        ("192.0.2.7", "static"),
    ] {
        let mut lines = shown.lines();
        let line = lines.find(|line| line.starts_with(&format!("{address} ")));
        let line = line.with_context(|| format!("no {address}: {shown}"))?;
        ensure!(line.ends_with(from), "{shown}");
    }
    ensure!(!shown.contains("fe80"), "{shown}");
    ensure!(
        shown.contains("interface eth1 is in the group, but has no address"),
        "{shown}"
    );
    let json = sg.json(&["group", "members", "app"])?;
    ensure!(
        json["members"] == serde_json::json!(["192.0.2.7"]),
        "{json}"
    );
    ensure!(json["addresses"][0]["interface"] == "eth0", "{json}");
    let shown = sg.run(&["group", "members", "empty"])?.succeeded()?;
    ensure!(shown.stdout.contains("--add-group empty"), "{shown}");
    Ok(())
}

#[test]
fn a_vpc_is_listed_and_deleted_when_it_has_no_interfaces() -> Result<()> {
    let (_pair, sg) =
        Sg::protecting("{vpc: prod, groups: {web: {}}, interfaces: {eth0: {groups: [web]}}}")?;
    let listed = sg.run(&["vpc", "list"])?.succeeded()?.stdout;
    let words: Vec<_> = listed
        .lines()
        .last()
        .unwrap_or_default()
        .split_whitespace()
        .collect();
    ensure!(words == ["prod", "2", "0", "eth0"], "{listed}");
    let refused = sg.run(&["vpc", "delete", "prod"])?;
    ensure!(
        refused.code == Some(2) && refused.stderr.contains("\"eth0\""),
        "{refused}"
    );
    sg.run(&["detach", "eth0"])?.succeeded()?;
    sg.run(&["vpc", "delete", "prod"])?.succeeded()?;
    let json = sg.json(&["vpc", "list"])?;
    ensure!(
        json["vpcs"]
            .as_array()
            .is_some_and(|vpcs| { vpcs.iter().all(|vpc| vpc["vpc"] != "prod") }),
        "{json}"
    );
    let missing = sg.run(&["vpc", "delete", "prd"])?;
    ensure!(missing.code == Some(2), "{missing}");
    Ok(())
}
