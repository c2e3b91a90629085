import asyncio
import logging
import uuid
from typing import Any

import pytest
from prefect.client.schemas.objects import FlowRunPolicy
from prefect_aws.observers import ecs as upstream

from agent import task_ends
from unit_tests.agent.prefect_fake import FakePrefect

KILLED = {"stopCode": "EssentialContainerExited", "stoppedReason": "Essential container in task exited"}
SPOT = {"stopCode": "SpotInterruption", "stoppedReason": "Your Spot Task was interrupted."}
PULL = {"stopCode": "TaskFailedToStart", "stoppedReason": "CannotPullContainerError: not found"}
RUNNING = ("SCHEDULED", "PENDING", "RUNNING")


@pytest.fixture
def prefect(monkeypatch: pytest.MonkeyPatch) -> FakePrefect:
    fake = FakePrefect()
    monkeypatch.setattr(task_ends, "get_client", lambda: fake)
    return fake


@pytest.fixture(autouse=True)
def lines(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What the task wrote."""
    wrote = ["first line", "last line"]

    async def last_lines(_: Any) -> list[str]:
        return wrote

    monkeypatch.setattr(task_ends, "_last_lines", last_lines)
    return wrote


def _stopped(run: uuid.UUID, restarts: int = 0, attempt: int = 0, **task: Any) -> None:
    """The observer's call for a task of a run."""
    containers = [{"name": "workflow", "exitCode": 137}]
    detail = {"lastStatus": "STOPPED", "capacityProviderName": "FARGATE_SPOT", "containers": containers, **task}
    tags = {"prefect.io/flow-run-id": str(run), "attempt": f"{run}-{attempt}", "restarts": str(restarts)}
    asyncio.run(task_ends.on_stopped({"detail": detail}, tags))


@pytest.mark.parametrize(
    "states",
    [RUNNING, ("SCHEDULED", "PENDING", "PENDING:Submitting")],
    ids=["running", "not-yet-running"],
)
def test_run_whose_task_died_is_crashed_with_reason_and_last_lines(
    prefect: FakePrefect, states: tuple[str, ...]
) -> None:
    run = prefect.add(*states)
    _stopped(run, **KILLED)

    last = prefect.states[run][-1]
    assert last.is_crashed()
    assert "it was killed" in str(last.message)
    assert [(log["level"], log["flow_run_id"]) for log in prefect.logs] == [
        (logging.ERROR, str(run)),
        (logging.INFO, str(run)),
    ]
    assert prefect.logs[0]["message"] == last.message
    assert prefect.logs[1]["message"].endswith("first line\nlast line")


@pytest.mark.parametrize("end", ["COMPLETED", "FAILED", "CANCELLED", "PAUSED:Suspended", "SCHEDULED"])
def test_run_that_ended_or_waits_is_left_alone(prefect: FakePrefect, end: str) -> None:
    run = prefect.add(*RUNNING, end)
    _stopped(run, restarts=3, **KILLED)

    assert prefect.names(run) == ["Scheduled", "Pending", "Running", end.partition(":")[2] or end.title()]
    assert prefect.logs == []


def test_run_that_waited_in_its_task_for_its_next_retry_is_crashed(prefect: FakePrefect) -> None:
    run = prefect.add(
        *RUNNING, "SCHEDULED:AwaitingRetry", empirical_policy=FlowRunPolicy(retries=2, retry_type="in_process")
    )
    _stopped(run, **KILLED)

    assert prefect.states[run][-1].is_crashed()


def test_run_that_was_being_cancelled_is_cancelled(prefect: FakePrefect) -> None:
    run = prefect.add(*RUNNING, "CANCELLING")
    _stopped(run, restarts=3, **KILLED)

    assert prefect.names(run)[-1] == "Cancelled"


def test_deleted_run_is_no_error(prefect: FakePrefect) -> None:
    _stopped(uuid.uuid4(), **KILLED)

    assert prefect.logs == []


def test_late_event_of_an_earlier_attempt_changes_nothing(prefect: FakePrefect) -> None:
    run = prefect.add(*RUNNING, "CRASHED", "SCHEDULED", "PENDING", "RUNNING")
    _stopped(run, attempt=0, **KILLED)
    assert prefect.states[run][-1].is_running()

    _stopped(run, attempt=2, **KILLED)
    assert prefect.states[run][-1].is_crashed()


@pytest.mark.parametrize("states", [RUNNING, (*RUNNING, "CRASHED")], ids=["killed", "said-so-itself"])
def test_run_that_was_told_to_survive_is_started_again(prefect: FakePrefect, states: tuple[str, ...]) -> None:
    run = prefect.add(*states)
    _stopped(run, restarts=1, **SPOT)

    assert prefect.names(run) == ["Scheduled", "Pending", "Running", "Crashed", "AwaitingRestart"]
    assert prefect.states[run][-1].message == "Restart 1 of 1: AWS took its Spot capacity back."


def test_restarts_are_counted(prefect: FakePrefect) -> None:
    run = prefect.add(*RUNNING, "CRASHED", "SCHEDULED:AwaitingRestart", "PENDING", "RUNNING")
    _stopped(run, restarts=2, attempt=2, **SPOT)

    assert str(prefect.states[run][-1].message).startswith("Restart 2 of 2")


@pytest.mark.parametrize(
    ("task", "before", "why"),
    [
        (PULL, (), "it would end the same way"),
        (KILLED, ("SCHEDULED:AwaitingRestart",) * 2, "that was restart 2 of 2"),
    ],
    ids=["hopeless", "used-up"],
)
def test_run_is_not_started_again_for_ever(
    prefect: FakePrefect, task: dict[str, Any], before: tuple[str, ...], why: str
) -> None:
    run = prefect.add(*before, *RUNNING)
    _stopped(run, restarts=2, **task)

    assert prefect.states[run][-1].is_crashed()
    assert prefect.logs[-1]["message"] == f"Not started again: {why}."


def test_two_agents_restart_a_run_once(prefect: FakePrefect, monkeypatch: pytest.MonkeyPatch) -> None:
    run = prefect.add(*RUNNING, "CRASHED")
    before = asyncio.run(prefect.read_flow_run(run)), list(prefect.states[run])
    _stopped(run, restarts=3, **SPOT)

    async def read_before(_: uuid.UUID) -> Any:
        return before[0]

    async def states_before(_: uuid.UUID) -> Any:
        return before[1]

    monkeypatch.setattr(prefect, "read_flow_run", read_before)
    monkeypatch.setattr(prefect, "read_flow_run_states", states_before)
    _stopped(run, restarts=3, **SPOT)

    assert prefect.names(run).count("AwaitingRestart") == 1


def test_logs_that_can_not_be_read_don_t_keep_a_run_from_being_crashed(
    prefect: FakePrefect, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fails(_: Any) -> list[str]:
        raise ConnectionError("throttled")

    monkeypatch.setattr(task_ends, "_last_lines", fails)
    run = prefect.add(*RUNNING)
    _stopped(run, restarts=1, **KILLED)

    assert prefect.names(run)[-2:] == ["Crashed", "AwaitingRestart"]
    assert "it was killed" in prefect.logs[0]["message"]
    assert "throttled" in prefect.logs[1]["message"]


def test_long_lines_fit_into_one_log_entry(prefect: FakePrefect, lines: list[str]) -> None:
    lines[:] = ["x" * 100_000 for _ in range(task_ends.LAST_LINES)]
    _stopped(prefect.add(*RUNNING), **KILLED)

    assert len(prefect.logs[1]["message"]) < 25_000


def test_observer_calls_ours_in_place_of_upstreams(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(
        upstream.ecs_observer.event_handlers, "task", list(upstream.ecs_observer.event_handlers["task"])
    )
    task_ends.observe()

    handlers = [each.handler for each in upstream.ecs_observer.event_handlers["task"]]
    assert upstream.mark_runs_as_crashed not in handlers
    assert handlers.count(task_ends.on_stopped) == 1
    assert upstream.deregister_task_definition in handlers
