//! A flow log's lines begin with the fourteen fields of VPC flow logs, and account for what was
//! seen.

use std::fs;
use std::net::IpAddr;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, Result, ensure};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sys::signal::Signal;
use sg_ctl::observe::flow_log::HEADER;
use tests::lab::Lab;
use tests::running::Running;
use tests::sg::Sg;
use tests::sockets::{Outcome, Session, TcpEcho, tcp_connects};

const POLICY: &str = "{groups: {web: {ingress: [
                         {protocol: tcp, ports: 80, from: 203.0.113.0/24},
                         {protocol: tcp, ports: 443, from: 0.0.0.0/0}]}},
                       interfaces: {eth0: {groups: [web]}}}";

/// The fourteen fields of version 2.
#[derive(Debug)]
struct Record<'a> {
    interface: &'a str,
    ends: Option<(IpAddr, IpAddr, u16, u16, u8)>,
    packets: Option<u64>,
    bytes: Option<u64>,
    start: u64,
    end: u64,
    action: &'a str,
    status: &'a str,
    ours: Vec<&'a str>,
}

/// Reads a line as any reader of version 2 does; `-` is nothing.
fn parse(line: &str) -> Result<Record<'_>> {
    let fields: Vec<_> = line.split(' ').collect();
    let (version_2, ours) = fields.split_at_checked(14).context("less than 14 fields")?;
    let [
        version,
        _account,
        interface,
        source,
        destination,
        source_port,
        destination_port,
        protocol,
        packets,
        bytes,
        start,
        end,
        action,
        status,
    ] = version_2
    else {
        unreachable!("split at 14");
    };
    ensure!(*version == "2");
    let ends = match *source {
        "-" => None,
        _ => Some((
            source.parse()?,
            destination.parse()?,
            source_port.parse()?,
            destination_port.parse()?,
            protocol.parse()?,
        )),
    };
    let number = |text: &str| match text {
        "-" => Ok(None),
        text => text.parse().map(Some),
    };
    Ok(Record {
        interface,
        ends,
        packets: number(packets)?,
        bytes: number(bytes)?,
        start: start.parse()?,
        end: end.parse()?,
        action,
        status,
        ours: ours.to_vec(),
    })
}

#[test]
fn what_passed_and_what_was_dropped_has_its_records() -> Result<()> {
    let pair = Lab::pair()?;
    let _services = (
        TcpEcho::listen(&pair.host, ":80")?,
        TcpEcho::listen(&pair.host, ":443")?,
    );
    let sg = Sg::on(&pair.host)?;
    sg.apply(POLICY)?;
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("flows.log");
    let file = path.to_str().context("a path in UTF-8")?;
    let log = Running::reading(sg.spawn(&["events", "--flow-log", file, "--interval", "1"])?)?;
    // The first interval has nothing in it.
    let deadline = Instant::now() + Duration::from_secs(20);
    while !fs::read_to_string(&path).is_ok_and(|text| text.contains("NODATA")) {
        ensure!(Instant::now() < deadline, "no record is written");
        ensure!(log.line_within(Duration::from_millis(100))?.is_none());
    }
    let mut session = Session::open(pair.world.at("203.0.113.5:4000")?, "10.0.0.10:80")?;
    ensure!(session.echoes()? == Outcome::Connected);
    ensure!(tcp_connects(&pair.world, "10.0.0.10:443")? == Outcome::Connected);
    ensure!(tcp_connects(pair.world.at("203.0.113.5")?, "10.0.0.10:22")? == Outcome::TimedOut);
    log.signal(Signal::SIGTERM)?;
    ensure!(log.end()?.0 == Some(0));

    let text = fs::read_to_string(&path)?;
    let (header, lines) = text.split_once('\n').context("no header")?;
    ensure!(
        header.starts_with(
            "version account-id interface-id srcaddr dstaddr srcport dstport protocol packets \
             bytes start end action log-status "
        ),
        "{header}"
    );
    let records = lines.lines().map(parse).collect::<Result<Vec<_>>>();
    let records = records.with_context(|| text.clone())?;
    let find = |source: (&str, u16), destination: (&str, u16), action: &str| {
        let found = records.iter().find(|record| {
            record
                .ends
                .is_some_and(|(from, to, from_port, to_port, protocol)| {
                    let is = |(address, port): (&str, u16), found: IpAddr, found_port: u16| {
                        address == found.to_string() && (port == 0 || port == found_port)
                    };
                    is(source, from, from_port) && is(destination, to, to_port) && protocol == 6
                })
                && record.action == action
                && record.status == "OK"
                && record.interface == "eth0"
        });
        found.with_context(|| format!("no {action} from {source:?} to {destination:?} in\n{text}"))
    };
    let rules = sg.json(&["rule", "list", "web"])?;
    let rule = rules["rules"].as_array().into_iter().flatten();
    let rule = rule.clone().find(|rule| rule["peer"] == "203.0.113.0/24");
    let rule = rule
        .and_then(|rule| rule["id"].as_str())
        .context("no rule")?;
    for (source, destination) in [
        (("203.0.113.5", 4_000), ("10.0.0.10", 80)),
        (("10.0.0.10", 80), ("203.0.113.5", 4_000)),
    ] {
        let tracked = find(source, destination, "ACCEPT")?;
        ensure!(
            tracked.packets >= Some(2) && tracked.bytes >= Some(100),
            "{tracked:?}"
        );
        ensure!(tracked.start <= tracked.end, "{tracked:?}");
        ensure!(tracked.ours.contains(&rule), "{tracked:?}");
    }
    // The first two bits of a connection that is open yet: SYN, and SYN with ACK.
    for (source, flags) in [(4_000, 2), (80, 18)] {
        let seen = records.iter().filter(|record| {
            let is_from = |(_, _, port, _, _): (IpAddr, IpAddr, u16, u16, u8)| port == source;
            record.action == "ACCEPT" && record.ends.is_some_and(is_from)
        });
        let seen = seen.map(|record| record.ours.first().copied().unwrap_or("-").parse());
        let seen = seen.collect::<Result<Vec<u8>, _>>()?;
        let all = seen.iter().fold(0, |all, flags| all | flags);
        ensure!(
            all == flags,
            "from port {source}: {seen:?}, not {flags}\n{text}"
        );
    }
    let untracked = find(("10.0.0.1", 0), ("10.0.0.10", 443), "ACCEPT")?;
    ensure!(untracked.ours.contains(&"untracked"), "{untracked:?}");
    let dropped = find(("203.0.113.5", 0), ("10.0.0.10", 22), "REJECT")?;
    ensure!(dropped.ours.contains(&"no-rule"), "{dropped:?}");
    let nothing = records.iter().find(|record| record.status == "NODATA");
    let nothing = nothing.context("no NODATA")?;
    ensure!(
        nothing.action == "-" && nothing.ends.is_none() && nothing.packets.is_none(),
        "{nothing:?}"
    );
    Ok(())
}

/// A flow log of one-second intervals, and where it is.
fn logging(sg: &Sg, path: &Path) -> Result<Running> {
    let file = path.to_str().context("a path in UTF-8")?;
    Running::reading(sg.spawn(&["events", "--flow-log", file, "--interval", "1"])?)
}

/// Waits until a file has a text, and returns all that it has.
fn text_with(path: &Path, wanted: &str) -> Result<String> {
    let deadline = Instant::now() + Duration::from_secs(40);
    loop {
        let text = fs::read_to_string(path).unwrap_or_default();
        if text.contains(wanted) {
            return Ok(text);
        }
        ensure!(
            Instant::now() < deadline,
            "no {wanted} in {}:\n{text}",
            path.display()
        );
        thread::sleep(Duration::from_millis(50));
    }
}

fn now() -> Result<u64> {
    Ok(SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs())
}

#[test]
fn a_pause_is_logged_as_one_and_not_as_silence() -> Result<()> {
    let (_pair, sg) = Sg::protecting(POLICY)?;
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("flows.log");
    let log = logging(&sg, &path)?;
    text_with(&path, "NODATA")?;
    log.signal(Signal::SIGSTOP)?;
    let paused = now()? + 1;
    // Longer than the kernel believes in a reader that says nothing.
    thread::sleep(Duration::from_secs(5));
    log.signal(Signal::SIGCONT)?;
    let text = text_with(&path, "SKIPDATA")?;
    for line in text.lines().skip(1) {
        let record = parse(line)?;
        ensure!(
            record.status == "SKIPDATA" || record.end <= paused || record.start > paused,
            "nothing is said to have happened in a pause from {paused} on:\n{text}"
        );
    }
    Ok(())
}

#[test]
fn a_file_that_was_moved_or_removed_is_opened_anew() -> Result<()> {
    let (_pair, sg) = Sg::protecting(POLICY)?;
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("flows.log");
    let log = logging(&sg, &path)?;
    text_with(&path, "NODATA")?;
    fs::rename(&path, folder.path().join("moved"))?;
    log.signal(Signal::SIGHUP)?;
    text_with(&path, "NODATA")?;
    fs::remove_file(&path)?;
    text_with(&path, "NODATA")?;
    log.signal(Signal::SIGTERM)?;
    ensure!(log.end()?.0 == Some(0));
    Ok(())
}

#[test]
fn a_full_disk_leaves_whole_lines_and_what_was_lost_is_logged() -> Result<()> {
    let (_pair, sg) = Sg::protecting(POLICY)?;
    let folder = tempfile::tempdir()?;
    let none: Option<&str> = None;
    mount(
        none,
        folder.path(),
        Some("tmpfs"),
        MsFlags::empty(),
        Some("size=64k"),
    )?;
    let logged = (|| {
        let path = folder.path().join("flows.log");
        // A page that ends in the middle of the next record, and no other page.
        let line = "2 - eth0 - - - - - - - 1 2 - NODATA - - - default - - - - -\n";
        let mut text = format!("{HEADER}\n{line}");
        while text.len() + line.len() < 4096 - 30 {
            text += line;
        }
        fs::write(&path, &text)?;
        let filler = folder.path().join("filler");
        // As much as there is.
        let _ = fs::write(&filler, vec![0; 1 << 20]);
        let log = logging(&sg, &path)?;
        thread::sleep(Duration::from_secs(3));
        let full = fs::read_to_string(&path)?;
        ensure!(full.ends_with('\n'), "half a line:\n{full}");
        fs::remove_file(&filler)?;
        let text = text_with(&path, "SKIPDATA")?;
        for line in text.lines().skip(1) {
            ensure!(
                line.split(' ').count() == HEADER.split(' ').count(),
                "{line}"
            );
        }
        log.signal(Signal::SIGTERM)?;
        ensure!(log.end()?.0 == Some(0), "a full disk ends the log");
        Ok(())
    })();
    umount2(folder.path(), MntFlags::MNT_DETACH)?;
    logged
}
