//! One name for one thing in everything that `--json` prints.
//!
//! Commands grew their own names: an interface was `name` here and `interface` there. This pass adds
//! the one name beside each older one, for all commands at once, so that `docs/json.md` can describe
//! the names and not the commands. The older names stay until schema 3.

use serde_json::{Map, Value, json};
use sg_common::report::{Reason, Verdict};

/// Adds the one name of each thing, at every depth.
pub(super) fn make_uniform(value: &mut Value) {
    match value {
        Value::Array(items) => items.iter_mut().for_each(make_uniform),
        Value::Object(fields) => {
            for (key, kind) in NAMED {
                if let Some(Value::Array(items)) = fields.get_mut(*key) {
                    items.iter_mut().for_each(|item| name(item, kind));
                }
            }
            add_verdict(fields);
            add_rule(fields);
            // A rule's own name for itself is `id`.
            let inside = fields.iter_mut().filter(|(key, _)| *key != "rule");
            inside.for_each(|(_, value)| make_uniform(value));
        }
        _ => {}
    }
}

/// Lists whose members have a `name`, with what that names.
const NAMED: &[(&str, &str)] = &[
    ("interfaces", "interface"),
    ("groups", "group"),
    ("prefix_lists", "prefix_list"),
];

fn name(item: &mut Value, kind: &str) {
    if let Value::Object(fields) = item
        && let Some(name) = fields.get("name").cloned()
    {
        fields.entry(kind).or_insert(name);
    }
}

/// A reason says what became of the packet.
fn add_verdict(fields: &mut Map<String, Value>) {
    let Some(Value::String(reason)) = fields.get("reason") else {
        return;
    };
    let reason = Reason::ALL.iter().find(|known| known.name() == reason);
    if let Some(reason) = reason {
        let verdict = match reason.verdict() {
            Verdict::Pass => "pass",
            Verdict::Drop => "drop",
        };
        fields.entry("verdict").or_insert_with(|| verdict.into());
    }
}

/// A rule is `{id, group}`; where `rule` was its id alone, `rule_id` is too.
fn add_rule(fields: &mut Map<String, Value>) {
    let is_rule_id = |value: &Value| value.as_str().is_some_and(|id| id.starts_with("sgr-"));
    if let (Some(id), Some(group)) = (fields.get("id"), fields.get("group"))
        && is_rule_id(id)
        && !fields.contains_key("rule")
    {
        let rule = json!({"id": id, "group": group});
        fields.insert("rule".to_owned(), rule);
    }
    let id = match fields.get("rule") {
        Some(Value::Object(rule)) => rule.get("id").cloned(),
        Some(id) if is_rule_id(id) => Some(id.clone()),
        _ => None,
    };
    if let Some(id) = id {
        fields.entry("rule_id").or_insert(id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_one_name_stands_beside_the_older_one() {
        let mut value = json!({
            "interfaces": [{"name": "eth0", "reasons": [{"reason": "no-rule", "packets": 1}]}],
            "rules": [{"id": "sgr-1", "group": "web"}],
            "flows": [{"rule": "sgr-2", "reason": "tracked"}],
            "prefix_lists": [{"name": "office"}],
            "groups": ["web"],
        });
        make_uniform(&mut value);
        assert_eq!(value["interfaces"][0]["interface"], "eth0");
        assert_eq!(value["interfaces"][0]["reasons"][0]["verdict"], "drop");
        assert_eq!(
            value["rules"][0]["rule"],
            json!({"id": "sgr-1", "group": "web"})
        );
        assert_eq!(value["rules"][0]["rule_id"], "sgr-1");
        assert_eq!(value["flows"][0]["rule"], "sgr-2");
        assert_eq!(value["flows"][0]["rule_id"], "sgr-2");
        assert_eq!(value["flows"][0]["verdict"], "pass");
        assert_eq!(value["prefix_lists"][0]["prefix_list"], "office");
    }

    #[test]
    fn a_verdict_that_is_there_stays() {
        let mut value = json!({"verdict": "pass", "reason": "no-rule", "audit": true});
        make_uniform(&mut value);
        assert_eq!(value["verdict"], "pass");
    }
}
