//! How many packets a second one receiving CPU takes: dropped ones, by sg, by nftables and by
//! nothing but a drop, SYNs to a port that is open to everybody, and small packets of one UDP flow.
//!
//! A drop alone never looks at the packet, which the sender's CPU has in its cache. So beside that
//! bound stands a program that reads the headers before it drops: no filter drops more.

use std::net::UdpSocket;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use sg_ctl::dataplane::ReceiveHook;
use sg_ctl::dataplane::measure::Bound;
use socket2::{SockFilter, SockRef};
use tests::packets::words::packet;
use tests::sg::Sg;
use tests::sockets::TcpEcho;

use crate::measure::{Rounds, Taken, to_places};
use crate::policies::{self, HOST};
use crate::wire::{Rate, Wire};
use crate::{Effort, nftables};

/// Who drops.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Contestant {
    /// Nothing but a drop.
    Bound(ReceiveHook),
    /// The headers are read, and the packet is dropped.
    Parse(ReceiveHook),
    /// sg, with a list of so many prefixes.
    Sg(ReceiveHook, u32),
    /// nftables at the device's ingress hook, with a set of so many prefixes.
    Nft(u32),
}

/// What keeps a contestant in force.
enum InForce {
    Bound { _bound: Bound },
    Sg { _sg: Sg },
    Nft,
}

struct Lane {
    contestant: Contestant,
    /// Goes before its wire.
    _in_force: InForce,
    wire: Wire,
    frame: Vec<u8>,
    rates: Vec<Rate>,
}

impl Lane {
    fn set_up(contestant: Contestant) -> Result<Self> {
        let wire = Wire::lay()?;
        let interface = wire.interface.as_str();
        let in_force = match contestant {
            Contestant::Bound(hook) => InForce::Bound {
                _bound: wire.target.enter(|| Ok(Bound::attach(hook, interface)?))?,
            },
            Contestant::Parse(hook) => InForce::Bound {
                _bound: wire
                    .target
                    .enter(|| Ok(Bound::attach_reading(hook, interface)?))?,
            },
            Contestant::Sg(hook, prefixes) => {
                let sg = Sg::on(&wire.target)?;
                let hook = match hook {
                    ReceiveHook::Tc => "tc",
                    ReceiveHook::XdpNative | ReceiveHook::XdpGeneric => "xdp",
                };
                let policy = policies::by_prefix_list(prefixes).replace(
                    "eth0: {groups: [web]}",
                    &format!("{interface}: {{groups: [web], hook: {hook}}}"),
                );
                sg.apply(&policy)?;
                InForce::Sg { _sg: sg }
            }
            Contestant::Nft(prefixes) => {
                nftables::is_there(&wire.target)?;
                nftables::load(&wire.target, &nftables::at_ingress(interface, prefixes)?)?;
                InForce::Nft
            }
        };
        Ok(Self {
            contestant,
            _in_force: in_force,
            frame: syn_to(&wire, 443)?,
            wire,
            rates: Vec::new(),
        })
    }

    fn flood(&mut self, effort: Effort) -> Result<()> {
        let before = self.wire.passed()?;
        let rate = self.wire.flood(&self.frame, effort.span())?;
        let passed = self.wire.passed()? - before;
        // A neighbour discovery or a multicast report of the machine's own may come by.
        ensure!(
            passed < 100,
            "{:?} let {passed} packets pass",
            self.contestant
        );
        self.rates.push(rate);
        Ok(())
    }

    fn received(&self) -> Vec<f64> {
        self.rates.iter().map(|rate| rate.received).collect()
    }

    /// The least part of what was sent that found no room: where it is nothing, the sender and not
    /// the receiver was the slower.
    fn least_lost(&self) -> f64 {
        self.rates
            .iter()
            .map(|rate| rate.lost)
            .fold(f64::INFINITY, f64::min)
    }
}

fn syn_to(wire: &Wire, port: u16) -> Result<Vec<u8>> {
    let words = format!("tcp 32.0.1.7:40000 > {HOST}:{port} syn window 1000");
    let mac = wire.target.mac(&wire.interface)?;
    Ok(packet(&words)?.to_mac(mac).frame())
}

/// SYNs to a port that only others may reach.
pub(crate) fn drops(names: &[&'static str], effort: Effort) -> Result<Vec<Taken>> {
    use Contestant::{Bound, Nft, Parse, Sg};
    use ReceiveHook::{Tc, XdpNative};
    let (small, large) = effort.choose((10_000, 100_000), (1_000, 2_000));
    let duels = [
        ("drop_xdp_over_nft_10k", Sg(XdpNative, small), Nft(small)),
        ("drop_xdp_over_nft_100k", Sg(XdpNative, large), Nft(large)),
        ("drop_tc_over_nft_10k", Sg(Tc, small), Nft(small)),
        ("drop_tc_over_nft_100k", Sg(Tc, large), Nft(large)),
        (
            "drop_xdp_over_bound_100k",
            Sg(XdpNative, large),
            Bound(XdpNative),
        ),
        ("drop_tc_over_bound_100k", Sg(Tc, large), Bound(Tc)),
        (
            "drop_xdp_over_parse_100k",
            Sg(XdpNative, large),
            Parse(XdpNative),
        ),
    ];
    let wanted: Vec<_> = duels
        .into_iter()
        .filter(|(name, ..)| names.contains(name))
        .collect();
    let mut lanes: Vec<Lane> = Vec::new();
    let mut absent: Vec<(Contestant, String)> = Vec::new();
    let contestants = wanted.iter().flat_map(|(_, left, right)| match right {
        Bound(hook) => vec![*left, *right, Parse(*hook)],
        _ => vec![*left, *right],
    });
    for contestant in contestants {
        let is_known = lanes.iter().any(|lane| lane.contestant == contestant)
            || absent.iter().any(|(absent, _)| *absent == contestant);
        if is_known {
            continue;
        }
        match Lane::set_up(contestant) {
            Ok(lane) => lanes.push(lane),
            Err(error) => absent.push((contestant, format!("{error:#}"))),
        }
    }
    effort.rounds(12, || {
        lanes.iter_mut().try_for_each(|lane| lane.flood(effort))?;
        // Whoever was first is last.
        lanes.reverse();
        Ok(())
    })?;
    let find = |wanted: Contestant| {
        lanes
            .iter()
            .find(|lane| lane.contestant == wanted)
            .ok_or_else(|| {
                let why = absent.iter().find(|(absent, _)| *absent == wanted);
                why.map_or_else(String::new, |(_, why)| why.clone())
            })
    };
    let compare = |name, left, right| -> Result<Taken, String> {
        let (left, right) = (find(left)?, find(right)?);
        let ratios = left
            .received()
            .into_iter()
            .zip(right.received())
            .map(|(left, right)| left / right);
        let millions = |lane: &Lane| lane.received().into_iter().map(|rate| rate / 1e6);
        let by_clock = |lane: &Lane| -> Vec<f64> {
            let rates = lane.rates.iter();
            rates.map(|rate| rate.received_by_clock / 1e6).collect()
        };
        let reading = match right.contestant {
            Bound(hook) => find(Parse(hook)).ok(),
            _ => None,
        };
        let taken = Taken::new(name, Rounds::of(ratios));
        let taken = match reading {
            Some(reading) => {
                let pairs = left.received().into_iter().zip(reading.received());
                taken
                    .with_median("over_parse", pairs.map(|(left, reading)| left / reading))
                    .with_median("mpps_of_parse", millions(reading))
            }
            None => taken,
        };
        Ok(taken
            .with_median("mpps", millions(left))
            .with_median("mpps_of_other", millions(right))
            .with_median("mpps_by_clock", by_clock(left))
            .with_median("mpps_of_other_by_clock", by_clock(right))
            .with("least_lost_by_full_ring", to_places(left.least_lost()))
            .with(
                "least_lost_by_full_ring_of_other",
                to_places(right.least_lost()),
            ))
    };
    Ok(wanted
        .into_iter()
        .map(|(name, left, right)| {
            compare(name, left, right).unwrap_or_else(|why| Taken::missing(name, why))
        })
        .collect())
}

/// A web server's policy: everybody may connect, and it may connect to everybody.
const PUBLIC: &str = "\
groups:
  web:
    ingress:
    - {service: http, from: [0.0.0.0/0, \"::/0\"]}
interfaces:
";

/// SYNs to a port that is open to everybody and listens.
pub(crate) fn open_flood(names: &[&'static str], effort: Effort) -> Result<Vec<Taken>> {
    struct Public {
        _listener: TcpEcho,
        /// What the server answers ends here.
        _sink: Bound,
        wire: Wire,
        frame: Vec<u8>,
        rates: Vec<f64>,
    }
    let set_up = || -> Result<Public> {
        let wire = Wire::lay()?;
        Ok(Public {
            _listener: TcpEcho::listen(&wire.target, &format!("{HOST}:80"))?,
            _sink: wire
                .source
                .enter(|| Ok(Bound::attach(ReceiveHook::Tc, "far0")?))?,
            frame: syn_to(&wire, 80)?,
            rates: Vec::new(),
            wire,
        })
    };
    let (mut bare, mut protected) = (set_up()?, set_up()?);
    let sg = Sg::on(&protected.wire.target)?;
    sg.apply(&format!(
        "{PUBLIC}  {}: {{groups: [web]}}\n",
        protected.wire.interface
    ))?;
    let mut order = [&mut bare, &mut protected];
    effort.rounds(20, || {
        for public in &mut order {
            let rate = public.wire.flood(&public.frame, effort.span())?;
            public.rates.push(rate.received);
        }
        order.reverse();
        Ok(())
    })?;
    let flows = &sg.json(&["status"])?["flows"];
    let entries = flows["embryonic"].as_u64().zip(flows["assured"].as_u64());
    let entries = entries.map_or(u64::MAX, |(embryonic, assured)| embryonic + assured);
    ensure!(entries == 0, "the flood left {entries} flow entries");
    let ratios = protected
        .rates
        .iter()
        .zip(&bare.rates)
        .map(|(protected, bare)| protected / bare);
    let ratios: Vec<f64> = ratios.collect();
    let millions = |public: &Public| {
        public
            .rates
            .iter()
            .map(|rate| rate / 1e6)
            .collect::<Vec<_>>()
    };
    Ok(names
        .iter()
        .map(|name| {
            Taken::new(name, Rounds::of(ratios.iter().copied()))
                .with("flow_entries", entries)
                .with_median("mpps", millions(&protected))
                .with_median("mpps_of_none", millions(&bare))
        })
        .collect())
}

/// As the line about UDP in [`nftables::STATEFUL`], with sg's words.
const SMALL_UDP: &str = "\
groups:
  server:
    ingress:
    - {protocol: udp, ports: 5004, from: [32.0.0.0/3]}
interfaces:
";

/// A server that gets small packets of one flow, which it has answered once.
struct Server {
    /// Goes before its wire.
    sg: Option<Sg>,
    _socket: UdpSocket,
    wire: Wire,
    frame: Vec<u8>,
    rates: Vec<f64>,
}

impl Server {
    fn set_up(protect: impl FnOnce(&Wire) -> Result<Option<Sg>>) -> Result<Self> {
        const PEER: &str = "32.0.1.7:40000";
        let mut wire = Wire::lay()?;
        wire.keep_source()?;
        let sg = protect(&wire)?;
        let at = format!("{HOST}:5004");
        let socket = wire.target.enter(|| Ok(UdpSocket::bind(&at)?))?;
        // 64 bytes with the frame check sequence, which a veth does not have.
        let words = format!("udp {PEER} > {at} payload 18");
        let mac = wire.target.mac(&wire.interface)?;
        let frame = packet(&words)?.to_mac(mac).frame();
        socket.set_read_timeout(Some(PATIENCE))?;
        wire.send(&frame, 1)?;
        let (_, from) = socket.recv_from(&mut [0; 64]).context("nothing arrived")?;
        socket.send_to(b"hello", from)?;
        // BPF_RET | BPF_K: no byte of any packet is kept.
        SockRef::from(&socket).attach_filter(&[SockFilter::new(0x06, 0, 0, 0)])?;
        Ok(Self {
            sg,
            _socket: socket,
            wire,
            frame,
            rates: Vec::new(),
        })
    }
}

/// Nothing takes this long.
const PATIENCE: Duration = Duration::from_secs(5);

/// Packets of 64 bytes that are let in, of a tracked flow, up to a socket that keeps none of them.
pub(crate) fn small_udp(names: &[&'static str], effort: Effort) -> Result<Vec<Taken>> {
    let mut none = Server::set_up(|_| Ok(None))?;
    let mut nft = Server::set_up(|wire| {
        nftables::is_there(&wire.target)?;
        nftables::load(&wire.target, nftables::STATEFUL)?;
        Ok(None)
    })
    .map_err(|error| format!("{error:#}"));
    let mut sg = Server::set_up(|wire| {
        let sg = Sg::on(&wire.target)?;
        sg.apply(&format!(
            "{SMALL_UDP}  {}: {{groups: [server], hook: tc}}\n",
            wire.interface
        ))?;
        Ok(Some(sg))
    })?;
    let mut order = vec![&mut none];
    order.extend(nft.as_mut().ok());
    order.push(&mut sg);
    effort.rounds(20, || {
        for server in &mut order {
            let before = server.wire.passed()?;
            let rate = server.wire.flood(&server.frame, effort.span())?;
            let passed = server.wire.passed()? - before;
            ensure!(passed > 1_000, "only {passed} packets were let in");
            server.rates.push(rate.received);
        }
        order.reverse();
        Ok(())
    })?;
    let status = sg
        .sg
        .as_ref()
        .context("sg is in force")?
        .json(&["status"])?;
    let assured = status["flows"]["assured"].as_u64();
    ensure!(
        assured == Some(1),
        "{assured:?} flows were tracked, not one"
    );
    let millions = |server: &Server| -> Vec<f64> {
        let rates = server.rates.iter();
        rates.map(|rate| rate / 1e6).collect()
    };
    let compare = |name, other: &Server| {
        let ratios = sg
            .rates
            .iter()
            .zip(&other.rates)
            .map(|(sg, other)| sg / other);
        Taken::new(name, Rounds::of(ratios))
            .with_median("mpps", millions(&sg))
            .with_median("mpps_of_other", millions(other))
    };
    let taken = names.iter().map(|name| match (*name, &nft) {
        ("small_udp_over_none", _) => compare(name, &none),
        (_, Ok(nft)) => compare(name, nft),
        (_, Err(why)) => Taken::missing(name, why),
    });
    Ok(taken.collect())
}
