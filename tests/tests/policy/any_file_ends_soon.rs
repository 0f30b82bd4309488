//! Whatever a megabyte of policy says, it is read, judged and applied or refused within seconds and
//! half a gigabyte: what a file stands for is bounded before it is made.

use std::fmt::Display;

use anyhow::{Result, ensure};
use tests::lab::Lab;
use tests::sg::{Ran, Sg};

/// Bytes that the program may have for itself, and seconds of a processor's time, of which a debug
/// build takes ten times as many as people wait for.
const BOUNDS: [&str; 3] = ["prlimit", "--data=500000000", "--cpu=40"];

fn list<T: Display>(count: usize, item: impl Fn(usize) -> T) -> String {
    let items = (0..count).map(|number| item(number).to_string());
    items.collect::<Vec<_>>().join(",")
}

/// Ports that are no range together.
fn ports(count: usize) -> String {
    list(count, |number| 2 * number + 1)
}

fn addresses(count: usize) -> String {
    list(count, |number| {
        format!("10.{}.{}.{}", number >> 16, number >> 8 & 255, number & 255)
    })
}

fn rule(ports: &str, peers: &str) -> String {
    format!("{{protocol: tcp, ports: [{ports}], from: [{peers}]}}")
}

fn soon(sg: &Sg, arguments: &[&str]) -> Result<Ran> {
    let ran = sg.run_under(&BOUNDS, arguments)?;
    let text: String = ran.stderr.chars().take(300).collect();
    ensure!(
        matches!(ran.code, Some(0..=2)),
        "{arguments:?}: {:?} {text}",
        ran.code
    );
    ensure!(!ran.stderr.contains("memory"), "{arguments:?}: {text}");
    Ok(ran)
}

#[test]
fn a_file_whose_lists_multiply_is_refused_before_they_do() -> Result<()> {
    let pair = Lab::pair()?;
    let sg = Sg::on(&pair.host)?;
    let all_ports = list(65_536, |port| port);
    for (ports, peers) in [(ports(2_500), 2_500), (all_ports, 50_000)] {
        let rule = rule(&ports, &addresses(peers));
        let file = sg.write_policy(&format!("{{groups: {{g: {{ingress: [{rule}]}}}}}}"))?;
        for command in ["check", "diff", "apply"] {
            let ran = soon(&sg, &[command, &file])?;
            let told = format!("{}{}", ran.stdout, ran.stderr);
            ensure!(
                told.contains("the lists of ports and peers"),
                "{command}: {told}"
            );
        }
    }
    Ok(())
}

#[test]
fn advice_costs_what_it_reads() -> Result<()> {
    let pair = Lab::pair()?;
    let sg = Sg::on(&pair.host)?;
    let all_ports = list(65_536, |port| port);
    for text in [
        // As many rules for one list as the list has prefixes, and for one prefix.
        format!(
            "{{prefix_lists: {{x: [{}]}}, groups: {{g: {{ingress: [{}]}}}}}}",
            addresses(45_000),
            rule(&all_ports, "pl:x")
        ),
        format!(
            "{{groups: {{g: {{ingress: [{}]}}}}}}",
            rule(&all_ports, "10.0.0.0/8")
        ),
        // As many rules as interfaces.
        format!(
            "{{groups: {{g: {{ingress: [{}]}}}}, interfaces: {{{}}}}}",
            rule(&ports(20_000), "sg:g"),
            list(30_000, |number| format!("e{number}: {{groups: [g]}}"))
        ),
        // As many names that do not exist as names.
        format!(
            "{{groups: {{{}}}}}",
            list(12_000, |number| format!(
                "group-{number}: {{ingress: [{{service: ssh, from: sg:gruop-{number}}}]}}"
            ))
        ),
    ] {
        let file = sg.write_policy(&text)?;
        soon(&sg, &["check", &file])?;
    }
    Ok(())
}

#[test]
fn a_policy_whose_parts_hold_one_another_is_refused_or_in_force_soon() -> Result<()> {
    let pair = Lab::pair()?;
    let sg = Sg::on(&pair.host)?;
    let one = |rules: &str| {
        format!("{{groups: {{g: {{ingress: [{rules}]}}}}, interfaces: {{eth0: {{groups: [g]}}}}}}")
    };
    let many = 20_000;
    let overlap = Some("lie inside others");
    for (text, refused) in [
        // Each address is inside what thousands of rules are for.
        (
            one(&[
                rule("0-65535", "10.0.0.0/8"),
                rule(&ports(16_000), "10.0.0.0/9"),
                rule("80", &addresses(many)),
            ]
            .join(",")),
            overlap,
        ),
        // Each prefix is in thousands of lists.
        (
            format!(
                "{{prefix_lists: {{{}, {}}}, {}",
                list(8_000, |number| format!("a{number}: [0.0.0.0/0]")),
                list(8_000, |number| format!(
                    "b{number}: [10.0.{}.{}]",
                    number >> 8,
                    number & 255
                )),
                &one(&rule(
                    "80",
                    &format!(
                        "{},{}",
                        list(8_000, |number| format!("pl:a{number}")),
                        list(8_000, |number| format!("pl:b{number}"))
                    )
                ))[1..],
            ),
            overlap,
        ),
        // A guest with thousands of groups and addresses.
        (
            format!(
                "{{groups: {{{}, x: {{ingress: [{}]}}}}, interfaces: {{eth0: {{side: guest, \
                 groups: [x,{}], addresses: [{}]}}}}}}",
                list(5_000, |number| format!("g{number}: {{egress: []}}")),
                rule("80", &list(5_000, |number| format!("sg:g{number}"))),
                list(5_000, |number| format!("g{number}")),
                addresses(many),
            ),
            None,
        ),
    ] {
        let file = sg.write_policy(&text)?;
        let ran = soon(&sg, &["apply", &file])?;
        let told: String = ran.stderr.chars().take(300).collect();
        match refused {
            Some(words) => ensure!(ran.code == Some(2) && told.contains(words), "{told}"),
            None => ensure!(ran.code == Some(0), "{told}"),
        }
    }
    Ok(())
}
