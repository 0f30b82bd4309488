from sg import client, refused

ec2 = client()
who = client("sts").get_caller_identity()
assert who["Account"] == "123456789012", who

tags = [{"Key": "stage", "Value": "grün & <b>"}]
made = ec2.create_security_group(
    GroupName="web",
    Description="the web",
    TagSpecifications=[{"ResourceType": "security-group", "Tags": tags}],
)
web = made["GroupId"]
assert made["Tags"] == tags, made
assert made["SecurityGroupArn"].endswith(f":123456789012:security-group/{web}")
refused(ec2.create_security_group, "InvalidGroup.Duplicate", GroupName="WEB", Description="x")
refused(ec2.create_security_group, "InvalidParameterValue", "sg-*", GroupName="sg-x", Description="x")
refused(ec2.create_security_group, "InvalidParameterValue", "ASCII", GroupName="a", Description="é")
refused(ec2.create_security_group, "InvalidParameterValue", "reserved", GroupName="default", Description="x")

# A permission with several peers is several rules, made whole or not at all.
permission = {
    "IpProtocol": "TCP",
    "FromPort": 80,
    "ToPort": 81,
    "IpRanges": [{"CidrIp": "100.68.0.18/18", "Description": "ten"}, {"CidrIp": "192.0.2.0/24"}],
    "Ipv6Ranges": [{"CidrIpv6": "2001:DB8::/32"}],
    "UserIdGroupPairs": [{"GroupId": web, "UserId": ""}],
}
rule_tags = [{"ResourceType": "security-group-rule", "Tags": [{"Key": "t", "Value": "1"}]}]
rules = ec2.authorize_security_group_ingress(
    GroupId=web, IpPermissions=[permission], TagSpecifications=rule_tags
)["SecurityGroupRules"]
assert len(rules) == 4 and all(rule["Tags"] for rule in rules), rules
masked = next(rule for rule in rules if rule.get("Description") == "ten")
assert masked["CidrIpv4"] == "100.68.0.0/18", masked
new = {"IpProtocol": "tcp", "FromPort": 1, "ToPort": 1, "IpRanges": [{"CidrIp": "10.0.0.0/8"}]}
refused(
    ec2.authorize_security_group_ingress,
    "InvalidPermission.Duplicate",
    f'"peer: {web}, TCP, from port: 80, to port: 81, ALLOW" already exists',
    GroupId=web,
    IpPermissions=[new, permission],
)
refused(
    ec2.authorize_security_group_ingress,
    "InvalidParameterValue",
    "multiple times",
    GroupId=web,
    IpPermissions=[new, new],
)
shown = ec2.describe_security_groups(GroupIds=[web])["SecurityGroups"][0]
assert len(shown["IpPermissions"]) == 1, shown
grouped = shown["IpPermissions"][0]
assert grouped["PrefixListIds"] == [] and len(grouped["IpRanges"]) == 2, grouped
assert grouped["UserIdGroupPairs"] == [{"GroupId": web, "UserId": "123456789012"}], grouped
everything = shown["IpPermissionsEgress"]
assert len(everything) == 1 and "FromPort" not in everything[0], everything

# A rule keeps its id, its tags and the kind of its peer.
change = {"IpProtocol": "udp", "FromPort": 53, "ToPort": 53, "CidrIpv4": "10.0.0.0/8"}
ec2.modify_security_group_rules(
    GroupId=web,
    SecurityGroupRules=[
        {"SecurityGroupRuleId": masked["SecurityGroupRuleId"], "SecurityGroupRule": change}
    ],
)
changed = ec2.describe_security_group_rules(SecurityGroupRuleIds=[masked["SecurityGroupRuleId"]])
changed = changed["SecurityGroupRules"][0]
assert changed["IpProtocol"] == "udp" and changed["Tags"] == [{"Key": "t", "Value": "1"}], changed
assert "Description" not in changed, changed
refused(
    ec2.modify_security_group_rules,
    "InvalidParameterValue",
    "existing IPv4 CIDR rule",
    GroupId=web,
    SecurityGroupRules=[
        {
            "SecurityGroupRuleId": masked["SecurityGroupRuleId"],
            "SecurityGroupRule": {**{k: change[k] for k in ("IpProtocol", "FromPort", "ToPort")}, "CidrIpv6": "::/0"},
        }
    ],
)
told = ec2.update_security_group_rule_descriptions_ingress(
    GroupId=web,
    SecurityGroupRuleDescriptions=[
        {"SecurityGroupRuleId": masked["SecurityGroupRuleId"], "Description": "names"}
    ],
)
assert told["Return"] is True, told

# Filters and pages.
by_port = [{"Name": "ip-permission.from-port", "Values": ["80"]}]
assert [g["GroupId"] for g in ec2.describe_security_groups(Filters=by_port)["SecurityGroups"]] == [web]
by_tag = [{"Name": "tag:stage", "Values": ["gr?n*"]}]
assert [g["GroupId"] for g in ec2.describe_security_groups(Filters=by_tag)["SecurityGroups"]] == [web]
for number in range(12):
    ec2.create_security_group(GroupName=f"n{number}", Description="x")
pages = ec2.get_paginator("describe_security_groups").paginate(PaginationConfig={"PageSize": 5})
assert [len(page["SecurityGroups"]) for page in pages] == [5, 5, 4]
refused(ec2.describe_security_groups, "InvalidNextToken", NextToken="00", MaxResults=5)
refused(ec2.describe_security_groups, "InvalidParameterValue", "The filter 'x' is invalid", Filters=[{"Name": "x", "Values": ["y"]}])

# Revoking, by what a rule says and by its id.
out = {"IpProtocol": "-1", "FromPort": 0, "ToPort": 0, "IpRanges": [{"CidrIp": "0.0.0.0/0", "Description": "any"}]}
gone = ec2.revoke_security_group_egress(GroupId=web, IpPermissions=[out])
assert len(gone["RevokedSecurityGroupRules"]) == 1, gone
gone = ec2.revoke_security_group_ingress(GroupId=web, SecurityGroupRuleIds=[masked["SecurityGroupRuleId"]])
assert gone["RevokedSecurityGroupRules"][0]["CidrIpv4"] == "10.0.0.0/8", gone
refused(
    ec2.revoke_security_group_ingress,
    "InvalidSecurityGroupRuleId.NotFound",
    GroupId=web,
    SecurityGroupRuleIds=[masked["SecurityGroupRuleId"]],
)

# What depends on a group is named.
app = ec2.create_security_group(GroupName="app", Description="x")["GroupId"]
ec2.authorize_security_group_ingress(
    GroupId=app, IpPermissions=[{"IpProtocol": "-1", "UserIdGroupPairs": [{"GroupId": web}]}]
)
refused(ec2.delete_security_group, "DependencyViolation", f"rules of {app} (app)", GroupId=web)
assert refused(ec2.delete_security_group, "DryRunOperation", GroupId=app, DryRun=True) == 412
ec2.delete_security_group(GroupId=app)
assert ec2.delete_security_group(GroupName="web")["GroupId"] == web
refused(ec2.describe_security_groups, "InvalidGroup.NotFound", f"'{web}'", GroupIds=[web])
default = ec2.describe_security_groups(GroupNames=["default"])["SecurityGroups"][0]["GroupId"]
refused(ec2.delete_security_group, "CannotDelete", GroupId=default)
assert ec2.describe_tags()["Tags"] == []
