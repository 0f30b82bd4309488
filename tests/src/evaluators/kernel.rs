//! The loaded programs, over the maps that `sg-ctl` fills: installed on devices that nobody else
//! uses, with a clock that only moves when it is told to.

use std::collections::HashMap;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use sg_common::abi::{Interface, InterfaceFlags};
use sg_common::ids::Ticks;
use sg_common::packet::Direction;
use sg_common::report::Reason;
use sg_ctl::compile::Limits;
use sg_ctl::dataplane::measure::{Replay, ReplayHook};
use sg_ctl::dataplane::{DEFAULT_CAPACITY, Dataplane, Device, ReceiveHook, Wanted};
use sg_ctl::dirs::{DirOptions, Dirs};
use sg_ctl::interfaces::{self, Link, Netns};
use sg_ctl::policy::mac::MacAddress;
use sg_ctl::policy::model::{Hook, Policy};

use super::wires::{Linear, Wires};
use super::{GUEST_MAC, addresses};
use crate::corpus::{Evaluator, Flows, PolicyText, is_bare};
use crate::lab::{Host, Lab};
use crate::tap::Tap;

/// The number that the first namespace gets.
const NETNS: u32 = 1;
/// The host-side interfaces that policies of the corpus name.
const DEVICES: [&str; 2] = ["eth0", "eth1"];

/// The device without Ethernet that they name, where TC always receives.
const TUN: &str = "tun0";

/// Which hook receives on the devices.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hooks {
    /// TC.
    Tc,
    /// XDP in the driver of a veth.
    XdpNative,
    /// XDP above a driver that refuses it: that of a veth with fewer receiving queues than its other
    /// end has sending ones.
    XdpGeneric,
}

/// How a frame comes to a hook.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// No device has it: the program is run on it. What is received is replayed at this hook.
    Replayed(ReplayHook),
    /// It is received from a wire, or sent by a packet socket.
    OnTheWire(Linear),
}

/// A frame that is sent is judged before anybody waits for this long; one that is not must not hang
/// the tests.
const LONGEST: Duration = Duration::from_secs(5);

/// What is installed in a namespace of its own.
pub struct Kernel {
    hooks: Hooks,
    wires: Wires,
    ways: &'static [Way],
    turn: usize,
    /// Whether frames are replayed by the programs of a trace.
    is_traced: bool,
    likely: Option<Reason>,
    dataplane: Dataplane,
    links: Vec<Link>,
    capacity: u32,
    in_force: Option<PolicyText>,
    is_fresh: bool,
    replay: Option<Replay>,
    /// Where the clock stands.
    stands: Ticks,
    counted: HashMap<(u32, Direction), Vec<u64>>,
}

/// Makes the devices and works with them from inside their namespace. Whatever comes of it, nothing
/// stays.
pub fn in_kernel<T: Send>(
    hooks: Hooks,
    capacity: u32,
    work: impl FnOnce(Kernel) -> Result<T> + Send,
) -> Result<T> {
    let lab = Lab::new()?;
    let host = lab.host("devices")?;
    for (name, number) in DEVICES.iter().zip(0..) {
        make_device(&host, hooks, name, number)?;
    }
    let tun = Tap::without_ethernet(&host, TUN)?;
    let folder = tempfile::tempdir()?;
    let dirs = Dirs::create(&DirOptions {
        state_dir: folder.path().join("state"),
        run_dir: folder.path().join("run"),
    })?;
    let lock = dirs.lock()?;
    let bpffs = dirs.bpffs(&lock)?;
    let outcome = host.enter(|| {
        work(Kernel {
            hooks,
            wires: Wires::new(&host, tun),
            ways: &[Way::OnTheWire(Linear::Whole)],
            turn: 0,
            is_traced: false,
            likely: None,
            dataplane: Dataplane::open(dirs.run(), &bpffs.path)?,
            links: interfaces::links(&Netns::current()?)?,
            capacity,
            in_force: None,
            is_fresh: true,
            replay: None,
            stands: Ticks(0),
            counted: HashMap::new(),
        })
    });
    let removed = host.enter(|| uninstall(dirs.run(), &bpffs.path));
    dirs.unmount_if_empty(&lock)?;
    let outcome = outcome?;
    removed?;
    Ok(outcome)
}

/// A wire from `far<number>` to the device; no end says anything by itself.
fn make_device(host: &Host, hooks: Hooks, name: &str, number: u32) -> Result<()> {
    let far = far_end(number);
    host.ip(&format!(
        "link add {name} numrxqueues 1 type veth peer name {far} address {} numtxqueues 2",
        MacAddress::new(GUEST_MAC)?
    ))?;
    if hooks == Hooks::XdpGeneric {
        host.run("ethtool", &["-L", &far, "tx", "2"])?;
    }
    for end in [name, &far] {
        host.ip(&format!(
            "link set {end} mtu 9000 addrgenmode none arp off up"
        ))?;
    }
    Ok(())
}

/// The other end of the wire of the device with this number.
pub(super) fn far_end(number: u32) -> String {
    format!("far{number}")
}

/// Takes off whatever is installed. The caller is in the devices' namespace.
pub fn uninstall(run: &Path, bpffs: &Path) -> Result<()> {
    let mut dataplane = Dataplane::open(run, bpffs)?;
    let nothing = Wanted {
        policy: &Policy::default(),
        devices: Vec::new(),
        terminate: false,
        capacity: DEFAULT_CAPACITY,
        limits: Limits::default(),
    };
    let prepared = dataplane.prepare(&nothing)?;
    dataplane.install(prepared)?;
    Ok(())
}

/// An interface in force, and how it meets a packet.
struct Place {
    ifindex: u32,
    received: bool,
    slot: u32,
    direction: Direction,
}

impl Kernel {
    /// From now on frames come to the hooks in these ways, in turn.
    pub fn show_by(&mut self, ways: &'static [Way]) {
        self.ways = ways;
    }

    /// From the next policy on frames are replayed by the programs of a trace.
    pub fn trace(&mut self) {
        self.is_traced = true;
    }

    fn replay(&mut self) -> Result<&mut Replay> {
        self.replay.as_mut().context("nothing is installed")
    }

    fn install(&mut self, mut policy: Policy) -> Result<()> {
        let interfaces = policy.vpcs.values_mut().flat_map(|vpc| &mut vpc.interfaces);
        for (name, interface) in interfaces {
            interface.hook = match self.hooks {
                _ if is_bare(name.as_str()) => Hook::Tc,
                Hooks::Tc => Hook::Tc,
                Hooks::XdpNative => Hook::Xdp,
                Hooks::XdpGeneric => Hook::XdpGeneric,
            };
        }
        let read = addresses(&policy);
        let mut devices = Vec::new();
        for (vpc, content) in &policy.vpcs {
            for name in content.interfaces.keys() {
                let known = |link: &&Link| link.name == name.as_str();
                let link = self.links.iter().find(known);
                let mut link = link.with_context(|| format!("no device {name}"))?.clone();
                let own = read.get(name).into_iter().flatten();
                link.addresses = own.map(|address| ipnet::IpNet::from(*address)).collect();
                devices.push(Device {
                    vpc: vpc.clone(),
                    name: name.clone(),
                    netns: Netns::current()?,
                    link,
                });
            }
        }
        let wanted = Wanted {
            policy: &policy,
            devices,
            terminate: false,
            capacity: self.capacity,
            limits: Limits::default(),
        };
        let prepared = self.dataplane.prepare(&wanted)?;
        self.dataplane.install(prepared)?;
        for attachment in self.dataplane.attachments()? {
            let wanted = match self.hooks {
                _ if is_bare(attachment.name.as_str()) => ReceiveHook::Tc,
                Hooks::Tc => ReceiveHook::Tc,
                Hooks::XdpNative => ReceiveHook::XdpNative,
                Hooks::XdpGeneric => ReceiveHook::XdpGeneric,
            };
            ensure!(
                attachment.hook == wanted,
                "{attachment:?} is not {wanted:?}"
            );
        }
        self.counted.clear();
        // A new layout has other maps, which programs loaded earlier don't look at.
        let is_current = |replay: &Replay| self.dataplane.is_current(replay);
        if !self.replay.as_ref().is_some_and(is_current) {
            let first = self.replay.is_none();
            self.replay = match self.is_traced {
                true => self.dataplane.replay_traced(NETNS)?,
                false => self.dataplane.replay(NETNS)?,
            };
            if first {
                self.stands = self.replay()?.now()?;
            }
        }
        Ok(())
    }

    /// Undoes what time has passed since the clock was last looked at.
    fn hold_the_clock(&mut self) -> Result<Ticks> {
        let stood = self.stands;
        let replay = self.replay()?;
        let now = replay.now()?;
        let passed = now.0.wrapping_sub(stood.0).cast_signed();
        if passed != 0 {
            replay.flows().age(-passed)?;
        }
        self.stands = now;
        Ok(now)
    }

    fn place(&self, name: &str, direction: Direction) -> Result<Place> {
        let (image, _) = self.dataplane.image().context("nothing is installed")?;
        let mut installed = image.interfaces.values();
        let installed = installed
            .find(|installed| installed.name.as_str() == name)
            .with_context(|| format!("the policy has no interface {name}"))?;
        let Interface { flags, slot, .. } = installed.interface;
        Ok(Place {
            ifindex: installed.ifindex,
            received: (direction == Direction::Ingress) != flags.has(InterfaceFlags::GUEST),
            slot,
            direction,
        })
    }

    /// What has been counted at the place since this was last asked, if it is one packet; `None`
    /// when nothing was. A likely reason is looked at first.
    fn counted(&mut self, place: &Place, likely: Option<Reason>) -> Result<Option<Reason>> {
        let Place {
            slot, direction, ..
        } = *place;
        let replay = self.replay.as_ref().context("nothing is installed")?;
        let known = self
            .counted
            .get_mut(&(slot, direction))
            .context("the counters were not read before")?;
        if let Some(reason) = likely {
            let count = replay.count_of(slot, direction, reason)?;
            let before = &mut known[reason.number() as usize];
            if count == *before + 1 {
                *before = count;
                return Ok(Some(reason));
            }
        }
        let counts = replay.reasons(slot, direction)?;
        let pairs = Reason::ALL.iter().zip(counts.iter().zip(known.iter()));
        let risen: Vec<(Reason, u64)> = pairs
            .filter(|(_, (after, before))| after != before)
            .map(|(reason, (after, before))| (*reason, after - before))
            .collect();
        *known = counts;
        match risen.as_slice() {
            [] => Ok(None),
            [(reason, 1)] => Ok(Some(*reason)),
            _ => anyhow::bail!("one packet is counted as {risen:?}"),
        }
    }

    /// Reads the counters of the place, unless they are known.
    fn know_counters(&mut self, place: &Place) -> Result<()> {
        let key = (place.slot, place.direction);
        if !self.counted.contains_key(&key) {
            let counts = self.replay()?.reasons(place.slot, place.direction)?;
            self.counted.insert(key, counts);
        }
        Ok(())
    }
}

impl Evaluator for Kernel {
    fn forget(&mut self, _room: Option<usize>) -> Result<()> {
        self.is_fresh = true;
        match &mut self.replay {
            Some(replay) => Ok(replay.flows().forget()?),
            None => Ok(()),
        }
    }

    /// Without any flow there is nothing that the same policy would do again.
    fn put_in_force(&mut self, text: &PolicyText, policy: &Policy) -> Result<()> {
        if !self.is_fresh || self.in_force.as_ref() != Some(text) {
            self.install(policy.clone())?;
            self.in_force = Some(text.clone());
        }
        self.is_fresh = false;
        Ok(())
    }

    fn wait(&mut self, seconds: u64) -> Result<()> {
        self.hold_the_clock()?;
        let replay = self.replay()?;
        let ticks = i32::try_from(replay.ticks(seconds)).context("that long")?;
        Ok(replay.flows().age(ticks)?)
    }

    fn judge(
        &mut self,
        interface: &str,
        direction: Direction,
        frame: &[u8],
    ) -> Result<Option<Reason>> {
        self.turn += 1;
        let way = self.ways[self.turn % self.ways.len()];
        let place = self.place(interface, direction)?;
        self.know_counters(&place)?;
        self.hold_the_clock()?;
        let likely = self.likely.take();
        let verdict = match way {
            Way::Replayed(_) if is_bare(interface) => return Ok(None),
            Way::Replayed(hook) => {
                let hook = match place.received {
                    true => hook,
                    false => ReplayHook::TcSend,
                };
                let verdict = self.replay()?.judge(hook, place.ifindex, frame)?;
                if verdict.is_none() {
                    return Ok(None);
                }
                verdict
            }
            Way::OnTheWire(linear) => {
                let may_lose_its_tag = self.hooks == Hooks::Tc;
                let sent =
                    self.wires
                        .send(interface, place.received, may_lose_its_tag, linear, frame)?;
                if !sent {
                    return Ok(None);
                }
                None
            }
        };
        let deadline = Instant::now() + LONGEST;
        let reason = loop {
            if let Some(reason) = self.counted(&place, likely)? {
                break reason;
            }
            ensure!(Instant::now() < deadline, "no hook has counted it");
            thread::sleep(Duration::from_micros(200));
        };
        ensure!(
            verdict.is_none_or(|verdict| verdict == reason.verdict()),
            "{verdict:?}, and it is counted as {}",
            reason.name()
        );
        Ok(Some(reason))
    }

    fn expect(&mut self, reason: Reason) {
        self.likely = Some(reason);
    }

    fn flows(&mut self) -> Result<Flows> {
        if self.replay.is_none() {
            return Ok(Flows::new());
        }
        let now = self.hold_the_clock()?;
        Ok(super::flows(self.replay()?.flows().alive(now)?))
    }
}
