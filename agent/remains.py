"""What a task that died leaves at Prefect: slots of concurrency limits that it holds, and runs that look alive.

Prefect takes a slot back when its lease expires, after five minutes. The run's container writes the id of each lease to
its log (run_workflow.py), so that the agent can release it at once. The task runs of a dead run, and the subflows that
ran in its process, have nobody else to end them.
"""

import datetime
import itertools
import re
import uuid
from collections.abc import Sequence
from typing import Any

from prefect.client.orchestration import PrefectClient
from prefect.client.schemas import filters as f
from prefect.client.schemas.objects import StateType
from prefect.states import Crashed

from agent import prefect_states, task_log
from environments.run_terms import LEASE

LEASE_ID = re.compile(rf"{LEASE} ([0-9a-f]{{8}}(?:-[0-9a-f]{{4}}){{3}}-[0-9a-f]{{12}})")
ALIVE = [StateType.RUNNING, StateType.PENDING, StateType.CANCELLING]
PAGE = 200


async def release_slots(client: PrefectClient, place: task_log.Place) -> int:
    """Release the slots that a dead task holds; return how many leases it had taken.

    Args:
        client: of Prefect.
        place: of the task's log.
    """
    leases = dict.fromkeys(LEASE_ID.findall("\n".join(await task_log.lines_with(place, LEASE))))
    for lease in leases:
        # One that the task released itself, or that has expired, is none to Prefect.
        await client.release_concurrency_slots_with_lease(uuid.UUID(lease))
    return len(leases)


async def end_children(client: PrefectClient, run_id: uuid.UUID, until: datetime.datetime) -> int:
    """Mark the task runs and subflows of a dead run that are not at an end as CRASHED; return how many that were.

    Args:
        client: of Prefect.
        run_id: the dead run's.
        until: those that began later belong to its next attempt.
    """
    ended = 0
    alive = [each for each in await _task_runs(client, run_id) if each.created is None or each.created <= until]
    for subflow in await _subflows(client, [each.id for each in alive]):
        ended += await end_children(client, subflow.id, until)
        ended += await prefect_states.propose(client, subflow.id, _died())
    for task_run in alive:
        await client.set_task_run_state(task_run.id, _died(), force=True)
    return ended + len(alive)


def _died() -> Any:
    return Crashed(message="The ECS task that it ran in died.")


async def _task_runs(client: PrefectClient, run_id: uuid.UUID) -> list[Any]:
    found: list[Any] = []
    for offset in itertools.count(0, PAGE):
        page = await client.read_task_runs(
            flow_run_filter=f.FlowRunFilter(id=f.FlowRunFilterId(any_=[run_id])),
            task_run_filter=f.TaskRunFilter(state=f.TaskRunFilterState(type=f.TaskRunFilterStateType(any_=ALIVE))),
            limit=PAGE,
            offset=offset,
        )
        found += page
        if len(page) < PAGE:
            break
    return found


async def _subflows(client: PrefectClient, parents: Sequence[uuid.UUID]) -> list[Any]:
    """Return the flow runs that some task runs stand for and that ran in the same process; others have their own."""
    found: list[Any] = []
    for start in range(0, len(parents), PAGE):
        found += await client.read_flow_runs(
            flow_run_filter=f.FlowRunFilter(
                parent_task_run_id=f.FlowRunFilterParentTaskRunId(any_=list(parents[start : start + PAGE])),
                state=f.FlowRunFilterState(type=f.FlowRunFilterStateType(any_=ALIVE)),
            ),
            limit=PAGE,
        )
    return [run for run in found if run.deployment_id is None]
