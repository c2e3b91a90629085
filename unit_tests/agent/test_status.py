import json
import types
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest

from agent import rollout, status, summary
from agent.status import Component
from environments.errors import PlatformError
from environments.settings import Environment

Aws = Callable[[str], Any]
NAME = "dev_dataflow_automation_agent"


@pytest.fixture
def online(monkeypatch: pytest.MonkeyPatch) -> dict[str, datetime]:
    """The agents that Prefect shows; empty at first."""
    agents: dict[str, datetime] = {}
    monkeypatch.setattr(status, "online_agents", lambda _: agents)
    return agents


def _deploy(aws_mocked: Aws, count: int) -> None:
    ecs = aws_mocked("ecs")
    ecs.create_cluster(clusterName=NAME)
    ecs.register_task_definition(family=NAME, containerDefinitions=[{"name": "agent", "image": "x", "memory": 512}])
    ecs.create_service(cluster=NAME, serviceName=NAME, taskDefinition=NAME, desiredCount=count)


def _by_name(environment: Environment) -> dict[str, Component]:
    return {part.name: part for part in status.components(environment)}


def test_environment_without_a_cluster_is_not_deployed(
    environment: Environment, aws_mocked: Aws, online: dict[str, datetime]
) -> None:
    part = _by_name(environment)["agent at ECS"]

    assert not part.ok
    assert "not deployed" in part.state
    assert "invoke deploy" in part.state


def test_cluster_without_its_service_is_not_deployed(
    environment: Environment, aws_mocked: Aws, online: dict[str, datetime]
) -> None:
    aws_mocked("ecs").create_cluster(clusterName=NAME)

    assert "not deployed" in _by_name(environment)["agent at ECS"].state


def test_service_that_was_deleted_is_not_deployed(
    environment: Environment, aws_mocked: Aws, online: dict[str, datetime], monkeypatch: pytest.MonkeyPatch
) -> None:
    """ECS shows a deleted service for a while, as inactive."""
    gone = {"status": "INACTIVE", "desiredCount": 0, "runningCount": 0, "taskDefinition": f"{NAME}:1"}
    ecs = types.SimpleNamespace(describe_services=lambda **_: {"services": [gone]})
    monkeypatch.setattr(rollout, "client", lambda *_: ecs)

    assert "not deployed" in status._service(environment).state


def test_agent_that_is_down_on_purpose_says_how_to_start_it(
    environment: Environment, aws_mocked: Aws, online: dict[str, datetime]
) -> None:
    _deploy(aws_mocked, 0)
    part = _by_name(environment)["agent at ECS"]

    assert not part.ok
    assert "invoke agent --up" in part.state


def test_agent_with_tasks_missing_is_not_well(
    environment: Environment, aws_mocked: Aws, online: dict[str, datetime]
) -> None:
    _deploy(aws_mocked, 3)
    part = _by_name(environment)["agent at ECS"]

    assert not part.ok
    assert "of 3 running, revision 1" in part.state


def test_agents_of_running_tasks_are_named_when_prefect_shows_them_online(
    environment: Environment, aws_mocked: Aws, online: dict[str, datetime], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(status, "running_tasks", lambda _: ["one", "two"])
    before = _by_name(environment)["agent at Prefect"]
    online.update({f"{environment.prefix}_{task}": datetime.now(UTC) for task in ("one", "stopped")})
    after = _by_name(environment)["agent at Prefect"]

    assert (before.ok, before.state) == (False, "none online")
    assert after.ok
    assert f"{environment.prefix}_one" in after.state
    assert "two" not in after.state
    assert "stopped" not in after.state


def test_prefect_that_does_not_answer_is_told_and_not_raised(
    environment: Environment, aws_mocked: Aws, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unreachable(_: Environment) -> None:
        raise PlatformError("Prefect is out of reach", "no route")

    monkeypatch.setattr(status, "online_agents", unreachable)
    part = _by_name(environment)["Prefect project"]

    assert (part.ok, part.state) == (False, "Prefect is out of reach: no route")


def test_project_that_is_missing_is_not_deployed(
    environment: Environment, aws_mocked: Aws, monkeypatch: pytest.MonkeyPatch
) -> None:
    from prefect.exceptions import ObjectNotFound

    def missing(_: Environment) -> None:
        raise ObjectNotFound(Exception("404"))

    monkeypatch.setattr(status, "online_agents", missing)

    assert "not deployed" in _by_name(environment)["Prefect project"].state


def test_credentials_that_are_refused_are_told_and_not_raised(
    environment: Environment, monkeypatch: pytest.MonkeyPatch, online: dict[str, datetime]
) -> None:
    from botocore.exceptions import NoCredentialsError

    class Refused:
        def describe_services(self, **_: Any) -> None:
            raise NoCredentialsError

        list_tasks = describe_services

    monkeypatch.setattr(rollout, "client", lambda *_: Refused())
    part = _by_name(environment)["agent at ECS"]

    assert not part.ok
    assert "credentials" in part.state


def test_when_the_servers_of_local_are_down_nobody_is_asked(
    local: Environment, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(status.local_stack, "state", lambda _: {"emulated AWS": "stopped", "Prefect server": "running"})
    parts = _by_name(local)

    assert parts["emulated AWS"] == Component("emulated AWS", False, "stopped; invoke deploy starts it")
    assert parts["Prefect server"].ok
    assert not any(part.ok for name, part in parts.items() if name != "Prefect server")


PARTS = [Component("agent", True, "1 of 1 running"), Component("Prefect project", True, "x")]
WORKFLOW = {"name": "sales", "version": "abc", "last_run": "COMPLETED"}


@pytest.mark.parametrize("as_json", [False, True])
@pytest.mark.parametrize(("ok", "code"), [(True, 0), (False, 1)])
def test_exit_code_is_0_when_all_are_well(
    environment: Environment, capsys: pytest.CaptureFixture[str], as_json: bool, ok: bool, code: int
) -> None:
    parts = [*PARTS, Component("agent at Prefect", ok, "state")]

    assert summary.show_status(environment, parts, [WORKFLOW], as_json) == code
    printed = capsys.readouterr().out
    assert all(part.name in printed for part in parts)
    assert "sales" in printed


def test_json_is_json_and_nothing_else(environment: Environment, capsys: pytest.CaptureFixture[str]) -> None:
    summary.show_status(environment, PARTS, [WORKFLOW], True)
    told = json.loads(capsys.readouterr().out)

    assert told["environment"] == "dev"
    assert told["ok"] is True
    assert told["workflows"] == [WORKFLOW]
    assert told["components"][0] == {"name": "agent", "ok": True, "state": "1 of 1 running"}
