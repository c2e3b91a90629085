"""CloudWatch Logs of the emulated AWS: a log group can get another KMS key, one whose policy lets the service use it.

ministack knows a group's key from its creation only, and takes any.
https://docs.aws.amazon.com/AmazonCloudWatch/latest/logs/encrypt-log-data-kms.html

The functions replaced here are private ones of a pinned version (1.5.33): the functional tests run through them.
"""

import json
from typing import Any

from environments.emulated_iam import service_may
from environments.emulated_permissions import Permission

USES = ("kms:Encrypt", "kms:Decrypt", "kms:GenerateDataKey", "kms:ReEncryptFrom", "kms:ReEncryptTo", "kms:DescribeKey")


def encrypt_groups(logs: Any, kms: Any) -> None:
    """Add AssociateKmsKey and DisassociateKmsKey to the emulator's CloudWatch Logs, and hold CreateLogGroup to keys.

    Args:
        logs: the emulator's module of CloudWatch Logs.
        kms: its KMS module.
    """
    create, handle = logs._create_log_group, logs.handle_request

    def create_with_usable_key(data: dict[str, Any]) -> Any:
        key = data.get("kmsKeyId")
        refused = _unusable(logs, kms, key, data.get("logGroupName", "")) if key else None
        return refused or create(data)

    async def handle_keys_too(method: str, path: str, headers: Any, body: bytes, query: Any) -> Any:
        action = headers.get("x-amz-target", "").rpartition(".")[2]
        if action not in ("AssociateKmsKey", "DisassociateKmsKey"):
            return await handle(method, path, headers, body, query)
        data = json.loads(body)
        group = logs._log_groups.get(data.get("logGroupName"))
        if group is None:
            return logs.error_response_json("ResourceNotFoundException", "The specified log group does not exist.", 400)
        key = data.get("kmsKeyId") if action == "AssociateKmsKey" else None
        if key and (refused := _unusable(logs, kms, key, data["logGroupName"])):
            return refused
        group["kmsKeyId"] = key
        return logs.json_response({})

    logs._create_log_group, logs.handle_request = create_with_usable_key, handle_keys_too


def _unusable(logs: Any, kms: Any, key: str, group: str) -> Any:
    """The refusal of a key that is disabled or missing, or whose policy does not let the service use it; else None."""
    record = kms._keys.get(key.rpartition("/")[2])
    if record and record["KeyState"] == "Enabled":
        place = f"{logs.get_region()}:{logs.get_account_id()}"
        context = {"kms:EncryptionContext:aws:logs:arn": f"arn:aws:logs:{place}:log-group:{group}"}
        service = f"logs.{logs.get_region()}.amazonaws.com"
        if all(service_may(record["Policy"], service, Permission(use, key, context)) for use in USES):
            return None
    words = f"The specified KMS key does not exist or is not allowed to be used with Arn of log group {group}"
    return logs.error_response_json("InvalidParameterException", words, 400)
