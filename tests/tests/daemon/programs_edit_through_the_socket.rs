//! Programs edit rules, members and prefixes through the daemon's socket. Requests that wait together become
//! one revision; each has an answer of its own, and what is refused keeps nothing else from being made.

use std::collections::BTreeSet;
use std::io::{Read as _, Write as _};
use std::thread;

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};
use tests::daemon::Daemon;
use tests::lab::{Lab, Pair};
use tests::sg::Sg;
use tests::sockets::Outcome::{Connected, TimedOut};
use tests::sockets::{TcpEcho, tcp_connects};

const POLICY: &str = "
prefix_lists:
  clients: [198.51.100.0/24]
groups:
  web: {ingress: [{protocol: tcp, ports: 22, from: [pl:clients, sg:admin]}]}
  admin: {members: [192.0.2.1]}
interfaces:
  eth0: {groups: [web]}
";

fn machine() -> Result<(Pair, Sg, Daemon)> {
    let pair = Lab::pair()?;
    let sg = Sg::on(&pair.host)?;
    sg.apply(POLICY)?;
    let daemon = Daemon::start(&sg, "")?;
    Ok((pair, sg, daemon))
}

fn rule(port: u32, peer: &str) -> Value {
    json!({"add_rule": {
        "group": "web", "direction": "ingress", "protocol": "tcp", "ports": port.to_string(), "peer": peer
    }})
}

fn edit(daemon: &Daemon, edits: &[Value]) -> Result<(u16, Value)> {
    let (code, body) = daemon.post("/edits", &json!({ "edits": edits }).to_string())?;
    Ok((code, serde_json::from_str(&body).with_context(|| body)?))
}

fn revision(sg: &Sg) -> Result<u64> {
    sg.json(&["status"])?["revision"]
        .as_u64()
        .context("revision")
}

fn holds(sg: &Sg) -> Result<()> {
    let told = sg.json(&["verify"])?;
    ensure!(told["same"] == true, "{told}");
    Ok(())
}

#[test]
fn an_edit_is_in_force_when_it_is_answered() -> Result<()> {
    let (pair, sg, daemon) = machine()?;
    let _listener = TcpEcho::listen(&pair.host, ":22")?;
    let ssh = || tcp_connects(&pair.world, "10.0.0.10:22");
    let members = |change: &str| json!({ change: {"group": "admin", "addresses": ["10.0.0.1"]} });
    let prefixes =
        |change: &str| json!({ change: {"prefix_list": "clients", "prefixes": ["10.0.0.0/28"]} });
    for (come, go) in [
        (members("add_members"), members("remove_members")),
        (prefixes("add_prefixes"), prefixes("remove_prefixes")),
    ] {
        ensure!(ssh()? == TimedOut);
        let (code, made) = edit(&daemon, &[come])?;
        ensure!(code == 200 && made["revision"] == revision(&sg)?, "{made}");
        ensure!(ssh()? == Connected);
        let (code, made) = edit(&daemon, &[go])?;
        ensure!(code == 200, "{made}");
    }
    let (code, made) = edit(&daemon, &[rule(22, "10.0.0.1/32")])?;
    ensure!(code == 200 && ssh()? == Connected, "{made}");
    let id = made["rules"][0].clone();
    ensure!(
        sg.run(&["rule", "list", "web"])?
            .stdout
            .contains(id.as_str().context("an id")?)
    );
    let (code, made) = edit(
        &daemon,
        &[json!({"remove_rule": {"group": "web", "rule": id}})],
    )?;
    ensure!(code == 200 && ssh()? == TimedOut, "{made}");
    holds(&sg)
}

#[test]
fn many_requests_are_made_together_and_each_has_its_own_answer() -> Result<()> {
    let (_pair, sg, daemon) = machine()?;
    let before = revision(&sg)?;
    const CLIENTS: u32 = 24;
    const EACH: u32 = 10;
    let answers = thread::scope(|scope| {
        let clients: Vec<_> = (0..CLIENTS)
            .map(|client| {
                let daemon = &daemon;
                scope.spawn(move || -> Result<Vec<(u16, Value)>> {
                    (0..EACH)
                        .map(|number| {
                            let port = 1000 + client * EACH + number;
                            match number {
                                // All of a request is made, or nothing.
                                3 => edit(
                                    daemon,
                                    &[rule(port, "10.0.0.0/8"), rule(port, "sg:nobody")],
                                ),
                                5 => edit(daemon, &[rule(22, "sg:admin")]),
                                _ => edit(daemon, &[rule(port, "10.0.0.0/8")]),
                            }
                        })
                        .collect()
                })
            })
            .collect();
        let answers = clients
            .into_iter()
            .map(|client| client.join().expect("a client"));
        answers.collect::<Result<Vec<_>>>()
    })?;
    let mut revisions = BTreeSet::new();
    for answers in answers {
        for (number, (code, answer)) in answers.into_iter().enumerate() {
            match number {
                3 => ensure!(
                    code == 409
                        && answer["error"]
                            .as_str()
                            .context("error")?
                            .contains("nobody"),
                    "{answer}"
                ),
                5 => ensure!(
                    code == 409 && answer["error"].as_str().context("error")?.contains("twice"),
                    "{answer}"
                ),
                _ => {
                    ensure!(code == 200, "{answer}");
                    revisions.insert(answer["revision"].as_u64().context("revision")?);
                }
            }
        }
    }
    let last = revision(&sg)?;
    ensure!(revisions.iter().next_back() == Some(&last));
    ensure!(last - before == revisions.len() as u64);
    let made = u64::from(CLIENTS * (EACH - 2));
    ensure!(
        last - before < made / 2,
        "{} revisions of {made} edits",
        last - before
    );
    let rules = sg.json(&["rule", "list", "web"])?;
    let rules = rules["rules"].as_array().context("rules")?;
    // Two of the file, and the group's own for egress.
    ensure!(rules.len() as u64 >= made + 2, "{} rules", rules.len());
    holds(&sg)
}

#[test]
fn a_request_that_is_none_is_refused_with_its_place() -> Result<()> {
    let (_pair, sg, daemon) = machine()?;
    let before = revision(&sg)?;
    for (body, told) in [
        ("", "EOF"),
        ("{}", "edits"),
        ("{\"edits\": [{\"add_rules\": {}}]}", "add_rule"),
        (
            "{\"edits\": [{\"remove_rule\": {\"group\": \"web\", \"rule\": \"7\"}}]}",
            "sgr-",
        ),
    ] {
        let (code, said) = daemon.post("/edits", body)?;
        ensure!(code == 400 && said.contains(told), "{body}: {code} {said}");
    }
    let (code, said) = edit(&daemon, &[rule(1, "10.0.0.0/8"), rule(2, "nonsense/")])?;
    let told = said["error"].as_str().context("error")?;
    ensure!(code == 400 && told.starts_with("edits[1]: "), "{said}");
    let unknown = json!({"add_prefixes": {"prefix_list": "clinets", "prefixes": ["10.0.0.0/8"]}});
    let (code, said) = edit(&daemon, &[unknown])?;
    ensure!(
        code == 409 && said["error"].to_string().contains("clinets"),
        "{said}"
    );
    // More than anybody has to say.
    for path in ["/edits", "/command"] {
        let mut stream = daemon.connect()?;
        write!(
            stream,
            "POST {path} HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000000\r\n\r\n"
        )?;
        let piece = vec![b' '; 1 << 20];
        let taken = (0..1000)
            .take_while(|_| stream.write_all(&piece).is_ok())
            .count();
        ensure!(taken < 100, "{path}: {taken} MiB were taken");
    }
    // Half a request is given up.
    let mut stream = daemon.connect()?;
    write!(
        stream,
        "POST /edits HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\n\r\n{{"
    )?;
    let mut said = String::new();
    stream.read_to_string(&mut said)?;
    ensure!(said.starts_with("HTTP/1.1 408"), "{said}");
    ensure!(revision(&sg)? == before);
    holds(&sg)
}
