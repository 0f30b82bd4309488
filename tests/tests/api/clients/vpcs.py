from sg import client, refused

ec2 = client()
default = ec2.describe_vpcs(Filters=[{"Name": "isDefault", "Values": ["true"]}])["Vpcs"]
assert len(default) == 1 and default[0]["IsDefault"], default
made = ec2.create_vpc(CidrBlock="10.250.1.0/16")["Vpc"]
vpc = made["VpcId"]
assert made["CidrBlock"] == "10.250.0.0/16" and not made["IsDefault"], made
ec2.get_waiter("vpc_available").wait(VpcIds=[vpc])
ec2.modify_vpc_attribute(VpcId=vpc, EnableDnsHostnames={"Value": True})
told = ec2.describe_vpc_attribute(VpcId=vpc, Attribute="enableDnsHostnames")
assert told["EnableDnsHostnames"]["Value"] is True, told
subnet = ec2.create_subnet(VpcId=vpc, CidrBlock="10.250.1.0/24")["Subnet"]["SubnetId"]
refused(ec2.create_subnet, "InvalidSubnet.Conflict", subnet, VpcId=vpc, CidrBlock="10.250.1.128/25")
refused(ec2.create_subnet, "InvalidSubnet.Range", VpcId=vpc, CidrBlock="10.1.0.0/24")
refused(ec2.delete_vpc, "DependencyViolation", subnet, VpcId=vpc)

# Without an IPv6 block a group's egress is IPv4's; rules stay inside of their network.
group = ec2.create_security_group(GroupName="a", Description="a", VpcId=vpc)["GroupId"]
shown = ec2.describe_security_groups(GroupIds=[group])["SecurityGroups"][0]
egress = shown["IpPermissionsEgress"]
assert len(egress) == 1 and egress[0]["Ipv6Ranges"] == [], egress
other = ec2.create_security_group(GroupName="a", Description="a")["GroupId"]
refused(
    ec2.authorize_security_group_ingress,
    "InvalidGroup.NotFound",
    "different networks",
    GroupId=group,
    IpPermissions=[{"IpProtocol": "-1", "UserIdGroupPairs": [{"GroupId": other}]}],
)
# A rule that is not there is refused but in the default VPC.
none = [{"IpProtocol": "tcp", "FromPort": 9, "ToPort": 9, "IpRanges": [{"CidrIp": "10.0.0.0/8"}]}]
refused(ec2.revoke_security_group_ingress, "InvalidPermission.NotFound", GroupId=group, IpPermissions=none)
unknown = ec2.revoke_security_group_ingress(GroupId=other, IpPermissions=none)["UnknownIpPermissions"]
assert unknown[0]["IpRanges"] == [{"CidrIp": "10.0.0.0/8"}], unknown
ec2.delete_security_group(GroupId=other)
ec2.delete_security_group(GroupId=group)
ec2.delete_subnet(SubnetId=subnet)
ec2.delete_vpc(VpcId=vpc)
refused(ec2.describe_vpcs, "InvalidVpcID.NotFound", vpc, VpcIds=[vpc])
assert [vpc["VpcId"] for vpc in ec2.describe_vpcs()["Vpcs"]] == [default[0]["VpcId"]]
