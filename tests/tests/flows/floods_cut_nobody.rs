//! Floods fill what is theirs to fill, and cut nobody: established flows go on, what keeps the link
//! alive passes, and one interface's flood leaves another's quota alone.
//!
//! The established flows are real connections that idle through the flood and must still carry data
//! afterwards. The floods are frames put on the wire in bulk; they are for a MAC address that is
//! nobody's, so that sg judges them and no kernel answers them.

use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use tests::inject::{Capture, Injector, inject};
use tests::lab::{Host, Lab};
use tests::packets::words::{frame, packet};
use tests::packets::{control, protocol};
use tests::sg::Sg;
use tests::sockets::Outcome::Connected;
use tests::sockets::{PATIENCE, Session, TcpEcho, UdpEcho};

const SESSIONS: usize = 1_000;
const SYNS: usize = 1_000_000;
const CONVERSATIONS: usize = 600_000;
const FRAGMENTS: usize = 200_000;
/// Frames that are handed to the kernel at once.
const BATCH: usize = 500;
/// A machine that is busy with a flood answers late; what sg drops never comes, however often it is
/// asked for.
const TRIES: u32 = 10;
const LONG: Duration = PATIENCE.saturating_mul(TRIES);
/// Flows there is room for.
const CAPACITY: u64 = 262_144;

/// Nothing goes out but replies, so that every flow is tracked, open as its rule is. A connection
/// that is forgotten is not picked up again, so that it ends. What is dropped on its way out is told to
/// the socket that sent it, which counts it.
const POLICY: &str = "
groups:
  g:
    ingress:
      - {protocol: tcp, ports: 22, from: [0.0.0.0/0, '::/0']}
      - {protocol: udp, ports: 53, from: [0.0.0.0/0, '::/0']}
    egress: []
interfaces:
  eth0: {groups: [g], tcp_pickup: false, egress_drops: toldMORE}
";

/// A machine behind sg with a thousand connections, and one or more worlds around it.
struct Scene {
    world: Host,
    host: Host,
    sg: Sg,
    sessions: Vec<Session>,
    _listener: TcpEcho,
    lab: Lab,
}

/// More fields of the policy's interface, and more interfaces.
fn scene(more: &str) -> Result<Scene> {
    let (pair, sg) = Sg::protecting(&POLICY.replace("MORE", more))?;
    let listener = TcpEcho::listen(&pair.host, ":22")?;
    let sessions: Result<_> = (0..SESSIONS)
        .map(|number| {
            let (from, to) = match number % 2 {
                0 => ("198.51.100.7", "10.0.0.10:22"),
                _ => ("2001:db8:aa::7", "[2001:db8::10]:22"),
            };
            // As late as an answer may be, a connection that is open is one.
            let mut opened = Session::open(pair.world.at(from)?, to);
            for _ in 1..TRIES {
                if opened.is_ok() {
                    break;
                }
                opened = Session::open(pair.world.at(from)?, to);
            }
            opened
        })
        .collect();
    Ok(Scene {
        world: pair.world,
        host: pair.host,
        sg,
        sessions: sessions?,
        _listener: listener,
        lab: pair.lab,
    })
}

impl Scene {
    /// Whether each connection still carries data.
    fn sessions_go_on(&mut self) -> Result<()> {
        for (number, session) in self.sessions.iter_mut().enumerate() {
            let mut go_on = false;
            for _ in 0..TRIES {
                go_on = go_on || session.echoes()? == Connected;
            }
            ensure!(go_on, "connection {number} of {SESSIONS} is cut");
        }
        Ok(())
    }

    /// How often an interface had a reason.
    fn counted(&self, interface: &str, direction: &str, reason: &str) -> Result<u64> {
        let stats = self.sg.json(&["stats"])?;
        let interfaces = stats["interfaces"].as_array().context("no interfaces")?;
        let reasons = interfaces
            .iter()
            .find(|counted| counted["name"] == interface)
            .and_then(|counted| counted["reasons"].as_array())
            .context("no reasons")?;
        Ok(reasons
            .iter()
            .filter(|counted| counted["direction"] == direction && counted["reason"] == reason)
            .filter_map(|counted| counted["packets"].as_u64())
            .sum())
    }

    /// What keeps the link alive passes both ways.
    fn link_lives(&self) -> Result<()> {
        let mac = self.host.mac("eth0")?;
        let capture = Capture::on(&self.world, "eth0")?;
        let answers = |asked: &[u8], what: &str, wanted: &dyn Fn(&[u8]) -> bool| {
            inject(&self.world, "eth0", asked)?;
            ensure!(
                capture.find(LONG, wanted)?.is_some(),
                "no answer to {what} in a flood"
            );
            Ok(())
        };
        let request = frame("arp who-has 10.0.0.10 tell 10.0.0.2")?;
        answers(&request, "ARP", &|seen| {
            seen.get(12..14) == Some(&[8, 6]) && seen.get(20..22) == Some(&[0, 2])
        })?;
        let own = "2001:db8::10".parse()?;
        let solicitation = control::neighbor_solicitation("2001:db8::2".parse()?, own);
        answers(&solicitation.to_mac(mac).frame(), "ND", &|seen| {
            seen.get(20) == Some(&protocol::ICMPV6) && seen.get(54) == Some(&136)
        })?;

        let discover = control::dhcp_discover().frame();
        inject(&self.host, "eth0", &discover)?;
        ensure!(capture.sees(&discover, LONG)?, "no DHCP discovery leaves");
        for (offer, at) in [
            (
                control::dhcp_offer("10.0.0.1".parse()?, "10.0.0.10".parse()?),
                ":68",
            ),
            (
                control::dhcpv6_reply("fe80::1".parse()?, own),
                "[2001:db8::10]:546",
            ),
        ] {
            let client = UdpEcho::listen(&self.host, at)?;
            inject(&self.world, "eth0", &offer.to_mac(mac).frame())?;
            let arrives = (0..TRIES).any(|_| client.gets(|_| true));
            ensure!(arrives, "{at}: no DHCP offer arrives");
        }
        Ok(())
    }

    /// The link lives as long as `flood` lasts, which has a thread of its own.
    fn link_lives_during(&self, flood: impl FnOnce() -> Result<()> + Send) -> Result<()> {
        thread::scope(|scope| {
            let flood = scope.spawn(flood);
            self.link_lives()?;
            while !flood.is_finished() {
                self.link_lives()?;
            }
            flood.join().expect("a flood does not panic")
        })
    }
}

/// Frames of one kind, each from another endpoint.
struct Flood {
    frames: Vec<Vec<u8>>,
    /// Where the endpoint's address and port stand.
    address: usize,
    port: usize,
    sent: u32,
}

const SOURCE: usize = 14 + 12;
const DESTINATION: usize = 14 + 16;
const SOURCE_PORT: usize = 14 + 20;
const DESTINATION_PORT: usize = 14 + 22;
const IDENTIFICATION: usize = 14 + 4;

impl Flood {
    /// Many packets like this one of IPv4, from changing endpoints.
    fn from_many(words: &str) -> Result<Self> {
        Self::of(words, SOURCE, SOURCE_PORT)
    }

    /// The same to changing endpoints, for the replies.
    fn to_many(words: &str) -> Result<Self> {
        Self::of(words, DESTINATION, DESTINATION_PORT)
    }

    fn of(words: &str, address: usize, port: usize) -> Result<Self> {
        Ok(Self {
            frames: vec![packet(words)?.frame(); BATCH],
            address,
            port,
            sent: 0,
        })
    }

    /// The next frames: endpoints are 100.64.0.0/12's addresses, and a thousand ports of each.
    fn batch(&mut self) -> &[Vec<u8>] {
        for frame in &mut self.frames {
            let number = self.sent;
            self.sent += 1;
            let address = 0x6440_0000_u32 + number / 1_000;
            let port = 10_000 + (number % 1_000) as u16;
            frame[self.address..][..4].copy_from_slice(&address.to_be_bytes());
            frame[self.port..][..2].copy_from_slice(&port.to_be_bytes());
            // Fragments of one packet are known by it.
            frame[IDENTIFICATION..][..2].copy_from_slice(&port.to_be_bytes());
        }
        &self.frames
    }

    fn send(&mut self, host: &Host, interface: &str, frames: usize) -> Result<()> {
        let injector = Injector::on(host, interface)?;
        for _ in 0..frames / BATCH {
            injector.send_all(self.batch())?;
        }
        Ok(())
    }
}

/// Conversations of one datagram each way with port 53 of a host.
struct Talk<'a> {
    world: &'a Host,
    host: &'a Host,
    interface: &'a str,
    requests: Flood,
    replies: Flood,
}

impl<'a> Talk<'a> {
    fn with(world: &'a Host, host: &'a Host, interface: &'a str, own: &str) -> Result<Self> {
        Ok(Self {
            world,
            host,
            interface,
            requests: Flood::from_many(&format!("udp 100.64.0.0:1 > {own}:53"))?,
            replies: Flood::to_many(&format!("udp {own}:53 > 100.64.0.0:1"))?,
        })
    }

    /// So many new ones. Returns how many got their reply.
    fn go_on(&mut self, conversations: usize) -> Result<u64> {
        let asking = Injector::on(self.world, self.interface)?;
        let answering = Injector::on(self.host, self.interface)?;
        let mut dropped = 0;
        for _ in 0..conversations / BATCH {
            asking.send_all(self.requests.batch())?;
            dropped += answering.send_all(self.replies.batch())?;
        }
        Ok((conversations - dropped) as u64)
    }
}

#[test]
fn idle_connections_survive_spoofed_syns_and_incomplete_fragments() -> Result<()> {
    let mut scene = scene("")?;
    scene.sessions_go_on()?;
    let opened = scene.counted("eth0", "ingress", "rule")?;
    let refused = scene.counted("eth0", "ingress", "no-rule")?;

    scene.link_lives_during(|| {
        let mut allowed = Flood::from_many("tcp 100.64.0.0:1 > 10.0.0.10:22 syn")?;
        allowed.send(&scene.world, "eth0", SYNS)?;
        let mut denied = Flood::from_many("tcp 100.64.0.0:1 > 10.0.0.10:23 syn")?;
        denied.send(&scene.world, "eth0", SYNS / 10)
    })?;
    let opened_by_syns = scene.counted("eth0", "ingress", "rule")? - opened;
    ensure!(opened_by_syns == SYNS as u64, "opened: {opened_by_syns}");
    let denied = scene.counted("eth0", "ingress", "no-rule")? - refused;
    ensure!(denied >= SYNS as u64 / 10, "no rule for: {denied}");

    scene.link_lives_during(|| {
        let mut first = Flood::from_many(
            "udp 100.64.0.0:1 > 10.0.0.10:53 payload 8 udp-length 100 fragment 1@0+",
        )?;
        first.send(&scene.world, "eth0", FRAGMENTS / 2)?;
        let mut later =
            Flood::from_many("proto 17 100.66.0.0 > 10.0.0.10 payload 8 fragment 1@16")?;
        // Their packets are not those that the others have begun.
        later.sent = FRAGMENTS as u32;
        later.send(&scene.world, "eth0", FRAGMENTS / 2)
    })?;
    let begun = scene.counted("eth0", "ingress", "rule")? - opened - opened_by_syns;
    ensure!(begun == FRAGMENTS as u64 / 2, "begun packets: {begun}");
    let unknown = scene.counted("eth0", "ingress", "fragment-unknown")?;
    ensure!(unknown == FRAGMENTS as u64 / 2, "unknown: {unknown}");

    scene.sessions_go_on()
}

/// Fills what there is to fill with conversations of two datagrams. Returns how many got a reply.
fn converse(scene: &Scene) -> Result<u64> {
    let mut talk = Talk::with(&scene.world, &scene.host, "eth0", "10.0.0.10")?;
    let mut answered = 0;
    for _ in 0..10 {
        answered += talk.go_on(CONVERSATIONS / 10)?;
        scene.link_lives()?;
    }
    Ok(answered)
}

#[test]
fn idle_connections_survive_conversations_that_fill_their_quota() -> Result<()> {
    let mut scene = scene("")?;
    let answered = converse(&scene)?;
    // Half of all places are one host interface's; places may be used again after 30 s.
    let room = CAPACITY / 2 - SESSIONS as u64;
    ensure!(answered >= room, "answered {answered} of {room} at least");
    let over = scene.counted("eth0", "egress", "quota-full")?;
    ensure!(
        over > 0 && over + answered == CONVERSATIONS as u64,
        "{answered} answered, {over} over the quota"
    );
    ensure!(scene.counted("eth0", "ingress", "table-full")? == 0);
    scene.sessions_go_on()
}

#[test]
fn idle_connections_survive_conversations_that_fill_the_table() -> Result<()> {
    let mut scene = scene(", max_flows: 1000000")?;
    let answered = converse(&scene)?;
    // Where no place is free, a conversation that was not answered yet gives its own to the next.
    let full = scene.counted("eth0", "ingress", "table-full")?;
    let unanswered = CONVERSATIONS as u64 - answered;
    ensure!(
        full > 0 && full <= unanswered,
        "{answered} answered, {full} found the table full"
    );
    ensure!(
        answered > CAPACITY * 9 / 10,
        "the table was full at {answered} of {CAPACITY}"
    );
    scene.sessions_go_on()
}

#[test]
fn one_interfaces_flood_leaves_anothers_quota_alone() -> Result<()> {
    const QUOTA: u64 = 1_000;
    const OTHERS: usize = 20_000;
    const OWN: usize = 2_000;
    let mut scene = scene("")?;
    let other = scene.lab.host("other")?;
    scene.lab.join((&other, "eth1"), (&scene.host, "eth1"))?;
    scene.host.add_addresses("eth1", &["10.9.0.10/24"])?;
    let second = format!("}}\n  eth1: {{groups: [g], egress_drops: told, max_flows: {QUOTA}");
    scene.sg.apply(&POLICY.replace("MORE", &second))?;

    let answered = Talk::with(&other, &scene.host, "eth1", "10.9.0.10")?.go_on(OTHERS)?;
    ensure!(answered == QUOTA, "answered {answered} of {QUOTA}");
    let over = scene.counted("eth1", "egress", "quota-full")?;
    ensure!(over == OTHERS as u64 - QUOTA, "{over} over the quota");

    let answered = Talk::with(&scene.world, &scene.host, "eth0", "10.0.0.10")?.go_on(OWN)?;
    ensure!(answered == OWN as u64, "answered {answered} of {OWN}");
    ensure!(scene.counted("eth0", "egress", "quota-full")? == 0);
    let mut new = Session::open(&scene.world, "10.0.0.10:22")?;
    ensure!(new.echoes()? == Connected, "a new connection");
    scene.sessions_go_on()
}
