"""Signed requests that no client sends."""

import datetime
import os
import urllib.error
import urllib.request
from urllib.parse import urlencode

import botocore.session
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest

endpoint = os.environ["AWS_ENDPOINT_URL"] + "/"
credentials = botocore.session.get_session().get_credentials()


def send(fields, method="POST", service="ec2", tamper=lambda request: None):
    body = fields if isinstance(fields, str) else urlencode(fields)
    headers = {"Content-Type": "application/x-www-form-urlencoded"}
    if method == "GET":
        request = AWSRequest(method, endpoint + "?" + body)
    else:
        request = AWSRequest(method, endpoint, data=body, headers=headers)
    SigV4Auth(credentials, service, "eu-west-1").add_auth(request)
    prepared = request.prepare()
    tamper(prepared)
    body = prepared.body if method == "POST" else None
    body = body.encode() if isinstance(body, str) else body
    sent = urllib.request.Request(prepared.url, body, dict(prepared.headers), method=method)
    try:
        with urllib.request.urlopen(sent, timeout=20) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


def check(answer, status, words):
    assert answer[0] == status and words in answer[1], answer


ask = {"Action": "DescribeVpcs", "Version": "2016-11-15"}
check(send(ask), 200, "<DescribeVpcsResponse xmlns=\"http://ec2.amazonaws.com/doc/2016-11-15/\"><requestId>")
check(send(ask, "GET"), 200, "<vpcSet>")
check(send({**ask, "VpcIdd.1": "x"}), 400, "VpcIdd.1 is not recognized; VpcId is")
check(send({**ask, "Action": "DescribeVpc"}), 400, "<Code>InvalidAction</Code>")
check(send({**ask, "Version": "2012-01-01"}), 400, "<Code>NoSuchVersion</Code>")
check(send({"Version": "2016-11-15"}), 400, "<Code>MissingAction</Code>")
check(send("Action=DescribeVpcs&Version=2016-11-15&a=%ff"), 400, "<Code>MalformedQueryString</Code>")
check(send({**ask, "a.b.c.d.e.f.g.h.i": "x"}), 400, "<Code>MalformedQueryString</Code>")
check(send(ask, service="s3"), 400, "<Code>IncompleteSignature</Code>")


def late(request):
    then = datetime.datetime.now(datetime.timezone.utc) - datetime.timedelta(minutes=6)
    request.headers["X-Amz-Date"] = then.strftime("%Y%m%dT%H%M%SZ")


def other_body(request):
    body = request.body.decode() if isinstance(request.body, bytes) else request.body
    request.body = body.replace("DescribeVpcs", "DescribeTags")


assert send(ask, tamper=late)[0] == 400
check(send(ask, tamper=other_body), 401, "<Code>AuthFailure</Code>")
