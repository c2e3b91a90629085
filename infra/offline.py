"""What the Terraform module makes of settings, found out without AWS.

`terraform test` applies it with every resource and data source overridden but aws_iam_policy_document, which asks
nobody. https://developer.hashicorp.com/terraform/language/tests/mocking
"""

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from environments.errors import PlatformError
from environments.settings import Environment
from infra.terraform_process import MODULE, program

VPC = "vpc-0123456789abcdef0"
KEY = "key/01234567-89ab-cdef-0123-456789abcdef"
ARNS = {
    "aws_cloudwatch_event_rule": "events:{at}:rule/platform",
    "aws_cloudwatch_log_group": "logs:{at}:log-group:platform",
    "aws_ecr_repository": "ecr:{at}:repository/platform",
    "aws_ecs_cluster": "ecs:{at}:cluster/platform",
    "aws_iam_role": "iam::{account}:role/platform",
    "aws_secretsmanager_secret": "secretsmanager:{at}:secret:platform-AbCdEf",
    "aws_sqs_queue": "sqs:{at}:platform",
}
"""The form of the ARNs that policies take from resources. The linter finds one that is missing here invalid."""
DATA: dict[str, dict[str, Any]] = {
    "aws_availability_zones": {"names": ["a", "b", "c"]},
    "aws_kms_alias": {"target_key_arn": "arn:aws:kms:{at}:" + KEY},
    "aws_subnet": {"vpc_id": VPC},
}
"""What data sources answer, where the module looks at the answer."""


def resources(
    environment: Environment, choices: dict[str, dict[str, Any]], folder: Path
) -> Iterator[tuple[str, dict[str, Any]]]:
    """Every resource and data source that the module has, as it stands in Terraform's state; with the choice's name.

    Args:
        environment: whose settings.
        choices: settings that come on top, by a name for them; `{at}` in a value is region and account of an ARN.
        folder: for a copy of the module, which stays.

    Raises:
        PlatformError: Terraform failed; its own words are the reason.
    """
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    for file in (*MODULE.glob("*.tf"), MODULE / ".terraform.lock.hcl"):
        shutil.copy(file, folder)
    text = "\n".join(file.read_text(encoding="utf-8") for file in MODULE.glob("*.tf"))
    test = json.dumps(_overrides(environment, choices, text))
    (folder / "offline.tftest.json").write_text(test, encoding="utf-8")
    command = [program(), "test", "-json", "-verbose", f"-var-file={environment.tfvars}"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    events = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    if done.returncode:
        errors = [event["diagnostic"] for event in events if event.get("type") == "diagnostic"]
        words = [f"{error['summary']}: {error.get('detail', '')}" for error in errors]
        raise PlatformError("terraform test failed", "\n".join(words) or done.stderr)
    for event in events:
        for resource in event.get("test_state", {}).get("root_module", {}).get("resources", []):
            yield event["@testrun"], resource


def _overrides(environment: Environment, choices: dict[str, dict[str, Any]], module: str) -> dict[str, Any]:
    """A Terraform test that asks nobody: a provider that reaches nothing, and an answer for all that it would reach."""
    at = f"{environment.aws_region}:{environment.aws_account_id}"

    def filled(value: Any) -> Any:
        return value.format(at=at, account=environment.aws_account_id) if isinstance(value, str) else value

    def named(kind: str) -> list[tuple[str, str]]:
        return re.findall(rf'^{kind} "(\w+)" "(\w+)"', module, re.MULTILINE)

    apart = ("credentials_validation", "requesting_account_id", "metadata_api_check")
    provider = {"region": environment.aws_region, **dict.fromkeys(("access_key", "secret_key"), "none")}
    return {
        "provider": {"aws": provider | {f"skip_{what}": True for what in apart}},
        "override_resource": [
            {"target": f"{kind}.{name}", "values": {"arn": filled("arn:aws:" + ARNS[kind])} if kind in ARNS else {}}
            for kind, name in named("resource")
        ],
        "override_data": [
            {
                "target": f"data.{kind}.{name}",
                "values": {key: filled(value) for key, value in DATA.get(kind, {}).items()},
            }
            for kind, name in named("data")
            if kind != "aws_iam_policy_document"
        ],
        "variables": {"environment": environment.name, "agent_image_tag": "0" * 16},
        "run": {
            choice: {"variables": {name: filled(value) for name, value in values.items()}}
            for choice, values in choices.items()
        },
    }
