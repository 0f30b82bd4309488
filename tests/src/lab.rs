//! Machines for tests: network namespaces, joined by veth pairs and bridges, gone on drop.
//!
//! A namespace has the name `sgt-<pid>-<n>-<host>`, so that test programs running side by side
//! never meet and a namespace left by a killed one can be told from a live one. Interfaces are
//! made inside their namespaces and so may have plain names in each. This module sends no packet
//! and knows no sg.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs::{self, File};
use std::net::IpAddr;
use std::panic;
use std::path::{Path, PathBuf};
use std::process::{self, Command};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, Once, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use ipnet::IpNet;
use nix::ifaddrs::getifaddrs;
use nix::sched::{CloneFlags, setns};
use nix::sys::socket::LinkAddr;

const PREFIX: &str = "sgt-";
const NAMESPACES: &str = "/run/netns";

/// A set of machines. Dropping it removes them, their interfaces and their names.
#[derive(Debug)]
pub struct Lab {
    number: u32,
    namespaces: Mutex<BTreeSet<String>>,
}

/// One machine: a network namespace. Clones are the same machine.
#[derive(Clone, Debug)]
pub struct Host {
    shared: Arc<Namespace>,
}

#[derive(Debug)]
struct Namespace {
    name: String,
    /// Entering by descriptor works even when the name is already gone.
    file: File,
}

/// A protected machine and the rest of the world, on one wire between their `eth0`.
///
/// Every address of [`WORLD`] is the world's, and the machine's default routes lead there.
#[derive(Debug)]
pub struct Pair {
    /// Everything outside; holds [`WORLD`].
    pub world: Host,
    /// 10.0.0.10 and 2001:db8::10.
    pub host: Host,
    /// Owns both.
    pub lab: Lab,
}

/// A guest behind a machine: `world eth0 — uplink [machine: bridge br0] guest0 — eth0 guest`.
///
/// The machine has no address, so it is not on the path but for its bridge.
#[derive(Debug)]
pub struct GuestBehindVeth {
    /// Everything outside; holds [`WORLD`].
    pub world: Host,
    /// Where sg runs; its `guest0` is the guest's cable.
    pub machine: Host,
    /// 10.0.0.10 and 2001:db8::10 on `eth0`.
    pub guest: Host,
    /// Owns all three.
    pub lab: Lab,
}

/// The addresses of the world: documentation ranges and neighbours of [`HOST`].
pub const WORLD: &[&str] = &[
    "10.0.0.1/24",
    "10.0.0.2/24",
    "10.1.1.1/32",
    "192.0.2.1/32",
    "198.51.100.7/32",
    "203.0.113.5/32",
    "2001:db8::1/64",
    "2001:db8::2/64",
    "2001:db8:aa::7/128",
    "2001:db8:bb::5/128",
];

/// The addresses of the protected end.
pub const HOST: &[&str] = &["10.0.0.10/24", "2001:db8::10/64"];

impl Lab {
    /// Starts an empty laboratory. Needs root.
    pub fn new() -> Result<Self> {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        static SWEEP: Once = Once::new();
        SWEEP.call_once(remove_namespaces_of_dead_processes);
        Ok(Self {
            number: NUMBER.fetch_add(1, Ordering::Relaxed),
            namespaces: Mutex::new(BTreeSet::new()),
        })
    }

    /// Makes a machine with nothing but a loopback.
    pub fn host(&self, name: &str) -> Result<Host> {
        let namespace = format!("{PREFIX}{}-{}-{name}", process::id(), self.number);
        run(Command::new("ip").args(["netns", "add", &namespace]))?;
        self.namespaces
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(namespace.clone());
        let path = Path::new(NAMESPACES).join(&namespace);
        let file = File::open(&path).with_context(|| format!("opening {}", path.display()))?;
        let host = Host {
            shared: Arc::new(Namespace {
                name: namespace,
                file,
            }),
        };
        host.enter(quiet_and_ready)?;
        host.ip("link set lo up")?;
        Ok(host)
    }

    /// Joins two interfaces, made here, by a wire; both are up afterwards.
    pub fn join(&self, left: (&Host, &str), right: (&Host, &str)) -> Result<()> {
        let (left_host, left_name) = left;
        let (right_host, right_name) = right;
        left_host.ip(&format!(
            "link add {left_name} type veth peer name {right_name} netns {}",
            right_host.namespace()
        ))?;
        left_host.ip(&format!("link set {left_name} up"))?;
        right_host.ip(&format!("link set {right_name} up"))?;
        left_host.await_addresses()?;
        right_host.await_addresses()
    }

    /// The usual two machines.
    pub fn pair() -> Result<Pair> {
        let lab = Self::new()?;
        let (world, host) = (lab.host("world")?, lab.host("host")?);
        lab.join((&world, "eth0"), (&host, "eth0"))?;
        address_both_ends(&world, &host)?;
        Ok(Pair { world, host, lab })
    }

    /// The usual guest.
    pub fn guest_behind_veth() -> Result<GuestBehindVeth> {
        let lab = Self::new()?;
        let (world, machine, guest) =
            (lab.host("world")?, lab.host("machine")?, lab.host("guest")?);
        lab.join((&world, "eth0"), (&machine, "uplink"))?;
        lab.join((&guest, "eth0"), (&machine, "guest0"))?;
        machine.bridge("br0", &["uplink", "guest0"])?;
        address_both_ends(&world, &guest)?;
        Ok(GuestBehindVeth {
            world,
            machine,
            guest,
            lab,
        })
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        let namespaces = self
            .namespaces
            .get_mut()
            .unwrap_or_else(PoisonError::into_inner);
        for namespace in namespaces.iter() {
            remove_namespace(namespace);
        }
    }
}

impl Host {
    /// The namespace's name, as `--netns` takes it.
    pub fn namespace(&self) -> &str {
        &self.shared.name
    }

    /// The namespace's path, as `--netns` takes it.
    pub fn path(&self) -> PathBuf {
        Path::new(NAMESPACES).join(&self.shared.name)
    }

    /// Does `work` on this machine, on a thread of its own.
    ///
    /// Sockets and child processes made in there stay on this machine, wherever they are used.
    pub fn enter<T: Send>(&self, work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
        let done = thread::scope(|scope| {
            scope
                .spawn(|| {
                    setns(&self.shared.file, CloneFlags::CLONE_NEWNET)
                        .with_context(|| format!("entering {}", self.namespace()))?;
                    work()
                })
                .join()
        });
        done.unwrap_or_else(|panicked| panic::resume_unwind(panicked))
    }

    /// Runs a program on this machine and returns what it printed; anything but success is an error.
    pub fn run<S: AsRef<OsStr> + Sync>(&self, program: &str, arguments: &[S]) -> Result<String> {
        self.enter(|| run(Command::new(program).args(arguments)))
    }

    /// Runs `ip` with these words on this machine.
    pub fn ip(&self, words: &str) -> Result<String> {
        run(Command::new("ip")
            .args(["-n", self.namespace()])
            .args(words.split_whitespace()))
    }

    /// Gives an interface addresses, usable when this returns.
    pub fn add_addresses(&self, interface: &str, addresses: &[&str]) -> Result<()> {
        for address in addresses {
            let address: IpNet = address
                .parse()
                .with_context(|| format!("address `{address}`"))?;
            let detection = if address.addr().is_ipv6() {
                "nodad"
            } else {
                ""
            };
            self.ip(&format!(
                "address add {address} dev {interface} {detection}"
            ))?;
        }
        Ok(())
    }

    /// Takes an address away again.
    pub fn remove_address(&self, interface: &str, address: &str) -> Result<()> {
        self.ip(&format!("address del {address} dev {interface}"))
            .map(drop)
    }

    /// Sends everything of the gateway's family that has no nearer route to `gateway`.
    pub fn add_default_route(&self, gateway: IpAddr) -> Result<()> {
        let family = if gateway.is_ipv6() { "-6" } else { "-4" };
        self.ip(&format!("{family} route add default via {gateway}"))
            .map(drop)
    }

    /// Makes a bridge that forwards at once between these interfaces.
    pub fn bridge(&self, name: &str, ports: &[&str]) -> Result<()> {
        // Snooping would hold back neighbour discovery until the first multicast reports.
        self.ip(&format!(
            "link add {name} type bridge stp_state 0 forward_delay 0 mcast_snooping 0"
        ))?;
        for port in ports {
            self.ip(&format!("link set {port} master {name} up"))?;
        }
        self.ip(&format!("link set {name} up")).map(drop)
    }

    /// Routes packets between interfaces.
    pub fn forward(&self) -> Result<()> {
        self.enter(|| {
            set("net/ipv4/ip_forward", "1")?;
            set("net/ipv6/conf/all/forwarding", "1")
        })
    }

    /// The link-layer address and index of an interface.
    pub fn link(&self, interface: &str) -> Result<LinkAddr> {
        self.enter(|| {
            getifaddrs()
                .context("listing interfaces")?
                .filter(|entry| entry.interface_name == interface)
                .find_map(|entry| entry.address?.as_link_addr().copied())
                .with_context(|| format!("{} has no interface `{interface}`", self.namespace()))
        })
    }

    /// The MAC address of an interface.
    pub fn mac(&self, interface: &str) -> Result<[u8; 6]> {
        self.link(interface)?
            .addr()
            .with_context(|| format!("`{interface}` has no MAC address"))
    }

    /// The kernel derives link-local addresses from a work queue, a little after the link is up.
    fn await_addresses(&self) -> Result<()> {
        let deadline = Instant::now() + Duration::from_secs(2);
        while !self.ip("-6 -oneline address show tentative")?.is_empty() {
            ensure!(
                Instant::now() < deadline,
                "{}: IPv6 addresses stay tentative",
                self.namespace()
            );
            thread::sleep(Duration::from_millis(2));
        }
        Ok(())
    }
}

fn address_both_ends(world: &Host, host: &Host) -> Result<()> {
    world.add_addresses("eth0", WORLD)?;
    host.add_addresses("eth0", HOST)?;
    host.add_default_route(IpAddr::from([10, 0, 0, 1]))?;
    host.add_default_route(IpAddr::from([0x2001, 0xdb8, 0, 0, 0, 0, 0, 1]))
}

/// Makes IPv6 work without delay, and keeps the kernel from adding, holding back or refusing
/// packets by itself.
fn quiet_and_ready() -> Result<()> {
    for scope in ["all", "default"] {
        set(&format!("net/ipv6/conf/{scope}/accept_dad"), "0")?;
        set(&format!("net/ipv6/conf/{scope}/dad_transmits"), "0")?;
        set(&format!("net/ipv6/conf/{scope}/router_solicitations"), "0")?;
        set(&format!("net/ipv4/conf/{scope}/rp_filter"), "0")?;
    }
    set("net/ipv4/icmp_ratelimit", "0")?;
    set("net/ipv6/icmp/ratelimit", "0")
}

/// `/proc/sys/net` is that of the writing thread's namespace.
fn set(name: &str, value: &str) -> Result<()> {
    let path = Path::new("/proc/sys").join(name);
    fs::write(&path, value).with_context(|| format!("setting {} to {value}", path.display()))
}

fn run(command: &mut Command) -> Result<String> {
    let output = command
        .output()
        .with_context(|| format!("starting {command:?}"))?;
    if !output.status.success() {
        bail!(
            "{command:?}: {}: {}",
            output.status,
            String::from_utf8_lossy(&output.stderr).trim()
        );
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Says so when it fails: a name that stays is a leak that somebody must see.
fn remove_namespace(name: &str) {
    if let Err(error) = run(Command::new("ip").args(["netns", "del", name])) {
        eprintln!("lab: {error:#}");
    }
}

fn remove_namespaces_of_dead_processes() {
    let Ok(entries) = fs::read_dir(NAMESPACES) else {
        return;
    };
    for entry in entries.flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let owner = name
            .strip_prefix(PREFIX)
            .and_then(|rest| rest.split('-').next())
            .and_then(|pid| pid.parse::<u32>().ok());
        if owner.is_some_and(|pid| !Path::new(&format!("/proc/{pid}")).exists()) {
            remove_namespace(&name);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_see_only_their_own_interfaces() {
        let pair = Lab::pair().unwrap();
        let seen = pair.host.ip("-oneline link show").unwrap();
        assert_eq!(seen.lines().count(), 2, "lo and eth0 expected:\n{seen}");
        assert_ne!(
            pair.host.mac("eth0").unwrap(),
            pair.world.mac("eth0").unwrap()
        );
    }

    #[test]
    fn work_happens_on_the_machine_it_names_and_nowhere_else() {
        let own = fs::read_link("/proc/thread-self/ns/net").unwrap();
        let lab = Lab::new().unwrap();
        let host = lab.host("a").unwrap();
        let inside = host
            .enter(|| Ok(fs::read_link("/proc/thread-self/ns/net")?))
            .unwrap();
        assert_ne!(inside, own);
        assert_eq!(fs::read_link("/proc/thread-self/ns/net").unwrap(), own);
    }

    #[test]
    fn a_failing_command_says_what_and_why() {
        let lab = Lab::new().unwrap();
        let error = lab
            .host("a")
            .unwrap()
            .ip("link show nowhere")
            .unwrap_err()
            .to_string();
        assert!(error.contains("\"show\" \"nowhere\""), "{error}");
        assert!(error.contains("does not exist"), "{error}");
    }

    #[test]
    fn a_namespace_that_a_killed_process_left_is_swept_away() {
        let mut child = Command::new("true").spawn().unwrap();
        child.wait().unwrap();
        let left = format!("{PREFIX}{}-0-a", child.id());
        run(Command::new("ip").args(["netns", "add", &left])).unwrap();
        let lab = Lab::new().unwrap();
        let host = lab.host("a").unwrap();
        remove_namespaces_of_dead_processes();
        assert!(!Path::new(NAMESPACES).join(&left).exists());
        assert!(host.path().exists());
    }

    #[test]
    fn dropping_the_lab_removes_every_namespace() {
        let names = |lab: &Lab| lab.namespaces.lock().unwrap().clone();
        let topology = Lab::guest_behind_veth().unwrap();
        let made = names(&topology.lab);
        assert_eq!(made.len(), 3);
        let exists = |name: &String| Path::new(NAMESPACES).join(name).exists();
        assert!(made.iter().all(exists));
        drop(topology);
        assert!(!made.iter().any(exists));
    }
}
