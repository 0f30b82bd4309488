//! Checking a policy file, or what is in force.

use std::collections::{HashMap, HashSet};
use std::path::PathBuf;

use clap::{Args, ValueEnum};
use serde_json::{Value, json};

use crate::controller::View;
use crate::dirs::DirOptions;
use crate::policy::advice::{Advice, Level, advise};
use crate::policy::file::PolicyFile;
use crate::policy::findings::Place;
use crate::policy::names::{RuleId, VpcName};
use crate::show::{self, AdviceLine, Style};

use super::choose::named_vpc;
use super::error::Result;
use super::output::{print, print_json};
use super::policy_file::{name, parse};
use super::{Answer, json};

#[derive(Debug, Args)]
pub(super) struct Check {
    /// Policy file; `-` reads standard input; without one, the policy in force
    file: Option<PathBuf>,
    /// Only this VPC of the policy in force
    #[arg(long, conflicts_with = "file")]
    vpc: Option<VpcName>,
    /// The lowest level that makes the exit code 1
    #[arg(long, value_enum, default_value_t)]
    level: LevelWord,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Copy, Debug, Default, ValueEnum)]
enum LevelWord {
    /// What prevents `apply`
    #[default]
    Error,
    /// What is probably a mistake
    Warning,
    /// What is worth knowing
    Notice,
}

impl LevelWord {
    fn level(self) -> Level {
        match self {
            Self::Error => Level::Error,
            Self::Warning => Level::Warning,
            Self::Notice => Level::Notice,
        }
    }
}

/// What was found in one VPC.
struct Found {
    vpc: VpcName,
    advice: Vec<(Option<Place>, Advice)>,
}

impl Check {
    pub(super) fn run(self, dirs: &DirOptions) -> Result<Answer> {
        let (source, found) = match &self.file {
            None => ("the policy in force".to_owned(), self.in_force(dirs)?),
            Some(path) => match parse(path)? {
                Ok(file) => (name(path), vec![of_file(&file)]),
                Err(findings) => {
                    match self.json {
                        true => print_json(&json::findings(Some(&findings)))?,
                        false => print(&format!("{findings}\n"))?,
                    }
                    return Ok(Answer::No);
                }
            },
        };
        let lines = || {
            found.iter().flat_map(|found| {
                found.advice.iter().map(|(place, advice)| AdviceLine {
                    source: self.file.as_ref().map(|_| source.as_str()),
                    place: *place,
                    vpc: &found.vpc,
                    advice,
                })
            })
        };
        match self.json {
            true => print_json(&as_json(lines()))?,
            false => print(&show::advice(&source, lines(), Style::of_stdout()))?,
        }
        let level = self.level.level();
        let is_found = lines().any(|line| line.advice.matter.level() >= level);
        Ok(match is_found {
            true => Answer::No,
            false => Answer::Yes,
        })
    }

    fn in_force(&self, dirs: &DirOptions) -> Result<Vec<Found>> {
        let view = View::open(dirs)?;
        if let Some(vpc) = &self.vpc {
            named_vpc(&view.policy, vpc)?;
        }
        let dataplane = view.dataplane()?;
        let counts = dataplane
            .map(|dataplane| dataplane.rule_counts())
            .transpose()?;
        let unhit: HashSet<RuleId> = counts
            .into_iter()
            .flatten()
            .filter(|(_, count)| count.packets == 0)
            .map(|(rule, _)| rule)
            .collect();
        let vpcs = view.policy.vpcs.iter();
        let asked = vpcs.filter(|(name, _)| self.vpc.as_ref().is_none_or(|vpc| vpc == *name));
        let found = asked.map(|(name, vpc)| {
            let mut advice = advise(vpc, true, &unhit);
            advice.sort_by_key(|advice| std::cmp::Reverse(advice.matter.level()));
            Found {
                vpc: name.clone(),
                advice: advice.into_iter().map(|advice| (None, advice)).collect(),
            }
        });
        Ok(found.collect())
    }
}

fn of_file(file: &PolicyFile) -> Found {
    let rules: HashMap<RuleId, Place> = file.places_of_rules();
    let advice = advise(file.vpc(), file.has_interfaces(), &HashSet::new());
    let mut placed: Vec<_> = advice
        .into_iter()
        .map(|advice| {
            let of_rule = advice.rule.and_then(|rule| rules.get(&rule).copied());
            (
                of_rule.or_else(|| file.place_of_group(&advice.group)),
                advice,
            )
        })
        .collect();
    placed.sort_by_key(|(place, _)| *place);
    Found {
        vpc: file.vpc_name().clone(),
        advice: placed,
    }
}

fn as_json<'a>(lines: impl Iterator<Item = AdviceLine<'a>>) -> Value {
    let list: Vec<_> = lines
        .map(|line| {
            json!({
                "level": line.advice.matter.level().name(),
                "kind": line.advice.matter.name(),
                "vpc": line.vpc,
                "group": line.advice.group,
                "rule": line.advice.rule,
                "line": line.place.map(|place| place.line),
                "column": line.place.map(|place| place.column),
                "problem": line.advice.matter.to_string(),
                "text": show::advice_line(&line, Style::PLAIN),
            })
        })
        .collect();
    json!({"count": list.len(), "findings": list})
}
