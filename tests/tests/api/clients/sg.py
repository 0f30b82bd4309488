"""What the scripts here share: clients of the API under test, and a look at refusals."""

import boto3
from botocore.config import Config
from botocore.exceptions import ClientError


def client(service="ec2", **keys):
    return boto3.client(service, config=Config(retries={"max_attempts": 0}), **keys)


def refused(call, code, words="", **arguments):
    """A call must be refused with a code, and with words in its message."""
    try:
        answer = call(**arguments)
    except ClientError as error:
        told = error.response["Error"]
        assert told["Code"] == code, told
        assert words in told["Message"], told
        return error.response["ResponseMetadata"]["HTTPStatusCode"]
    raise AssertionError(f"not refused: {answer}")
