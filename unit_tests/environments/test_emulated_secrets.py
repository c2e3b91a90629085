"""The emulated Secrets Manager: the emulator's own functions with ours in place, and the permissions that they need."""

import json
import types
from typing import Any

import pytest
from ministack.services import secretsmanager

from environments import emulated_secrets
from environments.emulated_permissions import Permission, Request, decrypting, needed
from environments.emulated_record import Recorder
from environments.emulated_secrets import encrypt_values

PLACE = "us-east-1:000000000000"
OLD, NEW = (f"arn:aws:kms:{PLACE}:key/{name}" for name in ("old", "new"))
BOTH = frozenset({"kms:Encrypt", "kms:Decrypt"})


class Manager:
    """Secrets Manager as a caller with some permissions sees it; KMS knows two keys."""

    def __init__(self) -> None:
        self.allowed = BOTH
        self.keys = {name: {"KeyState": "Enabled"} for name in ("old", "new")}
        self.asked: list[Permission] = []

    def may(self, permission: Permission, _: Recorder) -> bool:
        """Whether the caller may use a key, and the key can be used."""
        self.asked.append(permission)
        return permission.action in self.allowed

    def call(self, operation: str, **data: Any) -> dict[str, Any]:
        """Call an operation by the name of the emulator's function."""
        told: dict[str, Any] = json.loads(getattr(secretsmanager, operation)(data)[2])
        return told

    def keys_by_stage(self) -> dict[str, list[str]]:
        """The keys of each version that has a label."""
        versions = self.call("_list_secret_version_ids", SecretId="s")["Versions"]
        return {stage: version.get("KmsKeyIds", []) for version in versions for stage in version["VersionStages"]}


@pytest.fixture
def manager(monkeypatch: pytest.MonkeyPatch) -> Manager:
    made = Manager()
    monkeypatch.setattr(secretsmanager, "_secrets", {})
    for name in ("create_secret", "put_secret_value", "update_secret", "get_secret_value", "list_secret_version_ids"):
        monkeypatch.setattr(secretsmanager, f"_{name}", getattr(secretsmanager, f"_{name}"))
    monkeypatch.setattr(emulated_secrets, "caller_may", made.may)
    encrypt_values(secretsmanager, types.SimpleNamespace(_keys=made.keys), Recorder())
    return made


def _with_value(manager: Manager) -> Manager:
    manager.call("_create_secret", Name="s", KmsKeyId=OLD)
    manager.call("_put_secret_value", SecretId="s", SecretString="value")
    return manager


def test_value_is_encrypted_with_the_key_that_its_secret_has(manager: Manager) -> None:
    manager.call("_create_secret", Name="s", KmsKeyId=OLD)
    assert manager.keys_by_stage() == {"AWSCURRENT": []}

    manager.call("_put_secret_value", SecretId="s", SecretString="value")
    assert manager.keys_by_stage()["AWSCURRENT"] == [OLD]


def test_secret_without_a_key_has_that_of_aws(manager: Manager) -> None:
    manager.call("_create_secret", Name="s", SecretString="value")

    assert manager.keys_by_stage() == {"AWSCURRENT": ["DefaultEncryptionKey"]}
    assert manager.call("_get_secret_value", SecretId="s")["SecretString"] == "value"


def test_another_key_of_the_secret_encrypts_the_versions_in_use_as_well_and_alone_what_is_written_then(
    manager: Manager,
) -> None:
    _with_value(manager).call("_update_secret", SecretId="s", KmsKeyId=NEW)
    assert manager.keys_by_stage()["AWSCURRENT"] == [OLD, NEW]

    manager.call("_update_secret", SecretId="s", KmsKeyId=NEW)
    manager.call("_put_secret_value", SecretId="s", SecretString="value")
    assert manager.keys_by_stage() == {"AWSCURRENT": [NEW], "AWSPREVIOUS": [OLD, NEW]}
    asked = [(one.action, one.resource, one.context["kms:ViaService"]) for one in manager.asked]
    assert asked == [
        ("kms:Encrypt", NEW, "secretsmanager.us-east-1.amazonaws.com"),
        ("kms:Decrypt", OLD, "secretsmanager.us-east-1.amazonaws.com"),
    ]


@pytest.mark.parametrize("missing", sorted(BOTH))
def test_who_may_not_use_both_keys_leaves_the_versions_as_they_are(manager: Manager, missing: str) -> None:
    manager.allowed = BOTH - {missing}
    _with_value(manager).call("_update_secret", SecretId="s", KmsKeyId=NEW)

    assert manager.keys_by_stage()["AWSCURRENT"] == [OLD]


def test_disabled_key_neither_decrypts_nor_lets_another_take_over(manager: Manager) -> None:
    _with_value(manager)
    manager.keys["old"]["KeyState"] = "Disabled"
    refused = manager.call("_get_secret_value", SecretId="s")
    manager.call("_update_secret", SecretId="s", KmsKeyId=NEW)

    assert refused["__type"] == "DecryptionFailure"
    assert manager.keys_by_stage()["AWSCURRENT"] == [OLD]


def test_one_of_two_keys_is_enough_to_decrypt(manager: Manager) -> None:
    _with_value(manager).call("_update_secret", SecretId="s", KmsKeyId=NEW)
    del manager.keys["old"]

    assert manager.call("_get_secret_value", SecretId="s")["SecretString"] == "value"


def test_missing_secret_and_version_are_told_as_by_the_emulator(manager: Manager) -> None:
    _with_value(manager)

    for data in ({"SecretId": "x"}, {"SecretId": "s", "VersionId": "x"}, {"SecretId": "s", "VersionStage": "x"}):
        assert manager.call("_get_secret_value", **data)["__type"] == "ResourceNotFoundException"
    assert manager.call("_update_secret", SecretId="x", KmsKeyId=NEW)["__type"] == "ResourceNotFoundException"


def _decrypting(secret: str = "s") -> list[tuple[str, tuple[str, ...]]]:
    found = needed(Request("secretsmanager", "GetSecretValue", {"SecretId": secret}, PLACE), "guessed")
    assert found[0].action == "secretsmanager:GetSecretValue"
    return [(one.resource, one.alternatives) for one in found[1:] if one.action == "kms:Decrypt"]


def test_reading_a_value_takes_one_of_the_keys_that_encrypt_it(manager: Manager) -> None:
    assert _decrypting("missing") == []
    _with_value(manager)
    assert _decrypting() == [(OLD, ())]
    manager.call("_update_secret", SecretId="s", KmsKeyId=NEW)
    assert _decrypting() == [(OLD, (NEW,))]

    arn = manager.call("_describe_secret", SecretId="s")["ARN"]
    (permission,) = decrypting({"SecretId": arn})
    assert permission.context == {
        "kms:ViaService": "secretsmanager.us-east-1.amazonaws.com",
        "kms:EncryptionContext:SecretARN": arn,
    }


def test_key_of_aws_takes_no_permission(manager: Manager) -> None:
    manager.call("_create_secret", Name="s", SecretString="value")

    assert _decrypting() == []
