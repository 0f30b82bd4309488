from sg import client, refused

ec2 = client()
asked = dict(
    PrefixListName="office",
    MaxEntries=2,
    AddressFamily="IPv4",
    Entries=[{"Cidr": "198.51.100.0/24", "Description": "one"}],
    ClientToken="once",
)
made = ec2.create_managed_prefix_list(**asked)["PrefixList"]
office = made["PrefixListId"]
assert made["State"] == "create-complete" and made["Version"] == 1, made
# The same call again is the same list; another call with its token is a mistake.
assert ec2.create_managed_prefix_list(**asked)["PrefixList"]["PrefixListId"] == office
refused(
    ec2.create_managed_prefix_list,
    "IdempotentParameterMismatch",
    **{**asked, "MaxEntries": 3},
)
refused(
    ec2.create_managed_prefix_list,
    "PrefixListMaxEntriesExceeded",
    **{**asked, "MaxEntries": 1, "ClientToken": "other", "Entries": [{"Cidr": "10.0.0.0/8"}, {"Cidr": "11.0.0.0/8"}]},
)
changed = ec2.modify_managed_prefix_list(
    PrefixListId=office, CurrentVersion=1, AddEntries=[{"Cidr": "203.0.113.7/32"}]
)["PrefixList"]
assert changed["State"] == "modify-complete" and changed["Version"] == 2, changed
refused(
    ec2.modify_managed_prefix_list,
    "PrefixListVersionMismatch",
    PrefixListId=office,
    CurrentVersion=1,
    RemoveEntries=[{"Cidr": "203.0.113.7/32"}],
)


def entries(**more):
    told = ec2.get_managed_prefix_list_entries(PrefixListId=office, **more)["Entries"]
    return [(entry["Cidr"], entry.get("Description")) for entry in told]


assert entries() == [("198.51.100.0/24", "one"), ("203.0.113.7/32", None)], entries()
assert entries(TargetVersion=1) == [("198.51.100.0/24", "one")]

# A rule of any VPC may name it.
vpc = ec2.create_vpc(CidrBlock="10.0.0.0/16")["Vpc"]["VpcId"]
group = ec2.create_security_group(GroupName="a", Description="a", VpcId=vpc)["GroupId"]
rule = {"IpProtocol": "tcp", "FromPort": 22, "ToPort": 22, "PrefixListIds": [{"PrefixListId": office}]}
ec2.authorize_security_group_ingress(GroupId=group, IpPermissions=[rule])
shown = ec2.describe_security_groups(GroupIds=[group])["SecurityGroups"][0]
assert shown["IpPermissions"][0]["PrefixListIds"] == [{"PrefixListId": office}], shown
used = ec2.get_managed_prefix_list_associations(PrefixListId=office)["PrefixListAssociations"]
assert [one["ResourceId"] for one in used] == [group], used
ec2.modify_managed_prefix_list(
    PrefixListId=office, CurrentVersion=2, RemoveEntries=[{"Cidr": "203.0.113.7/32"}]
)
back = ec2.restore_managed_prefix_list_version(
    PrefixListId=office, PreviousVersion=2, CurrentVersion=3
)["PrefixList"]
assert back["Version"] == 4 and len(entries()) == 2, back

# The cloud answers before it finds that the list is in use.
assert ec2.delete_managed_prefix_list(PrefixListId=office)["PrefixList"]["State"] == "delete-in-progress"
stays = ec2.describe_managed_prefix_lists(PrefixListIds=[office])["PrefixLists"][0]
assert stays["State"] == "delete-failed" and group in stays["StateMessage"], stays
ec2.revoke_security_group_ingress(GroupId=group, IpPermissions=[rule])
ec2.delete_managed_prefix_list(PrefixListId=office)
refused(ec2.describe_managed_prefix_lists, "InvalidPrefixListID.NotFound", PrefixListIds=[office])
ec2.delete_security_group(GroupId=group)
ec2.delete_vpc(VpcId=vpc)
