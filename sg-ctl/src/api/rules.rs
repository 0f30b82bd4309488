//! Rules of security groups: grouped into permissions, and one by one.

use std::collections::{BTreeMap, HashMap, HashSet};

use super::Context;
use super::fault::{Fault, Result};
use super::filters::Filters;
use super::front::Draft;
use super::groups;
use super::paging::{Page, Paging};
use super::permissions::{self, Asked, AskedPeer, Brought, Purpose};
use super::query::Params;
use super::tags;
use super::world::{GroupRef, Named, RuleRef};
use super::xml::Xml;
use crate::policy::change::{Change, Edit};
use crate::policy::model::{Peer, Permission, Rule};
use crate::policy::names::RuleId;
use crate::store::Annotation;
use ipnet::IpNet;
use sg_common::packet::Direction;

/// A rule's id; none for one that no rule here can have.
fn read_id(text: &str) -> Result<Option<RuleId>> {
    match Named::read(text, "sgr-") {
        Named::Id(id) => Ok(Some(id)),
        Named::Old => Ok(None),
        Named::Malformed => Err(Fault::new(
            "InvalidSecurityGroupRuleId.Malformed",
            format!("The security group rule ID '{text}' is malformed (expecting \"sgr-...\")"),
        )),
    }
}

fn not_found(id: &str) -> Fault {
    let message = format!("The security group rule ID '{id}' does not exist");
    Fault::new("InvalidSecurityGroupRuleId.NotFound", message)
}

fn no_permission() -> Fault {
    Fault::new(
        "InvalidPermission.NotFound",
        "The specified rule does not exist in this security group.",
    )
}

/// The group whose rules of a direction a call is about.
fn take_group<'a>(
    params: &mut Params,
    context: &Context<'a>,
    direction: Direction,
) -> Result<GroupRef<'a>> {
    match direction {
        Direction::Ingress => groups::take(params, context),
        Direction::Egress => groups::by_id(context, &params.needed("GroupId")?),
    }
}

fn edits(group: GroupRef<'_>, edits: Vec<Edit>) -> Vec<Change> {
    let edits = edits.into_iter();
    edits
        .map(|edit| Change {
            vpc: group.vpc.name.clone(),
            edit,
        })
        .collect()
}

pub(super) fn authorize_ingress(params: &mut Params, context: &Context<'_>) -> Result<Draft> {
    authorize(params, context, Direction::Ingress)
}

pub(super) fn authorize_egress(params: &mut Params, context: &Context<'_>) -> Result<Draft> {
    authorize(params, context, Direction::Egress)
}

fn authorize(params: &mut Params, context: &Context<'_>, direction: Direction) -> Result<Draft> {
    let group = take_group(params, context, direction)?;
    let asked = permissions::take(params, context, Purpose::Authorize)?;
    let tags = tags::take_for(params, "security-group-rule")?;
    if asked.is_empty() {
        return Err(Fault::missing("ipPermissions"));
    }
    let mut brought = Brought::default();
    let there: HashSet<&Permission> = permissions_of(group).collect();
    let mut new = HashSet::new();
    let mut rules = Vec::new();
    for asked in &asked {
        let permission = permissions::resolve(context, group, direction, asked, &mut brought)?;
        if !new.insert(permission.clone()) {
            return Err(Fault::value(
                "The same permission must not appear multiple times",
            ));
        }
        if there.contains(&permission) {
            return Err(duplicate(context, group, &permission));
        }
        rules.push(Rule {
            id: RuleId::random(),
            permission,
            description: asked.description.clone().unwrap_or_default(),
        });
    }
    let all = there.into_iter().chain(&new);
    context
        .quotas
        .check_rules(context, group, direction, all, &brought)?;
    let mut xml = Xml::done();
    xml.set("securityGroupRuleSet", &rules, |xml, rule| {
        let rule = RuleRef { rule, group };
        permissions::write_rule(xml, context, rule, &brought, Some(&tags));
    });
    let mut annotations = brought.annotations;
    for rule in &rules {
        annotations.extend(tags::set(rule.id, &tags));
    }
    let added = rules.into_iter();
    let added = added.map(|rule| Edit::AddRule(group.name.clone(), rule));
    let mut changes = brought.changes;
    changes.extend(edits(group, added.collect()));
    Ok(Draft {
        changes,
        annotations,
        answer: xml.into_string(),
    })
}

fn permissions_of(group: GroupRef<'_>) -> impl Iterator<Item = &Permission> {
    group.group.rules.iter().map(|rule| &rule.permission)
}

fn duplicate(context: &Context<'_>, group: GroupRef<'_>, permission: &Permission) -> Fault {
    let rule = permissions::describe(context, group, permission);
    let message = format!("the specified rule \"{rule}\" already exists");
    Fault::new("InvalidPermission.Duplicate", message)
}

pub(super) fn revoke_ingress(params: &mut Params, context: &Context<'_>) -> Result<Draft> {
    revoke(params, context, Direction::Ingress)
}

pub(super) fn revoke_egress(params: &mut Params, context: &Context<'_>) -> Result<Draft> {
    revoke(params, context, Direction::Egress)
}

fn revoke(params: &mut Params, context: &Context<'_>, direction: Direction) -> Result<Draft> {
    let group = take_group(params, context, direction)?;
    let ids = params.texts("SecurityGroupRuleId")?;
    let asked = permissions::take(params, context, Purpose::Revoke)?;
    let mut gone: BTreeMap<RuleId, &Rule> = BTreeMap::new();
    let mut unknown = Vec::new();
    match (ids.is_empty(), asked.is_empty()) {
        (true, true) => return Err(Fault::missing("ipPermissions")),
        (false, false) => {
            return Err(Fault::combination(
                "The parameter SecurityGroupRuleId may not be used in combination with ipPermissions",
            ));
        }
        (false, true) => {
            for id in &ids {
                let rule = rule_of(context, group, direction, id)?;
                gone.insert(rule.id, rule);
            }
        }
        (true, false) => {
            let rules = by_permission(group);
            for asked in &asked {
                let rule = find(context, group, direction, asked, &rules);
                match rule {
                    Some(rule) => {
                        gone.insert(rule.id, rule);
                    }
                    // As AWS has it, a rule that is not there is no mistake in a default VPC.
                    None if group.vpc.name.as_str().eq_ignore_ascii_case("default") => {
                        unknown.push(asked);
                    }
                    None => return Err(no_permission()),
                }
            }
        }
    }
    let mut xml = Xml::done();
    if !unknown.is_empty() {
        xml.set("unknownIpPermissionSet", unknown, |xml, asked| {
            permissions::write_asked(xml, context, asked);
        });
    }
    xml.set("revokedSecurityGroupRuleSet", gone.values(), |xml, rule| {
        permissions::write_revoked(xml, context, RuleRef { rule, group });
    });
    let annotated = gone.keys().filter(|id| context.world.notes(id).is_some());
    let annotations = annotated.map(Annotation::forget).collect();
    let removed = gone.keys();
    let removed = removed.map(|id| Edit::RemoveRule(group.name.clone(), *id));
    Ok(Draft {
        changes: edits(group, removed.collect()),
        annotations,
        answer: xml.into_string(),
    })
}

/// The rule of an id in a direction of a group.
fn rule_of<'a>(
    context: &Context<'a>,
    group: GroupRef<'a>,
    direction: Direction,
    text: &str,
) -> Result<&'a Rule> {
    let found = read_id(text)?.and_then(|id| context.world.rule(id));
    let found = found
        .filter(|found| found.group.id == group.id && found.rule.permission.direction == direction);
    found.map(|found| found.rule).ok_or_else(|| not_found(text))
}

fn by_permission(group: GroupRef<'_>) -> HashMap<&Permission, &Rule> {
    let rules = group.group.rules.iter();
    rules.map(|rule| (&rule.permission, rule)).collect()
}

/// The rule that says the same, if there is one.
fn find<'a>(
    context: &Context<'_>,
    group: GroupRef<'a>,
    direction: Direction,
    asked: &Asked,
    rules: &HashMap<&'a Permission, &'a Rule>,
) -> Option<&'a Rule> {
    // What would have to be brought in first is in no rule.
    let mut brought = Brought::default();
    let permission = permissions::resolve(context, group, direction, asked, &mut brought).ok()?;
    match brought.changes.is_empty() {
        true => rules.get(&permission).copied(),
        false => None,
    }
}

pub(super) fn modify(params: &mut Params, context: &Context<'_>) -> Result<Draft> {
    let group = groups::by_id(context, &params.needed("GroupId")?)?;
    let asked = params.each("SecurityGroupRule", |one| {
        let id = one.needed("SecurityGroupRuleId")?;
        let found = read_id(&id)?.and_then(|id| context.world.rule(id));
        let found = found.filter(|found| found.group.id == group.id);
        let rule = found.ok_or_else(|| not_found(&id))?.rule;
        let asked = one.below("SecurityGroupRule", permissions::take_flat)?;
        let asked = asked.ok_or_else(|| Fault::missing("SecurityGroupRule"))?;
        Ok((rule, asked))
    })?;
    if asked.is_empty() {
        return Err(Fault::missing("SecurityGroupRule"));
    }
    let mut brought = Brought::default();
    let mut there: HashMap<RuleId, Permission> = HashMap::new();
    let mut annotations = Vec::new();
    let mut changed = Vec::new();
    for (rule, asked) in &asked {
        refuse_other_kind(rule, &asked.peer)?;
        let direction = rule.permission.direction;
        let permission = permissions::resolve(context, group, direction, asked, &mut brought)?;
        if there.insert(rule.id, permission.clone()).is_some() {
            return Err(Fault::value(format!(
                "The security group rule ID '{}' appears more than once",
                rule.id
            )));
        }
        let description = asked.description.clone().unwrap_or_default();
        if permission == rule.permission {
            let name = group.name.clone();
            changed.push(Edit::DescribeRule(name, rule.id, description));
            continue;
        }
        changed.push(Edit::RemoveRule(group.name.clone(), rule.id));
        changed.push(Edit::AddRule(
            group.name.clone(),
            Rule {
                id: rule.id,
                permission,
                description,
            },
        ));
        // The notes of a rule go with it, and this one comes back.
        for (name, value) in context.world.notes(rule.id).into_iter().flatten() {
            annotations.push(Annotation::set(rule.id, name, value));
        }
    }
    let mut seen = HashSet::new();
    for rule in &group.group.rules {
        let permission = there.get(&rule.id).unwrap_or(&rule.permission);
        if !seen.insert(permission) {
            return Err(duplicate(context, group, permission));
        }
    }
    for direction in [Direction::Ingress, Direction::Egress] {
        let all = seen.iter().copied();
        context
            .quotas
            .check_rules(context, group, direction, all, &brought)?;
    }
    let mut changes = brought.changes;
    changes.extend(edits(group, changed));
    annotations.extend(brought.annotations);
    Ok(Draft {
        changes,
        annotations,
        answer: Xml::done().into_string(),
    })
}

/// A rule keeps the kind of its peer for life.
fn refuse_other_kind(rule: &Rule, asked: &AskedPeer) -> Result<()> {
    let had = match &rule.permission.peer {
        Peer::Prefix(IpNet::V4(_)) => ("CidrIpv4", "IPv4 CIDR"),
        Peer::Prefix(IpNet::V6(_)) => ("CidrIpv6", "IPv6 CIDR"),
        Peer::PrefixList(_) => ("PrefixListId", "prefix list"),
        Peer::Group(_) => ("ReferencedGroupId", "referenced group"),
    };
    let given = match asked {
        AskedPeer::Prefix(IpNet::V4(_)) => "CidrIpv4",
        AskedPeer::Prefix(IpNet::V6(_)) => "CidrIpv6",
        AskedPeer::PrefixList(_) => "PrefixListId",
        AskedPeer::Group(_) => "ReferencedGroupId",
    };
    match given == had.0 {
        true => Ok(()),
        false => Err(Fault::value(format!(
            "Invalid rule type for security group rule '{}'. You may not specify {given} for an \
             existing {} rule.",
            rule.id, had.1
        ))),
    }
}

pub(super) fn describe_ingress(params: &mut Params, context: &Context<'_>) -> Result<Draft> {
    update_descriptions(params, context, Direction::Ingress)
}

pub(super) fn describe_egress(params: &mut Params, context: &Context<'_>) -> Result<Draft> {
    update_descriptions(params, context, Direction::Egress)
}

/// Replaces the descriptions of rules; one that is not given is removed.
fn update_descriptions(
    params: &mut Params,
    context: &Context<'_>,
    direction: Direction,
) -> Result<Draft> {
    let group = groups::take(params, context)?;
    let by_id = params.each("SecurityGroupRuleDescription", |one| {
        let id = one.needed("SecurityGroupRuleId")?;
        let description = permissions::take_description(one)?;
        let rule = rule_of(context, group, direction, &id)?;
        Ok((rule.id, description))
    })?;
    let asked = permissions::take(params, context, Purpose::Revoke)?;
    if by_id.is_empty() == asked.is_empty() {
        return Err(match asked.is_empty() {
            true => Fault::missing("ipPermissions"),
            false => Fault::combination(
                "SecurityGroupRuleDescription may not be used in combination with ipPermissions",
            ),
        });
    }
    let rules = by_permission(group);
    let mut described = by_id;
    for asked in asked {
        let rule = find(context, group, direction, &asked, &rules).ok_or_else(no_permission)?;
        described.push((rule.id, asked.description));
    }
    let described = described.into_iter().map(|(id, description)| {
        Edit::DescribeRule(group.name.clone(), id, description.unwrap_or_default())
    });
    Ok(Draft {
        changes: edits(group, described.collect()),
        answer: Xml::done().into_string(),
        ..Draft::default()
    })
}

pub(super) fn describe(params: &mut Params, context: &Context<'_>) -> Result<Xml> {
    let ids = params.texts("SecurityGroupRuleId")?;
    let filters = Filters::take(params, &["group-id", "security-group-rule-id"])?;
    let question = format!("rules {}", filters.text());
    let paging = Paging::take(params, (5, 1000), &question)?;
    if paging.is_asked() && !ids.is_empty() {
        return Err(Fault::combination(
            "The parameter maxResults cannot be used with securityGroupRuleIds; leave it out",
        ));
    }
    let groups = filters.values("group-id").map(|ids| {
        let ids = ids.iter().map(|id| read_group_filter(id));
        ids.collect::<Result<Vec<_>>>()
    });
    let groups = groups.transpose()?;
    let passes = |found: &RuleRef<'_>| {
        filters.pass(context.world.notes(found.rule.id), |name| match name {
            "group-id" => vec![found.group.id.to_string()],
            _ => vec![found.rule.id.to_string()],
        })
    };
    let page = if !ids.is_empty() {
        let rules = ids.iter().map(|text| {
            let found = read_id(text)?.and_then(|id| context.world.rule(id));
            found.ok_or_else(|| not_found(text))
        });
        let mut items = rules.collect::<Result<Vec<_>>>()?;
        items.retain(passes);
        Page { items, next: None }
    } else if let Some(groups) = groups {
        // Only these are looked through, of however many.
        let groups = groups.into_iter().flatten();
        let groups = groups.filter_map(|id| context.world.group(id));
        let mut rules: Vec<_> = groups.flat_map(GroupRef::rules).filter(passes).collect();
        rules.sort_by_key(|found| found.rule.id);
        rules.dedup_by_key(|found| found.rule.id);
        paging.page(rules, |found| found.rule.id.to_string())
    } else {
        let behind = paging.behind().and_then(|id| id.parse().ok());
        let rules = context.world.rules(behind).filter(passes);
        paging.page(rules, |found| found.rule.id.to_string())
    };
    let mut xml = Xml::default();
    let none = Brought::default();
    xml.set("securityGroupRuleSet", page.items, |xml, found| {
        let notes = context.world.notes(found.rule.id);
        permissions::write_rule(xml, context, found, &none, notes);
    });
    xml.text_if("nextToken", page.next);
    Ok(xml)
}

fn read_group_filter(text: &str) -> Result<Option<crate::policy::names::GroupId>> {
    let malformed = |message| Fault::new("InvalidGroupId.Malformed", message);
    match text {
        "" => Err(malformed(
            "The security-group ID '' is malformed".to_owned(),
        )),
        text => groups::read_id(text)
            .map_err(|_| malformed(format!("The security group ID '{text}' is malformed"))),
    }
}
