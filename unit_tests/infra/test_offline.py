"""What the module makes of settings, found out without AWS; Terraform is a fake."""

import json
import re
from pathlib import Path

import pytest

from environments.errors import PlatformError
from environments.settings import Environment
from infra import offline
from infra.terraform_process import MODULE
from unit_tests.conftest import ACCOUNT, REGION, FakeTerraform

CHOICES = {"as_it_is": {}, "other_key": {"kms_key_arn": "arn:aws:kms:{at}:" + offline.KEY}}


def test_resources_come_with_the_choice_that_they_are_of(
    environment: Environment, fake_terraform: FakeTerraform, tmp_path: Path
) -> None:
    queue = {"address": "aws_sqs_queue.this", "mode": "managed", "type": "aws_sqs_queue", "values": {}}
    state = {"@testrun": "as_it_is", "type": "test_state", "test_state": {"root_module": {"resources": [queue]}}}
    fake_terraform.answers("test", json.dumps(state))

    assert list(offline.resources(environment, CHOICES, tmp_path / "module")) == [("as_it_is", queue)]


def test_terraform_reaches_nothing_but_what_renders_documents(
    environment: Environment, fake_terraform: FakeTerraform, tmp_path: Path
) -> None:
    list(offline.resources(environment, CHOICES, tmp_path / "module"))
    told = json.loads((tmp_path / "module" / "offline.tftest.json").read_text())
    module = "\n".join(file.read_text() for file in MODULE.glob("*.tf"))
    overridden = {entry["target"] for entry in told["override_resource"]}
    asked = {entry["target"].split(".")[1] for entry in told["override_data"]}

    assert overridden == {".".join(name) for name in re.findall(r'^resource "(\w+)" "(\w+)"', module, re.MULTILINE)}
    assert asked == set(re.findall(r'^data "(\w+)"', module, re.MULTILINE)) - {"aws_iam_policy_document"}
    assert told["provider"]["aws"]["skip_requesting_account_id"] is True
    assert told["run"]["other_key"]["variables"] == {"kms_key_arn": f"arn:aws:kms:{REGION}:{ACCOUNT}:{offline.KEY}"}
    assert f"-var-file={environment.tfvars}" in fake_terraform.arguments("test")


def test_every_resource_whose_arn_the_module_uses_has_one_of_its_form() -> None:
    module = "\n".join(file.read_text() for file in MODULE.glob("*.tf") if file.name != "outputs.tf")
    policies = "".join(re.findall(r'^data "aws_iam_policy_document".*?^}', module, re.MULTILINE | re.DOTALL))
    used = set(re.findall(r"\b(aws_\w+)\.\w+(?:\[[^]]*\])?\.arn\b", policies))

    assert used
    assert used <= offline.ARNS.keys()


def test_words_of_terraform_are_the_error(
    environment: Environment, fake_terraform: FakeTerraform, tmp_path: Path
) -> None:
    diagnostic = {"type": "diagnostic", "diagnostic": {"summary": "Invalid value", "detail": "vpc_id is none"}}
    fake_terraform.answers("test", json.dumps(diagnostic), code=1)
    with pytest.raises(PlatformError, match="terraform test failed") as caught:
        list(offline.resources(environment, CHOICES, tmp_path / "module"))

    assert caught.value.why == "Invalid value: vpc_id is none"
