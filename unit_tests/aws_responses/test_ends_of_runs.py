"""What the agent does when AWS sends that a task has stopped, or describes one that has."""

import asyncio
import datetime
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import Any

import pytest

from agent import attempts, aws, recovery, task_ends
from unit_tests.agent.prefect_fake import TEMPLATE, FakePrefect
from unit_tests.aws_responses import body, parsed, stopped_task

RUNNING = ("SCHEDULED", "PENDING", "RUNNING")
WORDS = "needed more memory than the 512 MiB it had (Essential container in task exited; OutOfMemoryError"


@pytest.fixture
def prefect(monkeypatch: pytest.MonkeyPatch) -> FakePrefect:
    fake = FakePrefect()
    monkeypatch.setattr(task_ends, "get_client", lambda: fake)
    monkeypatch.setattr(recovery, "get_client", lambda: fake)
    return fake


@pytest.fixture
def read_from(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str]]:
    """Log group and stream from which the last lines of tasks were read."""
    places: list[tuple[str, str]] = []

    @asynccontextmanager
    async def client(service: str) -> AsyncIterator[Any]:
        async def describe_task_definition(taskDefinition: str) -> dict[str, Any]:
            answer = parsed("ecs", "DescribeTaskDefinition", body("ecs_describe_task_definition", "minimal"))
            assert taskDefinition == answer["taskDefinition"]["taskDefinitionArn"]
            return answer

        yield SimpleNamespace(describe_task_definition=describe_task_definition)

    async def fetch(log_group: str, log_stream: str, **_: Any) -> list[str]:
        places.append((log_group, log_stream))
        return ["the last line"]

    monkeypatch.setattr(aws, "client", client)
    monkeypatch.setattr(task_ends, "fetch_cloudwatch_logs", fetch)
    return places


def _tags(run: object) -> dict[str, str]:
    return {task_ends.RUN_TAG: str(run), attempts.TAG: f"{run}-0", task_ends.RESTARTS_TAG: "0"}


def _event(source: str) -> dict[str, Any]:
    if source == "sqs":
        received = parsed("sqs", "ReceiveMessage", body("sqs", "received"))
        event = json.loads(received["Messages"][0]["Body"])
    else:
        event = body("ecs_task_state_change_events", "stopped")
    assert isinstance(event, dict)
    return event


@pytest.mark.parametrize("source", ["event", "sqs"])
def test_run_whose_task_stopped_is_crashed_with_all_that_the_event_says(
    source: str, prefect: FakePrefect, read_from: list[tuple[str, str]]
) -> None:
    run, event = prefect.add(*RUNNING), _event(source)
    asyncio.run(task_ends.on_stopped(event, _tags(run)))
    last = prefect.states[run][-1]
    task_id = event["detail"]["taskArn"].rpartition("/")[2]

    assert last.is_crashed()
    assert WORDS in str(last.message)
    assert read_from == [("dev_workflows", f"etl/workflow/{task_id}")]
    assert "the last line" in prefect.logs[-1]["message"]


def test_a_described_task_ends_its_run_as_its_event_does(
    prefect: FakePrefect, read_from: list[tuple[str, str]]
) -> None:
    by_event, described = prefect.add(*RUNNING), prefect.add(*RUNNING)
    asyncio.run(task_ends.on_stopped(_event("event"), _tags(by_event)))
    asyncio.run(task_ends.settle(prefect, stopped_task("out_of_memory"), _tags(described)))

    assert prefect.states[described][-1].message == prefect.states[by_event][-1].message
    assert len(set(read_from)) == 1


class Ecs:
    """ECS that answers ListTasks with nothing, and DescribeTasks with a sample."""

    def __init__(self, answer: dict[str, Any]) -> None:
        self.answer = answer

    async def list_tasks(self, **_: Any) -> dict[str, Any]:
        return {"taskArns": []}

    async def describe_tasks(self, **_: Any) -> dict[str, Any]:
        return self.answer


def _look(prefect: FakePrefect, answer: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> Any:
    """Look at a run at work that knows of the task of the samples; gives the run."""
    arn = body("ecs_describe_tasks", "running")["tasks"][0]["taskArn"]
    run = prefect.add(*RUNNING, infrastructure_pid=f"{TEMPLATE['job_configuration']['cluster']}::{arn}")
    for task in answer["tasks"]:
        task["tags"] = [{"key": key, "value": value} for key, value in _tags(run).items()]

    @asynccontextmanager
    async def client(_: str) -> AsyncIterator[Ecs]:
        yield Ecs(answer)

    monkeypatch.setattr(aws, "client", client)
    monkeypatch.setattr(recovery, "_ago", lambda _: datetime.datetime(2026, 2, 1, tzinfo=datetime.UTC))
    asyncio.run(recovery.look(recovery.Agent("dev_dataflow_automation", "me", 10, frozenset), thorough=True))
    return run


def test_run_of_a_running_task_goes_on(prefect: FakePrefect, monkeypatch: pytest.MonkeyPatch) -> None:
    run = _look(prefect, parsed("ecs", "DescribeTasks", body("ecs_describe_tasks", "running")), monkeypatch)
    assert prefect.states[run][-1].is_running()


def test_run_of_a_task_that_ecs_forgot_is_crashed(prefect: FakePrefect, monkeypatch: pytest.MonkeyPatch) -> None:
    run = _look(prefect, parsed("ecs", "DescribeTasks", body("ecs_describe_tasks", "missing")), monkeypatch)
    last = prefect.states[run][-1]

    assert last.is_crashed()
    assert last.message == recovery.GONE


def test_run_of_a_stopped_task_is_handed_to_what_its_event_is_handed_to(
    prefect: FakePrefect, monkeypatch: pytest.MonkeyPatch
) -> None:
    handed: list[tuple[Any, dict[str, str]]] = []

    async def settle(_: Any, task: dict[str, Any], tags: dict[str, str]) -> None:
        handed.append((task["stopCode"], tags))

    monkeypatch.setattr(task_ends, "settle", settle)
    answer = {"tasks": [stopped_task("spot")], "failures": []}
    run = _look(prefect, answer, monkeypatch)

    assert handed == [("SpotInterruption", _tags(run))]
