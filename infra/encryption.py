"""The KMS key that logs and the Prefect key of an environment are encrypted with.

It is made once for the account, like the state bucket, and Terraform finds it by its alias: nobody who deploys needs
the right to make keys, to tag them or to say in their policies who may use them.
"""

import json
from typing import Any

from environments.settings import Environment
from infra.aws import client


def alias(environment: Environment) -> str:
    """The name by which Terraform finds the key."""
    return f"alias/{environment.prefix}"


def ensure_key(environment: Environment) -> bool:
    """Make the key if it is missing, and the settings name no other; tells whether it was made."""
    kms = client(environment, "kms")
    if environment.kms_key_arn or _key_id(environment):
        return False
    tags = {**environment.tags, "managed_by": "bootstrap-account"}
    key = kms.create_key(
        Description=f"Logs and Prefect key of environment {environment.name}",
        Policy=json.dumps(policy(environment)),
        Tags=[{"TagKey": name, "TagValue": value} for name, value in tags.items()],
    )["KeyMetadata"]["KeyId"]
    kms.enable_key_rotation(KeyId=key)
    # At last: where the alias is, the rest is right too.
    kms.create_alias(AliasName=alias(environment), TargetKeyId=key)
    return True


def remove_key(environment: Environment) -> None:
    """Give the key up; AWS deletes it after 30 days, in which logs that somebody kept can still be read."""
    kms = client(environment, "kms")
    if key := _key_id(environment):
        kms.delete_alias(AliasName=alias(environment))
        kms.schedule_key_deletion(KeyId=key, PendingWindowInDays=30)


def policy(environment: Environment) -> dict[str, Any]:
    """The key's policy: IAM of the account decides, and CloudWatch Logs may use it for the environment's log groups.

    https://docs.aws.amazon.com/AmazonCloudWatch/latest/logs/encrypt-log-data-kms.html
    """
    account, region = environment.aws_account_id, environment.aws_region
    log_groups = f"arn:aws:logs:{region}:{account}:log-group:{environment.prefix}_*"
    return {
        "Version": "2012-10-17",
        "Statement": [
            {
                "Sid": "PoliciesOfTheAccountDecide",
                "Effect": "Allow",
                "Principal": {"AWS": f"arn:aws:iam::{account}:root"},
                "Action": "kms:*",
                "Resource": "*",
            },
            {
                "Sid": "LogGroupsOfTheEnvironment",
                "Effect": "Allow",
                "Principal": {"Service": f"logs.{region}.amazonaws.com"},
                "Action": ["kms:Decrypt*", "kms:Encrypt*", "kms:GenerateDataKey*", "kms:ReEncrypt*"],
                "Resource": "*",
                "Condition": {"StringLike": {"kms:EncryptionContext:aws:logs:arn": log_groups}},
            },
            {
                "Sid": "LogsLookAtTheKey",
                "Effect": "Allow",
                "Principal": {"Service": f"logs.{region}.amazonaws.com"},
                "Action": "kms:DescribeKey",
                "Resource": "*",
            },
        ],
    }


def _key_id(environment: Environment) -> str:
    """The id of the key behind the alias; empty when there is none."""
    kms = client(environment, "kms")
    try:
        found: str = kms.describe_key(KeyId=alias(environment))["KeyMetadata"]["KeyId"]
    except kms.exceptions.NotFoundException:
        return ""
    return found
