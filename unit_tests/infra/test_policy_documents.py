"""The policy documents that the linter gets; Terraform is a fake."""

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from environments.settings import Environment
from infra import policy_documents
from infra.roles import ROLES
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
