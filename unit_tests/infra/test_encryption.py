import dataclasses
import json
from collections.abc import Callable
from typing import Any

import pytest

from environments.settings import Environment
from infra import encryption

ALIAS = "alias/dev_dataflow_automation"


@pytest.fixture
def kms(aws_mocked: Callable[[str], Any]) -> Any:
    return aws_mocked("kms")


def _keys(kms: Any) -> list[str]:
    return [key["KeyId"] for key in kms.list_keys()["Keys"]]


def test_key_is_made_once_and_found_by_its_alias(environment: Environment, kms: Any) -> None:
    made = [encryption.ensure_key(environment) for _ in range(3)]
    [key] = _keys(kms)

    assert made == [True, False, False]
    assert kms.describe_key(KeyId=ALIAS)["KeyMetadata"]["KeyId"] == key
    assert kms.get_key_rotation_status(KeyId=key)["KeyRotationEnabled"] is True
    assert {"TagKey": "environment", "TagValue": "dev"} in kms.list_resource_tags(KeyId=key)["Tags"]


def test_only_the_account_and_the_logs_of_the_environment_use_the_key(environment: Environment, kms: Any) -> None:
    encryption.ensure_key(environment)
    text = kms.get_key_policy(KeyId=_keys(kms)[0], PolicyName="default")["Policy"]
    account, *of_logs = json.loads(text)["Statement"]
    unbound = [
        statement["Action"]
        for statement in of_logs
        if not str(statement.get("Condition")).endswith(":log-group:dev_dataflow_automation_*'}}")
    ]

    assert account["Principal"] == {"AWS": "arn:aws:iam::123456789012:root"}
    assert {statement["Principal"]["Service"] for statement in of_logs} == {"logs.eu-west-1.amazonaws.com"}
    assert unbound == ["kms:DescribeKey"]  # which has no encryption context


def test_no_key_is_made_where_the_settings_name_one(environment: Environment, kms: Any) -> None:
    arn = "arn:aws:kms:eu-west-1:123456789012:key/12345678-1234-1234-1234-123456789012"

    assert encryption.ensure_key(dataclasses.replace(environment, kms_key_arn=arn)) is False
    assert _keys(kms) == []


def test_key_that_was_given_up_is_made_anew(environment: Environment, kms: Any) -> None:
    encryption.ensure_key(environment)
    encryption.remove_key(environment)
    encryption.remove_key(environment)
    [old] = _keys(kms)

    assert kms.describe_key(KeyId=old)["KeyMetadata"]["KeyState"] == "PendingDeletion"
    assert encryption.ensure_key(environment) is True
    assert kms.describe_key(KeyId=ALIAS)["KeyMetadata"]["KeyId"] != old


def test_key_of_another_environment_stays(environment: Environment, kms: Any) -> None:
    other = dataclasses.replace(environment, name="test")
    encryption.ensure_key(environment)
    encryption.ensure_key(other)
    encryption.remove_key(other)

    assert kms.describe_key(KeyId=ALIAS)["KeyMetadata"]["KeyState"] == "Enabled"
