//! `POST /edits`: rules, members and prefixes that programs add and remove.
//!
//! All requests that wait at one moment become one revision and one installation, but each gets an answer
//! of its own: one that is refused changes nothing and keeps no other one from being made.

use std::collections::BTreeSet;
use std::mem;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use axum::extract::State as Shared;
use axum::http::StatusCode;
use axum::response::{IntoResponse as _, Response};
use axum::routing::post;
use axum::{Json, Router};
use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use sg_common::packet::Direction;
use tokio::task::spawn_blocking;

use super::keeper::Keeper;
use super::socket;
use super::state::State;
use crate::controller::{self, Controller};
use crate::policy::change::{Change, Edit};
use crate::policy::diff::diff;
use crate::policy::model::{Permission, Policy, Rule};
use crate::policy::names::{GroupName, PrefixListName, RuleId, VpcName};
use crate::policy::prefix::parse_prefix;
use crate::policy::rule_text::{Protocol, parse_icmp, parse_peer, parse_ports};

/// Room for some ten thousand edits.
const MOST_BYTES: usize = 4 << 20;

/// What a program asks for: all of it or nothing.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Request {
    edits: Vec<Wish>,
}

/// One edit. Without a VPC it is of `default`.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
enum Wish {
    AddRule(NewRule),
    RemoveRule(OldRule),
    AddMembers(Members),
    RemoveMembers(Members),
    AddPrefixes(Prefixes),
    RemovePrefixes(Prefixes),
}

/// Words as in `sg-ctl rule add`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct NewRule {
    #[serde(default)]
    vpc: VpcName,
    group: GroupName,
    direction: Way,
    protocol: String,
    ports: Option<String>,
    #[serde(rename = "type")]
    icmp_type: Option<String>,
    code: Option<String>,
    peer: String,
    #[serde(default)]
    description: String,
}

#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Way {
    Ingress,
    Egress,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct OldRule {
    #[serde(default)]
    vpc: VpcName,
    group: GroupName,
    rule: RuleId,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Members {
    #[serde(default)]
    vpc: VpcName,
    group: GroupName,
    addresses: Vec<IpAddr>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Prefixes {
    #[serde(default)]
    vpc: VpcName,
    prefix_list: PrefixListName,
    prefixes: Vec<String>,
}

/// What was made.
#[derive(Clone, Debug, Serialize)]
struct Made {
    /// The revision that holds it; it is in force.
    revision: u64,
    /// The rules that were added, in order.
    rules: Vec<RuleId>,
}

/// A request that was read, with what is to be done to the policy as it will be then.
struct Reading {
    steps: Vec<Step>,
    rules: Vec<RuleId>,
}

enum Step {
    Change(Change),
    Members(VpcName, GroupName, Vec<IpAddr>, bool),
    Prefixes(VpcName, PrefixListName, Vec<IpNet>, bool),
}

/// A request that waits until a thread makes all waiting requests.
pub(super) struct Waiting {
    reading: Reading,
    answer: SyncSender<Result<Made, String>>,
}

pub(super) fn router(state: Arc<State>) -> Router {
    Router::new().route("/edits", post(edit)).with_state(state)
}

async fn edit(Shared(state): Shared<Arc<State>>, body: axum::body::Body) -> Response {
    let request: Request = match socket::read(body, MOST_BYTES).await {
        Ok(request) => request,
        Err(refused) => return refused,
    };
    let refuse = |code: StatusCode, why: String| {
        (code, Json(serde_json::json!({ "error": why }))).into_response()
    };
    let reading = match Reading::of(&request) {
        Ok(reading) => reading,
        Err(why) => return refuse(StatusCode::BAD_REQUEST, why),
    };
    match spawn_blocking(move || make(&state.keeper, reading)).await {
        Ok(Ok(made)) => Json(made).into_response(),
        Ok(Err(why)) => refuse(StatusCode::CONFLICT, why),
        Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}

impl Reading {
    fn of(request: &Request) -> Result<Self, String> {
        let mut reading = Self {
            steps: Vec::new(),
            rules: Vec::new(),
        };
        for (number, wish) in request.edits.iter().enumerate() {
            reading
                .take_in(wish)
                .map_err(|why| format!("edits[{number}]: {why}"))?;
        }
        Ok(reading)
    }

    fn take_in(&mut self, wish: &Wish) -> Result<(), String> {
        let step = match wish {
            Wish::AddRule(new) => return self.add_rules(new),
            Wish::RemoveRule(old) => Step::Change(Change {
                vpc: old.vpc.clone(),
                edit: Edit::RemoveRule(old.group.clone(), old.rule),
            }),
            Wish::AddMembers(members) => members.step(true),
            Wish::RemoveMembers(members) => members.step(false),
            Wish::AddPrefixes(prefixes) => prefixes.step(true)?,
            Wish::RemovePrefixes(prefixes) => prefixes.step(false)?,
        };
        self.steps.push(step);
        Ok(())
    }

    fn add_rules(&mut self, new: &NewRule) -> Result<(), String> {
        for permission in new.permissions()? {
            let rule = Rule {
                id: RuleId::random(),
                permission,
                description: new.description.clone(),
            };
            self.rules.push(rule.id);
            self.steps.push(Step::Change(Change {
                vpc: new.vpc.clone(),
                edit: Edit::AddRule(new.group.clone(), rule),
            }));
        }
        Ok(())
    }

    /// What the steps are for a policy.
    fn changes(&self, policy: &Policy) -> Result<Vec<Change>, String> {
        // Several steps may be of one group or list.
        let mut draft: Vec<Change> = Vec::new();
        for step in &self.steps {
            match step {
                Step::Change(change) => draft.push(change.clone()),
                Step::Members(vpc, group, addresses, come) => {
                    let last = draft.iter().rev().find_map(|change| match &change.edit {
                        Edit::SetMembers(of, members) if change.vpc == *vpc && of == group => {
                            Some(members.clone())
                        }
                        _ => None,
                    });
                    let stored = || {
                        let group = policy.vpcs.get(vpc)?.groups.get(group)?;
                        Some(group.members.clone())
                    };
                    let mut members = last.or_else(stored).unwrap_or_default();
                    put(&mut members, addresses, *come);
                    draft.push(Change {
                        vpc: vpc.clone(),
                        edit: Edit::SetMembers(group.clone(), members),
                    });
                }
                Step::Prefixes(vpc, list, prefixes, come) => {
                    let last = draft.iter().rev().find_map(|change| match &change.edit {
                        Edit::PutPrefixList(of, held) if change.vpc == *vpc && of == list => {
                            Some(held.clone())
                        }
                        _ => None,
                    });
                    let stored = || policy.vpcs.get(vpc)?.prefix_lists.get(list).cloned();
                    let Some(mut held) = last.or_else(stored) else {
                        return Err(format!(
                            "there is no prefix list \"{list}\" in VPC \"{vpc}\"; create it first"
                        ));
                    };
                    put(&mut held, prefixes, *come);
                    draft.push(Change {
                        vpc: vpc.clone(),
                        edit: Edit::PutPrefixList(list.clone(), held),
                    });
                }
            }
        }
        Ok(draft)
    }

    /// Changes that speak of the same groups, rules and lists, whatever the policy is.
    fn names(&self) -> impl Iterator<Item = Change> + '_ {
        self.steps.iter().map(|step| match step {
            Step::Change(change) => change.clone(),
            Step::Members(vpc, group, ..) => Change {
                vpc: vpc.clone(),
                edit: Edit::SetMembers(group.clone(), BTreeSet::new()),
            },
            Step::Prefixes(vpc, list, ..) => Change {
                vpc: vpc.clone(),
                edit: Edit::PutPrefixList(list.clone(), BTreeSet::new()),
            },
        })
    }
}

impl NewRule {
    fn permissions(&self) -> Result<Vec<Permission>, String> {
        let words = |error: &dyn std::fmt::Display| error.to_string();
        let protocol: Protocol = self.protocol.parse().map_err(|error| words(&error))?;
        let mut ports = Vec::new();
        if let Some(text) = &self.ports {
            for read in parse_ports(text).map_err(|error| words(&error))? {
                ports.extend(read.ranges(protocol).map_err(|error| words(&error))?);
            }
        }
        let icmp = match (&self.icmp_type, &self.code) {
            (None, None) => None,
            (kind, code) => {
                Some(parse_icmp(kind.as_deref(), code.as_deref()).map_err(|error| words(&error))?)
            }
        };
        let ports = self.ports.is_some().then_some(ports.as_slice());
        let traffic = protocol
            .traffic(ports, icmp)
            .map_err(|error| words(&error))?;
        let peer = parse_peer(&self.peer, Some(&self.group)).map_err(|error| words(&error))?;
        let direction = match self.direction {
            Way::Ingress => Direction::Ingress,
            Way::Egress => Direction::Egress,
        };
        let permissions = traffic.into_iter().map(|traffic| Permission {
            direction,
            traffic,
            peer: peer.clone(),
        });
        Ok(permissions.collect())
    }
}

impl Members {
    fn step(&self, come: bool) -> Step {
        let addresses = self.addresses.clone();
        Step::Members(self.vpc.clone(), self.group.clone(), addresses, come)
    }
}

impl Prefixes {
    fn step(&self, come: bool) -> Result<Step, String> {
        let prefixes = self.prefixes.iter().map(|text| parse_prefix(text));
        let prefixes = prefixes.collect::<Result<_, _>>();
        let prefixes = prefixes.map_err(|error| error.to_string())?;
        Ok(Step::Prefixes(
            self.vpc.clone(),
            self.prefix_list.clone(),
            prefixes,
            come,
        ))
    }
}

fn put<T: Ord + Copy>(set: &mut BTreeSet<T>, items: &[T], come: bool) {
    match come {
        true => set.extend(items),
        false => set.retain(|held| !items.contains(held)),
    }
}

/// Makes a request, with all that wait at the moment.
fn make(keeper: &Keeper, reading: Reading) -> Result<Made, String> {
    let (answer, answered): (_, Receiver<Result<Made, String>>) = sync_channel(1);
    keeper.queue().push(Waiting { reading, answer });
    let turn = keeper.turn();
    // By the time that it is this one's turn, another one may have made it.
    if let Ok(answer) = answered.try_recv() {
        return answer;
    }
    let made = keeper.with(Controller::open, |controller| {
        let waiting = mem::take(&mut *keeper.queue());
        make_all(controller, waiting);
        Ok::<_, controller::Error>(())
    });
    if let Err(refused) = made {
        for waiting in mem::take(&mut *keeper.queue()) {
            waiting.say(Err(refused.to_string()));
        }
    }
    drop(turn);
    let given_up = |_| Err("it was given up; try again".to_owned());
    answered.try_recv().unwrap_or_else(given_up)
}

fn make_all(controller: &mut Controller, waiting: Vec<Waiting>) {
    let names: Vec<Change> = waiting
        .iter()
        .flat_map(|waiting| waiting.reading.names())
        .collect();
    let Some(before) = controller.policy().excerpt(&names) else {
        return;
    };
    let mut after = before.clone();
    let mut accepted: Vec<Waiting> = Vec::new();
    for waiting in waiting {
        let changes = waiting.reading.changes(&after);
        let applied = changes.and_then(|changes| {
            let applied = after.clone().apply(&changes);
            applied.map_err(|findings| findings.to_string())
        });
        match applied {
            Ok(applied) => {
                after = applied;
                accepted.push(waiting);
            }
            Err(why) => waiting.say(Err(why)),
        }
    }
    match controller.change(&diff(&before, &after)) {
        Ok(done) => {
            for waiting in accepted {
                waiting.made(done.revision.number());
            }
        }
        Err(refused) => match accepted.len() {
            1 => accepted
                .iter()
                .for_each(|waiting| waiting.say(Err(refused.to_string()))),
            // Who is to blame is found one by one.
            _ => accepted
                .into_iter()
                .for_each(|waiting| make_alone(controller, waiting)),
        },
    }
}

fn make_alone(controller: &mut Controller, waiting: Waiting) {
    let changes = waiting.reading.changes(controller.policy());
    let done = changes.and_then(|changes| {
        let done = controller.change(&changes);
        done.map_err(|refused| refused.to_string())
    });
    match done {
        Ok(done) => waiting.made(done.revision.number()),
        Err(why) => waiting.say(Err(why)),
    }
}

impl Waiting {
    fn made(self, revision: u64) {
        self.say(Ok(Made {
            revision,
            rules: self.reading.rules.clone(),
        }));
    }

    fn say(&self, answer: Result<Made, String>) {
        // Whoever has gone need not know.
        let _ = self.answer.try_send(answer);
    }
}
