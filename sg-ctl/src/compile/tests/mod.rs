//! What the compiler promises, over whole policies.

mod agreement;
mod edits;
mod frames;
mod numbers;
mod shape;

use std::collections::BTreeSet;

use super::image::Image;
use super::{AttachedInterface, Limits, Settings, compile};
use crate::policy::file::PolicyFile;
use crate::policy::model::Policy;

fn settings() -> Settings {
    Settings {
        jiffies_per_second: 250,
        assured_flows: 1 << 16,
        limits: Limits::default(),
    }
}

/// The policy of a file; groups and rules that `existing` has keep their ids.
fn policy(text: &str, existing: &Policy) -> Policy {
    let file = PolicyFile::parse("policy", text).unwrap_or_else(|e| panic!("{e}\n{text}"));
    file.to_policy(existing)
        .unwrap_or_else(|e| panic!("{e}\n{text}"))
}

/// Every interface of the policy, numbered in order; the host-side ones have 10.1.0.N.
fn attached(policy: &Policy) -> Vec<AttachedInterface> {
    let interfaces = policy
        .vpcs
        .iter()
        .flat_map(|(vpc, v)| v.interfaces.keys().map(move |i| (vpc, i)));
    let attached = interfaces
        .zip(2_u32..)
        .map(|((vpc, name), number)| AttachedInterface {
            vpc: vpc.clone(),
            name: name.clone(),
            netns: 1,
            ifindex: number,
            bare: false,
            peer_mac: None,
            incarnation: number,
            addresses: BTreeSet::from([format!("10.1.0.{number}").parse().unwrap()]),
            judge_again_before: None,
        });
    attached.collect()
}

fn compiled(policy: &Policy, previous: Option<&Image>) -> Image {
    compile(policy, &attached(policy), previous, &settings()).unwrap_or_else(|e| panic!("{e}"))
}
