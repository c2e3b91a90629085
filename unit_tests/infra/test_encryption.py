import dataclasses
import json
from collections.abc import Callable
from typing import Any

import pytest
from botocore.exceptions import ClientError

from environments.errors import PlatformError
from environments.settings import Environment
from infra import encryption

ALIAS = "alias/dev_dataflow_automation"
SECRET = "dev_dataflow_automation_prefect_key"


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


@pytest.fixture
def chosen(environment: Environment, kms: Any) -> Environment:
    """The environment with a KMS key of the settings."""
    return dataclasses.replace(environment, kms_key_arn=kms.create_key()["KeyMetadata"]["Arn"])


@pytest.fixture
def secrets(aws_mocked: Callable[[str], Any], chosen: Environment) -> Any:
    """Secrets Manager with the secrets of a deployed environment, encrypted with the key of the settings."""
    manager = aws_mocked("secretsmanager")
    for name in encryption.SECRETS:
        manager.create_secret(
            Name=f"{chosen.prefix}_{name}", KmsKeyId=chosen.kms_key_arn, SecretString=f"value of {name}"
        )
    return manager


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The secrets that `check` reads."""
    asked: list[str] = []
    monkeypatch.setattr(encryption, "read_secret", lambda _environment, _manager, secret: asked.append(secret))
    return asked


def _problem(environment: Environment) -> PlatformError:
    with pytest.raises(PlatformError) as caught:
        encryption.check(environment)
    return caught.value


def test_key_that_is_there_and_enabled_can_be_used(environment: Environment, chosen: Environment) -> None:
    encryption.check(chosen)
    encryption.ensure_key(environment)
    encryption.check(environment)


def test_missing_key_is_named_with_what_to_do(environment: Environment, kms: Any) -> None:
    gone = "arn:aws:kms:eu-west-1:123456789012:key/01234567-89ab-cdef-0123-456789abcdef"
    missing = _problem(dataclasses.replace(environment, kms_key_arn=gone))

    assert missing.what == f"there is no KMS key {gone}"
    assert missing.todo.startswith("correct kms_key_arn")
    assert _problem(environment).what == f"there is no KMS key {ALIAS}"
    assert "invoke bootstrap-account --env dev" in _problem(environment).todo


def test_disabled_key_is_refused(chosen: Environment, kms: Any) -> None:
    kms.disable_key(KeyId=encryption.key_id(str(chosen.kms_key_arn)))

    assert _problem(chosen).why == "its state is Disabled"


def test_key_of_another_kind_is_refused(environment: Environment, kms: Any) -> None:
    arn = kms.create_key(KeyUsage="SIGN_VERIFY", KeySpec="RSA_2048")["KeyMetadata"]["Arn"]

    assert "RSA_2048" in _problem(dataclasses.replace(environment, kms_key_arn=arn)).why


def test_key_that_these_credentials_may_not_use_is_an_administrators_to_allow(
    chosen: Environment, kms: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(**_: Any) -> None:
        raise ClientError({"Error": {"Code": "AccessDeniedException", "Message": "not authorized"}}, "DescribeKey")

    monkeypatch.setattr(kms, "describe_key", refuse)
    monkeypatch.setattr(encryption, "client", lambda *_: kms)
    refused = _problem(chosen)

    assert refused.why == "not authorized"
    assert "an administrator runs invoke bootstrap-account --env dev" in refused.todo


def test_key_of_another_environment_is_refused(environment: Environment, kms: Any) -> None:
    encryption.ensure_key(dataclasses.replace(environment, name="prod"))
    arn = kms.describe_key(KeyId="alias/prod_dataflow_automation")["KeyMetadata"]["Arn"]
    borrowed = dataclasses.replace(environment, kms_key_arn=arn)

    assert "alias/prod_dataflow_automation, the key of another environment" in _problem(borrowed).why


def test_key_may_have_aliases_and_be_the_environments_own(environment: Environment, kms: Any) -> None:
    encryption.ensure_key(environment)
    arn = kms.describe_key(KeyId=ALIAS)["KeyMetadata"]["Arn"]
    kms.create_alias(AliasName="alias/company_data", TargetKeyId=arn)

    encryption.check(dataclasses.replace(environment, kms_key_arn=arn))


def test_secrets_are_read_only_when_they_get_another_key(
    chosen: Environment, kms: Any, secrets: Any, read: list[str]
) -> None:
    encryption.check(chosen)
    assert read == []
    other = dataclasses.replace(chosen, kms_key_arn=kms.create_key()["KeyMetadata"]["Arn"])
    encryption.check(other)

    assert read == [f"{chosen.prefix}_{name}" for name in encryption.SECRETS]


@pytest.mark.parametrize("code", ["AccessDeniedException", "DecryptionFailure", "InvalidRequestException"])
def test_secret_that_cannot_be_decrypted_says_so_and_what_to_do(
    environment: Environment, secrets: Any, monkeypatch: pytest.MonkeyPatch, code: str
) -> None:
    def refuse(**_: Any) -> None:
        raise ClientError({"Error": {"Code": code, "Message": "Access to KMS is not allowed"}}, "GetSecretValue")

    monkeypatch.setattr(secrets, "get_secret_value", refuse)
    with pytest.raises(PlatformError, match=f"the secret {SECRET} can't be decrypted") as caught:
        encryption.read_secret(environment, secrets, SECRET)

    assert caught.value.why == "Access to KMS is not allowed"
    assert "enable the KMS key" in caught.value.todo
    assert "delete the secret" in caught.value.todo


def test_secret_is_read_and_one_without_a_value_is_empty(environment: Environment, secrets: Any) -> None:
    secrets.create_secret(Name="empty")

    assert encryption.read_secret(environment, secrets, SECRET)["SecretString"] == "value of prefect_key"
    assert encryption.read_secret(environment, secrets, "empty") == {}
    assert encryption.read_secret(environment, secrets, "missing") == {}


@pytest.mark.parametrize(
    ("keys", "expected"),
    [
        (["{own}"], []),
        (["{id}"], []),
        (None, []),
        (["arn:aws:kms:eu-west-1:123456789012:key/before"], ["arn:aws:kms:eu-west-1:123456789012:key/before"]),
        (["arn:aws:kms:eu-west-1:123456789012:key/before", "{own}"], ["arn:aws:kms:eu-west-1:123456789012:key/before"]),
        (["DefaultEncryptionKey"], ["DefaultEncryptionKey"]),
    ],
)
def test_keys_of_the_current_version_besides_the_secrets_own_are_found(
    chosen: Environment, secrets: Any, monkeypatch: pytest.MonkeyPatch, keys: list[str] | None, expected: list[str]
) -> None:
    own = str(chosen.kms_key_arn)
    told = {} if keys is None else {"KmsKeyIds": [key.format(own=own, id=encryption.key_id(own)) for key in keys]}
    versions = [
        {"VersionId": "1", "VersionStages": ["AWSPREVIOUS"], "KmsKeyIds": ["older"]},
        {"VersionId": "2", "VersionStages": ["AWSCURRENT"], **told},
    ]
    monkeypatch.setattr(secrets, "list_secret_version_ids", lambda **_: {"Versions": versions})

    assert encryption.other_keys(secrets, SECRET) == expected
