//! Prefix lists. The cloud has them beside its VPCs, and the policy has them in each: one that rules of
//! several VPCs name is in all of these, with one id.
//!
//! The prefixes stand in the policy. What else clients know of a list (its size, the descriptions of its
//! entries, its former versions) is noted beside it.

use std::collections::{BTreeMap, BTreeSet};

use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::Context;
use super::fault::{Fault, Result};
use super::filters::Filters;
use super::front::Draft;
use super::paging::{Page, Paging};
use super::permissions::Brought;
use super::query::Params;
use super::tags;
use super::tokens::Token;
use super::world::{GroupRef, Named, VpcRef};
use super::xml::Xml;
use crate::policy::change::{Change, Edit};
use crate::policy::model::{Peer, Vpc};
use crate::policy::names::{PrefixListId, PrefixListName, VpcName};
use crate::policy::prefix::parse_prefix;
use crate::store::Annotation;

const FILTERS: &[&str] = &["owner-id", "prefix-list-id", "prefix-list-name"];

const NOTE: &str = "prefix-list";

/// Former entries are noted under this and the version's number.
const VERSION: &str = "version:";

/// More entries than any list may have.
const MOST_ENTRIES: usize = 1 << 20;

/// Versions that are kept; the oldest go.
const MOST_VERSIONS: usize = 1_000;

/// The most characters of a name.
const LONGEST_NAME: usize = 255;

/// The state of a list that was to be deleted and that rules name.
const DELETE_FAILED: &str = "delete-failed";

/// Who owns what is there from the start.
const PROVIDER: &str = "AWS";

/// What is known of a list besides its prefixes.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Facts {
    name: String,
    family: Family,
    most: usize,
    version: u64,
    state: String,
    descriptions: BTreeMap<IpNet, String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
enum Family {
    #[serde(rename = "IPv4")]
    V4,
    #[serde(rename = "IPv6")]
    V6,
}

impl Family {
    fn name(self) -> &'static str {
        match self {
            Self::V4 => "IPv4",
            Self::V6 => "IPv6",
        }
    }

    fn of(prefix: &IpNet) -> Self {
        match prefix {
            IpNet::V4(_) => Self::V4,
            IpNet::V6(_) => Self::V6,
        }
    }
}

/// A list.
#[derive(Clone, Debug)]
struct List<'a> {
    id: PrefixListId,
    owner: &'a str,
    entries: BTreeSet<IpNet>,
    facts: Facts,
}

/// An entry with its description.
type Entry = (IpNet, String);

impl List<'_> {
    fn described(&self) -> Vec<Entry> {
        let entries = self.entries.iter();
        entries
            .map(|entry| {
                let description = self.facts.descriptions.get(entry);
                (*entry, description.cloned().unwrap_or_default())
            })
            .collect()
    }
}

pub(super) fn read_id(text: &str) -> Result<PrefixListId> {
    match Named::read(text, "pl-") {
        Named::Id(id) => Ok(id),
        Named::Old => Err(missing(text)),
        Named::Malformed => Err(Fault::new(
            "InvalidPrefixListId.Malformed",
            format!("Invalid id: \"{text}\" (expecting \"pl-...\")"),
        )),
    }
}

pub(super) fn not_found(id: PrefixListId) -> Fault {
    missing(&id.to_string())
}

fn missing(id: &str) -> Fault {
    let message = format!("The prefix list ID '{id}' does not exist");
    Fault::new("InvalidPrefixListID.NotFound", message)
}

/// The lists that are there from the start: the services that groups never filter.
fn provided(context: &Context<'_>) -> Vec<(PrefixListId, Family, BTreeSet<IpNet>)> {
    let services = context.world.default_vpc();
    let services = services.map(|vpc| vpc.vpc.link_local_services.clone());
    let services: BTreeSet<IpNet> = services.into_iter().flatten().map(IpNet::from).collect();
    [Family::V4, Family::V6]
        .into_iter()
        .filter_map(|family| {
            let of_family = services.iter().copied();
            let of_family = of_family.filter(|prefix| Family::of(prefix) == family);
            Some((provided_id(family)?, family, of_family.collect()))
        })
        .collect()
}

fn provided_id(family: Family) -> Option<PrefixListId> {
    let hash = Sha256::digest(format!("the link-local services of {}", family.name()));
    let bits = hash.iter().take(16);
    let bits = bits.fold(0, |bits, byte| bits << 8 | u128::from(*byte));
    PrefixListId::from_number(bits >> 60)
}

fn find<'a>(context: &Context<'a>, id: PrefixListId) -> Option<List<'a>> {
    let mut provided = provided(context).into_iter();
    if let Some((id, family, entries)) = provided.find(|(provided, ..)| *provided == id) {
        let region = context.region;
        let kind = family.name().to_ascii_lowercase();
        return Some(List {
            id,
            owner: PROVIDER,
            facts: Facts {
                name: format!("com.amazonaws.{region}.link-local-services.{kind}"),
                family,
                most: entries.len(),
                version: 1,
                state: "create-complete".to_owned(),
                descriptions: BTreeMap::new(),
            },
            entries,
        });
    }
    let (vpc, name) = context.world.prefix_list_places(id).first()?;
    let entries = context.world.policy.vpcs.get(vpc)?.prefix_lists.get(name)?;
    let noted = context.world.note(id, NOTE);
    let noted = noted.and_then(|text| serde_json::from_str(text).ok());
    let facts = noted.unwrap_or_else(|| Facts {
        name: name.to_string(),
        family: entries.first().map_or(Family::V4, Family::of),
        most: entries.len().max(1),
        version: 1,
        state: "create-complete".to_owned(),
        descriptions: BTreeMap::new(),
    });
    Some(List {
        id,
        owner: context.account,
        entries: entries.clone(),
        facts,
    })
}

fn take<'a>(params: &mut Params, context: &Context<'a>) -> Result<List<'a>> {
    let id = read_id(&params.needed("PrefixListId")?)?;
    find(context, id).ok_or_else(|| not_found(id))
}

/// One that clients may change.
fn take_own<'a>(params: &mut Params, context: &Context<'a>) -> Result<List<'a>> {
    let list = take(params, context)?;
    match list.owner {
        PROVIDER => Err(Fault::new(
            "UnauthorizedOperation",
            format!(
                "The prefix list '{}' is there from the start and cannot be changed",
                list.id
            ),
        )),
        _ => Ok(list),
    }
}

/// What a VPC that does not have the list yet would have of it, and under which name.
pub(super) fn copy(
    context: &Context<'_>,
    vpc: &Vpc,
    id: PrefixListId,
) -> Result<(PrefixListName, BTreeSet<IpNet>)> {
    let list = find(context, id).ok_or_else(|| not_found(id))?;
    Ok((free_name(vpc, &list.facts.name, id)?, list.entries))
}

/// The name of a list, or one that comes near it where another list of the VPC has that name.
fn free_name(vpc: &Vpc, wanted: &str, id: PrefixListId) -> Result<PrefixListName> {
    let id = id.to_string();
    let digits = id.trim_start_matches("pl-");
    let start: String = wanted.chars().take(200).collect();
    let candidates = [
        wanted.to_owned(),
        format!("{start}-{digits}"),
        format!("list-{digits}"),
    ];
    let mut names = candidates.iter().filter_map(|name| name.parse().ok());
    names
        .find(|name| !vpc.prefix_lists.contains_key(name))
        .ok_or_else(|| Fault::internal(format!("no name is free for {id}")))
}

/// How many rules a list counts as, and whether it is of IPv4.
pub(super) fn weight(
    context: &Context<'_>,
    vpc: VpcRef<'_>,
    name: &PrefixListName,
    brought: &Brought,
) -> (usize, bool) {
    let id = context.world.prefix_list_id(vpc.name, name);
    let id = id.or_else(|| brought.id(name));
    match id.and_then(|id| find(context, id)) {
        Some(list) => (list.facts.most, list.facts.family == Family::V4),
        None => (1, true),
    }
}

/// The groups whose rules name a list.
fn users<'a>(context: &Context<'a>, id: PrefixListId) -> Vec<GroupRef<'a>> {
    let places = context.world.prefix_list_places(id);
    let names_it = |group: &GroupRef<'_>| {
        group
            .group
            .rules
            .iter()
            .any(|rule| match &rule.permission.peer {
                Peer::PrefixList(name) => {
                    let mut places = places.iter();
                    places.any(|(vpc, list)| vpc == group.vpc.name && list == name)
                }
                _ => false,
            })
    };
    context.world.groups(None).filter(names_it).collect()
}

fn write(
    xml: &mut Xml,
    context: &Context<'_>,
    list: &List<'_>,
    tags: Option<&crate::store::Notes>,
) {
    let facts = &list.facts;
    xml.text("prefixListId", list.id);
    xml.text("addressFamily", facts.family.name());
    xml.text("state", &facts.state);
    if facts.state == DELETE_FAILED {
        let users = users(context, list.id).into_iter().take(10);
        let users: Vec<String> = users.map(|group| group.id.to_string()).collect();
        let message = format!(
            "The prefix list is named by rules of {}; remove these, and delete it again",
            users.join(", ")
        );
        xml.text_if("stateMessage", Some(message).filter(|_| !users.is_empty()));
    }
    let account = match list.owner {
        PROVIDER => "aws",
        own => own,
    };
    let (region, id) = (context.region, list.id);
    xml.text(
        "prefixListArn",
        format!("arn:aws:ec2:{region}:{account}:prefix-list/{id}"),
    );
    xml.text("prefixListName", &facts.name);
    if list.owner != PROVIDER {
        xml.text("maxEntries", facts.most);
        xml.text("version", facts.version);
    }
    xml.tags(tags);
    xml.text("ownerId", list.owner);
}

fn answer(context: &Context<'_>, list: &List<'_>, tags: Option<&crate::store::Notes>) -> String {
    let mut xml = Xml::default();
    xml.element("prefixList", |xml| write(xml, context, list, tags));
    xml.into_string()
}

fn note(list: &List<'_>) -> Result<Annotation> {
    let text = serde_json::to_string(&list.facts);
    let text = text.map_err(|error| Fault::internal(error.to_string()))?;
    Ok(Annotation::set(list.id, NOTE, text))
}

fn take_entries(params: &mut Params, name: &'static str) -> Result<Vec<Entry>> {
    params.each(name, |entry| {
        let cidr = entry.needed("Cidr")?;
        let description = entry.text("Description")?.unwrap_or_default();
        if description.chars().count() > LONGEST_NAME || description.chars().any(char::is_control) {
            return Err(Fault::value(format!(
                "The description of the entry {cidr} has more than {LONGEST_NAME} characters, or \
                 control characters"
            )));
        }
        Ok((read_cidr(&cidr)?, description))
    })
}

fn read_cidr(text: &str) -> Result<IpNet> {
    let read = parse_prefix(text).ok().filter(|_| text.contains('/'));
    read.ok_or_else(|| {
        Fault::value(format!(
            "The CIDR '{text}' is invalid; write one like 10.0.0.0/8 or 2001:db8::/32"
        ))
    })
}

fn check_family(facts: &Facts, entries: &[Entry]) -> Result<()> {
    let mut entries = entries.iter();
    match entries.find(|(entry, _)| Family::of(entry) != facts.family) {
        None => Ok(()),
        Some((entry, _)) => Err(Fault::value(format!(
            "The CIDR '{entry}' is not of the prefix list's address family, {}",
            facts.family.name()
        ))),
    }
}

fn check_size(facts: &Facts, entries: usize) -> Result<()> {
    match entries > facts.most {
        false => Ok(()),
        true => Err(Fault::new(
            "PrefixListMaxEntriesExceeded",
            format!(
                "The prefix list would have {entries} entries, and may have {}; change MaxEntries \
                 first",
                facts.most
            ),
        )),
    }
}

fn read_most(context: &Context<'_>, most: i64) -> Result<usize> {
    let limit = match context.quotas.aws {
        true => 1_000,
        false => MOST_ENTRIES,
    };
    match usize::try_from(most) {
        Ok(most) if (1..=limit).contains(&most) => Ok(most),
        _ => Err(Fault::value(format!(
            "Value ({most}) for parameter MaxEntries is invalid; use 1 to {limit}"
        ))),
    }
}

fn check_name(name: &str) -> Result<()> {
    let is_short = name.chars().count() <= LONGEST_NAME && !name.chars().any(char::is_control);
    match name.to_ascii_lowercase().starts_with("com.amazonaws") {
        true => Err(Fault::value(
            "The prefix list name must not start with 'com.amazonaws'",
        )),
        false if is_short => Ok(()),
        false => Err(Fault::value(format!(
            "The prefix list name has more than {LONGEST_NAME} characters, or control characters"
        ))),
    }
}

pub(super) fn create(params: &mut Params, context: &Context<'_>) -> Result<Draft> {
    let token = Token::take(params, context, "CreateManagedPrefixList")?;
    if let Some(answer) = token.answer() {
        return Ok(Draft::again(params, answer));
    }
    let name = params.needed("PrefixListName")?;
    check_name(&name)?;
    let family = match params.needed("AddressFamily")?.as_str() {
        "IPv4" => Family::V4,
        "IPv6" => Family::V6,
        other => {
            return Err(Fault::value(format!(
                "Value ({other}) for parameter AddressFamily is invalid; use IPv4 or IPv6"
            )));
        }
    };
    let most = params.number("MaxEntries")?;
    let most = most.ok_or_else(|| Fault::missing("MaxEntries"))?;
    let most = read_most(context, most)?;
    let entries = take_entries(params, "Entry")?;
    let tags = tags::take_for(params, "prefix-list")?;
    let count = context.world.prefix_lists().count();
    context.quotas.check_prefix_lists(count + 1)?;
    let mut list = List {
        id: PrefixListId::random(),
        owner: context.account,
        entries: BTreeSet::new(),
        facts: Facts {
            name,
            family,
            most,
            version: 1,
            state: "create-complete".to_owned(),
            descriptions: BTreeMap::new(),
        },
    };
    check_family(&list.facts, &entries)?;
    check_size(&list.facts, entries.len())?;
    for (entry, description) in entries {
        if !list.entries.insert(entry) {
            return Err(Fault::value(format!("The CIDR '{entry}' is there twice")));
        }
        describe_entry(&mut list.facts, entry, description);
    }
    let vpc = super::vpcs::default(context)?;
    let place = free_name(vpc.vpc, &list.facts.name, list.id)?;
    let answer = answer(context, &list, Some(&tags));
    let mut annotations = vec![
        Annotation::IdentifyPrefixList(vpc.name.clone(), place.clone(), list.id),
        note(&list)?,
    ];
    annotations.extend(tags::set(list.id, &tags));
    annotations.extend(token.notes(context, &answer));
    Ok(Draft {
        changes: vec![put(vpc.name, &place, &list.entries)],
        annotations,
        answer,
    })
}

fn put(vpc: &VpcName, name: &PrefixListName, entries: &BTreeSet<IpNet>) -> Change {
    Change {
        vpc: vpc.clone(),
        edit: Edit::PutPrefixList(name.clone(), entries.clone()),
    }
}

fn describe_entry(facts: &mut Facts, entry: IpNet, description: String) {
    match description.is_empty() {
        true => drop(facts.descriptions.remove(&entry)),
        false => drop(facts.descriptions.insert(entry, description)),
    }
}

fn values(list: &List<'_>, name: &str) -> Vec<String> {
    vec![match name {
        "owner-id" => list.owner.to_owned(),
        "prefix-list-name" => list.facts.name.clone(),
        _ => list.id.to_string(),
    }]
}

fn all<'a>(context: &Context<'a>) -> Vec<List<'a>> {
    let provided = provided(context);
    let ids = provided.iter().map(|(id, ..)| *id);
    let ids: BTreeSet<PrefixListId> = ids.chain(context.world.prefix_lists()).collect();
    ids.into_iter().filter_map(|id| find(context, id)).collect()
}

pub(super) fn describe(params: &mut Params, context: &Context<'_>) -> Result<Xml> {
    let ids = params.texts("PrefixListId")?;
    let filters = Filters::take(params, FILTERS)?;
    let question = format!("prefix lists {}", filters.text());
    let paging = Paging::take(params, (1, 100), &question)?;
    let passes = |list: &List<'_>| {
        let notes = context.world.notes(list.id);
        filters.pass(notes, |name| values(list, name))
    };
    let page = match ids.is_empty() {
        true => {
            let lists = all(context).into_iter().filter(passes);
            paging.page(lists, |list| list.id.to_string())
        }
        false => {
            let lists = ids.iter().map(|id| {
                let id = read_id(id)?;
                find(context, id).ok_or_else(|| not_found(id))
            });
            let mut items = lists.collect::<Result<Vec<_>>>()?;
            items.retain(passes);
            Page { items, next: None }
        }
    };
    let mut xml = Xml::default();
    xml.set("prefixListSet", page.items, |xml, list| {
        write(xml, context, &list, context.world.notes(list.id));
    });
    xml.text_if("nextToken", page.next);
    Ok(xml)
}

/// The lists that are there from the start, with their entries.
pub(super) fn describe_provided(params: &mut Params, context: &Context<'_>) -> Result<Xml> {
    let ids = params.texts("PrefixListId")?;
    let filters = Filters::take(params, FILTERS)?;
    let question = format!("provided lists {}", filters.text());
    let paging = Paging::take(params, (1, 1000), &question)?;
    let lists = all(context).into_iter().filter(|list| {
        let is_asked = ids.is_empty() || ids.iter().any(|id| *id == list.id.to_string());
        list.owner == PROVIDER && is_asked && filters.pass(None, |name| values(list, name))
    });
    let page = paging.page(lists, |list| list.id.to_string());
    if page.items.is_empty()
        && let Some(id) = ids.first()
    {
        return Err(not_found(read_id(id)?));
    }
    let mut xml = Xml::default();
    xml.set("prefixListSet", page.items, |xml, list| {
        xml.text("prefixListId", list.id);
        xml.text("prefixListName", &list.facts.name);
        xml.set("cidrSet", &list.entries, |xml, entry| xml.raw(entry));
    });
    xml.text_if("nextToken", page.next);
    Ok(xml)
}

/// The entries of a version.
fn entries_of(context: &Context<'_>, list: &List<'_>, version: u64) -> Result<Vec<Entry>> {
    if version == list.facts.version {
        return Ok(list.described());
    }
    let noted = context.world.note(list.id, &version_note(version));
    let noted = noted.and_then(|text| serde_json::from_str(text).ok());
    noted.ok_or_else(|| {
        Fault::value(format!(
            "The prefix list '{}' has no version {version}; it is at version {}",
            list.id, list.facts.version
        ))
    })
}

fn version_note(version: u64) -> String {
    format!("{VERSION}{version}")
}

fn take_version(params: &mut Params, name: &'static str) -> Result<Option<u64>> {
    let version = params.number(name)?;
    let refuse = || Fault::value(format!("{name} is the number of a version, from 1 on"));
    let version = version.map(|version| u64::try_from(version).map_err(|_| refuse()));
    version.transpose()
}

pub(super) fn entries(params: &mut Params, context: &Context<'_>) -> Result<Xml> {
    let list = take(params, context)?;
    let version = take_version(params, "TargetVersion")?.unwrap_or(list.facts.version);
    let question = format!("entries of {} {version}", list.id);
    let paging = Paging::take(params, (1, 100), &question)?;
    let mut entries = entries_of(context, &list, version)?;
    // Addresses sort otherwise than their texts.
    entries.sort_by_cached_key(|(entry, _)| entry.to_string());
    let page = paging.page(entries, |(entry, _)| entry.to_string());
    let mut xml = Xml::default();
    xml.set("entrySet", page.items, |xml, (entry, description)| {
        xml.text("cidr", entry);
        if !description.is_empty() {
            xml.text("description", description);
        }
    });
    xml.text_if("nextToken", page.next);
    Ok(xml)
}

pub(super) fn associations(params: &mut Params, context: &Context<'_>) -> Result<Xml> {
    let list = take(params, context)?;
    let question = format!("associations of {}", list.id);
    let paging = Paging::take(params, (5, 255), &question)?;
    let page = paging.page(users(context, list.id), |group| group.id.to_string());
    let mut xml = Xml::default();
    xml.set("prefixListAssociationSet", page.items, |xml, group| {
        xml.text("resourceId", group.id);
        xml.text("resourceOwner", context.account);
    });
    xml.text_if("nextToken", page.next);
    Ok(xml)
}

fn check_version(list: &List<'_>, given: Option<u64>) -> Result<()> {
    match given {
        Some(given) if given != list.facts.version => Err(Fault::new(
            "PrefixListVersionMismatch",
            format!(
                "The prefix list has the incorrect version number. It is at version {}, not {given}",
                list.facts.version
            ),
        )),
        _ => Ok(()),
    }
}

pub(super) fn modify(params: &mut Params, context: &Context<'_>) -> Result<Draft> {
    let mut list = take_own(params, context)?;
    let current = take_version(params, "CurrentVersion")?;
    let name = params.text("PrefixListName")?;
    let most = params.number("MaxEntries")?;
    let added = take_entries(params, "AddEntry")?;
    let removed = params.each("RemoveEntry", |entry| read_cidr(&entry.needed("Cidr")?))?;
    check_version(&list, current)?;
    let changes_entries = !(added.is_empty() && removed.is_empty());
    if changes_entries && most.is_some() {
        return Err(Fault::new(
            "InvalidPrefixListModification",
            "You cannot change the entries and MaxEntries of a prefix list in one request",
        ));
    }
    if let Some(both) = removed
        .iter()
        .find(|removed| added.iter().any(|(added, _)| added == *removed))
    {
        return Err(Fault::value(format!(
            "Request cannot contain Cidr {both} in both AddPrefixListEntries and \
             RemovePrefixListEntries"
        )));
    }
    let before = list.described();
    if let Some(name) = name {
        check_name(&name)?;
        list.facts.name = name;
    }
    if let Some(most) = most {
        list.facts.most = read_most(context, most)?;
    }
    for entry in removed {
        if !list.entries.remove(&entry) {
            return Err(Fault::value(format!(
                "The prefix list '{}' has no entry {entry}, so it cannot be removed",
                list.id
            )));
        }
        list.facts.descriptions.remove(&entry);
    }
    check_family(&list.facts, &added)?;
    for (entry, description) in added {
        list.entries.insert(entry);
        describe_entry(&mut list.facts, entry, description);
    }
    check_size(&list.facts, list.entries.len())?;
    list.facts.state = "modify-complete".to_owned();
    match changes_entries {
        true => next_version(context, list, before),
        false => Ok(Draft {
            annotations: vec![note(&list)?],
            answer: answer(context, &list, context.world.notes(list.id)),
            ..Draft::default()
        }),
    }
}

/// Gives a list its new entries everywhere, as a version of its own.
fn next_version(context: &Context<'_>, mut list: List<'_>, before: Vec<Entry>) -> Result<Draft> {
    let former = serde_json::to_string(&before);
    let former = former.map_err(|error| Fault::internal(error.to_string()))?;
    let mut annotations = vec![Annotation::set(
        list.id,
        version_note(list.facts.version),
        former,
    )];
    let notes = context.world.notes(list.id).into_iter().flatten();
    let versions = notes.filter_map(|(name, _)| name.strip_prefix(VERSION)?.parse::<u64>().ok());
    let versions: BTreeSet<u64> = versions.collect();
    if versions.len() >= MOST_VERSIONS
        && let Some(oldest) = versions.first()
    {
        annotations.push(Annotation::unset(list.id, version_note(*oldest)));
    }
    list.facts.version += 1;
    annotations.push(note(&list)?);
    let places = context.world.prefix_list_places(list.id).iter();
    let places = places.filter(|(vpc, name)| {
        let found = context.world.policy.vpcs.get(vpc);
        let found = found.and_then(|vpc| vpc.prefix_lists.get(name));
        found != Some(&list.entries)
    });
    Ok(Draft {
        changes: places
            .map(|(vpc, name)| put(vpc, name, &list.entries))
            .collect(),
        annotations,
        answer: answer(context, &list, context.world.notes(list.id)),
    })
}

pub(super) fn restore(params: &mut Params, context: &Context<'_>) -> Result<Draft> {
    let mut list = take_own(params, context)?;
    let previous = take_version(params, "PreviousVersion")?;
    let previous = previous.ok_or_else(|| Fault::missing("PreviousVersion"))?;
    let current = take_version(params, "CurrentVersion")?;
    check_version(
        &list,
        Some(current.ok_or_else(|| Fault::missing("CurrentVersion"))?),
    )?;
    let before = list.described();
    let entries = entries_of(context, &list, previous)?;
    check_size(&list.facts, entries.len())?;
    list.entries = entries.iter().map(|(entry, _)| *entry).collect();
    list.facts.descriptions = entries
        .into_iter()
        .filter(|(_, description)| !description.is_empty())
        .collect();
    list.facts.state = "restore-complete".to_owned();
    next_version(context, list, before)
}

/// A list that rules name stays, and says so afterwards: the cloud answers before it finds that out.
pub(super) fn delete(params: &mut Params, context: &Context<'_>) -> Result<Draft> {
    let mut list = take_own(params, context)?;
    let users = users(context, list.id);
    let notes = context.world.notes(list.id);
    let mut gone = list.clone();
    gone.facts.state = "delete-in-progress".to_owned();
    let answer = answer(context, &gone, notes);
    if !users.is_empty() {
        list.facts.state = DELETE_FAILED.to_owned();
        return Ok(Draft {
            annotations: vec![note(&list)?],
            answer,
            ..Draft::default()
        });
    }
    let places = context.world.prefix_list_places(list.id).iter();
    Ok(Draft {
        changes: places
            .map(|(vpc, name)| Change {
                vpc: vpc.clone(),
                edit: Edit::RemovePrefixList(name.clone()),
            })
            .collect(),
        annotations: vec![Annotation::forget(list.id)],
        answer,
    })
}
