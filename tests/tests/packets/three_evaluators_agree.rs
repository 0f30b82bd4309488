//! The specification, the host's tables and the kernel's maps reach the same verdict.
//!
//! Random policies are installed on real devices one upon the other, and random frames, valid and
//! hostile, are judged by the loaded programs (`BPF_PROG_TEST_RUN`) at XDP and at TC, and by the
//! same decision over the host's copy of the tables. Flows live on from policy to policy in both.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::path::Path;

use anyhow::{Context as _, Result, ensure};
use sg_common::decide::{Scratch, direction_of};
use sg_common::packet::{Direction, Framing};
use sg_common::parse::{Content, Part};
use sg_common::report::{Reason, Verdict};
use sg_ctl::compile::Limits;
use sg_ctl::compile::host::HostTables;
use sg_ctl::compile::image::Image;
use sg_ctl::dataplane::measure::{Replay, ReplayHook};
use sg_ctl::dataplane::{DEFAULT_CAPACITY, Dataplane, Device, Judged, Wanted};
use sg_ctl::dirs::{DirOptions, Dirs};
use sg_ctl::interfaces::{self, Netns};
use sg_ctl::policy::allows::{FirstPacket, L4, ReadAddresses};
use sg_ctl::policy::model::Policy;
use sg_ctl::policy::names::{InterfaceName, VpcName};
use tests::evaluators::uninstall;
use tests::lab::Lab;
use tests::random::frames::Aim;
use tests::random::{policy as random_policy, seeded};

/// Devices in the namespace: as many as the largest random policy has interfaces.
const DEVICES: usize = 12;
/// The number that the first namespace gets.
const NETNS: u32 = 1;
const POLICIES: usize = 160;
const FRAMES_PER_POLICY: usize = 700;
/// Of so many frames one is also judged by whoever looks at the maps, entry by entry.
const LOOKED_AT: usize = 8;

#[test]
fn specification_host_tables_and_kernel_agree() -> Result<()> {
    let lab = Lab::new()?;
    let host = lab.host("devices")?;
    for number in 0..DEVICES {
        host.ip(&format!(
            "link add eth{number} type veth peer name far{number}"
        ))?;
    }
    let folder = tempfile::tempdir()?;
    let dirs = Dirs::create(&DirOptions {
        state_dir: folder.path().join("state"),
        run_dir: folder.path().join("run"),
    })?;
    let lock = dirs.lock()?;
    let bpffs = dirs.bpffs(&lock)?;
    let outcome = host.enter(|| run(dirs.run(), &bpffs.path));
    // Whatever came of it, nothing stays pinned.
    let removed = host.enter(|| uninstall(dirs.run(), &bpffs.path));
    dirs.unmount_if_empty(&lock)?;
    let tally = outcome?;
    removed?;
    println!("{tally:?}");
    ensure!(
        tally.compared >= 100_000,
        "only {} pairs of policy and frame were compared",
        tally.compared
    );
    ensure!(
        tally.passed > tally.compared / 20,
        "too few frames passed to mean anything"
    );
    ensure!(
        tally.judged_by_rules > 10_000,
        "too few frames were judged by rules alone"
    );
    ensure!(
        tally.looked_at > 10_000,
        "too few frames were judged by looking at the maps"
    );
    Ok(())
}

#[derive(Debug, Default)]
struct Tally {
    compared: usize,
    passed: usize,
    judged_by_rules: usize,
    looked_at: usize,
    /// Frames that the kernel runs no program on.
    refused_by_kernel: usize,
}

fn run(run_folder: &Path, bpffs: &Path) -> Result<Tally> {
    let mut rng = seeded("specification_host_tables_and_kernel_agree");
    let mut tally = Tally::default();
    let mut dataplane = Dataplane::open(run_folder, bpffs)?;
    let links = interfaces::links(&Netns::current()?)?;
    // Flows live on from policy to policy, so one host evaluator sees every image.
    let mut tables: Option<HostTables<'static>> = None;
    let mut replay: Option<Replay> = None;
    for _ in 0..POLICIES {
        let policy = random_policy::policy(&mut rng);
        let hosts = random_policy::host_addresses(&mut rng, &policy);
        install(&mut dataplane, &policy, &hosts, &links)?;
        let (image, generation) = dataplane.image().context("nothing is installed")?;
        let image: &'static Image = Box::leak(Box::new(image.clone()));
        let tables = match &mut tables {
            Some(tables) => {
                tables.install(image, generation);
                tables
            }
            None => tables.insert(HostTables::new(image, generation, 1 << 18)),
        };
        // A new layout has other maps, which programs loaded earlier don't look at.
        if !replay
            .as_ref()
            .is_some_and(|replay| dataplane.is_current(replay))
        {
            replay = Some(dataplane.replay(NETNS)?.context("nothing is installed")?);
        }
        let programs = replay.as_mut().context("no programs")?;
        let protected: Vec<_> = policy
            .vpcs
            .iter()
            .flat_map(|(vpc_name, vpc)| {
                vpc.interfaces
                    .iter()
                    .map(move |(name, i)| (vpc_name, vpc, name, i))
            })
            .collect();
        for _ in 0..FRAMES_PER_POLICY {
            let (vpc_name, vpc, name, interface) = protected[rng.usize(..protected.len())];
            let hook = ReplayHook::ALL[rng.usize(..ReplayHook::ALL.len())];
            let link = links
                .iter()
                .find(|link| link.name == name.as_str())
                .context("no device")?;
            let in_force = tables
                .interface(NETNS, link.ifindex)
                .context("not in the tables")?;
            let direction = direction_of(in_force, hook.receives());
            let aim = Aim::at(vpc, name, interface, &hosts);
            let frame = if rng.u8(..100) < 65 {
                aim.valid(&mut rng, direction)
            } else {
                aim.hostile(&mut rng, direction)
            };
            // Looking changes nothing, so the others find what it found.
            let looked = match tally.compared.is_multiple_of(LOOKED_AT) {
                true => Some(look(&dataplane, link.ifindex, &frame, direction)?),
                false => None,
            };
            tables.set_now(programs.now()?);
            let before = programs.reasons(in_force.slot, direction)?;
            let Some(verdict) = programs.judge(hook, link.ifindex, &frame)? else {
                tally.refused_by_kernel += 1;
                continue;
            };
            let after = programs.reasons(in_force.slot, direction)?;
            let kernel = counted(&before, &after)?;
            let host = tables
                .decide(NETNS, link.ifindex, hook.receives(), &frame, &())
                .context("not in the tables")?;
            let story = || {
                format!(
                    "{name} {hook:?} {}: kernel {verdict:?} {kernel:?}, host {:?}\n{frame:02x?}",
                    direction.name(),
                    host.reason
                )
            };
            ensure!(
                verdict == kernel.verdict(),
                "the kernel counts what it does not do: {}",
                story()
            );
            ensure!(host.reason == kernel, "host and kernel differ: {}", story());
            if let Some(looked) = looked
                && looked.headers.part != Part::Later
                && !is_of_link_layer(host.reason)
            {
                ensure!(
                    looked.decision == host,
                    "whoever looks at the maps sees {:?}: {}",
                    looked.decision,
                    story()
                );
                tally.looked_at += 1;
            }
            tally.compared += 1;
            tally.passed += usize::from(verdict == Verdict::Pass);
            if let Some(expected) = specified(
                &policy,
                (vpc_name, name),
                &hosts,
                direction,
                &frame,
                host.reason,
            ) {
                ensure!(
                    expected == (verdict == Verdict::Pass),
                    "the specification says pass = {expected}: {}",
                    story()
                );
                tally.judged_by_rules += 1;
            }
        }
    }
    Ok(tally)
}

fn install(
    dataplane: &mut Dataplane,
    policy: &Policy,
    hosts: &BTreeMap<InterfaceName, BTreeSet<IpAddr>>,
    links: &[interfaces::Link],
) -> Result<()> {
    let mut devices = Vec::new();
    for (vpc, content) in &policy.vpcs {
        for name in content.interfaces.keys() {
            let mut link = links
                .iter()
                .find(|link| link.name == name.as_str())
                .context("no device")?
                .clone();
            let addresses = hosts.get(name).into_iter().flatten();
            link.addresses = addresses
                .map(|address| ipnet::IpNet::from(*address))
                .collect();
            devices.push(Device {
                vpc: vpc.clone(),
                name: name.clone(),
                netns: Netns::current()?,
                link,
            });
        }
    }
    let wanted = Wanted {
        policy,
        devices,
        terminate: false,
        capacity: DEFAULT_CAPACITY,
        limits: Limits::default(),
    };
    let prepared = dataplane.prepare(&wanted)?;
    dataplane.install(prepared)?;
    Ok(())
}

/// Judges a frame by the installed maps, without any program.
/// Whether it is the link-layer addresses that decide, which a look at the maps does not ask for.
fn is_of_link_layer(reason: Reason) -> bool {
    matches!(
        reason,
        Reason::GuestMac | Reason::GuestArp | Reason::GuestDiscovery
    )
}

fn look(dataplane: &Dataplane, ifindex: u32, frame: &[u8], direction: Direction) -> Result<Judged> {
    let installed = dataplane.installed()?.context("nothing is installed")?;
    let standpoint = installed.at(NETNS, ifindex)?.context("no entry")?;
    let judged = standpoint.judge(frame, direction)?;
    ensure!(standpoint.is_current()?, "nobody changes the policy");
    Ok(judged)
}

/// The one reason that was counted once more.
fn counted(before: &[u64], after: &[u64]) -> Result<Reason> {
    let risen: Vec<Reason> = Reason::ALL
        .iter()
        .zip(before.iter().zip(after))
        .filter(|(_, (before, after))| after > before)
        .map(|(reason, _)| *reason)
        .collect();
    let [reason] = risen.as_slice() else {
        anyhow::bail!("counted for {risen:?}")
    };
    Ok(*reason)
}

/// What the specification says of a frame that rules alone have judged.
fn specified(
    policy: &Policy,
    (vpc, name): (&VpcName, &InterfaceName),
    hosts: &ReadAddresses,
    direction: Direction,
    frame: &[u8],
    reason: Reason,
) -> Option<bool> {
    let judged_by_rules = matches!(reason, Reason::Rule | Reason::RuleAlone | Reason::NoRule);
    let mut scratch = Scratch::default();
    scratch.read(frame, Framing::Ethernet);
    let headers = &scratch.headers;
    // What is judged again by a newer policy is judged as the packet that opened its flow.
    if !judged_by_rules || headers.content != Content::Ip || headers.part == Part::Later {
        return None;
    }
    let l4 = match headers.protocol {
        6 | 17 => L4::Port(headers.destination_port),
        1 | 58 => L4::Icmp(headers.icmp_type, headers.icmp_code),
        _ => L4::Other,
    };
    let packet = FirstPacket {
        direction,
        peer: headers.peer(direction).to_ip(),
        protocol: headers.protocol,
        l4,
    };
    Some(!policy.allows(vpc, name, hosts, packet).is_empty())
}
