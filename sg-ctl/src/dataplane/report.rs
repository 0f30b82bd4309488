//! What the kernel tells of itself, in the model's words.

use std::net::IpAddr;
use std::path::PathBuf;

use sg_common::flow::FlowKey;
use sg_common::packet::Direction;
use sg_common::report::Reason;

use super::hooks;
use crate::interfaces::Netns;
use crate::policy::model::Side;
use crate::policy::names::{InterfaceName, RuleId, VpcName};

/// A protected device, as the kernel has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attachment {
    /// Whose policy.
    pub vpc: VpcName,
    /// The device's name in the policy.
    pub name: InterfaceName,
    /// The number the tables know its network namespace by.
    pub netns: u32,
    /// The kernel's number.
    pub ifindex: u32,
    /// What is protected.
    pub side: Side,
    /// Which hook receives.
    pub hook: ReceiveHook,
    /// How its programs at TC are attached.
    pub tc: TcHook,
    /// Whether both programs are in place.
    pub attached: bool,
    /// What tells the network namespace that it was attached in from others.
    pub netns_inode: u64,
    /// The kernel's number of the device that holds the programs now: another one where the device
    /// has moved to another namespace. None where they were detached, or the device is gone.
    pub held: Option<u32>,
    /// The sending link's pin; none where a filter judges what is sent.
    pub(super) link: Option<PathBuf>,
}

impl Attachment {
    /// Whether the device that holds the programs is in a network namespace: there may be another
    /// one with its number.
    pub fn is_in(&self, netns: &Netns) -> bool {
        match &self.link {
            Some(link) => hooks::is_linked_in(link, netns),
            // A filter does not go with its device.
            None => netns.id().inode == self.netns_inode,
        }
    }
}

/// The hook that receives, as it was chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub enum ReceiveHook {
    /// XDP in the driver.
    XdpNative,
    /// XDP above the driver.
    XdpGeneric,
    /// Traffic control.
    Tc,
}

/// How programs are attached at traffic control.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TcHook {
    /// By links, since Linux 6.6.
    Tcx,
    /// By filters of the clsact queueing discipline, since Linux 4.5.
    Clsact,
}

impl TcHook {
    /// The word people and JSON use.
    pub fn name(self) -> &'static str {
        match self {
            Self::Tcx => "tcx",
            Self::Clsact => "clsact",
        }
    }
}

impl ReceiveHook {
    /// The word people and JSON use.
    pub fn name(self) -> &'static str {
        match self {
            Self::XdpNative => "xdp",
            Self::XdpGeneric => "xdp-generic",
            Self::Tc => "tc",
        }
    }
}

/// How often one reason applied at one interface in one direction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReasonCount {
    /// Whose policy.
    pub vpc: VpcName,
    /// The interface.
    pub interface: InterfaceName,
    /// Relative to what is protected.
    pub direction: Direction,
    /// Why.
    pub reason: Reason,
    /// Whether the packets passed all the same, because the interface was only audited.
    pub audited: bool,
    /// Packets of the wire.
    pub packets: u64,
    /// Bytes of their frames.
    pub bytes: u64,
}

/// What one rule admitted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RuleCount {
    /// Packets of the wire, those of the flows it opened included.
    pub packets: u64,
    /// Bytes of their frames.
    pub bytes: u64,
    /// Flows it opened.
    pub flows: u64,
    /// Seconds since it last admitted a packet; `None`: never.
    pub last_hit_s_ago: Option<u64>,
}

/// One flow that is alive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FlowReport {
    /// By what the tables know it.
    pub key: FlowKey,
    /// Whose flows it is among.
    pub zone: u32,
    /// The protected side.
    pub local: IpAddr,
    /// The protected side's port, or the ICMP identifier.
    pub local_port: u16,
    /// The other side.
    pub peer: IpAddr,
    /// The other side's port, or the ICMP identifier.
    pub peer_port: u16,
    /// The IP protocol.
    pub protocol: u8,
    /// Where in its life it is.
    pub state: &'static str,
    /// Whether it has been seen from both sides.
    pub assured: bool,
    /// Seconds until it expires without a packet.
    pub expires_in_s: u64,
    /// Seconds since its last packet, to a second or so.
    pub idle_s: u64,
    /// Seconds since its first packet.
    pub opened_s_ago: u64,
    /// Which way its first packet went.
    pub opened_by: Direction,
    /// The interface that opened it, if that is still protected.
    pub interface: Option<(VpcName, InterfaceName)>,
    /// The rule that admitted it, if that still exists.
    pub rule: Option<RuleId>,
    /// Packets towards what is protected.
    pub packets_in: u64,
    /// Packets away from it.
    pub packets_out: u64,
    /// Bytes towards what is protected.
    pub bytes_in: u64,
    /// Bytes away from it.
    pub bytes_out: u64,
    /// The policy that admitted it, or last judged it.
    pub generation: u32,
    /// Tells it from other flows between the same ends, before and after.
    pub opened: u32,
    /// TCP: what it has come to.
    pub marks: TcpMarks,
}

/// What must have passed for a TCP flow to be as it is. All of it stays so.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TcpMarks {
    /// The other side has answered the first SYN with its own.
    pub answered: bool,
    /// A FIN towards what is protected.
    pub fin_in: bool,
    /// A FIN away from it.
    pub fin_out: bool,
    /// A RST that was believed, from either side.
    pub reset: bool,
}

/// How full the flow tables are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FlowUsage {
    /// Live embryonic flows.
    pub embryonic: u64,
    /// Live assured flows.
    pub assured: u64,
    /// The most assured flows there can be.
    pub capacity: u64,
}

/// A table, or an interface's share of it, that has no room for another connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FullRoom {
    /// Whose share; none for the table that all share.
    pub interface: Option<(VpcName, InterfaceName)>,
    /// Live assured flows.
    pub flows: u64,
    /// The most there can be.
    pub capacity: u64,
    /// Whether a new connection passes all the same, because the interface is audited, or all are.
    pub audit: bool,
}
