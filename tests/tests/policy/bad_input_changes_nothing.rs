//! A refused command exits with 2, says why in one place, and changes nothing at all.

use anyhow::Result;
use tests::lab::Pair;
use tests::sg::{Ran, Sg};
use tests::sockets::{Outcome, TcpEcho, tcp_connects};

const GOOD: &str = "{groups: {web: {ingress: [{protocol: tcp, ports: 80, from: 0.0.0.0/0}]}}, \
                    interfaces: {eth0: {groups: [web]}}}";

struct Machine {
    pair: Pair,
    sg: Sg,
    exported: String,
    _listeners: [TcpEcho; 2],
}

impl Machine {
    fn new() -> Result<Self> {
        let (pair, sg) = Sg::protecting(GOOD)?;
        let exported = sg.run(&["export"])?.succeeded()?.stdout;
        let _listeners = [
            TcpEcho::listen(&pair.host, ":80")?,
            TcpEcho::listen(&pair.host, ":81")?,
        ];
        Ok(Self {
            pair,
            sg,
            exported,
            _listeners,
        })
    }

    /// A command that must be refused with these words.
    #[track_caller]
    fn refuses(&self, ran: &Ran, wanted: &str) {
        assert_eq!(ran.code, Some(2), "{ran}");
        assert!(ran.stderr.contains(wanted), "wanted {wanted:?}: {ran}");
        assert_eq!(ran.stderr.trim().lines().count(), 1, "one sentence: {ran}");
        assert!(!ran.stderr.contains("panicked"), "{ran}");
        let exported = self
            .sg
            .run(&["export"])
            .unwrap()
            .succeeded()
            .unwrap()
            .stdout;
        assert_eq!(exported, self.exported, "the policy changed: {ran}");
        for (port, outcome) in [(80, Outcome::Connected), (81, Outcome::TimedOut)] {
            let to = format!("10.0.0.10:{port}");
            assert_eq!(
                tcp_connects(&self.pair.world, &to).unwrap(),
                outcome,
                "{to} after {ran}"
            );
        }
    }
}

#[test]
fn a_file_with_a_fault_is_refused_whole() {
    let machine = Machine::new().unwrap();
    let long = "n".repeat(256);
    let long = format!("{{groups: {{{long}: {{}}}}}}");
    let rule = |rule: &str| {
        format!(
            "{{groups: {{web: {{ingress: [{rule}]}}}}, interfaces: {{eth0: {{groups: [web]}}}}}}"
        )
    };
    for (text, wanted) in [
        (rule("{service: ssh, from: sg:nobody}"), "nobody"),
        (rule("{service: ssh, from: pl:nothing}"), "nothing"),
        (
            rule("{service: ssh, from: 10.0.0.0/8}, {service: ssh, from: 10.0.0.0/8}"),
            "already",
        ),
        (rule("{service: ssh, from: 10.0.0.0/33}"), "10.0.0.0/33"),
        (rule("{service: ssh, from: 10.0.0.300/32}"), "10.0.0.300"),
        (
            rule("{protocol: tcp, ports: 443-80, from: 10.0.0.0/8}"),
            "443-80",
        ),
        (
            rule("{protocol: tcp, ports: 70000, from: 10.0.0.0/8}"),
            "70000",
        ),
        (rule("{protocol: tpc, ports: 80, from: 10.0.0.0/8}"), "tpc"),
        (long, "255"),
        (
            "{vpc: other, interfaces: {eth0: {groups: [default]}}}".to_owned(),
            "eth0",
        ),
        (
            "{groups: {web: {}}, interfaces: {eth9: {groups: [web]}}}".to_owned(),
            "eth9",
        ),
        ("{groups: {web: [}".to_owned(), ":1:"),
        ("{grups: {}}".to_owned(), "grups"),
    ] {
        let path = machine.sg.write_policy(&text).unwrap();
        machine.refuses(&machine.sg.run(&["apply", &path]).unwrap(), wanted);
    }
}

#[test]
fn a_command_with_a_fault_is_refused() {
    let machine = Machine::new().unwrap();
    let add = [
        "rule",
        "add",
        "web",
        "--ingress",
        "--protocol",
        "tcp",
        "--ports",
        "80",
        "--from",
    ];
    for (arguments, wanted) in [
        ([&add[..], &["0.0.0.0/0"]].concat(), "already"),
        ([&add[..], &["sg:nobody"]].concat(), "nobody"),
        (
            vec![
                "rule",
                "add",
                "nobody",
                "--ingress",
                "--service",
                "ssh",
                "--from",
                "10.0.0.0/8",
            ],
            "nobody",
        ),
        (vec!["group", "delete", "default"], "default"),
        (vec!["group", "delete", "web"], "eth0"),
        (vec!["group", "create", "WEB"], "web"),
        (vec!["attach", "eth9", "--group", "web"], "eth9"),
        (vec!["attach", "eth0", "--group", "nobody"], "nobody"),
        (vec!["detach", "eth9"], "eth9"),
        (vec!["detach", "eth0", "--netns", "elsewhere"], "elsewhere"),
        (vec!["apply", "/nonexistent.yaml"], "/nonexistent.yaml"),
    ] {
        machine.refuses(&machine.sg.run(&arguments).unwrap(), wanted);
    }
}

#[test]
fn who_is_not_root_is_told_so() {
    let machine = Machine::new().unwrap();
    let ran = machine
        .sg
        .run_unprivileged(&["group", "create", "new"])
        .unwrap();
    machine.refuses(&ran, "root");
}
