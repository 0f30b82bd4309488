//! A command that is killed leaves the old policy in force or the new one, and the next command
//! completes it: at every step of every kind of change.

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;
use std::thread;

use anyhow::{Context as _, Result, bail, ensure};
use sg_ctl::crash::Point;
use tests::lab::{Host, Lab, Pair};
use tests::sg::{Ran, Sg, crashing_sg_ctl};
use tests::sockets::Outcome::{Connected, TimedOut};
use tests::sockets::{TcpEcho, tcp_connects};

/// Whether the machine lets in who speaks to port 22, to 80 and to 443.
type Open = [bool; 3];
/// Neither policy opens port 22.
const OLD: Open = [false, true, false];
const NEW: Open = [false, false, true];
const UNPROTECTED: Open = [true; 3];
/// The two links of an interface cannot be made in one step. While only what is sent is judged, nothing
/// that comes in is answered: an answer belongs to no flow.
const UNANSWERED: Open = [false; 3];

/// A kind of change, with the points of it at which it is killed.
struct Change {
    /// Commands that lead to the state before it. One that begins with `-` may fail. A word that
    /// begins with `@` is a policy file.
    ready: &'static [&'static str],
    /// The command that is killed.
    killed: &'static str,
    /// Commands that complete it.
    completed: &'static [&'static str],
    /// What is let in before and after.
    from: Open,
    to: Open,
    /// What may also be in force on the way.
    between: Option<Open>,
    /// Points, and which time they are come by.
    points: &'static [(Point, u32)],
}

/// An update of the tables in force.
const EDIT: Change = Change {
    ready: &["apply @old"],
    killed: "apply @new",
    completed: &["apply @new"],
    from: OLD,
    to: NEW,
    between: None,
    points: &[
        (Point::StoreWritten, 1),
        (Point::StoreCommitted, 1),
        (Point::Marked, 1),
        (Point::OwnerWritten, 1),
        (Point::UnwantedRemoved, 1),
        (Point::ArenasWritten, 1),
        (Point::CountersCleared, 1),
        (Point::BuffersPrepared, 1),
        (Point::KeysWritten, 1),
        (Point::GenerationRaised, 1),
        (Point::ReadersGone, 1),
        (Point::BuffersMirrored, 1),
        (Point::KeysDeleted, 1),
        (Point::ProgramsPinned, 1),
        (Point::RecordWritten, 1),
        (Point::Unmarked, 1),
        (Point::UnusedRemoved, 1),
    ],
};

/// The first policy: maps, programs and links are made.
const FIRST: Change = Change {
    ready: &["apply @none"],
    killed: "apply @new",
    completed: &["apply @new"],
    from: UNPROTECTED,
    to: NEW,
    between: Some(UNANSWERED),
    points: &[
        (Point::StoreCommitted, 1),
        (Point::LayoutMade, 1),
        (Point::BuffersPrepared, 1),
        (Point::GenerationRaised, 1),
        (Point::LayoutFilled, 1),
        (Point::LayoutLoaded, 1),
        (Point::Marked, 1),
        (Point::LinkMade, 1),
        (Point::LinkMade, 2),
        (Point::LinkPinned, 2),
        (Point::RecordWritten, 1),
        (Point::Unmarked, 1),
        (Point::UnusedRemoved, 1),
    ],
};

/// The first policy of several interfaces: their links are made before it is ready.
const SEVERAL: Change = Change {
    killed: "apply @several",
    completed: &["apply @several"],
    points: &[
        (Point::LinkPlaced, 1),
        (Point::LinkPlaced, 3),
        (Point::LinkPlaced, 10),
        (Point::LinkReplaced, 10),
    ],
    ..FIRST
};

/// Another build: a new layout is put under the links.
const UPGRADE: Change = Change {
    ready: &["apply @old"],
    killed: "restore",
    completed: &["restore"],
    from: OLD,
    to: OLD,
    between: None,
    points: &[
        (Point::LayoutMade, 1),
        (Point::LayoutFilled, 1),
        (Point::LayoutLoaded, 1),
        (Point::Marked, 1),
        (Point::UnwantedRemoved, 1),
        (Point::LinkReplaced, 1),
        (Point::LinkReplaced, 2),
        (Point::CountsContinued, 1),
        (Point::RecordWritten, 1),
        (Point::Unmarked, 1),
        (Point::UnusedRemoved, 1),
    ],
};

/// Flows move to a table of another size.
const RESIZE: Change = Change {
    ready: &["apply @old", "limits set flows=262144"],
    killed: "limits set flows=524288",
    completed: &["limits set flows=524288"],
    from: OLD,
    to: OLD,
    between: None,
    points: &[
        (Point::LimitsStored, 1),
        (Point::Marked, 1),
        (Point::TablesNamed, 1),
        (Point::LayoutMade, 1),
        (Point::LayoutLoaded, 1),
        (Point::LinkReplaced, 1),
        (Point::LinkReplaced, 2),
        (Point::BothTablesRead, 1),
        (Point::FlowsMigrating, 1),
        (Point::FlowsMigrating, 2),
        (Point::FlowsMigrated, 1),
        (Point::LinkReplaced, 5),
        (Point::LinkReplaced, 6),
        (Point::RecordWritten, 1),
        (Point::UnusedRemoved, 1),
    ],
};

/// Nothing is protected any more.
const DETACH: Change = Change {
    ready: &["apply @old"],
    killed: "apply @none",
    completed: &["apply @none"],
    from: OLD,
    to: UNPROTECTED,
    between: None,
    points: &[
        (Point::StoreCommitted, 1),
        (Point::LinkDetached, 2),
        (Point::AllLinksRemoved, 1),
        (Point::AllMapsRemoved, 1),
        (Point::RecordRemoved, 1),
    ],
};

/// A change that waits for its confirmation.
const CONFIRM: Change = Change {
    ready: &["-confirm", "apply @old"],
    killed: "apply @new --confirm 10m",
    completed: &["-confirm", "apply @new"],
    from: OLD,
    to: NEW,
    between: None,
    points: &[
        (Point::WayBackCopied, 1),
        (Point::WayBackNoted, 1),
        (Point::WaiterStarted, 1),
        (Point::StoreCommitted, 1),
        (Point::GenerationRaised, 1),
        (Point::RecordWritten, 1),
    ],
};

/// The way back.
const ROLL_BACK: Change = Change {
    ready: &["-confirm", "apply @old", "apply @new --confirm 10m"],
    killed: "rollback",
    completed: &["-rollback"],
    from: NEW,
    to: OLD,
    between: None,
    points: &[
        (Point::StoreCommitted, 1),
        (Point::GenerationRaised, 1),
        (Point::RolledBack, 1),
        (Point::RollbackNoted, 1),
        (Point::WayBackForgotten, 1),
    ],
};

/// What was dropped is let pass and counted.
const AUDIT: Change = Change {
    ready: &["apply @old"],
    killed: "apply @audit",
    completed: &["apply @audit"],
    from: OLD,
    to: UNPROTECTED,
    between: None,
    points: &[(Point::AuditNoted, 1), (Point::GenerationRaised, 1)],
};

/// Filters where the kernel has no links.
const FILTERS: Change = Change {
    ready: &["apply @none"],
    killed: "apply @new",
    completed: &["apply @new"],
    from: UNPROTECTED,
    to: NEW,
    between: Some(UNANSWERED),
    points: &[
        (Point::FilterMarked, 1),
        (Point::ClsactAdded, 1),
        (Point::FilterMarked, 2),
        (Point::FilterPut, 2),
        (Point::RecordWritten, 1),
    ],
};

/// They go.
const FILTERS_GO: Change = Change {
    points: &[
        (Point::FilterRemoved, 2),
        (Point::FilterRemoved, 3),
        (Point::AllLinksRemoved, 1),
    ],
    ..DETACH
};

/// A policy that one device refuses is taken back.
const UNDO: Change = Change {
    ready: &["apply @old"],
    killed: "apply @refused",
    completed: &["apply @old"],
    from: OLD,
    to: OLD,
    between: Some(NEW),
    points: &[(Point::UndoStored, 1), (Point::GenerationRaised, 1)],
};

/// The links of a device that has moved to another namespace follow it.
const MOVE: Change = Change {
    ready: &["restore"],
    killed: "restore",
    completed: &["restore"],
    from: OLD,
    to: OLD,
    between: None,
    points: &[(Point::LinksRenamed, 1), (Point::RecordWritten, 1)],
};

/// All kinds.
const CHANGES: [&Change; 13] = [
    &EDIT,
    &FIRST,
    &SEVERAL,
    &UPGRADE,
    &RESIZE,
    &DETACH,
    &CONFIRM,
    &ROLL_BACK,
    &AUDIT,
    &FILTERS,
    &FILTERS_GO,
    &UNDO,
    &MOVE,
];

#[test]
fn every_point_is_killed_at() {
    let killed = CHANGES.iter().flat_map(|change| change.points);
    let killed: BTreeSet<&str> = killed.map(|(point, _)| point.name()).collect();
    let all: BTreeSet<&str> = Point::ALL.iter().map(|point| point.name()).collect();
    assert_eq!(killed, all);
}

/// A machine, with servers at all three ports.
struct Stage {
    pair: Pair,
    sg: Sg,
    program: PathBuf,
    _listeners: [TcpEcho; 3],
}

/// Port 80 is open under the old policy, port 443 under the new one.
fn policy(port: u16, interfaces: &str) -> String {
    format!(
        "{{groups: {{g: {{ingress: [{{protocol: tcp, ports: {port}, from: [10.0.0.0/8, sg:g]}}]}}}}, \
         interfaces: {{{interfaces}}}}}"
    )
}

impl Stage {
    fn new() -> Result<Self> {
        let pair = Lab::pair()?;
        for number in 0..4 {
            pair.host
                .ip(&format!("link add x{number} type veth peer name y{number}"))?;
        }
        let sg = Sg::on(&pair.host)?;
        let eth0 = "eth0: {groups: [g]}";
        let several: Vec<String> = (0..4).map(|at| format!("x{at}: {{groups: [g]}}")).collect();
        let several = format!("{eth0}, {}", several.join(", "));
        for (name, text) in [
            ("none", policy(80, "")),
            ("old", policy(80, eth0)),
            ("new", policy(443, eth0)),
            ("several", policy(443, &several)),
            ("both", policy(80, &format!("{eth0}, x0: {{groups: [g]}}"))),
            ("audit", policy(80, "eth0: {groups: [g], audit: true}")),
            (
                "refused",
                policy(443, &format!("{eth0}, x0: {{groups: [g]}}")),
            ),
        ] {
            sg.write(name, &text)?;
        }
        let listen = |port: &str| TcpEcho::listen(&pair.host, port);
        Ok(Self {
            _listeners: [listen(":22")?, listen(":80")?, listen(":443")?],
            program: crashing_sg_ctl()?,
            pair,
            sg,
        })
    }

    /// The words of a command, with the paths of policy files.
    fn words(&self, command: &str) -> Result<Vec<String>> {
        let folder = self.sg.state_dir();
        let folder = folder.parent().context("a folder")?;
        let word = |word: &str| match word.strip_prefix('@') {
            Some(name) => folder.join(name).display().to_string(),
            None => word.to_owned(),
        };
        Ok(command.split(' ').map(word).collect())
    }

    fn run(&self, command: &str) -> Result<()> {
        let may_fail = command.starts_with('-');
        let words = self.words(command.trim_start_matches('-'))?;
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        let ran = self.sg.run_build(&self.program, &words)?;
        if !may_fail {
            ran.succeeded()?;
        }
        Ok(())
    }

    /// Runs a command that dies at a point.
    fn kill(&self, command: &str, point: &str) -> Result<Ran> {
        let words = self.words(command)?;
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        self.sg.run_to(point, &self.program, &words)
    }

    fn open(&self) -> Result<Open> {
        let world = &self.pair.world;
        let connect = |port: u16| match tcp_connects(world, &format!("10.0.0.10:{port}"))? {
            Connected => Ok(true),
            TimedOut => Ok(false),
            other => bail!("port {port}: {other:?}"),
        };
        thread::scope(|scope| {
            let ports = [22, 80, 443].map(|port| scope.spawn(move || connect(port)));
            let open: Result<Vec<bool>> = ports
                .into_iter()
                .map(|port| port.join().unwrap_or_else(|_| bail!("panicked")))
                .collect();
            open?.try_into().ok().context("three ports")
        })
    }
}

/// Kills a change at each of its points; `then` does what else comes before it.
fn kill_at_each_point(
    stage: &mut Stage,
    change: &Change,
    mut then: impl FnMut(&mut Stage) -> Result<()>,
) -> Result<()> {
    for (point, time) in change.points {
        let at = format!("{}:{time}", point.name());
        for command in change.ready {
            stage.run(command).with_context(|| format!("before {at}"))?;
        }
        then(stage).with_context(|| format!("before {at}"))?;
        let open = stage.open()?;
        ensure!(open == change.from, "before {at}: {open:?}");

        let killed = stage.kill(change.killed, &at)?;
        ensure!(killed.code.is_none(), "{at} was not reached: {killed}");
        let open = stage.open()?;
        ensure!(
            open == change.from || open == change.to || Some(open) == change.between,
            "{at}: {open:?} is neither {:?} nor {:?}",
            change.from,
            change.to
        );

        for command in change.completed {
            stage.run(command).with_context(|| format!("after {at}"))?;
        }
        let open = stage.open()?;
        ensure!(open == change.to, "the command after {at}: {open:?}");
        stage.run("verify").with_context(|| format!("after {at}"))?;
    }
    Ok(())
}

fn nothing_more(_: &mut Stage) -> Result<()> {
    Ok(())
}

#[test]
fn at_each_step_of_an_update() -> Result<()> {
    kill_at_each_point(&mut Stage::new()?, &EDIT, nothing_more)
}

#[test]
fn at_each_step_of_a_first_policy() -> Result<()> {
    kill_at_each_point(&mut Stage::new()?, &FIRST, nothing_more)
}

/// New links let everything pass until their policy is ready; none may be left so.
#[test]
fn while_new_interfaces_get_their_links() -> Result<()> {
    kill_at_each_point(&mut Stage::new()?, &SEVERAL, nothing_more)
}

#[test]
fn at_each_step_of_an_upgrade() -> Result<()> {
    let mut stage = Stage::new()?;
    let mut other = stage.sg.another_build_of(&stage.program)?;
    stage.run("apply @old")?;
    kill_at_each_point(&mut stage, &UPGRADE, |stage| {
        std::mem::swap(&mut stage.program, &mut other);
        Ok(())
    })
}

#[test]
fn at_each_step_of_a_resize() -> Result<()> {
    kill_at_each_point(&mut Stage::new()?, &RESIZE, nothing_more)
}

#[test]
fn at_each_step_of_a_detachment() -> Result<()> {
    kill_at_each_point(&mut Stage::new()?, &DETACH, nothing_more)
}

#[test]
fn at_each_step_to_a_confirmation_and_back() -> Result<()> {
    let mut stage = Stage::new()?;
    kill_at_each_point(&mut stage, &CONFIRM, nothing_more)?;
    kill_at_each_point(&mut stage, &ROLL_BACK, nothing_more)
}

#[test]
fn when_an_audit_begins() -> Result<()> {
    kill_at_each_point(&mut Stage::new()?, &AUDIT, nothing_more)
}

#[test]
fn at_each_step_of_filters() -> Result<()> {
    let mut stage = Stage::new()?;
    stage.sg.use_filters(true);
    kill_at_each_point(&mut stage, &FILTERS, nothing_more)?;
    kill_at_each_point(&mut stage, &FILTERS_GO, nothing_more)
}

#[test]
fn while_a_refused_policy_is_taken_back() -> Result<()> {
    let mut stage = Stage::new()?;
    stage.sg.use_filters(true);
    // Filters cannot be added where this is.
    let qdisc = ["qdisc", "add", "dev", "x0", "handle", "ffff:", "ingress"];
    stage.pair.host.run("tc", &qdisc)?;
    kill_at_each_point(&mut stage, &UNDO, nothing_more)
}

#[test]
fn while_the_links_of_a_device_follow_it() -> Result<()> {
    let mut stage = Stage::new()?;
    let other = stage.pair.lab.host("other")?;
    let here = stage.pair.host.clone();
    let (mut from, mut to): (Host, Host) = (here, other);
    stage.run("apply @both")?;
    kill_at_each_point(&mut stage, &MOVE, |stage| {
        let _ = &stage;
        from.ip(&format!("link set x0 netns {}", to.namespace()))?;
        std::mem::swap(&mut from, &mut to);
        Ok(())
    })
}

/// What is refused leaves no link behind.
#[test]
fn a_refused_apply_leaves_no_links() -> Result<()> {
    let stage = Stage::new()?;
    stage.run("limits set rules=1")?;
    let refused = stage.kill("apply @several", "never")?;
    ensure!(refused.code == Some(2), "{refused}");
    let links = stage.sg.run_dir().join("bpf/links");
    let left = fs::read_dir(&links).map_or(0, Iterator::count);
    ensure!(left == 0, "{left} links are left in {}", links.display());
    ensure!(stage.open()? == UNPROTECTED);
    Ok(())
}
