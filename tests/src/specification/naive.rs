//! What a frame is, read the slow and obvious way: one slice after the other, nothing shared with
//! the parser that is tested.
//!
//! It is no judge of form: where lengths lie it reads on as far as there are bytes, or not at all.

use std::net::{IpAddr, Ipv6Addr};

/// What the link layer carries, behind at most two tags.
pub(crate) struct Link<'a> {
    pub(crate) ethertype: u16,
    pub(crate) content: &'a [u8],
}

/// An IP packet.
#[derive(Clone, Debug)]
pub(crate) struct Ip {
    pub(crate) source: IpAddr,
    pub(crate) destination: IpAddr,
    pub(crate) hop_limit: u8,
    /// The upper protocol.
    pub(crate) protocol: u8,
    /// What its header and that of its fragment say it is a part of.
    pub(crate) fragment: Option<Fragment>,
    /// From the L4 header, or the fragment's bytes, to the packet's end.
    pub(crate) l4: Vec<u8>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Fragment {
    pub(crate) id: u32,
    pub(crate) offset: usize,
    /// The protocol field next to the identification.
    pub(crate) protocol: u8,
}

pub(crate) fn link(frame: &[u8], bare: bool) -> Option<Link<'_>> {
    if bare {
        let ethertype = match frame.first()? >> 4 {
            4 => 0x0800,
            6 => 0x86dd,
            _ => return None,
        };
        return Some(Link {
            ethertype,
            content: frame,
        });
    }
    let mut at = 12;
    for _ in 0..3 {
        let ethertype = number(frame, at)?;
        at += 2;
        if !matches!(ethertype, 0x8100 | 0x88a8 | 0x9100) {
            return Some(Link {
                ethertype,
                content: frame.get(at..)?,
            });
        }
        at += 2;
    }
    None
}

/// Reads a whole packet; `quoted` ones may be cut short anywhere.
pub(crate) fn ip(link: &Link<'_>, quoted: bool) -> Option<Ip> {
    match link.ethertype {
        0x0800 => ipv4(link.content, quoted),
        0x86dd => ipv6(link.content, quoted),
        _ => None,
    }
}

fn ipv4(bytes: &[u8], quoted: bool) -> Option<Ip> {
    let header = usize::from(bytes.first()? & 15) * 4;
    let total = usize::from(number(bytes, 2)?);
    let end = if quoted { bytes.len() } else { total };
    if bytes[0] >> 4 != 4 || header < 20 {
        return None;
    }
    let l4 = bytes.get(header..end)?.to_vec();
    let place = number(bytes, 6)?;
    let (offset, more) = (usize::from(place & 0x1fff) * 8, place & 0x2000 != 0);
    let protocol = *bytes.get(9)?;
    Some(Ip {
        source: IpAddr::from(<[u8; 4]>::try_from(bytes.get(12..16)?).ok()?),
        destination: IpAddr::from(<[u8; 4]>::try_from(bytes.get(16..20)?).ok()?),
        hop_limit: *bytes.get(8)?,
        protocol,
        fragment: (offset > 0 || more).then_some(Fragment {
            id: u32::from(number(bytes, 4)?),
            offset,
            protocol,
        }),
        l4,
    })
}

fn ipv6(bytes: &[u8], quoted: bool) -> Option<Ip> {
    if bytes.first()? >> 4 != 6 {
        return None;
    }
    let end = if quoted {
        bytes.len()
    } else {
        40 + usize::from(number(bytes, 4)?)
    };
    let mut rest = bytes.get(40..end)?;
    let mut next = *bytes.get(6)?;
    let mut fragment = None;
    loop {
        let size = match next {
            0 | 43 | 60 => 8 + 8 * usize::from(*rest.get(1)?),
            51 => 8 + 4 * usize::from(*rest.get(1)?),
            44 => 8,
            _ => break,
        };
        let following = *rest.first()?;
        if next == 44 {
            let place = number(rest, 2)?;
            let offset = usize::from(place & !7);
            if offset > 0 || place & 1 != 0 {
                let id = u32::from_be_bytes(rest.get(4..8)?.try_into().ok()?);
                fragment = Some(Fragment {
                    id,
                    offset,
                    protocol: following,
                });
            }
        }
        rest = rest.get(size..)?;
        next = following;
        if fragment.is_some_and(|fragment| fragment.offset > 0) {
            break;
        }
    }
    Some(Ip {
        source: address(bytes, 8)?,
        destination: address(bytes, 24)?,
        hop_limit: *bytes.get(7)?,
        protocol: next,
        fragment,
        l4: rest.to_vec(),
    })
}

impl Ip {
    pub(crate) fn is_later_fragment(&self) -> bool {
        self.fragment.is_some_and(|fragment| fragment.offset > 0)
    }

    /// Source and destination port; the identifier twice for ICMP that has one; zeros otherwise.
    pub(crate) fn ports(&self) -> Option<(u16, u16)> {
        match self.protocol {
            6 | 17 => Some((number(&self.l4, 0)?, number(&self.l4, 2)?)),
            1 | 58 if self.is_icmp_question_or_answer() => {
                let identifier = number(&self.l4, 4)?;
                Some((identifier, identifier))
            }
            _ => Some((0, 0)),
        }
    }

    fn is_icmp_question_or_answer(&self) -> bool {
        matches!(
            (self.protocol, self.l4.first()),
            (1, Some(0 | 8 | 13..=18)) | (58, Some(128 | 129))
        )
    }

    /// What an ICMP error quotes.
    pub(crate) fn quoted(&self) -> Option<Self> {
        let ethertype = match (self.protocol, self.l4.first()?) {
            (1, 3 | 11 | 12) if self.source.is_ipv4() => 0x0800,
            (58, 1..=4) if self.source.is_ipv6() => 0x86dd,
            _ => return None,
        };
        let content = self.l4.get(8..)?;
        ip(&Link { ethertype, content }, true)
    }

    /// The address that a neighbor message speaks of.
    pub(crate) fn target(&self) -> Option<IpAddr> {
        address(&self.l4, 8)
    }
}

pub(crate) fn number(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes(bytes.get(at..at + 2)?.try_into().ok()?))
}

fn address(bytes: &[u8], at: usize) -> Option<IpAddr> {
    let octets: [u8; 16] = bytes.get(at..at + 16)?.try_into().ok()?;
    Some(IpAddr::V6(Ipv6Addr::from(octets)))
}
