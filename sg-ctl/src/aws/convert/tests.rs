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
    let told = |fate: Fate| -> Vec<String> {
        let notes = imported.notes.iter().filter(|note| note.fate == fate);
        notes.map(ToString::to_string).collect()
    };
    assert_eq!(
        told(Fate::Lost),
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
        told(Fate::LeftOut),
        [
            "group web (sg-0000000000000000a): sg has no tags (Name)",
            "ids, owners and ARNs are AWS's: sg gives ids of its own",
        ]
    );
}

#[test]
fn of_several_vpcs_one_is_chosen() {
    let other = GROUPS.replace("vpc-1", "vpc-2").replace("sg-0", "sg-1");
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

fn imported(files: &[(&str, &str)]) -> Imported {
    Imported::from_answers(&answers(files), None, None).unwrap()
}

fn notes(imported: &Imported, fate: Fate) -> Vec<String> {
    let notes = imported.notes.iter().filter(|note| note.fate == fate);
    notes.map(ToString::to_string).collect()
}

#[test]
fn brackets_are_ordinary_characters() {
    let text = GROUPS
        .replace("\"the site\"", "\"[k8s] Managed SecurityGroup\"")
        .replace("\"web\"", "\"web[1]\"")
        .replace("\"everyone\"", "\"[k8s] rule\"");
    let imported = imported(&[("a", &text)]);
    assert!(
        imported
            .text
            .contains("description: \"[k8s] Managed SecurityGroup\"")
    );
    assert!(
        imported.text.contains("  \"web[1]\":\n"),
        "{}",
        imported.text
    );
    PolicyFile::parse("imported", &imported.text).unwrap();
}

#[test]
fn what_sg_cannot_spell_is_spelt_otherwise_and_told() {
    let text = GROUPS
        .replace("\"the site\"", "\"caf\u{e9}\"")
        .replace("\"web\"", "\"w\u{e9}b\"");
    let imported = imported(&[("a", &text)]);
    assert!(
        imported.text.contains("  w-b:\n    description: caf-\n"),
        "{}",
        imported.text
    );
    let told = notes(&imported, Fate::Changed);
    assert_eq!(
        told[0],
        "group w\u{e9}b (sg-0000000000000000a) is called w-b, because sg takes no such name"
    );
    assert!(told[1].contains("is written as \"caf-\""), "{told:?}");
}

/// A VPC that two accounts share: each has a group `web`, and a rule names the second one.
const SHARED: &str = r#"{"SecurityGroups": [
  {"GroupId": "sg-1", "GroupName": "web", "OwnerId": "1", "VpcId": "vpc-1",
   "IpPermissions": [{"IpProtocol": "tcp", "FromPort": 80, "ToPort": 80,
     "UserIdGroupPairs": [{"GroupId": "sg-2", "UserId": "2"}]}]},
  {"GroupId": "sg-2", "GroupName": "Web", "OwnerId": "2", "VpcId": "vpc-1",
   "IpPermissions": [{"IpProtocol": "tcp", "FromPort": 22, "ToPort": 22,
     "IpRanges": [{"CidrIp": "10.0.0.0/8"}]}]}]}"#;

#[test]
fn two_groups_of_one_name_stay_two_and_references_follow_the_ids() {
    let imported = imported(&[("a", SHARED)]);
    let of = |name: &str, rule: &str| {
        let at = imported.text.find(&format!("\n  {name}:\n")).expect(name);
        let group = &imported.text[at + 1..];
        let end = group.find("\n  ").map_or(group.len(), |_| group.len());
        assert!(group[..end].contains(rule), "{}", imported.text);
    };
    of("web", "- {protocol: tcp, ports: 80, from: [sg:Web-sg-2]}");
    of(
        "Web-sg-2",
        "- {protocol: tcp, ports: 22, from: [10.0.0.0/8]}",
    );
    assert_eq!(
        notes(&imported, Fate::Changed),
        ["group Web (sg-2) is called Web-sg-2, because group sg-1 has that name here"]
    );
    assert!(imported.text.contains("# sg-2: Web-sg-2\n"));
}

#[test]
fn what_a_query_takes_out_of_an_answer_is_read() {
    let inner = GROUPS
        .trim_start_matches("{\"SecurityGroups\": ")
        .trim_end_matches('}');
    let whole = imported(&[("a", GROUPS)]).text;
    assert_eq!(imported(&[("a", inner)]).text, whole);
    // A page an item, as `--output yaml-stream` has it, and a byte order mark.
    assert_eq!(
        imported(&[("a", &format!("\u{feff}[{GROUPS}]"))]).text,
        whole
    );
    // Null for what is not there.
    let nulls = GROUPS.replace(
        "\"Tags\": [{\"Key\": \"Name\", \"Value\": \"x\"}]",
        "\"Tags\": null",
    );
    assert_eq!(imported(&[("a", &nulls)]).text, whole);
}

#[test]
fn yaml_is_read_as_json_is() {
    let yaml = "\
SecurityGroups:
- Description: the site
  GroupId: sg-0000000000000000a
  GroupName: web
  IpPermissions:
  - FromPort: 443
    IpProtocol: tcp
    IpRanges:
    - CidrIp: 0.0.0.0/0
    Ipv6Ranges: []
    ToPort: 443
  IpPermissionsEgress:
  - IpProtocol: '-1'
    IpRanges:
    - CidrIp: 0.0.0.0/0
  OwnerId: '111122223333'
  VpcId: vpc-1
";
    let imported = imported(&[("a", yaml)]);
    assert!(
        imported.text.ends_with(
            "  web:
    description: the site
    ingress:
      - {protocol: tcp, ports: 443, from: [0.0.0.0/0]}
    egress:
      - {protocol: all, to: [0.0.0.0/0]}
"
        ),
        "{}",
        imported.text
    );
}

/// The first group's rules, told one by one.
const RULES: &str = r#"{"SecurityGroupRules": [
  {"SecurityGroupRuleId": "sgr-1", "GroupId": "sg-1", "GroupOwnerId": "1", "IsEgress": false,
   "IpProtocol": "tcp", "FromPort": 80, "ToPort": 80,
   "ReferencedGroupInfo": {"GroupId": "sg-2", "UserId": "2"}},
  {"SecurityGroupRuleId": "sgr-2", "GroupId": "sg-1", "GroupOwnerId": "1", "IsEgress": true,
   "IpProtocol": "-1", "FromPort": -1, "ToPort": -1, "CidrIpv4": "0.0.0.0/0", "Description": "out"},
  {"SecurityGroupRuleId": "sgr-3", "GroupId": "sg-2", "GroupOwnerId": "2", "IsEgress": false,
   "IpProtocol": "icmpv6", "FromPort": -1, "ToPort": -1, "CidrIpv6": "::/0"}]}"#;

#[test]
fn rules_that_are_told_one_by_one_are_read() {
    let alone = imported(&[("a", RULES)]);
    assert!(
        alone.text.ends_with(
            "  aws-sg-1:
    ingress:
      - {protocol: tcp, ports: 80, from: [sg:aws-sg-2]}
    egress:
      - {protocol: all, to: [0.0.0.0/0], description: out}
  aws-sg-2:
    ingress:
      - {protocol: icmpv6, from: [\"::/0\"]}
    egress: []
"
        ),
        "{}",
        alone.text
    );
    assert!(notes(&alone, Fate::Changed)[0].contains("no file has its name"));
    // With their groups they are the same rules once, and what is new comes along.
    let both = imported(&[("a", SHARED), ("b", RULES)]);
    assert_eq!(both.text.matches("ports: 80").count(), 1, "{}", both.text);
    assert!(both.text.contains("- {protocol: icmpv6, from: [\"::/0\"]}"));
    // Without their group they are lost, and that is told.
    let other = SHARED.replace("sg-2", "sg-3");
    let lost = notes(&imported(&[("a", &other), ("b", RULES)]), Fate::Lost);
    assert!(
        lost[0].starts_with("the 1 rules of group sg-2 are left out"),
        "{lost:?}"
    );
}

#[test]
fn a_group_without_its_rules_is_told_to_lack_them() {
    let text = r#"[{"GroupId": "sg-1", "GroupName": "web", "VpcId": "vpc-1"}]"#;
    let lost = notes(&imported(&[("a", text)]), Fate::Lost);
    assert_eq!(lost, ["group web (sg-1): no file has its rules"]);
}
