//! Reads how interfaces are protected.

use std::collections::BTreeSet;

use super::super::findings::Place;
use super::super::mac::MacAddress;
use super::super::matching::{DeviceMatch, TextPattern};
use super::super::model::{EgressDrops, Hook, Interface, Macs, Side};
use super::super::names::{GroupName, InterfaceName};
use super::super::prefix::check_member;
use super::read::Reader;
use super::schema;
use super::tree::{Node, Value};

/// An interface as a file describes it.
pub(super) struct FileInterface {
    pub(super) name: InterfaceName,
    pub(super) interface: Interface,
    pub(super) place: Place,
    /// Where each group is named.
    pub(super) groups: Vec<(GroupName, Place)>,
    /// Whether all of it could be read.
    pub(super) sound: bool,
}

/// Reads the map under `interfaces`.
pub(super) fn read_interfaces(reader: &mut Reader, node: &Node<'_>) -> Vec<FileInterface> {
    let wanted = "a map from interface names to their settings, or {} for none";
    let named = reader.named::<InterfaceName>(node, "interfaces", wanted);
    named
        .into_iter()
        .map(|(name, place, node)| {
            let before = reader.findings.count();
            let (interface, groups) = read_interface(reader, node);
            let sound = before == reader.findings.count();
            FileInterface {
                name,
                interface,
                place,
                groups,
                sound,
            }
        })
        .collect()
}

fn read_interface(reader: &mut Reader, node: &Node<'_>) -> (Interface, Vec<(GroupName, Place)>) {
    let mut interface = Interface::default();
    let Some(fields) = reader.fields(node, &schema::INTERFACE) else {
        return (interface, Vec::new());
    };
    if let Some(node) = fields.get("match") {
        interface.matching = Some(Box::new(read_match(reader, node)));
    }
    let groups = fields
        .get("groups")
        .map(|node| read_groups(reader, node))
        .unwrap_or_default();
    interface.groups = groups.iter().map(|(name, _)| name.clone()).collect();
    if let Some(node) = fields.get("side") {
        let words = [("host", Side::Host), ("guest", Side::Guest)];
        let side = reader.word(node, "side", &words, "host or guest");
        interface.side = side.unwrap_or_default();
    }
    if let Some(node) = fields.get("hook") {
        let words = [
            ("auto", Hook::Auto),
            ("xdp", Hook::Xdp),
            ("tc", Hook::Tc),
            ("xdp-generic", Hook::XdpGeneric),
        ];
        interface.hook = reader
            .word(node, "hook", &words, "auto, xdp, tc or xdp-generic")
            .unwrap_or_default();
    }
    if let Some(node) = fields.get("netns") {
        let netns = reader.text(node, "netns", "the name or path of a network namespace");
        interface.netns = netns.map(str::to_owned);
    }
    if let Some(node) = fields.get("addresses") {
        interface.addresses = reader.addresses(node, "addresses", check_member);
    }
    if let Some(node) = fields.get("macs") {
        interface.macs = read_macs(reader, node);
    }
    if let Some(node) = fields.get("vlans") {
        let wanted = "a list of VLANs like [10, 20]";
        for item in reader.one_or_more(node, "vlans", wanted) {
            let number = reader.number::<u16>(item, "a VLAN", "a number from 1 to 4094");
            interface.vlans.extend(number);
        }
    }
    if let Some(node) = fields.get("ethertypes") {
        interface.ethertypes = read_ethertypes(reader, node);
    }
    if let Some(node) = fields.get("replace_xdp") {
        interface.replace_xdp = reader.boolean(node, "replace_xdp").unwrap_or_default();
    }
    if let Some(node) = fields.get("tcp_pickup") {
        interface.tcp_pickup = reader.boolean(node, "tcp_pickup").unwrap_or(true);
    }
    if let Some(node) = fields.get("fragments") {
        let words = [("early", false), ("strict", true)];
        interface.strict_fragments = reader
            .word(node, "fragments", &words, "early or strict")
            .unwrap_or_default();
    }
    if let Some(node) = fields.get("egress_drops") {
        let words = [("silent", EgressDrops::Silent), ("told", EgressDrops::Told)];
        let drops = reader.word(node, "egress_drops", &words, "silent or told");
        interface.egress_drops = drops.unwrap_or_default();
    }
    if let Some(node) = fields.get("audit") {
        interface.audit = reader.boolean(node, "audit").unwrap_or_default();
    }
    if let Some(node) = fields.get("timeouts") {
        read_timeouts(reader, node, &mut interface);
    }
    if let Some(node) = fields.get("max_flows") {
        interface.max_flows = reader.number(node, "max_flows", "a number of flows");
    }
    (interface, groups)
}

fn read_match(reader: &mut Reader, node: &Node<'_>) -> DeviceMatch {
    let mut matching = DeviceMatch::default();
    let Some(fields) = reader.fields(node, &schema::MATCH) else {
        return matching;
    };
    if let Some(node) = fields.get("name")
        && let Some(text) = reader.text(node, "name", "a pattern like vnet*")
    {
        matching.name = reader.parsed(node.place, TextPattern::of_name(text));
    }
    if let Some(node) = fields.get("mac")
        && let Some(text) = reader.text(node, "mac", "a MAC address, or the beginning of one")
    {
        matching.mac = reader.parsed(node.place, text.parse());
    }
    if let Some(node) = fields.get("alias")
        && let Some(text) = reader.text(node, "alias", "an alias, or a pattern for aliases")
    {
        matching.alias = reader.parsed(node.place, TextPattern::of_alias(text));
    }
    matching
}

fn read_groups(reader: &mut Reader, node: &Node<'_>) -> Vec<(GroupName, Place)> {
    let mut groups = Vec::new();
    for item in reader.one_or_more(node, "groups", "a list of groups like [web, ssh]") {
        let Some(text) = reader.text(item, "a group", "the name of a group") else {
            continue;
        };
        // Rules need the mark, because their peers may be other things than groups.
        let name = text.strip_prefix("sg:").unwrap_or(text).parse();
        groups.extend(
            reader
                .parsed(item.place, name)
                .map(|name| (name, item.place)),
        );
    }
    groups
}

fn read_macs(reader: &mut Reader, node: &Node<'_>) -> Macs {
    let words = [("any", Macs::Any), ("peer", Macs::Peer)];
    if let Value::Text(text) = &node.value
        && let Some((_, macs)) = words
            .iter()
            .find(|(word, _)| text.eq_ignore_ascii_case(word))
    {
        return macs.clone();
    }
    let wanted = "a list of MAC addresses like [52:54:00:12:34:56], peer or any";
    let mut macs = BTreeSet::new();
    for item in reader.one_or_more(node, "macs", wanted) {
        let Some(text) = reader.text(item, "a MAC address", "one like 52:54:00:12:34:56") else {
            continue;
        };
        let mac = text.parse::<MacAddress>();
        macs.extend(reader.parsed(item.place, mac));
    }
    match macs.is_empty() {
        true => Macs::default(),
        false => Macs::Listed(macs),
    }
}

fn read_ethertypes(reader: &mut Reader, node: &Node<'_>) -> BTreeSet<u16> {
    let wanted = "a list of EtherTypes like [0x8915]";
    let items = reader.one_or_more(node, "ethertypes", wanted);
    let mut ethertypes = BTreeSet::new();
    for item in items {
        ethertypes.extend(reader.number::<u16>(item, "an EtherType", "a number like 0x8915"));
    }
    ethertypes
}

fn read_timeouts(reader: &mut Reader, node: &Node<'_>, interface: &mut Interface) {
    let Some(fields) = reader.fields(node, &schema::TIMEOUTS) else {
        return;
    };
    let timeouts = &mut interface.timeouts;
    for (key, seconds) in [
        ("tcp_established", &mut timeouts.tcp_established_s),
        ("udp", &mut timeouts.udp_s),
        ("udp_stream", &mut timeouts.udp_stream_s),
    ] {
        if let Some(node) = fields.get(key) {
            *seconds = reader.seconds(node, key).unwrap_or(*seconds);
        }
    }
}
