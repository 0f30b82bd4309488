//! Access keys of the cloud's API.

use jiff::Timestamp;

use super::columns::{Align, Columns};
use super::style::Style;
use crate::api::Key;

/// A key that was just made, as clients' configuration files have it.
pub fn new_api_key(key: &Key) -> String {
    format!(
        "aws_access_key_id = {}\naws_secret_access_key = {}\n",
        key.id, key.secret
    )
}

/// All keys, without their secrets.
pub fn api_keys(keys: &[Key], style: Style) -> String {
    if keys.is_empty() {
        return "no access keys; `sg-ctl api key create NAME` makes one\n".to_owned();
    }
    let titles = ["name", "id", "may", "created"];
    let mut columns = Columns::titles([Align::Left; 4], titles);
    for key in keys {
        let created = i64::try_from(key.created_unix_time_s).ok();
        let created = created.and_then(|time| Timestamp::from_second(time).ok());
        columns.line([
            key.name.clone(),
            key.id.clone(),
            if key.read_only { "look" } else { "change" }.to_owned(),
            created.map_or_else(String::new, |time| time.to_string()),
        ]);
    }
    columns.finish(style, 0)
}
