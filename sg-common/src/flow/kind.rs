//! Embryonic and assured flows.

/// The two kinds of flows, which share one table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FlowKind {
    /// Seen from one side, or mid-handshake; may be forgotten.
    Embryonic,
    /// Seen from both sides; never forgotten before its deadline.
    Assured,
}

impl FlowKind {
    /// The bit of a tag that says of which kind the flow of a slot is.
    pub(super) const ASSURED_TAG: u16 = 2;

    /// The tag of a flow of this kind.
    #[inline(always)]
    pub const fn tag(self, tag: u16) -> u16 {
        match self {
            Self::Embryonic => tag,
            Self::Assured => tag | Self::ASSURED_TAG,
        }
    }

    /// The kind of the flow with this tag, if it is not that of a free slot.
    #[inline(always)]
    pub const fn of_tag(tag: u16) -> Option<Self> {
        match tag {
            0 => None,
            _ if tag & Self::ASSURED_TAG == 0 => Some(Self::Embryonic),
            _ => Some(Self::Assured),
        }
    }

    /// Whether a slot with this tag holds a flow of this kind: the tag of each flow is odd.
    #[inline(always)]
    pub const fn is_tag(self, tag: u16) -> bool {
        tag & (Self::ASSURED_TAG | 1) == self.tag(1)
    }
}
