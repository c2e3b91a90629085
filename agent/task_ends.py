"""What the agent does when ECS says that the task of a run has stopped and the run has not ended.

The run becomes CRASHED with the reason, and the last lines that the task wrote go to the run's log. A run whose
deployment has the job variable `restarts` is then scheduled again, that many times at most. A run that has failed, was
cancelled or waits is left alone.
"""

import asyncio
import datetime
import logging
import uuid
from collections.abc import Mapping
from typing import Any

from prefect.client.orchestration import PrefectClient, get_client
from prefect.client.schemas.objects import FlowRun, State, StateDetails
from prefect.exceptions import Abort, ObjectNotFound
from prefect.states import Cancelled, Crashed, Scheduled
from prefect.utilities.engine import propose_state
from prefect_aws.observers.ecs import FilterCase, ecs_observer, fetch_cloudwatch_logs, mark_runs_as_crashed

from agent import attempts, aws, causes

RUN_TAG = "prefect.io/flow-run-id"
RESTARTS_TAG = "restarts"
NOT_AGAIN = "Not started again"
"""What the log of a run says that was told to survive the death of its task, and does not; then why."""
LAST_LINES = 20
LINE_LENGTH = 1000
"""Prefect Cloud takes 25,000 characters in one log entry."""
READ_WITHIN_SECONDS = 20
"""Of the 30 s in which a death is to be seen."""

logger = logging.getLogger("prefect.agent.task_ends")


def observe() -> None:
    """Let the observer of task events call `on_stopped` in place of what prefect-aws has for that."""
    handlers = ecs_observer.event_handlers["task"]
    handlers[:] = [each for each in handlers if each.handler is not mark_runs_as_crashed]
    ecs_observer.on_event("task", tags={RUN_TAG: FilterCase.PRESENT}, statuses=["STOPPED"])(on_stopped)


async def on_stopped(event: dict[str, Any], tags: dict[str, str]) -> None:
    """Handle the event of a stopped task; tags are those of the task."""
    async with get_client() as client:
        await settle(client, event["detail"], tags)


async def settle(client: PrefectClient, task: Mapping[str, Any], tags: Mapping[str, str]) -> None:
    """See to the run of a stopped task, if it has not ended itself.

    Args:
        client: of Prefect.
        task: as ECS describes it.
        tags: of the task.
    """
    run_id = uuid.UUID(tags[RUN_TAG])
    try:
        run = await client.read_flow_run(run_id)
    except ObjectNotFound:
        return
    if not _had_a_task(run):
        return
    states = await client.read_flow_run_states(run_id)
    # An event can come late, when the run is at its next attempt already.
    if attempts.TAG in tags and tags[attempts.TAG] != attempts.name(run_id, states):
        return
    logger.info("the task of run %s stopped: %s", run_id, causes.message(task))
    if run.state and run.state.is_cancelling():
        await _propose(client, run_id, Cancelled(message="Its task has stopped."))
        return
    await _tell(client, run_id, task)
    if run.state and not run.state.is_crashed():
        await _propose(client, run_id, Crashed(message=causes.message(task)))
    await _restart(client, run_id, states, task, int(tags.get(RESTARTS_TAG) or 0))


def _had_a_task(run: FlowRun) -> bool:
    """Whether the run is in a state that it can not leave without a task, or was left crashed by it."""
    state = run.state
    if state is None:
        return False
    # A flow with retries waits for the next one in its task, which nobody else would start.
    waits = state.is_scheduled() and run.empirical_policy.retry_type == "in_process"
    return waits or state.is_pending() or state.is_running() or state.is_cancelling() or state.is_crashed()


async def _restart(
    client: PrefectClient, run_id: uuid.UUID, states: list[State[Any]], task: Mapping[str, Any], allowed: int
) -> None:
    """Schedule a run again whose task died, if it was told to survive that."""
    made, cause = attempts.restarts(states), causes.cause_of(task)
    if not allowed:
        return
    if made >= allowed or not cause.again:
        why = "it would end the same way" if made < allowed else f"that was restart {made} of {allowed}"
        await _log(client, run_id, [(logging.ERROR, f"{NOT_AGAIN}: {why}.")])
        return
    again: State[Any] = Scheduled(
        name=attempts.AWAITING_RESTART,
        message=f"Restart {made + 1} of {allowed}: {cause.words}.",
        # Prefect takes a transition of one id once: two agents don't restart a run twice.
        state_details=StateDetails(transition_id=uuid.uuid5(run_id, f"restart {made + 1}")),
    )
    await _propose(client, run_id, again)


async def _propose(client: PrefectClient, run_id: uuid.UUID, state: State[Any]) -> None:
    try:
        await propose_state(client, state, flow_run_id=run_id)
    except Abort as abort:
        # It ended meanwhile.
        logger.info("run %s does not become %s: %s", run_id, state.name, abort)


async def _tell(client: PrefectClient, run_id: uuid.UUID, task: Mapping[str, Any]) -> None:
    """Put the reason and the last lines of the task into the run's log."""
    try:
        lines = await asyncio.wait_for(_last_lines(task), READ_WITHIN_SECONDS)
    except Exception as error:
        # The run must go on all the same.
        lines = [f"(can't be read: {type(error).__name__}: {error})"]
    entries = [(logging.ERROR, causes.message(task))]
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


async def _last_lines(task: Mapping[str, Any]) -> list[str]:
    """The last lines of the task's first container; none if it never wrote any."""
    async with aws.client("ecs") as ecs:
        found = await ecs.describe_task_definition(taskDefinition=task["taskDefinitionArn"])
    container = found["taskDefinition"]["containerDefinitions"][0]
    options = container["logConfiguration"]["options"]
    task_id = task["taskArn"].rpartition("/")[2]
    async with aws.client("logs") as logs:
        lines: list[str] = await fetch_cloudwatch_logs(
            logs_client=logs,
            log_group=options["awslogs-group"],
            log_stream=f"{options['awslogs-stream-prefix']}/{container['name']}/{task_id}",
            max_events=LAST_LINES,
        )
    return lines
