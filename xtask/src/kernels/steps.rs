//! What is proven on a booted kernel.

use std::collections::BTreeSet;

use super::fetch::Flavour;
use super::image::STEPS;

/// One thing to prove, by a script that ends with 0 when it holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Step {
    pub(super) name: &'static str,
    /// What holds when it passes.
    pub(super) promise: &'static str,
    /// How long it may take in an emulator on a busy machine.
    pub(super) seconds: u64,
    pub(super) script: String,
}

/// What is asked of a kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Promise {
    /// It protects.
    Protects,
    /// sg refuses it with one sentence, since it lacks what sg needs.
    IsRefused,
}

/// How a step proves it.
enum Proof {
    /// A promise of the project's tests, by its group and its own name.
    Test(&'static str),
    Script(&'static str),
}

struct Listed {
    name: &'static str,
    promise: &'static str,
    seconds: u64,
    proof: Proof,
    /// Also with `--quick`.
    quick: bool,
    /// Only where there are drivers for what it tries.
    generic: bool,
}

const fn test(name: &'static str, test: &'static str, promise: &'static str) -> Listed {
    Listed {
        name,
        promise,
        seconds: 600,
        proof: Proof::Test(test),
        quick: false,
        generic: false,
    }
}

const fn script(name: &'static str, script: &'static str, promise: &'static str) -> Listed {
    Listed {
        name,
        promise,
        seconds: 600,
        proof: Proof::Script(script),
        quick: true,
        generic: false,
    }
}

const fn quick(listed: Listed) -> Listed {
    Listed {
        quick: true,
        ..listed
    }
}

const PROTECTS: &[Listed] = &[
    script(
        "programs",
        "exec /steps/sg-budget",
        "the verifier takes every program, within the budget",
    ),
    script(
        "tour",
        include_str!("tour.sh"),
        "doctor, apply, verify, restore and detach",
    ),
    script(
        "demo",
        "exec /steps/xtask demo --program /steps/sg-ctl",
        "the demo's story",
    ),
    quick(test(
        "hooks",
        "packets/every_hook_judges_alike",
        "the whole corpus at native XDP, generic XDP and TC",
    )),
    test(
        "decision",
        "packets/packets_are_judged_right",
        "the whole corpus on the host's tables",
    ),
    test(
        "evaluators",
        "packets/three_evaluators_agree",
        "specification, host and kernel agree at random",
    ),
    quick(test(
        "machine",
        "packets/groups_protect_a_machine",
        "real connections, both families, every hook",
    )),
    test(
        "guests",
        "packets/guests_are_protected_from_outside",
        "guests behind tap and veth",
    ),
    Listed {
        generic: true,
        ..test(
            "devices",
            "packets/every_device_is_judged_or_refused",
            "every kind of device is judged or refused",
        )
    },
    test(
        "silence",
        "packets/egress_drops_are_silent",
        "a drop on the way out is silent to its sender",
    ),
    test(
        "changes",
        "updates/changes_apply_live",
        "changes under traffic",
    ),
    test(
        "updates",
        "updates/every_packet_meets_one_policy",
        "each packet meets the old policy or the new one",
    ),
    test(
        "kills",
        "updates/a_killed_command_leaves_old_or_new",
        "a killed command leaves old or new",
    ),
    test(
        "upgrade",
        "lifecycle/an_upgrade_cuts_nobody",
        "another sg-ctl takes over under traffic",
    ),
    test(
        "flows",
        "flows/flows_stay_whole_in_parallel_traffic",
        "flows under traffic from several CPUs",
    ),
    test(
        "ends",
        "flows/flows_can_be_ended",
        "flows are ended by hand",
    ),
    test(
        "room",
        "flows/room_for_flows_changes_live",
        "the flow table changes its size under traffic",
    ),
    test(
        "no-process",
        "lifecycle/enforcement_needs_no_process",
        "protection without a process, and its end",
    ),
    test(
        "verify",
        "operate/verify_finds_what_differs",
        "verify finds what somebody else has changed",
    ),
    test(
        "boot",
        "lifecycle/a_boot_restores_protection",
        "restore after a boot",
    ),
];

const IS_REFUSED: &[Listed] = &[script(
    "refuses",
    include_str!("refuses.sh"),
    "sg says in one sentence why it cannot protect",
)];

/// What the list of steps is to be.
#[derive(Clone, Debug)]
pub(super) struct Choice {
    pub(super) quick: bool,
    pub(super) flavour: Flavour,
    /// How many times longer than usual a step may take.
    pub(super) patience: u64,
    /// Only these, if there are any.
    pub(super) named: Vec<String>,
}

impl Choice {
    /// The steps for a kernel of which this is asked.
    pub(super) fn steps(&self, promise: Promise) -> Vec<Step> {
        let listed = match promise {
            Promise::Protects => PROTECTS,
            Promise::IsRefused => IS_REFUSED,
        };
        listed
            .iter()
            .filter(|step| !step.generic || self.flavour == Flavour::Generic)
            .filter(|step| match self.named.is_empty() {
                true => step.quick || !self.quick,
                false => self.named.iter().any(|name| name == step.name),
            })
            .map(|step| step.step(self.patience))
            .collect()
    }
}

/// The names of all steps.
pub(super) fn names() -> impl Iterator<Item = &'static str> {
    PROTECTS.iter().chain(IS_REFUSED).map(|step| step.name)
}

/// The groups of tests that these steps run.
pub(super) fn groups(steps: &[&Step]) -> BTreeSet<&'static str> {
    let listed = PROTECTS
        .iter()
        .filter(|listed| steps.iter().any(|step| step.name == listed.name));
    listed
        .filter_map(|listed| match listed.proof {
            Proof::Test(test) => Some(test.split_once('/')?.0),
            Proof::Script(_) => None,
        })
        .collect()
}

impl Listed {
    fn step(&self, patience: u64) -> Step {
        let script = match self.proof {
            Proof::Script(script) => script.to_owned(),
            // Two at a time: each has machines of its own and mostly waits.
            Proof::Test(test) => {
                let (group, promise) = test.split_once('/').unwrap_or((test, ""));
                format!("exec {STEPS}/{group} {promise}:: --show-output --test-threads=2")
            }
        };
        Step {
            name: self.name,
            promise: self.promise,
            seconds: self.seconds * patience,
            script,
        }
    }
}
