"""What the agent does when AWS sends that a task has stopped, or describes one that has."""

import asyncio
import datetime
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import Any

import pytest

from agent import aws, recovery, remains, task_ends, task_log
from agent.capacity import Capacity
from agent.observer import Observer
from environments.run_terms import ATTEMPT_TAG, RESTARTS_TAG, RUN_TAG
from unit_tests.agent.prefect_fake import TEMPLATE, FakePrefect
from unit_tests.aws_responses import body, parsed, samples, stopped_task

RUNNING = ("SCHEDULED", "PENDING", "RUNNING")
WORDS = "needed more memory than the 512 MiB it had (Essential container in task exited; OutOfMemoryError"


@pytest.fixture
def prefect(monkeypatch: pytest.MonkeyPatch) -> FakePrefect:
    fake = FakePrefect()
    monkeypatch.setattr(recovery, "get_client", lambda: fake)

    async def nothing(*_: Any) -> int:
        return 0

    monkeypatch.setattr(remains, "release_slots", nothing)
    monkeypatch.setattr(remains, "end_children", nothing)
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
    monkeypatch.setattr(task_log, "fetch_cloudwatch_logs", fetch)
    return places


def _tags(run: object) -> dict[str, str]:
    return {RUN_TAG: str(run), ATTEMPT_TAG: f"{run}-0", RESTARTS_TAG: "0"}


def _settle(prefect: FakePrefect, task: dict[str, Any], run: object) -> None:
    asyncio.run(task_ends.settle(prefect, task, _tags(run), Capacity()))


def test_run_whose_task_stopped_is_crashed_with_all_that_the_event_says(
    prefect: FakePrefect, read_from: list[tuple[str, str]]
) -> None:
    run, task = prefect.add(*RUNNING), body("ecs_task_state_change_events", "stopped")["detail"]
    _settle(prefect, task, run)
    last = prefect.states[run][-1]

    assert last.is_crashed()
    assert WORDS in str(last.message)
    assert read_from == [("dev_workflows", f"etl/workflow/{task['taskArn'].rpartition('/')[2]}")]
    assert "the last line" in prefect.logs[-1]["message"]


def test_a_described_task_ends_its_run_as_its_event_does(
    prefect: FakePrefect, read_from: list[tuple[str, str]]
) -> None:
    by_event, described = prefect.add(*RUNNING), prefect.add(*RUNNING)
    _settle(prefect, body("ecs_task_state_change_events", "stopped")["detail"], by_event)
    _settle(prefect, stopped_task("out_of_memory"), described)

    assert prefect.states[described][-1].message == prefect.states[by_event][-1].message
    assert len(set(read_from)) == 1


@pytest.mark.parametrize("case", ["no_capacity", "no_network_interface"])
def test_run_whose_task_found_no_capacity_waits(
    case: str, prefect: FakePrefect, read_from: list[tuple[str, str]]
) -> None:
    run = prefect.add("SCHEDULED", "PENDING")
    _settle(prefect, stopped_task(case), run)

    assert prefect.states[run][-1].is_scheduled()


def test_observer_hands_over_the_event_in_a_message_and_deletes_it() -> None:
    answers = [parsed("sqs", "ReceiveMessage", body("sqs", case)) for case in ("received", "received_nothing")]
    handed, deleted = [], []

    async def handle(event: dict[str, Any]) -> None:
        handed.append(event)

    async def receive_message(**_: Any) -> dict[str, Any]:
        return answers.pop(0)

    async def delete_message(QueueUrl: str, ReceiptHandle: str) -> None:
        deleted.append(ReceiptHandle)

    async def read_twice() -> None:
        observer = Observer("queue", handle)
        sqs = SimpleNamespace(receive_message=receive_message, delete_message=delete_message)
        await observer._read(sqs, "url")
        await observer._read(sqs, "url")
        await asyncio.gather(*observer._handling)

    asyncio.run(read_twice())
    message = samples("sqs")["received"]["response"]["Messages"][0]

    assert handed == [json.loads(message["Body"])]
    assert deleted == [message["ReceiptHandle"]]


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
    looking = recovery.Agent("dev_dataflow_automation", "me", 10, frozenset, Capacity(), dict)
    asyncio.run(recovery.look(looking, thorough=True))
    return run


def test_run_of_a_running_task_goes_on(prefect: FakePrefect, monkeypatch: pytest.MonkeyPatch) -> None:
    run = _look(prefect, parsed("ecs", "DescribeTasks", body("ecs_describe_tasks", "running")), monkeypatch)
    assert prefect.states[run][-1].is_running()


def test_run_of_a_task_that_ecs_forgot_is_crashed(prefect: FakePrefect, monkeypatch: pytest.MonkeyPatch) -> None:
    run = _look(prefect, parsed("ecs", "DescribeTasks", body("ecs_describe_tasks", "missing")), monkeypatch)
    assert prefect.states[run][-1].is_crashed()


def test_run_of_a_stopped_task_is_handed_to_what_its_event_is_handed_to(
    prefect: FakePrefect, monkeypatch: pytest.MonkeyPatch
) -> None:
    handed: list[tuple[Any, dict[str, str]]] = []

    async def settle(_: Any, task: dict[str, Any], tags: dict[str, str], __: Capacity) -> None:
        handed.append((task["stopCode"], tags))

    monkeypatch.setattr(task_ends, "settle", settle)
    run = _look(prefect, {"tasks": [stopped_task("spot")], "failures": []}, monkeypatch)

    assert handed == [("SpotInterruption", _tags(run))]
