"""Network interfaces; the argument is the name of a device that comes later."""

import sys

from sg import client, refused

ec2 = client()
subnet = ec2.describe_subnets(Filters=[{"Name": "default-for-az", "Values": ["true"]}])["Subnets"][0]
group = ec2.create_security_group(GroupName="nic", Description="x")["GroupId"]
asked = dict(
    SubnetId=subnet["SubnetId"],
    Groups=[group],
    Description="of a client",
    ClientToken="nic",
    TagSpecifications=[
        {"ResourceType": "network-interface", "Tags": [{"Key": "sg:name", "Value": sys.argv[1]}]}
    ],
)
made = ec2.create_network_interface(**asked)["NetworkInterface"]
nic = made["NetworkInterfaceId"]
assert made["Status"] == "available" and made["Groups"][0]["GroupId"] == group, made
assert made["PrivateIpAddress"] == "172.31.0.4", made
assert ec2.create_network_interface(**asked)["NetworkInterface"]["NetworkInterfaceId"] == nic
ec2.get_waiter("network_interface_available").wait(NetworkInterfaceIds=[nic])
by_group = [{"Name": "group-id", "Values": [group]}, {"Name": "description", "Values": ["of a*"]}]
found = ec2.describe_network_interfaces(Filters=by_group)["NetworkInterfaces"]
assert [one["NetworkInterfaceId"] for one in found] == [nic], found
refused(ec2.delete_security_group, "DependencyViolation", nic, GroupId=group)
refused(ec2.modify_network_interface_attribute, "InvalidSecurityGroupID.NotFound", NetworkInterfaceId=nic, Groups=["sg-00000000"])
default = ec2.describe_security_groups(GroupNames=["default"])["SecurityGroups"][0]["GroupId"]
ec2.modify_network_interface_attribute(NetworkInterfaceId=nic, Groups=[default])
told = ec2.describe_network_interface_attribute(NetworkInterfaceId=nic, Attribute="groupSet")
assert [one["GroupId"] for one in told["Groups"]] == [default], told
ec2.modify_network_interface_attribute(NetworkInterfaceId=nic, Description={"Value": "new"})
ec2.modify_network_interface_attribute(NetworkInterfaceId=nic, Groups=[group])
own = ec2.create_network_interface(SubnetId=subnet["SubnetId"])["NetworkInterface"]
assert own["MacAddress"].startswith("02:") and own["PrivateIpAddress"] == "172.31.0.5", own
assert own["Groups"][0]["GroupId"] == default, own
ec2.delete_network_interface(NetworkInterfaceId=own["NetworkInterfaceId"])
refused(ec2.delete_network_interface, "InvalidNetworkInterfaceID.NotFound", NetworkInterfaceId=own["NetworkInterfaceId"])
ec2.authorize_security_group_ingress(GroupId=group, IpProtocol="tcp", FromPort=80, ToPort=80, CidrIp="10.0.0.0/24")
print(nic)
