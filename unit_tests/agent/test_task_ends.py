import asyncio
import datetime
import logging
import uuid
from typing import Any

import pytest
from prefect.client.schemas.objects import FlowRunPolicy, StateDetails

from agent import causes, remains, task_ends, task_log
from agent.capacity import ON_DEMAND, SPOT, Capacity
from unit_tests.agent.prefect_fake import NOW, FakePrefect, states_of

ARN = "arn:aws:ecs:eu-west-1:123456789012:task/workflows/1"
PLACE = ("dev_workflows", "sales/workflow/1")
EXITED = {"stopCode": "EssentialContainerExited", "stoppedReason": "Essential container in task exited"}
SPOT_GONE = {"stopCode": "SpotInterruption", "stoppedReason": "Your Spot Task was interrupted."}
NO_ROOM = {"stopCode": "TaskFailedToStart", "stoppedReason": "Capacity is unavailable at this time."}
RUNNING = ("SCHEDULED", "PENDING", "RUNNING")
IN_PROCESS = FlowRunPolicy(retries=2, retry_type="in_process")


def _exited(code: int, reason: str = "") -> dict[str, Any]:
    return {**EXITED, "containers": [{"name": "workflow", "exitCode": code, **({"reason": reason} if reason else {})}]}


KILLED = _exited(137)
OUT_OF_MEMORY = _exited(137, "OutOfMemoryError: Container killed due to memory usage")
BY_HAND = {**_exited(143), "stopCode": "UserInitiated", "stoppedReason": "Task stopped by user"}
BAD_IMAGE = {"stopCode": "TaskFailedToStart", "stoppedReason": "CannotPullContainerError: not found"}


def _described(task: dict[str, Any]) -> dict[str, Any]:
    return {"taskArn": ARN, "lastStatus": "STOPPED", "memory": "512", "capacityProviderName": SPOT, **task}


def _tags(run: uuid.UUID, restarts: int | None = 0, attempt: int | None = 0) -> dict[str, str]:
    tags = {"prefect.io/flow-run-id": str(run)}
    tags |= {} if restarts is None else {"restarts": str(restarts)}
    return tags | ({} if attempt is None else {"attempt": f"{run}-{attempt}"})


@pytest.fixture
def prefect() -> FakePrefect:
    return FakePrefect()


@pytest.fixture
def capacity() -> Capacity:
    return Capacity()


@pytest.fixture(autouse=True)
def lines(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What the task wrote."""
    written = ["first line", "last line"]

    async def place_of(task: dict[str, Any]) -> task_log.Place:
        assert task["taskArn"] == ARN
        return PLACE

    async def last_lines(place: task_log.Place, count: int) -> list[str]:
        assert place == PLACE
        return written[-count:]

    monkeypatch.setattr(task_log, "place_of", place_of)
    monkeypatch.setattr(task_log, "last_lines", last_lines)
    return written


@pytest.fixture(autouse=True)
def tidied(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What was seen to after the end of a task, with the last state that its run had then."""
    done: list[Any] = []

    async def release_slots(prefect: FakePrefect, place: task_log.Place) -> int:
        done.append(("slots", place, *(states[-1].name for states in prefect.states.values())))
        return 1

    async def end_children(prefect: FakePrefect, run: uuid.UUID, until: datetime.datetime) -> int:
        assert datetime.timedelta(0) <= datetime.datetime.now(datetime.UTC) - until < datetime.timedelta(seconds=30)
        done.append(("children", run, prefect.last(run).name))
        return 1

    monkeypatch.setattr(remains, "release_slots", release_slots)
    monkeypatch.setattr(remains, "end_children", end_children)
    return done


@pytest.fixture
def stop(prefect: FakePrefect, capacity: Capacity) -> Any:
    """A function that has the task of a run stop."""

    def stopped(run: uuid.UUID, task: dict[str, Any], restarts: int | None = 0, attempt: int | None = 0) -> None:
        asyncio.run(task_ends.settle(prefect, _described(task), _tags(run, restarts, attempt), capacity))

    return stopped


@pytest.mark.parametrize(
    "states",
    [RUNNING, RUNNING[:2], ("SCHEDULED", "PENDING", "PENDING:Submitting")],
    ids=["running", "pending", "submitting"],
)
def test_run_whose_task_died_is_crashed_with_reason_and_last_lines(
    prefect: FakePrefect, stop: Any, tidied: list[Any], states: tuple[str, ...]
) -> None:
    run = prefect.add(*states)
    stop(run, KILLED)

    assert prefect.last(run).is_crashed()
    assert prefect.last(run).message == (
        "The task of this run died: it was killed (Essential container in task exited; exit code 137). "
        "To do: if nobody killed it, give it more memory: job variable memory."
    )
    assert [(log["level"], log["flow_run_id"], log["message"]) for log in prefect.logs] == [
        (logging.ERROR, str(run), prefect.last(run).message),
        (logging.INFO, str(run), "The last lines that its task wrote:\nfirst line\nlast line"),
    ]
    assert prefect.logs[0]["timestamp"] < prefect.logs[1]["timestamp"]
    assert tidied == [("slots", PLACE, "Crashed"), ("children", run, "Crashed")]


@pytest.mark.parametrize(
    ("task", "words"),
    [
        (KILLED, "it was killed"),
        (OUT_OF_MEMORY, "it needed more memory than the 512 MiB it had"),
        (SPOT_GONE, "AWS took its Spot capacity back"),
        ({**_exited(143), **SPOT_GONE}, "AWS took its Spot capacity back"),
        (_exited(139), "it crashed in native code"),
        (_exited(143), "it was asked to stop"),
        ({"stopCode": "Unlisted"}, "ECS no longer lists it, and no stop event was received"),
    ],
    ids=["killed", "memory", "spot", "spot-143", "native", "asked-to-stop", "unlisted"],
)
@pytest.mark.parametrize("states", [RUNNING, (*RUNNING, "CRASHED")], ids=["killed", "reported"])
def test_run_whose_task_died_is_restarted(
    prefect: FakePrefect, stop: Any, task: dict[str, Any], words: str, states: tuple[str, ...]
) -> None:
    run = prefect.add(*states)
    stop(run, task, restarts=1)

    assert prefect.names(run) == ["Scheduled", "Pending", "Running", "Crashed", "AwaitingRestart"]
    assert prefect.last(run).message == f"Restart 1 of 1: {words}."


@pytest.mark.parametrize("code", [0, 1, 3, 130], ids=["exit-0", "error", "sys.exit-3", "KeyboardInterrupt"])
def test_flow_that_ended_its_own_process_is_not_restarted_and_its_log_says_so(
    prefect: FakePrefect, stop: Any, code: int
) -> None:
    run = prefect.add(*RUNNING, "CRASHED")
    stop(run, _exited(code), restarts=3)

    assert prefect.names(run)[-1] == "Crashed"
    assert prefect.logs[0]["message"].startswith("The task of this run died: the flow ended its own process ")
    assert (prefect.logs[-1]["level"], prefect.logs[-1]["message"]) == (
        logging.ERROR,
        "Not started again: the flow ended its own process (Essential container in task exited; "
        f"exit code {code}); restarts are for tasks that die.",
    )


@pytest.mark.parametrize(
    ("code", "restarted"), [(0, False), (1, True), (3, True)], ids=["os._exit-0", "error", "os._exit-3"]
)
def test_process_that_ended_without_a_word_is_restarted_unless_it_said_that_all_was_well(
    prefect: FakePrefect, stop: Any, code: int, restarted: bool
) -> None:
    run = prefect.add(*RUNNING)
    stop(run, _exited(code), restarts=3)

    assert prefect.names(run)[3:] == ["Crashed", *(["AwaitingRestart"] if restarted else [])]


def test_crash_that_the_agent_reported_itself_is_not_taken_for_the_flows_own(prefect: FakePrefect, stop: Any) -> None:
    run = prefect.add(*RUNNING, "CRASHED")
    prefect.states[run][-1].message = f"{causes.DIED}: it ended"
    stop(run, _exited(1), restarts=1)

    assert prefect.names(run)[-1] == "AwaitingRestart"


@pytest.mark.parametrize("task", [BY_HAND, BAD_IMAGE], ids=["by-hand", "bad-image"])
def test_run_that_would_end_the_same_way_is_not_restarted(
    prefect: FakePrefect, stop: Any, task: dict[str, Any]
) -> None:
    run = prefect.add(*RUNNING)
    stop(run, task, restarts=2)

    assert prefect.last(run).is_crashed()
    assert prefect.logs[-1]["message"] == "Not started again: it would end the same way."


def test_run_without_restarts_is_crashed_and_its_log_says_no_more(prefect: FakePrefect, stop: Any) -> None:
    run = prefect.add(*RUNNING)
    stop(run, KILLED)

    assert prefect.names(run)[-1] == "Crashed"
    assert len(prefect.logs) == 2


def test_restarts_are_counted_until_they_are_used_up(prefect: FakePrefect, stop: Any) -> None:
    run = prefect.add("SCHEDULED")
    for attempt in (0, 2, 4):
        for state in ("PENDING", "RUNNING"):
            prefect.states[run] += _next(prefect, run, state)
        stop(run, KILLED, restarts=2, attempt=attempt)

    died = ["Pending", "Running", "Crashed"]
    assert prefect.names(run) == ["Scheduled", *died, "AwaitingRestart", *died, "AwaitingRestart", *died]
    messages = [state.message for state in prefect.states[run] if state.name == "AwaitingRestart"]
    assert messages == ["Restart 1 of 2: it was killed.", "Restart 2 of 2: it was killed."]
    assert prefect.logs[-1]["message"] == "Not started again: that was restart 2 of 2."


def _next(prefect: FakePrefect, run: uuid.UUID, kind: str) -> list[Any]:
    """A state that a run gets without the agent, a moment after its last one."""
    moment = prefect.last(run).timestamp + datetime.timedelta(milliseconds=1)
    return [state.model_copy(update={"timestamp": moment}) for state in states_of(kind)]


@pytest.mark.parametrize(
    ("end", "properties"),
    [
        ("COMPLETED", {}),
        ("FAILED", {}),
        ("CANCELLED", {}),
        ("SCHEDULED", {}),
        ("SCHEDULED:AwaitingRetry", {"empirical_policy": FlowRunPolicy(retry_type="reschedule")}),
        ("SCHEDULED:AwaitingRestart", {}),
        ("SCHEDULED:AwaitingCapacity", {}),
    ],
)
def test_run_that_ended_or_needs_no_task_is_left_alone(
    prefect: FakePrefect, stop: Any, tidied: list[Any], end: str, properties: dict[str, Any]
) -> None:
    run = prefect.add(*RUNNING, end, **properties)
    stop(run, KILLED, restarts=3)

    assert len(prefect.names(run)) == 4
    assert (prefect.logs, tidied) == ([], [])


def test_suspended_run_is_left_alone(prefect: FakePrefect, stop: Any, tidied: list[Any]) -> None:
    run = prefect.add(*RUNNING, "PAUSED:Suspended")
    prefect.last(run).state_details = StateDetails(pause_reschedule=True)
    stop(run, _exited(0), restarts=3)

    assert prefect.names(run)[-1] == "Suspended"
    assert (prefect.logs, tidied) == ([], [])


@pytest.mark.parametrize("state", ["SCHEDULED:AwaitingRetry", "PAUSED:Paused"])
def test_run_that_waits_in_its_task_is_restarted_when_the_task_dies(
    prefect: FakePrefect, stop: Any, tidied: list[Any], state: str
) -> None:
    run = prefect.add(*RUNNING, state, empirical_policy=IN_PROCESS)
    prefect.last(run).state_details = StateDetails(pause_reschedule=False)
    stop(run, KILLED, restarts=1)

    assert prefect.names(run)[4:] == ["Crashed", "AwaitingRestart"]
    assert [what for what, *_ in tidied] == ["slots", "children"]


def test_run_that_was_being_cancelled_is_cancelled_and_tidied_up_after(
    prefect: FakePrefect, stop: Any, tidied: list[Any]
) -> None:
    run = prefect.add(*RUNNING, "CANCELLING")
    stop(run, BY_HAND, restarts=3)

    assert prefect.names(run)[-1] == "Cancelled"
    assert prefect.last(run).message == "Its task has stopped."
    assert tidied == [("slots", PLACE, "Cancelled"), ("children", run, "Cancelled")]
    assert prefect.logs == []


def test_run_whose_task_found_no_room_waits_for_it_in_its_place_and_uses_up_no_restart(
    prefect: FakePrefect, stop: Any, capacity: Capacity, tidied: list[Any]
) -> None:
    run = prefect.add(*RUNNING[:2], expected_start_time=NOW)
    stop(run, NO_ROOM)
    last = prefect.last(run)

    assert (last.name, last.is_scheduled()) == ("AwaitingCapacity", True)
    assert str(last.message).startswith("The run waits for capacity of FARGATE_SPOT since ")
    assert str(last.message).endswith(": Capacity is unavailable at this time. It is started when AWS has room.")
    assert last.state_details.scheduled_time == NOW
    assert capacity.choose(SPOT, uuid.uuid4()) is None
    assert capacity.choose(ON_DEMAND, uuid.uuid4()) == ON_DEMAND
    assert (prefect.logs, tidied) == ([], [])


def test_task_without_a_provider_counts_for_on_demand(prefect: FakePrefect, stop: Any, capacity: Capacity) -> None:
    stop(prefect.add(*RUNNING[:2]), {**NO_ROOM, "capacityProviderName": None})

    assert capacity.choose(ON_DEMAND, uuid.uuid4()) is None


def test_two_agents_let_a_run_wait_once(prefect: FakePrefect, stop: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    run = prefect.add(*RUNNING[:2])
    _see_as_before(prefect, run, monkeypatch)
    stop(run, NO_ROOM)
    stop(run, NO_ROOM)

    assert prefect.names(run) == ["Scheduled", "Pending", "AwaitingCapacity"]


def test_deleted_run_is_no_error(prefect: FakePrefect, stop: Any, tidied: list[Any]) -> None:
    stop(uuid.uuid4(), KILLED, restarts=1)

    assert (prefect.logs, tidied) == ([], [])


def test_late_event_of_an_earlier_attempt_changes_nothing(prefect: FakePrefect, stop: Any, tidied: list[Any]) -> None:
    run = prefect.add(*RUNNING, "CRASHED", "SCHEDULED", "PENDING", "RUNNING")
    stop(run, KILLED, attempt=0)
    assert prefect.last(run).is_running()
    assert tidied == []

    stop(run, KILLED, attempt=2)
    assert prefect.last(run).is_crashed()


@pytest.mark.parametrize(
    ("known", "ended"),
    [(f"cluster::{ARN}", True), (f"cluster::{ARN}2", False), (f"cluster::{ARN[:-1]}2", False), ("", False)],
    ids=["the-same", "longer", "another", "none"],
)
def test_task_without_the_tag_of_its_attempt_counts_if_the_run_knows_of_it(
    prefect: FakePrefect, stop: Any, tidied: list[Any], known: str, ended: bool
) -> None:
    run = prefect.add(*RUNNING, infrastructure_pid=known or None)
    stop(run, KILLED, attempt=None)

    assert prefect.last(run).is_crashed() is ended
    assert bool(tidied) is ended


def test_late_event_of_a_task_that_ecs_has_forgotten_does_not_end_the_next_attempt(
    prefect: FakePrefect, stop: Any, tidied: list[Any]
) -> None:
    run = prefect.add(*RUNNING, "CRASHED", "SCHEDULED:AwaitingRestart", "PENDING", infrastructure_pid=f"cluster::{ARN}")
    stop(run, KILLED, attempt=None)

    assert prefect.last(run).is_pending()
    assert tidied == []


@pytest.mark.parametrize(("known", "ended"), [(None, True), (f"cluster::{ARN}", False)], ids=["none", "meanwhile"])
def test_unlisted_task_that_nobody_knows_is_of_a_run_that_still_knows_none(
    prefect: FakePrefect, stop: Any, known: str | None, ended: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def no_place(_: Any) -> None:
        return None

    monkeypatch.setattr(task_log, "place_of", no_place)
    run = prefect.add(*RUNNING, infrastructure_pid=known)
    stop(run, {"stopCode": "Unlisted", "taskArn": ""}, restarts=None, attempt=None)

    assert prefect.last(run).is_crashed() is ended


@pytest.mark.parametrize(
    ("of_tag", "of_run", "of_deployment", "message"),
    [
        (None, {}, {"restarts": 2}, "Restart 1 of 2: it was killed."),
        (None, {"restarts": 1}, {"restarts": 2}, "Restart 1 of 1: it was killed."),
        (3, {"restarts": 1}, {"restarts": 2}, "Restart 1 of 3: it was killed."),
        (0, {"restarts": 1}, {"restarts": 2}, ""),
        (None, {}, {}, ""),
    ],
    ids=["of-deployment", "of-run", "of-tag", "tag-says-none", "none"],
)
def test_restarts_are_those_of_the_tag_or_else_of_the_job_variables(
    prefect: FakePrefect,
    stop: Any,
    of_tag: int | None,
    of_run: dict[str, Any],
    of_deployment: dict[str, Any],
    message: str,
) -> None:
    run = prefect.add(*RUNNING, deployment_id=prefect.deploy(**of_deployment), job_variables=of_run)
    stop(run, KILLED, restarts=of_tag)

    assert prefect.names(run)[3:] == ["Crashed", *(["AwaitingRestart"] if message else [])]
    assert not message or prefect.last(run).message == message


def test_run_whose_deployment_was_deleted_is_not_restarted(prefect: FakePrefect, stop: Any) -> None:
    run = prefect.add(*RUNNING, deployment_id=uuid.uuid4())
    stop(run, KILLED, restarts=None)

    assert prefect.names(run)[3:] == ["Crashed"]


@pytest.mark.parametrize("meanwhile", ["COMPLETED", "CANCELLED", "SCHEDULED", "PENDING", "RUNNING"])
def test_run_that_is_not_crashed_when_its_restart_is_due_is_not_restarted(
    prefect: FakePrefect, stop: Any, monkeypatch: pytest.MonkeyPatch, meanwhile: str
) -> None:
    run = prefect.add(*RUNNING)

    async def moves_on(*_: Any) -> int:
        prefect.states[run] += _next(prefect, run, meanwhile)
        return 0

    monkeypatch.setattr(remains, "end_children", moves_on)
    stop(run, KILLED, restarts=3)

    assert prefect.names(run)[3:] == ["Crashed", meanwhile.title()]


@pytest.mark.parametrize("meanwhile", ["CRASHED", "SCHEDULED", "COMPLETED"])
def test_run_that_moves_on_while_the_lines_of_its_task_are_read_is_left_alone(
    prefect: FakePrefect, stop: Any, tidied: list[Any], monkeypatch: pytest.MonkeyPatch, meanwhile: str
) -> None:
    run = prefect.add(*RUNNING)

    async def last_lines(*_: Any) -> list[str]:
        prefect.states[run] += _next(prefect, run, meanwhile)
        return []

    monkeypatch.setattr(task_log, "last_lines", last_lines)
    stop(run, KILLED, restarts=3)

    assert prefect.names(run)[3:] == [meanwhile.title()]
    assert (prefect.logs, prefect.proposed, tidied) == ([], [], [])


@pytest.fixture
def busy(prefect: FakePrefect, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let others go on at each request to Prefect."""
    for name in ("read_flow_run", "read_flow_run_states", "create_logs", "request"):
        _yield_before(prefect, name, monkeypatch)


def _yield_before(prefect: FakePrefect, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    original = getattr(prefect, name)

    async def slow(*args: Any, **kwargs: Any) -> Any:
        await asyncio.sleep(0)
        return await original(*args, **kwargs)

    monkeypatch.setattr(prefect, name, slow)


@pytest.mark.parametrize("tagged", [True, False], ids=["tagged", "untagged"])
@pytest.mark.parametrize("states", [RUNNING, (*RUNNING, "CRASHED")], ids=["killed", "reported"])
@pytest.mark.usefixtures("busy")
def test_two_at_a_time_restart_a_run_once_and_leave_its_next_attempt_alone(
    prefect: FakePrefect,
    capacity: Capacity,
    tidied: list[Any],
    monkeypatch: pytest.MonkeyPatch,
    states: tuple[str, ...],
    tagged: bool,
) -> None:
    run = prefect.add(*states, infrastructure_pid=f"cluster::{ARN}")
    request = prefect.request

    async def started_at_once(*args: Any, **asked: Any) -> Any:
        answer = await request(*args, **asked)
        if prefect.last(run).name == "AwaitingRestart":
            for state in ("PENDING", "RUNNING"):
                prefect.states[run] += _next(prefect, run, state)
            await prefect.update_flow_run(run, infrastructure_pid=f"cluster::{ARN}2")
        return answer

    async def both() -> None:
        tags = _tags(run, 3, 0 if tagged else None)
        await asyncio.gather(*(task_ends.settle(prefect, _described(KILLED), tags, capacity) for _ in range(2)))

    monkeypatch.setattr(prefect, "request", started_at_once)
    asyncio.run(both())

    assert prefect.names(run)[3:] == ["Crashed", "AwaitingRestart", "Pending", "Running"]
    assert [what for what, *_ in tidied] == ["slots", "children"]
    assert len(prefect.logs) == 2


@pytest.mark.usefixtures("busy")
def test_runs_are_settled_side_by_side(
    prefect: FakePrefect, capacity: Capacity, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs = [prefect.add(*RUNNING) for _ in range(2)]
    both_here = asyncio.Barrier(2)

    async def last_lines(*_: Any) -> list[str]:
        await asyncio.wait_for(both_here.wait(), 5)
        return []

    async def both() -> None:
        await asyncio.gather(*(task_ends.settle(prefect, _described(KILLED), _tags(run), capacity) for run in runs))

    monkeypatch.setattr(task_log, "last_lines", last_lines)
    asyncio.run(both())

    assert [len(prefect.logs), *(prefect.names(run)[-1] for run in runs)] == [2, "Crashed", "Crashed"]


def _see_as_before(prefect: FakePrefect, run: uuid.UUID, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let each agent read the run as it is now, whatever happens to it."""
    before, states = asyncio.run(prefect.read_flow_run(run)), list(prefect.states[run])

    async def read_flow_run(_: uuid.UUID) -> Any:
        return before

    async def read_flow_run_states(_: uuid.UUID) -> Any:
        return states

    monkeypatch.setattr(prefect, "read_flow_run", read_flow_run)
    monkeypatch.setattr(prefect, "read_flow_run_states", read_flow_run_states)


def test_two_agents_restart_a_run_once(prefect: FakePrefect, stop: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    run = prefect.add(*RUNNING, "CRASHED")
    _see_as_before(prefect, run, monkeypatch)
    stop(run, SPOT_GONE, restarts=3)
    stop(run, SPOT_GONE, restarts=3)

    assert prefect.names(run).count("AwaitingRestart") == 1


def test_slots_and_task_runs_are_seen_to_before_the_run_is_restarted(
    prefect: FakePrefect, stop: Any, tidied: list[Any]
) -> None:
    run = prefect.add(*RUNNING)
    stop(run, KILLED, restarts=1)

    assert [state for *_, state in tidied] == ["Crashed", "Crashed"]
    assert prefect.names(run)[-1] == "AwaitingRestart"


async def _fails(*_: Any) -> Any:
    raise ConnectionError("throttled")


async def _hangs(*_: Any) -> Any:
    await asyncio.sleep(60)


@pytest.mark.parametrize("how", [_fails, _hangs], ids=["fails", "hangs"])
@pytest.mark.parametrize("what", [(remains, "release_slots"), (remains, "end_children"), (task_log, "place_of")])
def test_what_can_not_be_seen_to_does_not_keep_a_run_from_being_restarted(
    prefect: FakePrefect, stop: Any, tidied: list[Any], monkeypatch: pytest.MonkeyPatch, what: tuple[Any, str], how: Any
) -> None:
    monkeypatch.setattr(task_ends, "READ_WITHIN_SECONDS", 0.05)
    monkeypatch.setattr(*what, how)
    run = prefect.add(*RUNNING)
    stop(run, KILLED, restarts=1)

    assert prefect.names(run)[-2:] == ["Crashed", "AwaitingRestart"]
    assert [each for each, *_ in tidied] == {
        "release_slots": ["children"],
        "end_children": ["slots"],
        "place_of": ["children"],
    }[what[1]]


@pytest.mark.parametrize(
    ("how", "words"),
    [(_fails, "(can't be read: ConnectionError: throttled)"), (_hangs, "(can't be read: TimeoutError: )")],
)
def test_lines_that_can_not_be_read_don_t_keep_a_run_from_being_restarted(
    prefect: FakePrefect, stop: Any, monkeypatch: pytest.MonkeyPatch, how: Any, words: str
) -> None:
    monkeypatch.setattr(task_ends, "READ_WITHIN_SECONDS", 0.05)
    monkeypatch.setattr(task_log, "last_lines", how)
    run = prefect.add(*RUNNING)
    stop(run, KILLED, restarts=1)

    assert prefect.names(run)[-2:] == ["Crashed", "AwaitingRestart"]
    assert prefect.logs[1]["message"] == f"The last lines that its task wrote:\n{words}"


def test_long_lines_fit_into_one_log_entry(prefect: FakePrefect, stop: Any, lines: list[str]) -> None:
    lines[:] = ["x" * 100_000 for _ in range(50)]
    stop(prefect.add(*RUNNING), KILLED)

    assert len(prefect.logs[1]["message"]) < 25_000
    assert prefect.logs[1]["message"].count("\n") == 20


def test_task_that_wrote_nothing_has_no_last_lines(prefect: FakePrefect, stop: Any, lines: list[str]) -> None:
    lines.clear()
    stop(prefect.add(*RUNNING), KILLED)

    assert len(prefect.logs) == 1


def _needs(state: str, details: dict[str, Any] | None = None, **properties: Any) -> bool:
    prefect = FakePrefect()
    run = prefect.add(state, **properties)
    prefect.last(run).state_details = StateDetails(**(details or {}))
    return task_ends.needs_a_task(asyncio.run(prefect.read_flow_run(run)))


def test_states_in_which_a_run_needs_a_task() -> None:
    assert [_needs(state) for state in ("PENDING", "RUNNING", "CANCELLING", "CRASHED")] == [True] * 4
    assert [_needs(state) for state in ("SCHEDULED", "COMPLETED", "FAILED", "CANCELLED")] == [False] * 4
    assert _needs("SCHEDULED:AwaitingRetry", empirical_policy=IN_PROCESS)
    assert not _needs("SCHEDULED:AwaitingRetry", empirical_policy=FlowRunPolicy(retry_type="reschedule"))
    assert _needs("PAUSED", {"pause_reschedule": False})
    assert not _needs("PAUSED:Suspended", {"pause_reschedule": True})
