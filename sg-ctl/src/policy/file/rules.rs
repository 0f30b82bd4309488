//! Reads the rules of a group: one item fans out into a rule for each port range and peer.

use sg_common::packet::Direction;

use super::super::fan_out;
use super::super::findings::Place;
use super::super::model::{IcmpMatch, Peer, Permission, Rule, Traffic};
use super::super::names::{GroupName, RuleId};
use super::super::rule_text::{Ports, Protocol, parse_icmp, parse_peer, parse_ports};
use super::super::services::service;
use super::problem::TextProblem;
use super::read::{Fields, Reader};
use super::schema;
use super::tree::{Node, Value};

const WANTED_RULES: &str = "a list of rules, or [] for none";
const WANTED_PEERS: &str = "peers like [10.0.0.0/8, \"2001:db8::/32\", sg:web, pl:office]";
const WANTED_PORTS: &str = "ports like 22, 8000-8080, https or [80, 443]";

/// Reads the list under `ingress` or `egress`.
pub(super) fn read_rules(
    reader: &mut Reader,
    group: &GroupName,
    direction: Direction,
    node: &Node<'_>,
    lists: Lists,
) -> Vec<(Rule, RulePlace)> {
    let what = spelt(direction);
    let items = reader.list(node, what, WANTED_RULES);
    let mut rules = Vec::with_capacity(items.len());
    for item in items {
        if let Some(fields) = reader.fields(item, &schema::RULE) {
            read_rule(reader, group, direction, (item, &fields, lists), &mut rules);
        }
    }
    rules
}

/// Takes rules out that say what another says, and leaves a finding for each.
pub(super) fn refuse_twice(
    reader: &mut Reader,
    mut rules: Vec<(Rule, RulePlace)>,
) -> Vec<(Rule, RulePlace)> {
    rules.sort_by(|(a, a_place), (b, b_place)| {
        (&a.permission, a_place).cmp(&(&b.permission, b_place))
    });
    rules.dedup_by(|(rule, place), (kept, first)| {
        let twice = rule.permission == kept.permission;
        if twice {
            // In one list of peers it is the ports that repeat.
            let (first, place) = match place.peer == first.peer {
                true => (first.traffic, place.traffic),
                false => (first.peer, place.peer),
            };
            let permission = rule.permission.to_string();
            reader.fault(place, TextProblem::RuleTwice { permission, first });
        }
        twice
    });
    rules
}

/// Whether lists of ports and peers are multiplied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Lists {
    /// Each port with each peer.
    Multiplied,
    /// The file's lists stand for too many rules, which is a finding already.
    TooLong,
}

impl Lists {
    /// Counts what the lists of a file's groups stand for before any of them is multiplied.
    pub(super) fn measure<'n, 't: 'n>(
        reader: &mut Reader,
        groups: impl Iterator<Item = &'n Node<'t>>,
    ) -> Self {
        let mut rules = 0_usize;
        for item in groups.flat_map(items) {
            rules = rules.saturating_add(fan_out::product(ports_in(item), peers_in(item)));
            if rules > fan_out::MOST {
                let most = fan_out::MOST;
                reader.fault(item.place, TextProblem::FanOut { rules, most });
                return Self::TooLong;
            }
        }
        Self::Multiplied
    }
}

/// The items under `ingress` and `egress` of a group, whatever else is wrong with it.
fn items<'n, 't>(group: &'n Node<'t>) -> impl Iterator<Item = &'n Node<'t>> {
    let directions = ["ingress", "inbound", "egress", "outbound"].into_iter();
    directions
        .flat_map(|direction| values(group, direction))
        .flat_map(elements)
}

/// The values of a key; a key that is there twice is a finding, elsewhere.
fn values<'n, 't>(node: &'n Node<'t>, key: &str) -> impl Iterator<Item = &'n Node<'t>> {
    let entries = match &node.value {
        Value::Map(entries) => entries.as_slice(),
        _ => &[],
    };
    entries.iter().filter_map(move |(name, value)| {
        matches!(&name.value, Value::Text(text) if text == key).then_some(value)
    })
}

fn elements<'n, 't>(node: &'n Node<'t>) -> &'n [Node<'t>] {
    match &node.value {
        Value::List(items) => items,
        _ => std::slice::from_ref(node),
    }
}

fn ports_in(item: &Node<'_>) -> usize {
    let has_ports = values(item, "protocol").any(|node| {
        let protocol = match &node.value {
            Value::Text(text) => text.parse::<Protocol>().ok(),
            _ => None,
        };
        matches!(protocol, Some(Protocol::Tcp | Protocol::Udp))
    });
    let ranges = |node: &Node<'_>| match &node.value {
        Value::Text(text) => text.split(',').count(),
        _ => 0,
    };
    match has_ports {
        true => values(item, "ports").flat_map(elements).map(ranges).sum(),
        false => 1,
    }
}

fn peers_in(item: &Node<'_>) -> usize {
    let peers = ["from", "to"].into_iter();
    peers
        .flat_map(|key| values(item, key))
        .map(|node| elements(node).len())
        .sum()
}

/// Where a rule comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct RulePlace {
    pub(super) peer: Place,
    traffic: Place,
}

const fn spelt(direction: Direction) -> &'static str {
    match direction {
        Direction::Ingress => "ingress",
        Direction::Egress => "egress",
    }
}

fn read_rule(
    reader: &mut Reader,
    group: &GroupName,
    direction: Direction,
    (item, fields, lists): (&Node<'_>, &Fields<'_, '_>, Lists),
    rules: &mut Vec<(Rule, RulePlace)>,
) {
    let traffic = read_traffic(reader, item, fields);
    let peers = read_peers(reader, group, direction, (item, fields));
    let description = match fields.get("description") {
        None => Some(String::new()),
        given => reader.description(given),
    };
    let (Some(traffic), Some(peers), Some(description)) = (traffic, peers, description) else {
        return;
    };
    if lists == Lists::TooLong && fan_out::product(traffic.len(), peers.len()) > 0 {
        return;
    }
    let of_service = fields.get("service").is_some();
    for (traffic, of_traffic) in traffic {
        for (peer, of_peer) in &peers {
            // A service of both families has nothing to say about the other family's prefixes.
            if of_service && is_inert(traffic, peer) {
                continue;
            }
            let permission = Permission {
                direction,
                traffic,
                peer: peer.clone(),
            };
            let rule = Rule {
                id: RuleId::random(),
                permission,
                description: description.clone(),
            };
            rules.push((
                rule,
                RulePlace {
                    peer: *of_peer,
                    traffic: of_traffic,
                },
            ));
        }
    }
}

fn is_inert(traffic: Traffic, peer: &Peer) -> bool {
    match (traffic, peer) {
        (Traffic::Icmp(_), Peer::Prefix(prefix)) => prefix.network().is_ipv6(),
        (Traffic::Icmpv6(_), Peer::Prefix(prefix)) => prefix.network().is_ipv4(),
        _ => false,
    }
}

fn read_traffic(
    reader: &mut Reader,
    item: &Node<'_>,
    fields: &Fields<'_, '_>,
) -> Option<Vec<(Traffic, Place)>> {
    if let Some(node) = fields.get("service") {
        for part in ["protocol", "ports", "type", "code"] {
            if let Some(place) = fields.place(part) {
                reader.fault(place, TextProblem::ServiceAndPart(part));
            }
        }
        let name = reader.text(node, "service", "a name like ssh")?;
        let service = reader.parsed(node.place, service(name).map_err(TextProblem::from))?;
        return Some(
            service
                .traffic
                .iter()
                .map(|traffic| (*traffic, node.place))
                .collect(),
        );
    }
    // Everything is read before anything is missed, so that one pass shows all findings.
    let ports = fields.get("ports").map(|node| read_ports(reader, node));
    let icmp = read_icmp(reader, fields);
    let Some(node) = fields.get("protocol") else {
        let wanted = "protocol: tcp, udp, icmp, icmpv6, all or a number, or a service";
        let missing = TextProblem::MissingKey {
            holder: "a rule",
            key: "protocol",
            wanted,
        };
        reader.fault(item.place, missing);
        return None;
    };
    let text = reader.text(node, "protocol", "tcp, udp, icmp, icmpv6, all or a number")?;
    let protocol = reader.parsed(
        node.place,
        text.parse::<Protocol>().map_err(TextProblem::from),
    )?;
    let (ports, icmp) = (ports.map_or(Some(None), |ports| ports.map(Some))?, icmp?);
    let mut places = Vec::new();
    let mut ranges = ports.as_ref().map(|_| Vec::new());
    for (ports, place) in ports.into_iter().flatten() {
        let found = ports.ranges(protocol).map_err(TextProblem::from);
        let found = reader.parsed(place, found)?;
        places.extend(std::iter::repeat_n(place, found.len()));
        ranges.get_or_insert_default().extend(found);
    }
    let traffic = protocol
        .traffic(ranges.as_deref(), icmp)
        .map_err(TextProblem::from);
    let blamed = ["type", "code", "ports"]
        .into_iter()
        .find_map(|key| fields.place(key));
    let traffic = reader.parsed(blamed.unwrap_or(node.place), traffic)?;
    let places = places.into_iter().chain(std::iter::repeat(item.place));
    Some(traffic.into_iter().zip(places).collect())
}

/// `None` when there was a finding.
fn read_ports(reader: &mut Reader, node: &Node<'_>) -> Option<Vec<(Ports, Place)>> {
    let mut ports = Vec::new();
    let before = reader.findings.count();
    let items = reader.one_or_more(node, "ports", WANTED_PORTS);
    if items.is_empty() && before == reader.findings.count() {
        let (what, found) = ("ports".to_owned(), "an empty list, which opens nothing");
        reader.fault(
            node.place,
            TextProblem::Kind {
                what,
                found,
                wanted: WANTED_PORTS,
            },
        );
    }
    for item in items {
        let Some(text) = reader.text(item, "a port", "a port like 22, 8000-8080 or https") else {
            continue;
        };
        let read = reader.parsed(item.place, parse_ports(text).map_err(TextProblem::from));
        let read = read.into_iter().flatten();
        ports.extend(read.map(|ports| (ports, item.place)));
    }
    (before == reader.findings.count()).then_some(ports)
}

/// `None` when there was a finding, `Some(None)` when nothing is said.
fn read_icmp(reader: &mut Reader, fields: &Fields<'_, '_>) -> Option<Option<IcmpMatch>> {
    let mut part = |key: &'static str| match fields.get(key) {
        None => Some(None),
        Some(node) => reader.text(node, key, "0 to 255, or -1 for any").map(Some),
    };
    let (kind, code) = (part("type"), part("code"));
    let (kind, code) = (kind?, code?);
    let Some(place) = fields.place("code").or_else(|| fields.place("type")) else {
        return Some(None);
    };
    reader
        .parsed(place, parse_icmp(kind, code).map_err(TextProblem::from))
        .map(Some)
}

/// `None` when there was a finding.
fn read_peers(
    reader: &mut Reader,
    group: &GroupName,
    direction: Direction,
    (item, fields): (&Node<'_>, &Fields<'_, '_>),
) -> Option<Vec<(Peer, Place)>> {
    let (key, wrong_key, wanted) = match direction {
        Direction::Ingress => ("from", "to", "from: [10.0.0.0/8]"),
        Direction::Egress => ("to", "from", "to: [10.0.0.0/8]"),
    };
    let before = reader.findings.count();
    if let Some(place) = fields.place(wrong_key) {
        let direction = spelt(direction);
        reader.fault(
            place,
            TextProblem::PeerKey {
                direction,
                given: wrong_key,
                wanted: key,
            },
        );
    }
    let Some(node) = fields.get(key) else {
        if before == reader.findings.count() {
            reader.fault(
                item.place,
                TextProblem::MissingKey {
                    holder: "a rule",
                    key,
                    wanted,
                },
            );
        }
        return None;
    };
    let mut peers = Vec::new();
    let items = reader.one_or_more(node, key, WANTED_PEERS);
    if items.is_empty() && before == reader.findings.count() {
        let (what, found) = (key.to_owned(), "an empty list, which opens nothing");
        reader.fault(
            node.place,
            TextProblem::Kind {
                what,
                found,
                wanted: WANTED_PEERS,
            },
        );
    }
    for item in items {
        let Some(text) = reader.text(item, "a peer", WANTED_PEERS) else {
            continue;
        };
        let peer = parse_peer(text, Some(group)).map_err(TextProblem::from);
        let Some(peer) = reader.parsed(item.place, peer) else {
            continue;
        };
        peers.push((peer, item.place));
    }
    (before == reader.findings.count()).then_some(peers)
}
