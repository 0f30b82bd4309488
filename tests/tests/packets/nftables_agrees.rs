//! sg and nftables, given the same rules, let the same packets through.
//!
//! Two routers stand between a world and a guest each; one has sg on the guest's cable, the other a
//! stateful rule set of nftables. The same random packets, valid and hostile, go through both, and
//! what arrives at the other end is compared, byte by byte. Where the two differ on purpose, a
//! written list says where and why; nothing else may differ.

mod conversations;
mod intended;
mod ruleset;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use fastrand::Rng;
use ipnet::IpNet;
use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::unistd::Pid;
use sg_common::packet::Direction;
use sg_common::report::Reason;
use sg_ctl::dataplane::Dataplane;
use sg_ctl::policy::export::export;
use sg_ctl::policy::file::PolicyFile;
use sg_ctl::policy::model::{
    Group, Hook, Interface, Macs, OnRuleRemoval, Peer, Permission, Policy, PortRange, Rule, Side,
    Traffic, Vpc,
};
use sg_ctl::policy::names::{InterfaceName, VpcName};
use tests::inject::{Capture, Injector};
use tests::lab::{Host, Lab};
use tests::packets::Packet;
use tests::random::frames::Aim;
use tests::random::policy::{HostAddresses, policy};
use tests::random::seeded;
use tests::sg::Sg;

use self::conversations::Said;

const POLICIES: usize = 6;
const FRAMES: usize = 300;
const GUEST: [&str; 2] = ["10.0.0.5", "2001:db8::5"];
/// Whose packets always reach the guest: what was sent before them has then arrived, or will not.
const LAST: &str = "192.0.2.250";
const LAST_PORT: u16 = 7;
const SOON: Duration = Duration::from_secs(5);
/// Link-layer addresses: the world's, the guest's, and the router's two.
const WORLD_MAC: &str = "02:00:00:00:01:01";
const GUEST_MAC: &str = "02:00:00:00:01:02";
const NEAR_MAC: [u8; 6] = [2, 0, 0, 0, 1, 3];
const FAR_MAC: [u8; 6] = [2, 0, 0, 0, 1, 4];

/// `world eth0 — far [router] guest0 — eth0 guest`. Neither end has an address, so that nobody
/// speaks but the test.
struct Road {
    _lab: Lab,
    router: Host,
    world: (Injector, Capture),
    guest: (Injector, Capture),
}

fn mac(octets: [u8; 6]) -> String {
    octets.map(|octet| format!("{octet:02x}")).join(":")
}

impl Road {
    fn new() -> Result<Self> {
        let lab = Lab::new()?;
        let (world, router, guest) = (lab.host("world")?, lab.host("router")?, lab.host("guest")?);
        lab.join((&world, "eth0"), (&router, "far"))?;
        lab.join((&guest, "eth0"), (&router, "guest0"))?;
        router.ip(&format!("link set far address {}", mac(FAR_MAC)))?;
        router.ip(&format!("link set guest0 address {}", mac(NEAR_MAC)))?;
        for host in [&world, &guest] {
            host.ip("link set eth0 arp off addrgenmode none")?;
            host.ip("-6 address flush dev eth0")?;
        }
        router.forward()?;
        // No address of the random packets' is the router's.
        router.add_addresses("far", &["10.255.255.1/32"])?;
        for (family, gateway) in [("-4", "10.255.255.2"), ("-6", "fe80::ffff")] {
            router.ip(&format!(
                "neighbour add {gateway} lladdr {WORLD_MAC} dev far"
            ))?;
            router.ip(&format!(
                "{family} route add default via {gateway} dev far onlink"
            ))?;
        }
        for own in GUEST {
            router.ip(&format!("route add {own} dev guest0"))?;
            router.ip(&format!(
                "neighbour add {own} lladdr {GUEST_MAC} dev guest0"
            ))?;
        }
        let ends =
            |host: &Host| anyhow::Ok((Injector::on(host, "eth0")?, Capture::on(host, "eth0")?));
        Ok(Self {
            world: ends(&world)?,
            guest: ends(&guest)?,
            router,
            _lab: lab,
        })
    }

    /// Sends a frame, and `last` after it. Returns whether the frame arrives at the other end.
    fn carry(&self, direction: Direction, frame: &[u8], last: &[u8]) -> Result<bool> {
        let from = match direction {
            Direction::Ingress => &self.world,
            Direction::Egress => &self.guest,
        };
        if from.0.send(frame).is_err() {
            // No device takes a frame longer than its MTU.
            return Ok(false);
        }
        self.world.0.send(last)?;
        let mut arrived = false;
        loop {
            let seen = self.guest.1.next(SOON)?;
            let seen = seen.context("the last packet is lost")?;
            if is_forwarded(&seen, last) {
                break;
            }
            arrived |= direction == Direction::Ingress && is_forwarded(&seen, frame);
        }
        while let Some(seen) = self.world.1.next(Duration::ZERO)? {
            arrived |= direction == Direction::Egress && is_forwarded(&seen, frame);
        }
        Ok(arrived)
    }
}

impl Road {
    /// Gives the router the rule set of nftables that says what the policy of the guest does.
    fn filter(&self, vpc: &Vpc, interface: &Interface) -> Result<()> {
        let rules = tempfile::NamedTempFile::new()?;
        std::fs::write(rules.path(), ruleset::ruleset(vpc, interface))?;
        // Receivers look at checksums, and sg leaves that to them.
        self.router.enter(|| {
            std::fs::write("/proc/sys/net/netfilter/nf_conntrack_checksum", "0")
                .context("conntrack's checksums")
        })?;
        self.router
            .run("nft", &["-f".as_ref(), rules.path().as_os_str()])
            .with_context(|| ruleset::ruleset(vpc, interface))?;
        Ok(())
    }

    /// Tells a conversation, and says which of its packets have arrived at the other end.
    fn tell(&self, lines: &[&str]) -> Result<Vec<(Said, bool)>> {
        let mut told = Vec::new();
        let mut seen: BTreeMap<Direction, Vec<Vec<u8>>> = BTreeMap::new();
        for (number, line) in lines.iter().enumerate() {
            let mut said = conversations::said(line)?;
            let router = match said.direction {
                Direction::Ingress => FAR_MAC,
                Direction::Egress => NEAR_MAC,
            };
            said.frame[..6].copy_from_slice(&router);
            let from = match said.direction {
                Direction::Ingress => &self.world,
                Direction::Egress => &self.guest,
            };
            from.0.send(&said.frame)?;
            let last = last(&format!("line {number}"))?;
            self.world.0.send(&last)?;
            let at_guest = seen.entry(Direction::Ingress).or_default();
            loop {
                let frame = self.guest.1.next(SOON)?;
                let frame = frame.context("the last packet is lost")?;
                if is_forwarded(&frame, &last) {
                    break;
                }
                at_guest.push(frame);
            }
            let at_world = seen.entry(Direction::Egress).or_default();
            while let Some(frame) = self.world.1.next(Duration::ZERO)? {
                at_world.push(frame);
            }
            told.push(said);
        }
        let told = told.into_iter().map(|said| {
            let there = seen.get(&said.direction).into_iter().flatten();
            let sent = without_identification(&said.frame);
            let has_arrived = there
                .into_iter()
                .any(|frame| is_forwarded(&without_identification(frame), &sent));
            (said, has_arrived)
        });
        Ok(told.collect())
    }
}

/// A frame without what a router that has put IPv6 fragments together writes anew.
fn without_identification(frame: &[u8]) -> Vec<u8> {
    let mut frame = frame.to_vec();
    let is_v6_fragment = frame.get(12..14) == Some(&[0x86, 0xdd]) && frame.get(20) == Some(&44);
    if is_v6_fragment && let Some(identification) = frame.get_mut(58..62) {
        identification.fill(0);
    }
    frame
}

/// The packet that tells that those before it have arrived.
fn last(payload: &str) -> Result<Vec<u8>> {
    let packet = Packet::udp(
        format!("{LAST}:9").parse()?,
        format!("{}:{LAST_PORT}", GUEST[0]).parse()?,
    );
    Ok(packet.payload(payload.as_bytes()).to_mac(FAR_MAC).frame())
}

/// Whether `seen` is what a router makes of a frame: without padding and tags, and with one hop
/// less.
fn is_forwarded(seen: &[u8], sent: &[u8]) -> bool {
    let tags = sent[12..]
        .chunks(4)
        .take_while(|tag| matches!(tag, [0x81 | 0x91, 0, ..] | [0x88, 0xa8, ..]));
    let start = 14 + 4 * tags.count();
    let (Some(seen), Some(sent)) = (seen.get(14..), sent.get(start..)) else {
        return false;
    };
    let is_counted = |at: usize| match seen[0] >> 4 {
        4 => !matches!(at, 8 | 10 | 11),
        _ => at != 7,
    };
    seen.len() >= 20
        && seen.len() <= sent.len()
        && (0..seen.len()).all(|at| !is_counted(at) || seen[at] == sent[at])
}

/// One guest in the groups of a random interface.
fn guest_policy(rng: &mut Rng) -> Result<(Vpc, InterfaceName, Interface)> {
    let random = policy(rng);
    let mut vpc = random
        .vpcs
        .get(&VpcName::default())
        .context("no default VPC")?
        .clone();
    let interfaces = std::mem::take(&mut vpc.interfaces);
    let chosen = rng.choice(interfaces.values()).context("no interface")?;
    let always = Group {
        id: "sg-0a5700000000000ff".parse()?,
        description: "what tells that a packet has arrived".to_owned(),
        rules: vec![Rule {
            id: "sgr-0a5700000000000ff".parse()?,
            permission: Permission {
                direction: Direction::Ingress,
                traffic: Traffic::Udp(PortRange::new(LAST_PORT, LAST_PORT).context("a port")?),
                peer: Peer::Prefix(format!("{LAST}/32").parse::<IpNet>()?),
            },
            description: String::new(),
        }],
        members: Default::default(),
    };
    let mut groups = chosen.groups.clone();
    groups.insert("always".parse()?);
    vpc.groups.insert("always".parse()?, always);
    vpc.link_local_services.clear();
    vpc.on_rule_removal = OnRuleRemoval::Keep;
    let interface = Interface {
        groups,
        side: Side::Guest,
        hook: Hook::Tc,
        addresses: GUEST
            .iter()
            .map(|own| own.parse())
            .collect::<Result<_, _>>()?,
        macs: Macs::Any,
        ..Interface::default()
    };
    let name: InterfaceName = "guest0".parse()?;
    vpc.interfaces.insert(name.clone(), interface.clone());
    Ok((vpc, name, interface))
}

type Counts = BTreeMap<(Direction, Reason), u64>;

/// Why sg has done what it did, by its counters.
struct Reasons {
    run: PathBuf,
    before: Counts,
}

impl Reasons {
    fn read(&self) -> Result<Counts> {
        let dataplane = Dataplane::open(&self.run, &self.run.join("bpf"))?;
        let counts = dataplane.reason_counts()?;
        Ok(counts
            .into_iter()
            .map(|count| ((count.direction, count.reason), count.packets))
            .collect())
    }

    /// What was counted since the last call, but for the last packet; `None` when sg saw none.
    fn since(&mut self) -> Result<Option<Reason>> {
        let after = self.read()?;
        let mut risen = Vec::new();
        for (key, count) in &after {
            let more = count - self.before.get(key).copied().unwrap_or(0);
            risen.extend((0..more).map(|_| *key));
        }
        self.before = after;
        let last = risen
            .iter()
            .position(|key| {
                matches!(
                    key,
                    (
                        Direction::Ingress,
                        Reason::Tracked | Reason::Rule | Reason::Untracked
                    )
                )
            })
            .context("the last packet was not counted")?;
        risen.remove(last);
        // The router talks on the link as well.
        let is_talk = |reason: &Reason| {
            matches!(
                reason,
                Reason::NeighborDiscovery | Reason::MulticastMembership
            )
        };
        let mut reasons = risen.into_iter().map(|(_, reason)| reason);
        let first = reasons.next();
        Ok(match first {
            Some(talk) if is_talk(&talk) => reasons.find(|reason| !is_talk(reason)).or(first),
            other => other,
        })
    }
}

/// Stays on one processor, where packets arrive in the order they were sent.
fn keep_order() -> Result<()> {
    let usual = sched_getaffinity(Pid::from_raw(0))?;
    let mut one = CpuSet::new();
    let cpu = (0..CpuSet::count()).find(|cpu| usual.is_set(*cpu).unwrap_or(false));
    one.set(cpu.context("no processor")?)?;
    Ok(sched_setaffinity(Pid::from_raw(0), &one)?)
}

#[test]
fn the_same_conversations_pass() -> Result<()> {
    keep_order()?;
    let file = PolicyFile::parse("conversations", conversations::POLICY)?;
    let policy = file.to_policy(&Policy::default())?;
    let vpc = policy.vpcs.get(&VpcName::default()).context("no VPC")?;
    let interface = vpc.interfaces.values().next().context("no interface")?;
    let (mut passed, mut compared) = (0, 0);
    for (fact, lines) in conversations::CONVERSATIONS {
        let (with_sg, with_nft) = (Road::new()?, Road::new()?);
        let sg = Sg::on(&with_sg.router)?;
        sg.apply(conversations::POLICY)?.succeeded()?;
        with_nft.filter(vpc, interface)?;
        let (by_sg, by_nft) = (with_sg.tell(lines)?, with_nft.tell(lines)?);
        compared += conversations::arrived(&by_nft).len();
        passed += conversations::compare(fact, &by_sg, &by_nft)
            .with_context(|| format!("{:?}", sg.run(&["stats"])))?;
    }
    println!("{passed} of {compared} passed nftables, and the same passed sg");
    ensure!(
        passed * 4 > compared && passed < compared,
        "{passed} of {compared} passed, which means little"
    );
    Ok(())
}

#[test]
fn the_same_packets_pass() -> Result<()> {
    let mut rng = seeded("nftables_agrees");
    keep_order()?;
    let (mut compared, mut passed) = (0, 0);
    let mut differences: BTreeMap<&str, usize> = BTreeMap::new();
    let mut unexplained = Vec::new();
    for _ in 0..POLICIES {
        let (vpc, name, interface) = guest_policy(&mut rng)?;
        let (with_sg, with_nft) = (Road::new()?, Road::new()?);
        let sg = Sg::on(&with_sg.router)?;
        let yaml = export(&VpcName::default(), &vpc);
        sg.apply(&yaml).with_context(|| yaml.clone())?;
        with_nft.filter(&vpc, &interface)?;

        let mut reasons = Reasons {
            run: sg.run_dir(),
            before: Counts::new(),
        };
        reasons.before = reasons.read()?;
        let hosts = HostAddresses::new();
        let aim = Aim::at(&vpc, &name, &interface, &hosts);
        for number in 0..FRAMES {
            let direction = Direction::ALL[rng.usize(..2)];
            let mut frame = if rng.u8(..100) < 70 {
                aim.valid(&mut rng, direction)
            } else {
                aim.hostile(&mut rng, direction)
            };
            let router = match direction {
                Direction::Ingress => FAR_MAC,
                Direction::Egress => NEAR_MAC,
            };
            frame[..6].copy_from_slice(&router);
            let last = last(&format!("frame {number}"))?;
            let by_sg = with_sg.carry(direction, &frame, &last)?;
            let by_nft = with_nft.carry(direction, &frame, &last)?;
            let reason = reasons.since()?;
            compared += 1;
            passed += usize::from(by_nft);
            if by_sg == by_nft {
                continue;
            }
            let seen = intended::Seen {
                reason,
                frame: &frame,
                by_sg,
                by_nft,
            };
            match intended::DIFFERENCES
                .iter()
                .find(|difference| (difference.applies)(&seen))
            {
                Some(difference) => *differences.entry(difference.why).or_default() += 1,
                None => unexplained.push(format!(
                    "{direction:?} {reason:?}: {by_sg} by sg, {by_nft} by nft\n{frame:02x?}"
                )),
            }
        }
    }
    println!("{passed} of {compared} passed nftables; {differences:#?}");
    ensure!(
        unexplained.is_empty(),
        "{} of {compared} differ without a reason:\n{}",
        unexplained.len(),
        unexplained.join("\n")
    );
    ensure!(
        passed * 10 > compared,
        "too few packets passed to mean anything"
    );
    Ok(())
}
