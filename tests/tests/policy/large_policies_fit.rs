//! A thousand groups of sixty rules, and a hundred interfaces that share policies; and prefixes by
//! the hundred thousand.

use std::fmt::Write as _;
use std::net::{IpAddr, SocketAddr};

use anyhow::{Context as _, Result, ensure};
use sg_common::report::Verdict;
use sg_ctl::dataplane::Dataplane;
use sg_ctl::dataplane::measure::ReplayHook;
use sg_ctl::dirs::{DirOptions, Dirs};
use tests::lab::Lab;
use tests::packets::{Packet, flags};
use tests::random::seeded;
use tests::sg::Sg;
use tests::sockets::Outcome::{Connected, TimedOut};
use tests::sockets::{TcpEcho, tcp_connects};

const GROUPS: usize = 1_000;
const INTERFACES: usize = 100;

/// Group `n` opens sixty ports, each to a prefix of its own; the last port of all to the world's.
fn policy() -> Result<String> {
    let mut text = String::from("groups:\n");
    for group in 0..GROUPS {
        writeln!(text, "  g{group}:\n    ingress:")?;
        for rule in 0..58 {
            let (port, net) = (1_000 + rule, group % 250);
            writeln!(
                text,
                "      - {{protocol: tcp, ports: {port}, from: [172.{rule}.{net}.0/24]}}"
            )?;
        }
        writeln!(
            text,
            "      - {{protocol: tcp, ports: 22, from: [sg:g{}]}}",
            (group + 1) % GROUPS
        )?;
        let port = 2_000 + group;
        writeln!(
            text,
            "      - {{protocol: tcp, ports: {port}, from: [10.0.0.0/24]}}"
        )?;
    }
    text.push_str("interfaces:\n  eth0: {groups: [g0, g1, g999]}\n");
    for interface in 0..INTERFACES {
        // Every other one shares the set of the one before.
        let first = interface / 2 * 20;
        let groups: Vec<String> = (first..first + 10)
            .map(|group| format!("g{group}"))
            .collect();
        writeln!(text, "  v{interface}: {{groups: [{}]}}", groups.join(", "))?;
    }
    Ok(text)
}

#[test]
fn a_thousand_groups_and_a_hundred_interfaces() -> Result<()> {
    let pair = Lab::pair()?;
    for interface in 0..INTERFACES {
        pair.host.ip(&format!(
            "link add v{interface} type veth peer name w{interface}"
        ))?;
    }
    let sg = Sg::on(&pair.host)?;
    sg.apply(&policy()?)?;
    let status = sg.json(&["status"])?;
    let interfaces = status["interfaces"].as_array().cloned().unwrap_or_default();
    ensure!(
        interfaces.len() == INTERFACES + 1,
        "{} interfaces",
        interfaces.len()
    );
    ensure!(
        interfaces
            .iter()
            .all(|interface| interface["attached"] == true),
        "{interfaces:?}"
    );
    for (port, wanted) in [
        (2_000, Connected),
        (2_001, Connected),
        (2_999, Connected),
        (2_002, TimedOut),
        (1_000, TimedOut),
        (22, TimedOut),
    ] {
        let _listener = TcpEcho::listen(&pair.host, &format!("10.0.0.10:{port}"))?;
        let got = tcp_connects(pair.world.at("10.0.0.1")?, &format!("10.0.0.10:{port}"))?;
        ensure!(got == wanted, "port {port}: {got:?}, expected {wanted:?}");
    }
    // One command takes them all away.
    sg.apply("interfaces: {}")?;
    ensure!(
        sg.json(&["status"])?["interfaces"]
            .as_array()
            .is_some_and(Vec::is_empty),
        "something is still attached"
    );
    Ok(())
}

const PREFIXES_V4: u32 = 100_000;
const PREFIXES_V6: u32 = 20_000;

/// Prefix `n` covers the lower half of the block of 2¹⁴ addresses with that number.
fn block_v4(number: u32) -> u32 {
    0x1400_0000 + (number << 14)
}

/// Prefix `n` covers the lower half of a /63; every fourth one only the lowest address of it.
fn block_v6(number: u32) -> u128 {
    0x2001_0db8_u128 << 96 | u128::from(number) << 65
}

fn many_prefixes() -> Result<String> {
    let mut text = String::from("prefix_lists:\n  many:\n");
    for number in 0..PREFIXES_V4 {
        let network = IpAddr::V4(block_v4(number).into());
        writeln!(text, "    - {network}/19")?;
    }
    for number in 0..PREFIXES_V6 {
        let network = IpAddr::V6(block_v6(number).into());
        let length = if number.is_multiple_of(4) { 128 } else { 64 };
        writeln!(text, "    - \"{network}/{length}\"")?;
    }
    text.push_str("groups:\n  g:\n    ingress:\n");
    text.push_str("      - {protocol: tcp, ports: 443, from: [pl:many]}\n");
    // The same blocks once more as rules, for another port.
    for number in (0..PREFIXES_V4).step_by(50) {
        let network = IpAddr::V4(block_v4(number).into());
        writeln!(
            text,
            "      - {{protocol: tcp, ports: 80, from: [{network}/19]}}"
        )?;
    }
    text.push_str("interfaces:\n  eth0: {groups: [g]}\n");
    Ok(text)
}

/// Addresses at the ends of a random block's prefix and beside them, each with whether the list
/// and the rules hold it.
fn spots(rng: &mut fastrand::Rng) -> Vec<(IpAddr, bool, bool)> {
    let number = rng.u32(..PREFIXES_V4);
    let (first, last) = (block_v4(number), block_v4(number) + (1 << 13) - 1);
    let is_rule = number.is_multiple_of(50);
    let mut spots: Vec<(IpAddr, bool, bool)> = vec![
        (IpAddr::V4(first.into()), true, is_rule),
        (IpAddr::V4(last.into()), true, is_rule),
        (IpAddr::V4((first - 1).into()), false, false),
        (IpAddr::V4((last + 1).into()), false, false),
        (IpAddr::V4(rng.u32(first..=last).into()), true, is_rule),
    ];
    let number = rng.u32(..PREFIXES_V6);
    let is_alone = number.is_multiple_of(4);
    let first = block_v6(number);
    let last = if is_alone {
        first
    } else {
        first | u128::from(u64::MAX)
    };
    spots.extend([
        (IpAddr::V6(first.into()), true, false),
        (IpAddr::V6(last.into()), true, false),
        (IpAddr::V6((first - 1).into()), false, false),
        (IpAddr::V6((last + 1).into()), false, false),
    ]);
    spots
}

#[test]
fn a_hundred_thousand_prefixes_are_told_apart_in_the_kernel() -> Result<()> {
    let (pair, sg) = Sg::protecting(&many_prefixes()?)?;
    let dirs = Dirs::create(&DirOptions {
        state_dir: sg.state_dir(),
        run_dir: sg.run_dir(),
    })?;
    let lock = dirs.lock()?;
    let bpffs = dirs.bpffs(&lock)?;
    pair.host.enter(|| {
        let dataplane = Dataplane::open(dirs.run(), &bpffs.path)?;
        let (image, _) = dataplane.image().context("nothing is installed")?;
        let interface = image.interfaces.values().next().context("no interface")?;
        let (netns, ifindex) = (interface.netns, interface.ifindex);
        let mut programs = dataplane.replay(netns)?.context("nothing is installed")?;
        let mut rng = seeded("a_hundred_thousand_prefixes_are_told_apart_in_the_kernel");
        for _ in 0..300 {
            for (peer, is_listed, is_rule) in spots(&mut rng) {
                let local: IpAddr = match peer {
                    IpAddr::V4(_) => "10.0.0.10".parse()?,
                    IpAddr::V6(_) => "2001:db8:ffff::10".parse()?,
                };
                for (port, passes) in [(443, is_listed), (80, is_rule), (22, false)] {
                    let source = SocketAddr::new(peer, 40_000);
                    let packet = Packet::tcp(source, SocketAddr::new(local, port));
                    let frame = packet.flags(flags::SYN).frame();
                    let verdict = programs.judge(ReplayHook::TcReceive, ifindex, &frame)?;
                    let wanted = if passes { Verdict::Pass } else { Verdict::Drop };
                    ensure!(
                        verdict == Some(wanted),
                        "{peer} port {port}: {verdict:?}, expected {wanted:?}"
                    );
                }
            }
        }
        Ok(())
    })
}
