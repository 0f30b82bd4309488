//! An entry of a policy that says which devices it is for protects each of them, whenever it comes, and
//! a device has nothing from one before it.

use anyhow::{Context as _, Result, ensure};
use tests::lab::{GuestBehindVeth, Host, Lab};
use tests::sg::Sg;
use tests::sockets::Outcome::{Connected, TimedOut};
use tests::sockets::{Outcome, Session, TcpEcho, tcp_connects};

const ADDRESSES: &str = "side: guest, addresses: [10.0.0.10], groups: [app]";

fn policy(interfaces: &str) -> String {
    format!(
        "groups:\n  app: {{ingress: [{{protocol: tcp, ports: 80, from: 10.0.0.0/24}}]}}\n  web: {{}}\n\
         interfaces:\n{interfaces}"
    )
}

/// The state of each interface by its name.
fn states(sg: &Sg) -> Result<Vec<(String, String)>> {
    let status = sg.json(&["status"])?;
    let interfaces = status["interfaces"].as_array().context("interfaces")?;
    let text = |value: &serde_json::Value| value.as_str().unwrap_or_default().to_owned();
    let states = interfaces.iter();
    Ok(states
        .map(|interface| (text(&interface["interface"]), text(&interface["state"])))
        .collect())
}

#[track_caller]
fn are(sg: &Sg, wanted: &[(&str, &str)]) -> Result<()> {
    let found = states(sg)?;
    let found: Vec<_> = found
        .iter()
        .map(|(name, state)| (name.as_str(), state.as_str()))
        .collect();
    ensure!(found == wanted, "{found:?}, expected {wanted:?}");
    Ok(())
}

fn outcomes(lab: &GuestBehindVeth) -> Result<[Outcome; 2]> {
    Ok([
        tcp_connects(&lab.world, "10.0.0.10:80")?,
        tcp_connects(&lab.world, "10.0.0.10:81")?,
    ])
}

fn rename(host: &Host, from: &str, to: &str) -> Result<()> {
    host.ip(&format!("link set {from} down"))?;
    host.ip(&format!("link set {from} name {to}"))?;
    host.ip(&format!("link set {to} up")).map(drop)
}

fn set_alias(host: &Host, device: &str, alias: &str) -> Result<()> {
    host.run("ip", &["link", "set", device, "alias", alias])
        .map(drop)
}

fn make(host: &Host, name: &str) -> Result<()> {
    host.ip(&format!("link add {name} type veth peer name p-{name}"))
        .map(drop)
}

#[test]
fn a_device_that_comes_is_protected_by_the_entry_that_waits_for_it() -> Result<()> {
    let lab = Lab::guest_behind_veth()?;
    let _web = (
        TcpEcho::listen(&lab.guest, ":80")?,
        TcpEcho::listen(&lab.guest, ":81")?,
    );
    let sg = Sg::on(&lab.machine)?;
    let mac = lab.guest.mac("eth0")?.map(|byte| format!("{byte:02x}"));
    let mac = mac.join(":");
    for matching in [
        "name: \"guest?\"".to_owned(),
        "name: guest0".to_owned(),
        // The guest's own, which is the other end's.
        format!("mac: \"{mac}\""),
        "alias: \"vm web*\", name: \"g*\"".to_owned(),
    ] {
        set_alias(&lab.machine, "guest0", "none")?;
        rename(&lab.machine, "guest0", "off0")?;
        let is_mac = matching.starts_with("mac");
        let entry = format!("  vm: {{match: {{{matching}}}, {ADDRESSES}}}");
        sg.apply(&policy(&entry))?;
        if !is_mac {
            are(&sg, &[("vm", "waiting")])?;
            let told = sg.run(&["explain", "vm", "ingress", "tcp:80", "10.0.0.1"])?;
            ensure!(told.stderr.contains("has no device now"), "{}", told.stderr);
            ensure!(outcomes(&lab)? == [Connected, Connected], "{matching}");
        }
        set_alias(&lab.machine, "off0", "vm web 1")?;
        rename(&lab.machine, "off0", "guest0")?;
        sg.run(&["restore", "--device", "guest0"])?.succeeded()?;
        if is_mac {
            sg.run(&["restore"])?.succeeded()?;
        }
        are(&sg, &[("vm/guest0", "protected")])?;
        ensure!(outcomes(&lab)? == [Connected, TimedOut], "{matching}");
        for name in ["vm/guest0", "guest0", "vm"] {
            let told = sg.json(&["explain", name, "ingress", "tcp:80", "10.0.0.1"])?;
            ensure!(told["verdict"] == "pass", "{name}: {told}");
            let stats = sg.json(&["stats", name])?;
            ensure!(
                stats["interfaces"][0]["interface"] == "vm/guest0",
                "{name}: {stats}"
            );
        }
        ensure!(sg.json(&["verify"])?["same"] == true);
        sg.run(&["detach", "vm"])?.succeeded()?;
        are(&sg, &[])?;
    }
    Ok(())
}

#[test]
fn a_renamed_device_goes_on_and_another_under_its_name_has_nothing() -> Result<()> {
    let lab = Lab::guest_behind_veth()?;
    let _web = TcpEcho::listen(&lab.guest, ":80")?;
    let sg = Sg::on(&lab.machine)?;
    set_alias(&lab.machine, "guest0", "vm 1")?;
    sg.apply(&policy(&format!(
        "  vm: {{match: {{alias: vm 1}}, {ADDRESSES}}}"
    )))?;
    let mut open = Session::open(&lab.world, "10.0.0.10:80")?;
    ensure!(open.echoes()? == Connected);
    let ifindex =
        |sg: &Sg| Ok::<_, anyhow::Error>(sg.json(&["status"])?["interfaces"][0]["ifindex"].clone());
    let before = ifindex(&sg)?;
    let flows = |sg: &Sg| -> Result<usize> {
        let flows = sg.json(&["flows", "list", "--interface", "vm"])?;
        Ok(flows["flows"].as_array().context("flows")?.len())
    };
    ensure!(flows(&sg)? == 1);

    rename(&lab.machine, "guest0", "other0")?;
    make(&lab.machine, "guest0")?;
    sg.run(&["restore"])?.succeeded()?;
    are(&sg, &[("vm/other0", "protected")])?;
    ensure!(ifindex(&sg)? == before);
    ensure!(open.echoes()? == Connected);
    ensure!(flows(&sg)? == 1);

    // One that does not match any more is not opened.
    set_alias(&lab.machine, "other0", "vm 2")?;
    sg.run(&["restore"])?.succeeded()?;
    are(&sg, &[("vm/other0", "unmatched")])?;
    ensure!(tcp_connects(&lab.world, "10.0.0.10:81")? == TimedOut);

    // The next one has the alias, and nothing of what was before.
    set_alias(&lab.machine, "guest0", "vm 1")?;
    lab.machine.ip("link del other0")?;
    sg.run(&["restore"])?.succeeded()?;
    are(&sg, &[("vm/guest0", "protected")])?;
    let stats = sg.json(&["stats"])?;
    ensure!(
        stats["interfaces"][0]["reasons"] == serde_json::json!([]),
        "{stats}"
    );
    let owned = sg.json(&["flows", "list"])?;
    let is_its = |flow: &serde_json::Value| flow["interface"] == "vm/guest0";
    ensure!(
        !owned["flows"]
            .as_array()
            .context("flows")?
            .iter()
            .any(is_its)
    );
    Ok(())
}

#[test]
fn a_device_belongs_to_the_most_exact_entry() -> Result<()> {
    let lab = Lab::new()?;
    let machine = lab.host("machine")?;
    let sg = Sg::on(&machine)?;
    for name in ["vnet1", "vnet2", "vnet3", "vnet4", "vnet5"] {
        make(&machine, name)?;
    }
    machine.ip("link set vnet1 address 02:00:00:00:00:01")?;
    machine.ip("link set vnet2 address 02:00:00:00:00:02")?;
    for name in ["vnet1", "vnet2", "vnet3"] {
        set_alias(&machine, name, "web")?;
    }
    sg.apply(&policy(
        "  vnet1: {groups: [web]}
  all: {match: {name: \"*\"}, groups: [web]}
  fourth: {match: {name: vnet4}, groups: [web]}
  by-alias: {match: {alias: web}, groups: [web]}
  by-mac: {match: {mac: \"02:00:00:00:00:02\"}, groups: [web]}
  vnets: {match: {name: \"vnet*\"}, groups: [web]}",
    ))?;
    let mut found: Vec<_> = states(&sg)?.into_iter().map(|(name, _)| name).collect();
    found.retain(|name| !name.starts_with("all/"));
    ensure!(
        found
            == [
                "by-alias/vnet3",
                "by-mac/vnet2",
                "fourth/vnet4",
                "vnet1",
                "vnets/vnet5"
            ],
        "{found:?}"
    );
    // Its other ends are everybody's.
    ensure!(states(&sg)?.iter().any(|(name, _)| name == "all/p-vnet5"));
    let refused = sg.run(&["attach", "more", "--match", "name=vnet*"])?;
    ensure!(
        refused.stderr.contains("matches the same devices as entry"),
        "{}",
        refused.stderr
    );
    sg.run(&[
        "attach",
        "more",
        "--match",
        "name=vnet*",
        "--match",
        "mac=02:00:00:*",
    ])?
    .succeeded()?;
    let exported = sg.run(&["export"])?.succeeded()?.stdout;
    ensure!(
        exported
            .contains("more: {match: {name: \"vnet*\", mac: \"02:00:00:*\"}, groups: [default]"),
        "{exported}"
    );
    ensure!(sg.run(&["diff", &sg.write("same.yaml", &exported)?])?.code == Some(0));
    Ok(())
}
