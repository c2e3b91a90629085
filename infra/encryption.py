"""The KMS key that logs and the Prefect key of an environment are encrypted with.

It is made once for the account, like the state bucket, and Terraform finds it by its alias: nobody who deploys needs
the right to make keys, to tag them or to say in their policies who may use them.

When the settings name another key, Terraform hands it to the secrets, and Secrets Manager encrypts their values with
both keys; deploy then writes the values again, so that the new key alone encrypts them. Logs and images keep the key
that they were written with. `check` finds out beforehand whether all of that is possible.
"""

import json
import re
from typing import Any

from environments.errors import PlatformError
from environments.settings import Environment
from infra.aws import client

SECRETS = ("prefect_key", "prefect_key_workflow")
"""The names of the environment's secrets, after its prefix (infra/secrets.tf)."""


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


def check(environment: Environment) -> None:
    """Make sure that the key of the settings can be used, and that secrets with another key can be read.

    Raises:
        PlatformError: the key is missing, disabled, of the wrong kind, another environment's, or refused to these
            credentials; or a secret can't be read, which deploy must encrypt with another key.
    """
    key = key_id(_usable_key(environment))
    manager = client(environment, "secretsmanager")
    for name in SECRETS:
        secret = f"{environment.prefix}_{name}"
        try:
            current = manager.describe_secret(SecretId=secret).get("KmsKeyId", "")
        except manager.exceptions.ResourceNotFoundException:
            continue
        if key_id(current) != key:
            read_secret(environment, manager, secret)


def read_secret(environment: Environment, manager: Any, secret: str) -> dict[str, Any]:
    """What GetSecretValue returns for a secret; empty when it has no value.

    Args:
        environment: whose secret.
        manager: a client of Secrets Manager.
        secret: its name or ARN.

    Raises:
        PlatformError: AWS refuses to decrypt it.
    """
    from botocore.exceptions import ClientError

    try:
        value: dict[str, Any] = manager.get_secret_value(SecretId=secret)
    except manager.exceptions.ResourceNotFoundException:
        return {}
    except ClientError as error:
        raise PlatformError(
            f"the secret {secret} can't be decrypted",
            error.response["Error"]["Message"],
            "enable the KMS key that encrypts it, and let an administrator run invoke bootstrap-account --env "
            f"{environment.name}; if that key is gone, delete the secret, and deploy with PREFECT_AGENT_TOKEN and, if "
            "workflows have a key of their own, PREFECT_WORKFLOW_TOKEN set",
        ) from error
    return value


def other_keys(manager: Any, secret: str) -> list[str]:
    """The KMS keys that encrypt the current value of a secret and are not the secret's own: those of earlier settings.

    https://docs.aws.amazon.com/secretsmanager/latest/userguide/manage_update-encryption-key.html
    """
    own = key_id(manager.describe_secret(SecretId=secret).get("KmsKeyId", ""))
    versions = manager.list_secret_version_ids(SecretId=secret)["Versions"]
    current = [version for version in versions if "AWSCURRENT" in version.get("VersionStages", [])]
    return [key for version in current for key in version.get("KmsKeyIds", []) if key_id(key) != own]


def key_id(key: str) -> str:
    """The ID of a KMS key that is named by its ARN or its ID."""
    return key.rpartition("/")[2]


def _usable_key(environment: Environment) -> str:
    """The ARN of the key that the settings choose."""
    from botocore.exceptions import ClientError

    kms, chosen = client(environment, "kms"), environment.kms_key_arn or alias(environment)
    bootstrap = f"an administrator runs invoke bootstrap-account --env {environment.name}"
    place = f"environments/{environment.name}.tfvars"
    try:
        key = kms.describe_key(KeyId=chosen)["KeyMetadata"]
    except kms.exceptions.NotFoundException as error:
        why, todo = f"kms_key_arn in {place} names none", f"{bootstrap}, which creates it"
        if environment.kms_key_arn:
            why, todo = f"kms_key_arn in {place} names it", "correct kms_key_arn, or remove it to use the default key"
        raise PlatformError(f"there is no KMS key {chosen}", why, todo) from error
    except ClientError as error:
        raise PlatformError(
            f"KMS key {chosen} can't be used",
            error.response["Error"]["Message"],
            f"{bootstrap}, which lets the roles use the key; its key policy must let IAM of the account decide",
        ) from error
    if key["KeySpec"] != "SYMMETRIC_DEFAULT":
        raise PlatformError(
            f"KMS key {chosen} can't be used",
            f"its kind is {key['KeySpec']}; secrets, logs and images need a symmetric encryption key",
            f"name another key as kms_key_arn in {place}",
        )
    if key["KeyState"] != "Enabled":
        raise PlatformError(
            f"KMS key {chosen} can't be used",
            f"its state is {key['KeyState']}",
            f"enable it, or name another key as kms_key_arn in {place}",
        )
    _require_not_anothers(environment, key["Arn"])
    found: str = key["Arn"]
    return found


def _require_not_anothers(environment: Environment, key: str) -> None:
    """Refuse the key of another environment: the boundary keeps tasks from all that carries another one's tag."""
    if key.split(":")[4] != environment.aws_account_id:
        return
    aliases = client(environment, "kms").list_aliases(KeyId=key)["Aliases"]
    for name in (each["AliasName"] for each in aliases):
        if name != alias(environment) and re.fullmatch("alias/[a-z0-9]+_dataflow_automation", name):
            raise PlatformError(
                f"KMS key {key} can't be used",
                f"it is {name}, the key of another environment, which no task of this one may use",
                f"name another key as kms_key_arn in environments/{environment.name}.tfvars, or none",
            )


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
