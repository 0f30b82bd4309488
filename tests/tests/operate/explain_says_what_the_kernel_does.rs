//! What `explain` says of a packet is what becomes of it, and saying so changes nothing.

use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use tests::lab::Lab;
use tests::sg::{Ran, Sg};
use tests::sockets::Outcome::{self, Connected, TimedOut};
use tests::sockets::{Session, TcpEcho, UdpEcho, ping, tcp_connects, udp_roundtrip};

/// Rules of every kind, one set for each interface in turn.
const POLICIES: [&str; 5] = [
    "groups: {g: {ingress: [{service: ssh, from: 0.0.0.0/0}, {protocol: udp, ports: 53, from: '::/0'}]}}
interfaces: {eth0: {groups: [g]}}",
    "groups: {g: {ingress: [{protocol: tcp, ports: 20-30, from: 203.0.113.0/24},
                            {protocol: icmp, type: 8, from: 198.51.100.7}], egress: []}}
interfaces: {eth0: {groups: [g], hook: xdp}}",
    "prefix_lists: {office: [203.0.113.5/32, '2001:db8:aa::/48']}
groups: {g: {ingress: [{protocol: all, from: pl:office}]}, other: {ingress: [{service: ssh, from: 198.51.100.7}]}}
interfaces: {eth0: {groups: [g]}}",
    "groups: {friends: {members: [198.51.100.7, '2001:db8:bb::5']},
              g: {ingress: [{protocol: all, from: sg:friends}], egress: [{protocol: all, to: sg:friends}]}}
interfaces: {eth0: {groups: [g]}}",
    "groups: {g: {ingress: [], egress: []}}
interfaces: {eth0: {groups: [g]}}",
];

/// What `explain` says, `true` for pass.
fn explained(sg: &Sg, words: &str) -> Result<(bool, Ran)> {
    let words: Vec<_> = ["explain", "eth0"]
        .into_iter()
        .chain(words.split(' '))
        .collect();
    let ran = sg.run(&words)?;
    match ran.code {
        Some(0) => Ok((true, ran)),
        Some(1) => Ok((false, ran)),
        _ => anyhow::bail!("{ran}"),
    }
}

#[test]
fn the_verdict_is_what_real_packets_get() -> Result<()> {
    let (mut passed, mut dropped) = (0, 0);
    for policy in POLICIES {
        let (pair, sg) = Sg::protecting(policy)?;
        let _listeners = (
            TcpEcho::listen(&pair.host, ":22")?,
            TcpEcho::listen(&pair.host, ":23")?,
            UdpEcho::listen(&pair.host, ":53")?,
            TcpEcho::listen(&pair.world, ":443")?,
        );
        let mut compare = |words: &str, got: Outcome| {
            let (passes, ran) = explained(&sg, words)?;
            ensure!(passes == (got == Connected), "{got:?}, but\n{ran}");
            match passes {
                true => passed += 1,
                false => dropped += 1,
            }
            Ok(())
        };
        for (peer, local) in [
            ("198.51.100.7", "10.0.0.10"),
            ("203.0.113.5", "10.0.0.10"),
            ("2001:db8:aa::7", "2001:db8::10"),
            ("2001:db8:bb::5", "2001:db8::10"),
        ] {
            let at = |address: &str, port: u16| match address.contains(':') {
                true => format!("[{address}]:{port}"),
                false => format!("{address}:{port}"),
            };
            let from = || pair.world.at(peer);
            for port in [22, 23] {
                compare(
                    &format!("ingress tcp {} :{port}", at(peer, 41_000)),
                    tcp_connects(from()?, &at(local, port))?,
                )?;
            }
            compare(
                &format!("ingress udp {} :53", at(peer, 41_000)),
                udp_roundtrip(from()?, &at(local, 53))?,
            )?;
            compare(&format!("ingress ping {peer}"), ping(from()?, local)?)?;
            compare(
                &format!("egress tcp {}", at(peer, 443)),
                tcp_connects(&pair.host, &at(peer, 443))?,
            )?;
        }
    }
    ensure!(
        passed > 15 && dropped > 15,
        "{passed} passed, {dropped} dropped"
    );
    Ok(())
}

const OFFICE: &str = "
groups:
  ssh: {ingress: [{service: ssh, from: 203.0.113.0/24}]}
  web: {ingress: [{service: https, from: [0.0.0.0/0]}]}
  spare: {ingress: [{protocol: tcp, ports: 8080, from: [0.0.0.0/0]}]}
interfaces:
  eth0: {groups: [ssh, web]}
";

#[test]
fn it_names_the_rule_that_admits_and_those_that_nearly_do() -> Result<()> {
    let (_pair, sg) = Sg::protecting(OFFICE)?;
    let told = sg.json(&["explain", "eth0", "ingress", "ssh", "203.0.113.5"])?;
    ensure!(
        told["verdict"] == "pass" && told["reason"] == "rule",
        "{told}"
    );
    ensure!(told["rule"]["group"] == "ssh", "{told}");
    let rules = sg.json(&["rule", "list", "ssh"])?;
    let ingress = &rules["rules"][0];
    ensure!(told["rule"]["id"] == ingress["id"], "{told}\n{rules}");
    ensure!(
        told["steps"]
            .as_array()
            .is_some_and(|steps| steps.len() > 2),
        "{told}"
    );

    let told = sg.json(&["explain", "eth0", "ingress", "ssh", "198.51.100.7"])?;
    let near = told["ends"][0]["near_misses"]
        .as_array()
        .context("near misses")?;
    let near: Vec<_> = near
        .iter()
        .map(|rule| (&rule["group"], &rule["fit"]))
        .collect();
    let wanted = [("ssh", "another-peer"), ("web", "another-port")];
    ensure!(near.len() == 2, "{told}");
    for ((group, fit), wanted) in near.iter().zip(wanted) {
        ensure!(
            (group.as_str(), fit.as_str()) == (Some(wanted.0), Some(wanted.1)),
            "{told}"
        );
    }

    let told = sg.json(&["explain", "eth0", "ingress", "tcp", "198.51.100.7", ":8080"])?;
    let near = told["ends"][0]["near_misses"]
        .as_array()
        .context("near misses")?;
    ensure!(
        near.iter()
            .any(|rule| rule["group"] == "spare" && rule["fit"] == "another-group"),
        "{told}"
    );

    let told = sg.json(&["explain", "eth0", "ingress", "https", "198.51.100.7"])?;
    ensure!(
        told["reason"] == "untracked" && told["ends"][0]["untracked"] == true,
        "{told}"
    );
    Ok(())
}

#[test]
fn the_command_it_gives_allows_what_was_dropped() -> Result<()> {
    let (pair, sg) = Sg::protecting(OFFICE)?;
    let _listener = TcpEcho::listen(&pair.host, ":22")?;
    let from = || pair.world.at("198.51.100.7");
    ensure!(tcp_connects(from()?, "10.0.0.10:22")? == TimedOut);
    let told = sg.json(&["explain", "eth0", "ingress", "ssh", "198.51.100.7"])?;
    let command = told["remedy"]["command"].as_str().context("a remedy")?;
    let words = command
        .strip_prefix("sg-ctl ")
        .context("a command of sg-ctl")?;
    sg.run(&words.split(' ').collect::<Vec<_>>())?.succeeded()?;
    ensure!(
        tcp_connects(from()?, "10.0.0.10:22")? == Connected,
        "{command}"
    );
    Ok(())
}

#[test]
fn asking_opens_no_flow_and_counts_nothing() -> Result<()> {
    let (pair, sg) = Sg::protecting(OFFICE)?;
    let _listener = TcpEcho::listen(&pair.host, ":22")?;
    let mut session = Session::open(pair.world.at("203.0.113.5:41000")?, "10.0.0.10:22")?;
    ensure!(session.echoes()? == Connected);
    let counted = || -> Result<(Value, Value)> {
        let (stats, flows) = (sg.json(&["stats"])?, sg.json(&["flows", "list"])?);
        let flow = &flows["flows"];
        ensure!(
            flow.as_array().is_some_and(|flows| flows.len() == 1),
            "{flows}"
        );
        Ok((stats["interfaces"].clone(), flow[0]["packets_in"].clone()))
    };
    // The last echo is acknowledged late (TCP_DELACK_MAX), and neighbors speak up for a while.
    let mut before = counted()?;
    for _ in 0..20 {
        thread::sleep(Duration::from_millis(300));
        let now = counted()?;
        if now == before {
            break;
        }
        before = now;
    }
    for words in [
        "ingress tcp 203.0.113.5:41000 :22 --flags ack",
        "ingress tcp 203.0.113.5:41001 :22",
        "ingress tcp 203.0.113.5:41000 :22 --flags rst",
        "egress tcp 203.0.113.5:443",
        "ingress tcp 198.51.100.7 :9",
    ] {
        explained(&sg, words)?;
    }
    ensure!(counted()? == before);
    ensure!(session.echoes()? == Connected, "the flow was touched");
    Ok(())
}

#[test]
fn a_packet_of_a_live_flow_is_told_to_be_tracked() -> Result<()> {
    let (pair, sg) = Sg::protecting(OFFICE)?;
    let _listener = TcpEcho::listen(&pair.host, ":22")?;
    let mut session = Session::open(pair.world.at("203.0.113.5:41000")?, "10.0.0.10:22")?;
    ensure!(session.echoes()? == Connected);
    for words in [
        ["ingress", "203.0.113.5:41000", ":22"],
        ["egress", "203.0.113.5:41000", ":22"],
    ] {
        let [direction, peer, local] = words;
        let asked = [
            "explain", "eth0", direction, "tcp", peer, local, "--flags", "ack",
        ];
        let told = sg.json(&asked)?;
        ensure!(told["reason"] == "tracked", "{told}");
        let flow = &told["ends"][0]["flow"];
        ensure!(
            flow["state"] == "established" && flow["opened_by"] == "ingress",
            "{told}"
        );
    }
    Ok(())
}

#[test]
fn between_two_protected_interfaces_both_have_to_let_it_pass() -> Result<()> {
    let pair = Lab::pair()?;
    let sg = Sg::on(&pair.host)?;
    let server = format!(
        "{{groups: {{server: {{ingress: [{{protocol: tcp, ports: 22-23, from: 10.0.0.0/24}}]}}}}, \
         interfaces: {{eth0: {{groups: [server], netns: {}}}}}}}",
        pair.host.namespace()
    );
    let client = format!(
        "{{vpc: other, groups: {{client: {{egress: [{{protocol: tcp, ports: 22, to: 10.0.0.0/24}}]}}}}, \
         interfaces: {{eth0: {{groups: [client], netns: {}}}}}}}",
        pair.world.namespace()
    );
    sg.apply(&server)?;
    sg.apply(&client)?;
    let asked = |port: &str| {
        let asked = ["explain", "eth0", "ingress", "tcp", "10.0.0.1", port];
        sg.json(&[&asked[..], &["--vpc", "default"]].concat())
    };
    let told = asked(":22")?;
    let ends = |told: &Value| -> Vec<String> {
        let ends = told["ends"].as_array().into_iter().flatten();
        ends.map(|end| {
            let word = |name: &str| end[name].as_str().unwrap_or_default().to_owned();
            format!("{} {} {}", word("vpc"), word("direction"), word("verdict"))
        })
        .collect()
    };
    ensure!(told["verdict"] == "pass", "{told}");
    ensure!(
        ends(&told) == ["other egress pass", "default ingress pass"],
        "{told}"
    );
    let told = asked(":23")?;
    ensure!(
        told["verdict"] == "drop" && told["reason"] == "no-rule",
        "{told}"
    );
    ensure!(
        ends(&told) == ["other egress drop", "default ingress pass"],
        "{told}"
    );
    let command = told["remedy"]["command"].as_str().context("a remedy")?;
    ensure!(
        command.contains("--egress") && command.ends_with("--vpc other"),
        "{command}"
    );
    Ok(())
}

#[test]
fn an_interface_that_is_not_protected_is_no_question() -> Result<()> {
    let (pair, sg) = Sg::protecting(OFFICE)?;
    let refused = sg.run(&["explain", "eth1", "ingress", "ssh", "10.0.0.1"])?;
    ensure!(refused.code == Some(2), "{refused}");
    ensure!(
        refused.stderr.contains("did you mean \"eth0\"?"),
        "{refused}"
    );
    pair.host.ip("link del eth0")?;
    let refused = sg.run(&["explain", "eth0", "ingress", "ssh", "10.0.0.1"])?;
    ensure!(refused.code == Some(2), "{refused}");
    ensure!(refused.stderr.contains("sg-ctl restore"), "{refused}");
    Ok(())
}

#[test]
fn a_remedy_is_what_was_meant() -> Result<()> {
    let pair = Lab::pair()?;
    let sg = Sg::on(&pair.host)?;
    sg.apply(
        "
groups:
  web: {ingress: [{protocol: tcp, ports: 443, from: 0.0.0.0/0}]}
  app: {}
  db: {ingress: [{protocol: tcp, ports: 5432, from: sg:app}]}
interfaces: {eth0: {groups: [web, db]}}
",
    )?;
    let explain = |words: &str| {
        let words: Vec<_> = ["explain", "eth0", "ingress"]
            .into_iter()
            .chain(words.split(' '))
            .collect();
        Ok::<_, anyhow::Error>((sg.run(&words)?.stdout, sg.json(&words)?))
    };
    // Open to everyone by IPv4 only.
    let (shown, json) = explain("443 2001:db8:77::7 [2001:db8:77::10]:443")?;
    ensure!(shown.contains("IPv4 only; add ::/0"), "{shown}");
    let command = "sg-ctl rule add web --ingress --protocol tcp --ports 443 --from ::/0";
    ensure!(json["remedy"]["command"] == command, "{json}");
    let item = "{protocol: tcp, ports: 443, from: [\"::/0\"]}";
    ensure!(json["remedy"]["file"]["item"] == item, "{json}");
    ensure!(shown.contains(item), "{shown}");
    // A group that a rule names has no members.
    let (shown, json) = explain("tcp 10.0.0.1 5432")?;
    ensure!(shown.contains("the group has no members"), "{shown}");
    let command = "sg-ctl group members app --add 10.0.0.1";
    ensure!(json["remedy"]["command"] == command, "{json}");
    // What the remedies say is right.
    for line in [
        "group members app --add 10.0.0.1",
        "rule add web --ingress --protocol tcp --ports 443 --from ::/0",
    ] {
        sg.run(&line.split(' ').collect::<Vec<_>>())?.succeeded()?;
    }
    ensure!(explain("tcp:5432 10.0.0.1")?.1["verdict"] == "pass");
    ensure!(explain("https 2001:db8:77::7 [2001:db8:77::10]")?.1["verdict"] == "pass");
    Ok(())
}

#[test]
fn a_full_quota_is_named_with_its_numbers() -> Result<()> {
    let pair = Lab::pair()?;
    let sg = Sg::on(&pair.host)?;
    sg.apply(
        "
groups: {web: {ingress: [{service: http, from: 10.0.0.0/8}]}}
interfaces: {eth0: {groups: [web], max_flows: 1}}
",
    )?;
    let _service = TcpEcho::listen(&pair.host, ":80")?;
    let doctor = || Ok::<_, anyhow::Error>(sg.run(&["doctor"])?.stdout);
    ensure!(doctor()?.contains("there is room for more at every interface"));
    let mut session = Session::open(&pair.world, "10.0.0.10:80")?;
    ensure!(session.echoes()? == Connected);
    let found = "eth0 holds 1 of the 1 connections it may have: new ones are dropped (quota-full)";
    let explained = ["explain", "eth0", "ingress", "http", "10.0.0.1"];
    for shown in [
        sg.run(&["status"])?.stdout,
        sg.run(&explained)?.stdout,
        doctor()?,
    ] {
        ensure!(shown.contains(found), "{shown}");
        ensure!(
            shown.contains("sg-ctl attach eth0 --max-flows 2"),
            "{shown}"
        );
    }
    let json = sg.json(&["status"])?;
    ensure!(
        json["full"][0]["flows"] == 1 && json["full"][0]["capacity"] == 1,
        "{json}"
    );
    // While it is audited, nothing is dropped, and nothing says so.
    sg.run(&["attach", "eth0", "--audit"])?.succeeded()?;
    let found = "eth0 holds 1 of the 1 connections it may have: new ones would be dropped, and pass \
                 because it is audited (quota-full)";
    let doctor = doctor()?;
    ensure!(doctor.contains(found), "{doctor}");
    let mut passes = Session::open(&pair.world, "10.0.0.10:80")?;
    ensure!(passes.echoes()? == Connected);
    let full = &sg.json(&["status"])?["full"][0];
    ensure!(
        full["audit"] == true && full["packets"].as_u64() > Some(0),
        "{full}"
    );
    sg.run(&["attach", "eth0", "--enforce"])?.succeeded()?;
    // The handshake's last packet is dropped, and all that follows.
    let mut second = Session::open(&pair.world, "10.0.0.10:80")?;
    ensure!(second.echoes()? != Connected);
    sg.run(&["attach", "eth0", "--max-flows", "5"])?
        .succeeded()?;
    ensure!(sg.json(&["status"])?["full"] == serde_json::json!([]));
    let mut third = Session::open(&pair.world, "10.0.0.10:80")?;
    ensure!(third.echoes()? == Connected);
    Ok(())
}
