//! Filters of descriptions: values within one are alternatives, and all filters must hold.

use super::fault::{Fault, Result};
use super::query::Params;
use super::tags;
use crate::store::Notes;

const MOST_FILTERS: usize = 50;
const MOST_VALUES: usize = 200;
const LONGEST_VALUE: usize = 255;

/// The filters of a request.
#[derive(Debug, Default)]
pub(super) struct Filters(Vec<Filter>);

#[derive(Debug)]
struct Filter {
    name: String,
    values: Vec<String>,
}

impl Filters {
    /// Takes the filters, of which only `known` ones and those about tags may be there.
    pub(super) fn take(params: &mut Params, known: &[&str]) -> Result<Self> {
        let filters = params.each("Filter", |filter| {
            Ok(Filter {
                name: filter.text("Name")?.unwrap_or_else(|| "null".to_owned()),
                values: filter.texts_or_empty("Value")?,
            })
        })?;
        if filters.len() > MOST_FILTERS {
            let message = format!("The maximum number of filters is {MOST_FILTERS}");
            return Err(Fault::new("FilterLimitExceeded", message));
        }
        for Filter { name, values } in &filters {
            if !is_known(name, known) {
                return Err(Fault::value(format!("The filter '{name}' is invalid")));
            }
            if values.len() > MOST_VALUES {
                let message = format!("The maximum number of filter values is {MOST_VALUES}");
                return Err(Fault::new("FilterLimitExceeded", message));
            }
            if values.iter().any(|value| value.len() > LONGEST_VALUE) {
                return Err(Fault::value(format!(
                    "A value of the filter '{name}' is longer than {LONGEST_VALUE} characters"
                )));
            }
            if values.is_empty() {
                return Err(Fault::value(format!("The filter '{name}' has no value")));
            }
        }
        Ok(Self(filters))
    }

    /// Whether an object passes: `values_of` tells what it has of each filter's name.
    pub(super) fn pass(
        &self,
        notes: Option<&Notes>,
        mut values_of: impl FnMut(&str) -> Vec<String>,
    ) -> bool {
        self.0.iter().all(|filter| {
            let found = match filter.name.as_str() {
                "tag-key" => tags::of(notes).map(|(key, _)| key.to_owned()).collect(),
                "tag-value" => tags::of(notes).map(|(_, value)| value.to_owned()).collect(),
                name => match name.strip_prefix("tag:") {
                    Some(key) => tags::of(notes)
                        .filter(|(found, _)| *found == key)
                        .map(|(_, value)| value.to_owned())
                        .collect(),
                    None => values_of(name),
                },
            };
            let mut patterns = filter.values.iter();
            patterns.any(|pattern| found.iter().any(|value| matches(pattern, value)))
        })
    }

    /// The values of a filter, if it is there.
    pub(super) fn values(&self, name: &str) -> Option<&[String]> {
        let mut filters = self.0.iter();
        let found = filters.find(|filter| filter.name == name)?;
        Some(&found.values)
    }

    /// What tells these filters from others, for the tokens of pages.
    pub(super) fn text(&self) -> String {
        format!("{:?}", self.0)
    }
}

fn is_known(name: &str, known: &[&str]) -> bool {
    let about_tags = name.strip_prefix("tag:").is_some_and(|key| !key.is_empty());
    about_tags || matches!(name, "tag-key" | "tag-value") || known.contains(&name)
}

/// Whether a value is one of a pattern: `*` is any characters, `?` one or none, and `\` takes the
/// meaning of either away. Time is bounded by the product of both lengths.
pub(super) fn matches(pattern: &str, value: &str) -> bool {
    let value: Vec<char> = value.chars().collect();
    // Whether the pattern so far matches the first characters of the value, for each number of them.
    let mut now = vec![false; value.len() + 1];
    now[0] = true;
    let mut rest = pattern.chars();
    while let Some(c) = rest.next() {
        let mut next = vec![false; value.len() + 1];
        match c {
            '*' => {
                let mut seen = false;
                for (next, now) in next.iter_mut().zip(&now) {
                    seen |= now;
                    *next = seen;
                }
            }
            '?' => {
                next.copy_from_slice(&now);
                for (next, now) in next.iter_mut().skip(1).zip(&now) {
                    *next |= now;
                }
            }
            literal => {
                let literal = match literal {
                    '\\' => rest.next().unwrap_or('\\'),
                    literal => literal,
                };
                let cells = next.iter_mut().skip(1).zip(&now).zip(&value);
                for ((next, now), c) in cells {
                    *next = *now && *c == literal;
                }
            }
        }
        now = next;
    }
    now.last().copied().unwrap_or(false)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_has_wildcards_and_escapes() {
        for (pattern, value, wanted) in [
            ("web", "web", true),
            ("web", "Web", false),
            ("web", "webs", false),
            ("*", "", true),
            ("w*b*", "wxxbyy", true),
            ("w?b", "wb", true),
            ("w?b", "wxb", true),
            ("w?b", "wxxb", false),
            (r"w\*b", "w*b", true),
            (r"w\*b", "wxb", false),
            (r"w\\b", r"w\b", true),
            ("AWS Lambda VPC ENI*", "AWS Lambda VPC ENI-x", true),
            ("", "", true),
            ("", "x", false),
        ] {
            assert_eq!(matches(pattern, value), wanted, "{pattern} {value}");
        }
        assert!(!matches(&"*a".repeat(120), &"b".repeat(255)));
    }

    #[test]
    fn an_unknown_filter_is_refused() {
        let take = |form: &str| {
            let mut params = Params::parse(form.as_bytes()).unwrap();
            Filters::take(&mut params, &["group-id"]).map(drop)
        };
        assert_eq!(take("Filter.1.Name=group-id&Filter.1.Value.1=x"), Ok(()));
        assert_eq!(take("Filter.1.Name=tag:a&Filter.1.Value.1=x"), Ok(()));
        let fault = take("Filter.1.Name=x&Filter.1.Value.1=x").unwrap_err();
        assert_eq!(fault.message, "The filter 'x' is invalid");
        let fault = take("Filter.1.Value.1=x").unwrap_err();
        assert_eq!(fault.message, "The filter 'null' is invalid");
    }
}
