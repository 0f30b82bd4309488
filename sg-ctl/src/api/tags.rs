//! Tags: notes whose names start with `tag:`.

use std::collections::BTreeMap;

use super::Context;
use super::fault::{Fault, Result};
use super::filters::Filters;
use super::front::Draft;
use super::groups;
use super::paging::Paging;
use super::query::Params;
use super::world::Named;
use super::xml::Xml;
use crate::policy::names::{InterfaceId, PrefixListId, RuleId, SubnetId, VpcId};
use crate::store::{Annotation, Notes};

const MARK: &str = "tag:";
const MOST: usize = 50;
const LONGEST_KEY: usize = 128;
const LONGEST_VALUE: usize = 256;

/// Kinds of objects that can have tags: how their ids start, and what the kind is called.
const KINDS: [(&str, &str); 6] = [
    ("sg-", "security-group"),
    ("sgr-", "security-group-rule"),
    ("pl-", "prefix-list"),
    ("eni-", "network-interface"),
    ("vpc-", "vpc"),
    ("subnet-", "subnet"),
];

/// The tags among the notes of an object, in the order of their keys.
pub(super) fn of(notes: Option<&Notes>) -> impl Iterator<Item = (&str, &str)> {
    let notes = notes.into_iter().flatten();
    notes.filter_map(|(name, value)| Some((name.strip_prefix(MARK)?, value.as_str())))
}

/// Takes the tags that an object is made with. They must be for its kind.
pub(super) fn take_for(params: &mut Params, kind: &str) -> Result<Notes> {
    let specifications = params.each("TagSpecification", |one| {
        let given = one.needed("ResourceType")?;
        if given != kind {
            return Err(Fault::value(format!(
                "'{given}' is not a valid taggable resource type for this operation; use '{kind}'"
            )));
        }
        one.each("Tag", take_tag)
    })?;
    let mut notes = Notes::new();
    for (key, value) in specifications.into_iter().flatten() {
        if notes.insert(format!("{MARK}{key}"), value).is_some() {
            return Err(Fault::value(format!(
                "Duplicate tag key '{key}' specified."
            )));
        }
    }
    check_count(notes.len())?;
    Ok(notes)
}

/// The annotations that give an object its tags.
pub(super) fn set(object: impl ToString, notes: &Notes) -> Vec<Annotation> {
    let object = object.to_string();
    let notes = notes.iter();
    notes
        .map(|(name, value)| Annotation::set(&object, name, value))
        .collect()
}

fn take_tag(tag: &mut Params) -> Result<(String, String)> {
    let key = tag.text("Key")?.unwrap_or_default();
    let value = tag.text_or_empty("Value")?.unwrap_or_default();
    check_key(&key)?;
    let is_text = |text: &str| !text.chars().any(char::is_control);
    if value.chars().count() > LONGEST_VALUE || !is_text(&value) {
        return Err(Fault::value(format!(
            "Tag value exceeds the maximum length of {LONGEST_VALUE} characters, or has control \
             characters"
        )));
    }
    Ok((key, value))
}

fn check_key(key: &str) -> Result<()> {
    let is_text = !key.chars().any(char::is_control);
    match key.chars().count() {
        0 => Err(Fault::new(
            "InvalidParameterValue",
            "Tag key cannot be empty.",
        )),
        length if length > LONGEST_KEY || !is_text => Err(Fault::new(
            "InvalidTagKey.Malformed",
            format!(
                "Tag key exceeds the maximum length of {LONGEST_KEY} characters, or has control characters"
            ),
        )),
        _ if key.to_ascii_lowercase().starts_with("aws:") => Err(Fault::value(
            "Tag keys starting with 'aws:' are reserved for internal use",
        )),
        _ => Ok(()),
    }
}

fn check_count(count: usize) -> Result<()> {
    match count {
        0..=MOST => Ok(()),
        _ => Err(Fault::new(
            "TagLimitExceeded",
            format!("A resource has at most {MOST} tags"),
        )),
    }
}

/// Makes sure that an object is there.
fn check_object(context: &Context<'_>, id: &str) -> Result<()> {
    let world = context.world;
    let (exists, code) = match KINDS.iter().find(|(start, _)| id.starts_with(start)) {
        Some((_, "security-group")) => return groups::by_id(context, id).map(drop),
        Some((start, "security-group-rule")) => (
            matches!(Named::<RuleId>::read(id, start), Named::Id(id) if world.rule(id).is_some()),
            "InvalidSecurityGroupRuleId.NotFound",
        ),
        Some((start, "prefix-list")) => (
            matches!(Named::<PrefixListId>::read(id, start), Named::Id(id)
                if !world.prefix_list_places(id).is_empty()),
            "InvalidPrefixListID.NotFound",
        ),
        Some((start, "network-interface")) => (
            matches!(Named::<InterfaceId>::read(id, start), Named::Id(id)
                if super::network_interfaces::exists(context, id)),
            "InvalidNetworkInterfaceID.NotFound",
        ),
        Some((start, "vpc")) => (
            matches!(Named::<VpcId>::read(id, start), Named::Id(id) if world.vpc(id).is_some()),
            "InvalidVpcID.NotFound",
        ),
        Some((start, _)) => (
            matches!(Named::<SubnetId>::read(id, start), Named::Id(id)
                if super::subnets::by_id(context, id).is_some()),
            "InvalidSubnetID.NotFound",
        ),
        None => (false, "InvalidID"),
    };
    match exists {
        true => Ok(()),
        false => Err(Fault::new(code, format!("The ID '{id}' does not exist"))),
    }
}

fn take_objects(params: &mut Params, context: &Context<'_>) -> Result<Vec<String>> {
    let objects = params.texts("ResourceId")?;
    if objects.is_empty() {
        return Err(Fault::missing("resourceIdSet"));
    }
    objects
        .iter()
        .try_for_each(|object| check_object(context, object))?;
    Ok(objects)
}

pub(super) fn create(params: &mut Params, context: &Context<'_>) -> Result<Draft> {
    let objects = take_objects(params, context)?;
    let tags: BTreeMap<String, String> = params.each("Tag", take_tag)?.into_iter().collect();
    if tags.is_empty() {
        return Err(Fault::missing("tagSet"));
    }
    for object in &objects {
        let had = of(context.world.notes(object)).filter(|(key, _)| !tags.contains_key(*key));
        check_count(had.count() + tags.len())?;
    }
    let annotations = objects.iter().flat_map(|object| {
        let tags = tags.iter();
        tags.map(move |(key, value)| Annotation::set(object, format!("{MARK}{key}"), value))
    });
    Ok(Draft {
        annotations: annotations.collect(),
        answer: Xml::done().into_string(),
        ..Draft::default()
    })
}

/// A tag with a value goes only where it has that value; without tags all go.
pub(super) fn delete(params: &mut Params, context: &Context<'_>) -> Result<Draft> {
    let objects = take_objects(params, context)?;
    let tags = params.each("Tag", |tag| {
        let key = tag.needed("Key")?;
        Ok((key, tag.text_or_empty("Value")?))
    })?;
    let mut annotations = Vec::new();
    for object in &objects {
        for (key, value) in of(context.world.notes(object)) {
            let is_meant = |(meant, wanted): &(String, Option<String>)| {
                meant == key && wanted.as_ref().is_none_or(|wanted| wanted == value)
            };
            if tags.is_empty() || tags.iter().any(is_meant) {
                annotations.push(Annotation::unset(object, format!("{MARK}{key}")));
            }
        }
    }
    Ok(Draft {
        annotations,
        answer: Xml::done().into_string(),
        ..Draft::default()
    })
}

pub(super) fn describe(params: &mut Params, context: &Context<'_>) -> Result<Xml> {
    let filters = Filters::take(params, &["key", "resource-id", "resource-type", "value"])?;
    let question = format!("tags {}", filters.text());
    let paging = Paging::take(params, (5, 1000), &question)?;
    let tags = KINDS.iter().flat_map(|(start, kind)| {
        let objects = context.world.noted(start);
        objects.flat_map(move |(object, notes)| {
            of(Some(notes)).map(move |(key, value)| (object, *kind, key, value, notes))
        })
    });
    let mut tags: Vec<_> = tags
        .filter(|(object, kind, key, value, notes)| {
            filters.pass(Some(notes), |name| {
                let found = match name {
                    "key" => key,
                    "resource-id" => object,
                    "resource-type" => kind,
                    _ => value,
                };
                vec![(*found).to_owned()]
            })
        })
        .collect();
    let place = |object: &str, key: &str| format!("{object} {key}");
    tags.sort_by_key(|(object, _, key, ..)| place(object, key));
    let page = paging.page(tags, |(object, _, key, ..)| place(object, key));
    let mut xml = Xml::default();
    xml.set(
        "tagSet",
        page.items,
        |xml, (object, kind, key, value, _)| {
            xml.text("resourceId", object);
            xml.text("resourceType", kind);
            xml.text("key", key);
            xml.text("value", value);
        },
    );
    xml.text_if("nextToken", page.next);
    Ok(xml)
}
