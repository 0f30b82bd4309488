//! What a real Linux listener behind sg does with packets of every shape: where no rule opens its
//! port it never answers, however the packet is cut, wrapped or disguised.
//!
//! Each shape is sent to a machine without sg, to an open port behind sg and to closed ones, on
//! every way that passes a hook. The first two show that the silence of the third means something.

mod shapes;

use std::collections::BTreeMap;
use std::fs;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use shapes::{Heard, OPEN, Shape};
use tests::inject::{Capture, Injector};
use tests::lab::{Host, Lab};
use tests::packets::words::packet;
use tests::packets::{ethernet, flags, protocol};
use tests::sg::Sg;
use tests::sockets::{PATIENCE, TcpEcho, UdpEcho};
use tests::tap::Tap;

/// No rule opens it, and somebody listens there.
const CLOSED: u16 = 23;
/// No rule opens it, and nobody listens there: the bare kernel refuses.
const UNUSED: u16 = 24;
/// Source ports count up from here, one for each shape.
const FIRST_PORT: u16 = 40_000;
/// Those behind sg have their own: what answered before sends its answer again for a while.
const GUARDED_PORT: u16 = 41_000;
/// What follows the answer to the last packet, were it out of order.
const LATE: Duration = Duration::from_millis(30);

/// Only one port is open, for the senders of the table and not for everyone, so that flows are kept.
const POLICY: &str = "
groups:
  g:
    ingress:
      - {protocol: tcp, ports: 257, from: [198.51.100.0/24, '2001:db8:aa::/48']}
      - {protocol: udp, ports: 257, from: [198.51.100.0/24, '2001:db8:aa::/48']}
    egress:
      - {protocol: tcp, ports: 257, to: [198.51.100.0/24, '2001:db8:aa::/48']}
      - {protocol: udp, ports: 257, to: [198.51.100.0/24, '2001:db8:aa::/48']}
interfaces:
  INTERFACE
";

const PROTECTED: [&str; 2] = ["10.0.0.10", "2001:db8::10"];
/// What source routes lead through.
const STOPOVER: &str = "192.0.2.9";
const OUTSIDE: [&str; 2] = ["198.51.100.7", "2001:db8:aa::7"];

/// Where frames go in, and where what comes back is heard.
enum Wire {
    Cable(Injector, Capture),
    Guest(Tap),
}

impl Wire {
    fn send(&self, frame: &[u8]) -> Result<()> {
        match self {
            Self::Cable(injector, _) => injector.send(frame),
            Self::Guest(tap) => tap.send_linear(frame, 14),
        }
    }

    fn next(&self, within: Duration) -> Result<Option<Vec<u8>>> {
        match self {
            Self::Cable(_, capture) => capture.next(within),
            Self::Guest(tap) => tap.receive(within),
        }
    }
}

/// A way from a sender to a listener.
struct Way<'a> {
    wire: Wire,
    listener: &'a Host,
    /// The listener's interface.
    interface: &'a str,
    /// IPv4 and IPv6.
    from: [&'a str; 2],
    own: [&'a str; 2],
}

/// Makes a machine take what a careless one would: jumbo frames and source routes.
fn open_wide(host: &Host, interface: &str) -> Result<()> {
    host.ip(&format!("link set {interface} mtu 9000"))?;
    host.ip(&format!("route add {STOPOVER} dev {interface}"))?;
    host.ip(&format!(
        "neighbour add {STOPOVER} lladdr 02:00:00:00:00:01 dev {interface}"
    ))?;
    host.enter(|| {
        let set = |name: &str, value: &str| {
            let path = format!("/proc/sys/net/ipv4/{name}");
            fs::write(&path, value).with_context(|| path)
        };
        // A SYN that comes again, in the next round, is answered at once.
        set("tcp_invalid_ratelimit", "0")?;
        set("conf/all/accept_source_route", "1")?;
        set(&format!("conf/{interface}/accept_source_route"), "1")
    })
}

impl Way<'_> {
    fn words(&self, words: &str, family: usize, port: u16, to: u16) -> Result<String> {
        let address = |text: &str| text.parse::<IpAddr>().context("an address");
        let (from, own) = (address(self.from[family])?, address(self.own[family])?);
        Ok(words
            .replace("FROM", &SocketAddr::new(from, port).to_string())
            .replace("TO", &SocketAddr::new(own, to).to_string())
            .replace("OPEN", &SocketAddr::new(own, OPEN).to_string())
            .replace("OWN", self.own[family])
            .replace("PORT", &port.to_string()))
    }

    fn send(&self, shape: &Shape, family: usize, port: u16, to: u16) -> Result<()> {
        let mac = self.listener.mac(self.interface)?;
        for words in self.words(shape.words, family, port, to)?.split("; ") {
            let whole = packet(words)?.to_mac(mac);
            if shape.parts.is_empty() {
                self.wire.send(&whole.frame())?;
            }
            for &(start, end) in shape.parts {
                let part = whole.part(port.into(), start..end);
                self.wire.send(&part.frame())?;
            }
        }
        Ok(())
    }

    /// Sends every shape to a port, and then a plain SYN to the open one. Returns what was heard,
    /// but for the answer to that.
    fn round(&self, first_port: u16, to: u16) -> Result<Vec<Said>> {
        while self.wire.next(Duration::ZERO)?.is_some() {}
        let mut heard = Vec::new();
        for (family, port, shape) in numbered(first_port) {
            self.send(shape, family, port, to)?;
            // Nothing may be lost for want of room in a socket's buffer.
            while let Some(frame) = self.wire.next(Duration::ZERO)? {
                heard.extend(Said::read(&frame));
            }
        }
        let [last, ..] = shapes::V4 else {
            return Ok(heard);
        };
        // A plain one, to the open port.
        let last_port = first_port - 1;
        self.send(last, 0, last_port, OPEN)?;
        let is_last = |said: &Said| said.to == last_port;
        let mut ended = false;
        while let Some(frame) = self.wire.next(if ended { LATE } else { PATIENCE })? {
            heard.extend(Said::read(&frame));
            ended |= heard.last().is_some_and(is_last);
        }
        ensure!(ended, "the last packet of a round was not answered");
        heard.retain(|said| !is_last(said));
        Ok(heard)
    }

    /// What the listener's kernel holds of TCP at a port, but for the listener itself.
    fn connections(&self, port: u16) -> Result<Vec<String>> {
        const LISTENING: &str = "0A";
        let tables = self.listener.enter(|| {
            let read = |file| fs::read_to_string(format!("/proc/thread-self/net/{file}"));
            Ok(read("tcp")? + &read("tcp6")?)
        })?;
        let at_port = format!(":{port:04X}");
        let held = tables.lines().filter(|line| {
            let mut fields = line.split_whitespace().skip(1);
            let local = fields.next().unwrap_or_default();
            local.ends_with(&at_port) && fields.nth(1) != Some(LISTENING)
        });
        Ok(held.map(str::to_owned).collect())
    }

    /// Whether the open port has answered each shape as expected.
    fn check_open(&self, first_port: u16, expected: impl Fn(&Shape) -> Heard) -> Result<()> {
        let mut heard = BTreeMap::new();
        for said in self.round(first_port, OPEN)? {
            heard.entry(said.to).or_insert(said.what);
        }
        let mut wrong = String::new();
        for (family, port, shape) in numbered(first_port) {
            let got = heard.get(&port).copied().unwrap_or(Heard::Silence);
            if got != expected(shape) {
                let words = self.words(shape.words, family, port, OPEN)?;
                let (parts, wanted) = (shape.parts, expected(shape));
                wrong += &format!("{words} {parts:?}: {got:?}, expected {wanted:?}\n");
            }
        }
        ensure!(wrong.is_empty(), "at an open port\n{wrong}");
        Ok(())
    }

    /// Whether the closed ports keep silent, and nothing has reached what listens there.
    fn check_closed(&self, datagrams: &[UdpEcho]) -> Result<()> {
        for port in [CLOSED, UNUSED] {
            let heard = self.round(GUARDED_PORT, port)?;
            // A packet that begins with a fragment for the open port may be one for it.
            let answers: Vec<_> = heard
                .iter()
                .filter(|said| said.from != Some(OPEN))
                .collect();
            ensure!(answers.is_empty(), "port {port} answered: {answers:#?}");
            let held = self.connections(port)?;
            ensure!(held.is_empty(), "port {port} was reached: {held:#?}");
        }
        let arrived: Vec<_> = datagrams.iter().flat_map(UdpEcho::received).collect();
        ensure!(arrived.is_empty(), "datagrams arrived: {arrived:?}");
        Ok(())
    }

    /// Listens at the listener's addresses, from which the answers come then.
    fn datagrams(&self, port: u16) -> Result<Vec<UdpEcho>> {
        let listen = |own: &&str| {
            let at = SocketAddr::new(own.parse().context("an address")?, port);
            UdpEcho::listen(self.listener, &at.to_string())
        };
        self.own.iter().map(listen).collect()
    }

    fn check(&self, sg: &Sg, interface: &str) -> Result<()> {
        let _open = (
            TcpEcho::listen(self.listener, &format!(":{OPEN}"))?,
            self.datagrams(OPEN)?,
            TcpEcho::listen(self.listener, &format!(":{CLOSED}"))?,
        );
        open_wide(self.listener, self.interface)?;
        // No datagram has reached this before sg guards it.
        self.check_open(FIRST_PORT, |shape| shape.linux)
            .context("without sg")?;
        sg.apply(&POLICY.replace("INTERFACE", interface))?;
        let datagrams = self.datagrams(CLOSED)?;
        // A guest has no frames with two tags.
        let is_guest = interface.contains("side: guest");
        let expected = |shape: &Shape| match is_guest && shape.words.contains("qinq") {
            true => Heard::Silence,
            false => shape.sg,
        };
        self.check_open(GUARDED_PORT, expected)
            .context("behind sg")?;
        self.check_closed(&datagrams).context("behind sg")
    }
}

/// What a kernel has said to a shape.
#[derive(Clone, Copy, Debug)]
struct Said {
    /// The shape's source port.
    to: u16,
    /// The port that it comes from; errors come from none.
    from: Option<u16>,
    what: Heard,
}

impl Said {
    /// Reads what the kernel has written, which needs less care than what is written for it.
    fn read(frame: &[u8]) -> Option<Self> {
        let (header, ip) = frame.split_at_checked(14)?;
        let (number, quoted_header, l4) = match u16::from_be_bytes([header[12], header[13]]) {
            ethernet::IPV4 => (*ip.get(9)?, 20, ip.get(usize::from(ip[0] & 15) * 4..)?),
            ethernet::IPV6 => (*ip.get(6)?, 40, ip.get(40..)?),
            _ => return None,
        };
        let word = |at| Some(u16::from_be_bytes([*l4.get(at)?, *l4.get(at + 1)?]));
        let is_error = match number {
            protocol::TCP | protocol::UDP => false,
            protocol::ICMP => matches!(l4.first()?, 3 | 11 | 12),
            protocol::ICMPV6 => *l4.first()? < 128,
            _ => return None,
        };
        if is_error {
            // The source port stands somewhere in what is quoted.
            let count = numbered(FIRST_PORT).count() as u16;
            let ports = FIRST_PORT..GUARDED_PORT + count;
            let to = (8 + quoted_header..l4.len())
                .find_map(|at| word(at).filter(|port| ports.contains(port)));
            return Some(Self {
                to: to.unwrap_or_default(),
                from: None,
                what: Heard::Objection,
            });
        }
        if matches!(number, protocol::ICMP | protocol::ICMPV6) {
            return None;
        }
        let is_reset = number == protocol::TCP && l4.get(13)? & flags::RST != 0;
        Some(Self {
            to: word(2)?,
            from: word(0),
            what: if is_reset {
                Heard::Objection
            } else {
                Heard::Answer
            },
        })
    }
}

/// Every shape with its family and its source port.
fn numbered(first_port: u16) -> impl Iterator<Item = (usize, u16, &'static Shape)> {
    let all = [shapes::V4, shapes::V6].into_iter().enumerate();
    let all = all.flat_map(|(family, shapes)| shapes.iter().map(move |shape| (family, shape)));
    all.zip(first_port..)
        .map(|((family, shape), port)| (family, port, shape))
}

fn to_a_host(hook: &str) -> Result<()> {
    let pair = Lab::pair()?;
    pair.world.ip("link set eth0 mtu 9000")?;
    let way = Way {
        wire: Wire::Cable(
            Injector::on(&pair.world, "eth0")?,
            Capture::on(&pair.world, "eth0")?,
        ),
        listener: &pair.host,
        interface: "eth0",
        from: OUTSIDE,
        own: PROTECTED,
    };
    let sg = Sg::on(&pair.host)?;
    way.check(&sg, &format!("eth0: {{groups: [g], hook: {hook}}}"))
}

#[test]
fn a_host_at_tc() -> Result<()> {
    to_a_host("tc")
}

#[test]
fn a_host_at_xdp() -> Result<()> {
    to_a_host("xdp")
}

#[test]
fn the_world_asked_by_a_host() -> Result<()> {
    let pair = Lab::pair()?;
    pair.host.ip("link set eth0 mtu 9000")?;
    let way = Way {
        wire: Wire::Cable(
            Injector::on(&pair.host, "eth0")?,
            Capture::on(&pair.host, "eth0")?,
        ),
        listener: &pair.world,
        interface: "eth0",
        from: PROTECTED,
        own: OUTSIDE,
    };
    let sg = Sg::on(&pair.host)?;
    // What XDP drops is not heard here; what TC drops would be.
    way.check(&sg, "eth0: {groups: [g], hook: xdp}")
}

const GUEST: &str = "guest0: {groups: [g], side: guest, addresses: [10.0.0.10, '2001:db8::10'], macs: any, hook: HOOK}";

fn widen(machine: &Host) -> Result<()> {
    for interface in ["uplink", "guest0", "br0"] {
        machine.ip(&format!("link set {interface} mtu 9000"))?;
    }
    Ok(())
}

#[test]
fn a_guest_behind_a_bridge() -> Result<()> {
    let lab = Lab::guest_behind_veth()?;
    widen(&lab.machine)?;
    lab.world.ip("link set eth0 mtu 9000")?;
    let way = Way {
        wire: Wire::Cable(
            Injector::on(&lab.world, "eth0")?,
            Capture::on(&lab.world, "eth0")?,
        ),
        listener: &lab.guest,
        interface: "eth0",
        from: OUTSIDE,
        own: PROTECTED,
    };
    let sg = Sg::on(&lab.machine)?;
    way.check(&sg, &GUEST.replace("HOOK", "auto"))
}

fn from_a_guest(hook: &str) -> Result<()> {
    let lab = Lab::guest_behind_veth()?;
    widen(&lab.machine)?;
    lab.guest.ip("link set eth0 mtu 9000")?;
    let way = Way {
        wire: Wire::Cable(
            Injector::on(&lab.guest, "eth0")?,
            Capture::on(&lab.guest, "eth0")?,
        ),
        listener: &lab.world,
        interface: "eth0",
        from: PROTECTED,
        own: OUTSIDE,
    };
    let sg = Sg::on(&lab.machine)?;
    way.check(&sg, &GUEST.replace("HOOK", hook))
}

#[test]
fn the_world_asked_by_a_guest_at_tc() -> Result<()> {
    from_a_guest("tc")
}

#[test]
fn the_world_asked_by_a_guest_at_xdp() -> Result<()> {
    from_a_guest("xdp")
}

fn from_a_tap(hook: &str) -> Result<()> {
    let lab = Lab::new()?;
    let machine = lab.host("machine")?;
    let tap = Tap::on(&machine, "guest0")?;
    machine.add_addresses("guest0", &["198.51.100.7/32", "2001:db8:aa::7/128"])?;
    for address in PROTECTED {
        machine.ip(&format!("route add {address} dev guest0"))?;
        machine.ip(&format!(
            "neighbour add {address} lladdr 02:00:00:00:00:01 dev guest0"
        ))?;
    }
    let way = Way {
        wire: Wire::Guest(tap),
        listener: &machine,
        interface: "guest0",
        from: PROTECTED,
        own: OUTSIDE,
    };
    let sg = Sg::on(&machine)?;
    way.check(&sg, &GUEST.replace("HOOK", hook))
}

#[test]
fn a_machine_asked_by_a_tap_at_tc() -> Result<()> {
    from_a_tap("tc")
}

#[test]
fn a_machine_asked_by_a_tap_at_xdp() -> Result<()> {
    from_a_tap("xdp")
}
