//! Two CPUs at one bucket, through the programs that judge real packets: no flow is lost while there
//! is room, none is there twice, and what is counted is what is there.
//!
//! The kernel runs the programs in two threads, each on a CPU of its own, over the same table. The
//! flows are chosen so that they all want the same bucket or two.

use std::collections::BTreeSet;
use std::hint;
use std::net::{IpAddr, Ipv4Addr, SocketAddrV4};
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow, ensure};
use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::unistd::Pid;
use sg_common::addr::Addr;
use sg_common::decide::Scratch;
use sg_common::flow::{FlowKey, FlowKind};
use sg_common::ids::Ticks;
use sg_common::packet::{Direction, Framing};
use sg_common::report::Reason;
use sg_ctl::compile::image::Image;
use sg_ctl::compile::{AttachedInterface, Limits, Settings, compile};
use sg_ctl::dataplane::measure::{Rehearsal, Yardstick};
use sg_ctl::dirs::{DirOptions, Dirs};
use sg_ctl::policy::file::PolicyFile;
use sg_ctl::policy::model::Policy;
use tests::packets::words::frame;

/// Nothing goes out but replies, and nothing is picked up: a packet whose flow is lost is dropped.
const POLICY: &str = "
groups:
  g:
    ingress:
      - {protocol: tcp, ports: 22, from: [0.0.0.0/0]}
      - {protocol: udp, ports: 53, from: [0.0.0.0/0]}
    egress: []
interfaces:
  eth0: {groups: [g], tcp_pickup: false}
";
const HOST: &str = "10.0.0.10";
const CPUS: usize = 2;
/// Flows that a bucket has places for.
const PLACES: usize = 8;
/// The least room for flows that there can be, so that flows that want one bucket are soon found.
const ROOM: u32 = 512;

fn compiled(settings: &Settings) -> Result<Image> {
    let findings = |findings| anyhow!("{findings}");
    let file = PolicyFile::parse("policy.yaml", POLICY).map_err(findings)?;
    let policy = file.to_policy(&Policy::default()).map_err(findings)?;
    let vpcs = policy.vpcs.iter();
    let mut named =
        vpcs.flat_map(|(vpc, content)| content.interfaces.keys().map(move |i| (vpc, i)));
    let (vpc, name) = named.next().context("no interface")?;
    let attached = AttachedInterface {
        vpc: vpc.clone(),
        name: name.clone(),
        netns: Rehearsal::NETNS,
        ifindex: Rehearsal::IFINDEX,
        bare: false,
        incarnation: 1,
        addresses: BTreeSet::from([HOST.parse::<IpAddr>()?]),
        peer_mac: None,
        judge_again_before: None,
    };
    Ok(compile(&policy, &[attached], None, settings)?)
}

/// The programs over a table of their own.
struct Scene {
    programs: Rehearsal,
    slot: u32,
    zone: u32,
}

/// Sets a scene where UDP is forgotten after so many ticks of the flows' clock.
fn in_scene(udp: Option<u32>, play: impl FnOnce(&Scene) -> Result<()>) -> Result<()> {
    let folder = tempfile::tempdir()?;
    let dirs = Dirs::create(&DirOptions {
        state_dir: folder.path().join("state"),
        run_dir: folder.path().join("run"),
    })?;
    let lock = dirs.lock()?;
    let bpffs = dirs.bpffs(&lock)?;
    let settings = Rehearsal::settings(ROOM, Limits::default())?;
    let mut image = compiled(&settings)?;
    let installed = image.interfaces.values_mut().next();
    let interface = &mut installed.context("no interface")?.interface;
    interface.max_flows = u32::MAX;
    interface.timeouts.udp = udp.unwrap_or(interface.timeouts.udp);
    let (slot, zone) = (interface.slot, interface.zone);
    let mut programs = Rehearsal::stage(&bpffs.path.join("parallel"), &image, &settings)?;
    programs.load(Yardstick::ReceiveTc)?;
    programs.load(Yardstick::SendTc)?;
    let played = play(&Scene {
        programs,
        slot,
        zone,
    });
    dirs.unmount_if_empty(&lock)?;
    played
}

impl Scene {
    /// Flows that a packet like this one opens, from another port of another peer, and that want
    /// these buckets.
    fn flows_in(&self, buckets: [u32; 2], opening: &str) -> Result<Vec<Peer>> {
        let mut scratch = Scratch::default();
        scratch.read(frame(opening)?.as_slice(), Framing::Ethernet);
        let opened = FlowKey::of(&scratch.headers, Direction::Ingress, self.zone);
        let flows = (0..=u8::MAX).flat_map(|address| {
            (1024..=u16::MAX).map(move |peer_port| {
                let peer = Ipv4Addr::new(198, 51, 100, address);
                let key = FlowKey {
                    peer: Addr::from_v4(peer.octets()),
                    peer_port,
                    ..opened
                };
                let peer = SocketAddrV4::new(peer, peer_port);
                Peer { key, peer }
            })
        });
        let wanted = flows.filter(|flow| self.programs.buckets_of(&flow.key) == buckets);
        let found: Vec<Peer> = wanted.take(PLACES * 2).collect();
        ensure!(found.len() == PLACES * 2, "too few flows want {buckets:?}");
        Ok(found)
    }

    /// A frame from outside.
    fn receive(&self, frame: &[u8]) -> Result<()> {
        self.programs.run_loaded(Yardstick::ReceiveTc, frame, 1)?;
        Ok(())
    }

    /// A frame of the host's.
    fn send(&self, frame: &[u8]) -> Result<()> {
        self.programs.run_loaded(Yardstick::SendTc, frame, 1)?;
        Ok(())
    }

    /// All flows there are, those that have expired and were not yet swept away with them.
    fn flows(&self) -> Result<Vec<(FlowKey, FlowKind)>> {
        let alive = self.programs.flows()?.alive(Ticks(0))?;
        Ok(alive
            .into_iter()
            .map(|(key, table, _)| (key, table))
            .collect())
    }

    /// No flow is there twice, and as many are counted as assured as there are.
    fn is_sound(&self) -> Result<Vec<(FlowKey, FlowKind)>> {
        let flows = self.flows()?;
        let keys: BTreeSet<FlowKey> = flows.iter().map(|(key, _)| *key).collect();
        ensure!(
            keys.len() == flows.len(),
            "a flow is there twice: {flows:?}"
        );
        let assured = flows
            .iter()
            .filter(|(_, table)| *table == FlowKind::Assured);
        let (assured, owned) = (assured.count(), self.programs.flows()?.owned(self.slot)?);
        ensure!(
            owned as usize == assured,
            "{assured} flows are assured, and {owned} are counted"
        );
        Ok(flows)
    }

    /// So many packets were judged, and all of them passed by a rule or a flow.
    fn nothing_was_dropped(&self, packets: u64) -> Result<()> {
        let mut passed = 0;
        for reason in Reason::ALL {
            let count = self.programs.counted(*reason)?;
            match reason {
                Reason::Rule | Reason::Tracked => passed += count,
                _ => ensure!(count == 0, "{count} packets: {}", reason.name()),
            }
        }
        ensure!(passed == packets, "{passed} passed of {packets}");
        Ok(())
    }
}

struct Peer {
    key: FlowKey,
    peer: SocketAddrV4,
}

/// Does the same on each CPU at once, and adds up what it returns.
fn on_each_cpu(work: impl Fn(usize) -> Result<u64> + Sync) -> Result<u64> {
    let allowed = sched_getaffinity(Pid::from_raw(0))?;
    let cpus: Vec<usize> = (0..CpuSet::count())
        .filter(|cpu| allowed.is_set(*cpu).unwrap_or(false))
        .take(CPUS)
        .collect();
    ensure!(cpus.len() == CPUS, "it takes {CPUS} CPUs");
    thread::scope(|scope| {
        let threads: Vec<_> = cpus
            .into_iter()
            .enumerate()
            .map(|(number, cpu)| {
                let work = &work;
                scope.spawn(move || {
                    let mut own = CpuSet::new();
                    own.set(cpu)?;
                    sched_setaffinity(Pid::from_raw(0), &own)?;
                    work(number)
                })
            })
            .collect();
        threads
            .into_iter()
            .map(|thread| thread.join().expect("a thread does not panic"))
            .sum()
    })
}

/// Where threads meet, and leave within nanoseconds of one another.
#[derive(Default)]
struct Meeting {
    came: AtomicU32,
}

impl Meeting {
    /// Waits until each thread has come so often.
    fn wait(&self, times: u32) {
        self.came.fetch_add(1, Ordering::AcqRel);
        let mut looks = 0_u32;
        while self.came.load(Ordering::Acquire) < times * CPUS as u32 {
            looks += 1;
            match looks % 10_000 {
                0 => thread::yield_now(),
                _ => hint::spin_loop(),
            }
        }
    }
}

/// One connection, as often as there is time: opened, answered, assured, reset, and opened anew by the
/// next SYN, which takes its place away and gives it one.
struct Connection {
    key: FlowKey,
    syn: Vec<u8>,
    answer: Vec<u8>,
    ack: Vec<u8>,
    reset: Vec<u8>,
}

impl Connection {
    const PACKETS: u64 = 4;

    fn with(peer: &Peer) -> Result<Self> {
        let (key, peer) = (peer.key, &peer.peer);
        let from = format!("tcp {peer} > {HOST}:22");
        let to = format!("tcp {HOST}:22 > {peer}");
        Ok(Self {
            key,
            syn: frame(&format!("{from} syn seq 100 window 1000"))?,
            answer: frame(&format!("{to} syn ack seq 500 ackno 101 window 1000"))?,
            ack: frame(&format!("{from} ack seq 101 ackno 501 window 1000"))?,
            reset: frame(&format!("{from} rst seq 101"))?,
        })
    }

    fn live(&self, scene: &Scene) -> Result<()> {
        scene.receive(&self.syn)?;
        scene.send(&self.answer)?;
        scene.receive(&self.ack)?;
        scene.receive(&self.reset)
    }
}

/// A datagram each way.
struct Conversation {
    key: FlowKey,
    request: Vec<u8>,
    reply: Vec<u8>,
}

impl Conversation {
    const PACKETS: u64 = 2;

    fn with(peer: &Peer) -> Result<Self> {
        let (key, peer) = (peer.key, &peer.peer);
        Ok(Self {
            key,
            request: frame(&format!("udp {peer} > {HOST}:53"))?,
            reply: frame(&format!("udp {HOST}:53 > {peer}"))?,
        })
    }

    /// Conversations that want these buckets.
    fn all(peers: &[Peer]) -> Result<Vec<Self>> {
        peers.iter().map(Self::with).collect()
    }
}

#[test]
fn flows_open_close_and_expire_in_a_bucket_that_has_just_room_for_them() -> Result<()> {
    const LIFETIME_TICKS: u32 = 1;
    const LIFETIME: Duration = Duration::from_secs(1);
    const WHILE: Duration = Duration::from_secs(8);
    // All places: what each CPU's connections and its one conversation take.
    const CONNECTIONS: usize = PLACES / CPUS - 1;
    in_scene(Some(LIFETIME_TICKS), |scene| {
        let bucket = [7, 7];
        let connections: Vec<Connection> = scene
            .flows_in(bucket, &format!("tcp 198.51.100.0:1 > {HOST}:22 syn"))?
            .iter()
            .take(CONNECTIONS * CPUS)
            .map(Connection::with)
            .collect::<Result<_>>()?;
        let conversations = Conversation::all(
            &scene.flows_in(bucket, &format!("udp 198.51.100.0:1 > {HOST}:53"))?,
        )?;
        let began = Instant::now();
        let packets = on_each_cpu(|cpu| {
            let own = &connections[cpu * CONNECTIONS..][..CONNECTIONS];
            let mut conversations = conversations.iter().skip(cpu).step_by(CPUS);
            let mut last: Option<Instant> = None;
            let mut packets = 0;
            while began.elapsed() < WHILE {
                for connection in own {
                    connection.live(scene)?;
                    packets += Connection::PACKETS;
                }
                // The last one has expired, and its place is any other flow's.
                let is_over = last.is_none_or(|last| last.elapsed() > LIFETIME);
                if is_over && let Some(next) = conversations.next() {
                    scene.receive(&next.request)?;
                    scene.send(&next.reply)?;
                    packets += Conversation::PACKETS;
                    last = Some(Instant::now());
                }
            }
            Ok(packets)
        })?;
        scene.nothing_was_dropped(packets)?;
        let flows = scene.is_sound()?;
        for connection in &connections {
            ensure!(
                flows.contains(&(connection.key, FlowKind::Assured)),
                "a connection is lost: {flows:?}"
            );
        }
        ensure!(flows.len() <= PLACES, "one bucket has {}", flows.len());
        Ok(())
    })
}

#[test]
fn two_cpus_that_open_and_assure_the_same_flows_at_once_leave_each_in_one_place() -> Result<()> {
    const ROUNDS: usize = 2_000;
    in_scene(None, |scene| {
        // More than half of one bucket, so that the other one is taken as well.
        let conversations = Conversation::all(
            &scene.flows_in([3, 4], &format!("udp 198.51.100.0:1 > {HOST}:53"))?,
        )?;
        let conversations = &conversations[..PLACES + PLACES / 2];
        let (meeting, mut met) = (Meeting::default(), 0);
        let mut packets = 0;
        for round in 0..ROUNDS {
            packets += on_each_cpu(|_| {
                let mut times = met;
                for conversation in conversations {
                    times += 1;
                    meeting.wait(times);
                    scene.receive(&conversation.request)?;
                }
                for conversation in conversations {
                    times += 1;
                    meeting.wait(times);
                    scene.send(&conversation.reply)?;
                }
                Ok(Conversation::PACKETS * conversations.len() as u64)
            })?;
            met += 2 * conversations.len() as u32;
            let flows = scene
                .is_sound()
                .with_context(|| format!("in round {round}"))?;
            for conversation in conversations {
                ensure!(
                    flows.contains(&(conversation.key, FlowKind::Assured)),
                    "in round {round} a flow is lost: {flows:?}"
                );
            }
            scene.programs.flows()?.forget()?;
        }
        scene.nothing_was_dropped(packets)
    })
}
