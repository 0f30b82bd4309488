//! What a command means by a name, where it does not say which VPC.
//!
//! `default` comes first; a name that `default` does not have and one other VPC has is that one's.

use crate::controller::{View, namespace};
use crate::policy::model::{Group, Interface, Policy, Vpc};
use crate::policy::names::{GroupName, InterfaceName, PrefixListName, VpcName};
use crate::policy::suggest::closest;

use super::error::{Error, Result};

/// The VPC of a group.
pub(super) fn vpc_of_group<'a>(
    policy: &'a Policy,
    asked: Option<&VpcName>,
    name: &GroupName,
) -> Result<(&'a VpcName, &'a Vpc, &'a GroupName, &'a Group)> {
    let names = |vpc: &'a Vpc| vpc.groups.keys().map(GroupName::as_str).collect();
    let has = |vpc: &Vpc| vpc.groups.contains_key(name);
    let (vpc_name, vpc) = vpc(policy, asked, "group", name.as_str(), has, names)?;
    match vpc.groups.get_key_value(name) {
        Some((name, group)) => Ok((vpc_name, vpc, name, group)),
        None => Err(unknown("group", name.as_str(), Vec::new())),
    }
}

/// The VPC of a prefix list.
pub(super) fn vpc_of_prefix_list<'a>(
    policy: &'a Policy,
    asked: Option<&VpcName>,
    name: &PrefixListName,
) -> Result<(&'a VpcName, &'a Vpc)> {
    let names = |vpc: &'a Vpc| {
        vpc.prefix_lists
            .keys()
            .map(PrefixListName::as_str)
            .collect()
    };
    let has = |vpc: &Vpc| vpc.prefix_lists.contains_key(name);
    vpc(policy, asked, "prefix list", name.as_str(), has, names)
}

/// An attached interface, and its VPC.
pub(super) fn interface<'a>(
    policy: &'a Policy,
    vpc: Option<&VpcName>,
    netns: Option<&str>,
    name: &InterfaceName,
) -> Result<(&'a VpcName, &'a Interface)> {
    if let Some(asked) = vpc {
        named_vpc(policy, asked)?;
    }
    let vpcs = policy.vpcs.iter();
    let mut found: Vec<(&VpcName, &Interface)> = vpcs
        .filter(|(name, _)| vpc.is_none_or(|asked| asked == *name))
        .filter_map(|(vpc_name, vpc)| Some((vpc_name, vpc.interfaces.get(name)?)))
        .collect();
    if let Some(netns) = netns {
        found.retain(|(_, interface)| is_in(interface, netns));
    }
    match found.as_slice() {
        [found] => Ok(*found),
        [] => {
            // A mistyped namespace is told as that.
            if let Some(netns) = netns {
                namespace(Some(netns))?;
            }
            let known = policy.vpcs.values().flat_map(|vpc| vpc.interfaces.keys());
            let known = known.map(InterfaceName::as_str);
            // The same name elsewhere is no better guess.
            let meant = closest(name.as_str(), known.filter(|known| *known != name.as_str()));
            Err(Error::NotAttached {
                name: name.to_string(),
                meant: meant.map(str::to_owned),
            })
        }
        several => {
            let places = several.iter().map(|(vpc, interface)| {
                let netns = interface
                    .netns
                    .as_deref()
                    .unwrap_or("the machine's own namespace");
                format!("VPC \"{vpc}\" in {netns}")
            });
            Err(Error::AttachedOften {
                name: name.clone(),
                places: places.collect::<Vec<_>>().join(", "),
            })
        }
    }
}

/// An interface that is looked at, and its VPC. Where an entry matches devices, its name means the
/// only device it has, and so does the name of a device alone.
pub(super) fn present(
    view: &View,
    vpc: Option<&VpcName>,
    netns: Option<&str>,
    name: &InterfaceName,
) -> Result<(VpcName, InterfaceName)> {
    let entry = name.entry().parse()?;
    let found = interface(&view.policy, vpc, netns, &entry);
    if let Ok((vpc, interface)) = &found
        && interface.matching.is_some() == name.device().is_some()
    {
        return Ok((VpcName::clone(vpc), name.clone()));
    }
    let states = view.interface_states()?;
    let is_meant = |(of, present): &(&VpcName, &InterfaceName)| {
        let interface = view
            .policy
            .vpcs
            .get(*of)
            .and_then(|vpc| vpc.interface(present));
        present.device().is_some()
            && present.is_meant_by(name)
            && vpc.is_none_or(|vpc| vpc == *of)
            && netns.is_none_or(|netns| interface.is_some_and(|found| is_in(found, netns)))
    };
    let meant: Vec<_> = states.present().filter(is_meant).collect();
    match (meant.as_slice(), found) {
        ([(vpc, only)], _) => Ok((VpcName::clone(vpc), InterfaceName::clone(only))),
        ([], Err(error)) => Err(error),
        ([], Ok(_)) => Err(Error::NoDevice { name: name.clone() }),
        (several, _) => {
            let names = several.iter().map(|(_, name)| name.as_str());
            Err(Error::SeveralDevices {
                name: name.clone(),
                devices: names.collect::<Vec<_>>().join(", "),
            })
        }
    }
}

/// By the name first, because a namespace that has gone can still be named.
pub(super) fn is_in(interface: &Interface, netns: &str) -> bool {
    if interface.netns.as_deref() == Some(netns) {
        return true;
    }
    let ids = namespace(interface.netns.as_deref())
        .and_then(|found| Ok((found.id(), namespace(Some(netns))?.id())));
    ids.is_ok_and(|(found, asked)| found == asked)
}

/// A VPC that was named, if there is one of that name.
pub(super) fn named_vpc<'a>(policy: &'a Policy, name: &VpcName) -> Result<(&'a VpcName, &'a Vpc)> {
    let found = policy.vpcs.get_key_value(name);
    found.ok_or_else(|| Error::NoVpc {
        name: name.clone(),
        meant: closest(name.as_str(), policy.vpcs.keys().map(VpcName::as_str)).map(str::to_owned),
    })
}

fn vpc<'a>(
    policy: &'a Policy,
    asked: Option<&VpcName>,
    what: &'static str,
    name: &str,
    has: impl Fn(&Vpc) -> bool,
    names: impl Fn(&'a Vpc) -> Vec<&'a str>,
) -> Result<(&'a VpcName, &'a Vpc)> {
    if let Some(asked) = asked {
        let (vpc_name, vpc) = named_vpc(policy, asked)?;
        return match has(vpc) {
            true => Ok((vpc_name, vpc)),
            false => Err(unknown(what, name, names(vpc))),
        };
    }
    let default = VpcName::default();
    let candidates: Vec<_> = policy.vpcs.iter().filter(|(_, vpc)| has(vpc)).collect();
    let preferred = candidates.iter().find(|(name, _)| **name == default);
    match (preferred, candidates.as_slice()) {
        (Some(found), _) | (None, [found]) => Ok(*found),
        (None, []) => {
            let known = policy.vpcs.values().flat_map(names).collect();
            Err(unknown(what, name, known))
        }
        (None, several) => {
            let vpcs: Vec<_> = several
                .iter()
                .map(|(name, _)| format!("\"{name}\""))
                .collect();
            Err(Error::Ambiguous {
                what,
                name: name.to_owned(),
                vpcs: vpcs.join(", "),
            })
        }
    }
}

fn unknown(what: &'static str, name: &str, known: Vec<&str>) -> Error {
    Error::Unknown {
        what,
        name: name.to_owned(),
        meant: closest(name, known).map(str::to_owned),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::file::PolicyFile;

    fn policy(files: &[&str]) -> Policy {
        files.iter().fold(Policy::default(), |policy, text| {
            PolicyFile::parse("test", text)
                .unwrap()
                .to_policy(&policy)
                .unwrap()
        })
    }

    fn check(policy: &Policy, asked: Option<&str>, group: &str, wanted: &str) {
        let asked = asked.map(|name| name.parse().unwrap());
        let found = vpc_of_group(policy, asked.as_ref(), &group.parse().unwrap());
        let told = match found {
            Ok((vpc, _, group, _)) => format!("{vpc} {group}"),
            Err(error) => error.to_string(),
        };
        assert_eq!(told, wanted);
    }

    #[test]
    fn a_group_is_found_where_it_can_only_be() {
        let policy = policy(&[
            "groups: {web: {}, both: {}}",
            "{vpc: prod, groups: {app: {}, both: {}, twice: {}}}",
            "{vpc: test, groups: {twice: {}}}",
        ]);
        check(&policy, None, "WEB", "default web");
        check(&policy, None, "app", "prod app");
        check(&policy, None, "both", "default both");
        check(&policy, Some("prod"), "both", "prod both");
        check(
            &policy,
            None,
            "twice",
            "group \"twice\" is in the VPCs \"prod\", \"test\"; say which with --vpc",
        );
        check(
            &policy,
            None,
            "wbe",
            "there is no group \"wbe\"; did you mean \"web\"?",
        );
        check(
            &policy,
            None,
            "zzz",
            "there is no group \"zzz\"; create it first",
        );
        check(
            &policy,
            Some("test"),
            "app",
            "there is no group \"app\"; create it first",
        );
        check(
            &policy,
            Some("prd"),
            "app",
            "there is no VPC \"prd\"; did you mean \"prod\"?",
        );
    }
}
