//! The specification's say in every verdict: what must never pass, and what each reason to pass
//! asks for, by [`Policy::allows`] and by a reading of the frame that shares nothing with the parser.
//!
//! [`Specified`] stands before an evaluator and complains when it lets anything pass that is
//! refused here, or says that no rule allows what one does.

pub(crate) mod naive;

use std::collections::{HashMap, HashSet};
use std::net::IpAddr;
use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use sg_common::packet::Direction;
use sg_common::report::{Reason, Verdict};
use sg_ctl::policy::allows::{FirstPacket, L4, ReadAddresses};
use sg_ctl::policy::mac::MacAddress;
use sg_ctl::policy::model::{Interface, Macs, Policy, Side, Vpc};
use sg_ctl::policy::names::{InterfaceName, VpcName};

use self::naive::{Fragment, Ip};
use crate::corpus::{Evaluator, Flows, PolicyText, is_bare};
use crate::evaluators::{GUEST_MAC, addresses};

/// For how long what became of a first fragment counts, or nearly.
const FRAGMENTS_S: u64 = 29;

/// An evaluator under the eyes of the specification.
#[derive(Clone)]
pub struct Specified<E> {
    evaluator: E,
    policy: Arc<Policy>,
    read: Arc<ReadAddresses>,
    /// First fragments that passed.
    passed: HashSet<Fragments>,
    /// When the last first fragment came.
    judged: HashMap<Fragments, u64>,
    /// Where the lowest fragment begins that has passed before its first one, and when the last came.
    early: HashMap<Fragments, (usize, u64)>,
    /// Seconds that were waited for.
    now: u64,
    /// Which interface a rule opened a flow at, and which way its first packet went.
    opened: HashMap<FlowEnds, (String, Direction)>,
}

/// What the fragments of a packet have in common; the offset is zero.
type Fragments = (String, Direction, IpAddr, IpAddr, Fragment);

/// What the packets of a flow have in common: the protected side, the other, the protocol, and for
/// ICMP which way its questions go.
type FlowEnds = ((IpAddr, u16), (IpAddr, u16), u8, Option<Direction>);

impl<E: Evaluator> Specified<E> {
    /// Nothing is in force.
    pub fn over(evaluator: E) -> Self {
        Self {
            evaluator,
            policy: Arc::default(),
            read: Arc::default(),
            passed: HashSet::new(),
            judged: HashMap::new(),
            early: HashMap::new(),
            now: 0,
            opened: HashMap::new(),
        }
    }
}

impl<E: Evaluator> Evaluator for Specified<E> {
    fn forget(&mut self, room: Option<usize>) -> Result<()> {
        self.passed.clear();
        self.judged.clear();
        self.early.clear();
        self.opened.clear();
        self.evaluator.forget(room)
    }

    fn put_in_force(&mut self, text: &PolicyText, policy: &Policy) -> Result<()> {
        self.policy = Arc::new(policy.clone());
        self.read = Arc::new(addresses(policy));
        self.evaluator.put_in_force(text, policy)
    }

    fn wait(&mut self, seconds: u64) -> Result<()> {
        self.now += seconds;
        self.evaluator.wait(seconds)
    }

    fn judge(
        &mut self,
        interface: &str,
        direction: Direction,
        frame: &[u8],
    ) -> Result<Option<Reason>> {
        let flows = self.evaluator.flows()?;
        let Some(reason) = self.evaluator.judge(interface, direction, frame)? else {
            return Ok(None);
        };
        let link = naive::link(frame, is_bare(interface));
        let ip = link.as_ref().and_then(|link| naive::ip(link, false));
        let place = Place::of(&self.policy, &self.read, interface, direction, &flows)?;
        let fragments = ip.as_ref().and_then(|ip| {
            let fragment = ip.fragment?;
            let whole = Fragment {
                offset: 0,
                ..fragment
            };
            let of = (interface.to_owned(), direction, ip.source, ip.destination);
            Some(((of.0, of.1, of.2, of.3, whole), fragment.offset))
        });
        // What is malformed is not judged, and no receiver takes it.
        if let Some((fragments, 0)) = &fragments
            && !reason.name().starts_with("malformed-")
        {
            self.judged.insert(fragments.clone(), self.now);
        }
        if reason.verdict() == Verdict::Drop {
            if let (Reason::NoRule, Some(ip)) = (reason, &ip) {
                ensure!(
                    ip.fragment.is_some() || !place.allows(ip),
                    "a rule allows what gets no-rule"
                );
            }
            if let Some((fragments, 0)) = &fragments {
                self.passed.remove(fragments);
            }
            return Ok(Some(reason));
        }
        let refused = || format!("it passes as {}", reason.name());
        if place.is_guest() && !is_bare(interface) {
            place.on_its_link(frame).with_context(refused)?;
        }
        let Some(ip) = ip else {
            let ethertype = link.with_context(refused)?.ethertype;
            place
                .may_pass_beside_ip(reason, ethertype)
                .with_context(refused)?;
            return Ok(Some(reason));
        };
        place.must_not_pass(&ip).with_context(refused)?;
        match fragments {
            None => {}
            Some((fragments, 0)) => {
                let earlier = self.early.remove(&fragments);
                ensure!(
                    earlier.is_none_or(|(lowest, then)| {
                        ip.l4.len() <= lowest || self.now - then >= FRAGMENTS_S
                    }),
                    "a fragment that has passed overwrites it"
                );
                self.passed.insert(fragments);
            }
            Some((fragments, offset)) if reason == Reason::EarlyFragment => {
                let judged = self.judged.get(&fragments);
                ensure!(
                    judged.is_none_or(|then| self.now - then >= FRAGMENTS_S),
                    "its first fragment was judged"
                );
                place.may_pass_early(&ip, offset).with_context(refused)?;
                let (lowest, then) = self.early.entry(fragments).or_insert((offset, self.now));
                (*lowest, *then) = (offset.min(*lowest), self.now);
                return Ok(Some(reason));
            }
            Some((fragments, _)) => {
                ensure!(
                    self.passed.contains(&fragments),
                    "its first fragment did not pass"
                );
                ensure!(
                    reason == Reason::FragmentPass,
                    "a later fragment {}",
                    refused()
                );
                return Ok(Some(reason));
            }
        }
        place.is_simple(reason, &ip).with_context(refused)?;
        if let Some(ends) = place.flow_ends(&ip) {
            match reason {
                Reason::Rule => {
                    let opener = (interface.to_owned(), direction);
                    self.opened.insert(ends, opener);
                }
                Reason::Tracked => {
                    let opener = self.opened.get(&ends);
                    let is_let_in_elsewhere =
                        opener.is_some_and(|(at, way)| at != interface && *way == direction);
                    ensure!(
                        !is_let_in_elsewhere || place.allows(&ip),
                        "another interface has opened its flow, and no rule of this one allows it"
                    );
                }
                _ => {}
            }
        }
        Ok(Some(reason))
    }

    fn flows(&mut self) -> Result<Flows> {
        self.evaluator.flows()
    }
}

fn is_link_local(address: &IpAddr) -> bool {
    matches!(address, IpAddr::V6(v6) if v6.is_unicast_link_local())
}

/// Where a packet is met.
struct Place<'a> {
    policy: &'a Policy,
    vpc_name: &'a VpcName,
    vpc: &'a Vpc,
    name: &'a InterfaceName,
    interface: &'a Interface,
    read: &'a ReadAddresses,
    direction: Direction,
    flows: &'a Flows,
}

impl<'a> Place<'a> {
    fn of(
        policy: &'a Policy,
        read: &'a ReadAddresses,
        wanted: &str,
        direction: Direction,
        flows: &'a Flows,
    ) -> Result<Self> {
        for (vpc_name, vpc) in &policy.vpcs {
            for (name, interface) in &vpc.interfaces {
                if name.as_str() == wanted {
                    return Ok(Self {
                        policy,
                        vpc_name,
                        vpc,
                        name,
                        interface,
                        read,
                        direction,
                        flows,
                    });
                }
            }
        }
        anyhow::bail!("the policy has no interface {wanted}")
    }

    fn is_guest(&self) -> bool {
        self.interface.side == Side::Guest
    }

    /// The guest's link-layer addresses; none where they are not known.
    fn macs(&self) -> Vec<MacAddress> {
        match &self.interface.macs {
            Macs::Peer => MacAddress::new(GUEST_MAC).into_iter().collect(),
            Macs::Any => Vec::new(),
            listed @ Macs::Listed(_) => listed.listed().collect(),
        }
    }

    /// Whether the address is the guest's: declared, or derived from its link-layer address unless a
    /// link-local one is declared.
    fn owns(&self, address: IpAddr) -> bool {
        let declared = &self.interface.addresses;
        let derived = || self.macs().iter().any(|mac| mac.link_local() == address);
        declared.contains(&address) || (!declared.iter().any(is_link_local) && derived())
    }

    /// What a guest sends and gets on its link.
    fn on_its_link(&self, frame: &[u8]) -> Result<()> {
        let tag = |at| {
            let ethertype = naive::number(frame, at)?;
            let number = naive::number(frame, at + 2)? & 0x0fff;
            [0x8100, 0x88a8, 0x9100]
                .contains(&ethertype)
                .then_some(number)
        };
        if let Some(vlan) = tag(12) {
            let is_own = vlan == 0 || self.interface.vlans.contains(&vlan);
            ensure!(is_own, "VLAN {vlan}");
            ensure!(tag(16).is_none(), "two tags");
        }
        let macs = self.macs();
        let is_own = macs.iter().any(|mac| frame[6..12] == mac.bytes());
        ensure!(
            self.direction == Direction::Ingress || macs.is_empty() || is_own,
            "it comes from another link-layer address"
        );
        Ok(())
    }

    fn may_pass_beside_ip(&self, reason: Reason, ethertype: u16) -> Result<()> {
        let usual = matches!(
            ethertype,
            0x0806 | 0x88cc | 0x8809 | 0x888e | 0x88f7 | 0..0x600
        );
        match reason {
            Reason::LinkProtocol if self.is_guest() => ensure!(ethertype == 0x0806),
            Reason::LinkProtocol => ensure!(usual),
            Reason::ListedEthertype => ensure!(self.interface.ethertypes.contains(&ethertype)),
            _ => anyhow::bail!("it is no IP packet"),
        }
        Ok(())
    }

    /// What is never right, whoever allows it.
    fn must_not_pass(&self, ip: &Ip) -> Result<()> {
        ensure!(
            ip.source != ip.destination,
            "source and destination are one"
        );
        for address in [ip.source, ip.destination] {
            if let IpAddr::V6(v6) = address {
                ensure!(v6.to_ipv4_mapped().is_none(), "a mapped address");
            }
        }
        let broadcast = match ip.source {
            IpAddr::V4(v4) => v4.is_broadcast(),
            IpAddr::V6(_) => false,
        };
        ensure!(
            !ip.source.is_loopback() && !ip.source.is_multicast() && !broadcast,
            "nobody sends from there"
        );
        if ip.is_later_fragment() {
            let offset = ip.fragment.map_or(0, |fragment| fragment.offset);
            ensure!(!ip.l4.is_empty(), "a fragment of nothing");
            ensure!(
                offset + ip.l4.len() <= 65_535,
                "it ends beyond the largest packet"
            );
            ensure!(
                ip.protocol != 6 || offset != 8,
                "it would replace the flags"
            );
            return Ok(());
        }
        let shortest = match ip.protocol {
            6 => 20,
            17 | 1 | 58 => 8,
            _ => 0,
        };
        ensure!(ip.l4.len() >= shortest, "its L4 header is cut off");
        // Of IPv4 it is a protocol like any other.
        ensure!(
            ip.protocol != 59 || ip.source.is_ipv4(),
            "nothing follows its headers"
        );
        if ip.protocol == 6 {
            let header = usize::from(ip.l4[12] >> 4) * 4;
            ensure!((20..=ip.l4.len()).contains(&header), "its data offset lies");
            let [fin, syn, rst, ack] = [1, 2, 4, 16].map(|flag| ip.l4[13] & flag != 0);
            let sound = match (syn, rst, fin) {
                (false, false, false) | (false, false, true) => ack,
                (true, false, false) | (false, true, false) => true,
                _ => false,
            };
            ensure!(sound, "no TCP sends these flags");
        }
        Ok(())
    }

    fn is_simple(&self, reason: Reason, ip: &Ip) -> Result<()> {
        match reason {
            Reason::Rule | Reason::RuleAlone => {
                ensure!(self.allows(ip), "no rule allows it");
                self.guard(ip)
            }
            Reason::Untracked => {
                ensure!(
                    self.is_untracked(ip, self.direction),
                    "rules open to all don't allow it"
                );
                self.guard(ip)
            }
            Reason::Tracked => {
                ensure!(self.is_known(ip, self.direction), "there is no such flow");
                self.guard(ip)
            }
            Reason::Related => self.related(ip),
            Reason::NeighborDiscovery => self.neighbor_discovery(ip),
            Reason::MulticastMembership => {
                ensure!(ip.hop_limit == 1, "it may have been routed");
                ensure!(ip.destination.is_multicast() && ip.fragment.is_none());
                // An IGMP message that is shorter than eight bytes has no type (RFC 9776 §4).
                let has_kind = ip.protocol != 2 || ip.l4.len() >= 8;
                let kind = ip.l4.first().copied().filter(|_| has_kind).unwrap_or(0);
                let (is_query, is_known) = match ip.protocol {
                    2 => (
                        kind == 0x11,
                        matches!(kind, 0x11 | 0x12 | 0x16 | 0x17 | 0x22),
                    ),
                    58 => (kind == 130, matches!(kind, 130..=132 | 143)),
                    protocol => anyhow::bail!("protocol {protocol} has no members"),
                };
                let leaves = self.direction == Direction::Egress;
                ensure!(is_known || (ip.protocol == 2 && leaves), "kind {kind}");
                ensure!(!(self.is_guest() && leaves && is_query), "a guest asks");
                Ok(())
            }
            Reason::DhcpClient => {
                let ports = ip.ports().context("no ports")?;
                let client_to_server = [(68, 67), (546, 547)].contains(&ports);
                let server_to_client = [(67, 68), (547, 546)].contains(&ports);
                ensure!(ip.protocol == 17);
                ensure!(match self.direction {
                    Direction::Egress => client_to_server,
                    Direction::Ingress => server_to_client,
                });
                Ok(())
            }
            Reason::LinkLocalService => {
                ensure!(self.vpc.link_local_services.contains(&self.peer(ip)));
                let asks = ip.protocol == 6 && ip.l4[13] & 0x17 == 2;
                ensure!(self.direction == Direction::Egress || (ip.protocol == 6 && !asks));
                self.guard(ip)
            }
            _ => anyhow::bail!("it is an IP packet"),
        }
    }

    /// A fragment that is too far behind to hold any of a transport header, of a protocol that the
    /// two may speak.
    fn may_pass_early(&self, ip: &Ip, offset: usize) -> Result<()> {
        ensure!(!self.interface.strict_fragments, "fragments are strict");
        ensure!(offset >= 60, "it may hold a part of a TCP header");
        let peer = self.peer(ip);
        ensure!(
            self.vpc.link_local_services.contains(&peer)
                || self
                    .policy
                    .may_carry(self.vpc_name, self.name, self.read, ip.protocol, peer),
            "no rule is about protocol {} and {peer}",
            ip.protocol
        );
        self.guard(ip)
    }

    /// A guest sends from its own addresses, and gets what is for them.
    fn guard(&self, ip: &Ip) -> Result<()> {
        ensure!(
            !self.is_guest() || self.owns(self.local(ip)),
            "{} is not the guest's",
            self.local(ip)
        );
        Ok(())
    }

    fn neighbor_discovery(&self, ip: &Ip) -> Result<()> {
        ensure!(ip.protocol == 58 && ip.hop_limit == 255 && ip.fragment.is_none());
        let kind = ip.l4[0];
        ensure!((133..=137).contains(&kind) && ip.l4[1] == 0);
        let link_local = matches!(ip.source, IpAddr::V6(v6) if v6.is_unicast_link_local());
        ensure!(
            link_local || !matches!(kind, 134 | 137),
            "no router's address"
        );
        if !self.is_guest() || self.direction == Direction::Ingress {
            return Ok(());
        }
        ensure!(!matches!(kind, 134 | 137), "a guest is no router");
        // Of a guest without a known link-layer address any link-local address may be its own.
        let may_own = |address| {
            let known =
                !self.macs().is_empty() || self.interface.addresses.iter().any(is_link_local);
            self.owns(address) || (is_link_local(&address) && !known)
        };
        if kind == 136 {
            ensure!(
                self.owns(ip.target().context("no target")?),
                "another's address"
            );
        }
        if kind == 135 && ip.source.is_unspecified() {
            ensure!(
                may_own(ip.target().context("no target")?),
                "another's address"
            );
        }
        ensure!(ip.source.is_unspecified() || may_own(ip.source));
        Ok(())
    }

    fn related(&self, ip: &Ip) -> Result<()> {
        let quoted = ip.quoted().context("it quotes nothing")?;
        ensure!(
            ip.fragment.is_none() && !quoted.is_later_fragment(),
            "fragments"
        );
        ensure!(quoted.source == ip.destination, "it is for somebody else");
        ensure!(quoted.l4.len() >= 8, "it quotes too little");
        let direction = self.direction.opposite();
        ensure!(
            self.is_known(&quoted, direction) || self.is_untracked(&quoted, direction),
            "there is no such flow"
        );
        self.guard(ip)
    }

    fn local(&self, ip: &Ip) -> IpAddr {
        match self.direction {
            Direction::Ingress => ip.destination,
            Direction::Egress => ip.source,
        }
    }

    fn peer(&self, ip: &Ip) -> IpAddr {
        match self.direction {
            Direction::Ingress => ip.source,
            Direction::Egress => ip.destination,
        }
    }

    fn flow_ends(&self, ip: &Ip) -> Option<FlowEnds> {
        let (source, destination) = ip.ports()?;
        let asks = match (ip.protocol, ip.l4.first()) {
            (1, Some(8 | 13 | 15 | 17)) | (58, Some(128)) => Some(self.direction),
            (1, Some(0 | 14 | 16 | 18)) | (58, Some(129)) => Some(self.direction.opposite()),
            _ => None,
        };
        let (local, peer) = match self.direction {
            Direction::Ingress => ((ip.destination, destination), (ip.source, source)),
            Direction::Egress => ((ip.source, source), (ip.destination, destination)),
        };
        Some((local, peer, ip.protocol, asks))
    }

    /// Whether a flow of the packet's addresses and ports was alive when it came.
    fn is_known(&self, ip: &Ip, direction: Direction) -> bool {
        let Some((source, destination)) = ip.ports() else {
            return false;
        };
        let (local, peer) = match direction {
            Direction::Ingress => ((ip.destination, destination), (ip.source, source)),
            Direction::Egress => ((ip.source, source), (ip.destination, destination)),
        };
        self.flows.keys().any(|key| {
            key.protocol == ip.protocol
                && (key.local.to_ip(), key.local_port) == local
                && (key.peer.to_ip(), key.peer_port) == peer
        })
    }

    fn allows(&self, ip: &Ip) -> bool {
        let packet = self.first_packet(ip);
        packet.is_some_and(|packet| {
            !self
                .policy
                .allows(self.vpc_name, self.name, self.read, packet)
                .is_empty()
        })
    }

    fn first_packet(&self, ip: &Ip) -> Option<FirstPacket> {
        let l4 = match ip.protocol {
            6 | 17 => L4::Port(naive::number(&ip.l4, 2)?),
            1 | 58 => L4::Icmp(*ip.l4.first()?, *ip.l4.get(1)?),
            _ => L4::Other,
        };
        Some(FirstPacket {
            direction: self.direction,
            peer: self.peer(ip),
            protocol: ip.protocol,
            l4,
        })
    }

    /// Whether rules open to everyone let it pass, as the packet of who began or as the answer.
    fn is_untracked(&self, ip: &Ip, direction: Direction) -> bool {
        let Some((source, destination)) = ip.ports() else {
            return false;
        };
        let peer = match direction {
            Direction::Ingress => ip.source,
            Direction::Egress => ip.destination,
        };
        [(direction, destination), (direction.opposite(), source)]
            .into_iter()
            .any(|(direction, port)| {
                let packet = FirstPacket {
                    direction,
                    peer,
                    protocol: ip.protocol,
                    l4: L4::Port(port),
                };
                self.policy.is_untracked(self.vpc_name, self.name, packet)
            })
    }
}
