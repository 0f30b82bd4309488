//! Policy files as users write them, right and wrong.

use super::super::matching::DeviceMatch;
use super::super::model::{Hook, Interface, Side};
use super::*;

/// The rules of a group in words.
fn rules(text: &str, group: &str) -> Vec<String> {
    let file = PolicyFile::parse("policy.yaml", text).unwrap_or_else(|e| panic!("{e}"));
    let vpc = file.to_vpc(None).unwrap();
    let group = &vpc.groups[&group.parse::<GroupName>().unwrap()];
    group
        .rules
        .iter()
        .map(|rule| rule.permission.to_string())
        .collect()
}

/// The rules of a group with this ingress and no egress.
fn ingress(items: &str) -> Vec<String> {
    let lists = "prefix_lists: {office: [10.0.0.0/8]}";
    rules(
        &format!("{lists}\ngroups: {{g: {{ingress: {items}, egress: []}}, web: }}"),
        "g",
    )
}

#[track_caller]
fn check(text: &str, wanted: &[&str]) {
    let findings = PolicyFile::parse("p", text)
        .expect_err("refused")
        .to_string();
    let found: Vec<_> = findings.lines().collect();
    assert_eq!(found, wanted, "\n{text}");
}

#[test]
fn the_file_of_the_manual_means_what_it_says() {
    let text = r#"
vpc: prod
prefix_lists:
  office: [203.0.113.0/24, "2001:db8:aa::/48"]
groups:
  ssh:
    description: SSH from the office
    ingress:
      - {service: ssh, from: [pl:office]}
  web:
    ingress:
      - {protocol: tcp, ports: [80, 443], from: [0.0.0.0/0, "::/0"], description: public}
  app:
    ingress:
      - {protocol: tcp, ports: [8000-8080, 9000], from: [sg:web]}
      - {protocol: icmp, type: 8, from: [10.0.0.0/8]}
      - {protocol: all, from: [sg:app]}
    egress: []
    members: [192.0.2.20]
interfaces:
  eth0: {groups: [web, ssh], hook: auto}
  tap3: {groups: [app], side: guest, addresses: [10.0.3.7, "2001:db8::7"]}
"#;
    assert_eq!(
        rules(text, "app"),
        [
            "all from sg:app",
            "tcp 8000-8080 from sg:web",
            "tcp 9000 from sg:web",
            "icmp 8 from 10.0.0.0/8"
        ]
    );
    assert_eq!(
        rules(text, "web"),
        [
            "tcp 80 from 0.0.0.0/0",
            "tcp 80 from ::/0",
            "tcp 443 from 0.0.0.0/0",
            "tcp 443 from ::/0",
            "all to 0.0.0.0/0",
            "all to ::/0"
        ]
    );
    let file = PolicyFile::parse("policy.yaml", text).unwrap();
    assert_eq!(file.vpc_name().as_str(), "prod");
    let vpc = file.to_vpc(None).unwrap();
    let tap = &vpc.interfaces[&"tap3".parse::<InterfaceName>().unwrap()];
    assert_eq!(
        (tap.side, tap.hook, tap.addresses.len()),
        (Side::Guest, Hook::Auto, 2)
    );
    assert_eq!(vpc.groups.len(), 4);
}

#[test]
fn rules_are_read_as_users_write_them() {
    let cases = [
        (
            "[{protocol: TCP, ports: 22, from: 10.1.2.3/8}]",
            "tcp 22 from 10.0.0.0/8",
        ),
        (
            "[{protocol: 6, ports: '22', from: 192.0.2.1}]",
            "tcp 22 from 192.0.2.1/32",
        ),
        (
            "[{protocol: tcp, ports: 8000-8080, from: '2001:DB8::1'}]",
            "tcp 8000-8080 from 2001:db8::1/128",
        ),
        (
            "[{protocol: udp, ports: all, from: sg:WEB}]",
            "udp * from sg:WEB",
        ),
        (
            "[{protocol: udp, ports: 0-65535, from: self}]",
            "udp * from sg:g",
        ),
        (
            "[{protocol: tcp, ports: HTTPS, from: self}]",
            "tcp 443 from sg:g",
        ),
        (
            "[{protocol: udp, ports: kerberos, from: self}]",
            "udp 88 from sg:g",
        ),
        (
            "[{protocol: 47, ports: https, from: 0.0.0.0/0}]",
            "protocol 47 from 0.0.0.0/0",
        ),
        (
            "[{protocol: -1, ports: 22, from: pl:office}]",
            "all from pl:office",
        ),
        (
            "[{protocol: 47, ports: [1, 2], from: 0.0.0.0/0}]",
            "protocol 47 from 0.0.0.0/0",
        ),
        (
            "[{protocol: icmp, from: 0.0.0.0/0}]",
            "icmp * from 0.0.0.0/0",
        ),
        (
            "[{protocol: icmp, type: -1, code: -1, from: 0.0.0.0/0}]",
            "icmp * from 0.0.0.0/0",
        ),
        (
            "[{protocol: icmp, type: 3, code: 4, from: 0.0.0.0/0}]",
            "icmp 3/4 from 0.0.0.0/0",
        ),
        (
            "[{protocol: icmpv6, type: 128, code: -1, from: '::/0'}]",
            "icmpv6 128 from ::/0",
        ),
        (
            "[{service: HTTPS, from: 0.0.0.0/0}]",
            "tcp 443 from 0.0.0.0/0",
        ),
        (
            "[{\"protocol\": \"tcp\", \"ports\": [22], \"from\": [\"10.0.0.0/8\"]}]",
            "tcp 22 from 10.0.0.0/8",
        ),
    ];
    for (text, wanted) in cases {
        assert_eq!(ingress(text), [wanted], "{text}");
    }
    assert_eq!(
        ingress("[{service: ping, from: [0.0.0.0/0, '::/0', sg:web]}]"),
        [
            "icmp 8 from 0.0.0.0/0",
            "icmp 8 from sg:web",
            "icmpv6 128 from ::/0",
            "icmpv6 128 from sg:web"
        ]
    );
}

#[test]
fn json_over_several_lines_is_a_policy_file() {
    let json = "\u{feff}{\n\t\"groups\": {\n\t\t\"a\": {\n\t\t\t\"egress\": [\n\t\t\t\t{\"service\": \
                \"ssh\", \"to\": [\"::/0\"]}\n\t\t\t]\n\t\t}\n\t}\n}\n";
    assert_eq!(rules(json, "a"), ["tcp 22 to ::/0"]);
    assert_eq!(rules(&json.replace('\t', "  "), "a"), ["tcp 22 to ::/0"]);
}

#[test]
fn what_is_left_out_has_its_default() {
    let everything_out = ["all to 0.0.0.0/0", "all to ::/0"];
    assert_eq!(rules("groups: {a: , default: }", "a"), everything_out);
    assert_eq!(rules("groups: {a: {egress: []}}", "a"), [""; 0]);
    assert_eq!(
        rules("groups: {a: {}}", "default")[0],
        "all from sg:default"
    );
    assert_eq!(
        rules("groups: {default: {ingress: []}}", "default"),
        everything_out
    );
    assert_eq!(
        rules(
            "groups: {a: {outbound: [{service: dns, to: 10.0.0.2}]}}",
            "a"
        )
        .len(),
        2
    );
    let file = PolicyFile::parse("p", "vpc: x").unwrap();
    let vpc = file.to_vpc(None).unwrap();
    assert_eq!(vpc.link_local_services, defaults::link_local_services());
    assert!(!file.has_interfaces());
}

#[test]
fn groups_and_rules_that_stay_keep_their_ids() {
    let vpc = |text: &str, existing: Option<&Vpc>| {
        PolicyFile::parse("p", text)
            .unwrap()
            .to_vpc(existing)
            .unwrap()
    };
    let old = vpc(
        "groups: {a: {ingress: [{service: ftp, from: 10.0.0.0/8}]}}",
        None,
    );
    let new = vpc(
        "groups: {A: {ingress: [{service: ssh, from: self}, {service: ftp, from: 10.0.0.0/8, description: x}]}}",
        Some(&old),
    );
    let name: GroupName = "a".parse().unwrap();
    let (old, new) = (&old.groups[&name], &new.groups[&name]);
    assert_eq!(old.id, new.id);
    let kept = |rule: &&Rule| old.rules.iter().any(|old| old.id == rule.id);
    let kept: Vec<_> = new
        .rules
        .iter()
        .filter(kept)
        .map(|r| r.permission.to_string())
        .collect();
    assert_eq!(
        kept,
        [
            "tcp 20-21 from 10.0.0.0/8",
            "all to 0.0.0.0/0",
            "all to ::/0"
        ]
    );
}

#[test]
fn interfaces_that_are_not_spoken_of_stay_and_hold_their_groups() {
    let old = PolicyFile::parse("p", "{groups: {a: }, interfaces: {eth0: {groups: a}}}").unwrap();
    let old = old.to_vpc(None).unwrap();
    let kept = PolicyFile::parse("p", "groups: {a: , b: }")
        .unwrap()
        .to_vpc(Some(&old))
        .unwrap();
    assert_eq!(kept.interfaces, old.interfaces);
    let none = PolicyFile::parse("p", "interfaces: {}")
        .unwrap()
        .to_vpc(Some(&old))
        .unwrap();
    assert!(none.interfaces.is_empty());
    let lost = PolicyFile::parse("p", "groups: {b: }")
        .unwrap()
        .to_vpc(Some(&old))
        .unwrap_err();
    assert_eq!(
        lost.to_string(),
        "p: VPC \"default\", interface \"eth0\" names group \"a\", which does not exist; create \
         it or correct the name"
    );
}

#[test]
fn an_interface_of_another_vpc_is_not_taken() {
    let parse = |text| PolicyFile::parse("p", text).unwrap();
    let policy = parse("{vpc: a, interfaces: {eth0: {groups: default}}}");
    let policy = policy.to_policy(&Policy::default()).unwrap();
    let file = parse("vpc: b\ninterfaces:\n  eth0: {groups: default}");
    assert_eq!(
        file.to_policy(&policy).unwrap_err().to_string(),
        "p:3:3: interface \"eth0\" is attached in VPC \"a\" and in VPC \"b\"; detach it from one \
         of them"
    );
}

#[test]
fn an_entry_matches_devices_of_its_own() {
    check(
        "\
groups: {web: {}}
interfaces:
  eth0/1: {groups: web}
  enp0s31f6.10000x: {groups: web}
  guests/1: {groups: web, match: {name: vnet*}}
  nothing: {groups: web, match: {}}
  one: {groups: web, match: {name: tap*}}
  two: {groups: web, match: {name: tap*}}
  elsewhere: {groups: web, match: {name: tap*}, netns: blue}
  wrong: {groups: web, match: {name: a b, mac: 52, kind: tap}}
",
        &[
            "p:3:3: interface \"eth0/1\" has a fault: \"eth0/1\" is not an interface name; Linux names \
             have 1 to 15 bytes and no \"/\", \":\", spaces or control characters",
            "p:4:3: interface \"enp0s31f6.10000x\" has a fault: \"enp0s31f6.10000x\" is not an interface \
             name; Linux names have 1 to 15 bytes and no \"/\", \":\", spaces or control characters",
            "p:5:3: interface \"guests/1\" has a fault: \"guests/1\" is not the name of an entry with \
             match; give it 1 to 63 bytes and no \"/\", \":\", spaces or control characters",
            "p:6:3: interface \"nothing\" has a match that says nothing; give it a name, a mac or an alias",
            "p:8:3: interface \"two\" matches the same devices as entry \"one\" of VPC \"default\"; leave \
             one of the two out",
            "p:10:38: \"a b\" matches no name of a device; write one like vnet*, with 1 to 15 bytes and no \
             \"/\", \":\", spaces or control characters",
            "p:10:48: \"52\" is not a MAC address; write one like 52:54:00:12:34:56, or 52:54:00:* for all \
             that begin so",
            "p:10:52: a match has no key \"kind\"; use name, mac, alias",
        ],
    );
}

#[test]
fn every_setting_of_an_interface_is_read() {
    let text =
        "interfaces: {eth0: {match: {name: vnet*, mac: 52:54:00:*, alias: vm 1},
        groups: [default, sg:Default], side: GUEST, hook: tc, netns: blue,
        addresses: 10.0.0.1, ethertypes: [0x8915, 35093], replace_xdp: true, tcp_pickup: false,
        macs: 52:54:00:00:00:AB, vlans: [5, 4094],
        fragments: strict, egress_drops: Told, audit: true, timeouts: {tcp_established: 60, udp: 31, udp_stream: 61}, max_flows: 9}}";
    let vpc = PolicyFile::parse("p", text).unwrap().to_vpc(None).unwrap();
    let mut matching = DeviceMatch::default();
    for criterion in ["name=vnet*", "mac=52:54:00:*", "alias=vm 1"] {
        matching.add(criterion).unwrap();
    }
    let wanted = Interface {
        matching: Some(Box::new(matching)),
        groups: BTreeSet::from([GroupName::default_group()]),
        side: Side::Guest,
        hook: Hook::Tc,
        netns: Some("blue".to_owned()),
        addresses: BTreeSet::from(["10.0.0.1".parse().unwrap()]),
        macs: super::super::model::Macs::Listed(BTreeSet::from(["52:54:00:00:00:ab"
            .parse()
            .unwrap()])),
        vlans: BTreeSet::from([5, 4094]),
        ethertypes: BTreeSet::from([0x8915]),
        replace_xdp: true,
        tcp_pickup: false,
        strict_fragments: true,
        egress_drops: super::super::model::EgressDrops::Told,
        audit: true,
        timeouts: super::super::model::Timeouts {
            tcp_established_s: 60,
            udp_s: 31,
            udp_stream_s: 61,
        },
        max_flows: Some(9),
    };
    assert_eq!(vpc.interfaces.values().collect::<Vec<_>>(), [&wanted]);
}

#[test]
fn all_findings_come_at_once_in_the_order_of_the_text() {
    check(
        "\
vpc: prod
prefix_list: {}
groups:
  web:
    ingress:
      - {protocol: tcp, ports: 90-80, from: [10.0.0.0/33, sg:wbe]}
      - {protocol: tcp, ports: 22, from: [sg:wbe], to: [::/0]}
      - {protocol: tcp, ports: 22, from: [sg:wbe]}
  sg-x: {}
interfaces:
  lo: {groups: [web]}
",
        &[
            "p:2:1: a policy file has no key \"prefix_list\"; did you mean \"prefix_lists\"?",
            "p:6:32: the port range 90-80 is reversed; write 80-90",
            "p:6:46: \"10.0.0.0/33\" has an impossible prefix length; use /0 to /32",
            "p:7:52: an ingress rule has no \"to\"; its peers are under \"from\"",
            "p:8:43: group \"web\" names group \"wbe\", which does not exist; did you mean \"web\"?",
            "p:9:3: a group name may not start with \"sg-\", which is how ids start; choose another",
            "p:11:3: \"lo\" cannot be protected, because local services talk over it; name the \
             interface that faces the network",
        ],
    );
}

#[test]
fn times_have_units_or_are_seconds() {
    let timeouts = |text: &str| {
        let text = format!("interfaces: {{eth0: {{groups: default, timeouts: {{{text}}}}}}}");
        let file = PolicyFile::parse("p", &text).unwrap_or_else(|findings| panic!("{findings}"));
        file.to_vpc(None)
            .unwrap()
            .interfaces
            .into_values()
            .next()
            .unwrap()
            .timeouts
    };
    let with_units = timeouts("tcp_established: 1.5h, udp: 1m, udp_stream: 90s");
    assert_eq!(
        with_units,
        timeouts("tcp_established: 5400, udp: 60, udp_stream: 90")
    );
    assert_eq!(with_units.tcp_established_s, 5_400);
}

/// One rule of ingress in a file, and what it is told.
#[track_caller]
fn check_rule(rule: &str, wanted: &str) {
    check(
        &format!("groups: {{g: {{ingress: [\n{rule}]}}}}"),
        &[&format!("p:2:{wanted}")],
    );
}

#[test]
fn each_bad_rule_is_told_what_would_be_right() {
    let cases = [
        (
            "{ports: 22, from: self}",
            "1: a rule has no protocol; write protocol: tcp, udp, icmp, icmpv6, all or a number, or a service",
        ),
        (
            "{protocol: tpc, ports: 22, from: self}",
            "12: \"tpc\" is not a protocol; did you mean \"tcp\"?",
        ),
        (
            "{protocol: 256, from: self}",
            "12: \"256\" is not a protocol; use tcp, udp, icmp, icmpv6, all or a number from 0 to 255",
        ),
        (
            "{protocol: tcp, from: self}",
            "12: a tcp rule needs ports; 0-65535 is all of them",
        ),
        (
            "{protocol: tcp, ports: [22, 65536], from: self}",
            "29: \"65536\" is not a port; use 0 to 65535, a range like 8000-8080, a service like https, or all",
        ),
        (
            "{protocol: tcp, ports: [80, htps], from: self}",
            "29: \"htps\" is not a port; did you mean \"https\"?",
        ),
        (
            "{protocol: udp, ports: [80, ssh], from: self}",
            "29: service \"ssh\" has no udp port; it is tcp 22",
        ),
        (
            "{protocol: tcp, ports: [80, \"8080, https, 80\"], from: self}",
            "29: the group allows \"tcp 80 from sg:g\" already (line 2, column 25); keep one",
        ),
        (
            "{protocol: tcp, ports: -1, from: self}",
            "24: \"-1\" is not a port; use 0 to 65535, a range like 8000-8080, a service like https, or all",
        ),
        (
            "{protocol: tcp, ports: [], from: self}",
            "24: ports is an empty list, which opens nothing; write ports like 22, 8000-8080, https or [80, 443]",
        ),
        (
            "{protocol: tcp, ports: {a: b}, from: self}",
            "24: ports is a map; write ports like 22, 8000-8080, https or [80, 443]",
        ),
        (
            "{protocol: tcp, ports: 22, type: 8, from: self}",
            "28: only icmp and icmpv6 have a type and a code; leave them out",
        ),
        (
            "{protocol: icmp, ports: 8, from: self}",
            "18: icmp has no ports; use type and code",
        ),
        (
            "{protocol: icmp, code: 8, from: self}",
            "18: a code means nothing without a type; give the type, or leave the code out",
        ),
        (
            "{protocol: icmp, type: 256, from: self}",
            "18: \"256\" is not an ICMP type; use 0 to 255, or -1 for any",
        ),
        (
            "{service: shh, from: self}",
            "11: \"shh\" is not a service; did you mean \"ssh\"?",
        ),
        (
            "{service: ssh, ports: 22, from: self}",
            "16: a service brings its own protocol and ports; leave \"ports\" out, or the service",
        ),
        (
            "{service: ssh}",
            "1: a rule has no from; write from: [10.0.0.0/8]",
        ),
        (
            "{service: ssh, from: []}",
            "22: from is an empty list, which opens nothing; write peers like [10.0.0.0/8, \"2001:db8::/32\", sg:web, pl:office]",
        ),
        (
            "{service: ssh, from: g}",
            "22: \"g\" is not a peer; write a prefix like 10.0.0.0/8 or 2001:db8::/32, a group like sg:web, self, or a prefix list like pl:office",
        ),
        (
            "{service: ssh, from: pl:x}",
            "22: group \"g\" names prefix list \"x\", which does not exist; create it or correct the name",
        ),
        (
            "{service: ssh, from: 'sg:'}",
            "22: a group name may not be empty; give it 1 to 255 characters",
        ),
        (
            "{service: ssh, from: '::ffff:192.0.2.1'}",
            "22: ::ffff:192.0.2.1/128 is an IPv4 address mapped into IPv6, which no packet carries; write 192.0.2.1/32",
        ),
        (
            "{service: ssh, from: [10.0.0.1/8, 10.0.0.0/8]}",
            "35: the group allows \"tcp 22 from 10.0.0.0/8\" already (line 2, column 23); keep one",
        ),
        (
            "{protocol: tcp, ports: [22, 22], from: self}",
            "29: the group allows \"tcp 22 from sg:g\" already (line 2, column 25); keep one",
        ),
        (
            "{service: ssh, from: self}, {protocol: tcp, ports: 22, from: sg:G}",
            "62: the group allows \"tcp 22 from sg:G\" already (line 2, column 22); keep one",
        ),
        (
            "{service: ssh, from: self, description: über}",
            "41: a description may not contain 'ü'; use letters a-z and A-Z, digits, spaces and ._-:/()#,@[]+=&;{}!$*",
        ),
        (
            "{service: ssh, from: self, descriptio: x}",
            "28: a rule has no key \"descriptio\"; did you mean \"description\"?",
        ),
        (
            "{service: ssh, service: ftp, from: self}",
            "16: \"service\" is here for the second time (first in line 2, column 2); keep one",
        ),
        (
            "\"ssh\"",
            "1: a rule is a single value; write a rule like {protocol: tcp, ports: 22, from: [10.0.0.0/8]}",
        ),
    ];
    for (rule, wanted) in cases {
        check_rule(rule, wanted);
    }
}

#[test]
fn each_bad_file_is_told_what_would_be_right() {
    let cases = [
        (
            "",
            "1:1: the file says nothing; write at least \"groups: {}\"",
        ),
        (
            "- a",
            "1:1: a policy file is a list; write keys like groups and interfaces",
        ),
        ("vpc:", "1:4: vpc is empty; write the name of a VPC"),
        (
            "rules: {}",
            "1:1: a policy file has no key \"rules\"; use vpc, prefix_lists, groups, interfaces, link_local_services, on_rule_removal",
        ),
        (
            "groups: [a]",
            "1:9: groups is a list; write a map from names to groups",
        ),
        (
            "groups: {a: , A: }",
            "1:15: \"A\" is here for the second time (first in line 1, column 10); keep one",
        ),
        (
            "groups: {a: {egress: }}",
            "1:20: egress is empty; write a list of rules, or [] for none",
        ),
        (
            "groups: {a: {egress: [{service: ssh, from: self}]}}",
            "1:38: an egress rule has no \"from\"; its peers are under \"to\"",
        ),
        (
            "groups: {a: {members: [10.0.0.0/8]}}",
            "1:24: \"10.0.0.0/8\" is not an address; write one like 192.0.2.1 or 2001:db8::1, with no length",
        ),
        (
            "groups: {a: {members: [127.0.0.1]}}",
            "1:24: 127.0.0.1 is a loopback address, which no peer has as its own; give a unicast address",
        ),
        (
            "prefix_lists: {pl-1: []}",
            "1:16: a prefix list name may not start with \"pl-\", which is how ids start; choose another",
        ),
        (
            "prefix_lists: {a: [x]}",
            "1:20: \"x\" is not a prefix; write one like 10.0.0.0/8, 2001:db8::/32 or 192.0.2.1",
        ),
        (
            "link_local_services: [10.0.0.2]",
            "1:23: 10.0.0.2 is not link-local; services that groups never filter lie in 169.254.0.0/16, fd00:ec2::/32 or fe80::/10, and any other address needs a rule",
        ),
        (
            "on_rule_removal: stop",
            "1:18: on_rule_removal is \"stop\"; use keep or terminate",
        ),
        (
            "interfaces: {eth0: {}}",
            "1:14: interface \"eth0\" has no group; give it at least one, like \"default\"",
        ),
        (
            "interfaces: {eth0: {groups: [default, wbe]}}",
            "1:39: interface \"eth0\" names group \"wbe\", which does not exist; create it or correct the name",
        ),
        (
            "interfaces: {eth0: {groups: default, side: gast}}",
            "1:44: side is \"gast\"; use host or guest",
        ),
        (
            "interfaces: {eth0: {groups: default, side: guest}}",
            "1:14: interface \"eth0\" protects a guest but has no addresses; list the addresses of the guest",
        ),
        (
            "interfaces: {eth0: {groups: default, addresses: [10.0.0.1]}}",
            "1:14: interface \"eth0\" protects this machine, whose addresses are read from the interface; leave addresses out, or set side to guest",
        ),
        (
            "interfaces: {eth0: {groups: default, fragments: late}}",
            "1:49: fragments is \"late\"; use early or strict",
        ),
        (
            "interfaces: {eth0: {groups: default, tcp_pickup: maybe}}",
            "1:50: tcp_pickup is \"maybe\"; use true or false",
        ),
        (
            "interfaces: {eth0: {groups: default, ethertypes: [0x10000]}}",
            "1:51: an EtherType is \"0x10000\"; use a number like 0x8915",
        ),
        (
            "interfaces: {eth0: {groups: default, ethertypes: [0x0800]}}",
            "1:14: interface \"eth0\" lets EtherType 0x0800 pass unjudged, which is IPv4; leave it out, because what it carries is for the rules to judge",
        ),
        (
            "interfaces: {eth0: {groups: default, timeouts: {udp: 29}}}",
            "1:14: interface \"eth0\" has udp at 29 s; use 30 to 60 s",
        ),
        (
            "interfaces: {eth0: {groups: default, timeouts: {udp: 2m}}}",
            "1:14: interface \"eth0\" has udp at 120 s; use 30 to 60 s",
        ),
        (
            "interfaces: {eth0: {groups: default, timeouts: {udp: 1 min}}}",
            "1:54: udp: \"1 min\" is not a time; did you mean \"1m\"?",
        ),
        (
            "interfaces: {eth0: {groups: default, timeouts: {udp_stream: soon}}}",
            "1:61: udp_stream: \"soon\" is not a time; write one like 90, 30s, 5m or 1h",
        ),
        (
            "interfaces: {eth0: {groups: default, timeouts: {udp: [30]}}}",
            "1:54: udp is a list; write a time like 90, 30s, 5m or 1h",
        ),
        (
            "interfaces: {eth0: {groups: default, timeouts: {tcp: 60}}}",
            "1:49: timeouts has no key \"tcp\"; use tcp_established, udp, udp_stream",
        ),
        (
            "interfaces: {eth0: {groups: default, max_flows: -1}}",
            "1:49: max_flows is \"-1\"; use a number of flows",
        ),
        (
            "interfaces: {eth0: {groups: default, netns: a/b}}",
            "1:14: interface \"eth0\" has \"a/b\" as its network namespace; give a name of `ip netns` or an absolute path",
        ),
    ];
    for (text, wanted) in cases {
        check(text, &[&format!("p:{wanted}")]);
    }
}

#[test]
fn a_flood_of_findings_is_counted_and_not_listed() {
    let items = "{service: x, from: self}, ".repeat(1_500);
    let findings = PolicyFile::parse("p", &format!("groups: {{g: {{ingress: [{items}]}}}}"));
    let findings = findings.unwrap_err();
    assert_eq!((findings.count(), findings.iter().count()), (1_500, 1_000));
    assert!(findings.to_string().ends_with("\nand 500 more"));
}

/// `count` addresses, ports or names, in the middle of a list.
fn listed(count: usize, item: impl Fn(usize) -> String) -> String {
    (0..count).map(item).collect::<Vec<_>>().join(",")
}

#[test]
fn lists_that_stand_for_too_many_rules_are_refused_before_they_are_multiplied() {
    let ports = |count| listed(count, |port| port.to_string());
    let peers = |count: usize| {
        listed(count, |n| {
            format!("10.{}.{}.{}", n >> 16, n >> 8 & 255, n & 255)
        })
    };
    let rule = |ports: String, peers: String| {
        format!("{{protocol: tcp, ports: [{ports}], from: [{peers}]}}")
    };
    let file =
        |rules: &str| PolicyFile::parse("x", &format!("{{groups: {{g: {{ingress: [{rules}]}}}}}}"));
    let refused = |rules: &str| file(rules).unwrap_err().to_string();
    assert_eq!(
        refused(&rule(ports(60_000), peers(60_000))),
        "x:1:25: the lists of ports and peers of the rules up to this one stand for 3600000000 \
         rules, and those of a file may stand for 131072; put the peers into a prefix list, or write \
         port ranges"
    );
    // One text of ports with commas is as much.
    assert!(refused(&rule(format!("\"{}\"", ports(60_000)), peers(60_000))).contains("3600000000"));
    // Many rules together are as much as one.
    let thirty: Vec<_> = (0..150).map(|_| rule(ports(30), peers(30))).collect();
    assert!(refused(&thirty.join(",")).contains("stand for 131400 rules"));
    // One long list beside a short one is hardly more than what is written.
    assert!(file(&rule(ports(65_536), peers(2))).is_ok());
    assert!(file(&rule(ports(200), peers(200))).is_ok());
}
