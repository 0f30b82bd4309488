//! Verdicts, the reasons for them, and the sentence each reason has.

/// What happens to a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It goes on to whoever is next.
    Pass,
    /// It goes nowhere, silently.
    Drop,
}

macro_rules! reasons {
    ($($variant:ident = $verdict:ident $name:literal $sentence:literal,)*) => {
        /// Why a verdict was reached. Every reason has a counter, a name and a sentence.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[repr(u8)]
        pub enum Reason {
            $(#[doc = $sentence] $variant,)*
        }

        impl Reason {
            /// Every reason, in the order of their numbers.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];

            /// The verdict as it is listed below.
            #[cfg(test)]
            const fn listed_verdict(self) -> Verdict {
                match self { $(Self::$variant => Verdict::$verdict,)* }
            }

            /// The reason with this number.
            #[inline(always)]
            pub const fn from_number(number: u32) -> Option<Self> {
                // Compiles to one comparison, where indexing a table would not.
                $(if number == Self::$variant as u32 { return Some(Self::$variant); })*
                None
            }

            /// The name counters, events and JSON use.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)* }
            }

            /// One sentence for people.
            pub const fn sentence(self) -> &'static str {
                match self { $(Self::$variant => $sentence,)* }
            }
        }
    };
}

reasons! {
    Rule = Pass "rule" "A rule allows it, and it opens a tracked flow.",
    Tracked = Pass "tracked" "It belongs to a flow that was admitted earlier.",
    Untracked = Pass "untracked" "Rules open to everyone allow both it and every reply, so no flow is kept.",
    RuleAlone = Pass "rule-alone" "A rule allows it; messages of its kind open no flow.",
    Related = Pass "related" "It is an ICMP error about a flow that is allowed.",
    FragmentPass = Pass "fragment" "The first fragment of the same packet passed.",
    EarlyFragment = Pass "early-fragment" "It is a later fragment that has come before the first one, which decides for the whole packet.",
    LinkProtocol = Pass "link-protocol" "Groups never filter ARP, LLDP, STP, LACP, EAPOL and PTP.",
    ListedEthertype = Pass "ethertype-listed" "The interface lists this EtherType as passing.",
    NeighborDiscovery = Pass "neighbor-discovery" "Groups never filter IPv6 neighbor discovery from the link.",
    MulticastMembership = Pass "multicast-membership" "Groups never filter MLD and IGMP, which tell the link who listens to which multicast group.",
    DhcpClient = Pass "dhcp-client" "Groups never filter the traffic of a DHCP client.",
    OwnCopy = Pass "own-copy" "It is the machine's own multicast or broadcast, given back to its own listeners.",
    LinkLocalService = Pass "link-local-service" "Groups never filter the listed link-local services.",

    NoRule = Drop "no-rule" "No rule of any attached group allows it.",
    NoFlow = Drop "no-flow" "It can only belong to a flow, and there is none.",
    Terminated = Drop "terminated" "No rule admits its flow any more, and the flow was to end with its rule.",
    ImplausibleReply = Drop "implausible-reply" "It does not answer what opened the flow.",
    TableFull = Drop "table-full" "The flow table has no room for another flow.",
    QuotaFull = Drop "quota-full" "The interface holds as many flows as it may.",
    NoInterface = Drop "no-interface" "The interface has no entry in the tables.",
    NoPolicy = Drop "no-policy" "The interface's policy is missing from the tables.",

    Ethertype = Drop "ethertype" "Its EtherType is not one that passes.",
    Unsupported = Drop "unsupported" "It carries IP in a wrapper that is not looked into.",
    VlanDepth = Drop "vlan-depth" "It has more than two VLAN tags.",
    MalformedEthernet = Drop "malformed-ethernet" "The frame ends inside its link-layer header.",
    MalformedArp = Drop "malformed-arp" "It is not a well-formed ARP packet for IPv4 over Ethernet.",
    MalformedIpv4 = Drop "malformed-ipv4" "Its IPv4 header is truncated or its lengths lie.",
    MalformedIpv6 = Drop "malformed-ipv6" "Its IPv6 header is truncated or its length lies.",
    MalformedExtension = Drop "malformed-extension" "Its IPv6 extension headers are out of order, unfinished or too many.",
    MalformedFragment = Drop "malformed-fragment" "Its fragment fields cannot be those of a real fragment.",
    MalformedTcp = Drop "malformed-tcp" "Its TCP header is truncated or its data offset lies.",
    MalformedTcpFlags = Drop "malformed-tcp-flags" "No TCP sends this combination of flags.",
    MalformedUdp = Drop "malformed-udp" "Its UDP header is truncated or its length lies.",
    MalformedIcmp = Drop "malformed-icmp" "Its ICMP header is truncated.",
    MalformedDiscovery = Drop "malformed-neighbor-discovery" "Neighbor discovery must come unfragmented, with hop limit 255 and, from a router, a link-local source.",
    MalformedSource = Drop "malformed-source" "Its source can be no sender: loopback, multicast, broadcast, or its own destination.",
    MalformedMapped = Drop "malformed-mapped" "It is an IPv6 packet with an IPv4-mapped address.",

    FragmentUnknown = Drop "fragment-unknown" "It is a later fragment, and its first fragment was not seen.",
    FragmentDropped = Drop "fragment-dropped" "The first fragment of the same packet was dropped.",
    FragmentOverlap = Drop "fragment-overlap" "It would overwrite what the first fragment was judged by.",

    GuestSource = Drop "guest-source" "The guest sends from an address that is not its own.",
    GuestDestination = Drop "guest-destination" "It comes to the guest from an address of the guest.",
    GuestArp = Drop "guest-arp" "The guest's ARP packet speaks of an address that is not its own.",
    GuestDiscovery = Drop "guest-neighbor-discovery" "The guest claims an address that is not its own.",
    GuestRouter = Drop "guest-router" "A guest may not act as a router, nor ask who listens to multicast.",
    GuestMac = Drop "guest-mac" "The guest sends from a link-layer address that is not its own.",
    GuestVlan = Drop "guest-vlan" "It is in a VLAN that the guest is not in.",
    NotForGuest = Drop "not-for-guest" "It is on the guest's link, but for an address of another.",
    GuestDhcpServer = Drop "guest-dhcp-server" "A guest may not act as a DHCP server.",
}

impl Reason {
    /// How many there are.
    pub const COUNT: usize = Self::ALL.len();

    /// The number counters are indexed by.
    #[inline(always)]
    pub const fn number(self) -> u32 {
        self as u32
    }

    /// What happens to a packet for this reason.
    #[inline(always)]
    pub const fn verdict(self) -> Verdict {
        // Reasons to pass are listed first: the kernel compares once and looks nothing up.
        if (self as u8) < Self::NoRule as u8 {
            Verdict::Pass
        } else {
            Verdict::Drop
        }
    }
}

/// A verdict's reason with the rule it rests on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Decision {
    /// Why; [`Reason::verdict`] says what.
    pub reason: Reason,
    /// The rule that admits the packet or its flow, if one does.
    pub rule: crate::ids::RuleSlot,
}

impl Decision {
    /// A decision that rests on no rule.
    #[inline(always)]
    pub const fn without_rule(reason: Reason) -> Self {
        Self {
            reason,
            rule: crate::ids::RuleSlot::NONE,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_names_and_sentences_are_distinct() {
        for (index, reason) in Reason::ALL.iter().enumerate() {
            assert_eq!(reason.number() as usize, index);
            assert_eq!(reason.verdict(), reason.listed_verdict());
            assert_eq!(Reason::from_number(reason.number()), Some(*reason));
            for other in Reason::ALL.iter().skip(index + 1) {
                assert_ne!(reason.name(), other.name());
                assert_ne!(reason.sentence(), other.sentence());
            }
        }
    }
}
