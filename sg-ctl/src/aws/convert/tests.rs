//! What becomes of AWS's answers, and what is told.

use super::*;
use crate::policy::file::PolicyFile;

/// As the AWS command line prints it, but for what sg ignores.
const GROUPS: &str = r#"{"SecurityGroups": [
  {"GroupId": "sg-0000000000000000a", "GroupName": "web", "Description": "the site",
   "OwnerId": "111122223333", "VpcId": "vpc-1", "Tags": [{"Key": "Name", "Value": "x"}],
   "IpPermissions": [
     {"IpProtocol": "tcp", "FromPort": 443, "ToPort": 443,
      "IpRanges": [{"CidrIp": "0.0.0.0/0", "Description": "everyone"}],
      "Ipv6Ranges": [{"CidrIpv6": "::/0"}], "PrefixListIds": [], "UserIdGroupPairs": []},
     {"IpProtocol": "tcp", "FromPort": 22, "ToPort": 22, "IpRanges": [], "Ipv6Ranges": [],
      "PrefixListIds": [{"PrefixListId": "pl-0000000000000000f", "Description": "office"}],
      "UserIdGroupPairs": [
        {"GroupId": "sg-0000000000000000b", "UserId": "111122223333"},
        {"GroupId": "sg-0000000000000000c", "UserId": "444455556666", "VpcId": "vpc-9"}]},
     {"IpProtocol": "icmp", "FromPort": 8, "ToPort": -1, "IpRanges": [{"CidrIp": "10.0.0.0/8"}]},
     {"IpProtocol": "icmpv6", "Ipv6Ranges": [{"CidrIpv6": "2001:db8::/32"}]},
     {"IpProtocol": "50", "IpRanges": [{"CidrIp": "192.0.2.1/32"}]}],
   "IpPermissionsEgress": [
     {"IpProtocol": "-1", "IpRanges": [{"CidrIp": "0.0.0.0/0"}]}]},
  {"GroupId": "sg-0000000000000000b", "GroupName": "default",
   "Description": "default VPC security group", "OwnerId": "111122223333", "VpcId": "vpc-1",
   "IpPermissions": [{"IpProtocol": "-1", "UserIdGroupPairs":
     [{"GroupId": "sg-0000000000000000b", "UserId": "111122223333"}]}],
   "IpPermissionsEgress": []}]}"#;

const LISTS: &str = r#"{"PrefixLists": [
  {"PrefixListId": "pl-0000000000000000f", "PrefixListName": "office", "AddressFamily": "IPv4"}]}"#;

const ENTRIES: &str = r#"{"Entries": [{"Cidr": "203.0.113.0/24", "Description": "floor 2"}]}"#;

fn answers(files: &[(&str, &str)]) -> Answers {
    let mut answers = Answers::default();
    for (name, text) in files {
        answers.read(name, text).unwrap();
    }
    answers
}

const ALL: &[(&str, &str)] = &[
    ("groups.json", GROUPS),
    ("lists.json", LISTS),
    ("pl-0000000000000000f.json", ENTRIES),
];

#[test]
fn every_kind_of_rule_is_carried_over() {
    let imported = Imported::from_answers(&answers(ALL), None, None).unwrap();
    assert_eq!(
        imported.text,
        "\
# sg-0000000000000000a: web
# sg-0000000000000000b: default
# pl-0000000000000000f: office
vpc: vpc-1
prefix_lists:
  office: [203.0.113.0/24]
groups:
  default:
    egress: []
  web:
    description: the site
    ingress:
      - {protocol: tcp, ports: 443, from: [0.0.0.0/0], description: everyone}
      - {protocol: tcp, ports: 443, from: [\"::/0\"]}
      - {protocol: tcp, ports: 22, from: [pl:office], description: office}
      - {protocol: tcp, ports: 22, from: [sg:default]}
      - {protocol: icmp, type: 8, from: [10.0.0.0/8]}
      - {protocol: icmpv6, from: [\"2001:db8::/32\"]}
      - {protocol: 50, from: [192.0.2.1/32]}
    egress:
      - {protocol: all, to: [0.0.0.0/0]}
"
    );
    let file = PolicyFile::parse("imported", &imported.text).unwrap();
    assert!(!file.has_interfaces());
    let again = export_without_interfaces(file.vpc_name(), &file.to_vpc(None).unwrap());
    assert!(imported.text.ends_with(&again), "{again}");
}

#[test]
fn what_is_not_carried_over_is_told() {
    let imported = Imported::from_answers(&answers(&ALL[..1]), None, None).unwrap();
    let told = |is_lost: bool| -> Vec<String> {
        let notes = imported.notes.iter().filter(|note| note.is_lost == is_lost);
        notes.map(ToString::to_string).collect()
    };
    assert_eq!(
        told(true),
        [
            "group web (sg-0000000000000000a): the rule for tcp 22 and group sg-0000000000000000c \
             is left out, because that group is in VPC vpc-9 of account 444455556666; add one with \
             the prefixes of its members",
            "prefix list aws-pl-0000000000000000f (pl-0000000000000000f) is empty, because no file \
             has its entries; save them with `aws ec2 get-managed-prefix-list-entries \
             --prefix-list-id pl-0000000000000000f >pl-0000000000000000f.json`",
        ]
    );
    assert_eq!(
        told(false),
        [
            "group web (sg-0000000000000000a): sg has no tags (Name)",
            "ids, owners and ARNs are AWS's: sg gives ids of its own",
        ]
    );
}

#[test]
fn of_several_vpcs_one_is_chosen() {
    let other = GROUPS.replace("vpc-1", "vpc-2");
    let both = answers(&[("a.json", GROUPS), ("b.json", &other)]);
    let refused = |asked| {
        let imported = Imported::from_answers(&both, asked, None);
        imported.unwrap_err().to_string()
    };
    assert_eq!(
        refused(None),
        "the groups are of several VPCs: vpc-1, vpc-2; choose one with --vpc"
    );
    assert_eq!(
        refused(Some("vpc-3")),
        "no group is of VPC vpc-3; there are vpc-1, vpc-2"
    );
    let name = "prod".parse().unwrap();
    let imported = Imported::from_answers(&both, Some("vpc-2"), Some(&name)).unwrap();
    assert!(imported.text.contains("\nvpc: prod\n"), "{}", imported.text);
}

#[test]
fn traffic_that_aws_does_not_know_is_refused() {
    for (protocol, from, to) in [("tcp", "1", "70000"), ("tcp", "9", "8"), ("300", "1", "1")] {
        let text = format!(
            r#"{{"SecurityGroups": [{{"GroupId": "sg-1", "GroupName": "a", "IpPermissions": [
               {{"IpProtocol": "{protocol}", "FromPort": {from}, "ToPort": {to}}}]}}]}}"#
        );
        let told = Imported::from_answers(&answers(&[("a", &text)]), None, None).unwrap_err();
        assert!(
            told.to_string().contains("nothing that AWS documents"),
            "{told}"
        );
    }
}
