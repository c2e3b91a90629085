"""Secrets Manager of the emulated AWS: which KMS keys encrypt the versions of a secret, and who may use them.

ministack stores the name of a key and never uses it. Here, as on AWS, a value is encrypted with the key that its secret
has when the value is written. When the key of a secret changes, the versions in use are encrypted with the new key
*as well*, if the caller may decrypt them and encrypt with the new key; otherwise they stay as they are. Either key
decrypts them then, and only a new version is encrypted with the new key alone. Which permissions each call needs is in
emulated_permissions.py.
https://docs.aws.amazon.com/secretsmanager/latest/userguide/manage_update-encryption-key.html

The functions replaced here are private ones of a pinned version (1.5.33): the functional tests run through them.
"""

import json
from typing import Any

from environments.emulated_iam import caller_may
from environments.emulated_permissions import (
    AWS_MANAGED_KEY,
    VERSION_KEYS,
    Permission,
    secret_context,
    version_asked_for,
)
from environments.emulated_record import Recorder

IN_USE = {"AWSCURRENT", "AWSPENDING", "AWSPREVIOUS"}
"""The labels of versions that are encrypted again when the key of their secret changes."""


def encrypt_values(secretsmanager: Any, kms: Any, recorder: Recorder) -> None:
    """Replace the functions of the emulator's Secrets Manager that write and read values.

    Args:
        secretsmanager: the emulator's module.
        kms: its KMS module.
        recorder: takes the decisions about roles.
    """
    create, put, update = (
        getattr(secretsmanager, name) for name in ("_create_secret", "_put_secret_value", "_update_secret")
    )
    get, list_versions = secretsmanager._get_secret_value, secretsmanager._list_secret_version_ids

    def resolved(data: dict[str, Any]) -> dict[str, Any]:
        found = secretsmanager._resolve(data.get("SecretId") or data.get("Name"))[1]
        return found or {"Versions": {}}

    def noting_the_key(action: Any) -> Any:
        def write(data: dict[str, Any]) -> Any:
            answer = action(data)
            secret = resolved(data)
            for version in secret["Versions"].values():
                if has_value(version):
                    version.setdefault(VERSION_KEYS, [secret.get("KmsKeyId") or AWS_MANAGED_KEY])
            return answer

        return write

    def update_and_encrypt_again(data: dict[str, Any]) -> Any:
        before = resolved(data).get("KmsKeyId")
        answer = noting_the_key(update)(data)
        secret = resolved(data)
        key = str(secret.get("KmsKeyId") or "")
        for version in secret["Versions"].values() if key and key != before else ():
            known = version.get(VERSION_KEYS, [])
            again = known and key not in known and IN_USE & set(version["Stages"])
            if again and enabled(kms, known) and _may_encrypt_again(secret["ARN"], known, key, recorder):
                version[VERSION_KEYS] = [*known, key]
        return answer

    def get_unless_keys_are_gone(data: dict[str, Any]) -> Any:
        version = version_asked_for(data)
        if version and has_value(version) and not enabled(kms, version.get(VERSION_KEYS, [AWS_MANAGED_KEY])):
            words = "Secrets Manager can't decrypt the protected secret text using the provided KMS key."
            return secretsmanager.error_response_json("DecryptionFailure", words, 400)
        return get(data)

    def list_with_keys(data: dict[str, Any]) -> Any:
        status, headers, body = list_versions(data)
        answer = json.loads(body)
        for each in answer.get("Versions", []):
            version = resolved(data)["Versions"][each["VersionId"]]
            if VERSION_KEYS in version:
                each[VERSION_KEYS] = version[VERSION_KEYS]
        return status, headers, json.dumps(answer).encode()

    secretsmanager._create_secret, secretsmanager._put_secret_value = noting_the_key(create), noting_the_key(put)
    secretsmanager._update_secret = update_and_encrypt_again
    secretsmanager._get_secret_value = get_unless_keys_are_gone
    secretsmanager._list_secret_version_ids = list_with_keys


def has_value(version: dict[str, Any]) -> bool:
    """Whether a version holds a value; on AWS, a secret without one has no version."""
    return version.get("SecretString") is not None or version.get("SecretBinary") is not None


def enabled(kms: Any, keys: list[str]) -> bool:
    """Whether one of some KMS keys can be used."""
    records = [kms._keys.get(key.rpartition("/")[2]) for key in keys if key != AWS_MANAGED_KEY]
    return AWS_MANAGED_KEY in keys or any(record and record["KeyState"] == "Enabled" for record in records)


def _may_encrypt_again(secret: str, known: list[str], key: str, recorder: Recorder) -> bool:
    context = secret_context(secret.split(":")[3], secret)
    owned = [each for each in known if each != AWS_MANAGED_KEY]
    return caller_may(Permission("kms:Encrypt", key, context), recorder) and (
        not owned or caller_may(Permission("kms:Decrypt", owned[0], context, tuple(owned[1:])), recorder)
    )
