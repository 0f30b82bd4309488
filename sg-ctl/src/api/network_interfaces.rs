//! Network interfaces: entries of the policy, as the cloud's clients see them.
//!
//! One that a client makes is an entry that waits for its device: the one with the link-layer address
//! that the answer tells, or with the name, address or alias that the tags `sg:name`, `sg:mac` and
//! `sg:alias` say, in the network namespace that `sg:netns` says. With the tag `sg:side` of `guest` it
//! stands for the guest behind its device.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr};

use serde::{Deserialize, Serialize};

use super::Context;
use super::account;
use super::fault::{Fault, Result};
use super::filters::Filters;
use super::front::Draft;
use super::groups;
use super::paging::{Page, Paging};
use super::query::Params;
use super::subnets::{self, Subnet};
use super::tags;
use super::tokens::Token;
use super::world::{GroupRef, InterfaceRef, Named, VpcRef};
use super::xml::Xml;
use crate::policy::change::{Change, Edit};
use crate::policy::mac::MacAddress;
use crate::policy::matching::DeviceMatch;
use crate::policy::model::{Interface, Side, Timeouts};
use crate::policy::names::{GroupName, InterfaceId, InterfaceName};
use crate::store::{Annotation, Notes};

const FILTERS: &[&str] = &[
    "addresses.private-ip-address",
    "attachment.attachment-id",
    "attachment.delete-on-termination",
    "attachment.device-index",
    "attachment.instance-id",
    "attachment.instance-owner-id",
    "attachment.status",
    "availability-zone",
    "description",
    "group-id",
    "group-name",
    "interface-type",
    "ipv6-addresses.ipv6-address",
    "mac-address",
    "network-interface-id",
    "owner-id",
    "private-ip-address",
    "requester-id",
    "requester-managed",
    "source-dest-check",
    "status",
    "subnet-id",
    "vpc-id",
];

const NOTE: &str = "interface";

/// Tags that say which device an interface is for, and which side of it.
const NAME_TAG: &str = "tag:sg:name";
const MAC_TAG: &str = "tag:sg:mac";
const ALIAS_TAG: &str = "tag:sg:alias";
const SIDE_TAG: &str = "tag:sg:side";
const NETNS_TAG: &str = "tag:sg:netns";

/// Addresses at the start of a subnet that are never given.
const RESERVED: usize = 4;

const LONGEST_DESCRIPTION: usize = 255;

/// What is known of an interface besides its entry in the policy.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
struct Facts {
    subnet: Option<String>,
    address: Option<Ipv4Addr>,
    mac: Option<String>,
    description: String,
    source_dest_check: bool,
}

impl Facts {
    fn of(context: &Context<'_>, found: InterfaceRef<'_>) -> Self {
        let noted = context.world.note(found.id, NOTE);
        let noted = noted.and_then(|text| serde_json::from_str(text).ok());
        noted.unwrap_or_else(|| {
            let subnet = subnets::of_vpc(context, found.vpc).next();
            let mut macs = found.interface.macs.listed();
            Self {
                subnet: subnet.map(|subnet| subnet.id.to_string()),
                address: found.interface.addresses.iter().find_map(v4),
                mac: macs.next().map(|mac| mac.to_string()),
                description: found.name.to_string(),
                source_dest_check: true,
            }
        })
    }

    fn note(&self, id: InterfaceId) -> Result<Annotation> {
        let text = serde_json::to_string(self);
        let text = text.map_err(|error| Fault::internal(error.to_string()))?;
        Ok(Annotation::set(id, NOTE, text))
    }
}

fn v4(address: &IpAddr) -> Option<Ipv4Addr> {
    match address {
        IpAddr::V4(address) => Some(*address),
        IpAddr::V6(_) => None,
    }
}

pub(super) fn exists(context: &Context<'_>, id: InterfaceId) -> bool {
    context.world.interface(id).is_some()
}

/// The interfaces of a subnet with what is known of them.
fn of_subnet<'a>(
    context: &Context<'a>,
    subnet: Subnet<'_>,
) -> impl Iterator<Item = (InterfaceRef<'a>, Facts)> {
    let id = subnet.id.to_string();
    let context = *context;
    let all = context.world.interfaces();
    let all = all.map(move |found| (found, Facts::of(&context, found)));
    all.filter(move |(_, facts)| facts.subnet.as_ref() == Some(&id))
}

pub(super) fn addresses_in(context: &Context<'_>, subnet: Subnet<'_>) -> BTreeSet<Ipv4Addr> {
    let all = of_subnet(context, subnet);
    all.filter_map(|(_, facts)| facts.address).collect()
}

/// What would have no subnet any more. What only shows in the default one does not count.
pub(super) fn in_subnet(context: &Context<'_>, subnet: Subnet<'_>) -> Vec<String> {
    let all = of_subnet(context, subnet);
    all.map(|(found, _)| found.id.to_string()).collect()
}

fn find<'a>(context: &Context<'a>, text: &str) -> Result<InterfaceRef<'a>> {
    let found = match Named::read(text, "eni-") {
        Named::Id(id) => context.world.interface(id),
        Named::Old => None,
        Named::Malformed => {
            return Err(Fault::new(
                "InvalidNetworkInterfaceId.Malformed",
                format!("Invalid id: \"{text}\" (expecting \"eni-...\")"),
            ));
        }
    };
    found.ok_or_else(|| {
        let message = format!("The networkInterface ID '{text}' does not exist");
        Fault::new("InvalidNetworkInterfaceID.NotFound", message)
    })
}

/// An interface as answers show it.
struct Shown<'a> {
    id: InterfaceId,
    vpc: VpcRef<'a>,
    interface: &'a Interface,
    facts: Facts,
    is_attached: bool,
}

impl Shown<'_> {
    fn status(&self) -> &'static str {
        match self.is_attached {
            true => "in-use",
            false => "available",
        }
    }

    fn v6(&self) -> impl Iterator<Item = &IpAddr> {
        let addresses = self.interface.addresses.iter();
        addresses.filter(|address| address.is_ipv6())
    }

    fn v4(&self) -> Vec<Ipv4Addr> {
        let first = self.facts.address;
        let others = self.interface.addresses.iter().filter_map(v4);
        let others = others.filter(|address| first != Some(*address));
        first.into_iter().chain(others).collect()
    }

    fn groups(&self) -> Vec<(String, String)> {
        let names = self.interface.groups.iter();
        names
            .filter_map(|name| self.vpc.group(name))
            .map(|group| (group.id.to_string(), group.name.to_string()))
            .collect()
    }

    fn write(&self, xml: &mut Xml, context: &Context<'_>, notes: Option<&Notes>) {
        let facts = &self.facts;
        xml.text("networkInterfaceId", self.id);
        xml.text_if("subnetId", facts.subnet.as_ref());
        xml.text("vpcId", self.vpc.id);
        xml.text("availabilityZone", account::zone(context));
        xml.text("description", &facts.description);
        xml.text("ownerId", context.account);
        xml.text("requesterManaged", false);
        xml.text("status", self.status());
        xml.text_if("macAddress", facts.mac.as_ref());
        xml.text_if("privateIpAddress", facts.address);
        let addresses = self.v4().into_iter().enumerate();
        xml.set(
            "privateIpAddressesSet",
            addresses,
            |xml, (place, address)| {
                xml.text("privateIpAddress", address);
                xml.text("primary", place == 0);
            },
        );
        xml.set("ipv6AddressesSet", self.v6(), |xml, address| {
            xml.text("ipv6Address", address);
        });
        xml.text("sourceDestCheck", facts.source_dest_check);
        xml.set("groupSet", self.groups(), |xml, (id, name)| {
            xml.text("groupId", id);
            xml.text("groupName", name);
        });
        xml.text("interfaceType", "interface");
        let timeouts = self.interface.timeouts;
        if timeouts != Timeouts::default() {
            xml.element("connectionTrackingConfiguration", |xml| {
                xml.text("tcpEstablishedTimeout", timeouts.tcp_established_s);
                xml.text("udpStreamTimeout", timeouts.udp_stream_s);
                xml.text("udpTimeout", timeouts.udp_s);
            });
        }
        xml.tags(notes);
    }

    fn values(&self, context: &Context<'_>, name: &str) -> Vec<String> {
        let one = |text: &str| vec![text.to_owned()];
        let facts = &self.facts;
        match name {
            "addresses.private-ip-address" => self.v4().iter().map(ToString::to_string).collect(),
            "private-ip-address" => facts.address.iter().map(ToString::to_string).collect(),
            "ipv6-addresses.ipv6-address" => self.v6().map(ToString::to_string).collect(),
            "availability-zone" => vec![account::zone(context)],
            "description" => one(&facts.description),
            "group-id" => self.groups().into_iter().map(|(id, _)| id).collect(),
            "group-name" => self.groups().into_iter().map(|(_, name)| name).collect(),
            "interface-type" => one("interface"),
            "mac-address" => facts.mac.clone().into_iter().collect(),
            "network-interface-id" => vec![self.id.to_string()],
            "owner-id" => one(context.account),
            "requester-managed" => one("false"),
            "source-dest-check" => vec![facts.source_dest_check.to_string()],
            "status" => one(self.status()),
            "subnet-id" => facts.subnet.clone().into_iter().collect(),
            "vpc-id" => vec![self.vpc.id.to_string()],
            // Nothing is attached to an instance.
            _ => Vec::new(),
        }
    }
}

fn show<'a>(
    context: &Context<'_>,
    found: InterfaceRef<'a>,
    attached: &BTreeSet<InterfaceName>,
) -> Shown<'a> {
    Shown {
        id: found.id,
        vpc: found.vpc,
        interface: found.interface,
        facts: Facts::of(context, found),
        is_attached: attached.contains(found.name),
    }
}

pub(super) fn describe(params: &mut Params, context: &Context<'_>) -> Result<Xml> {
    let ids = params.texts("NetworkInterfaceId")?;
    let filters = Filters::take(params, FILTERS)?;
    let question = format!("interfaces {}", filters.text());
    let paging = Paging::take(params, (5, 1000), &question)?;
    let attached = (context.attached)()?;
    let passes = |shown: &Shown<'_>| {
        let notes = context.world.notes(shown.id);
        filters.pass(notes, |name| shown.values(context, name))
    };
    let show = |found| show(context, found, &attached);
    let page = match ids.is_empty() {
        true => {
            let found = context.world.interfaces().map(show).filter(passes);
            paging.page(found, |shown| shown.id.to_string())
        }
        false => {
            let found = ids.iter().map(|id| Ok(show(find(context, id)?)));
            let mut items = found.collect::<Result<Vec<_>>>()?;
            items.retain(passes);
            Page { items, next: None }
        }
    };
    let mut xml = Xml::default();
    xml.set("networkInterfaceSet", page.items, |xml, shown| {
        shown.write(xml, context, context.world.notes(shown.id));
    });
    xml.text_if("nextToken", page.next);
    Ok(xml)
}

/// The groups of a request, which must be of the VPC; its default group where there is none.
fn take_groups(
    params: &mut Params,
    context: &Context<'_>,
    vpc: VpcRef<'_>,
    subnet: Option<&str>,
) -> Result<BTreeSet<GroupName>> {
    let ids = params.texts("SecurityGroupId")?;
    if ids.is_empty() {
        return Ok(BTreeSet::from([GroupName::default_group()]));
    }
    let groups = ids.iter().map(|id| {
        let found = groups::read_id(id)?.and_then(|id| context.world.group(id));
        let found: GroupRef<'_> = found.ok_or_else(|| {
            let message = format!("The security group '{id}' does not exist");
            Fault::new("InvalidSecurityGroupID.NotFound", message)
        })?;
        match found.vpc.id == vpc.id {
            true => Ok(found.name.clone()),
            false => Err(Fault::value(format!(
                "Security group {id} and subnet {} belong to different networks.",
                subnet.unwrap_or("of the interface")
            ))),
        }
    });
    let groups = groups.collect::<Result<BTreeSet<_>>>()?;
    context.quotas.check_groups_of_interface(groups.len())?;
    Ok(groups)
}

fn take_description(params: &mut Params, name: &'static str) -> Result<Option<String>> {
    let text = params.text_or_empty(name)?;
    let is_odd = |text: &String| {
        text.chars().count() > LONGEST_DESCRIPTION || text.chars().any(char::is_control)
    };
    match text.as_ref().is_some_and(is_odd) {
        true => Err(Fault::value(format!(
            "The description has more than {LONGEST_DESCRIPTION} characters, or control characters"
        ))),
        false => Ok(text),
    }
}

/// Takes timeouts of flows where the request has them.
fn take_timeouts(params: &mut Params, timeouts: &mut Timeouts) -> Result<bool> {
    let take = |name, place: &mut u32, (least, most): (u32, u32), params: &mut Params| {
        let Some(seconds) = params.number(name)? else {
            return Ok(());
        };
        match u32::try_from(seconds) {
            Ok(seconds) if (least..=most).contains(&seconds) => {
                *place = seconds;
                Ok(())
            }
            _ => Err(Fault::value(format!(
                "Value ({seconds}) for parameter {name} is invalid; use {least} to {most} seconds"
            ))),
        }
    };
    let given = params.below("ConnectionTrackingSpecification", |given| {
        let tcp = &mut timeouts.tcp_established_s;
        take("TcpEstablishedTimeout", tcp, (60, 432_000), given)?;
        take("UdpTimeout", &mut timeouts.udp_s, (30, 60), given)?;
        take(
            "UdpStreamTimeout",
            &mut timeouts.udp_stream_s,
            (60, 180),
            given,
        )
    });
    Ok(given?.is_some())
}

/// Takes the addresses of a request; the first is the primary one.
fn take_addresses(params: &mut Params) -> Result<Vec<Ipv4Addr>> {
    let read = |text: &str| {
        text.parse::<Ipv4Addr>()
            .map_err(|_| Fault::value(format!("Invalid value '{text}' for an IPv4 address")))
    };
    let one = params.text("PrivateIpAddress")?;
    let many = params.each("PrivateIpAddresses", |one| {
        let primary = one.flag("Primary")?.unwrap_or(false);
        Ok((!primary, read(&one.needed("PrivateIpAddress")?)?))
    })?;
    let mut many: Vec<_> = many;
    many.sort_by_key(|(is_secondary, _)| *is_secondary);
    let one = one.as_deref().map(read).transpose()?;
    let many = many.into_iter().map(|(_, address)| address);
    let mut addresses: Vec<Ipv4Addr> = one.into_iter().collect();
    for address in many {
        if !addresses.contains(&address) {
            addresses.push(address);
        }
    }
    Ok(addresses)
}

pub(super) fn create(params: &mut Params, context: &Context<'_>) -> Result<Draft> {
    let token = Token::take(params, context, "CreateNetworkInterface")?;
    if let Some(answer) = token.answer() {
        return Ok(Draft::again(params, answer));
    }
    let subnet = subnets::find(context, &params.needed("SubnetId")?)?;
    let subnet_id = subnet.id.to_string();
    let groups = take_groups(params, context, subnet.vpc, Some(&subnet_id))?;
    let description = take_description(params, "Description")?.unwrap_or_default();
    let asked = take_addresses(params)?;
    let mut timeouts = Timeouts::default();
    take_timeouts(params, &mut timeouts)?;
    let kind = params.text("InterfaceType")?;
    if kind.is_some_and(|kind| kind != "interface") {
        return Err(Fault::value("InterfaceType can only be interface here"));
    }
    let notes = tags::take_for(params, "network-interface")?;
    let count = context.world.interfaces().count();
    context.quotas.check_interfaces(count + 1)?;
    let used = addresses_in(context, subnet);
    let addresses = give_addresses(subnet, asked, &used)?;
    let id = InterfaceId::random();
    let (matching, mac) = device_of(&notes)?;
    let side = match notes.get(SIDE_TAG).map(String::as_str) {
        None | Some("host") => Side::Host,
        Some("guest") => Side::Guest,
        Some(other) => {
            return Err(Fault::value(format!(
                "The tag sg:side says '{other}'; use host or guest"
            )));
        }
    };
    let interface = Interface {
        matching: Some(Box::new(matching)),
        groups,
        side,
        addresses: match side {
            Side::Host => BTreeSet::new(),
            Side::Guest => addresses.iter().copied().map(IpAddr::V4).collect(),
        },
        timeouts,
        netns: (context.namespace)(notes.get(NETNS_TAG).map(String::as_str))?,
        ..Interface::default()
    };
    let facts = Facts {
        subnet: Some(subnet_id),
        address: addresses.first().copied(),
        mac,
        description,
        source_dest_check: true,
    };
    let name: InterfaceName = id
        .to_string()
        .parse()
        .map_err(|error| Fault::internal(format!("no entry can be called {id}: {error}")))?;
    let mut xml = Xml::default();
    xml.element("networkInterface", |xml| {
        let shown = Shown {
            id,
            vpc: subnet.vpc,
            interface: &interface,
            facts: facts.clone(),
            is_attached: false,
        };
        shown.write(xml, context, Some(&notes));
    });
    let answer = xml.into_string();
    let vpc = subnet.vpc.name.clone();
    let mut annotations = vec![
        Annotation::IdentifyInterface(vpc.clone(), name.clone(), id),
        facts.note(id)?,
    ];
    annotations.extend(tags::set(id, &notes));
    annotations.extend(token.notes(context, &answer));
    Ok(Draft {
        changes: vec![Change {
            vpc,
            edit: Edit::PutInterface(name, interface),
        }],
        annotations,
        answer,
    })
}

/// The addresses that were asked for, or the first free one.
fn give_addresses(
    subnet: Subnet<'_>,
    asked: Vec<Ipv4Addr>,
    used: &BTreeSet<Ipv4Addr>,
) -> Result<Vec<Ipv4Addr>> {
    for address in &asked {
        if !subnet.cidr.contains(address) {
            return Err(Fault::value(format!(
                "Address {address} does not fall within the subnet's address range, {}",
                subnet.cidr
            )));
        }
        if used.contains(address) {
            return Err(Fault::new(
                "InvalidIPAddress.InUse",
                format!("Address {address} is in use in subnet {}", subnet.id),
            ));
        }
    }
    if !asked.is_empty() {
        return Ok(asked);
    }
    let last = subnet.cidr.broadcast();
    let mut free = subnet.cidr.hosts().skip(RESERVED - 1);
    let free = free.find(|address| *address != last && !used.contains(address));
    free.map(|address| vec![address]).ok_or_else(|| {
        Fault::new(
            "InsufficientFreeAddressesInSubnet",
            format!("The subnet {} has no free address", subnet.id),
        )
    })
}

/// Which device an interface is for, and its link-layer address as far as that is known.
fn device_of(notes: &Notes) -> Result<(DeviceMatch, Option<String>)> {
    let mut matching = DeviceMatch::default();
    for (tag, key) in [(NAME_TAG, "name"), (MAC_TAG, "mac"), (ALIAS_TAG, "alias")] {
        if let Some(value) = notes.get(tag) {
            let added = matching.add(&format!("{key}={value}"));
            added.map_err(|error| Fault::value(format!("The tag sg:{key}: {error}")))?;
        }
    }
    if !matching.is_empty() {
        let mac = notes
            .get(MAC_TAG)
            .filter(|mac| mac.parse::<MacAddress>().is_ok());
        return Ok((matching, mac.cloned()));
    }
    // Local and of one device, so that no other has it.
    let [_, a, b, c, d, e] = rand::random::<[u8; 6]>();
    let mac = MacAddress::new([0x02, a, b, c, d, e]);
    let mac = mac.map_err(|error| Fault::internal(error.to_string()))?;
    let added = matching.add(&format!("mac={mac}"));
    added.map_err(|error| Fault::internal(error.to_string()))?;
    Ok((matching, Some(mac.to_string())))
}

pub(super) fn delete(params: &mut Params, context: &Context<'_>) -> Result<Draft> {
    let found = find(context, &params.needed("NetworkInterfaceId")?)?;
    if (context.attached)()?.contains(found.name) {
        let message = format!(
            "Network interface '{}' is currently in use: its groups judge a device of this machine, \
             which would be open without it; take the device away, or detach it with `sg-ctl detach \
             {}`",
            found.id, found.name
        );
        return Err(Fault::new("InvalidNetworkInterface.InUse", message));
    }
    Ok(Draft {
        changes: vec![Change {
            vpc: found.vpc.name.clone(),
            edit: Edit::RemoveInterface(found.name.clone()),
        }],
        annotations: vec![Annotation::forget(found.id)],
        answer: Xml::done().into_string(),
    })
}

pub(super) fn modify_attribute(params: &mut Params, context: &Context<'_>) -> Result<Draft> {
    let found = find(context, &params.needed("NetworkInterfaceId")?)?;
    let mut facts = Facts::of(context, found);
    let mut interface = found.interface.clone();
    let replaces_groups = params.has("SecurityGroupId");
    if replaces_groups {
        let subnet = facts.subnet.as_deref();
        interface.groups = take_groups(params, context, found.vpc, subnet)?;
    }
    let description = params.below("Description", |below| take_description(below, "Value"))?;
    let description = description.flatten();
    let check = params.below("SourceDestCheck", |below| below.flag("Value"))?;
    let check = check.flatten();
    let replaces_timeouts = take_timeouts(params, &mut interface.timeouts)?;
    let given = [
        replaces_groups,
        description.is_some(),
        check.is_some(),
        replaces_timeouts,
    ];
    if given.iter().filter(|given| **given).count() != 1 {
        return Err(Fault::combination(
            "The request must change exactly one of the groups, the description, SourceDestCheck and \
             ConnectionTrackingSpecification",
        ));
    }
    facts.description = description.unwrap_or(facts.description);
    facts.source_dest_check = check.unwrap_or(facts.source_dest_check);
    let changes = (interface != *found.interface).then(|| Change {
        vpc: found.vpc.name.clone(),
        edit: Edit::PutInterface(found.name.clone(), interface),
    });
    Ok(Draft {
        changes: changes.into_iter().collect(),
        annotations: vec![facts.note(found.id)?],
        answer: Xml::done().into_string(),
    })
}

pub(super) fn describe_attribute(params: &mut Params, context: &Context<'_>) -> Result<Xml> {
    let found = find(context, &params.needed("NetworkInterfaceId")?)?;
    let attribute = params.needed("Attribute")?;
    let shown = show(context, found, &BTreeSet::new());
    let mut xml = Xml::default();
    xml.text("networkInterfaceId", found.id);
    match attribute.as_str() {
        "description" => xml.element("description", |xml| {
            xml.text("value", &shown.facts.description);
        }),
        "sourceDestCheck" => xml.element("sourceDestCheck", |xml| {
            xml.text("value", shown.facts.source_dest_check);
        }),
        "groupSet" => xml.set("groupSet", shown.groups(), |xml, (id, name)| {
            xml.text("groupId", id);
            xml.text("groupName", name);
        }),
        // Nothing is attached to an instance.
        "attachment" => {}
        _ => {
            return Err(Fault::value(format!(
                "Value ({attribute}) for parameter attribute is invalid. Use description, groupSet, \
                 sourceDestCheck or attachment."
            )));
        }
    }
    Ok(xml)
}
