//! Where sg and nftables differ on purpose.

use sg_common::report::Reason;
use tests::packets::protocol;

/// What became of a packet on the two roads.
pub(crate) struct Seen<'a> {
    /// Why sg did what it did; `None` when the packet never came to it.
    pub(crate) reason: Option<Reason>,
    /// The frame that was sent.
    pub(crate) frame: &'a [u8],
    /// Whether it arrived through sg.
    pub(crate) by_sg: bool,
    /// Whether it arrived through nftables.
    pub(crate) by_nft: bool,
}

/// A difference that is meant.
pub(crate) struct Difference {
    pub(crate) why: &'static str,
    pub(crate) applies: fn(&Seen<'_>) -> bool,
}

impl Seen<'_> {
    fn only_sg(&self) -> bool {
        self.by_sg && !self.by_nft
    }

    fn only_nft(&self) -> bool {
        self.by_nft && !self.by_sg
    }

    fn is_v6(&self) -> bool {
        self.frame.get(12..14) == Some(&[0x86, 0xdd])
    }

    /// The protocol that an untagged packet carries behind its extension headers, where it begins,
    /// and whether the packet is a fragment.
    fn upper(&self) -> Option<(u8, usize, bool)> {
        let byte = |at: usize| self.frame.get(at).copied();
        if !self.is_v6() {
            let is_fragment = (byte(20)? & 0x3f, byte(21)?) != (0, 0);
            return Some((byte(23)?, 14 + usize::from(byte(14)? & 15) * 4, is_fragment));
        }
        let (mut number, mut at, mut is_fragment) = (byte(20)?, 54, false);
        loop {
            let size = match number {
                protocol::FRAGMENT => 8,
                protocol::AUTHENTICATION => (usize::from(byte(at + 1)?) + 2) * 4,
                protocol::HOP_BY_HOP | protocol::ROUTING | protocol::DESTINATION_OPTIONS => {
                    (usize::from(byte(at + 1)?) + 1) * 8
                }
                _ => return Some((number, at, is_fragment)),
            };
            is_fragment |= number == protocol::FRAGMENT;
            number = byte(at)?;
            at += size;
        }
    }

    fn is_fragment(&self) -> bool {
        self.upper().is_some_and(|(_, _, is_fragment)| is_fragment)
    }

    fn carries(&self, wanted: &[u8]) -> bool {
        self.upper()
            .is_some_and(|(number, _, _)| wanted.contains(&number))
    }

    fn has(&self, reasons: &[Reason]) -> bool {
        self.reason.is_some_and(|reason| reasons.contains(&reason))
    }
}

pub(crate) const DIFFERENCES: &[Difference] = &[
    Difference {
        why: "sg judges each fragment as it comes; conntrack holds fragments back until their \
              packet is whole, and these packets never are",
        applies: |seen| seen.only_sg() && seen.is_fragment(),
    },
    Difference {
        why: "sg refuses what it cannot read to the end; nftables lets rules without ports admit it",
        applies: |seen| {
            seen.only_nft()
                && seen
                    .reason
                    .is_some_and(|reason| reason.name().starts_with("malformed-"))
        },
    },
    Difference {
        why: "ICMP that neither asks nor answers a question is for the rules to say; conntrack \
              calls it invalid",
        applies: |seen| seen.only_sg() && seen.has(&[Reason::RuleAlone]),
    },
    Difference {
        why: "of a connection that was admitted, or that is open to everyone both ways, sg leaves to \
              the receiver what does not fit its state; conntrack calls it invalid",
        applies: |seen| {
            seen.only_sg()
                && seen.has(&[Reason::Tracked, Reason::Untracked])
                && seen.carries(&[protocol::TCP])
        },
    },
    Difference {
        why: "sg takes ICMP of the other family, SCTP, DCCP and UDP-Lite by their numbers alone; \
              conntrack looks into them, or refuses them",
        applies: |seen| {
            let other_family = if seen.is_v6() {
                protocol::ICMP
            } else {
                protocol::ICMPV6
            };
            let numbers = [
                protocol::DCCP,
                protocol::SCTP,
                protocol::UDP_LITE,
                other_family,
            ];
            seen.only_sg() && seen.carries(&numbers)
        },
    },
    Difference {
        why: "groups never filter what keeps a link alive; these rules of nftables do",
        applies: |seen| {
            let exempt = [
                Reason::DhcpClient,
                Reason::MulticastMembership,
                Reason::NeighborDiscovery,
            ];
            seen.only_sg() && seen.has(&exempt)
        },
    },
    Difference {
        why: "a guest may not advertise others' addresses nor serve DHCP, whatever the rules say",
        applies: |seen| {
            let guarded = [
                Reason::GuestDiscovery,
                Reason::GuestRouter,
                Reason::GuestDhcpServer,
            ];
            seen.only_nft() && seen.has(&guarded)
        },
    },
    Difference {
        why: "errors of ICMPv6 are those that RFC 4443 defines, 1 to 4; to conntrack any type below \
              128 is one, and related to what it quotes",
        applies: |seen| {
            let kind = seen.upper().and_then(|(_, at, _)| seen.frame.get(at));
            seen.only_nft()
                && seen.is_v6()
                && seen.carries(&[protocol::ICMPV6])
                && kind.is_some_and(|kind| matches!(kind, 0 | 5..128))
        },
    },
    Difference {
        why: "an error belongs to a question of its kind and identifier; conntrack compares the \
              code as well",
        applies: |seen| {
            let quotes = |at: usize, number| seen.frame.get(at) == Some(&number);
            let quotes_icmp = match seen.upper() {
                Some((protocol::ICMP, at, _)) => quotes(at + 8 + 9, protocol::ICMP),
                Some((protocol::ICMPV6, at, _)) => quotes(at + 8 + 6, protocol::ICMPV6),
                _ => false,
            };
            seen.only_sg() && seen.has(&[Reason::Related]) && quotes_icmp
        },
    },
];
