import asyncio
import datetime
import uuid

import pytest

from agent import remains, task_log
from environments.run_terms import LEASE
from unit_tests.agent.prefect_fake import NOW, FakePrefect

PLACE = ("dev_workflows", "sales/workflow/1")
RUNNING = ("SCHEDULED", "PENDING", "RUNNING")


@pytest.fixture
def prefect() -> FakePrefect:
    return FakePrefect()


@pytest.fixture
def lines(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What the task wrote."""
    written: list[str] = []

    async def lines_with(place: task_log.Place, words: str) -> list[str]:
        assert (place, words) == (PLACE, LEASE)
        return [line for line in written if words in line]

    monkeypatch.setattr(task_log, "lines_with", lines_with)
    return written


def test_each_lease_that_the_task_took_is_released_once(prefect: FakePrefect, lines: list[str]) -> None:
    leases = [uuid.UUID(int=number) for number in (1, 2)]
    lines += [f"{LEASE} {leases[0]}", "other", f"12:00 | {LEASE} {leases[1]} |", f"{LEASE} {leases[0]}"]

    assert asyncio.run(remains.release_slots(prefect, PLACE)) == 2
    assert prefect.released == leases


@pytest.mark.parametrize("line", [LEASE, f"{LEASE} none", f"{LEASE} 1234", f"{LEASE} {'g' * 36}"])
def test_line_without_the_id_of_a_lease_releases_nothing(prefect: FakePrefect, lines: list[str], line: str) -> None:
    lines.append(line)

    assert asyncio.run(remains.release_slots(prefect, PLACE)) == 0
    assert prefect.released == []


def test_task_runs_that_look_alive_are_crashed_and_others_are_left_alone(prefect: FakePrefect) -> None:
    run, other = prefect.add(*RUNNING, "CRASHED"), prefect.add(*RUNNING)
    alive = [prefect.add_task_run(run, state) for state in ("RUNNING", "PENDING", "CANCELLING")]
    ended = {state: prefect.add_task_run(run, state) for state in ("COMPLETED", "FAILED", "SCHEDULED")}
    of_other = prefect.add_task_run(other, "RUNNING")

    assert asyncio.run(remains.end_children(prefect, run, NOW)) == 3
    assert [prefect.state_of_task_run(each).type.value for each in alive] == ["CRASHED"] * 3
    assert {prefect.state_of_task_run(each).message for each in alive} == {"The ECS task that it ran in died."}
    assert {state: prefect.state_of_task_run(each).type.value for state, each in ended.items()} == {
        state: state for state in ended
    }
    assert prefect.state_of_task_run(of_other).is_running()


def test_all_pages_of_task_runs_are_seen_to(prefect: FakePrefect) -> None:
    run = prefect.add(*RUNNING, "CRASHED")
    alive = [prefect.add_task_run(run, "RUNNING") for _ in range(450)]

    assert asyncio.run(remains.end_children(prefect, run, NOW)) == 450
    assert all(prefect.state_of_task_run(each).is_crashed() for each in alive)


def test_subflows_of_the_process_are_crashed_with_their_own_children(prefect: FakePrefect) -> None:
    run = prefect.add(*RUNNING, "CRASHED")
    calls = [prefect.add_task_run(run, "RUNNING") for _ in range(2)]
    subflow = prefect.add("PENDING", "RUNNING", parent_task_run_id=calls[0], deployment_id=None)
    inner_call = prefect.add_task_run(subflow, "RUNNING")
    inner = prefect.add("PENDING", "RUNNING", parent_task_run_id=inner_call, deployment_id=None)

    assert asyncio.run(remains.end_children(prefect, run, NOW)) == 5
    assert prefect.last(subflow).is_crashed()
    assert prefect.last(inner).is_crashed()
    assert prefect.state_of_task_run(inner_call).is_crashed()


@pytest.mark.parametrize("state", ["COMPLETED", "FAILED", "SCHEDULED"])
def test_subflow_that_is_not_at_work_is_left_alone(prefect: FakePrefect, state: str) -> None:
    run = prefect.add(*RUNNING, "CRASHED")
    call = prefect.add_task_run(run, "RUNNING")
    subflow = prefect.add("PENDING", state, parent_task_run_id=call, deployment_id=None)

    assert asyncio.run(remains.end_children(prefect, run, NOW)) == 1
    assert prefect.last(subflow).type.value == state


def test_run_of_another_deployment_has_a_task_of_its_own_and_goes_on(prefect: FakePrefect) -> None:
    run = prefect.add(*RUNNING, "CRASHED")
    call = prefect.add_task_run(run, "RUNNING")
    child = prefect.add(*RUNNING, parent_task_run_id=call)

    assert asyncio.run(remains.end_children(prefect, run, NOW)) == 1
    assert prefect.last(child).is_running()


@pytest.mark.parametrize(("seconds", "ended"), [(-1, True), (0, True), (1, False)])
def test_children_that_began_after_the_death_are_left_alone(prefect: FakePrefect, seconds: int, ended: bool) -> None:
    run = prefect.add(*RUNNING, "CRASHED")
    created = NOW + datetime.timedelta(seconds=seconds)
    call = prefect.add_task_run(run, "RUNNING", created)
    subflow = prefect.add("PENDING", "RUNNING", parent_task_run_id=call, deployment_id=None)
    inner_call = prefect.add_task_run(subflow, "RUNNING", created)

    assert asyncio.run(remains.end_children(prefect, run, NOW)) == (3 if ended else 0)
    states = [prefect.state_of_task_run(call), prefect.last(subflow), prefect.state_of_task_run(inner_call)]
    assert [state.is_crashed() for state in states] == [ended] * 3


def test_late_child_of_a_subflow_that_died_is_left_alone(prefect: FakePrefect) -> None:
    run = prefect.add(*RUNNING, "CRASHED")
    call = prefect.add_task_run(run, "RUNNING")
    subflow = prefect.add("PENDING", "RUNNING", parent_task_run_id=call, deployment_id=None)
    late = prefect.add_task_run(subflow, "RUNNING", NOW + datetime.timedelta(seconds=1))

    assert asyncio.run(remains.end_children(prefect, run, NOW)) == 2
    assert prefect.state_of_task_run(late).is_running()


def test_child_of_which_prefect_does_not_say_when_it_began_is_crashed(prefect: FakePrefect) -> None:
    run = prefect.add(*RUNNING, "CRASHED")
    call = prefect.add_task_run(run, "RUNNING", None)

    assert asyncio.run(remains.end_children(prefect, run, NOW)) == 1
    assert prefect.state_of_task_run(call).is_crashed()
