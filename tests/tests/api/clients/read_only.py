import sys

from sg import client, refused

looks = client(aws_access_key_id=sys.argv[1], aws_secret_access_key=sys.argv[2])
assert looks.describe_security_groups()["SecurityGroups"]
make = dict(GroupName="a", Description="a")
assert refused(looks.create_security_group, "UnauthorizedOperation", "read-only", **make) == 403
assert refused(looks.create_security_group, "UnauthorizedOperation", **make, DryRun=True) == 403
wrong = client(aws_access_key_id=sys.argv[1], aws_secret_access_key="wrong")
assert refused(wrong.describe_vpcs, "AuthFailure") == 401
unknown = client("sts", aws_access_key_id="SGKAAAAAAAAAAAAAAAAA", aws_secret_access_key="wrong")
assert refused(unknown.get_caller_identity, "InvalidClientTokenId") == 403
wrong = client("sts", aws_access_key_id=sys.argv[1], aws_secret_access_key="wrong")
assert refused(wrong.get_caller_identity, "SignatureDoesNotMatch") == 403
