import asyncio
import datetime
import logging
import uuid
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
from prefect.client.schemas.objects import FlowRunPolicy, StateDetails

from agent import outlived, recovery, remains, task_ends, task_log, unused_definitions
from agent.capacity import Capacity
from unit_tests.agent import ecs_fake
from unit_tests.agent.ecs_fake import CLUSTER, FakeEcs
from unit_tests.agent.prefect_fake import NOW, TEMPLATE, FakePrefect, states_of

PROJECT = "dev_dataflow_automation"
STRANDED = ("SCHEDULED", "PENDING:Submitting")
RUNNING = ("SCHEDULED", "PENDING", "RUNNING")
GONE = f"{CLUSTER}::arn:aws:ecs:eu-west-1:123456789012:task/workflows/gone"
WAITING_INSIDE = {
    "retry": (*RUNNING, "SCHEDULED:AwaitingRetry"),
    "pause": (*RUNNING, "PAUSED:Paused"),
    "cancelling": (*RUNNING, "CANCELLING"),
}


@pytest.fixture
def ecs() -> FakeEcs:
    return FakeEcs()


@pytest.fixture
def settled(monkeypatch: pytest.MonkeyPatch) -> list[tuple[dict[str, Any], dict[str, str]]]:
    """Tasks and tags that were handed to what an event is handed to, which then does nothing."""
    handed: list[tuple[dict[str, Any], dict[str, str]]] = []

    async def settle(_: Any, task: dict[str, Any], tags: dict[str, str], __: Capacity) -> None:
        handed.append((task, tags))

    monkeypatch.setattr(task_ends, "settle", settle)
    return handed


@pytest.fixture
def prefect(monkeypatch: pytest.MonkeyPatch, ecs: FakeEcs) -> FakePrefect:
    """A Prefect, and a minute since anything happened there."""
    fake = FakePrefect()

    async def nothing(*_: Any) -> Any:
        return 0

    async def no_place(_: Any) -> None:
        return None

    ecs_fake.install(monkeypatch, ecs=ecs)
    monkeypatch.setattr(recovery, "get_client", lambda: fake)
    monkeypatch.setattr(recovery, "_ago", lambda seconds: NOW + datetime.timedelta(seconds=60 - seconds))
    monkeypatch.setattr(remains, "end_children", nothing)
    monkeypatch.setattr(task_log, "place_of", no_place)
    return fake


def _agent(starting: Callable[[], Any] = frozenset, waiting: Callable[[], dict[str, int]] = dict) -> recovery.Agent:
    return recovery.Agent(PROJECT, "me", 10, starting, Capacity(), waiting)


def _look(thorough: bool = False, starting: frozenset[uuid.UUID] = frozenset()) -> None:
    asyncio.run(recovery.look(_agent(lambda: starting), thorough))


def test_run_that_is_pending_without_a_task_is_scheduled_again(prefect: FakePrefect) -> None:
    run = prefect.add(*STRANDED)
    _look()

    assert prefect.names(run) == ["Scheduled", "Submitting", "Rescheduled"]
    assert "No ECS task was started" in str(prefect.states[run][-1].message)
    assert prefect.asked == [PROJECT]


def test_run_that_is_being_started_is_left_to_whoever_starts_it(
    prefect: FakePrefect, monkeypatch: pytest.MonkeyPatch
) -> None:
    mine = prefect.add(*STRANDED, labels={"prefect.worker.name": "me"})
    others = prefect.add(*STRANDED, labels={"prefect.worker.name": "lives"})
    orphan = prefect.add(*STRANDED, labels={"prefect.worker.name": "dead"})
    lost = prefect.add(*STRANDED, labels={"prefect.worker.name": "me"})
    beat = {"lives": 60 - 29, "dead": 60 - 31, "me": 60}
    prefect.workers = [
        SimpleNamespace(name=name, last_heartbeat_time=NOW + datetime.timedelta(seconds=seconds))
        for name, seconds in beat.items()
    ]
    _look(starting=frozenset({mine}))

    assert [prefect.names(run)[-1] for run in (mine, others)] == ["Submitting", "Submitting"]
    assert [prefect.names(run)[-1] for run in (orphan, lost)] == ["Rescheduled", "Rescheduled"]


def test_run_of_this_agent_that_it_lost_touch_with_is_scheduled_again(prefect: FakePrefect) -> None:
    run = prefect.add(*STRANDED, labels={"prefect.worker.name": "me"})
    prefect.workers = [SimpleNamespace(name="me", last_heartbeat_time=NOW + datetime.timedelta(seconds=60))]
    _look()

    assert prefect.names(run)[-1] == "Rescheduled"


@pytest.mark.parametrize(("taker", "last"), [("lives", "Submitting"), ("dead", "Rescheduled"), ("me", "Rescheduled")])
def test_run_that_knows_an_old_task_is_left_to_another_agent_that_has_taken_it_and_lives(
    prefect: FakePrefect, settled: list[Any], taker: str, last: str
) -> None:
    states = (*RUNNING, "CRASHED", "SCHEDULED:AwaitingRestart", "PENDING:Submitting")
    run = prefect.add(*states, labels={"prefect.worker.name": taker}, infrastructure_pid=GONE)
    prefect.workers = [SimpleNamespace(name="lives", last_heartbeat_time=NOW + datetime.timedelta(seconds=60))]
    _look(thorough=True)

    assert prefect.names(run)[-1] == last
    assert settled == []


def test_run_that_has_just_become_pending_is_left_alone(prefect: FakePrefect, monkeypatch: pytest.MonkeyPatch) -> None:
    run = prefect.add(*STRANDED)
    monkeypatch.setattr(recovery, "_ago", lambda seconds: NOW + datetime.timedelta(seconds=19 - seconds))
    _look()

    assert prefect.names(run)[-1] == "Submitting"


def test_two_agents_schedule_a_stranded_run_once(prefect: FakePrefect, monkeypatch: pytest.MonkeyPatch) -> None:
    run = prefect.add(*STRANDED)
    before = asyncio.run(prefect.read_flow_run(run))

    async def read_before(_: uuid.UUID) -> Any:
        return before

    async def read_all_before(**_: Any) -> Any:
        return [before]

    monkeypatch.setattr(prefect, "read_flow_run", read_before)
    monkeypatch.setattr(prefect, "read_flow_runs", read_all_before)
    _look()
    _look()

    assert len(prefect.proposed) == 2
    assert prefect.names(run) == ["Scheduled", "Submitting", "Rescheduled"]


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

    assert prefect.runs[run].infrastructure_pid == ecs.identifier(known)
    assert len(prefect.names(run)) == len(states)


Settled = list[tuple[dict[str, Any], dict[str, str]]]


def _wait_inside(prefect: FakePrefect, states: tuple[str, ...], **properties: Any) -> uuid.UUID:
    """Add a run that has a task, and waits in it if its states say so."""
    in_process = FlowRunPolicy(retries=2, retry_type="in_process")
    run = prefect.add(*states, empirical_policy=in_process, **properties)
    prefect.last(run).state_details = StateDetails(pause_reschedule=False)
    return run


@pytest.mark.parametrize("known", [True, False])
@pytest.mark.parametrize(
    "states", [STRANDED, RUNNING, *WAITING_INSIDE.values()], ids=["pending", "running", *WAITING_INSIDE]
)
def test_stopped_task_whose_event_was_lost_is_seen_to(
    prefect: FakePrefect, ecs: FakeEcs, settled: Settled, states: tuple[str, ...], known: bool
) -> None:
    run = _wait_inside(prefect, states)
    arn = ecs.start(f"{run}-0", "STOPPED", seconds_ago=0, restarts="2")
    if known:
        prefect.runs[run].infrastructure_pid = ecs.identifier(arn)
    _look(thorough=True)

    [(task, tags)] = settled
    assert task["taskArn"] == arn
    assert tags == {"prefect.io/flow-run-id": str(run), "attempt": f"{run}-0", "restarts": "2"}
    assert len(prefect.names(run)) == len(states)


@pytest.mark.parametrize("states", [RUNNING, *WAITING_INSIDE.values()], ids=["running", *WAITING_INSIDE])
def test_lost_event_ends_in_what_the_event_would_have_done(
    prefect: FakePrefect, ecs: FakeEcs, states: tuple[str, ...]
) -> None:
    run = _wait_inside(prefect, states)
    arn = ecs.start(f"{run}-0", "STOPPED", restarts="1")
    ecs.tasks[arn] |= {"stopCode": "EssentialContainerExited", "containers": [{"name": "workflow", "exitCode": 137}]}
    _look(thorough=True)

    ends = ["Cancelled"] if states[-1] == "CANCELLING" else ["Crashed", "AwaitingRestart"]
    assert prefect.names(run)[len(states) :] == ends


@pytest.mark.parametrize(
    ("state", "properties", "details"),
    [
        ("SCHEDULED:AwaitingRetry", {"empirical_policy": FlowRunPolicy(retry_type="reschedule")}, {}),
        ("SCHEDULED", {}, {}),
        ("SCHEDULED:AwaitingCapacity", {}, {}),
        ("PAUSED:Suspended", {}, {"pause_reschedule": True}),
        ("COMPLETED", {}, {}),
        ("FAILED", {}, {}),
        ("CRASHED", {}, {}),
    ],
)
def test_run_that_needs_no_task_is_not_looked_at(
    prefect: FakePrefect,
    ecs: FakeEcs,
    settled: Settled,
    state: str,
    properties: dict[str, Any],
    details: dict[str, Any],
) -> None:
    run = prefect.add(*RUNNING, state, **properties)
    prefect.last(run).state_details = StateDetails(**details)
    ecs.start(f"{run}-0", "STOPPED")
    _look(thorough=True)

    assert (settled, ecs.requests) == ([], [])
    assert len(prefect.names(run)) == 4


@pytest.mark.parametrize("status", ["STOPPED", "DEPROVISIONING"])
def test_event_of_a_task_that_has_just_stopped_is_waited_for(
    prefect: FakePrefect, ecs: FakeEcs, settled: Settled, status: str
) -> None:
    run = prefect.add(*RUNNING)
    prefect.runs[run].infrastructure_pid = ecs.identifier(ecs.start(f"{run}-0", status, seconds_ago=-45))
    _look(thorough=True)

    assert settled == []


def test_task_that_runs_is_left_alone(prefect: FakePrefect, ecs: FakeEcs, settled: Settled) -> None:
    run = prefect.add(*RUNNING)
    prefect.runs[run].infrastructure_pid = ecs.identifier(ecs.start(f"{run}-0"))
    _look(thorough=True)

    assert (settled, prefect.names(run)) == ([], ["Scheduled", "Pending", "Running"])


def test_restarted_run_that_is_stranded_does_not_end_with_the_task_before(
    prefect: FakePrefect, ecs: FakeEcs, settled: Settled
) -> None:
    run = prefect.add(*RUNNING, "CRASHED", "SCHEDULED:AwaitingRestart", "PENDING")
    prefect.runs[run].infrastructure_pid = ecs.identifier(ecs.start(f"{run}-0", "STOPPED"))
    _look(thorough=True)

    assert settled == []
    assert prefect.names(run)[-1] == "Rescheduled"


@pytest.mark.parametrize(
    ("of_run", "of_deployment", "restarted"),
    [
        ({}, {}, False),
        ({}, {"restarts": 2}, True),
        ({"restarts": 1}, {}, True),
        ({"restarts": 0}, {"restarts": 2}, False),
        ({"restarts": None}, {"restarts": None}, False),
        ({"cpu": 1024}, {"restarts": "2"}, True),
    ],
)
def test_run_whose_task_ecs_no_longer_lists_is_crashed_and_restarted_as_its_job_variables_say(
    prefect: FakePrefect, of_run: dict[str, Any], of_deployment: dict[str, Any], restarted: bool
) -> None:
    deployment = prefect.deploy(**of_deployment)
    run = prefect.add(*RUNNING, deployment_id=deployment, job_variables=of_run, infrastructure_pid=GONE)
    _look(thorough=True)

    assert prefect.names(run)[3:] == ["Crashed", *(["AwaitingRestart"] if restarted else [])]
    assert prefect.states[run][3].message == (
        "The task of this run died: ECS no longer lists it, and no stop event was received (ECS says no more). "
        "To do: run it again."
    )


def test_run_without_a_deployment_whose_task_is_gone_is_crashed(prefect: FakePrefect) -> None:
    run = prefect.add(*RUNNING, deployment_id=None, infrastructure_pid=GONE)
    _look(thorough=True)

    assert prefect.names(run)[-1] == "Crashed"


@pytest.mark.parametrize("waiting", list(WAITING_INSIDE))
def test_run_that_waited_in_a_task_that_is_gone_goes_on_without_it(prefect: FakePrefect, waiting: str) -> None:
    states = WAITING_INSIDE[waiting]
    run = _wait_inside(prefect, states, deployment_id=prefect.deploy(restarts=1), infrastructure_pid=GONE)
    _look(thorough=True)

    ends = ["Cancelled"] if waiting == "cancelling" else ["Crashed", "AwaitingRestart"]
    assert prefect.names(run)[len(states) :] == ends


def test_pending_run_whose_task_is_gone_is_scheduled_again(prefect: FakePrefect) -> None:
    run = prefect.add(*STRANDED, infrastructure_pid=GONE)
    _look(thorough=True)

    assert prefect.names(run)[-1] == "Rescheduled"


def test_run_that_somebody_runs_by_hand_is_left_alone(prefect: FakePrefect) -> None:
    run = prefect.add(*RUNNING)
    _look(thorough=True)

    assert prefect.last(run).is_running()


@pytest.mark.parametrize(
    ("labels", "ends"), [({"prefect.worker.name": "any"}, ["Crashed"]), ({}, [])], ids=["taken", "by-hand"]
)
def test_running_run_without_a_task_is_crashed_if_an_agent_has_taken_it(
    prefect: FakePrefect, labels: dict[str, str], ends: list[str]
) -> None:
    run = prefect.add(*RUNNING, labels=labels)
    prefect.workers = [SimpleNamespace(name="any", last_heartbeat_time=NOW + datetime.timedelta(seconds=60))]
    _look(thorough=True)

    assert prefect.names(run)[3:] == ends


@pytest.mark.parametrize("known", [None, GONE], ids=["none", "gone"])
@pytest.mark.parametrize("labels", [{}, {"prefect.worker.name": "any"}], ids=["by-hand", "taken"])
def test_run_that_is_being_cancelled_and_has_no_task_is_cancelled(
    prefect: FakePrefect, known: str | None, labels: dict[str, str]
) -> None:
    run = prefect.add(*RUNNING, "CANCELLING", labels=labels, infrastructure_pid=known)
    _look(thorough=True)

    assert prefect.names(run)[4:] == ["Cancelled"]
    assert prefect.last(run).message == "It has no task."


# Runs that their task reported as crashed


KILLED = {"stopCode": "EssentialContainerExited", "containers": [{"name": "workflow", "exitCode": 137}]}


def _crashed(prefect: FakePrefect, ecs: FakeEcs, restarts: int = 1, **task: Any) -> uuid.UUID:
    """Add a run that its task reported as crashed; the task has stopped since."""
    run = prefect.add(*RUNNING, "CRASHED")
    arn = ecs.start(f"{run}-0", "STOPPED", restarts=str(restarts))
    ecs.tasks[arn] |= {**KILLED, **task}
    prefect.runs[run].infrastructure_pid = ecs.identifier(arn)
    return run


def _look_twice() -> None:
    agent = _agent()
    for _ in range(2):
        asyncio.run(recovery.look(agent, True))


def test_crashed_run_whose_event_was_lost_is_settled_once(
    prefect: FakePrefect, ecs: FakeEcs, settled: list[tuple[dict[str, Any], dict[str, str]]]
) -> None:
    run = _crashed(prefect, ecs)
    _look_twice()

    [(task, tags)] = settled
    assert ecs.identifier(task["taskArn"]) == prefect.runs[run].infrastructure_pid
    assert tags == {"prefect.io/flow-run-id": str(run), "attempt": f"{run}-0", "restarts": "1"}


def test_crashed_run_whose_event_was_lost_is_restarted(prefect: FakePrefect, ecs: FakeEcs) -> None:
    run = _crashed(prefect, ecs)
    _look_twice()

    assert prefect.names(run) == ["Scheduled", "Pending", "Running", "Crashed", "AwaitingRestart"]


def test_crashed_run_that_is_not_to_be_restarted_is_told_so_once(prefect: FakePrefect, ecs: FakeEcs) -> None:
    run = _crashed(prefect, ecs, containers=[{"name": "workflow", "exitCode": 3}])
    for _ in range(2):  # two agents, one after the other
        _look_twice()

    assert prefect.names(run)[-1] == "Crashed"
    messages = [log["message"] for log in prefect.logs]
    assert len(messages) == 2
    assert messages[1].startswith("Not started again: the flow ended its own process")


def test_crashed_run_whose_next_crash_has_no_event_either_is_settled_again(
    prefect: FakePrefect, ecs: FakeEcs, settled: list[tuple[dict[str, Any], dict[str, str]]]
) -> None:
    run, agent = _crashed(prefect, ecs), _agent()
    asyncio.run(recovery.look(agent, True))
    prefect.states[run] = states_of(*RUNNING, "CRASHED", "SCHEDULED:AwaitingRestart", "PENDING", "RUNNING", "CRASHED")
    second = ecs.start(f"{run}-2", "STOPPED", restarts="2")
    prefect.runs[run].infrastructure_pid = ecs.identifier(second)
    asyncio.run(recovery.look(agent, True))

    assert [tags["attempt"] for _, tags in settled] == [f"{run}-0", f"{run}-2"]
    assert agent.decided == {prefect.last(run).id}


@pytest.mark.parametrize("decision", ["logged", "none-allowed"])
def test_crashed_run_of_which_is_known_that_it_is_not_restarted_is_left_alone(
    prefect: FakePrefect, ecs: FakeEcs, settled: list[Any], decision: str
) -> None:
    run = _crashed(prefect, ecs, restarts=0 if decision == "none-allowed" else 1)
    other = uuid.uuid4()
    lines = [("Not started again: it would end the same way.", run if decision == "logged" else other), ("more", run)]
    prefect.logs = [{"message": text, "flow_run_id": str(of)} for text, of in lines]
    _look_twice()

    assert settled == []
    assert [name for name, _ in ecs.requests] == ["DescribeTasks"]


def test_log_of_another_run_says_nothing_of_a_crashed_one(
    prefect: FakePrefect, ecs: FakeEcs, settled: list[Any]
) -> None:
    _crashed(prefect, ecs)
    prefect.logs = [{"message": "Not started again: no.", "flow_run_id": str(uuid.uuid4())}]
    _look_twice()

    assert len(settled) == 1


def test_crashed_run_is_settled_when_its_task_has_stopped_for_a_while(
    prefect: FakePrefect, ecs: FakeEcs, settled: list[Any]
) -> None:
    _crashed(prefect, ecs)
    agent, [task] = _agent(), ecs.tasks.values()
    counts = []
    for status, seconds in (("STOPPING", 0), ("DEPROVISIONING", 0), ("STOPPED", 45), ("STOPPED", 0)):
        task |= {"lastStatus": status, "stoppedAt": NOW + datetime.timedelta(seconds=seconds)}
        asyncio.run(recovery.look(agent, True))
        counts.append(len(settled))

    assert counts == [0, 0, 0, 1]


def test_run_that_crashed_more_than_an_hour_ago_is_left_alone(
    prefect: FakePrefect, ecs: FakeEcs, settled: list[Any]
) -> None:
    run = _crashed(prefect, ecs)
    prefect.last(run).timestamp = NOW - datetime.timedelta(seconds=3600 - 60 + 1)
    _look(thorough=True)
    assert settled == []

    prefect.last(run).timestamp = NOW - datetime.timedelta(seconds=3600 - 60 - 1)
    _look(thorough=True)
    assert len(settled) == 1


def test_crashed_runs_are_looked_at_each_minute_only(prefect: FakePrefect, ecs: FakeEcs, settled: list[Any]) -> None:
    _crashed(prefect, ecs)
    _look()

    assert (settled, ecs.requests) == ([], [])


def test_runs_of_all_pages_are_looked_at(prefect: FakePrefect) -> None:
    runs = [prefect.add(*STRANDED) for _ in range(450)]
    _look()

    assert {prefect.names(run)[-1] for run in runs} == {"Rescheduled"}


def test_little_is_asked_of_ecs(prefect: FakePrefect, ecs: FakeEcs) -> None:
    for _ in range(250):
        run = prefect.add(*RUNNING)
        prefect.runs[run].infrastructure_pid = ecs.identifier(ecs.start(f"{run}-0"))
    _look()
    assert ecs.requests == []

    _look(thorough=True)
    assert [len(asked) for name, asked in ecs.requests if name == "DescribeTasks"] == [100, 100, 50]
    assert len(ecs.requests) == 3


def test_tasks_that_outlived_their_run_are_stopped_and_unused_definitions_deregistered(
    prefect: FakePrefect, ecs: FakeEcs
) -> None:
    family = "arn:aws:ecs:eu-west-1:123456789012:task-definition/dev_dataflow_automation_workflow_gone:1"
    ecs.revisions = [family]
    task = ecs.start(f"{uuid.uuid4()}-0")
    asyncio.run(recovery.look_at_tasks(_agent()))

    assert ecs.stopped == [task]
    assert ecs.revisions == []


def test_what_the_template_says_is_where_tasks_and_definitions_are_looked_for(
    prefect: FakePrefect, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Any] = []

    async def stop_all(_: Any, tasks: Any) -> None:
        asked.append(tasks.cluster)

    async def deregister(_: Any, __: Any, project: str, template: Any) -> None:
        asked.append((project, template))

    monkeypatch.setattr(outlived, "stop_all", stop_all)
    monkeypatch.setattr(unused_definitions, "deregister", deregister)
    asyncio.run(recovery.look_at_tasks(_agent()))

    assert asked == [CLUSTER, (PROJECT, TEMPLATE)]


@pytest.fixture
def looks(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What was looked at, until the thirteenth time; each look fails, and no time passes between them."""
    looked: list[str] = []
    pauses: list[float] = []

    async def look(_: recovery.Agent, thorough: bool) -> None:
        looked.append("all" if thorough else "some")
        raise ConnectionError("Prefect is away")

    async def look_at_tasks(_: recovery.Agent) -> None:
        looked.append("tasks")
        raise ConnectionError("AWS is away")

    async def pause(seconds: float) -> None:
        pauses.append(seconds)
        assert 8 <= seconds <= 12
        if len(pauses) == 13:
            raise asyncio.CancelledError

    monkeypatch.setattr(recovery, "look", look)
    monkeypatch.setattr(recovery, "look_at_tasks", look_at_tasks)
    monkeypatch.setattr(recovery.asyncio, "sleep", pause)
    return looked


def _keep_looking(agent: recovery.Agent) -> None:
    with pytest.raises(asyncio.CancelledError):
        asyncio.run(recovery.keep_looking(agent))


def test_looking_goes_on_after_errors(looks: list[str]) -> None:
    _keep_looking(_agent())

    minute = ["all", "tasks", *["some"] * 5]
    assert looks == [*minute, *minute, "all", "tasks"]


def test_log_says_each_minute_how_many_runs_wait_for_capacity(
    looks: list[str], caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recovery.logger, "propagate", False)
    monkeypatch.setattr(recovery.logger, "handlers", [caplog.handler])
    why = "waits for capacity of FARGATE since 2026-01-02 03:04:05 UTC: none"
    with caplog.at_level(logging.WARNING, logger=recovery.logger.name):
        _keep_looking(_agent(waiting=lambda: {why: 3}))

    waits = [record.getMessage() for record in caplog.records if "runs wait" in record.getMessage()]
    assert waits == [f"runs wait for capacity: 3, each {why}"] * looks.count("tasks")
    assert len(waits) == 3
