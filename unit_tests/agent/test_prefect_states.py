import asyncio
import uuid
from typing import Any

import httpx
import pytest
from prefect.client.schemas.objects import FlowRun, StateType
from prefect.states import Crashed, Scheduled

from agent import prefect_states
from unit_tests.agent.prefect_fake import NOW, FakePrefect

RUNNING = ("SCHEDULED", "PENDING", "RUNNING")


def _propose(prefect: Any, run: uuid.UUID, state: Any, once: str = "") -> bool:
    return asyncio.run(prefect_states.propose(prefect, run, state, once))


def test_state_that_prefect_takes_is_the_runs_state() -> None:
    prefect = FakePrefect()
    run = prefect.add(*RUNNING)

    assert _propose(prefect, run, Crashed(message="its task died"))
    assert (prefect.last(run).type, prefect.last(run).message) == (StateType.CRASHED, "its task died")
    [proposed] = prefect.proposed
    assert proposed["force"] is False
    assert proposed["state"]["state_details"]["flow_run_id"] == str(run)


def test_state_that_prefect_refuses_is_no_error() -> None:
    prefect = FakePrefect()
    run = prefect.add(*RUNNING, "COMPLETED")

    assert not _propose(prefect, run, Crashed())
    assert prefect.names(run)[-1] == "Completed"


def test_change_of_one_name_is_made_once_in_a_row() -> None:
    prefect = FakePrefect()
    run, other = prefect.add(*RUNNING), prefect.add(*RUNNING)

    assert [_propose(prefect, run, Scheduled(name="again"), "restart 1") for _ in range(3)] == [True, False, False]
    assert _propose(prefect, other, Scheduled(name="again"), "restart 1")
    assert _propose(prefect, run, Scheduled(name="again"), "restart 2")
    assert prefect.names(run)[3:] == ["again", "again"]


def test_change_without_a_name_is_made_each_time() -> None:
    prefect = FakePrefect()
    run = prefect.add(*RUNNING)

    assert [_propose(prefect, run, Scheduled(name="again")) for _ in range(2)] == [True, True]


def test_deleted_run_is_no_error() -> None:
    assert not _propose(FakePrefect(), uuid.uuid4(), Crashed())


def test_other_answers_are_errors() -> None:
    class Broken:
        async def request(self, *_: Any, **__: Any) -> None:
            request = httpx.Request("POST", "http://127.0.0.1/api")
            raise httpx.HTTPStatusError("503", request=request, response=httpx.Response(503, request=request))

    with pytest.raises(httpx.HTTPStatusError):
        _propose(Broken(), uuid.uuid4(), Crashed())


def test_run_that_waits_for_capacity_keeps_its_place_in_the_queue() -> None:
    run = FlowRun(flow_id=uuid.uuid4(), expected_start_time=NOW)
    state = prefect_states.awaiting_capacity(run, "waits")

    assert (state.type, state.name, state.message) == (StateType.SCHEDULED, "AwaitingCapacity", "waits")
    assert state.state_details.scheduled_time == NOW


def test_rescheduled_run_is_due_at_once() -> None:
    state = prefect_states.rescheduled("again")

    assert (state.type, state.name, state.message) == (StateType.SCHEDULED, "Rescheduled", "again")
    assert state.state_details.scheduled_time
    assert state.state_details.scheduled_time <= state.timestamp
