"""The S3 bucket that holds Terraform's state and plans: versioned, encrypted, closed to the public, TLS only."""

import json
from typing import Any

from environments.settings import Environment
from infra.aws import client

STATE_KEY = "terraform.tfstate"
LOCK_KEY = f"{STATE_KEY}.tflock"
PLANS = "plans/"
"""What the keys of plans begin with that wait for their deploy (kept_plans.py)."""
PLAN_DAYS = 30
"""As long as a job of GitHub Actions may wait for its approval:
https://docs.github.com/en/actions/reference/workflows-and-actions/deployments-and-environments"""


def bucket_name(environment: Environment) -> str:
    """Name of the state bucket; the account makes it unique in the world."""
    return f"{environment.prefix.replace('_', '-')}-state-{environment.aws_account_id}"


def ensure_bucket(environment: Environment) -> bool:
    """Make the state bucket if it is missing, and put its protection right; tells whether there was anything to do.

    Safe defaults of https://docs.aws.amazon.com/AmazonS3/latest/userguide/security-best-practices.html
    """
    from botocore.exceptions import ClientError

    s3, bucket = client(environment, "s3"), bucket_name(environment)
    try:
        # Versioning is switched on last: where it is on, the rest is right too.
        if s3.get_bucket_versioning(Bucket=bucket).get("Status") == "Enabled":
            return _let_plans_expire(s3, bucket)  # buckets of earlier releases lack that
    except ClientError as error:
        if error.response["Error"]["Code"] != "NoSuchBucket":
            raise
        _create_bucket(environment, s3, bucket)
    blocks = ("BlockPublicAcls", "IgnorePublicAcls", "BlockPublicPolicy", "RestrictPublicBuckets")
    s3.put_public_access_block(Bucket=bucket, PublicAccessBlockConfiguration=dict.fromkeys(blocks, True))
    s3.put_bucket_encryption(
        Bucket=bucket,
        ServerSideEncryptionConfiguration={
            "Rules": [{"ApplyServerSideEncryptionByDefault": {"SSEAlgorithm": "AES256"}}]
        },
    )
    s3.put_bucket_policy(Bucket=bucket, Policy=json.dumps(tls_only(bucket)))
    _let_plans_expire(s3, bucket)
    s3.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Enabled"})
    return True


def _let_plans_expire(s3: Any, bucket: str) -> bool:
    """Have S3 delete plans after `PLAN_DAYS`; False when it does already."""
    from botocore.exceptions import ClientError

    wanted = {
        "ID": "plans",
        "Status": "Enabled",
        "Filter": {"Prefix": PLANS},
        "Expiration": {"Days": PLAN_DAYS},
        "NoncurrentVersionExpiration": {"NoncurrentDays": 1},
    }
    rules = []
    try:
        rules = s3.get_bucket_lifecycle_configuration(Bucket=bucket)["Rules"]
    except ClientError as error:
        if error.response["Error"]["Code"] != "NoSuchLifecycleConfiguration":
            raise
    if wanted in rules:
        return False
    others = [rule for rule in rules if rule.get("ID") != wanted["ID"]]
    s3.put_bucket_lifecycle_configuration(Bucket=bucket, LifecycleConfiguration={"Rules": [*others, wanted]})
    return True


def _create_bucket(environment: Environment, s3: Any, bucket: str) -> None:
    # The one region that must not be named: https://docs.aws.amazon.com/AmazonS3/latest/API/API_CreateBucket.html
    if environment.aws_region == "us-east-1":
        s3.create_bucket(Bucket=bucket)
    else:
        place = {"LocationConstraint": environment.aws_region}
        s3.create_bucket(Bucket=bucket, CreateBucketConfiguration=place)


def has_bucket(environment: Environment) -> bool:
    """Whether the state bucket is there; `invoke bootstrap-account` makes it."""
    from botocore.exceptions import ClientError

    try:
        client(environment, "s3").get_bucket_versioning(Bucket=bucket_name(environment))
    except ClientError as error:
        if error.response["Error"]["Code"] != "NoSuchBucket":
            raise
        return False
    return True


def lock(environment: Environment) -> dict[str, Any] | None:
    """What the run that holds the lock of the state says of itself: ID, Who, Created, Operation; None if nobody does.

    Terraform keeps it beside the state: https://developer.hashicorp.com/terraform/language/backend/s3#state-locking
    """
    s3 = client(environment, "s3")
    try:
        held = s3.get_object(Bucket=bucket_name(environment), Key=LOCK_KEY)["Body"].read()
    except s3.exceptions.NoSuchKey:
        return None
    try:
        told = json.loads(held)
    except ValueError:
        told = None
    return told if isinstance(told, dict) else {}


def tls_only(bucket: str) -> dict[str, Any]:
    """The bucket policy that refuses whoever comes without TLS."""
    return {
        "Version": "2012-10-17",
        "Statement": [
            {
                "Sid": "TlsOnly",
                "Effect": "Deny",
                "Principal": "*",
                "Action": "s3:*",
                "Resource": [f"arn:aws:s3:::{bucket}", f"arn:aws:s3:::{bucket}/*"],
                "Condition": {"Bool": {"aws:SecureTransport": "false"}},
            }
        ],
    }


def remove_bucket(environment: Environment) -> None:
    """Delete the state bucket with all versions of the state; for after everything else is gone."""
    from botocore.exceptions import ClientError

    s3, bucket = client(environment, "s3"), bucket_name(environment)
    try:
        for page in s3.get_paginator("list_object_versions").paginate(Bucket=bucket):
            found = [*page.get("Versions", []), *page.get("DeleteMarkers", [])]
            if found:
                s3.delete_objects(
                    Bucket=bucket,
                    Delete={"Objects": [{"Key": item["Key"], "VersionId": item["VersionId"]} for item in found]},
                )
        s3.delete_bucket(Bucket=bucket)
    except ClientError as error:
        if error.response["Error"]["Code"] != "NoSuchBucket":
            raise
