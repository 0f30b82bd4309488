//! The tables of flows change their size under traffic, and no flow notices.
//!
//! The rules that admitted the flows are removed first. So each packet that did not find its flow,
//! at whatever moment, would be dropped and counted.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use tests::lab::{Lab, Pair};
use tests::sg::Sg;
use tests::sockets::Outcome::Connected;
use tests::sockets::{Session, TcpEcho};

const SESSIONS: usize = 40;
const SIZES: [u32; 4] = [524_288, 512, 1_048_576, 4_096];
const KILLS: u32 = 8;

const OPEN: &str = "
groups:
  g:
    ingress:
      - {protocol: tcp, ports: 7, from: [10.0.0.0/8]}
    egress: []
interfaces:
  eth0: {groups: [g]}
";

struct Scene {
    // Dropped in this order: the sockets, the instance, the machines.
    sessions: Vec<Session>,
    _echo: TcpEcho,
    sg: Sg,
    _pair: Pair,
}

impl Scene {
    /// Open connections whose rule has gone.
    fn set() -> Result<Self> {
        let (pair, sg) = Sg::protecting(OPEN)?;
        let echo = TcpEcho::listen(&pair.host, ":7")?;
        let mut sessions = Vec::new();
        for _ in 0..SESSIONS {
            let mut session = Session::open(&pair.world, "10.0.0.10:7")?;
            ensure!(session.echoes()? == Connected, "a new connection");
            sessions.push(session);
        }
        let rules = "rule remove g --ingress --protocol tcp --ports 7 --from 10.0.0.0/8";
        sg.run(&rules.split(' ').collect::<Vec<_>>())?.succeeded()?;
        Ok(Self {
            sessions,
            _echo: echo,
            sg,
            _pair: pair,
        })
    }

    /// Makes changes while all connections talk without a pause. Returns how often they did.
    fn talk_during(&mut self, changes: impl FnOnce(&Sg) -> Result<()>) -> Result<usize> {
        let over = AtomicBool::new(false);
        let (sessions, sg) = (&mut self.sessions, &self.sg);
        let talked = thread::scope(|scope| {
            let talk = scope.spawn(|| -> Result<usize> {
                let mut rounds = 0;
                while !over.load(Ordering::Relaxed) {
                    for session in &mut *sessions {
                        let answer = session.echoes()?;
                        ensure!(answer == Connected, "after {rounds} rounds: {answer:?}");
                    }
                    rounds += 1;
                }
                Ok(rounds)
            });
            let changed = changes(sg);
            over.store(true, Ordering::Relaxed);
            let talked = talk.join();
            changed.and(talked.unwrap_or_else(|_| Err(anyhow::anyhow!("panicked"))))
        })?;
        let stats = self.sg.json(&["stats"])?;
        let reasons = &stats["interfaces"][0]["reasons"];
        let lost: Vec<&Value> = reasons
            .as_array()
            .context("no reasons")?
            .iter()
            .filter(|count| count["reason"] == "no-rule" || count["reason"] == "table-full")
            .collect();
        ensure!(lost.is_empty(), "packets did not find their flow: {lost:?}");
        Ok(talked)
    }
}

fn flows(sg: &Sg) -> Result<(u64, u64)> {
    let status = sg.json(&["status"])?;
    let number = |name: &str| status["flows"][name].as_u64().context("no number");
    Ok((number("assured")?, number("capacity")?))
}

#[test]
fn every_flow_goes_on_while_its_table_is_replaced_by_a_larger_or_a_smaller_one() -> Result<()> {
    let mut scene = Scene::set()?;
    let rounds = scene.talk_during(|sg| {
        for size in SIZES {
            sg.run(&["limits", "set", &format!("flows={size}")])?
                .succeeded()?;
            let (assured, capacity) = flows(sg)?;
            ensure!(capacity == u64::from(size), "{capacity} and not {size}");
            ensure!(
                assured == SESSIONS as u64,
                "{assured} flows with room for {size}"
            );
        }
        Ok(())
    })?;
    println!(
        "{SESSIONS} connections talked {rounds} times during {} changes of size",
        SIZES.len()
    );
    Ok(())
}

#[test]
fn sigkill_at_eight_moments_of_a_change_of_size_costs_no_flow() -> Result<()> {
    let mut scene = Scene::set()?;
    scene.talk_during(|sg| {
        for kill in 0..KILLS {
            let size = SIZES[kill as usize % SIZES.len()];
            let mut command = sg.spawn(&["limits", "set", &format!("flows={size}")])?;
            // Three layouts take about a second, most of it in the verifier.
            thread::sleep(Duration::from_millis(u64::from(kill) * 150));
            command.kill()?;
            command.wait()?;
            sg.run(&["restore"])?.succeeded()?;
            let (assured, capacity) = flows(sg)?;
            ensure!(
                assured == SESSIONS as u64,
                "kill {kill}: {assured} flows with room for {capacity}"
            );
        }
        Ok(())
    })?;
    Ok(())
}

#[test]
fn a_size_that_cannot_be_is_refused_and_nothing_changes() -> Result<()> {
    let scene = Scene::set()?;
    let refused = scene.sg.run(&["limits", "set", "flows=3"])?;
    ensure!(refused.code == Some(2), "{refused}");
    ensure!(
        refused.stderr.contains("from 512 to 8388608, not 3"),
        "{refused}"
    );
    ensure!(flows(&scene.sg)?.1 == 262_144, "something changed");
    Ok(())
}

#[test]
fn the_room_that_was_asked_for_outlives_the_last_interface() -> Result<()> {
    let pair = Lab::pair()?;
    let sg = Sg::on(&pair.host)?;
    sg.run(&["limits", "set", "flows=1000", "rules=100"])?
        .succeeded()?;
    ensure!(flows(&sg)?.1 == 1_024, "before anything is attached");
    sg.apply(OPEN)?;
    ensure!(flows(&sg)?.1 == 1_024, "with an interface");
    sg.run(&["detach", "eth0"])?.succeeded()?;
    sg.run(&["attach", "eth0", "--group", "g"])?.succeeded()?;
    ensure!(flows(&sg)?.1 == 1_024, "attached anew");
    let limits = sg.json(&["limits"])?;
    ensure!(limits["limits"]["rules"] == 100, "{limits}");
    Ok(())
}

#[test]
fn a_policy_that_does_not_fit_names_the_setting_that_helps() -> Result<()> {
    let (_pair, sg) = Sg::protecting(OPEN)?;
    sg.run(&["limits", "set", "rules=2"])?.succeeded()?;
    let rule = |port: &str| {
        let words = [
            "rule",
            "add",
            "g",
            "--ingress",
            "--protocol",
            "tcp",
            "--from",
            "10.0.0.0/8",
        ];
        sg.run(&[&words[..], &["--ports", port]].concat())
    };
    rule("8")?.succeeded()?;
    let refused = rule("9")?;
    ensure!(refused.code == Some(2), "{refused}");
    let (_, remedy) = refused.stderr.split_once('`').context("no remedy")?;
    let remedy = remedy.split_once("`sg-ctl ").context("no command")?.1;
    let (remedy, _) = remedy.split_once('`').context("no command")?;
    sg.run(&remedy.split(' ').collect::<Vec<_>>())?
        .succeeded()?;
    rule("9")?.succeeded()?;
    Ok(())
}
