//! Permissions as requests write them, and as answers show them.
//!
//! A request's permission has many peers and stands for as many rules. ICMP types and codes are in the
//! place of ports, and -1 is all of something.

use std::net::IpAddr;

use ipnet::IpNet;

use super::Context;
use super::fault::{Fault, Result};
use super::query::Params;
use super::world::{GroupRef, RuleRef};
use super::xml::Xml;
use crate::policy::change::{Change, Edit};
use crate::policy::model::{IcmpMatch, Peer, Permission, PortRange, Rule, Traffic};
use crate::policy::names::{GroupId, GroupName, PrefixListId, PrefixListName, check_description};
use crate::policy::prefix::parse_prefix;
use crate::store::Annotation;
use sg_common::packet::Direction;

/// One rule as a request asks for it.
#[derive(Clone, Debug)]
pub(super) struct Asked {
    pub(super) traffic: Traffic,
    pub(super) peer: AskedPeer,
    pub(super) description: Option<String>,
}

/// The other side, as requests name it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum AskedPeer {
    Prefix(IpNet),
    PrefixList(PrefixListId),
    Group(GroupId),
}

/// What a permission is asked for; refusals differ.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Purpose {
    Authorize,
    /// Ports beside `-1` mean nothing here either.
    Revoke,
    Modify,
}

/// Takes `IpPermissions`, or the one permission that a request may have instead, and makes rules of it.
pub(super) fn take(
    params: &mut Params,
    context: &Context<'_>,
    purpose: Purpose,
) -> Result<Vec<Asked>> {
    let many = params.has("IpPermissions");
    let permissions = params.each("IpPermissions", |one| {
        let traffic = take_traffic(one, purpose)?;
        let peers = take_peers(one, context)?;
        Ok(peers.into_iter().map(move |(peer, description)| Asked {
            traffic,
            peer,
            description,
        }))
    })?;
    if many {
        refuse_scalars(params)?;
        return Ok(permissions.into_iter().flatten().collect());
    }
    take_scalar(params, context, purpose)
}

const SCALARS: [&str; 6] = [
    "IpProtocol",
    "FromPort",
    "ToPort",
    "CidrIp",
    "CidrIpv6",
    "SourceSecurityGroupName",
];

fn refuse_scalars(params: &mut Params) -> Result<()> {
    if let Some(name) = SCALARS.iter().find(|name| params.has(name)) {
        return Err(Fault::combination(format!(
            "The parameter {name} may not be used in combination with ipPermissions"
        )));
    }
    params.ignore(&["SourceSecurityGroupOwnerId"]);
    params.ignore(&SCALARS);
    Ok(())
}

/// The form of a request with one rule.
fn take_scalar(params: &mut Params, context: &Context<'_>, purpose: Purpose) -> Result<Vec<Asked>> {
    params.text("SourceSecurityGroupOwnerId")?;
    if let Some(name) = params.text("SourceSecurityGroupName")? {
        if let Some(other) = SCALARS[..5].iter().find(|name| params.has(name)) {
            return Err(Fault::combination(format!(
                "The parameter {other} may not be used in combination with SourceSecurityGroupName; \
                 use IpPermissions"
            )));
        }
        params.ignore(&SCALARS);
        let peer = AskedPeer::Group(super::groups::by_name(context, &name)?.id);
        let all = [
            Traffic::Tcp(PortRange::ALL),
            Traffic::Udp(PortRange::ALL),
            Traffic::Icmp(IcmpMatch::Any),
        ];
        return Ok(all
            .map(|traffic| Asked {
                traffic,
                peer: peer.clone(),
                description: None,
            })
            .into());
    }
    if !SCALARS.iter().any(|name| params.has(name)) {
        params.ignore(&SCALARS);
        return Ok(Vec::new());
    }
    let traffic = take_traffic(params, purpose)?;
    let v4 = params.text("CidrIp")?.map(|text| read_cidr(&text, true));
    let v6 = params.text("CidrIpv6")?.map(|text| read_cidr(&text, false));
    let peers: Vec<IpNet> = v4.into_iter().chain(v6).collect::<Result<_>>()?;
    if peers.is_empty() {
        return Err(no_source());
    }
    let asked = peers.into_iter().map(|prefix| Asked {
        traffic,
        peer: AskedPeer::Prefix(prefix),
        description: None,
    });
    Ok(asked.collect())
}

fn no_source() -> Fault {
    Fault::new(
        "MissingParameter",
        "Missing source specification: include source security group or CIDR information",
    )
}

fn take_peers(one: &mut Params, context: &Context<'_>) -> Result<Vec<(AskedPeer, Option<String>)>> {
    let mut peers = one.each("Groups", |pair| {
        let description = take_description(pair)?;
        let id = pair.text("GroupId")?;
        let name = pair.text("GroupName")?;
        pair.text("UserId")?;
        pair.ignore(&["VpcId", "VpcPeeringConnectionId", "PeeringStatus"]);
        let group = match (id, name) {
            (Some(id), _) => {
                // Another account's group may be written ACCOUNT/GROUP.
                let own = id.rsplit('/').next().unwrap_or_default();
                match super::groups::read_id(own)? {
                    Some(id) => id,
                    None => return Err(super::groups::not_found(own)),
                }
            }
            (None, Some(name)) => super::groups::by_name(context, &name)?.id,
            (None, None) => return Err(no_source()),
        };
        Ok((AskedPeer::Group(group), description))
    })?;
    peers.extend(one.each("IpRanges", |range| {
        let description = take_description(range)?;
        let cidr = range.text("CidrIp")?.ok_or_else(no_source)?;
        Ok((AskedPeer::Prefix(read_cidr(&cidr, true)?), description))
    })?);
    peers.extend(one.each("Ipv6Ranges", |range| {
        let description = take_description(range)?;
        let cidr = range.text("CidrIpv6")?.ok_or_else(no_source)?;
        Ok((AskedPeer::Prefix(read_cidr(&cidr, false)?), description))
    })?);
    peers.extend(one.each("PrefixListIds", |list| {
        let description = take_description(list)?;
        let id = list.text("PrefixListId")?.ok_or_else(no_source)?;
        Ok((
            AskedPeer::PrefixList(super::prefix_lists::read_id(&id)?),
            description,
        ))
    })?);
    match peers.is_empty() {
        true => Err(no_source()),
        false => Ok(peers),
    }
}

/// A rule's description, if the request has one.
pub(super) fn take_description(params: &mut Params) -> Result<Option<String>> {
    let description = params.text("Description")?;
    if let Some(text) = &description {
        check_rule_description(text)?;
    }
    Ok(description)
}

pub(super) fn check_rule_description(text: &str) -> Result<()> {
    check_description(text).map_err(|_| {
        Fault::value(
            "Invalid rule description. Valid descriptions are strings less than 256 characters from \
             the following set: a-zA-Z0-9. _-:/()#,@[]+=&;{}!$*",
        )
    })
}

/// Reads a block of addresses; bits behind its length are cleared.
fn read_cidr(text: &str, v4: bool) -> Result<IpNet> {
    let malformed = || Fault::value(format!("CIDR block {text} is malformed"));
    if !text.contains('/') {
        return Err(malformed());
    }
    match parse_prefix(text) {
        Ok(prefix) if prefix.addr().is_ipv4() == v4 => Ok(prefix),
        _ => Err(malformed()),
    }
}

/// Takes protocol and ports.
fn take_traffic(params: &mut Params, purpose: Purpose) -> Result<Traffic> {
    let protocol = params.text("IpProtocol")?;
    let from = params.number("FromPort")?;
    let to = params.number("ToPort")?;
    read_traffic(protocol.as_deref(), from, to, purpose)
}

fn read_traffic(
    protocol: Option<&str>,
    from: Option<i64>,
    to: Option<i64>,
    purpose: Purpose,
) -> Result<Traffic> {
    let Some(protocol) = protocol else {
        return Err(Fault::value(
            "Invalid value 'null' for protocol. VPC security group rules must specify protocols \
             explicitly.",
        ));
    };
    let unknown = || {
        Fault::value(format!(
            "Invalid value '{protocol}' for IP protocol. Unknown protocol."
        ))
    };
    match protocol.to_ascii_lowercase().as_str() {
        "-1" => {
            let is_specific = [from, to].into_iter().flatten().any(|port| port > 0);
            if purpose == Purpose::Modify && is_specific {
                return Err(Fault::value(
                    "You may not specify all protocols and specific ports. Please specify each \
                     protocol and port range combination individually, or all protocols and no port \
                     range.",
                ));
            }
            Ok(Traffic::All)
        }
        "tcp" | "6" => Ok(Traffic::Tcp(read_ports(from, to, purpose)?)),
        "udp" | "17" => Ok(Traffic::Udp(read_ports(from, to, purpose)?)),
        "icmp" | "1" => match (from, to) {
            (Some(kind), Some(code)) => Ok(Traffic::Icmp(read_icmp(kind, code)?)),
            _ => Err(no_ports(purpose, "ICMP")),
        },
        "icmpv6" | "58" => {
            let (kind, code) = (from.unwrap_or(-1), to.unwrap_or(-1));
            Ok(Traffic::Icmpv6(read_icmp(kind, code)?))
        }
        number => {
            let plain = number.bytes().all(|byte| byte.is_ascii_digit());
            let number = number.parse().ok().filter(|_| plain);
            number.map(Traffic::Protocol).ok_or_else(unknown)
        }
    }
}

fn no_ports(purpose: Purpose, protocol: &str) -> Fault {
    let why = format!("Must specify both from and to ports with {protocol}.");
    Fault::value(match purpose {
        Purpose::Modify => format!("Invalid value for portRange. {why}"),
        _ => format!("Invalid value '{why}' for portRange."),
    })
}

fn read_ports(from: Option<i64>, to: Option<i64>, purpose: Purpose) -> Result<PortRange> {
    let (Some(from), Some(to)) = (from, to) else {
        return Err(no_ports(purpose, "TCP/UDP"));
    };
    let port = |port: i64| {
        let out = || {
            Fault::value(format!(
                "TCP/UDP port ({port}) out of range; use 0 to 65535"
            ))
        };
        u16::try_from(port).map_err(|_| out())
    };
    let (first, last) = (port(from)?, port(to)?);
    let reversed = || Fault::value(format!("Invalid TCP/UDP port range ({from}:{to})"));
    PortRange::new(first, last).ok_or_else(reversed)
}

fn read_icmp(kind: i64, code: i64) -> Result<IcmpMatch> {
    let part = |what: &str, value: i64| {
        let out = || Fault::value(format!("ICMP {what} ({value}) out of range; use -1 to 255"));
        match value {
            -1 => Ok(None),
            value => u8::try_from(value).map(Some).map_err(|_| out()),
        }
    };
    match (part("type", kind)?, part("code", code)?) {
        (None, None) => Ok(IcmpMatch::Any),
        (Some(kind), None) => Ok(IcmpMatch::Type(kind)),
        (Some(kind), Some(code)) => Ok(IcmpMatch::TypeCode(kind, code)),
        (None, Some(_)) => Err(Fault::value(format!(
            "ICMP code ({code}) is given for all types; with type -1 the code must be -1"
        ))),
    }
}

/// The flat form of a rule, for changing one.
pub(super) fn take_flat(params: &mut Params) -> Result<Asked> {
    let description = take_description(params)?;
    let v4 = params.text("CidrIpv4")?;
    let v6 = params.text("CidrIpv6")?;
    let list = params.text("PrefixListId")?;
    let group = params.text("ReferencedGroupId")?;
    let traffic = take_traffic(params, Purpose::Modify)?;
    let canonical = |text: String, v4: bool| {
        let prefix = read_cidr(&text, v4)?;
        let given = text.parse::<IpNet>().ok();
        match given == Some(prefix) {
            true => Ok(AskedPeer::Prefix(prefix)),
            false => Err(Fault::value(format!(
                "CIDR block {text} is not canonical; write {prefix}"
            ))),
        }
    };
    let peer = match (v4, v6, list, group) {
        (Some(text), None, None, None) => canonical(text, true)?,
        (None, Some(text), None, None) => canonical(text, false)?,
        (None, None, Some(id), None) => AskedPeer::PrefixList(super::prefix_lists::read_id(&id)?),
        (None, None, None, Some(id)) => match super::groups::read_id(&id)? {
            Some(id) => AskedPeer::Group(id),
            None => return Err(super::groups::not_found(&id)),
        },
        (None, None, None, None) => {
            return Err(Fault::new(
                "MissingParameter",
                "The request must contain exactly one of: cidrIp, cidrIpv6, prefixListId, or \
                 referencedGroupId",
            ));
        }
        _ => {
            return Err(Fault::combination(
                "Only one of cidrIp, cidrIpv6, prefixListId, or referencedGroupId can be specified",
            ));
        }
    };
    Ok(Asked {
        traffic,
        peer,
        description,
    })
}

/// What making rules takes besides the rules: prefix lists that come into a VPC.
#[derive(Debug, Default)]
pub(super) struct Brought {
    pub(super) changes: Vec<Change>,
    pub(super) annotations: Vec<Annotation>,
    lists: Vec<(PrefixListId, PrefixListName)>,
}

impl Brought {
    /// The id of a list that comes under a name.
    pub(super) fn id(&self, name: &PrefixListName) -> Option<PrefixListId> {
        let mut lists = self.lists.iter();
        let found = lists.find(|(_, brought)| brought == name);
        found.map(|(id, _)| *id)
    }
}

/// What a rule of a group would allow. A prefix list that the group's VPC does not have is brought in.
pub(super) fn resolve(
    context: &Context<'_>,
    group: GroupRef<'_>,
    direction: Direction,
    asked: &Asked,
    brought: &mut Brought,
) -> Result<Permission> {
    let peer = match &asked.peer {
        AskedPeer::Prefix(prefix) => Peer::Prefix(*prefix),
        AskedPeer::Group(id) => Peer::Group(resolve_group(context, group, *id)?),
        AskedPeer::PrefixList(id) => Peer::PrefixList(bring(context, group, *id, brought)?),
    };
    Ok(Permission {
        direction,
        traffic: asked.traffic,
        peer,
    })
}

fn resolve_group(context: &Context<'_>, group: GroupRef<'_>, id: GroupId) -> Result<GroupName> {
    let peer = context
        .world
        .group(id)
        .ok_or_else(|| super::groups::not_found(&id.to_string()))?;
    match peer.vpc.id == group.vpc.id {
        true => Ok(peer.name.clone()),
        false => Err(Fault::new(
            "InvalidGroup.NotFound",
            "You have specified two resources that belong to different networks.",
        )),
    }
}

fn bring(
    context: &Context<'_>,
    group: GroupRef<'_>,
    id: PrefixListId,
    brought: &mut Brought,
) -> Result<PrefixListName> {
    let places = context.world.prefix_list_places(id);
    let mut here = places.iter().filter(|(vpc, _)| vpc == group.vpc.name);
    if let Some((_, name)) = here.next() {
        return Ok(name.clone());
    }
    let mut brought_here = brought.lists.iter();
    if let Some((_, name)) = brought_here.find(|(other, _)| *other == id) {
        return Ok(name.clone());
    }
    let (name, prefixes) = super::prefix_lists::copy(context, group.vpc.vpc, id)?;
    brought.changes.push(Change {
        vpc: group.vpc.name.clone(),
        edit: Edit::PutPrefixList(name.clone(), prefixes),
    });
    brought.annotations.push(Annotation::IdentifyPrefixList(
        group.vpc.name.clone(),
        name.clone(),
        id,
    ));
    brought.lists.push((id, name.clone()));
    Ok(name)
}

/// As `read_traffic` takes it: protocol, and ports or type and code.
pub(super) fn spell(traffic: Traffic) -> (String, Option<(i32, i32)>) {
    let icmp = |found: IcmpMatch| match found {
        IcmpMatch::Any => (-1, -1),
        IcmpMatch::Type(kind) => (i32::from(kind), -1),
        IcmpMatch::TypeCode(kind, code) => (kind.into(), code.into()),
    };
    let ports = |range: PortRange| (i32::from(range.first()), i32::from(range.last()));
    match traffic {
        Traffic::All => ("-1".to_owned(), None),
        Traffic::Tcp(range) => ("tcp".to_owned(), Some(ports(range))),
        Traffic::Udp(range) => ("udp".to_owned(), Some(ports(range))),
        Traffic::Icmp(found) => ("icmp".to_owned(), Some(icmp(found))),
        Traffic::Icmpv6(found) => ("icmpv6".to_owned(), Some(icmp(found))),
        Traffic::Protocol(number) => (number.to_string(), None),
    }
}

/// A rule as refusals of a second one spell it.
pub(super) fn describe(
    context: &Context<'_>,
    group: GroupRef<'_>,
    permission: &Permission,
) -> String {
    let peer = peer_text(context, group, &permission.peer);
    let (protocol, ports) = spell(permission.traffic);
    let protocol = match permission.traffic {
        Traffic::All => "ALL".to_owned(),
        _ => protocol.to_ascii_uppercase(),
    };
    match (permission.traffic, ports) {
        (Traffic::Icmp(_) | Traffic::Icmpv6(_), Some((kind, code))) => {
            format!("peer: {peer}, {protocol}, type: {kind}, code: {code}, ALLOW")
        }
        (_, Some((from, to))) => {
            format!("peer: {peer}, {protocol}, from port: {from}, to port: {to}, ALLOW")
        }
        _ => format!("peer: {peer}, {protocol}, ALLOW"),
    }
}

fn peer_text(context: &Context<'_>, group: GroupRef<'_>, peer: &Peer) -> String {
    match peer {
        Peer::Prefix(prefix) => prefix.to_string(),
        Peer::Group(name) => match group.vpc.group(name) {
            Some(peer) => peer.id.to_string(),
            None => name.to_string(),
        },
        Peer::PrefixList(name) => match context.world.prefix_list_id(group.vpc.name, name) {
            Some(id) => id.to_string(),
            None => name.to_string(),
        },
    }
}

/// The rules of one direction as a group shows them: those of the same protocol and ports together.
pub(super) fn write_grouped(
    xml: &mut Xml,
    element: &str,
    context: &Context<'_>,
    group: GroupRef<'_>,
    direction: Direction,
) {
    let mut rules: Vec<&Rule> = group
        .group
        .rules
        .iter()
        .filter(|rule| rule.permission.direction == direction)
        .collect();
    // By traffic already, for the most part.
    rules.sort_by_key(|rule| rule.permission.traffic);
    let together = rules.chunk_by(|a, b| a.permission.traffic == b.permission.traffic);
    xml.set(element, together, |xml, rules| {
        write_together(xml, context, group, rules);
    });
}

fn write_together(xml: &mut Xml, context: &Context<'_>, group: GroupRef<'_>, rules: &[&Rule]) {
    let Some(first) = rules.first() else { return };
    let (protocol, ports) = spell(first.permission.traffic);
    xml.text("ipProtocol", protocol);
    xml.text_if("fromPort", ports.map(|(from, _)| from));
    xml.text_if("toPort", ports.map(|(_, to)| to));
    let described = |rule: &Rule| Some(rule.description.clone()).filter(|text| !text.is_empty());
    let of = |wanted: fn(&Peer) -> bool| {
        let rules = rules.iter().copied();
        rules.filter(move |rule| wanted(&rule.permission.peer))
    };
    let text = |rule: &Rule| peer_text(context, group, &rule.permission.peer);
    xml.set(
        "groups",
        of(|peer| matches!(peer, Peer::Group(_))),
        |xml, rule| {
            xml.text_if("description", described(rule));
            xml.text("groupId", text(rule));
            xml.text("userId", context.account);
        },
    );
    let v4 = of(|peer| matches!(peer, Peer::Prefix(IpNet::V4(_))));
    xml.set("ipRanges", v4, |xml, rule| {
        xml.text("cidrIp", text(rule));
        xml.text_if("description", described(rule));
    });
    let v6 = of(|peer| matches!(peer, Peer::Prefix(IpNet::V6(_))));
    xml.set("ipv6Ranges", v6, |xml, rule| {
        xml.text("cidrIpv6", text(rule));
        xml.text_if("description", described(rule));
    });
    let lists = of(|peer| matches!(peer, Peer::PrefixList(_)));
    xml.set("prefixListIds", lists, |xml, rule| {
        xml.text_if("description", described(rule));
        xml.text("prefixListId", text(rule));
    });
}

/// A rule's fields that all flat answers have.
fn write_traffic(xml: &mut Xml, traffic: Traffic) {
    let (protocol, ports) = spell(traffic);
    let (from, to) = ports.unwrap_or((-1, -1));
    xml.text("ipProtocol", protocol);
    xml.text("fromPort", from);
    xml.text("toPort", to);
}

/// A rule as an object of its own.
pub(super) fn write_rule(
    xml: &mut Xml,
    context: &Context<'_>,
    RuleRef { rule, group }: RuleRef<'_>,
    brought: &Brought,
    tags: Option<&crate::store::Notes>,
) {
    let Permission {
        direction,
        traffic,
        peer,
    } = &rule.permission;
    xml.text("securityGroupRuleId", rule.id);
    xml.text("groupId", group.id);
    xml.text("groupOwnerId", context.account);
    xml.text("isEgress", *direction == Direction::Egress);
    write_traffic(xml, *traffic);
    match peer {
        Peer::Prefix(prefix) => write_prefix(xml, *prefix),
        Peer::PrefixList(name) => {
            let id = match brought.id(name) {
                Some(id) => id.to_string(),
                None => peer_text(context, group, peer),
            };
            xml.text("prefixListId", id);
        }
        Peer::Group(_) => xml.element("referencedGroupInfo", |xml| {
            xml.text("groupId", peer_text(context, group, peer));
            xml.text("userId", context.account);
        }),
    }
    if !rule.description.is_empty() {
        xml.text("description", &rule.description);
    }
    xml.tags(tags);
    xml.text(
        "securityGroupRuleArn",
        context.arn("security-group-rule", rule.id),
    );
}

/// A rule that is gone.
pub(super) fn write_revoked(
    xml: &mut Xml,
    context: &Context<'_>,
    RuleRef { rule, group }: RuleRef<'_>,
) {
    let Permission {
        direction,
        traffic,
        peer,
    } = &rule.permission;
    xml.text("securityGroupRuleId", rule.id);
    xml.text("groupId", group.id);
    xml.text("isEgress", *direction == Direction::Egress);
    write_traffic(xml, *traffic);
    match peer {
        Peer::Prefix(prefix) => write_prefix(xml, *prefix),
        Peer::PrefixList(_) => xml.text("prefixListId", peer_text(context, group, peer)),
        Peer::Group(_) => xml.text("referencedGroupId", peer_text(context, group, peer)),
    }
    if !rule.description.is_empty() {
        xml.text("description", &rule.description);
    }
}

/// A permission as it was asked for, and found nowhere.
pub(super) fn write_asked(xml: &mut Xml, context: &Context<'_>, asked: &Asked) {
    let (protocol, ports) = spell(asked.traffic);
    xml.text("ipProtocol", protocol);
    xml.text_if("fromPort", ports.map(|(from, _)| from));
    xml.text_if("toPort", ports.map(|(_, to)| to));
    let prefix = |v4: bool| match &asked.peer {
        AskedPeer::Prefix(prefix) if prefix.addr().is_ipv4() == v4 => Some(prefix),
        _ => None,
    };
    let group = match asked.peer {
        AskedPeer::Group(id) => Some(id),
        _ => None,
    };
    let list = match asked.peer {
        AskedPeer::PrefixList(id) => Some(id),
        _ => None,
    };
    xml.set("groups", group, |xml, id| {
        xml.text("groupId", id);
        xml.text("userId", context.account);
    });
    xml.set("ipRanges", prefix(true), |xml, prefix| {
        xml.text("cidrIp", prefix)
    });
    xml.set("ipv6Ranges", prefix(false), |xml, prefix| {
        xml.text("cidrIpv6", prefix)
    });
    xml.set("prefixListIds", list, |xml, id| {
        xml.text("prefixListId", id)
    });
}

fn write_prefix(xml: &mut Xml, prefix: IpNet) {
    match prefix.addr() {
        IpAddr::V4(_) => xml.text("cidrIpv4", prefix),
        IpAddr::V6(_) => xml.text("cidrIpv6", prefix),
    }
}

/// What a filter of rules finds in a rule.
pub(super) fn values(
    context: &Context<'_>,
    group: GroupRef<'_>,
    rule: &Rule,
    name: &str,
) -> Option<String> {
    let peer = &rule.permission.peer;
    let (protocol, ports) = spell(rule.permission.traffic);
    let text = || peer_text(context, group, peer);
    match name {
        "protocol" => Some(protocol),
        "from-port" => Some(ports.map_or(-1, |(from, _)| from).to_string()),
        "to-port" => Some(ports.map_or(-1, |(_, to)| to).to_string()),
        "cidr" => matches!(peer, Peer::Prefix(IpNet::V4(_))).then(text),
        "ipv6-cidr" => matches!(peer, Peer::Prefix(IpNet::V6(_))).then(text),
        "group-id" => matches!(peer, Peer::Group(_)).then(text),
        "prefix-list-id" => matches!(peer, Peer::PrefixList(_)).then(text),
        "user-id" => matches!(peer, Peer::Group(_)).then(|| context.account.to_owned()),
        // Rules name groups by their ids, so that no rule has a group's name.
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn traffic(protocol: &str, from: i64, to: i64) -> Result<Traffic> {
        read_traffic(Some(protocol), Some(from), Some(to), Purpose::Authorize)
    }

    #[test]
    fn protocols_are_read_as_the_cloud_reads_them() {
        let ports = PortRange::new(22, 25).unwrap();
        assert_eq!(traffic("TCP", 22, 25), Ok(Traffic::Tcp(ports)));
        assert_eq!(traffic("17", 22, 25), Ok(Traffic::Udp(ports)));
        assert_eq!(traffic("-1", 22, 25), Ok(Traffic::All));
        assert_eq!(traffic("47", 1, 2), Ok(Traffic::Protocol(47)));
        assert_eq!(
            traffic("icmp", 8, -1),
            Ok(Traffic::Icmp(IcmpMatch::Type(8)))
        );
        let none = read_traffic(Some("58"), None, None, Purpose::Authorize);
        assert_eq!(none, Ok(Traffic::Icmpv6(IcmpMatch::Any)));
        for (protocol, from, to, wanted) in [
            (
                "all",
                0,
                0,
                "Invalid value 'all' for IP protocol. Unknown protocol.",
            ),
            (
                "256",
                0,
                0,
                "Invalid value '256' for IP protocol. Unknown protocol.",
            ),
            (
                "+1",
                0,
                0,
                "Invalid value '+1' for IP protocol. Unknown protocol.",
            ),
            (
                "tcp",
                -1,
                -1,
                "TCP/UDP port (-1) out of range; use 0 to 65535",
            ),
            ("udp", 2, 1, "Invalid TCP/UDP port range (2:1)"),
            (
                "icmp",
                0,
                65535,
                "ICMP code (65535) out of range; use -1 to 255",
            ),
        ] {
            let fault = traffic(protocol, from, to).unwrap_err();
            assert_eq!(
                (fault.code, fault.message.as_str()),
                ("InvalidParameterValue", wanted)
            );
        }
        assert!(traffic("icmp", -1, 3).is_err());
    }

    #[test]
    fn ports_that_are_missing_are_told_as_the_cloud_tells_them() {
        let told = |protocol, purpose| {
            let fault = read_traffic(Some(protocol), Some(1), None, purpose).unwrap_err();
            fault.message
        };
        let wanted =
            "Invalid value 'Must specify both from and to ports with TCP/UDP.' for portRange.";
        assert_eq!(told("tcp", Purpose::Authorize), wanted);
        let wanted =
            "Invalid value 'Must specify both from and to ports with ICMP.' for portRange.";
        assert_eq!(told("icmp", Purpose::Authorize), wanted);
        let wanted =
            "Invalid value for portRange. Must specify both from and to ports with TCP/UDP.";
        assert_eq!(told("udp", Purpose::Modify), wanted);
    }

    #[test]
    fn blocks_are_masked_and_malformed_ones_refused() {
        assert_eq!(
            read_cidr("100.68.0.18/18", true).unwrap().to_string(),
            "100.68.0.0/18"
        );
        assert_eq!(
            read_cidr("2001:DB8:0::1/32", false).unwrap().to_string(),
            "2001:db8::/32"
        );
        for (text, v4) in [
            ("10.0.0.0", true),
            ("10.0.0.0/33", true),
            ("::/0", true),
            ("1/1", false),
        ] {
            let wanted = format!("CIDR block {text} is malformed");
            assert_eq!(read_cidr(text, v4).unwrap_err().message, wanted);
        }
    }
}
