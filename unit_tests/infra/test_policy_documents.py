"""The policy documents that the linter gets; Terraform is a fake."""

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from environments.settings import Environment
from infra import policy_documents
from infra.policy_documents import Attached
from infra.roles import ROLES
from unit_tests.conftest import FakeTerraform

DOCUMENT: dict[str, Any] = {
    "Version": "2012-10-17",
    "Statement": [{"Effect": "Allow", "Action": "sts:AssumeRole"}],
}


def _state(run: str, *resources: dict[str, Any]) -> str:
    return json.dumps({"@testrun": run, "type": "test_state", "test_state": {"root_module": {"resources": resources}}})


def _resource(address: str, mode: str = "managed", **values: Any) -> dict[str, Any]:
    return {"address": address, "mode": mode, "type": address.split(".")[0], "values": values}


def test_every_role_the_boundary_and_the_bucket_are_among_the_documents(environment: Environment) -> None:
    found = {one.name: one for one in policy_documents.of_python(environment)}

    assert found.keys() >= {*ROLES, "boundary", "state_bucket", "trust_deploy"}
    assert all(one.document["Statement"] for one in found.values())
    assert found["plan"].roles == ("deploy", "plan")
    assert {found[name].kind for name in ("deploy", "plan", "network", "roles", "register")} == {"managed"}
    assert [found[name].kind for name in ("boundary", "trust_plan", "key")] == ["boundary", "trust", "resource"]


def test_documents_of_the_module_are_all_that_its_resources_have(
    environment: Environment, fake_terraform: FakeTerraform, tmp_path: Path
) -> None:
    text = json.dumps(DOCUMENT)
    name = f"{environment.prefix}_agent_task"
    role = _resource('aws_iam_role.this["agent_task"]', name=name, assume_role_policy=text, path="/")
    inline = _resource("aws_iam_role_policy.agent_task", name="run_workflows", role=name, policy=text)
    data = _resource("data.aws_iam_policy_document.this", "data", json=text)
    queue = _resource("aws_sqs_queue_policy.this", policy=text, id=None)
    fake_terraform.answers("test", "\n".join([_state("one", role, inline, data), _state("two", queue)]))

    assert policy_documents.of_terraform(environment, tmp_path / "module") == [
        Attached(
            "one_aws_iam_role_this_agent_task_assume_role_policy", "one", "trust", name, ("agent_task",), DOCUMENT
        ),
        Attached("one_aws_iam_role_policy_agent_task_policy", "one", "inline", name, ("agent_task",), DOCUMENT),
        Attached("two_aws_sqs_queue_policy_this_policy", "two", "resource", "aws_sqs_queue_policy.this", (), DOCUMENT),
    ]


@pytest.mark.parametrize("choice", policy_documents.CHOICES)
def test_choices_are_settings_that_an_environment_can_have(environment: Environment, choice: str) -> None:
    made = policy_documents.chosen(environment, choice)

    assert {name: getattr(made, name) for name in policy_documents.CHOICES[choice]} == {
        name: tuple(value) if isinstance(value, list) else value.replace("{at}", "eu-west-1:123456789012")
        for name, value in policy_documents.CHOICES[choice].items()
    }


def test_documents_are_files_of_their_names_and_old_ones_go(
    root: Path, fake_terraform: FakeTerraform, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "policies"
    folder.mkdir()
    (folder / "old.json").write_text("{}")
    text = json.dumps(DOCUMENT)
    queue = _resource("aws_sqs_queue_policy.this", policy=text)
    role = _resource("aws_iam_role.flow_logs", name="prod_dataflow_automation_flow_logs", assume_role_policy=text)
    fake_terraform.answers("test", _state("one", queue, role))
    monkeypatch.setattr(sys, "argv", ["policy_documents", str(folder)])
    policy_documents.main()
    names = {file.stem for file in folder.iterdir()}

    assert names >= {"deploy", "boundary", "one_aws_sqs_queue_policy_this_policy"}
    assert not names & {"old", "trust_deploy"}
    assert json.loads((folder / "one_aws_sqs_queue_policy_this_policy.json").read_text()) == DOCUMENT
    trust = json.loads((folder / "one_aws_iam_role_flow_logs_assume_role_policy.json").read_text())
    arn = "arn:aws:iam::123456789012:role/prod_dataflow_automation_flow_logs"
    assert trust["Statement"] == [{**DOCUMENT["Statement"][0], "Resource": arn}]


def test_attachments_are_listed_with_those_that_the_linter_does_not_read(
    root: Path, fake_terraform: FakeTerraform, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake_terraform.answers("test", _state("one", _resource("aws_sqs_queue_policy.this", policy=json.dumps(DOCUMENT))))
    monkeypatch.setattr(sys, "argv", ["policy_documents", str(tmp_path / "policies")])
    policy_documents.main()
    lines = (tmp_path / "policies" / policy_documents.ATTACHED).read_text().splitlines()
    names = [(told["choice"], told["name"]) for told in map(json.loads, lines)]

    assert len(set(names)) == len(names)
    assert {
        ("one", "one_aws_sqs_queue_policy_this_policy"),
        ("as_it_is", "trust_deploy"),
        ("with_own", "roles"),
    } <= {*names}
