import asyncio
import uuid
from typing import Any

import pytest

from agent.tasks import Tasks, run_of
from unit_tests.agent.ecs_fake import CLUSTER, FakeEcs

RUN = uuid.UUID("11111111-1111-4111-8111-111111111111")


@pytest.fixture
def ecs() -> FakeEcs:
    return FakeEcs()


@pytest.fixture
def tasks(ecs: FakeEcs) -> Tasks:
    return Tasks(ecs, CLUSTER)


def _arns(found: list[dict[str, Any]]) -> list[str]:
    return [task["taskArn"] for task in found]


def test_tasks_are_described_a_hundred_at_a_time_with_tags_by_key(ecs: FakeEcs, tasks: Tasks) -> None:
    arns = [ecs.start(f"{RUN}-{number}") for number in range(250)]
    found = asyncio.run(tasks.described([*arns, "arn:aws:ecs:eu-west-1:123456789012:task/workflows/gone"]))

    assert list(found) == arns
    assert found[arns[7]]["tags"] == {"prefect.io/flow-run-id": str(RUN), "attempt": f"{RUN}-7", "restarts": "0"}
    assert [len(asked) for _, asked in ecs.requests] == [100, 100, 51]


def test_nothing_is_asked_about_no_tasks(ecs: FakeEcs, tasks: Tasks) -> None:
    assert asyncio.run(tasks.described([])) == {}
    assert ecs.requests == []


def test_task_without_tags_has_none(ecs: FakeEcs, tasks: Tasks) -> None:
    arn = ecs.start(f"{RUN}-0")
    del ecs.tasks[arn]["tags"]

    assert asyncio.run(tasks.described([arn]))[arn]["tags"] == {}


def test_running_tasks_are_those_of_all_pages_that_nobody_told_to_stop(ecs: FakeEcs, tasks: Tasks) -> None:
    running = [ecs.start(f"{RUN}-{number}", status) for number, status in enumerate(["RUNNING", "PENDING"] * 60)]
    ecs.start(f"{RUN}-200", "STOPPED")
    ecs.start(f"{RUN}-201", "STOPPING")

    assert _arns(asyncio.run(tasks.running())) == running


def test_tasks_of_a_run_are_its_own_running_ones_first(ecs: FakeEcs, tasks: Tasks) -> None:
    stopped, running = ecs.start(f"{RUN}-0", "STOPPED"), ecs.start(f"{RUN}-2")
    ecs.start(f"{uuid.UUID(int=1)}-0")

    assert _arns(asyncio.run(tasks.of_run(RUN))) == [running, stopped]


def test_task_of_an_attempt_is_told_by_its_tag(ecs: FakeEcs, tasks: Tasks) -> None:
    first = ecs.start(f"{RUN}-0", "STOPPED")
    second = ecs.start(f"{RUN}-2")
    found = [asyncio.run(tasks.of_attempt(RUN, f"{RUN}-{number}")) for number in (0, 2, 4)]

    assert [task and task["taskArn"] for task in found] == [first, second, None]


def test_reason_of_a_stop_is_as_long_as_ecs_takes_it(ecs: FakeEcs, tasks: Tasks) -> None:
    arn = ecs.start(f"{RUN}-0")
    asyncio.run(tasks.stop({"taskArn": arn}, "its run was deleted"))
    asyncio.run(tasks.stop({"taskArn": arn}, "x" * 1000))

    assert ecs.stopped == [arn, arn]
    assert ecs.reasons[0] == "Stopped by the agent: its run was deleted"
    assert len(ecs.reasons[1]) == 255


@pytest.mark.parametrize(
    ("tags", "run"),
    [
        ({"prefect.io/flow-run-id": str(RUN)}, RUN),
        ({"prefect.io/flow-run-id": "not-an-id"}, None),
        ({"prefect.io/flow-run-id": ""}, None),
        ({}, None),
    ],
)
def test_run_of_a_task_is_in_its_tag(tags: dict[str, str], run: uuid.UUID | None) -> None:
    assert run_of(tags) == run
