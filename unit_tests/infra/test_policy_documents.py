"""The policy documents that the linter gets; Terraform is a fake."""

import json
import re
import sys
from pathlib import Path
from typing import Any

import pytest

from environments.errors import PlatformError
from environments.settings import Environment
from infra import policy_documents
from infra.roles import ROLES
from infra.terraform_process import MODULE
from unit_tests.conftest import FakeTerraform

DOCUMENT = {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "sts:AssumeRole"}]}


def _state(run: str, *resources: dict[str, Any]) -> str:
    return json.dumps({"@testrun": run, "type": "test_state", "test_state": {"root_module": {"resources": resources}}})


def _resource(address: str, mode: str = "managed", **values: Any) -> dict[str, Any]:
    return {"address": address, "mode": mode, "type": address.split(".")[0], "values": values}


def test_every_role_the_boundary_and_the_bucket_are_among_the_documents(environment: Environment) -> None:
    found = policy_documents.of_python(environment)

    assert found.keys() >= {*ROLES, "boundary", "state_bucket"}
    assert all(document["Statement"] for document in found.values())


def test_documents_of_the_module_are_all_that_its_resources_have(
    environment: Environment, fake_terraform: FakeTerraform, tmp_path: Path
) -> None:
    text = json.dumps(DOCUMENT)
    role = _resource('aws_iam_role.this["agent"]', arn="arn:aws:iam::1:role/agent", assume_role_policy=text, path="/")
    data = _resource("data.aws_iam_policy_document.this", "data", json=text)
    queue = _resource("aws_sqs_queue_policy.this", policy=text, id=None)
    fake_terraform.answers("test", "\n".join([_state("one", role, data), _state("two", queue)]))
    found = policy_documents.of_terraform(environment, tmp_path / "module")
    trust = found.pop("one_aws_iam_role_this_agent_assume_role_policy")

    assert trust["Statement"] == [{**DOCUMENT["Statement"][0], "Resource": "arn:aws:iam::1:role/agent"}]
    assert found == {"two_aws_sqs_queue_policy_this_policy": DOCUMENT}


def test_terraform_reaches_nothing_but_what_renders_documents(
    environment: Environment, fake_terraform: FakeTerraform, tmp_path: Path
) -> None:
    policy_documents.of_terraform(environment, tmp_path / "module")
    told = json.loads((tmp_path / "module" / "policies.tftest.json").read_text())
    module = "\n".join(file.read_text() for file in MODULE.glob("*.tf"))
    overridden = {entry["target"] for entry in told["override_resource"]}
    asked = {entry["target"].split(".")[1] for entry in told["override_data"]}

    assert overridden == {".".join(name) for name in re.findall(r'^resource "(\w+)" "(\w+)"', module, re.MULTILINE)}
    assert asked == set(re.findall(r'^data "(\w+)"', module, re.MULTILINE)) - {"aws_iam_policy_document"}
    assert told["provider"]["aws"]["skip_requesting_account_id"] is True
    assert f"-var-file={environment.tfvars}" in fake_terraform.arguments("test")


def test_every_resource_whose_arn_the_module_uses_has_one_of_its_form() -> None:
    module = "\n".join(file.read_text() for file in MODULE.glob("*.tf") if file.name != "outputs.tf")
    policies = "".join(re.findall(r'^data "aws_iam_policy_document".*?^}', module, re.MULTILINE | re.DOTALL))
    used = set(re.findall(r"\b(aws_\w+)\.\w+(?:\[[^]]*\])?\.arn\b", policies))

    assert used
    assert used <= policy_documents.ARNS.keys()


def test_words_of_terraform_are_the_error(
    environment: Environment, fake_terraform: FakeTerraform, tmp_path: Path
) -> None:
    diagnostic = {"type": "diagnostic", "diagnostic": {"summary": "Invalid value", "detail": "vpc_id is none"}}
    fake_terraform.answers("test", json.dumps(diagnostic), code=1)
    with pytest.raises(PlatformError, match="terraform test failed") as caught:
        policy_documents.of_terraform(environment, tmp_path / "module")

    assert caught.value.why == "Invalid value: vpc_id is none"


def test_documents_are_files_of_their_names_and_old_ones_go(
    root: Path, fake_terraform: FakeTerraform, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "policies"
    folder.mkdir()
    (folder / "old.json").write_text("{}")
    fake_terraform.answers("test", _state("one", _resource("aws_sqs_queue_policy.this", policy=json.dumps(DOCUMENT))))
    monkeypatch.setattr(sys, "argv", ["policy_documents", str(folder)])
    policy_documents.main()
    names = {file.stem for file in folder.iterdir()}

    assert names >= {"deploy", "boundary", "one_aws_sqs_queue_policy_this_policy"}
    assert "old" not in names
    assert json.loads((folder / "one_aws_sqs_queue_policy_this_policy.json").read_text()) == DOCUMENT
