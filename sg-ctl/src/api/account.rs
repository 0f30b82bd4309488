//! Who asks, and what there is of regions and zones: what clients want to know before they begin.

use super::Context;
use super::fault::{Fault, Result};
use super::filters::Filters;
use super::paging::Paging;
use super::query::Params;
use super::xml::Xml;

pub(super) fn caller_identity(_: &mut Params, context: &Context<'_>) -> Result<Xml> {
    let mut xml = Xml::default();
    xml.text("UserId", &context.key.id);
    xml.text("Account", context.account);
    let (account, name) = (context.account, &context.key.name);
    xml.text("Arn", format!("arn:aws:iam::{account}:user/{name}"));
    Ok(xml)
}

pub(super) fn attributes(params: &mut Params, context: &Context<'_>) -> Result<Xml> {
    let asked = params.texts("AttributeName")?;
    let vpc = context.world.default_vpc().map(|vpc| vpc.id.to_string());
    let all = [
        ("supported-platforms", "VPC".to_owned()),
        ("default-vpc", vpc.unwrap_or_else(|| "none".to_owned())),
    ];
    if let Some(unknown) = asked
        .iter()
        .find(|asked| all.iter().all(|(name, _)| name != asked))
    {
        return Err(Fault::value(format!(
            "Value ({unknown}) for parameter attributeName is invalid. Use supported-platforms or \
             default-vpc."
        )));
    }
    let mut xml = Xml::default();
    let told = all
        .iter()
        .filter(|(name, _)| asked.is_empty() || asked.iter().any(|asked| asked == name));
    xml.set("accountAttributeSet", told, |xml, (name, value)| {
        xml.text("attributeName", name);
        xml.set("attributeValueSet", [value], |xml, value| {
            xml.text("attributeValue", value)
        });
    });
    Ok(xml)
}

pub(super) fn zone(context: &Context<'_>) -> String {
    format!("{}a", context.region)
}

pub(super) fn zone_id(context: &Context<'_>) -> String {
    format!("{}-az1", context.region)
}

pub(super) fn zones(params: &mut Params, context: &Context<'_>) -> Result<Xml> {
    let names = params.texts("ZoneName")?;
    let ids = params.texts("ZoneId")?;
    params.flag("AllAvailabilityZones")?;
    let known = [
        "region-name",
        "zone-name",
        "zone-id",
        "state",
        "zone-type",
        "opt-in-status",
        "group-name",
    ];
    let filters = Filters::take(params, &known)?;
    let (zone, id) = (zone(context), zone_id(context));
    let value = |name: &str| match name {
        "zone-name" => zone.clone(),
        "zone-id" => id.clone(),
        "state" => "available".to_owned(),
        "zone-type" => "availability-zone".to_owned(),
        "opt-in-status" => "opt-in-not-required".to_owned(),
        _ => context.region.to_owned(),
    };
    if let Some(unknown) = names.iter().find(|name| **name != zone) {
        return Err(Fault::value(format!(
            "Invalid availability zone: [{unknown}]; use {zone}"
        )));
    }
    let is_told =
        ids.iter().all(|asked| *asked == id) && filters.pass(None, |name| vec![value(name)]);
    let mut xml = Xml::default();
    xml.set("availabilityZoneInfo", is_told.then_some(()), |xml, ()| {
        xml.text("optInStatus", "opt-in-not-required");
        xml.text("zoneName", &zone);
        xml.text("zoneId", &id);
        xml.text("zoneState", "available");
        xml.text("regionName", context.region);
        xml.text("zoneType", "availability-zone");
        xml.text("groupName", context.region);
        xml.text("networkBorderGroup", context.region);
        xml.set("messageSet", [] as [(); 0], |_, ()| ());
    });
    Ok(xml)
}

pub(super) fn regions(params: &mut Params, context: &Context<'_>) -> Result<Xml> {
    let names = params.texts("RegionName")?;
    params.flag("AllRegions")?;
    let filters = Filters::take(params, &["endpoint", "opt-in-status", "region-name"])?;
    let region = context.region;
    let endpoint = format!("ec2.{region}.amazonaws.com");
    let is_told = (names.is_empty() || names.iter().any(|name| name == region))
        && filters.pass(None, |name| {
            vec![match name {
                "endpoint" => endpoint.clone(),
                "opt-in-status" => "opt-in-not-required".to_owned(),
                _ => region.to_owned(),
            }]
        });
    let mut xml = Xml::default();
    xml.set("regionInfo", is_told.then_some(()), |xml, ()| {
        xml.text("regionName", region);
        xml.text("regionEndpoint", &endpoint);
        xml.text("optInStatus", "opt-in-not-required");
    });
    Ok(xml)
}

/// Sets of what there is none of here. Whatever they are asked with passes.
fn empty(params: &mut Params, set: &str, ids: &[&'static str]) -> Result<Xml> {
    params.ignore(ids);
    params.ignore(&["Filter"]);
    Paging::take(params, (1, 1000), set)?;
    let mut xml = Xml::default();
    xml.set(set, [] as [(); 0], |_, ()| ());
    Ok(xml)
}

pub(super) fn instances(params: &mut Params, _: &Context<'_>) -> Result<Xml> {
    if let Some(id) = params.texts("InstanceId")?.first() {
        return Err(Fault::new(
            "InvalidInstanceID.NotFound",
            format!("The instance ID '{id}' does not exist"),
        ));
    }
    empty(params, "reservationSet", &[])
}

pub(super) fn internet_gateways(params: &mut Params, _: &Context<'_>) -> Result<Xml> {
    empty(params, "internetGatewaySet", &["InternetGatewayId"])
}

pub(super) fn route_tables(params: &mut Params, _: &Context<'_>) -> Result<Xml> {
    empty(params, "routeTableSet", &["RouteTableId"])
}

pub(super) fn network_acls(params: &mut Params, _: &Context<'_>) -> Result<Xml> {
    empty(params, "networkAclSet", &["NetworkAclId"])
}

pub(super) fn classic_link(params: &mut Params, _: &Context<'_>) -> Result<Xml> {
    empty(params, "vpcSet", &["VpcId"])
}

pub(super) fn classic_link_dns(params: &mut Params, _: &Context<'_>) -> Result<Xml> {
    // The one call whose list has another name than all others.
    empty(params, "vpcs", &["VpcIds"])
}
