"""How the emulated ECS makes room for another deployment, with the emulator's own module; no container is started."""

import importlib
from collections.abc import Iterator
from typing import Any

import pytest

from environments.emulated_rollouts import keep_who_serves

CLUSTER = "arn:aws:ecs:eu-west-1:000000000000:cluster/agents"


@pytest.fixture
def ecs(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """The emulator's module with a service whose newest deployment is `new`; it only notes whom it stops."""
    module: Any = importlib.import_module("ministack.services.ecs")
    deployments = [{"id": "new", "status": "PRIMARY"}, {"id": "old", "status": "ACTIVE"}]
    service = {"serviceName": "agent", "clusterArn": CLUSTER, "deployments": deployments}
    module.stopped = []
    monkeypatch.setattr(module, "_services", {"agents/agent": service})
    monkeypatch.setattr(module, "_tasks", {})
    monkeypatch.setattr(module, "_stop_task", lambda data: module.stopped.append(data["task"]))
    monkeypatch.setattr(module, "_reconcile_service_tasks", lambda *_: module.stopped.append("the emulator's choice"))
    keep_who_serves(module)
    yield module
    del module.stopped


def _task(**change: Any) -> dict[str, Any]:
    return {
        "taskArn": "task",
        "group": "service:agent",
        "clusterArn": CLUSTER,
        "lastStatus": "RUNNING",
        "healthStatus": "UNKNOWN",
        "_health_check": {"command": ["CMD", "check"]},
        "_deployment_id": "old",
        **change,
    }


@pytest.mark.parametrize(
    ("change", "goes"),
    [
        ({}, True),
        ({"healthStatus": "UNHEALTHY"}, True),
        ({"healthStatus": "HEALTHY"}, False),
        ({"_deployment_id": "new"}, False),
        ({"_health_check": None}, False),
        ({"lastStatus": "STOPPED"}, False),
        ({"group": "service:other"}, False),
        ({"clusterArn": CLUSTER + "2"}, False),
    ],
)
def test_who_never_became_healthy_goes_before_the_emulator_chooses(
    ecs: Any, change: dict[str, Any], goes: bool
) -> None:
    ecs._tasks["task"] = _task(**change)
    ecs._reconcile_service_tasks("agents", "agents/agent")

    assert ecs.stopped == [*(["task"] if goes else []), "the emulator's choice"]


def test_a_service_that_is_gone_is_the_emulators_affair(ecs: Any) -> None:
    ecs._tasks["task"] = _task()
    ecs._reconcile_service_tasks("agents", "agents/gone")

    assert ecs.stopped == ["the emulator's choice"]
