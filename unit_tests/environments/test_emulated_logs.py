"""The emulated CloudWatch Logs: the emulator's own functions with ours in place, and keys with policies."""

import asyncio
import dataclasses
import json
import types
from typing import Any

import pytest
from ministack.services import cloudwatch_logs

from environments.emulated_logs import encrypt_groups
from environments.settings import Environment
from infra import encryption

GROUP = "dev_dataflow_automation_agent"
KEY = "arn:aws:kms:us-east-1:000000000000:key/{}"


@pytest.fixture
def keys(environment: Environment, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """KMS keys by ID: the environment's own, another one for everybody in the account, and a disabled one."""
    here = dataclasses.replace(environment, aws_account_id="000000000000", aws_region="us-east-1")
    own = json.dumps(encryption.policy(here))
    account = {"Effect": "Allow", "Principal": {"AWS": "arn:aws:iam::000000000000:root"}, "Action": "kms:*"}
    made = {
        "own": {"KeyState": "Enabled", "Policy": own},
        "account": {"KeyState": "Enabled", "Policy": json.dumps({"Statement": [{**account, "Resource": "*"}]})},
        "disabled": {"KeyState": "Disabled", "Policy": own},
    }
    monkeypatch.setattr(cloudwatch_logs, "_log_groups", {})
    for name in ("_create_log_group", "handle_request"):
        monkeypatch.setattr(cloudwatch_logs, name, getattr(cloudwatch_logs, name))
    encrypt_groups(cloudwatch_logs, types.SimpleNamespace(_keys=made))
    return made


def _ask(operation: str, **data: Any) -> dict[str, Any]:
    headers = {"x-amz-target": f"Logs_20140328.{operation}"}
    answer = asyncio.run(cloudwatch_logs.handle_request("POST", "/", headers, json.dumps(data).encode(), {}))
    told: dict[str, Any] = json.loads(answer[2] or b"{}")
    return told


def _key(name: str = GROUP) -> str | None:
    (group,) = _ask("DescribeLogGroups", logGroupNamePrefix=name)["logGroups"]
    key: str | None = group.get("kmsKeyId")
    return key


def test_group_gets_another_key_and_none(keys: dict[str, Any]) -> None:
    _ask("CreateLogGroup", logGroupName=GROUP)
    _ask("AssociateKmsKey", logGroupName=GROUP, kmsKeyId=KEY.format("own"))
    assert _key() == KEY.format("own")

    _ask("DisassociateKmsKey", logGroupName=GROUP)
    assert _key() is None


@pytest.mark.parametrize("key", ["account", "disabled", "missing"])
def test_key_that_the_service_may_not_use_is_refused(keys: dict[str, Any], key: str) -> None:
    created = _ask("CreateLogGroup", logGroupName=GROUP, kmsKeyId=KEY.format(key))
    _ask("CreateLogGroup", logGroupName=GROUP, kmsKeyId=KEY.format("own"))
    associated = _ask("AssociateKmsKey", logGroupName=GROUP, kmsKeyId=KEY.format(key))

    assert {created["__type"], associated["__type"]} == {"InvalidParameterException"}
    assert _key() == KEY.format("own")


def test_own_key_is_for_the_groups_of_the_environment_alone(keys: dict[str, Any]) -> None:
    refused = _ask("CreateLogGroup", logGroupName="prod_dataflow_automation_agent", kmsKeyId=KEY.format("own"))

    assert refused["__type"] == "InvalidParameterException"


def test_missing_group_has_no_key(keys: dict[str, Any]) -> None:
    missing = _ask("AssociateKmsKey", logGroupName="missing", kmsKeyId=KEY.format("own"))

    assert missing["__type"] == "ResourceNotFoundException"
