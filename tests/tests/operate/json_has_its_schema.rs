//! What `--json` prints has the fields that other tools rely on, and true numbers in them.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result, ensure};
use nix::sys::signal::Signal;
use serde_json::Value;
use tests::daemon::Daemon;
use tests::lab::Pair;
use tests::running::Running;
use tests::sg::Sg;
use tests::sockets::{Outcome, Session, TcpEcho, tcp_connects};

const POLICY: &str = "{groups: {ssh: {ingress: [{service: ssh, from: 10.0.0.0/8}]}}, \
                      interfaces: {eth0: {groups: [ssh], hook: tc}}}";

fn machine() -> Result<(Pair, Sg, TcpEcho)> {
    let (pair, sg) = Sg::protecting(POLICY)?;
    let ssh = TcpEcho::listen(&pair.host, ":22")?;
    Ok((pair, sg, ssh))
}

/// Whether each field is there and of the type: `n`umber, `s`tring, `b`oolean, `a`rray, or `?`
/// anything.
#[track_caller]
fn has(value: &Value, fields: &[(&str, char)]) {
    for (name, kind) in fields {
        let field = value
            .get(name)
            .unwrap_or_else(|| panic!("no {name} in {value}"));
        let right = match kind {
            'n' => field.is_u64(),
            's' => field.is_string(),
            'b' => field.is_boolean(),
            'a' => field.is_array(),
            _ => true,
        };
        assert!(right, "{name} has another type in {value}");
    }
}

#[test]
fn stats_count_what_was_sent() -> Result<()> {
    let (pair, sg, _ssh) = machine()?;
    ensure!(tcp_connects(&pair.world, "10.0.0.10:22")? == Outcome::Connected);
    ensure!(tcp_connects(&pair.world, "10.0.0.10:22")? == Outcome::Connected);
    ensure!(tcp_connects(&pair.world, "10.0.0.10:23")? == Outcome::TimedOut);
    let stats = sg.json(&["stats"])?;
    let interface = &stats["interfaces"][0];
    has(
        interface,
        &[
            ("name", 's'),
            ("vpc", 's'),
            ("groups", 'a'),
            ("reasons", 'a'),
        ],
    );
    let reasons = interface["reasons"].as_array().context("reasons")?;
    for reason in reasons {
        has(
            reason,
            &[
                ("direction", 's'),
                ("reason", 's'),
                ("packets", 'n'),
                ("bytes", 'n'),
            ],
        );
    }
    let counted = |name: &str| {
        let found = reasons
            .iter()
            .find(|r| r["reason"] == name && r["direction"] == "ingress");
        found.map(|r| (r["packets"].as_u64(), r["bytes"].as_u64()))
    };
    ensure!(
        counted("rule").is_some_and(|(packets, _)| packets == Some(2)),
        "{stats}"
    );
    // The kernel of the caller gives up before it would send a second SYN.
    ensure!(
        counted("no-rule").is_some_and(|(packets, _)| packets == Some(1)),
        "{stats}"
    );
    let rules = stats["rules"].as_array().context("rules")?;
    for rule in rules {
        has(
            rule,
            &[
                ("id", 's'),
                ("group", 's'),
                ("direction", 's'),
                ("packets", 'n'),
                ("bytes", 'n'),
                ("flows", 'n'),
                ("last_hit", '?'),
            ],
        );
    }
    let ssh = rules
        .iter()
        .find(|rule| rule["direction"] == "ingress")
        .context("the rule")?;
    ensure!(ssh["flows"] == 2 && ssh["last_hit"].is_u64(), "{ssh}");
    let egress = rules
        .iter()
        .find(|rule| rule["direction"] == "egress")
        .context("a rule")?;
    ensure!(
        egress["flows"] == 0 && egress["last_hit"].is_null(),
        "{egress}"
    );
    Ok(())
}

#[test]
fn status_and_flows_say_what_is() -> Result<()> {
    let (pair, sg, _ssh) = machine()?;
    let mut session = Session::open(pair.world.at("10.0.0.1:40000")?, "10.0.0.10:22")?;
    ensure!(session.echoes()? == Outcome::Connected);
    let status = sg.json(&["status"])?;
    has(&status, &[("revision", 'n'), ("interfaces", 'a')]);
    let interface = &status["interfaces"][0];
    has(
        interface,
        &[
            ("name", 's'),
            ("ifindex", 'n'),
            ("vpc", 's'),
            ("groups", 'a'),
            ("side", 's'),
            ("hook", 's'),
            ("attached", 'b'),
        ],
    );
    let ifindex = pair.host.link("eth0")?.ifindex();
    ensure!(
        interface["ifindex"].as_u64() == u64::try_from(ifindex).ok(),
        "{status}"
    );
    ensure!(
        interface["attached"] == true && interface["hook"] == "tc",
        "{status}"
    );
    has(
        &status["flows"],
        &[("embryonic", 'n'), ("assured", 'n'), ("capacity", 'n')],
    );
    ensure!(status["flows"]["assured"] == 1, "{status}");
    let flows = sg.json(&["flows", "list"])?;
    let list = flows["flows"].as_array().context("flows")?;
    ensure!(list.len() == 1, "{flows}");
    let flow = &list[0];
    has(
        flow,
        &[
            ("zone", 'n'),
            ("protocol", 's'),
            ("state", 's'),
            ("expires_in_s", 'n'),
            ("rule", 's'),
            ("packets_in", 'n'),
            ("packets_out", 'n'),
            ("bytes_in", 'n'),
            ("bytes_out", 'n'),
        ],
    );
    ensure!(
        flow["local"] == "10.0.0.10" && flow["local_port"] == 22,
        "{flow}"
    );
    ensure!(
        flow["peer"] == "10.0.0.1" && flow["peer_port"] == 40_000,
        "{flow}"
    );
    ensure!(flow["protocol"] == "tcp", "{flow}");
    // SYN, ACK and what was said; SYN-ACK and the echo.
    ensure!(
        flow["packets_in"].as_u64() >= Some(3) && flow["packets_out"].as_u64() >= Some(2),
        "{flow}"
    );
    Ok(())
}

/// The rows of a table of `docs/json.md`, without the marks of code.
fn documented(heading: &str) -> Result<Vec<[String; 2]>> {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/json.md");
    let page = fs::read_to_string(page)?;
    let (_, section) = page
        .split_once(&format!("## {heading}\n"))
        .context("no such section")?;
    let section = section.split("\n## ").next().unwrap_or_default();
    let rows = section.lines().filter(|line| line.starts_with("| `"));
    let rows = rows.filter_map(|row| {
        let mut cells = row
            .trim_matches('|')
            .split('|')
            .map(|cell| cell.replace('`', ""));
        Some([
            cells.next()?.trim().to_owned(),
            cells.next()?.trim().to_owned(),
        ])
    });
    Ok(rows.collect())
}

/// Every field below a value, with the types of its values.
fn fields_of(value: &Value, found: &mut BTreeMap<String, BTreeSet<&'static str>>) {
    match value {
        Value::Array(items) => items.iter().for_each(|item| fields_of(item, found)),
        Value::Object(fields) => {
            for (name, value) in fields {
                let kind = match value {
                    Value::Null => "null",
                    Value::Bool(_) => "boolean",
                    Value::Number(_) => "number",
                    Value::String(_) => "string",
                    Value::Array(_) => "array",
                    Value::Object(_) => "object",
                };
                found.entry(name.clone()).or_default().insert(kind);
                // The names of limits are no fields.
                if name != "limits" {
                    fields_of(value, found);
                }
            }
        }
        _ => {}
    }
}

/// Every line of a trace that tells one packet that passes and one that is dropped.
fn trace(pair: &Pair, sg: &Sg) -> Result<Vec<Value>> {
    let words = [
        "trace", "eth0", "--peer", "10.0.0.1", "--port", "40001", "--json",
    ];
    let trace = Running::reading(sg.spawn(&words)?)?;
    let begun = trace.json_when(|| Ok(()), |line| line["event"] == "begun")?;
    let from = || pair.world.at("10.0.0.1:40001");
    ensure!(tcp_connects(from()?, "10.0.0.10:22")? == Outcome::Connected);
    ensure!(tcp_connects(from()?, "10.0.0.10:23")? == Outcome::TimedOut);
    trace.signal(Signal::SIGINT)?;
    let (_, lines) = trace.end()?;
    let mut told = vec![begun];
    for line in &lines {
        told.push(serde_json::from_str(line).with_context(|| format!("not JSON: {line}"))?);
    }
    let events = ["begun", "packet", "ended"];
    ensure!(
        events
            .iter()
            .all(|event| told.iter().any(|line| line["event"] == *event)),
        "{told:?}"
    );
    Ok(told)
}

#[test]
fn every_field_is_described() -> Result<()> {
    let (pair, sg, _ssh) = machine()?;
    let mut session = Session::open(pair.world.at("10.0.0.1:40000")?, "10.0.0.10:22")?;
    ensure!(session.echoes()? == Outcome::Connected);
    ensure!(tcp_connects(&pair.world, "10.0.0.10:23")? == Outcome::TimedOut);
    sg.run(&["prefix-list", "set", "office", "10.9.0.0/16"])?
        .succeeded()?;
    let other = sg.write(
        "other.yaml",
        "{groups: {ssh: {}}, interfaces: {eth0: {groups: [ssh]}}}",
    )?;
    let _daemon = Daemon::start(&sg, "")?;
    let commands = documented("Commands")?;
    let described: BTreeMap<_, _> = documented("Fields")?
        .into_iter()
        .map(|[name, kinds]| (name, kinds))
        .collect();
    let mut found = BTreeMap::new();
    for words in [
        "status",
        "stats",
        "flows list",
        "flows show",
        "flows terminate --all --dry-run",
        "explain eth0 ingress tcp 10.0.0.1:40000 :22",
        "explain eth0 ingress tcp 192.0.2.1:40000 :22",
        "diagnose 10.0.0.1 9 --timeout 0.2",
        "diff FILE",
        "apply --dry-run FILE",
        "check",
        "check FILE",
        "verify",
        "doctor",
        "limits",
        "group list",
        "group show ssh",
        "group dependents ssh",
        "group members ssh",
        "vpc list",
        "rule list",
        "prefix-list list",
        "prefix-list show office",
        "daemon status",
    ] {
        let words = words.replace("FILE", &other);
        let words: Vec<_> = words.split(' ').collect();
        let printed = sg.json(&words)?;
        ensure!(printed["schema"] == 2, "{printed}");
        // The longest name of a command that the words begin with.
        let mut rows = commands.iter().filter(|[names, _]| {
            let names = names.split(", ").map(str::trim);
            names
                .into_iter()
                .any(|name| words.join(" ").starts_with(name))
        });
        let [names, top] = rows
            .next_back()
            .with_context(|| format!("{words:?} is not described"))?;
        for field in top.split([',', ':']).map(str::trim) {
            ensure!(
                printed.get(field).is_some(),
                "{names} has no {field}: {printed:#}"
            );
        }
        fields_of(&printed, &mut found);
    }
    for line in trace(&pair, &sg)? {
        ensure!(line["schema"] == 2, "{line}");
        fields_of(&line, &mut found);
    }
    let mut wrong = Vec::new();
    for (name, kinds) in &found {
        let Some(documented) = described.get(name) else {
            wrong.push(format!("{name} ({kinds:?}) is not described"));
            continue;
        };
        for kind in kinds.iter().filter(|kind| !documented.contains(*kind)) {
            wrong.push(format!("{name} is {kind} too, not only {documented}"));
        }
    }
    ensure!(wrong.is_empty(), "{}", wrong.join("\n"));
    Ok(())
}
