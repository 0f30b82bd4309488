//! How long a change takes: one rule among many and among few, and a whole policy of a million.

use std::fmt::Write as _;
use std::io::{self, Read as _};
use std::ops::Deref;
use std::time::{Duration, Instant};
use std::{fs, thread};

use anyhow::{Context as _, Result, anyhow, bail, ensure};
use sg_common::packet::Direction;
use sg_ctl::compile::{Edits, Limits, Live, NeedsFullCompile, compile};
use sg_ctl::controller::Controller;
use sg_ctl::dataplane::measure::Rehearsal;
use sg_ctl::dirs::DirOptions;
use sg_ctl::policy::change::{self, Edit};
use sg_ctl::policy::model::{Peer, Permission, Rule, Traffic};
use sg_ctl::policy::names::{GroupName, RuleId, VpcName};
use tests::lab::{Host, Lab};
use tests::sg::Sg;

use crate::judgement::{self, Pins};
use crate::measure::{Rounds, Taken};
use crate::{Effort, policies};

/// Groups of rules, and interfaces that share the groups out among themselves.
#[derive(Clone, Copy, Debug)]
struct Shape {
    groups: u32,
    rules_per_group: u32,
    interfaces: u32,
}

impl Shape {
    fn rules(self) -> u32 {
        self.groups * self.rules_per_group
    }

    /// Each rule opens one port to a network of its own.
    fn policy(self) -> Result<String> {
        let mut text = String::from("groups:\n");
        for group in 0..self.groups {
            writeln!(text, "  g{group}:\n    egress: []\n    ingress:")?;
            for rule in 0..self.rules_per_group {
                let (port, net) = (1_000 + rule, group % (1 << 13));
                writeln!(
                    text,
                    "    - {{protocol: tcp, ports: {port}, from: [{}.{}.{}.0/24]}}",
                    32 + (net >> 8),
                    net & 0xff,
                    rule & 0xff
                )?;
            }
        }
        text.push_str("interfaces:\n");
        let share = self.groups / self.interfaces;
        for interface in 0..self.interfaces {
            let groups: Vec<String> = (0..share)
                .map(|number| format!("g{}", interface * share + number))
                .collect();
            writeln!(text, "  v{interface}: {{groups: [{}]}}", groups.join(", "))?;
        }
        Ok(text)
    }

    /// As many rules, a million of them, as [`whole_policy`] and [`compiling`] take.
    fn million(effort: Effort) -> Self {
        Self {
            groups: effort.choose(10_000, 200),
            rules_per_group: 100,
            interfaces: effort.choose(100, 10),
        }
    }

    /// A machine with these interfaces.
    fn machine(self, lab: &Lab, name: &str) -> Result<Host> {
        let host = lab.host(name)?;
        for interface in 0..self.interfaces {
            host.ip(&format!(
                "link add v{interface} type veth peer name w{interface}"
            ))?;
        }
        Ok(host)
    }
}

/// An instance that parts without a command: detaching a hundred interfaces one by one from a policy
/// of a million rules takes longer than anything measured here.
struct Instance(Sg);

impl Instance {
    fn on(host: &Host) -> Result<Self> {
        Sg::on(host).map(Self)
    }
}

impl Deref for Instance {
    type Target = Sg;

    fn deref(&self) -> &Sg {
        &self.0
    }
}

impl Drop for Instance {
    fn drop(&mut self) {
        // Without a store nothing is detached by name; what was pinned goes with its mount.
        if let Err(error) = fs::remove_dir_all(self.0.state_dir()) {
            eprintln!("bench: {}: {error}", self.0.state_dir().display());
        }
    }
}

/// `sg-ctl rule add`, which returns when the rule is in force, and `rule remove`.
pub(crate) fn one_rule(names: &[&'static str], effort: Effort) -> Result<Vec<Taken>> {
    let lab = Lab::new()?;
    let mut taken = Vec::new();
    for name in names {
        let shape = Shape {
            groups: match *name {
                "rule_add_ms_1k" => 10,
                _ => effort.choose(1_000, 100),
            },
            rules_per_group: 100,
            interfaces: 10,
        };
        let sg = Instance::on(&shape.machine(&lab, name)?)?;
        sg.apply(&shape.policy()?)?;
        let (mut added, mut removed) = (Vec::new(), Vec::new());
        effort.rounds(11, || {
            let rule = "g0 --ingress --protocol tcp --ports 443 --from 198.51.100.0/24";
            let rule: Vec<&str> = rule.split_whitespace().collect();
            added.push(milliseconds(&sg, &[&["rule", "add"], &rule[..]].concat())?);
            removed.push(milliseconds(
                &sg,
                &[&["rule", "remove"], &rule[..]].concat(),
            )?);
            Ok(())
        })?;
        taken.push(
            Taken::new(name, Rounds::of(added))
                .with("rules", shape.rules())
                .with_median("remove_ms", removed),
        );
    }
    Ok(taken)
}

/// One rule more.
fn more() -> Result<Rule> {
    Ok(Rule {
        id: RuleId::random(),
        permission: Permission {
            direction: Direction::Ingress,
            traffic: Traffic::All,
            peer: Peer::Prefix("40.0.0.128/25".parse()?),
        },
        description: String::new(),
    })
}

/// A rule that comes and goes among so many of one group, compiled in memory and installed in maps.
struct Edited {
    live: Live,
    maps: Rehearsal,
    /// Of the rule: that it goes, and that it comes.
    edits: [Edits; 2],
    added: Vec<f64>,
    removed: Vec<f64>,
}

impl Edited {
    fn among(pins: &Pins, count: u32) -> Result<Self> {
        let settings = Rehearsal::settings(judgement::FEW_FLOWS, Limits::default())?;
        let policy = policies::read(&policies::by_rules(count))?;
        let mut live = Live::begin(&policy, &policies::attached(&policy), None, &settings)?;
        let folder = pins.folder(&format!("edited-{count}"));
        let maps = Rehearsal::stage(&folder, &live.image(), &settings)?;
        live.settle();
        let vpc = VpcName::default();
        let group: GroupName = "web".parse()?;
        let rule = more()?;
        let (mut comes, mut goes) = (Edits::of(vpc.clone()), Edits::of(vpc));
        comes.rules_added.push((group.clone(), rule.clone()));
        goes.rules_removed.push((group, rule));
        Ok(Self {
            live,
            maps,
            edits: [goes, comes],
            added: Vec::new(),
            removed: Vec::new(),
        })
    }

    fn round(&mut self) -> Result<()> {
        for (is_added, taken) in [(1, &mut self.added), (0, &mut self.removed)] {
            let begin = Instant::now();
            let change = self.live.edit(&self.edits[is_added]);
            let change = change.map_err(|NeedsFullCompile| anyhow!("the rule does not fit"))?;
            self.maps.edit(&change)?;
            self.live.settle();
            taken.push(begin.elapsed().as_secs_f64() * 1e3);
        }
        Ok(())
    }
}

/// An edit of a policy that is kept in memory, until it is in force.
pub(crate) fn one_edit(names: &[&'static str], effort: Effort) -> Result<Vec<Taken>> {
    let pins = Pins::mount()?;
    let mut few = Edited::among(&pins, 100)?;
    let mut many = Edited::among(&pins, effort.choose(100_000, 10_000))?;
    effort.rounds(41, || {
        few.round()?;
        many.round()
    })?;
    let ratios = many.added.iter().zip(&few.added);
    let ratios: Vec<f64> = ratios.map(|(many, few)| many / few).collect();
    let taken = names.iter().map(|name| {
        let rounds = match *name {
            "update_ms_100k" => Rounds::of(many.added.iter().copied()),
            _ => Rounds::of(ratios.iter().copied()),
        };
        Taken::new(name, rounds)
            .with_median("add_ms", many.added.iter().copied())
            .with_median("add_ms_of_100", few.added.iter().copied())
            .with_median("remove_ms", many.removed.iter().copied())
            .with_median("remove_ms_of_100", few.removed.iter().copied())
    });
    Ok(taken.collect())
}

/// The same through a controller that keeps its policy compiled, on a device of its own: what it finds
/// on the machine, writes to the store and waits for in the kernel included.
struct Kept {
    controller: Controller,
    group: GroupName,
    rule: Rule,
    added: Vec<f64>,
    removed: Vec<f64>,
}

impl Kept {
    fn under(sg: &Sg, policy: &str) -> Result<Self> {
        sg.apply(policy)?;
        let mut controller = Controller::open(&DirOptions {
            state_dir: sg.state_dir(),
            run_dir: sg.run_dir(),
        })?;
        controller.hold()?;
        Ok(Self {
            controller,
            group: "web".parse()?,
            rule: more()?,
            added: Vec::new(),
            removed: Vec::new(),
        })
    }

    fn round(&mut self) -> Result<()> {
        let (group, id) = (self.group.clone(), self.rule.id);
        let edits = [
            (
                Edit::AddRule(group.clone(), self.rule.clone()),
                &mut self.added,
            ),
            (Edit::RemoveRule(group, id), &mut self.removed),
        ];
        for (edit, taken) in edits {
            let vpc = VpcName::default();
            let begin = Instant::now();
            self.controller.change(&[change::Change { vpc, edit }])?;
            taken.push(begin.elapsed().as_secs_f64() * 1e3);
        }
        Ok(())
    }
}

/// A change by whoever keeps a policy compiled, as the daemon does.
pub(crate) fn one_stored_edit(names: &[&'static str], effort: Effort) -> Result<Vec<Taken>> {
    let lab = Lab::new()?;
    let host = lab.host("edited")?;
    host.ip("link add eth0 type veth peer name eth1")?;
    let (few, many) = (Instance::on(&host)?, Instance::on(&host)?);
    let count = effort.choose(100_000, 10_000);
    let few_rules = policies::by_rules(100);
    let many_rules = policies::by_rules(count).replace("eth0", "eth1");
    // The controllers find the devices of the thread that asks them.
    let (few, many) = host.enter(|| {
        let mut few = Kept::under(&few, &few_rules)?;
        let mut many = Kept::under(&many, &many_rules)?;
        effort.rounds(41, || {
            few.round()?;
            many.round()
        })?;
        Ok(((few.added, few.removed), (many.added, many.removed)))
    })?;
    let ((added_to_few, removed_from_few), (added, removed)) = (few, many);
    let ratios = added
        .iter()
        .zip(&added_to_few)
        .map(|(many, few)| many / few);
    let ratios: Vec<f64> = ratios.collect();
    let taken = names.iter().map(|name| {
        let rounds = match *name {
            "edit_100k_ms" => Rounds::of(added.iter().copied()),
            _ => Rounds::of(ratios.iter().copied()),
        };
        Taken::new(name, rounds)
            .with_median("add_ms", added.iter().copied())
            .with_median("add_ms_of_100", added_to_few.iter().copied())
            .with_median("remove_ms", removed.iter().copied())
            .with_median("remove_ms_of_100", removed_from_few.iter().copied())
    });
    Ok(taken.collect())
}

fn milliseconds(sg: &Sg, arguments: &[&str]) -> Result<f64> {
    let begin = Instant::now();
    sg.run(arguments)?.succeeded()?;
    Ok(begin.elapsed().as_secs_f64() * 1e3)
}

/// What a command took.
struct Cost {
    seconds: f64,
    /// The most memory that it had at once, as the kernel tells it (`VmHWM` in proc_pid_status(5)).
    megabytes: f64,
}

/// Runs a command to its end, looks at its memory meanwhile, and throws its output away.
fn cost(sg: &Sg, arguments: &[&str]) -> Result<Cost> {
    let begin = Instant::now();
    let mut child = sg.spawn(arguments)?;
    let mut output = child.stdout.take().context("no output")?;
    let mut peak = 0.0;
    let (seconds, status) = thread::scope(|scope| -> Result<_> {
        scope.spawn(move || io::copy(&mut output, &mut io::sink()));
        loop {
            if let Some(status) = child.try_wait()? {
                return Ok((begin.elapsed().as_secs_f64(), status));
            }
            if begin.elapsed() > LONGEST {
                child.kill()?;
                child.wait()?;
                bail!("sg-ctl {} ran longer than {LONGEST:?}", arguments.join(" "));
            }
            peak = f64::max(peak, most_memory(child.id()).unwrap_or_default());
            thread::sleep(Duration::from_millis(2));
        }
    })?;
    let mut told = String::new();
    if let Some(mut errors) = child.stderr.take() {
        errors.read_to_string(&mut told)?;
    }
    ensure!(
        status.success(),
        "sg-ctl {}: {status}: {told}",
        arguments.join(" ")
    );
    Ok(Cost {
        seconds,
        megabytes: peak,
    })
}

/// None of a process that ends just then.
fn most_memory(pid: u32) -> Option<f64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmHWM:"))?;
    let kilobytes: f64 = line.trim().strip_suffix(" kB")?.parse().ok()?;
    Some(kilobytes * 1024.0 / 1e6)
}

const LONGEST: Duration = Duration::from_secs(120);

/// `sg-ctl apply` of everything at once, on a machine where nothing is in force, and then
/// `sg-ctl stats --json` of it.
pub(crate) fn whole_policy(names: &[&'static str], effort: Effort) -> Result<Vec<Taken>> {
    let shape = Shape::million(effort);
    let policy = shape.policy()?;
    let lab = Lab::new()?;
    let host = shape.machine(&lab, "whole")?;
    let (mut applied, mut shown): (Vec<Cost>, Vec<Cost>) = (Vec::new(), Vec::new());
    effort.rounds(3, || {
        let sg = Instance::on(&host)?;
        let path = sg.write_policy(&policy)?;
        applied.push(cost(&sg, &["apply", &path])?);
        shown.push(cost(&sg, &["stats", "--json"])?);
        Ok(())
    })?;
    let taken = names.iter().map(|name| {
        let costs = if name.starts_with("apply") {
            &applied
        } else {
            &shown
        };
        let figures = costs.iter().map(|cost| match name.ends_with("_mb") {
            true => cost.megabytes,
            false => cost.seconds,
        });
        Taken::new(name, Rounds::of(figures)).with("rules", shape.rules())
    });
    Ok(taken.collect())
}

/// `sg-ctl apply` of a small policy for 300 interfaces, none of which is protected yet.
pub(crate) fn many_interfaces(names: &[&'static str], effort: Effort) -> Result<Vec<Taken>> {
    let shape = Shape {
        groups: effort.choose(300, 20),
        rules_per_group: 1,
        interfaces: effort.choose(300, 20),
    };
    let policy = shape.policy()?;
    let lab = Lab::new()?;
    let host = shape.machine(&lab, "many")?;
    let mut seconds = Vec::new();
    effort.rounds(5, || {
        let sg = Instance::on(&host)?;
        let path = sg.write_policy(&policy)?;
        seconds.push(milliseconds(&sg, &["apply", &path])? / 1e3);
        Ok(())
    })?;
    let taken = names.iter().map(|name| {
        Taken::new(name, Rounds::of(seconds.iter().copied())).with("interfaces", shape.interfaces)
    });
    Ok(taken.collect())
}

/// The compiling of a million rules alone.
pub(crate) fn compiling(names: &[&'static str], effort: Effort) -> Result<Vec<Taken>> {
    let shape = Shape::million(effort);
    let settings = Rehearsal::settings(judgement::FEW_FLOWS, Limits::default())?;
    let policy = policies::read(&shape.policy()?)?;
    let attached = policies::attached(&policy);
    let mut seconds = Vec::new();
    effort.rounds(5, || {
        let begin = Instant::now();
        let image = compile(&policy, &attached, None, &settings)?;
        seconds.push(begin.elapsed().as_secs_f64());
        drop(image);
        Ok(())
    })?;
    let taken = names.iter().map(|name| {
        Taken::new(name, Rounds::of(seconds.iter().copied())).with("rules", shape.rules())
    });
    Ok(taken.collect())
}
