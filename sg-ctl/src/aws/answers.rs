//! The answers of the AWS command line, put together from any number of files.

use std::collections::BTreeMap;

use serde::Deserialize;

/// Why a file is no answer that can be used.
#[derive(Debug, thiserror::Error)]
pub enum AnswerError {
    /// Not JSON, or not of the shape that AWS documents.
    #[error("{file}: {source}")]
    Json {
        /// The file.
        file: String,
        /// Where and what.
        source: serde_json::Error,
    },
    /// JSON about something else.
    #[error(
        "{file} has neither SecurityGroups nor PrefixLists nor Entries; save what `aws ec2 \
         describe-security-groups --output json` prints, or describe-managed-prefix-lists, or \
         get-managed-prefix-list-entries"
    )]
    Other {
        /// The file.
        file: String,
    },
    /// Entries do not say whose they are.
    #[error(
        "{file} has the entries of a prefix list but does not say of which; put the list's id into \
         the file's name, like pl-0123456789abcdef0.json"
    )]
    WhoseEntries {
        /// The file.
        file: String,
    },
    /// One page of several.
    #[error(
        "{file} is one page of several (it has a NextToken); ask again without --max-items and \
         --no-paginate"
    )]
    Page {
        /// The file.
        file: String,
    },
}

/// Everything that the files say.
#[derive(Debug, Default)]
pub struct Answers {
    pub(super) groups: Vec<SecurityGroup>,
    pub(super) lists: Vec<PrefixList>,
    /// By the id of their list.
    pub(super) entries: BTreeMap<String, Vec<Entry>>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Answer {
    security_groups: Option<Vec<SecurityGroup>>,
    prefix_lists: Option<Vec<PrefixList>>,
    entries: Option<Vec<Entry>>,
    next_token: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct SecurityGroup {
    pub(super) group_id: String,
    pub(super) group_name: String,
    #[serde(default)]
    pub(super) description: String,
    pub(super) owner_id: Option<String>,
    pub(super) vpc_id: Option<String>,
    #[serde(default)]
    pub(super) ip_permissions: Vec<IpPermission>,
    #[serde(default)]
    pub(super) ip_permissions_egress: Vec<IpPermission>,
    #[serde(default)]
    pub(super) tags: Vec<Tag>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Tag {
    pub(super) key: String,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct IpPermission {
    pub(super) ip_protocol: String,
    pub(super) from_port: Option<i32>,
    pub(super) to_port: Option<i32>,
    #[serde(default)]
    pub(super) ip_ranges: Vec<IpRange>,
    #[serde(default)]
    pub(super) ipv6_ranges: Vec<Ipv6Range>,
    #[serde(default)]
    pub(super) prefix_list_ids: Vec<PrefixListId>,
    #[serde(default)]
    pub(super) user_id_group_pairs: Vec<UserIdGroupPair>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct IpRange {
    pub(super) cidr_ip: String,
    #[serde(default)]
    pub(super) description: String,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Ipv6Range {
    pub(super) cidr_ipv6: String,
    #[serde(default)]
    pub(super) description: String,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct PrefixListId {
    pub(super) prefix_list_id: String,
    #[serde(default)]
    pub(super) description: String,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct UserIdGroupPair {
    pub(super) group_id: Option<String>,
    pub(super) user_id: Option<String>,
    pub(super) vpc_id: Option<String>,
    #[serde(default)]
    pub(super) description: String,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct PrefixList {
    pub(super) prefix_list_id: String,
    pub(super) prefix_list_name: String,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Entry {
    pub(super) cidr: String,
    #[serde(default)]
    pub(super) description: String,
}

impl Answers {
    /// Adds what one file says.
    pub fn read(&mut self, file: &str, text: &str) -> Result<(), AnswerError> {
        let answer: Answer = serde_json::from_str(text).map_err(|source| AnswerError::Json {
            file: file.to_owned(),
            source,
        })?;
        let file = || file.to_owned();
        if answer.next_token.is_some_and(|token| !token.is_empty()) {
            return Err(AnswerError::Page { file: file() });
        }
        let has_any = answer.security_groups.is_some()
            || answer.prefix_lists.is_some()
            || answer.entries.is_some();
        if !has_any {
            return Err(AnswerError::Other { file: file() });
        }
        self.groups
            .extend(answer.security_groups.unwrap_or_default());
        self.lists.extend(answer.prefix_lists.unwrap_or_default());
        if let Some(entries) = answer.entries {
            let whose =
                list_id(&file()).ok_or_else(|| AnswerError::WhoseEntries { file: file() })?;
            self.entries.entry(whose).or_default().extend(entries);
        }
        Ok(())
    }
}

/// The id of a prefix list in the last part of a file's name.
fn list_id(file: &str) -> Option<String> {
    let name = file.rsplit('/').next()?;
    let start = name.find("pl-")?;
    let digits = name.get(start + 3..)?;
    let length = digits.bytes().take_while(u8::is_ascii_hexdigit).count();
    (length >= 8).then(|| name.get(start..start + 3 + length).map(str::to_owned))?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_are_those_of_the_list_that_names_their_file() {
        assert_eq!(
            list_id("a/pl-63a5400a.json").as_deref(),
            Some("pl-63a5400a")
        );
        assert_eq!(
            list_id("entries-pl-0123456789abcdef0.json").as_deref(),
            Some("pl-0123456789abcdef0")
        );
        assert_eq!(list_id("pl-12.json"), None);
        assert_eq!(list_id("entries.json"), None);
    }

    #[test]
    fn what_is_no_answer_is_told_what_would_be_one() {
        let read = |text| {
            Answers::default()
                .read("a.json", text)
                .unwrap_err()
                .to_string()
        };
        assert!(read("{").starts_with("a.json: EOF"));
        assert!(read("{}").contains("describe-security-groups"));
        assert!(read("{\"Entries\": []}").contains("pl-0123456789abcdef0.json"));
        assert!(read("{\"SecurityGroups\": [], \"NextToken\": \"x\"}").contains("one page"));
        assert!(read("{\"SecurityGroups\": [{}]}").contains("GroupId"));
    }
}
