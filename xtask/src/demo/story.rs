//! What is shown, in order.

use std::fs;
use std::net::SocketAddr;

use anyhow::{Context as _, Result, bail};
use serde_json::Value;

use super::board::Board;
use super::stage::{APP, Family, Machine, OFFICE, Party, STRANGER, Stage, WEB, files_below};
use super::traffic::{self, Conversation, Outcome};
use Expected::{Connects, TimesOut};
use Family::{V4, V6};

const POLICY_FILE: &str = "policy.yaml";

/// `WEB` and `APP` stand for the namespaces' names.
const POLICY: &str = "\
vpc: demo
prefix_lists:
  office: [203.0.113.0/24, \"2001:db8:aa::/48\"]
groups:
  web:
    description: the site, for everybody
    ingress:
      - {service: https, from: [0.0.0.0/0, \"::/0\"]}
  ssh:
    description: administration, from the office
    ingress:
      - {service: ssh, from: [pl:office]}
  app:
    description: only the web group may ask it, and it asks nobody
    ingress:
      - {protocol: tcp, ports: [8000-8080], from: [sg:web]}
    egress: []
interfaces:
  web0: {groups: [web, ssh], netns: WEB}
  app0: {groups: [app], netns: APP}
";

/// What a connection should do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Expected {
    Connects,
    TimesOut,
}

/// Plays all of it. Steps that do not go as told are on the board; an error ends the play.
pub(super) fn play(stage: &Stage, board: &mut Board) -> Result<()> {
    let mut scene = Scene { stage, board };
    for (machine, ports) in [
        (Machine::Web, [22, 443, 8443].as_slice()),
        (Machine::App, &[22, 8080]),
        (Machine::World, &[443]),
    ] {
        for &port in ports {
            traffic::listen(&stage.namespace_file(machine), port)?;
        }
    }

    scene.without_groups()?;
    let policy = scene.apply_policy()?;
    scene.what_the_policy_means()?;
    scene.a_rule_comes_and_goes()?;
    scene.a_member_comes_and_goes(&policy)?;
    scene.counters_explain()?;
    scene.detach()
}

struct Scene<'a> {
    stage: &'a Stage,
    board: &'a mut Board,
}

impl Scene<'_> {
    fn without_groups(&mut self) -> Result<()> {
        self.board
            .title("two machines, web and app, in a world with an office and a stranger");
        self.connect(STRANGER, WEB, 22, V4, Connects, "nothing protects them yet")?;
        self.connect(
            STRANGER,
            APP,
            8080,
            V6,
            Connects,
            "nothing protects them yet",
        )?;
        Ok(())
    }

    fn apply_policy(&mut self) -> Result<String> {
        self.board.title("a policy file");
        let policy = POLICY
            .replace("WEB", &self.stage.namespace(Machine::Web))
            .replace("APP", &self.stage.namespace(Machine::App));
        self.board.file(POLICY_FILE, &policy);
        self.apply(&policy)?;
        Ok(policy)
    }

    fn what_the_policy_means(&mut self) -> Result<()> {
        self.board.title("what it means");
        for family in [V4, V6] {
            self.connect(STRANGER, WEB, 443, family, Connects, "web is for everybody")?;
            self.connect(OFFICE, WEB, 22, family, Connects, "ssh is for the office")?;
            self.connect(STRANGER, WEB, 22, family, TimesOut, "and for nobody else")?;
            self.connect(
                WEB,
                APP,
                8080,
                family,
                Connects,
                "app is for members of web",
            )?;
            self.connect(OFFICE, APP, 8080, family, TimesOut, "and for nobody else")?;
            self.connect(
                WEB,
                STRANGER,
                443,
                family,
                Connects,
                "web may ask; the reply is tracked",
            )?;
            self.connect(
                APP,
                STRANGER,
                443,
                family,
                TimesOut,
                "app asks nobody: egress is empty",
            )?;
        }
        Ok(())
    }

    fn a_rule_comes_and_goes(&mut self) -> Result<()> {
        self.board.title("a rule comes and goes under traffic");
        let rule = ["web", "--ingress", "--protocol", "tcp", "--ports", "8443"];
        let peer = ["--from", "198.51.100.0/24"];
        self.connect(STRANGER, WEB, 8443, V4, TimesOut, "no rule")?;
        self.sg_ctl(&[&["rule", "add"], &rule[..], &peer].concat())?;
        let open = self.connect(STRANGER, WEB, 8443, V4, Connects, "the rule is there")?;
        self.sg_ctl(&[&["rule", "remove"], &rule[..], &peer].concat())?;
        self.connect(STRANGER, WEB, 8443, V4, TimesOut, "the rule is gone")?;
        if let Some(conversation) = open {
            let outcome = conversation.ask();
            self.board.mark(
                matches!(outcome, Outcome::Answered(_)),
                "the connection made before goes on: its flow is tracked",
                &outcome.to_string(),
            );
        }
        Ok(())
    }

    fn a_member_comes_and_goes(&mut self, policy: &str) -> Result<()> {
        self.board.title("a membership changes");
        self.connect(STRANGER, APP, 8080, V4, TimesOut, "not in web")?;
        let description = "    description: the site, for everybody\n";
        let with_member = policy.replace(
            description,
            &format!("{description}    members: [198.51.100.9]\n"),
        );
        self.apply(&with_member)?;
        self.connect(
            STRANGER,
            APP,
            8080,
            V4,
            Connects,
            "its address is a member of web",
        )?;
        self.apply(policy)?;
        self.connect(STRANGER, APP, 8080, V4, TimesOut, "no longer")?;
        Ok(())
    }

    fn counters_explain(&mut self) -> Result<()> {
        self.board.title("the counters that explain it");
        self.sg_ctl(&["stats"])?;
        let stats = self.json(&["stats", "--json"])?;
        for (interface, direction, why) in [
            ("web0", "ingress", "the stranger at web:22 and web:8443"),
            ("app0", "ingress", "the office and the stranger at app:8080"),
            ("app0", "egress", "app asking the stranger"),
        ] {
            let dropped = packets(&stats, interface, direction, "no-rule");
            self.board.mark(
                dropped > 0,
                &format!("{interface} {direction} counts drops without a rule: {why}"),
                "it counts none",
            );
        }
        let admitted = stats["rules"]
            .as_array()
            .into_iter()
            .flatten()
            .filter(|rule| rule["packets"].as_u64().is_some_and(|packets| packets > 0))
            .count();
        self.board.mark(
            admitted >= 4,
            "every rule that admitted something counts it",
            &format!("only {admitted} rules count anything"),
        );
        Ok(())
    }

    fn detach(&mut self) -> Result<()> {
        self.board.title("detach");
        for (interface, machine) in [("web0", Machine::Web), ("app0", Machine::App)] {
            self.sg_ctl(&[
                "detach",
                interface,
                "--netns",
                &self.stage.namespace(machine),
            ])?;
        }
        self.connect(
            STRANGER,
            WEB,
            22,
            V4,
            Connects,
            "nothing protects it any more",
        )?;
        self.connect(
            STRANGER,
            APP,
            8080,
            V6,
            Connects,
            "nothing protects it any more",
        )?;
        let left = files_below(&self.stage.pins()?)?;
        let left: Vec<String> = left.iter().map(|path| path.display().to_string()).collect();
        self.board.mark(
            left.is_empty(),
            "the kernel holds no link and no map",
            &left.join(", "),
        );
        Ok(())
    }

    fn apply(&mut self, policy: &str) -> Result<()> {
        fs::write(self.stage.folder()?.join(POLICY_FILE), policy)
            .context("cannot write the policy file")?;
        self.sg_ctl(&["apply", POLICY_FILE])
    }

    /// Shows a command and what it prints; one that fails ends the play.
    fn sg_ctl(&mut self, arguments: &[&str]) -> Result<()> {
        let run = self.stage.sg_ctl(arguments)?;
        let typed = format!("sg-ctl {}", arguments.join(" "));
        self.board.command(&typed, &run.printed);
        if !run.succeeded {
            bail!("{typed} failed");
        }
        Ok(())
    }

    fn json(&self, arguments: &[&str]) -> Result<Value> {
        let run = self.stage.sg_ctl(arguments)?;
        serde_json::from_str(&run.printed).with_context(|| {
            format!(
                "sg-ctl {} printed no JSON:\n{}",
                arguments.join(" "),
                run.printed
            )
        })
    }

    /// Tries to connect and marks the board; the conversation is returned if there is one.
    fn connect(
        &mut self,
        from: Party,
        to: Party,
        port: u16,
        family: Family,
        expected: Expected,
        because: &str,
    ) -> Result<Option<Conversation>> {
        self.stage.go_on()?;
        let outcome = traffic::connect(
            &self.stage.namespace_file(from.machine),
            from.address(family)?,
            SocketAddr::new(to.address(family)?, port),
        )?;
        let verb = match expected {
            Connects => "connects ",
            TimesOut => "times out",
        };
        let family = match family {
            V4 => "IPv4",
            V6 => "IPv6",
        };
        let target = format!("{}:{port}", to.name);
        self.board.mark(
            matches!(
                (expected, &outcome),
                (Connects, Outcome::Answered(_)) | (TimesOut, Outcome::TimedOut)
            ),
            &format!(
                "{:8} → {target:12} {family}  {verb}  ({because})",
                from.name
            ),
            &outcome.to_string(),
        );
        Ok(match outcome {
            Outcome::Answered(conversation) => Some(conversation),
            Outcome::TimedOut | Outcome::Failed(_) => None,
        })
    }
}

/// Packets that an interface counts for a direction and a reason.
fn packets(stats: &Value, interface: &str, direction: &str, reason: &str) -> u64 {
    stats["interfaces"]
        .as_array()
        .into_iter()
        .flatten()
        .filter(|counted| counted["name"] == interface)
        .filter_map(|counted| counted["reasons"].as_array())
        .flatten()
        .filter(|counted| counted["direction"] == direction && counted["reason"] == reason)
        .filter_map(|counted| counted["packets"].as_u64())
        .sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packets_are_those_of_the_interface_direction_and_reason() {
        let stats = serde_json::json!({"interfaces": [
            {"name": "web0", "reasons": [
                {"direction": "ingress", "reason": "no-rule", "packets": 2},
                {"direction": "egress", "reason": "no-rule", "packets": 16},
                {"direction": "ingress", "reason": "malformed", "packets": 32},
            ]},
            {"name": "app0", "reasons": [
                {"direction": "ingress", "reason": "no-rule", "packets": 64},
            ]},
        ]});
        assert_eq!(packets(&stats, "web0", "ingress", "no-rule"), 2);
        assert_eq!(packets(&stats, "web1", "ingress", "no-rule"), 0);
    }
}
