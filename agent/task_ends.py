"""What the agent does when ECS says that the task of a run has stopped and the run has not ended.

The run becomes CRASHED with the reason, and the last lines that the task wrote go to the run's log. A run whose
deployment has the job variable `restarts` is then scheduled again, that many times at most, unless its own code ended
the task. A task that AWS had no room for never ran: its run waits, whatever `restarts` says. A run that has failed, was
cancelled or is suspended is left alone.
"""

import asyncio
import contextlib
import datetime
import logging
import uuid
import weakref
from collections.abc import Mapping
from typing import Any

from prefect.client.orchestration import PrefectClient
from prefect.client.schemas.objects import FlowRun, State
from prefect.exceptions import ObjectNotFound
from prefect.states import Cancelled, Crashed, Scheduled

from agent import attempts, causes, prefect_states, remains, task_log
from agent.capacity import ON_DEMAND, Capacity
from environments.run_terms import ATTEMPT_TAG, AWAITING_RESTART, NOT_RESTARTED, RESTARTS_TAG, RUN_TAG

LAST_LINES = 20
LINE_LENGTH = 1000
"""Prefect Cloud takes 25,000 characters in one log entry."""
READ_WITHIN_SECONDS = 20
"""Of the 30 s within which a death is to be seen."""

logger = logging.getLogger("prefect.agent.task_ends")
_locks: weakref.WeakValueDictionary[uuid.UUID, asyncio.Lock] = weakref.WeakValueDictionary()


async def settle(client: PrefectClient, task: Mapping[str, Any], tags: Mapping[str, str], capacity: Capacity) -> None:
    """See to the run of a stopped task, if it has not ended itself.

    The event of a task and the look at it can meet here: the second one waits, and finds the run as the first left it.

    Args:
        client: of Prefect.
        task: as ECS describes it.
        tags: of the task; without those of the agent, which are gone when ECS no longer lists it, only the task that
            the run knows of counts.
        capacity: where the agent notes which capacity providers refuse.
    """
    run_id = uuid.UUID(tags[RUN_TAG])
    async with _locks.setdefault(run_id, asyncio.Lock()):
        await _settle(client, run_id, task, tags, capacity)


async def _settle(
    client: PrefectClient, run_id: uuid.UUID, task: Mapping[str, Any], tags: Mapping[str, str], capacity: Capacity
) -> None:
    try:
        run = await client.read_flow_run(run_id)
    except ObjectNotFound:
        return
    if run.state is None or not needs_a_task(run):
        return
    began = datetime.datetime.now(datetime.UTC)
    states = await client.read_flow_run_states(run_id)
    # An event can come late, when the run is at its next attempt already.
    if ATTEMPT_TAG in tags:
        current = tags[ATTEMPT_TAG] == attempts.name(run_id, states)
    else:
        known = (run.infrastructure_pid or "").rpartition("::")[2] == task["taskArn"]
        # A run that starts again does not know its new task yet.
        current = known and not (run.state.is_pending() and attempts.number(states))
    if not current:
        return
    cause = causes.cause_of(task)
    logger.info("the task of run %s stopped: %s", run_id, causes.message(task))
    if cause.waits and run.state.is_pending():
        await _wait(client, run, task, capacity)
        return
    place = await _place(task)
    if run.state.is_cancelling():
        await prefect_states.propose(client, run_id, Cancelled(message="Its task has stopped."))
        await _tidy_up(client, run_id, place, began)
        return
    # Whoever crashed the run before: the agent itself uses these words.
    reported = run.state.is_crashed() and not str(run.state.message).startswith(causes.DIED)
    itself = causes.ended_itself(task, reported)
    message = causes.message(task, itself)
    lines = await _last_lines(place)
    if not await _is_still(client, run):
        return
    await _explain(client, run_id, message, lines)
    if not run.state.is_crashed():
        await prefect_states.propose(client, run_id, Crashed(message=message))
    await _tidy_up(client, run_id, place, began)
    allowed = int(tags[RESTARTS_TAG]) if tags.get(RESTARTS_TAG) else await allowed_restarts(client, run)
    await _restart(client, run_id, states, task, allowed, itself)


async def _is_still(client: PrefectClient, run: FlowRun) -> bool:
    """Whether a run is still in the state that it was read in; meanwhile another agent may have seen to it."""
    now = await client.read_flow_run(run.id)
    return bool(run.state and now.state and now.state.id == run.state.id)


async def allowed_restarts(client: PrefectClient, run: FlowRun) -> int:
    """How often a run may be restarted, by its job variables: the task, which has a tag that says so, is gone."""
    of_deployment: dict[str, Any] = {}
    if run.deployment_id:
        with contextlib.suppress(ObjectNotFound):  # it was deleted
            of_deployment = (await client.read_deployment(run.deployment_id)).job_variables or {}
    return int({**of_deployment, **(run.job_variables or {})}.get("restarts") or 0)


def needs_a_task(run: FlowRun) -> bool:
    """Whether a run is in a state that it can not leave without a task, or was left crashed by its task."""
    state = run.state
    if state is None:
        return False
    # A flow waits in its task for its next retry, and while it is paused; nobody else would go on with it.
    retries = state.is_scheduled() and run.empirical_policy.retry_type == "in_process"
    pauses = state.is_paused() and not state.state_details.pause_reschedule
    at_work = state.is_pending() or state.is_running() or state.is_cancelling() or state.is_crashed()
    return retries or pauses or at_work


async def _wait(client: PrefectClient, run: FlowRun, task: Mapping[str, Any], capacity: Capacity) -> None:
    """Let a run wait whose task could not be started for want of capacity."""
    provider = str(task.get("capacityProviderName") or ON_DEMAND)
    capacity.refuse(provider, run.id, causes.facts(task))
    message = f"The run {capacity.explain(provider)}. It is started when AWS has room."
    await prefect_states.propose(client, run.id, prefect_states.awaiting_capacity(run, message), task["taskArn"])


async def _restart(
    client: PrefectClient,
    run_id: uuid.UUID,
    states: list[State[Any]],
    task: Mapping[str, Any],
    allowed: int,
    itself: bool,
) -> None:
    """Schedule a run again whose task died, if it is to be restarted."""
    restarts, cause = attempts.restarts(states), causes.cause_of(task)
    if not allowed:
        return
    why = ""
    if itself:
        why = f"the flow ended its own process ({causes.facts(task)}); restarts are for tasks that die"
    elif not cause.again:
        why = "it would end the same way"
    elif restarts >= allowed:
        why = f"that was restart {restarts} of {allowed}"
    if why:
        await _log(client, run_id, [(logging.ERROR, f"{NOT_RESTARTED}: {why}.")])
        return
    if not ((now := await client.read_flow_run(run_id)).state and now.state.is_crashed()):
        return  # another agent was quicker
    again: State[Any] = Scheduled(name=AWAITING_RESTART, message=f"Restart {restarts + 1} of {allowed}: {cause.words}.")
    await prefect_states.propose(client, run_id, again, once=f"restart {restarts + 1}")


async def _place(task: Mapping[str, Any]) -> task_log.Place | None:
    """Where the task wrote its log; None when that can not be found out. The run must go on all the same."""
    try:
        return await asyncio.wait_for(task_log.place_of(task), READ_WITHIN_SECONDS)
    except Exception as error:
        logger.warning("the log of task %s can not be found: %s", task.get("taskArn"), error)
        return None


async def _tidy_up(
    client: PrefectClient, run_id: uuid.UUID, place: task_log.Place | None, began: datetime.datetime
) -> None:
    """Release what the dead task holds at Prefect. What fails here Prefect does itself, minutes later."""
    for what, action in (
        ("concurrency slots", remains.release_slots(client, place) if place else None),
        ("task runs", remains.end_children(client, run_id, began)),
    ):
        try:
            if action and (count := await asyncio.wait_for(action, READ_WITHIN_SECONDS)):
                logger.info("run %s: %s of its dead task seen to: %s", run_id, what, count)
        except Exception as error:
            logger.warning("run %s: %s of its dead task not seen to: %s", run_id, what, error)


async def _last_lines(place: task_log.Place | None) -> list[str]:
    """The last lines that a task wrote, or why they can't be read: the run must go on all the same."""
    try:
        return await asyncio.wait_for(task_log.last_lines(place, LAST_LINES), READ_WITHIN_SECONDS) if place else []
    except Exception as error:
        return [f"(can't be read: {type(error).__name__}: {error})"]


async def _explain(client: PrefectClient, run_id: uuid.UUID, message: str, lines: list[str]) -> None:
    """Put the reason and the last lines that the task wrote into the run's log."""
    entries = [(logging.ERROR, message)]
    if lines:
        shown = "\n".join(line.rstrip()[:LINE_LENGTH] for line in lines)
        entries.append((logging.INFO, f"The last lines that its task wrote:\n{shown}"))
    await _log(client, run_id, entries)


async def _log(client: PrefectClient, run_id: uuid.UUID, entries: list[tuple[int, str]]) -> None:
    now = datetime.datetime.now(datetime.UTC)
    logs = [
        {
            "name": "prefect.flow_runs.agent",
            "level": level,
            "message": text,
            "timestamp": (now + datetime.timedelta(microseconds=place)).isoformat(),
            "flow_run_id": str(run_id),
        }
        for place, (level, text) in enumerate(entries)
    ]
    await client.create_logs(logs)
