//! Where rules end up.

use std::net::IpAddr;

use sg_common::abi::PolicyFlags;
use sg_common::addr::Family;
use sg_common::ids::{Generation, Identity};
use sg_common::report::Verdict;

use super::super::host::HostTables;
use super::super::image::{Image, MembersOf};
use super::super::{AttachedInterface, CompileError, compile};
use super::frames::frame;
use super::{attached, compiled, policy, settings};
use crate::policy::allows::L4;
use crate::policy::model::Policy;

/// Whether a SYN from `peer` to `port` gets into the first interface.
fn gets_in(image: &Image, peer: &str, port: u16) -> bool {
    let tables = HostTables::new(image, Generation(1), 16);
    let peer: IpAddr = peer.parse().unwrap();
    let local = if peer.is_ipv4() {
        "10.99.0.1"
    } else {
        "2001:db8:99::1"
    };
    let frame = frame(peer, local.parse().unwrap(), 6, L4::Port(port));
    let decision = tables.decide(1, 2, true, &frame, &()).unwrap();
    decision.reason.verdict() == Verdict::Pass
}

fn eth0(ingress: &str) -> Image {
    let text =
        format!("groups: {{g: {{ingress: {ingress}}}}}\ninterfaces: {{eth0: {{groups: g}}}}");
    compiled(&policy(&text, &Policy::default()), None)
}

#[test]
fn overlapping_prefixes_give_the_union() {
    let image = eth0(
        "[{protocol: tcp, ports: 80, from: 10.0.0.0/8}, {protocol: tcp, ports: 22, from: 10.1.1.1}]",
    );
    assert!(gets_in(&image, "10.1.1.1", 80));
    assert!(gets_in(&image, "10.1.1.1", 22));
    assert!(gets_in(&image, "10.1.1.2", 80));
    assert!(!gets_in(&image, "10.1.1.2", 22));
    assert!(!gets_in(&image, "11.1.1.1", 80));
}

#[test]
fn rules_for_everyone_are_open_and_no_prefix() {
    let image = eth0("[{protocol: tcp, ports: 80, from: [0.0.0.0/0, '::/0']}]");
    assert_eq!(image.policy_ranges.len(), 0);
    assert!(gets_in(&image, "198.51.100.7", 80));
    assert!(gets_in(&image, "2001:db8::7", 80));
    let [ingress, egress] = image.policies[&1].directions;
    assert!(!ingress.flags.has(PolicyFlags::open(Family::V4, 6)));
    assert!(egress.flags.has(PolicyFlags::open(Family::V4, 6)));
    assert!(egress.flags.has(PolicyFlags::open(Family::V6, 17)));
    assert!(!ingress.flags.has(PolicyFlags::prefixes(Family::V4)));
}

#[test]
fn interfaces_with_the_same_groups_share_a_policy() {
    let text = "
groups: {a: , b: }
interfaces:
  eth0: {groups: [a, b]}
  eth1: {groups: a}
  tap0: {groups: [b, a], side: guest, addresses: [10.9.0.5]}
";
    let image = compiled(&policy(text, &Policy::default()), None);
    let policies: Vec<_> = image
        .interfaces
        .values()
        .map(|i| i.interface.policy)
        .collect();
    assert_eq!(policies[0], policies[2]);
    assert_ne!(policies[0], policies[1]);
    assert_eq!(image.policies.len(), 2);
}

#[test]
fn groups_that_no_compiled_rule_names_make_no_identities() {
    let text = "
groups:
  web: {ingress: [{protocol: tcp, ports: 22, from: sg:admin}]}
  admin: {members: [192.0.2.1, 192.0.2.2]}
  rest: {members: [192.0.2.1, 192.0.2.3]}
interfaces: {eth0: {groups: web}}
";
    let image = compiled(&policy(text, &Policy::default()), None);
    let sets: Vec<_> = image
        .ids
        .identities
        .keys()
        .map(|set| &set.members_of)
        .collect();
    let admin = MembersOf::Groups(["admin".parse().unwrap()].into());
    assert_eq!(sets, [&admin]);
    assert_eq!(image.members.len(), 2);
}

#[test]
fn a_link_local_address_of_a_machine_makes_no_member() {
    let text = "
groups: {mesh: {ingress: [{protocol: all, from: self}]}}
interfaces: {eth0: {groups: mesh}}
";
    let policy = policy(text, &Policy::default());
    let addresses = ["10.0.0.1", "169.254.3.4", "fe80::1", "2001:db8::1"];
    let addresses = addresses.map(|address| address.parse().unwrap()).into();
    let attached = AttachedInterface {
        addresses,
        ..attached(&policy).remove(0)
    };
    let image = compile(&policy, &[attached], None, &settings()).unwrap();
    let members: Vec<_> = image
        .members
        .keys()
        .map(|key| key.address.to_string())
        .collect();
    assert_eq!(members, ["10.0.0.1", "2001:db8::1"]);
}

#[test]
fn guests_and_services_are_sets_of_their_own() {
    let text = "
groups: {g: }
interfaces: {tap0: {groups: g, side: guest, addresses: [10.9.0.5, '2001:db8::5']}}
";
    let image = compiled(&policy(text, &Policy::default()), None);
    let services = policy(text, &Policy::default())
        .vpcs
        .values()
        .next()
        .unwrap()
        .link_local_services
        .len();
    assert_eq!(image.sets.len(), 2 + services);
    assert!(image.sets.values().all(|identity| *identity == Identity(1)));
}

#[test]
fn the_machine_gets_half_of_the_flows_and_a_guest_an_eighth() {
    let text = "
groups: {g: }
interfaces:
  eth0: {groups: g}
  eth1: {groups: g, max_flows: 7}
  tap0: {groups: g, side: guest, addresses: [10.9.0.5]}
";
    let image = compiled(&policy(text, &Policy::default()), None);
    let flows: Vec<_> = image
        .interfaces
        .values()
        .map(|i| i.interface.max_flows)
        .collect();
    assert_eq!(flows, [1 << 15, 7, 1 << 13]);
}

#[test]
fn when_flows_are_judged_again_is_kept_until_it_is_set() {
    let text = "groups: {g: }\ninterfaces: {eth0: {groups: g}}";
    let policy = policy(text, &Policy::default());
    let compile_with = |judge_again_before, previous| {
        let mut attached = attached(&policy);
        attached[0].judge_again_before = judge_again_before;
        compile(&policy, &attached, previous, &settings()).unwrap()
    };
    let judged = |image: &Image| {
        let eth0 = image.interfaces.values().next().unwrap();
        eth0.interface.judge_again_before
    };
    let first = compile_with(Some(Generation(5)), None);
    let second = compile_with(None, Some(&first));
    assert_eq!(judged(&second), Generation(5));
    let third = compile_with(Some(Generation(8)), Some(&second));
    assert_eq!(judged(&third), Generation(8));
}

#[test]
fn an_interface_that_the_policy_does_not_have_is_named() {
    let text = "groups: {g: }\ninterfaces: {eth0: {groups: g}}";
    let policy = policy(text, &Policy::default());
    let mut unknown = attached(&policy);
    unknown[0].name = "eth9".parse().unwrap();
    let refused = compile(&policy, &unknown, None, &settings()).unwrap_err();
    assert_eq!(
        refused.to_string(),
        "VPC \"default\", interface \"eth9\" is attached, but the policy does not have it; attach \
         it anew or detach it"
    );
    let mut twice = attached(&policy);
    twice.push(twice[0].clone());
    let refused = compile(&policy, &twice, None, &settings()).unwrap_err();
    assert!(
        matches!(refused, CompileError::DeviceTwice { ifindex: 2, .. }),
        "{refused}"
    );
}
