//! Every packet is judged right: a table of packets in words, each with the reason it must get.
//!
//! A case is a policy as a user writes it and a story of packets at its interfaces. The decision is
//! the one the kernel runs, asked over the host's tables.

mod discovery;
mod flows;
mod fragments;
mod frames;
mod guests;
mod icmp_errors;
mod ipv4;
mod ipv6;
mod policies;
mod removal;
mod rules;
mod story;
mod tcp;
mod transport;

use story::{Case, check_all};

#[test]
fn frames() {
    check_all(frames::CASES);
}

#[test]
fn ipv4_headers() {
    check_all(ipv4::CASES);
}

#[test]
fn ipv6_headers() {
    check_all(ipv6::CASES);
}

#[test]
fn fragments() {
    check_all(fragments::CASES);
}

#[test]
fn transport_headers() {
    check_all(transport::CASES);
}

#[test]
fn what_groups_never_filter() {
    check_all(discovery::CASES);
}

#[test]
fn guests() {
    check_all(guests::CASES);
}

#[test]
fn icmp_errors() {
    check_all(icmp_errors::CASES);
}

#[test]
fn tcp_flows() {
    check_all(tcp::CASES);
}

#[test]
fn other_flows() {
    check_all(flows::CASES);
}

#[test]
fn removed_rules() {
    check_all(removal::CASES);
}

#[test]
fn rules() {
    check_all(rules::CASES);
}

#[test]
fn no_two_cases_show_the_same_fact() {
    let all: [&[Case]; 12] = [
        frames::CASES,
        ipv4::CASES,
        ipv6::CASES,
        fragments::CASES,
        transport::CASES,
        discovery::CASES,
        guests::CASES,
        icmp_errors::CASES,
        tcp::CASES,
        flows::CASES,
        removal::CASES,
        rules::CASES,
    ];
    let mut facts: Vec<_> = all
        .iter()
        .flat_map(|cases| cases.iter().map(|case| case.fact))
        .collect();
    let told = facts.len();
    facts.sort_unstable();
    facts.dedup();
    assert_eq!(facts.len(), told);
    println!("{told} cases");
}
