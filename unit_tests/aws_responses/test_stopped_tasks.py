"""What our code makes of stopped tasks as AWS describes them."""

from collections.abc import Callable
from typing import Any

import pytest

from agent import causes, health, last_words, run_health
from environments.errors import PlatformError
from environments.settings import Environment
from unit_tests import aws_responses
from unit_tests.aws_responses import samples, stopped_task, stopped_tasks

CAUSES = {
    "exit_0": ("it ended without the run having ended", True),
    "exit_1": ("it ended", True),
    "exit_137": ("it was killed", True),
    "exit_139": ("it crashed in native code", True),
    "exit_143": ("it was asked to stop", True),
    "out_of_memory": ("it needed more memory than the 512 MiB it had", True),
    "spot": ("AWS took its Spot capacity back", True),
    "spot_killed": ("AWS took its Spot capacity back", True),
    "spot_notice": ("AWS took its Spot capacity back", True),
    "by_hand": ("it was stopped by hand", False),
    "by_hand_with_reason": ("it was stopped by hand", False),
    "service_scaled": ("it was asked to stop", True),
    "service_unhealthy": ("it was asked to stop", True),
    "host_retired": ("AWS retired the machine that it ran on", True),
    "infrastructure": ("AWS retired the machine that it ran on", True),
    "image_missing": ("its image can't be pulled", False),
    "secret_denied": ("ECS could not prepare it: its network, secrets or logs", False),
    "log_group_missing": ("ECS could not prepare it: its network, secrets or logs", False),
    "command_missing": ("its container can't be started", False),
    "no_capacity": ("AWS has no capacity for it", True),
    "no_network_interface": ("AWS did not provide its network interface in time", True),
    "no_instance_cpu": ("ECS could not start it", True),
    "agent_disconnected": ("ECS could not start it", True),
}
"""For each sample what happened in words, and whether a run with restarts is started again."""


@pytest.mark.parametrize("case", stopped_tasks())
def test_cause_of_a_stopped_task(case: str) -> None:
    cause = causes.cause_of(stopped_task(case))
    assert (cause.words, cause.again) == CAUSES[case]


@pytest.mark.parametrize("case", stopped_tasks())
def test_answer_and_event_of_a_task_lead_to_the_same_message(case: str) -> None:
    assert causes.message(stopped_task(case)) == causes.message(stopped_tasks()[case])


@pytest.mark.parametrize("case", stopped_tasks())
def test_message_holds_all_that_ecs_says(case: str) -> None:
    task = stopped_task(case)
    (container,) = task["containers"]
    message = causes.message(task)

    assert task.get("stoppedReason", "") in message
    assert container.get("reason", "") in message
    assert (f"exit code {container.get('exitCode')}" in message) is ("exitCode" in container)
    assert "\n" not in message


@pytest.mark.parametrize("case", stopped_tasks())
def test_last_words_begin_with_why_the_task_stopped(
    case: str, environment: Environment, monkeypatch: pytest.MonkeyPatch
) -> None:
    streams: list[str] = []

    def last_lines(_: Environment, group: str, stream: str) -> list[str]:
        assert group == environment.agent_name
        streams.append(stream)
        return ["the last line"]

    monkeypatch.setattr(last_words, "last_lines", last_lines)
    task = stopped_task(case)
    lines = last_words.explain(environment, [task])
    (container,) = task["containers"]

    assert lines[0] == f"task stopped: {task.get('stoppedReason', 'no reason given')}"
    exits = [line for line in lines if line.startswith("container workflow exited with ")]
    assert bool(exits) is ("exitCode" in container)
    assert all(container.get("reason", "") in line for line in exits)
    assert lines[-1] == "| the last line"
    assert streams == [f"agent/agent/{task['taskArn'].rpartition('/')[2]}"]


class Ecs:
    """The agent's service, of which one task has stopped."""

    def __init__(self, task: dict[str, Any]) -> None:
        self.task = task

    def describe_services(self, **_: Any) -> dict[str, Any]:
        arn = self.task["taskDefinitionArn"]
        events = [{"message": "(service agent) has started 1 tasks"}]
        service = {"status": "ACTIVE", "taskDefinition": arn, "desiredCount": 1, "runningCount": 0, "events": events}
        return {"services": [service]}

    def list_tasks(self, desiredStatus: str, **_: Any) -> dict[str, Any]:
        return {"taskArns": [self.task["taskArn"]] if desiredStatus == "STOPPED" else []}

    def describe_tasks(self, **_: Any) -> dict[str, Any]:
        return {"tasks": [self.task]}


CRASHES = {name for name in CAUSES if not name.startswith(("spot", "by_hand", "service", "host", "infrastructure"))}


@pytest.mark.parametrize("case", stopped_tasks())
def test_agent_whose_task_ended_by_itself_is_told_apart_from_one_that_was_stopped(
    case: str, environment: Environment, monkeypatch: pytest.MonkeyPatch
) -> None:
    task = stopped_task(case)
    monkeypatch.setattr("agent.rollout.client", lambda *_: Ecs(task))
    monkeypatch.setattr(health, "client", lambda *_: Ecs(task))
    monkeypatch.setattr(last_words, "last_lines", lambda *_: [])
    with pytest.raises(PlatformError) as caught:
        health.at_ecs(environment)

    reason = task.get("stoppedReason", "no reason given")
    expected = f"task stopped: {reason}" if case in CRASHES else "(service agent) has started 1 tasks"
    assert caught.value.why.splitlines()[0] == expected


def _run(arn: str) -> dict[str, Any]:
    return {"name": "etl", "state": {"timestamp": "2023-11-28T16:11:20Z"}, "infrastructure_pid": f"cluster::{arn}"}


@pytest.mark.parametrize(
    ("answer", "stuck"),
    [
        (lambda: samples("ecs_describe_tasks")["missing"], True),
        (lambda: {"response": {"tasks": [stopped_tasks()["exit_137"]], "failures": []}}, True),
        (lambda: samples("ecs_describe_tasks")["running"], False),
    ],
    ids=["missing", "stopped", "running"],
)
def test_status_shows_runs_whose_task_is_gone(
    answer: Callable[[], dict[str, Any]],
    stuck: bool,
    environment: Environment,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    run = _run(samples("ecs_describe_tasks")["running"]["response"]["tasks"][0]["taskArn"])
    monkeypatch.setattr(run_health, "client", lambda *_: aws_responses.client("ecs", answer()))
    monkeypatch.setattr(run_health, "_read", lambda _, state: [run] if state["type"]["any_"] == ["RUNNING"] else [])
    if not stuck:
        assert run_health.stuck(environment) == "none"
        return
    with pytest.raises(PlatformError) as caught:
        run_health.stuck(environment)
    assert caught.value.why == "RUNNING, and their ECS task has ended: etl"
