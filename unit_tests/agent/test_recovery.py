import asyncio
import datetime
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import Any

import pytest

from agent import aws, recovery, task_ends
from unit_tests.agent.prefect_fake import NOW, TEMPLATE, FakePrefect, states_of

CLUSTER = TEMPLATE["job_configuration"]["cluster"]
STRANDED = ("SCHEDULED", "PENDING:Submitting")
RUNNING = ("SCHEDULED", "PENDING", "RUNNING")


class FakeEcs:
    """Plays ECS for ListTasks and DescribeTasks."""

    def __init__(self) -> None:
        self.tasks: dict[str, dict[str, Any]] = {}
        self.requests: list[tuple[str, Any]] = []

    def start(self, attempt: str, status: str = "RUNNING", seconds_ago: float = 60) -> str:
        """A task of an attempt; gives what the worker writes into the run."""
        arn = f"arn:aws:ecs:eu-west-1:123456789012:task/workflows/{len(self.tasks)}"
        self.tasks[arn] = {
            "taskArn": arn,
            "startedBy": attempt.rpartition("-")[0],
            "lastStatus": status,
            "stoppedAt": NOW - datetime.timedelta(seconds=seconds_ago),
            "tags": [{"key": "attempt", "value": attempt}],
        }
        return f"{CLUSTER}::{arn}"

    async def list_tasks(self, cluster: str, startedBy: str, desiredStatus: str) -> dict[str, Any]:
        self.requests.append(("ListTasks", startedBy))
        of_it = [task for task in self.tasks.values() if task["startedBy"] == startedBy]
        return {"taskArns": [task["taskArn"] for task in of_it if task["lastStatus"] == desiredStatus]}

    async def describe_tasks(self, cluster: str, tasks: list[str], include: list[str]) -> dict[str, Any]:
        assert (cluster, include) == (CLUSTER, ["TAGS"])
        assert 0 < len(tasks) <= 100
        self.requests.append(("DescribeTasks", tasks))
        return {"tasks": [self.tasks[arn] for arn in tasks if arn in self.tasks]}


@pytest.fixture
def ecs() -> FakeEcs:
    return FakeEcs()


@pytest.fixture
def settled(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, str]]:
    """Tags of the tasks that were handed to what an event is handed to."""
    handed: list[dict[str, str]] = []

    async def settle(_: Any, task: dict[str, Any], tags: dict[str, str]) -> None:
        assert tags["attempt"].startswith(task["startedBy"])
        handed.append(tags)

    monkeypatch.setattr(task_ends, "settle", settle)
    return handed


@pytest.fixture
def prefect(monkeypatch: pytest.MonkeyPatch, ecs: FakeEcs, settled: list[dict[str, str]]) -> FakePrefect:
    """A Prefect, and a minute since anything happened there."""
    fake = FakePrefect()

    @asynccontextmanager
    async def client(service: str) -> AsyncIterator[FakeEcs]:
        assert service == "ecs"
        yield ecs

    monkeypatch.setattr(recovery, "get_client", lambda: fake)
    monkeypatch.setattr(aws, "client", client)
    monkeypatch.setattr(recovery, "_ago", lambda seconds: NOW + datetime.timedelta(seconds=60 - seconds))
    return fake


def _look(thorough: bool = False, starting: frozenset[uuid.UUID] = frozenset()) -> None:
    asyncio.run(recovery.look(recovery.Agent("dev_dataflow_automation", "me", 10, lambda: starting), thorough))


def test_run_that_is_pending_without_a_task_is_scheduled_again(prefect: FakePrefect) -> None:
    run = prefect.add(*STRANDED)
    _look()

    assert prefect.names(run) == ["Scheduled", "Submitting", "Rescheduled"]
    assert "No ECS task was started" in str(prefect.states[run][-1].message)
    assert prefect.asked == ["dev_dataflow_automation"]


def test_run_that_is_being_started_is_left_to_whoever_starts_it(
    prefect: FakePrefect, monkeypatch: pytest.MonkeyPatch
) -> None:
    mine = prefect.add(*STRANDED, labels={"prefect.worker.name": "me"})
    others = prefect.add(*STRANDED, labels={"prefect.worker.name": "lives"})
    orphan = prefect.add(*STRANDED, labels={"prefect.worker.name": "dead"})
    beat = {"lives": 60 - 29, "dead": 60 - 31, "me": 60}
    prefect.workers = [
        SimpleNamespace(name=name, last_heartbeat_time=NOW + datetime.timedelta(seconds=seconds))
        for name, seconds in beat.items()
    ]
    _look(starting=frozenset({mine}))

    assert [prefect.names(run)[-1] for run in (mine, others, orphan)] == ["Submitting", "Submitting", "Rescheduled"]


def test_run_of_this_agent_that_it_lost_touch_with_is_scheduled_again(prefect: FakePrefect) -> None:
    run = prefect.add(*STRANDED, labels={"prefect.worker.name": "me"})
    prefect.workers = [SimpleNamespace(name="me", last_heartbeat_time=NOW + datetime.timedelta(seconds=60))]
    _look()

    assert prefect.names(run)[-1] == "Rescheduled"


def test_run_that_has_just_become_pending_is_left_alone(prefect: FakePrefect, monkeypatch: pytest.MonkeyPatch) -> None:
    run = prefect.add(*STRANDED)
    monkeypatch.setattr(recovery, "_ago", lambda seconds: NOW + datetime.timedelta(seconds=19 - seconds))
    _look()

    assert prefect.names(run)[-1] == "Submitting"


def test_two_agents_schedule_a_stranded_run_once(prefect: FakePrefect) -> None:
    run = prefect.add(*STRANDED)
    before = asyncio.run(prefect.read_flow_run(run))
    _look()
    asyncio.run(_propose_again(prefect, before))

    assert prefect.names(run) == ["Scheduled", "Submitting", "Rescheduled"]


async def _propose_again(prefect: FakePrefect, stranded: Any) -> None:
    """What an agent does that has read the run before the other one changed it."""
    state = recovery._scheduled_again(stranded.state.id)
    await prefect.set_flow_run_state(stranded.id, state)


@pytest.mark.parametrize("change", ["state", "task"])
def test_run_that_moves_on_while_it_is_looked_at_is_left_alone(
    prefect: FakePrefect, ecs: FakeEcs, monkeypatch: pytest.MonkeyPatch, change: str
) -> None:
    run = prefect.add(*STRANDED)
    list_tasks = ecs.list_tasks

    async def moves_on(**asked: Any) -> Any:
        if change == "task":
            await prefect.update_flow_run(run, infrastructure_pid=f"{CLUSTER}::new")
        elif len(prefect.states[run]) == 2:
            prefect.states[run] += states_of("RUNNING")
        return await list_tasks(**asked)

    monkeypatch.setattr(ecs, "list_tasks", moves_on)
    _look()

    assert "Rescheduled" not in prefect.names(run)


@pytest.mark.parametrize("states", [STRANDED, RUNNING], ids=["pending", "running"])
def test_task_that_its_run_does_not_know_of_is_told_to_it(
    prefect: FakePrefect, ecs: FakeEcs, states: tuple[str, ...]
) -> None:
    run = prefect.add(*states)
    known = ecs.start(f"{run}-0")
    _look(thorough=True)

    assert prefect.runs[run].infrastructure_pid == known
    assert len(prefect.names(run)) == len(states)


@pytest.mark.parametrize("known", [True, False])
@pytest.mark.parametrize("states", [STRANDED, RUNNING], ids=["pending", "running"])
def test_stopped_task_whose_event_was_lost_is_seen_to(
    prefect: FakePrefect, ecs: FakeEcs, settled: list[dict[str, str]], states: tuple[str, ...], known: bool
) -> None:
    run = prefect.add(*states)
    task = ecs.start(f"{run}-0", "STOPPED", seconds_ago=0)
    if known:
        prefect.runs[run].infrastructure_pid = task
    _look(thorough=True)

    assert [tags["attempt"] for tags in settled] == [f"{run}-0"]
    assert len(prefect.names(run)) == len(states)


def test_event_of_a_task_that_has_just_stopped_is_waited_for(
    prefect: FakePrefect, ecs: FakeEcs, settled: list[dict[str, str]]
) -> None:
    run = prefect.add(*RUNNING)
    prefect.runs[run].infrastructure_pid = ecs.start(f"{run}-0", "STOPPED", seconds_ago=-45)
    _look(thorough=True)

    assert settled == []


def test_restarted_run_that_is_stranded_does_not_end_with_the_task_before(
    prefect: FakePrefect, ecs: FakeEcs, settled: list[dict[str, str]]
) -> None:
    run = prefect.add(*RUNNING, "CRASHED", "SCHEDULED:AwaitingRestart", "PENDING")
    prefect.runs[run].infrastructure_pid = ecs.start(f"{run}-0", "STOPPED")
    _look(thorough=True)

    assert settled == []
    assert prefect.names(run)[-1] == "Rescheduled"


def test_run_whose_task_is_forgotten_is_crashed(prefect: FakePrefect) -> None:
    run = prefect.add(*RUNNING)
    prefect.runs[run].infrastructure_pid = f"{CLUSTER}::arn:aws:ecs:eu-west-1:123456789012:task/workflows/old"
    _look(thorough=True)

    assert prefect.states[run][-1].is_crashed()


def test_run_that_somebody_runs_by_hand_is_left_alone(prefect: FakePrefect) -> None:
    run = prefect.add(*RUNNING)
    _look(thorough=True)

    assert prefect.states[run][-1].is_running()


def test_little_is_asked_of_ecs(prefect: FakePrefect, ecs: FakeEcs) -> None:
    for _ in range(250):
        run = prefect.add(*RUNNING)
        prefect.runs[run].infrastructure_pid = ecs.start(f"{run}-0")
    _look()
    assert ecs.requests == []

    _look(thorough=True)
    assert [len(asked) for name, asked in ecs.requests if name == "DescribeTasks"] == [100, 100, 50]
    assert len(ecs.requests) == 3


def test_looking_goes_on_after_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    looks: list[bool] = []

    async def fails(_: recovery.Agent, thorough: bool) -> None:
        looks.append(thorough)
        if len(looks) == 7:
            raise asyncio.CancelledError
        raise ConnectionError("Prefect is away")

    async def at_once(_: float) -> None:
        pass

    monkeypatch.setattr(recovery, "look", fails)
    monkeypatch.setattr(recovery.asyncio, "sleep", at_once)
    with pytest.raises(asyncio.CancelledError):
        asyncio.run(recovery.keep_looking(recovery.Agent("dev", "me", 10, frozenset)))

    assert looks == [True, *[False] * 5, True]
