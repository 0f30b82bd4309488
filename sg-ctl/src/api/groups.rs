//! Security groups.

use super::Context;
use super::fault::{Fault, Result};
use super::filters::Filters;
use super::front::Draft;
use super::paging::{Page, Paging};
use super::permissions;
use super::query::Params;
use super::tags;
use super::vpcs;
use super::world::{GroupRef, Named};
use super::xml::Xml;
use crate::policy::change::{Change, Edit};
use crate::policy::defaults;
use crate::policy::model::{Peer, Rule};
use crate::policy::names::{GroupId, GroupName, MAX_TEXT, NameError, RuleId, check_description};
use crate::store::Annotation;
use sg_common::packet::Direction;

const FILTERS: &[&str] = &[
    "description",
    "group-id",
    "group-name",
    "owner-id",
    "vpc-id",
    "ip-permission.cidr",
    "ip-permission.from-port",
    "ip-permission.group-id",
    "ip-permission.group-name",
    "ip-permission.ipv6-cidr",
    "ip-permission.prefix-list-id",
    "ip-permission.protocol",
    "ip-permission.to-port",
    "ip-permission.user-id",
    "egress.ip-permission.cidr",
    "egress.ip-permission.from-port",
    "egress.ip-permission.group-id",
    "egress.ip-permission.group-name",
    "egress.ip-permission.ipv6-cidr",
    "egress.ip-permission.prefix-list-id",
    "egress.ip-permission.protocol",
    "egress.ip-permission.to-port",
    "egress.ip-permission.user-id",
];

/// A group's id; none for one that no group here can have.
pub(super) fn read_id(text: &str) -> Result<Option<GroupId>> {
    match Named::read(text, "sg-") {
        Named::Id(id) => Ok(Some(id)),
        Named::Old => Ok(None),
        Named::Malformed => Err(Fault::new(
            "InvalidGroupId.Malformed",
            format!("Invalid id: \"{text}\" (expecting \"sg-...\")"),
        )),
    }
}

pub(super) fn not_found(id: &str) -> Fault {
    let message = format!("The security group '{id}' does not exist");
    Fault::new("InvalidGroup.NotFound", message)
}

/// The group of an id.
pub(super) fn by_id<'a>(context: &Context<'a>, text: &str) -> Result<GroupRef<'a>> {
    let found = read_id(text)?.and_then(|id| context.world.group(id));
    found.ok_or_else(|| not_found(text))
}

/// The group of a name in the default VPC: only there groups are called by their names.
pub(super) fn by_name<'a>(context: &Context<'a>, text: &str) -> Result<GroupRef<'a>> {
    let vpc = vpcs::default(context)?;
    let found = text.parse::<GroupName>().ok();
    let found = found.and_then(|name| vpc.group(&name));
    found.ok_or_else(|| {
        let elsewhere = text.parse::<GroupName>().ok().is_some_and(|name| {
            let mut vpcs = context.world.policy.vpcs.values();
            vpcs.any(|vpc| vpc.groups.contains_key(&name))
        });
        match elsewhere {
            true => Fault::value(format!(
                "Invalid value '{text}' for groupName. You may not reference Amazon VPC security \
                 groups by name. Please use the corresponding id for this operation."
            )),
            false => Fault::new(
                "InvalidGroup.NotFound",
                format!(
                    "The security group '{text}' does not exist in default VPC '{}'",
                    vpc.id
                ),
            ),
        }
    })
}

/// The group that a call is about.
pub(super) fn take<'a>(params: &mut Params, context: &Context<'a>) -> Result<GroupRef<'a>> {
    let (id, name) = (params.text("GroupId")?, params.text("GroupName")?);
    match (id, name) {
        (Some(id), name) => {
            let group = by_id(context, &id)?;
            match name.filter(|name| name.parse().ok().as_ref() != Some(group.name)) {
                None => Ok(group),
                Some(name) => Err(Fault::combination(format!(
                    "The group {id} is called '{}', not '{name}'; give the id alone",
                    group.name
                ))),
            }
        }
        (None, Some(name)) => by_name(context, &name),
        (None, None) => Err(Fault::new(
            "MissingParameter",
            "The request must contain the parameter groupName or groupId",
        )),
    }
}

pub(super) fn describe(params: &mut Params, context: &Context<'_>) -> Result<Xml> {
    let ids = params.texts("GroupId")?;
    let names = params.texts("GroupName")?;
    let filters = Filters::take(params, FILTERS)?;
    let question = format!("groups {}", filters.text());
    let paging = Paging::take(params, (5, 1000), &question)?;
    if paging.is_asked() && !(ids.is_empty() && names.is_empty()) {
        return Err(Fault::combination(
            "The parameter maxResults cannot be used with groupIds or groupNames; leave it out",
        ));
    }
    let passes = |group: &GroupRef<'_>| {
        let notes = context.world.notes(group.id);
        filters.pass(notes, |name| values(context, *group, name))
    };
    let page = if ids.is_empty() && names.is_empty() {
        let behind = paging.behind().and_then(|id| id.parse().ok());
        let groups = context.world.groups(behind).filter(passes);
        paging.page(groups, |group| group.id.to_string())
    } else {
        let by_id = ids.iter().map(|id| by_id(context, id));
        let by_name = names.iter().map(|name| by_name(context, name));
        let mut items = by_id.chain(by_name).collect::<Result<Vec<_>>>()?;
        items.retain(passes);
        items.sort_by_key(|group| group.id);
        items.dedup_by_key(|group| group.id);
        Page { items, next: None }
    };
    let mut xml = Xml::default();
    xml.set("securityGroupInfo", page.items, |xml, group| {
        write(xml, context, group)
    });
    xml.text_if("nextToken", page.next);
    Ok(xml)
}

fn write(xml: &mut Xml, context: &Context<'_>, group: GroupRef<'_>) {
    xml.text("ownerId", context.account);
    xml.text("groupId", group.id);
    xml.text("groupName", group.name);
    xml.text("groupDescription", &group.group.description);
    xml.text("vpcId", group.vpc.id);
    permissions::write_grouped(xml, "ipPermissions", context, group, Direction::Ingress);
    permissions::write_grouped(
        xml,
        "ipPermissionsEgress",
        context,
        group,
        Direction::Egress,
    );
    xml.tags(context.world.notes(group.id));
    xml.text("securityGroupArn", context.arn("security-group", group.id));
}

fn values(context: &Context<'_>, group: GroupRef<'_>, name: &str) -> Vec<String> {
    let of_rules = |direction: Direction, name: &str| {
        let rules = group.group.rules.iter();
        rules
            .filter(|rule| rule.permission.direction == direction)
            .filter_map(|rule| permissions::values(context, group, rule, name))
            .collect()
    };
    match name {
        "description" => vec![group.group.description.clone()],
        "group-id" => vec![group.id.to_string()],
        "group-name" => vec![group.name.to_string()],
        "owner-id" => vec![context.account.to_owned()],
        "vpc-id" | "primary-vpc-id" => vec![group.vpc.id.to_string()],
        name => match (
            name.strip_prefix("egress.ip-permission."),
            name.strip_prefix("ip-permission."),
        ) {
            (Some(name), _) => of_rules(Direction::Egress, name),
            (_, Some(name)) => of_rules(Direction::Ingress, name),
            _ => Vec::new(),
        },
    }
}

pub(super) fn create(params: &mut Params, context: &Context<'_>) -> Result<Draft> {
    let name = params.needed("GroupName")?;
    let description = params.needed("GroupDescription")?;
    let vpc = match params.text("VpcId")? {
        Some(id) => vpcs::by_id(context, &id)?,
        None => vpcs::default(context)?,
    };
    let tags = tags::take_for(params, "security-group")?;
    let name = read_name(&name)?;
    check_description(&description).map_err(|error| {
        let why = match error {
            NameError::Character { character, .. } if !character.is_ascii() => {
                "Character sets beyond ASCII are not supported.".to_owned()
            }
            NameError::TooLong { .. } => format!("Use at most {MAX_TEXT} characters."),
            _ => "Use letters, digits, spaces and ._-:/()#,@[]+=&;{}!$*.".to_owned(),
        };
        Fault::value(format!(
            "Value ({description}) for parameter GroupDescription is invalid. {why}"
        ))
    })?;
    if name.is_default() {
        return Err(Fault::value(
            "Cannot use reserved security group name: default",
        ));
    }
    if vpc.group(&name).is_some() {
        return Err(Fault::new(
            "InvalidGroup.Duplicate",
            format!(
                "The security group '{name}' already exists for VPC '{}'",
                vpc.id
            ),
        ));
    }
    context
        .quotas
        .check_groups(context.world.groups(None).count() + 1)?;
    let id = GroupId::random();
    let mut edits = vec![Edit::CreateGroup {
        name: name.clone(),
        id,
        description,
    }];
    let v6 = vpcs::has_ipv6(context, vpc);
    let egress = defaults::egress()
        .into_iter()
        .filter(|permission| v6 || !matches!(permission.peer, Peer::Prefix(ipnet::IpNet::V6(_))));
    edits.extend(egress.map(|permission| {
        let rule = Rule {
            id: RuleId::random(),
            permission,
            description: String::new(),
        };
        Edit::AddRule(name.clone(), rule)
    }));
    let mut xml = Xml::done();
    xml.text("groupId", id);
    xml.tags(Some(&tags));
    xml.text("securityGroupArn", context.arn("security-group", id));
    Ok(Draft {
        changes: edits
            .into_iter()
            .map(|edit| Change {
                vpc: vpc.name.clone(),
                edit,
            })
            .collect(),
        annotations: tags::set(id, &tags),
        answer: xml.into_string(),
    })
}

fn read_name(text: &str) -> Result<GroupName> {
    text.parse().map_err(|error| match error {
        NameError::LooksLikeId { .. } => Fault::value(format!(
            "Value ({text}) for parameter GroupName is invalid. Group names may not be in the format \
             sg-*."
        )),
        NameError::Character { character, .. } if !character.is_ascii() => Fault::value(format!(
            "Value ({text}) for parameter GroupName is invalid. Character sets beyond ASCII are not \
             supported."
        )),
        error => Fault::value(format!(
            "Value ({text}) for parameter GroupName is invalid: {error}"
        )),
    })
}

pub(super) fn delete(params: &mut Params, context: &Context<'_>) -> Result<Draft> {
    let group = take(params, context)?;
    if group.name.is_default() {
        let message = format!(
            "the specified group: \"{}\" name: \"{}\" cannot be deleted by a user",
            group.id, group.name
        );
        return Err(Fault::new("CannotDelete", message));
    }
    let dependents = dependents(context, group);
    if !dependents.is_empty() {
        let message = format!(
            "resource {} has a dependent object: {}; change these first",
            group.id,
            dependents.join(", ")
        );
        return Err(Fault::new("DependencyViolation", message));
    }
    let mut xml = Xml::done();
    xml.text("groupId", group.id);
    let rules = group.group.rules.iter();
    let annotated = rules
        .map(|rule| rule.id.to_string())
        .chain([group.id.to_string()])
        .filter(|object| context.world.notes(object).is_some());
    Ok(Draft {
        changes: vec![Change {
            vpc: group.vpc.name.clone(),
            edit: Edit::DeleteGroup(group.name.clone()),
        }],
        annotations: annotated.map(Annotation::forget).collect(),
        answer: xml.into_string(),
    })
}

/// What would be left with nothing if the group went.
fn dependents(context: &Context<'_>, group: GroupRef<'_>) -> Vec<String> {
    let found = group.vpc.vpc.dependents(group.name);
    let interfaces = found.interfaces.iter().map(|name| {
        let id = context.world.interface_id(group.vpc.name, name);
        match id {
            Some(id) => format!("network interface {id} ({name})"),
            None => format!("network interface {name}"),
        }
    });
    let groups = found.groups.iter().map(|name| match group.vpc.group(name) {
        Some(other) => format!("rules of {} ({name})", other.id),
        None => format!("rules of {name}"),
    });
    interfaces.chain(groups).collect()
}

/// Groups that an interface of a VPC may have.
pub(super) fn for_vpc(params: &mut Params, context: &Context<'_>) -> Result<Xml> {
    let vpc = vpcs::by_id(context, &params.needed("VpcId")?)?;
    let known = [
        "group-id",
        "description",
        "group-name",
        "owner-id",
        "primary-vpc-id",
    ];
    let filters = Filters::take(params, &known)?;
    let question = format!("groups for {} {}", vpc.id, filters.text());
    let paging = Paging::take(params, (5, 1000), &question)?;
    let behind = paging.behind().and_then(|id| id.parse().ok());
    let groups = context.world.groups(behind).filter(|group| {
        let notes = context.world.notes(group.id);
        group.vpc.id == vpc.id && filters.pass(notes, |name| values(context, *group, name))
    });
    let page = paging.page(groups, |group| group.id.to_string());
    let mut xml = Xml::default();
    xml.set("securityGroupForVpcSet", page.items, |xml, group| {
        xml.text("description", &group.group.description);
        xml.text("groupName", group.name);
        xml.text("ownerId", context.account);
        xml.text("groupId", group.id);
        xml.tags(context.world.notes(group.id));
        xml.text("primaryVpcId", group.vpc.id);
    });
    xml.text_if("nextToken", page.next);
    Ok(xml)
}

/// Rules never outlive the groups that they name, so none is stale.
pub(super) fn stale(params: &mut Params, context: &Context<'_>) -> Result<Xml> {
    vpcs::by_id(context, &params.needed("VpcId")?)?;
    Paging::take(params, (5, 255), "stale")?;
    let mut xml = Xml::default();
    xml.set("staleSecurityGroupSet", [] as [(); 0], |_, ()| ());
    Ok(xml)
}

/// References never leave a VPC, so no other VPC has one.
pub(super) fn references(params: &mut Params, context: &Context<'_>) -> Result<Xml> {
    let ids = params.texts("GroupId")?;
    if ids.is_empty() {
        return Err(Fault::missing("GroupId"));
    }
    if ids.len() > 200 {
        return Err(Fault::new(
            "ResourceCountExceeded",
            "At most 200 security groups may be asked for at once",
        ));
    }
    ids.iter().try_for_each(|id| by_id(context, id).map(drop))?;
    let mut xml = Xml::default();
    xml.set("securityGroupReferenceSet", [] as [(); 0], |_, ()| ());
    Ok(xml)
}

/// A group belongs to one VPC for life, so none is associated with another.
pub(super) fn associations(params: &mut Params, _: &Context<'_>) -> Result<Xml> {
    let known = [
        "group-id",
        "group-owner-id",
        "state",
        "vpc-id",
        "vpc-owner-id",
    ];
    Filters::take(params, &known)?;
    Paging::take(params, (5, 1000), "associations")?;
    let mut xml = Xml::default();
    xml.set("securityGroupVpcAssociationSet", [] as [(); 0], |_, ()| ());
    Ok(xml)
}

pub(super) fn associate(params: &mut Params, context: &Context<'_>) -> Result<Draft> {
    by_id(context, &params.needed("GroupId")?)?;
    vpcs::by_id(context, &params.needed("VpcId")?)?;
    Err(Fault::new(
        "UnsupportedOperation",
        "A security group belongs to one VPC here; create a group of the same rules in the other VPC",
    ))
}
