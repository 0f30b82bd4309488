//! Subnets, as far as clients need them: parts of a VPC's block that network interfaces are made in.
//!
//! Rules know nothing of them. The default VPC has one from the start.

use ipnet::Ipv4Net;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::Context;
use super::account;
use super::fault::{Fault, Result};
use super::filters::Filters;
use super::front::Draft;
use super::network_interfaces;
use super::paging::{Page, Paging};
use super::query::Params;
use super::tags;
use super::vpcs;
use super::world::{Named, VpcRef};
use super::xml::Xml;
use crate::policy::names::{SubnetId, VpcId};
use crate::policy::prefix::parse_prefix;
use crate::store::Annotation;

const FILTERS: &[&str] = &[
    "availability-zone",
    "availabilityZone",
    "availability-zone-id",
    "cidr",
    "cidr-block",
    "cidrBlock",
    "default-for-az",
    "defaultForAz",
    "owner-id",
    "state",
    "subnet-id",
    "vpc-id",
];

const NOTE: &str = "subnet";

/// The length of the subnet that the default VPC starts with.
const DEFAULT_LENGTH: u8 = 20;

#[derive(Serialize, Deserialize)]
struct Noted {
    vpc: String,
    cidr: Ipv4Net,
}

/// A subnet.
#[derive(Clone, Copy, Debug)]
pub(super) struct Subnet<'a> {
    pub(super) id: SubnetId,
    pub(super) vpc: VpcRef<'a>,
    pub(super) cidr: Ipv4Net,
    pub(super) is_default: bool,
}

/// All subnets, in the order of their ids. One whose VPC is gone is gone too.
fn all<'a>(context: &Context<'a>) -> Vec<Subnet<'a>> {
    let noted = context.world.noted("subnet-");
    let noted = noted.filter_map(|(id, notes)| {
        let noted: Noted = serde_json::from_str(notes.get(NOTE)?).ok()?;
        Some(Subnet {
            id: id.parse().ok()?,
            vpc: context.world.vpc(noted.vpc.parse().ok()?)?,
            cidr: noted.cidr,
            is_default: false,
        })
    });
    let first = context.world.default_vpc().and_then(|vpc| {
        let cidr = vpcs::cidr(context, vpc);
        let length = DEFAULT_LENGTH.max(cidr.prefix_len());
        Some(Subnet {
            id: default_id(vpc.id)?,
            vpc,
            cidr: Ipv4Net::new(cidr.network(), length).ok()?,
            is_default: true,
        })
    });
    let mut all: Vec<Subnet<'a>> = noted.chain(first).collect();
    all.sort_by_key(|subnet| subnet.id);
    all
}

/// The default VPC's own subnet lives as long as the VPC, so that its id follows from it.
fn default_id(vpc: VpcId) -> Option<SubnetId> {
    let hash = Sha256::digest(format!("the subnet of {vpc}"));
    let bits = hash
        .iter()
        .take(16)
        .fold(0, |bits, byte| bits << 8 | u128::from(*byte));
    SubnetId::from_number(bits >> 60)
}

pub(super) fn by_id<'a>(context: &Context<'a>, id: SubnetId) -> Option<Subnet<'a>> {
    all(context).into_iter().find(|subnet| subnet.id == id)
}

pub(super) fn of_vpc<'a>(
    context: &Context<'a>,
    vpc: VpcRef<'_>,
) -> impl Iterator<Item = Subnet<'a>> + use<'a> {
    let id = vpc.id;
    let all = all(context).into_iter();
    all.filter(move |subnet| subnet.vpc.id == id)
}

pub(super) fn find<'a>(context: &Context<'a>, text: &str) -> Result<Subnet<'a>> {
    let found = match Named::read(text, "subnet-") {
        Named::Id(id) => by_id(context, id),
        Named::Old | Named::Malformed => None,
    };
    found.ok_or_else(|| {
        let message = format!("The subnet ID '{text}' does not exist");
        Fault::new("InvalidSubnetID.NotFound", message)
    })
}

fn write(xml: &mut Xml, context: &Context<'_>, subnet: Subnet<'_>, free: u32) {
    xml.text("subnetId", subnet.id);
    xml.text("subnetArn", context.arn("subnet", subnet.id));
    xml.text("state", "available");
    xml.text("ownerId", context.account);
    xml.text("vpcId", subnet.vpc.id);
    xml.text("cidrBlock", subnet.cidr);
    xml.set("ipv6CidrBlockAssociationSet", [] as [(); 0], |_, ()| ());
    xml.text("availableIpAddressCount", free);
    xml.text("availabilityZone", account::zone(context));
    xml.text("availabilityZoneId", account::zone_id(context));
    xml.text("defaultForAz", subnet.is_default);
    xml.text("mapPublicIpOnLaunch", false);
    xml.text("assignIpv6AddressOnCreation", false);
    xml.text("mapCustomerOwnedIpOnLaunch", false);
}

fn values(context: &Context<'_>, subnet: Subnet<'_>, name: &str) -> Vec<String> {
    vec![match name {
        "availability-zone" | "availabilityZone" => account::zone(context),
        "availability-zone-id" => account::zone_id(context),
        "cidr" | "cidr-block" | "cidrBlock" => subnet.cidr.to_string(),
        "default-for-az" | "defaultForAz" => subnet.is_default.to_string(),
        "owner-id" => context.account.to_owned(),
        "state" => "available".to_owned(),
        "vpc-id" => subnet.vpc.id.to_string(),
        _ => subnet.id.to_string(),
    }]
}

pub(super) fn describe(params: &mut Params, context: &Context<'_>) -> Result<Xml> {
    let ids = params.texts("SubnetId")?;
    let filters = Filters::take(params, FILTERS)?;
    let question = format!("subnets {}", filters.text());
    let paging = Paging::take(params, (5, 1000), &question)?;
    let passes = |subnet: &Subnet<'_>| {
        let notes = context.world.notes(subnet.id);
        filters.pass(notes, |name| values(context, *subnet, name))
    };
    let page = match ids.is_empty() {
        true => {
            let subnets = all(context).into_iter().filter(passes);
            paging.page(subnets, |subnet| subnet.id.to_string())
        }
        false => {
            let subnets = ids.iter().map(|id| find(context, id));
            let mut items = subnets.collect::<Result<Vec<_>>>()?;
            items.retain(passes);
            Page { items, next: None }
        }
    };
    let mut xml = Xml::default();
    xml.set("subnetSet", page.items, |xml, subnet| {
        let used = network_interfaces::addresses_in(context, subnet).len();
        write(xml, context, subnet, free(subnet.cidr, used));
        xml.tags(context.world.notes(subnet.id));
    });
    xml.text_if("nextToken", page.next);
    Ok(xml)
}

/// Addresses that may still be given: five of each subnet never are.
fn free(cidr: Ipv4Net, used: usize) -> u32 {
    let all = 1u32.checked_shl(32 - u32::from(cidr.prefix_len()));
    let used = u32::try_from(used).unwrap_or(u32::MAX).saturating_add(5);
    all.unwrap_or(u32::MAX).saturating_sub(used)
}

pub(super) fn create(params: &mut Params, context: &Context<'_>) -> Result<Draft> {
    let vpc = vpcs::by_id(context, &params.needed("VpcId")?)?;
    let text = params.needed("CidrBlock")?;
    let zone = params.text("AvailabilityZone")?;
    let zone_id = params.text("AvailabilityZoneId")?;
    let tags = tags::take_for(params, "subnet")?;
    if let Some(zone) = zone.filter(|zone| *zone != account::zone(context)) {
        let own = account::zone(context);
        return Err(Fault::value(format!(
            "Value ({zone}) for parameter availabilityZone is invalid. Subnets can currently only be \
             created in the following availability zones: {own}."
        )));
    }
    if zone_id.is_some_and(|id| id != account::zone_id(context)) {
        let own = account::zone_id(context);
        return Err(Fault::value(format!(
            "availabilityZoneId can only be {own} here"
        )));
    }
    let cidr = match parse_prefix(&text) {
        Ok(ipnet::IpNet::V4(cidr)) if text.contains('/') => cidr,
        _ => {
            return Err(Fault::value(format!(
                "Value ({text}) for parameter cidrBlock is invalid. This is not a valid CIDR block."
            )));
        }
    };
    let block = vpcs::cidr(context, vpc);
    if !(16..=28).contains(&cidr.prefix_len()) || !block.contains(&cidr) {
        return Err(Fault::new(
            "InvalidSubnet.Range",
            format!("The CIDR '{text}' is invalid; use a length of /16 to /28, inside of {block}"),
        ));
    }
    let overlaps = |subnet: &Subnet<'_>| subnet.cidr.contains(&cidr) || cidr.contains(&subnet.cidr);
    if let Some(other) = of_vpc(context, vpc).find(overlaps) {
        return Err(Fault::new(
            "InvalidSubnet.Conflict",
            format!(
                "The CIDR '{text}' conflicts with another subnet: {} has {}",
                other.id, other.cidr
            ),
        ));
    }
    let subnet = Subnet {
        id: SubnetId::random(),
        vpc,
        cidr,
        is_default: false,
    };
    let noted = Noted {
        vpc: vpc.id.to_string(),
        cidr,
    };
    let noted = serde_json::to_string(&noted);
    let noted = noted.map_err(|error| Fault::internal(error.to_string()))?;
    let mut annotations = vec![Annotation::set(subnet.id, NOTE, noted)];
    annotations.extend(tags::set(subnet.id, &tags));
    let mut xml = Xml::default();
    xml.element("subnet", |xml| {
        write(xml, context, subnet, free(cidr, 0));
        xml.tags(Some(&tags));
    });
    Ok(Draft {
        annotations,
        answer: xml.into_string(),
        ..Draft::default()
    })
}

pub(super) fn delete(params: &mut Params, context: &Context<'_>) -> Result<Draft> {
    let subnet = find(context, &params.needed("SubnetId")?)?;
    if subnet.is_default {
        return Err(Fault::new(
            "OperationNotPermitted",
            "The default VPC's own subnet cannot be deleted",
        ));
    }
    let users = network_interfaces::in_subnet(context, subnet);
    if !users.is_empty() {
        let message = format!(
            "The subnet '{}' has dependencies and cannot be deleted: {}; delete these first",
            subnet.id,
            users.join(", ")
        );
        return Err(Fault::new("DependencyViolation", message));
    }
    Ok(Draft {
        annotations: vec![Annotation::forget(subnet.id)],
        answer: Xml::done().into_string(),
        ..Draft::default()
    })
}
