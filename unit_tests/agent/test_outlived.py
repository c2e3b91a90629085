import asyncio
import datetime
import uuid
from typing import Any

import pytest
from prefect.client.schemas.objects import FlowRun, State, StateDetails, StateType

from agent import outlived
from agent.tasks import Tasks
from unit_tests.agent.ecs_fake import CLUSTER, FakeEcs
from unit_tests.agent.prefect_fake import NOW, FakePrefect

RUNNING = ("SCHEDULED", "PENDING", "RUNNING")
AGAIN = (*RUNNING, "FAILED", "SCHEDULED", "PENDING")


@pytest.fixture
def ecs() -> FakeEcs:
    return FakeEcs()


@pytest.fixture
def prefect() -> FakePrefect:
    return FakePrefect()


def _ended(kind: StateType, seconds_ago: float, by_client: bool, name: str = "") -> FlowRun:
    details = StateDetails(transition_id=uuid.uuid4() if by_client else None)
    moment = NOW - datetime.timedelta(seconds=seconds_ago)
    state = State[Any](type=kind, name=name or kind.value.title(), timestamp=moment, state_details=details)
    return FlowRun(flow_id=uuid.uuid4(), state=state)


def test_task_of_a_deleted_run_should_not_run() -> None:
    assert outlived.ended_without(None, NOW) == "its run was deleted"


@pytest.mark.parametrize("kind", [StateType.COMPLETED, StateType.FAILED, StateType.CRASHED, StateType.CANCELLED])
@pytest.mark.parametrize(("by_client", "seconds"), [(False, 20), (True, 300)], ids=["from-outside", "by-client"])
def test_task_of_a_run_that_ended_has_some_time_left(kind: StateType, by_client: bool, seconds: int) -> None:
    assert outlived.ended_without(_ended(kind, seconds, by_client), NOW) == ""
    assert outlived.ended_without(_ended(kind, seconds + 1, by_client), NOW) == (
        f"its run is {kind.value.title()} since {NOW - datetime.timedelta(seconds=seconds + 1):%H:%M:%S} UTC"
    )


def test_name_of_the_state_is_told() -> None:
    assert "its run is TimedOut since " in outlived.ended_without(_ended(StateType.FAILED, 60, False, "TimedOut"), NOW)


@pytest.mark.parametrize(
    "kind", [StateType.RUNNING, StateType.PENDING, StateType.SCHEDULED, StateType.PAUSED, StateType.CANCELLING]
)
def test_task_of_a_run_at_work_goes_on_however_long_it_takes(kind: StateType) -> None:
    assert outlived.ended_without(_ended(kind, 1_000_000, False), NOW) == ""


def test_task_of_a_run_without_a_state_goes_on() -> None:
    assert outlived.ended_without(FlowRun(flow_id=uuid.uuid4()), NOW) == ""


def _stop_all(prefect: FakePrefect, ecs: FakeEcs) -> None:
    asyncio.run(outlived.stop_all(prefect, Tasks(ecs, CLUSTER)))


def test_only_tasks_that_outlived_their_run_are_stopped(prefect: FakePrefect, ecs: FakeEcs) -> None:
    failed, at_work, deleted, starting = (
        prefect.add(*states) for states in ((*RUNNING, "FAILED"), RUNNING, RUNNING, RUNNING[:2])
    )
    prefect.delete(deleted)
    arns = {run: ecs.start(f"{run}-0") for run in (failed, at_work, deleted, starting)}
    foreign = ecs.start(f"{uuid.uuid4()}-0", **{"prefect.io/flow-run-id": ""})
    _stop_all(prefect, ecs)

    assert ecs.stopped == [arns[failed], arns[deleted]]
    assert foreign not in ecs.stopped
    assert [reason.partition(" since")[0] for reason in ecs.reasons] == [
        "Stopped by the agent: its run is Failed",
        "Stopped by the agent: its run was deleted",
    ]


OURS, THEIRS = "http://127.0.0.1:4200/api", "http://127.0.0.1:4201/api"


def test_tasks_of_another_prefect_api_are_left_alone(
    prefect: FakePrefect, ecs: FakeEcs, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PREFECT_API_URL", OURS)
    deleted, failed = prefect.add(*RUNNING), prefect.add(*RUNNING, "FAILED")
    prefect.delete(deleted)
    ours = [ecs.start_for(OURS, f"{run}-0") for run in (deleted, failed)]
    for run in (uuid.uuid4(), failed):
        ecs.start_for(THEIRS, f"{run}-0")
    of_definition = ecs.start(f"{uuid.uuid4()}-0")  # its variables are in its task definition
    _stop_all(prefect, ecs)

    assert ecs.stopped == [*ours, of_definition]


def test_task_of_another_prefect_api_does_not_make_one_of_ours_the_earlier_one(
    prefect: FakePrefect, ecs: FakeEcs, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PREFECT_API_URL", OURS)
    run = prefect.add(*AGAIN, "RUNNING")
    ecs.start_for(OURS, f"{run}-0")
    ecs.start_for(THEIRS, f"{run}-2")
    _stop_all(prefect, ecs)

    assert ecs.stopped == []


def test_task_that_was_told_to_stop_is_not_told_again(prefect: FakePrefect, ecs: FakeEcs) -> None:
    ecs.start(f"{prefect.add(*RUNNING, 'FAILED')}-0")
    _stop_all(prefect, ecs)
    _stop_all(prefect, ecs)

    assert len(ecs.stopped) == 1


def test_of_two_tasks_of_a_run_the_one_of_the_earlier_attempt_is_stopped(prefect: FakePrefect, ecs: FakeEcs) -> None:
    run = prefect.add(*AGAIN, "RUNNING")
    first, second = ecs.start(f"{run}-0"), ecs.start(f"{run}-2")
    _stop_all(prefect, ecs)

    assert ecs.stopped == [first]
    assert ecs.reasons == ["Stopped by the agent: its run is at a later attempt"]
    assert ecs.tasks[second]["desiredStatus"] == "RUNNING"


def test_only_task_of_a_run_at_work_goes_on_whatever_its_attempt(prefect: FakePrefect, ecs: FakeEcs) -> None:
    ecs.start(f"{prefect.add(*AGAIN, 'RUNNING')}-0")
    _stop_all(prefect, ecs)

    assert ecs.stopped == []


def test_runs_of_many_tasks_are_asked_for_200_at_a_time(prefect: FakePrefect, ecs: FakeEcs) -> None:
    runs = [prefect.add(*RUNNING) for _ in range(250)]
    for run in runs:
        ecs.start(f"{run}-0")
    prefect.delete(runs[240])
    _stop_all(prefect, ecs)

    assert [ecs.tasks[arn]["startedBy"] for arn in ecs.stopped] == [str(runs[240])]


@pytest.fixture
def paused(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Pauses, which take no time; the clock goes on by them."""
    pauses: list[float] = []

    async def pause(seconds: float) -> None:
        pauses.append(seconds)

    monkeypatch.setattr(outlived.asyncio, "sleep", pause)
    monkeypatch.setattr(outlived.time, "monotonic", lambda: sum(pauses))
    return pauses


def _stop_earlier(ecs: FakeEcs, run: uuid.UUID, attempt: int) -> bool:
    return asyncio.run(outlived.stop_earlier(Tasks(ecs, CLUSTER), run, f"{run}-{attempt}"))


@pytest.mark.parametrize("end", ["DEPROVISIONING", "STOPPED"])
def test_task_of_an_earlier_attempt_is_stopped_and_waited_for(
    ecs: FakeEcs, paused: list[float], monkeypatch: pytest.MonkeyPatch, end: str
) -> None:
    run = uuid.uuid4()
    arn, listed = ecs.start(f"{run}-0"), ecs.list_tasks

    async def list_tasks(**asked: Any) -> Any:
        if len(paused) == 5:
            ecs.tasks[arn]["lastStatus"] = end
        elif len(paused) == 2:
            ecs.tasks[arn]["lastStatus"] = "STOPPING"
        return await listed(**asked)

    monkeypatch.setattr(ecs, "list_tasks", list_tasks)

    assert _stop_earlier(ecs, run, 2)
    assert ecs.stopped == [arn]
    assert ecs.reasons == ["Stopped by the agent: its run starts again"]
    assert paused == [2.0] * 5


@pytest.mark.parametrize("end", ["DEPROVISIONING", "STOPPED"])
def test_task_of_an_earlier_attempt_that_has_ended_is_not_waited_for(
    ecs: FakeEcs, paused: list[float], end: str
) -> None:
    run = uuid.uuid4()
    ecs.start(f"{run}-0", end)

    assert not _stop_earlier(ecs, run, 2)
    assert (ecs.stopped, paused) == ([], [])


def test_task_that_is_stopping_already_is_only_waited_for(
    ecs: FakeEcs, paused: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    run = uuid.uuid4()
    arn, listed = ecs.start(f"{run}-0", "STOPPING"), ecs.list_tasks

    async def list_tasks(**asked: Any) -> Any:
        ecs.tasks[arn]["lastStatus"] = "STOPPED" if paused else "STOPPING"
        return await listed(**asked)

    monkeypatch.setattr(ecs, "list_tasks", list_tasks)

    assert _stop_earlier(ecs, run, 2)
    assert (ecs.stopped, paused) == ([], [2.0])


def test_task_of_the_attempt_itself_and_those_of_other_runs_go_on(ecs: FakeEcs, paused: list[float]) -> None:
    run = uuid.uuid4()
    ecs.start(f"{run}-2")
    ecs.start(f"{uuid.uuid4()}-0")

    assert not _stop_earlier(ecs, run, 2)
    assert (ecs.stopped, paused) == ([], [])


def test_task_that_does_not_end_is_given_up_after_three_minutes(ecs: FakeEcs, paused: list[float]) -> None:
    run = uuid.uuid4()
    arn = ecs.start(f"{run}-0")
    with pytest.raises(TimeoutError, match=f"{arn} did not stop within 180 s"):
        _stop_earlier(ecs, run, 2)

    assert ecs.stopped == [arn]
    assert 180 <= sum(paused) <= 184
