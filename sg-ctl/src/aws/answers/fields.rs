//! The fields of AWS's objects that are read, as its API reference has them.
//!
//! They are read leniently: YAML says numbers as text, and `--query` says null for what is not
//! there.

use std::fmt::Display;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, de};
use serde_json::Value;

#[derive(Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(in crate::aws) struct SecurityGroup {
    pub(in crate::aws) group_id: String,
    pub(in crate::aws) group_name: String,
    #[serde(default, deserialize_with = "or_default")]
    pub(in crate::aws) description: String,
    pub(in crate::aws) owner_id: Option<String>,
    pub(in crate::aws) vpc_id: Option<String>,
    /// Always there in an answer, and not in all that `--query` takes out of one.
    pub(in crate::aws) ip_permissions: Option<Vec<IpPermission>>,
    pub(in crate::aws) ip_permissions_egress: Option<Vec<IpPermission>>,
    #[serde(default, deserialize_with = "or_default")]
    pub(in crate::aws) tags: Vec<Tag>,
}

#[derive(Debug, PartialEq, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(in crate::aws) struct Tag {
    pub(in crate::aws) key: String,
}

/// Several rules: one for each peer.
#[derive(Debug, PartialEq, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(in crate::aws) struct IpPermission {
    pub(in crate::aws) ip_protocol: String,
    #[serde(default, deserialize_with = "number")]
    pub(in crate::aws) from_port: Option<i32>,
    #[serde(default, deserialize_with = "number")]
    pub(in crate::aws) to_port: Option<i32>,
    #[serde(default, deserialize_with = "or_default")]
    pub(in crate::aws) ip_ranges: Vec<IpRange>,
    #[serde(default, deserialize_with = "or_default")]
    pub(in crate::aws) ipv6_ranges: Vec<Ipv6Range>,
    #[serde(default, deserialize_with = "or_default")]
    pub(in crate::aws) prefix_list_ids: Vec<PrefixListId>,
    #[serde(default, deserialize_with = "or_default")]
    pub(in crate::aws) user_id_group_pairs: Vec<UserIdGroupPair>,
}

#[derive(Debug, PartialEq, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(in crate::aws) struct IpRange {
    pub(in crate::aws) cidr_ip: String,
    #[serde(default, deserialize_with = "or_default")]
    pub(in crate::aws) description: String,
}

#[derive(Debug, PartialEq, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(in crate::aws) struct Ipv6Range {
    pub(in crate::aws) cidr_ipv6: String,
    #[serde(default, deserialize_with = "or_default")]
    pub(in crate::aws) description: String,
}

#[derive(Debug, PartialEq, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(in crate::aws) struct PrefixListId {
    pub(in crate::aws) prefix_list_id: String,
    #[serde(default, deserialize_with = "or_default")]
    pub(in crate::aws) description: String,
}

#[derive(Debug, PartialEq, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(in crate::aws) struct UserIdGroupPair {
    pub(in crate::aws) group_id: Option<String>,
    pub(in crate::aws) user_id: Option<String>,
    pub(in crate::aws) vpc_id: Option<String>,
    #[serde(default, deserialize_with = "or_default")]
    pub(in crate::aws) description: String,
}

/// One rule, with the id of its group, as a permission for one peer.
#[derive(Debug, Deserialize)]
#[serde(from = "FlatRule")]
pub(in crate::aws) struct SecurityGroupRule {
    pub(in crate::aws) group_id: String,
    pub(in crate::aws) group_owner_id: Option<String>,
    pub(in crate::aws) is_egress: bool,
    pub(in crate::aws) permission: IpPermission,
}

/// A rule as AWS writes it.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct FlatRule {
    group_id: String,
    group_owner_id: Option<String>,
    #[serde(deserialize_with = "boolean")]
    is_egress: bool,
    ip_protocol: String,
    #[serde(default, deserialize_with = "number")]
    from_port: Option<i32>,
    #[serde(default, deserialize_with = "number")]
    to_port: Option<i32>,
    cidr_ipv4: Option<String>,
    cidr_ipv6: Option<String>,
    prefix_list_id: Option<String>,
    referenced_group_info: Option<UserIdGroupPair>,
    #[serde(default, deserialize_with = "or_default")]
    description: String,
}

impl From<FlatRule> for SecurityGroupRule {
    fn from(rule: FlatRule) -> Self {
        let description = rule.description;
        let ranges = rule.cidr_ipv4.map(|cidr_ip| IpRange {
            cidr_ip,
            description: description.clone(),
        });
        let ranges_v6 = rule.cidr_ipv6.map(|cidr_ipv6| Ipv6Range {
            cidr_ipv6,
            description: description.clone(),
        });
        let lists = rule.prefix_list_id.map(|prefix_list_id| PrefixListId {
            prefix_list_id,
            description: description.clone(),
        });
        let groups = rule.referenced_group_info.map(|group| UserIdGroupPair {
            description,
            ..group
        });
        Self {
            group_id: rule.group_id,
            group_owner_id: rule.group_owner_id,
            is_egress: rule.is_egress,
            permission: IpPermission {
                ip_protocol: rule.ip_protocol,
                from_port: rule.from_port,
                to_port: rule.to_port,
                ip_ranges: ranges.into_iter().collect(),
                ipv6_ranges: ranges_v6.into_iter().collect(),
                prefix_list_ids: lists.into_iter().collect(),
                user_id_group_pairs: groups.into_iter().collect(),
            },
        }
    }
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(in crate::aws) struct PrefixList {
    pub(in crate::aws) prefix_list_id: String,
    pub(in crate::aws) prefix_list_name: String,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(in crate::aws) struct Entry {
    pub(in crate::aws) cidr: String,
    #[serde(default, deserialize_with = "or_default")]
    pub(in crate::aws) description: String,
}

fn or_default<'de, D: Deserializer<'de>, T: Deserialize<'de> + Default>(
    from: D,
) -> Result<T, D::Error> {
    Option::deserialize(from).map(Option::unwrap_or_default)
}

fn number<'de, D: Deserializer<'de>>(from: D) -> Result<Option<i32>, D::Error> {
    scalar(from, "not a number")
}

fn boolean<'de, D: Deserializer<'de>>(from: D) -> Result<bool, D::Error> {
    let found = scalar(from, "neither true nor false")?;
    found.ok_or_else(|| de::Error::custom("null is neither true nor false"))
}

fn scalar<'de, D: Deserializer<'de>, T: FromStr>(
    from: D,
    otherwise: impl Display,
) -> Result<Option<T>, D::Error> {
    let value = Value::deserialize(from)?;
    let text = match &value {
        Value::Null => return Ok(None),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    let wrong = || de::Error::custom(format!("{text} is {otherwise}"));
    text.parse().map(Some).map_err(|_| wrong())
}
