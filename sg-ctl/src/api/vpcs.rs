//! VPCs: policy domains, with what clients want to read of a network besides.
//!
//! Groups of any VPC judge whatever addresses there are, so the block of a VPC decides nothing here; it
//! bounds the subnets that clients make in it.

use ipnet::{IpNet, Ipv4Net};
use serde::{Deserialize, Serialize};

use super::Context;
use super::fault::{Fault, Result};
use super::filters::Filters;
use super::front::Draft;
use super::paging::{Page, Paging};
use super::query::Params;
use super::subnets;
use super::tags;
use super::world::{Named, VpcRef};
use super::xml::Xml;
use crate::policy::change::{Change, Edit};
use crate::policy::defaults;
use crate::policy::model::Peer;
use crate::policy::names::{VpcId, VpcName};
use crate::policy::prefix::parse_prefix;
use crate::store::Annotation;

const FILTERS: &[&str] = &[
    "cidr",
    "cidr-block-association.association-id",
    "cidr-block-association.cidr-block",
    "cidr-block-association.state",
    "cidrBlock",
    "dhcp-options-id",
    "dhcpOptionsId",
    "ipv6-cidr-block-association.association-id",
    "ipv6-cidr-block-association.ipv6-cidr-block",
    "ipv6-cidr-block-association.state",
    "is-default",
    "isDefault",
    "owner-id",
    "state",
    "vpc-id",
];

/// The note that a VPC of the API has.
const NOTE: &str = "vpc";

/// What a VPC without a block of its own shows.
const BLOCK: &str = "172.31.0.0/16";

const DHCP_OPTIONS: &str = "dopt-00000000000000000";

/// What clients read of a VPC besides its groups.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Facts {
    cidr: Ipv4Net,
    ipv6: bool,
    dns_support: bool,
    dns_hostnames: bool,
    usage_metrics: bool,
}

impl Facts {
    /// A VPC that the API has not made is one for both families, as a machine is.
    fn of(context: &Context<'_>, vpc: VpcRef<'_>) -> Self {
        let noted = context.world.note(vpc.id, NOTE);
        let noted = noted.and_then(|text| serde_json::from_str(text).ok());
        noted.unwrap_or_else(|| Self {
            cidr: BLOCK.parse().unwrap_or_default(),
            ipv6: true,
            dns_support: true,
            dns_hostnames: is_default(vpc),
            usage_metrics: false,
        })
    }

    fn note(&self, id: VpcId) -> Result<Annotation> {
        let text = serde_json::to_string(self);
        let text = text.map_err(|error| Fault::internal(error.to_string()))?;
        Ok(Annotation::set(id, NOTE, text))
    }
}

pub(super) fn is_default(vpc: VpcRef<'_>) -> bool {
    *vpc.name == VpcName::default()
}

pub(super) fn cidr(context: &Context<'_>, vpc: VpcRef<'_>) -> Ipv4Net {
    Facts::of(context, vpc).cidr
}

/// Whether groups of the VPC are made with egress for IPv6 too.
pub(super) fn has_ipv6(context: &Context<'_>, vpc: VpcRef<'_>) -> bool {
    Facts::of(context, vpc).ipv6
}

pub(super) fn default<'a>(context: &Context<'a>) -> Result<VpcRef<'a>> {
    context.world.default_vpc().ok_or_else(|| {
        Fault::new(
            "VPCIdNotSpecified",
            "No default VPC for this user; say VpcId, or create the VPC `default` with sg-ctl",
        )
    })
}

pub(super) fn by_id<'a>(context: &Context<'a>, text: &str) -> Result<VpcRef<'a>> {
    let found = match Named::read(text, "vpc-") {
        Named::Id(id) => context.world.vpc(id),
        Named::Old | Named::Malformed => None,
    };
    found.ok_or_else(|| {
        let message = format!("The vpc ID '{text}' does not exist");
        Fault::new("InvalidVpcID.NotFound", message)
    })
}

fn ipv6_block(id: VpcId) -> String {
    let bits = id.number();
    let part = |shift: u32| (bits >> shift) & 0xffff;
    format!(
        "fd{:02x}:{:x}:{:x}::/56",
        bits >> 60 & 0xff,
        part(44),
        part(28)
    )
}

fn digits(id: VpcId) -> String {
    id.to_string().trim_start_matches("vpc-").to_owned()
}

fn write(xml: &mut Xml, context: &Context<'_>, vpc: VpcRef<'_>) {
    let facts = Facts::of(context, vpc);
    write_facts(xml, context, vpc.id, &facts, is_default(vpc));
    xml.tags(context.world.notes(vpc.id));
}

fn write_facts(xml: &mut Xml, context: &Context<'_>, id: VpcId, facts: &Facts, is_default: bool) {
    xml.text("vpcId", id);
    xml.text("ownerId", context.account);
    xml.text("state", "available");
    xml.text("cidrBlock", facts.cidr);
    xml.set("cidrBlockAssociationSet", [facts.cidr], |xml, cidr| {
        xml.text("cidrBlock", cidr);
        xml.text("associationId", format!("vpc-cidr-assoc-{}", digits(id)));
        xml.element("cidrBlockState", |xml| xml.text("state", "associated"));
    });
    let v6 = facts.ipv6.then(|| ipv6_block(id));
    xml.set("ipv6CidrBlockAssociationSet", v6, |xml, cidr| {
        xml.text("ipv6CidrBlock", cidr);
        xml.text(
            "associationId",
            format!("vpc-cidr-assoc-6{}", &digits(id)[1..]),
        );
        xml.element("ipv6CidrBlockState", |xml| xml.text("state", "associated"));
        xml.text("networkBorderGroup", context.region);
        xml.text("ipv6Pool", "Amazon");
    });
    xml.text("dhcpOptionsId", DHCP_OPTIONS);
    xml.text("instanceTenancy", "default");
    xml.text("isDefault", is_default);
}

fn values(context: &Context<'_>, vpc: VpcRef<'_>, name: &str) -> Vec<String> {
    let facts = Facts::of(context, vpc);
    let v6 = |value: String| facts.ipv6.then_some(value).into_iter().collect();
    match name {
        "cidr" | "cidrBlock" | "cidr-block-association.cidr-block" => vec![facts.cidr.to_string()],
        "cidr-block-association.state" => vec!["associated".to_owned()],
        "cidr-block-association.association-id" => {
            vec![format!("vpc-cidr-assoc-{}", digits(vpc.id))]
        }
        "ipv6-cidr-block-association.ipv6-cidr-block" => v6(ipv6_block(vpc.id)),
        "ipv6-cidr-block-association.state" => v6("associated".to_owned()),
        "ipv6-cidr-block-association.association-id" => {
            v6(format!("vpc-cidr-assoc-6{}", &digits(vpc.id)[1..]))
        }
        "dhcp-options-id" | "dhcpOptionsId" => vec![DHCP_OPTIONS.to_owned()],
        "is-default" | "isDefault" => vec![is_default(vpc).to_string()],
        "owner-id" => vec![context.account.to_owned()],
        "state" => vec!["available".to_owned()],
        _ => vec![vpc.id.to_string()],
    }
}

pub(super) fn describe(params: &mut Params, context: &Context<'_>) -> Result<Xml> {
    let ids = params.texts("VpcId")?;
    let filters = Filters::take(params, FILTERS)?;
    let question = format!("vpcs {}", filters.text());
    let paging = Paging::take(params, (5, 1000), &question)?;
    let passes = |vpc: &VpcRef<'_>| {
        let notes = context.world.notes(vpc.id);
        filters.pass(notes, |name| values(context, *vpc, name))
    };
    let page = match ids.is_empty() {
        true => paging.page(context.world.vpcs().filter(passes), |vpc| {
            vpc.id.to_string()
        }),
        false => {
            let vpcs = ids.iter().map(|id| by_id(context, id));
            let mut items = vpcs.collect::<Result<Vec<_>>>()?;
            items.retain(passes);
            Page { items, next: None }
        }
    };
    let mut xml = Xml::default();
    xml.set("vpcSet", page.items, |xml, vpc| write(xml, context, vpc));
    xml.text_if("nextToken", page.next);
    Ok(xml)
}

pub(super) fn describe_attribute(params: &mut Params, context: &Context<'_>) -> Result<Xml> {
    let vpc = by_id(context, &params.needed("VpcId")?)?;
    let attribute = params.needed("Attribute")?;
    let facts = Facts::of(context, vpc);
    let value = match attribute.as_str() {
        "enableDnsSupport" => facts.dns_support,
        "enableDnsHostnames" => facts.dns_hostnames,
        "enableNetworkAddressUsageMetrics" => facts.usage_metrics,
        _ => {
            return Err(Fault::value(format!(
                "Value ({attribute}) for parameter attribute is invalid. Use enableDnsSupport, \
                 enableDnsHostnames or enableNetworkAddressUsageMetrics."
            )));
        }
    };
    let mut xml = Xml::default();
    xml.text("vpcId", vpc.id);
    xml.element(&attribute, |xml| xml.text("value", value));
    Ok(xml)
}

pub(super) fn modify_attribute(params: &mut Params, context: &Context<'_>) -> Result<Draft> {
    let vpc = by_id(context, &params.needed("VpcId")?)?;
    let mut facts = Facts::of(context, vpc);
    let mut take = |name| params.below(name, |below| below.flag("Value"));
    let given = [
        take("EnableDnsSupport")?.flatten(),
        take("EnableDnsHostnames")?.flatten(),
        take("EnableNetworkAddressUsageMetrics")?.flatten(),
    ];
    let places = [
        &mut facts.dns_support,
        &mut facts.dns_hostnames,
        &mut facts.usage_metrics,
    ];
    if given.iter().flatten().count() != 1 {
        return Err(Fault::combination(
            "The request must change exactly one of EnableDnsSupport, EnableDnsHostnames and \
             EnableNetworkAddressUsageMetrics",
        ));
    }
    for (place, given) in places.into_iter().zip(given) {
        if let Some(given) = given {
            *place = given;
        }
    }
    Ok(Draft {
        annotations: vec![facts.note(vpc.id)?],
        answer: Xml::done().into_string(),
        ..Draft::default()
    })
}

pub(super) fn create(params: &mut Params, context: &Context<'_>) -> Result<Draft> {
    let text = params.needed("CidrBlock")?;
    let ipv6 = params.flag("AmazonProvidedIpv6CidrBlock")?.unwrap_or(false);
    let tenancy = params.text("InstanceTenancy")?;
    if tenancy.is_some_and(|tenancy| tenancy != "default") {
        return Err(Fault::value("InstanceTenancy can only be default here"));
    }
    let tags = tags::take_for(params, "vpc")?;
    let cidr = match parse_prefix(&text) {
        Ok(IpNet::V4(cidr)) if text.contains('/') => cidr,
        _ => {
            return Err(Fault::value(format!(
                "Value ({text}) for parameter cidrBlock is invalid. This is not a valid CIDR block."
            )));
        }
    };
    if !(16..=28).contains(&cidr.prefix_len()) {
        return Err(Fault::new(
            "InvalidVpc.Range",
            format!("The CIDR '{text}' is invalid; use a length of /16 to /28"),
        ));
    }
    context
        .quotas
        .check_vpcs(context.world.vpcs().count() + 1)?;
    let id = VpcId::random();
    let name: VpcName = id
        .to_string()
        .parse()
        .map_err(|error| Fault::internal(format!("no VPC can be called {id}: {error}")))?;
    let facts = Facts {
        cidr,
        ipv6,
        dns_support: true,
        dns_hostnames: false,
        usage_metrics: false,
    };
    let mut changes = defaults::create_vpc(&name);
    changes.retain(|change| ipv6 || !opens_ipv6(&change.edit));
    let mut annotations = vec![Annotation::IdentifyVpc(name, id), facts.note(id)?];
    annotations.extend(tags::set(id, &tags));
    let mut xml = Xml::default();
    xml.element("vpc", |xml| {
        write_facts(xml, context, id, &facts, false);
        xml.tags(Some(&tags));
    });
    Ok(Draft {
        changes,
        annotations,
        answer: xml.into_string(),
    })
}

fn opens_ipv6(edit: &Edit) -> bool {
    match edit {
        Edit::AddRule(_, rule) => matches!(rule.permission.peer, Peer::Prefix(IpNet::V6(_))),
        _ => false,
    }
}

pub(super) fn delete(params: &mut Params, context: &Context<'_>) -> Result<Draft> {
    let vpc = by_id(context, &params.needed("VpcId")?)?;
    let interfaces = vpc.vpc.interfaces.keys().map(|name| {
        let id = context.world.interface_id(vpc.name, name);
        id.map_or(name.to_string(), |id| format!("{id} ({name})"))
    });
    let subnets = subnets::of_vpc(context, vpc).filter(|subnet| !subnet.is_default);
    let subnets = subnets.map(|subnet| subnet.id.to_string());
    let groups = vpc.vpc.groups.iter().filter(|(name, _)| !name.is_default());
    let groups = groups.map(|(name, group)| format!("{} ({name})", group.id));
    let dependents: Vec<String> = interfaces.chain(subnets).chain(groups).collect();
    if !dependents.is_empty() {
        let message = format!(
            "The vpc '{}' has dependencies and cannot be deleted: {}; delete these first",
            vpc.id,
            dependents.join(", ")
        );
        return Err(Fault::new("DependencyViolation", message));
    }
    Ok(Draft {
        changes: vec![Change {
            vpc: vpc.name.clone(),
            edit: Edit::DeleteVpc,
        }],
        annotations: vec![Annotation::forget(vpc.id)],
        answer: Xml::done().into_string(),
    })
}
