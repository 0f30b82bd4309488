//! A trace: what the traced build of the kernel's programs tells of each packet.
//!
//! One record has a whole packet, what it is and each step of its decision, so that what does not
//! fit into the ring is lost packet by packet. The traced programs count what they should tell, and a
//! reader counts what it has read: the difference was left out.

use crate::addr::Addr;
use crate::decide::{RuleSource, Step};
use crate::event::Event;
use crate::flow::{FlowKind, FlowState, Phase};
use crate::ids::{Identity, RuleSlot, Ticks};
use crate::packet::Direction;
use crate::parse::{Content, Headers, Part};
use crate::ports::Service;
use crate::protocol::{TCP, UDP};

/// More steps than any decision takes: two looks at flows and one at rules for a packet that is about
/// another, two at flows and one at rules for its own, one for the flow that it opens; each look at
/// rules is up to four steps.
pub const TRACE_STEPS: usize = 20;

/// Which packets are told, and until when. Written by the command that traces.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct TraceFilter {
    /// The other side's address, where the mask is set.
    pub peer: Addr,
    /// The bits of it that count.
    pub mask: Addr,
    /// Not zero where the port counts too.
    pub has_port: u32,
    /// The port of either side.
    pub port: u32,
    /// Until when the command is believed to be alive: nothing is written for one that has died.
    pub until: Ticks,
}

impl TraceFilter {
    /// Packets to and from the addresses of a prefix, so many bits long as its family counts them.
    pub fn of_prefix(address: Addr, length: u8, port: Option<u16>) -> Self {
        let bits = match address.is_v4() {
            // The address is held behind 96 bits.
            true => 96 + u32::from(length),
            false => u32::from(length),
        };
        let mask = u128::MAX
            .checked_shl(128_u32.saturating_sub(bits))
            .unwrap_or(0);
        Self {
            peer: address,
            mask: Addr::from_v6(mask.to_be_bytes()),
            has_port: u32::from(port.is_some()),
            port: port.unwrap_or_default().into(),
            until: Ticks(0),
        }
    }

    /// Whether a packet that was read is one to tell. What has no IP addresses is none; what is too
    /// broken to have ports is none where the port counts.
    #[inline(always)]
    pub fn takes(&self, headers: &Headers, direction: Direction) -> bool {
        let has_addresses = match headers.content {
            Content::Ip => true,
            Content::Refused => {
                headers.source != Addr::UNSPECIFIED || headers.destination != Addr::UNSPECIFIED
            }
            _ => false,
        };
        if !has_addresses || headers.source.is_v4() != self.peer.is_v4() {
            return false;
        }
        let [a, b, c, d] = headers.peer(direction).raw_words();
        let [pa, pb, pc, pd] = self.peer.raw_words();
        let [ma, mb, mc, md] = self.mask.raw_words();
        let differs = (a ^ pa) & ma | (b ^ pb) & mb | (c ^ pc) & mc | (d ^ pd) & md;
        differs == 0 && (self.has_port == 0 || self.takes_port(headers))
    }

    #[inline(always)]
    fn takes_port(&self, headers: &Headers) -> bool {
        let has_ports = matches!(headers.content, Content::Ip)
            && !matches!(headers.part, Part::Later)
            && (headers.protocol == TCP || headers.protocol == UDP);
        has_ports
            && (u32::from(headers.source_port) == self.port
                || u32::from(headers.destination_port) == self.port)
    }
}

/// One step of a decision, as far as it is told.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct TraceStep {
    /// What was done, where, and in a flow's case what was found, a byte each.
    pub what: u32,
    /// The rule that was found.
    pub rule: RuleSlot,
    /// What rules know the peer by.
    pub identity: Identity,
}

impl TraceStep {
    const PARSED: u32 = 1;
    const FLOW: u32 = 2;
    const RULES: u32 = 3;

    /// Writes down a step.
    #[inline(always)]
    pub const fn of(step: &Step) -> Self {
        match step {
            Step::Parsed(_) => Self::about(Self::PARSED, 0, 0, RuleSlot::NONE, Identity::NONE),
            Step::Flow(found) => {
                let (kind, phase) = match found {
                    None => (0, 0),
                    Some((FlowKind::Embryonic, state)) => (0, state.phase.0 as u32),
                    Some((FlowKind::Assured, state)) => (1, state.phase.0 as u32),
                };
                Self::about(Self::FLOW, kind, phase, RuleSlot::NONE, Identity::NONE)
            }
            Step::Rules { source, rule, .. } => {
                let (source, identity) = match source {
                    RuleSource::Open => (0, Identity::NONE),
                    RuleSource::Prefix => (1, Identity::NONE),
                    RuleSource::PrefixLists(identity) => (2, *identity),
                    RuleSource::Groups(identity) => (3, *identity),
                };
                Self::about(Self::RULES, source, 0, *rule, identity)
            }
        }
    }

    #[inline(always)]
    const fn about(kind: u32, place: u32, found: u32, rule: RuleSlot, identity: Identity) -> Self {
        Self {
            what: kind | place << 8 | found << 16,
            rule,
            identity,
        }
    }

    /// The step again. Of what was read and of a flow's state there is only what tells of steps say:
    /// that it was read, and the phase.
    pub fn step(&self, headers: &Headers, service: Service) -> Option<Step> {
        let [kind, place, found, _] = self.what.to_le_bytes();
        match (u32::from(kind), place) {
            (Self::PARSED, _) => Some(Step::Parsed(*headers)),
            (Self::FLOW, 0 | 1) => Some(Step::Flow((found != 0).then(|| {
                let kind = match place {
                    0 => FlowKind::Embryonic,
                    _ => FlowKind::Assured,
                };
                let state = FlowState {
                    phase: Phase(found),
                    ..FlowState::default()
                };
                (kind, state)
            }))),
            (Self::RULES, 0..=3) => Some(Step::Rules {
                source: match place {
                    0 => RuleSource::Open,
                    1 => RuleSource::Prefix,
                    2 => RuleSource::PrefixLists(self.identity),
                    _ => RuleSource::Groups(self.identity),
                },
                service,
                rule: self.rule,
            }),
            _ => None,
        }
    }
}

/// What became of one packet, and how.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct TraceRecord {
    /// What it is and what became of it. The kind says nothing here.
    pub packet: Event,
    /// How many steps there are.
    pub taken: u32,
    /// Always zero.
    pub padding: u32,
    /// The steps, in order; then zeros.
    pub steps: [TraceStep; TRACE_STEPS],
}

const _: () = {
    assert!(size_of::<TraceFilter>() == 44);
    assert!(size_of::<TraceStep>() == 12);
    assert!(size_of::<TraceRecord>() == 336);
};

#[cfg(test)]
mod tests {
    use super::*;

    fn packet(source: [u8; 4], destination: [u8; 4]) -> Headers {
        Headers {
            source: Addr::from_v4(source),
            destination: Addr::from_v4(destination),
            source_port: 40_000,
            destination_port: 443,
            protocol: TCP,
            content: Content::Ip,
            ..Headers::default()
        }
    }

    #[test]
    fn the_peer_is_the_other_side_in_either_direction() {
        let filter = TraceFilter::of_prefix(Addr::from_v4([198, 51, 100, 0]), 24, None);
        let from_peer = packet([198, 51, 100, 7], [10, 0, 0, 1]);
        let to_peer = packet([10, 0, 0, 1], [198, 51, 100, 7]);
        assert!(filter.takes(&from_peer, Direction::Ingress));
        assert!(!filter.takes(&from_peer, Direction::Egress));
        assert!(filter.takes(&to_peer, Direction::Egress));
        assert!(!filter.takes(
            &packet([198, 51, 101, 7], [10, 0, 0, 1]),
            Direction::Ingress
        ));
    }

    #[test]
    fn a_prefix_is_of_one_family() {
        let everything = TraceFilter::of_prefix(Addr::UNSPECIFIED, 0, None);
        let v4 = packet([198, 51, 100, 7], [10, 0, 0, 1]);
        let v6 = Headers {
            source: Addr::from_words([0x2001_0db8, 0, 0, 7]),
            destination: Addr::from_words([0x2001_0db8, 0, 0, 1]),
            ..v4
        };
        assert!(everything.takes(&v6, Direction::Ingress));
        assert!(!everything.takes(&v4, Direction::Ingress));
        let everything = TraceFilter::of_prefix(Addr::V4_UNSPECIFIED, 0, None);
        assert!(everything.takes(&v4, Direction::Ingress));
        assert!(!everything.takes(&v6, Direction::Ingress));
        let one = TraceFilter::of_prefix(v6.source, 128, None);
        assert!(one.takes(&v6, Direction::Ingress));
    }

    #[test]
    fn a_port_is_that_of_either_side_and_of_what_has_one() {
        let peer = Addr::from_v4([198, 51, 100, 7]);
        let with = |port| TraceFilter::of_prefix(peer, 32, Some(port));
        let packet = packet([198, 51, 100, 7], [10, 0, 0, 1]);
        assert!(with(443).takes(&packet, Direction::Ingress));
        assert!(with(40_000).takes(&packet, Direction::Ingress));
        assert!(!with(0).takes(&packet, Direction::Ingress));
        for without in [
            Headers {
                part: Part::Later,
                ..packet
            },
            Headers {
                protocol: 132,
                ..packet
            },
            Headers {
                content: Content::Refused,
                ..packet
            },
        ] {
            assert!(
                !with(443).takes(&without, Direction::Ingress),
                "{without:?}"
            );
        }
    }

    #[test]
    fn what_was_not_read_to_its_addresses_is_nobodys() {
        let filter = TraceFilter::of_prefix(Addr::UNSPECIFIED, 0, None);
        let unread = Headers::default();
        assert_eq!(unread.content, Content::Refused);
        assert!(!filter.takes(&unread, Direction::Ingress));
        let arp = Headers {
            content: Content::Arp,
            ..packet([198, 51, 100, 7], [10, 0, 0, 1])
        };
        let filter = TraceFilter::of_prefix(Addr::V4_UNSPECIFIED, 0, None);
        assert!(!filter.takes(&arp, Direction::Ingress));
    }

    #[test]
    fn a_step_is_the_same_when_it_is_read() {
        let headers = packet([198, 51, 100, 7], [10, 0, 0, 1]);
        let service = Service::new(TCP, 443);
        let state = FlowState {
            phase: Phase::ESTABLISHED,
            ..FlowState::default()
        };
        let found = [FlowKind::Embryonic, FlowKind::Assured].map(|kind| Some((kind, state)));
        let flows = [None].into_iter().chain(found).map(Step::Flow);
        let sources = [
            RuleSource::Open,
            RuleSource::Prefix,
            RuleSource::PrefixLists(Identity(7)),
            RuleSource::Groups(Identity(8)),
        ];
        let rules = sources.map(|source| {
            [RuleSlot::NONE, RuleSlot(5)].map(|rule| Step::Rules {
                source,
                service,
                rule,
            })
        });
        let steps = [Step::Parsed(headers)].into_iter();
        let steps = steps.chain(flows);
        for step in steps.chain(rules.into_iter().flatten()) {
            let read = TraceStep::of(&step).step(&headers, service);
            assert_eq!(read, Some(step));
        }
        assert_eq!(TraceStep::default().step(&headers, service), None);
    }
}
