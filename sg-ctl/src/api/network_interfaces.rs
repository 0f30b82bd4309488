//! Network interfaces: what the policy protects, as the cloud's clients see it.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr};

use super::Context;
use super::account;
use super::fault::{Fault, Result};
use super::filters::Filters;
use super::paging::{Page, Paging};
use super::query::Params;
use super::subnets::{self, Subnet};
use super::world::{InterfaceRef, Named};
use super::xml::Xml;
use crate::policy::names::InterfaceId;

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

pub(super) fn exists(context: &Context<'_>, id: InterfaceId) -> bool {
    context.world.interface(id).is_some()
}

pub(super) fn addresses_in(_: &Context<'_>, _: Subnet<'_>) -> BTreeSet<Ipv4Addr> {
    BTreeSet::new()
}

pub(super) fn in_subnet(_: &Context<'_>, _: Subnet<'_>) -> Vec<String> {
    Vec::new()
}

fn find<'a>(context: &Context<'a>, text: &str) -> Result<InterfaceRef<'a>> {
    let found = match Named::read(text, "eni-") {
        Named::Id(id) => context.world.interface(id),
        Named::Old | Named::Malformed => None,
    };
    found.ok_or_else(|| {
        let message = format!("The networkInterface ID '{text}' does not exist");
        Fault::new("InvalidNetworkInterfaceID.NotFound", message)
    })
}

fn addresses(found: InterfaceRef<'_>, v4: bool) -> impl Iterator<Item = &IpAddr> {
    let addresses = found.interface.addresses.iter();
    addresses.filter(move |address| address.is_ipv4() == v4)
}

fn subnet<'a>(context: &Context<'a>, found: InterfaceRef<'_>) -> Option<Subnet<'a>> {
    subnets::of_vpc(context, found.vpc).next()
}

fn write(xml: &mut Xml, context: &Context<'_>, found: InterfaceRef<'_>) {
    xml.text("networkInterfaceId", found.id);
    xml.text_if("subnetId", subnet(context, found).map(|subnet| subnet.id));
    xml.text("vpcId", found.vpc.id);
    xml.text("availabilityZone", account::zone(context));
    xml.text("description", found.name);
    xml.text("ownerId", context.account);
    xml.text("requesterManaged", false);
    xml.text("status", "in-use");
    xml.text_if("macAddress", found.interface.macs.listed().next());
    xml.text_if("privateIpAddress", addresses(found, true).next());
    xml.set(
        "privateIpAddressesSet",
        addresses(found, true).enumerate(),
        |xml, (place, address)| {
            xml.text("privateIpAddress", address);
            xml.text("primary", place == 0);
        },
    );
    xml.set(
        "ipv6AddressesSet",
        addresses(found, false),
        |xml, address| {
            xml.text("ipv6Address", address);
        },
    );
    xml.text("sourceDestCheck", true);
    xml.set("groupSet", groups(found), |xml, (id, name)| {
        xml.text("groupId", id);
        xml.text("groupName", name);
    });
    xml.text("interfaceType", "interface");
    xml.tags(context.world.notes(found.id));
}

fn groups(found: InterfaceRef<'_>) -> Vec<(String, String)> {
    let names = found.interface.groups.iter();
    names
        .filter_map(|name| found.vpc.group(name))
        .map(|group| (group.id.to_string(), group.name.to_string()))
        .collect()
}

fn values(context: &Context<'_>, found: InterfaceRef<'_>, name: &str) -> Vec<String> {
    let all = |v4: bool| addresses(found, v4).map(ToString::to_string).collect();
    let one = |text: &str| vec![text.to_owned()];
    match name {
        "addresses.private-ip-address" | "private-ip-address" => all(true),
        "ipv6-addresses.ipv6-address" => all(false),
        "availability-zone" => vec![account::zone(context)],
        "description" => one(found.name.as_str()),
        "group-id" => groups(found).into_iter().map(|(id, _)| id).collect(),
        "group-name" => groups(found).into_iter().map(|(_, name)| name).collect(),
        "interface-type" => one("interface"),
        "mac-address" => found
            .interface
            .macs
            .listed()
            .map(|mac| mac.to_string())
            .collect(),
        "network-interface-id" => vec![found.id.to_string()],
        "owner-id" => one(context.account),
        "requester-managed" => one("false"),
        "source-dest-check" => one("true"),
        "status" => one("in-use"),
        "subnet-id" => subnet(context, found)
            .map(|subnet| subnet.id.to_string())
            .into_iter()
            .collect(),
        "vpc-id" => vec![found.vpc.id.to_string()],
        _ => Vec::new(),
    }
}

pub(super) fn describe(params: &mut Params, context: &Context<'_>) -> Result<Xml> {
    let ids = params.texts("NetworkInterfaceId")?;
    let filters = Filters::take(params, FILTERS)?;
    let question = format!("interfaces {}", filters.text());
    let paging = Paging::take(params, (5, 1000), &question)?;
    let passes = |found: &InterfaceRef<'_>| {
        let notes = context.world.notes(found.id);
        filters.pass(notes, |name| values(context, *found, name))
    };
    let page = match ids.is_empty() {
        true => {
            let found = context.world.interfaces().filter(passes);
            paging.page(found, |found| found.id.to_string())
        }
        false => {
            let found = ids.iter().map(|id| find(context, id));
            let mut items = found.collect::<Result<Vec<_>>>()?;
            items.retain(passes);
            Page { items, next: None }
        }
    };
    let mut xml = Xml::default();
    xml.set("networkInterfaceSet", page.items, |xml, found| {
        write(xml, context, found)
    });
    xml.text_if("nextToken", page.next);
    Ok(xml)
}
