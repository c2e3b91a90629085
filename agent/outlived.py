"""Finds and stops tasks that outlived their run, so that one run has one active task.

A run can end without its task: somebody sets its state on Prefect's page, an automation times it out, it is deleted, or
it is retried while its task hangs. Its task would go on with the work, and report its own end as that of the run.
"""

import asyncio
import datetime
import logging
import os
import time
import uuid
from collections import Counter
from collections.abc import Sequence
from typing import Any

from prefect.client.orchestration import PrefectClient
from prefect.client.schemas import filters as f
from prefect.client.schemas.objects import FlowRun

from agent import attempts
from agent.tasks import ENDED, Task, Tasks, run_of
from environments.run_terms import ATTEMPT_TAG

CHANGED_FROM_OUTSIDE_SECONDS = 20
"""From a change of state at Prefect's page or by an automation until the task is stopped."""
HOOKS_SECONDS = 300
"""Time that a task has for hooks and other work after it reported the end of its run itself."""
STOPS_WITHIN_SECONDS = 180
"""The longest `stopTimeout` on Fargate, 120 s, and what ECS needs beside that."""
POLL_SECONDS = 2.0
AT_ONCE = 200

logger = logging.getLogger("prefect.agent.outlived")


async def stop_all(client: PrefectClient, tasks: Tasks) -> None:
    """Stop the tasks of a cluster whose run has ended without them, was deleted, or is at a later attempt."""
    ours = [task for task in await tasks.running() if _api_url(task) in ("", os.environ.get("PREFECT_API_URL", ""))]
    running = [(run, task) for task in ours if (run := run_of(task["tags"]))]
    of_run = Counter(run for run, _ in running)
    runs = await _runs(client, list(of_run))
    now = datetime.datetime.now(datetime.UTC)
    for run_id, task in running:
        why = ended_without(runs.get(run_id), now)
        if not why and of_run[run_id] > 1:
            attempt = attempts.name(run_id, await client.read_flow_run_states(run_id))
            why = "its run is at a later attempt" if task["tags"].get(ATTEMPT_TAG, attempt) != attempt else ""
        if why:
            logger.warning("task %s of run %s is stopped: %s", task["taskArn"], run_id, why)
            await tasks.stop(task, why)


def ended_without(run: FlowRun | None, now: datetime.datetime) -> str:
    """Return why a running task should not run any more; empty while it should.

    Args:
        run: that it was started for; None when it was deleted.
        now: the time.
    """
    if run is None:
        return "its run was deleted"
    if run.state is None or not run.state.is_final():
        return ""
    # Prefect's Python client names each change of state, Prefect's page and its automations do not.
    # The task itself may be the one that reported this end, and run hooks now.
    by_client = run.state.state_details.transition_id is not None
    allowed = HOOKS_SECONDS if by_client else CHANGED_FROM_OUTSIDE_SECONDS
    ended = (now - run.state.timestamp).total_seconds()
    return f"its run is {run.state.name} since {run.state.timestamp:%H:%M:%S} UTC" if ended > allowed else ""


async def stop_earlier(tasks: Tasks, run_id: uuid.UUID, attempt: str) -> bool:
    """Stop the tasks of earlier attempts of a run and wait for their end; return whether there were any.

    Raises:
        TimeoutError: one did not end in time.
    """
    deadline = time.monotonic() + STOPS_WITHIN_SECONDS
    stopped: set[str] = set()
    while earlier := _of_earlier_attempts(await tasks.of_run(run_id), attempt):
        for task in earlier:
            if task["taskArn"] not in stopped and task.get("desiredStatus") != "STOPPED":
                logger.warning("task %s of run %s is stopped: the run starts again", task["taskArn"], run_id)
                await tasks.stop(task, "its run starts again")
            stopped.add(task["taskArn"])
        if time.monotonic() > deadline:
            raise TimeoutError(f"{', '.join(sorted(stopped))} did not stop within {STOPS_WITHIN_SECONDS} s")
        await asyncio.sleep(POLL_SECONDS)
    return bool(stopped)


def _of_earlier_attempts(tasks: Sequence[Task], attempt: str) -> list[Task]:
    return [
        task for task in tasks if task["lastStatus"] not in ENDED and task["tags"].get(ATTEMPT_TAG, attempt) != attempt
    ]


def _api_url(task: Task) -> str:
    """The Prefect API that a task was started for; another one knows nothing of its run."""
    overrides = (task.get("overrides") or {}).get("containerOverrides") or []
    variables = [variable for override in overrides for variable in override.get("environment") or []]
    return next((str(each["value"]) for each in variables if each["name"] == "PREFECT_API_URL"), "")


async def _runs(client: PrefectClient, ids: Sequence[uuid.UUID]) -> dict[Any, FlowRun]:
    found: list[FlowRun] = []
    for start in range(0, len(ids), AT_ONCE):
        of_these = f.FlowRunFilter(id=f.FlowRunFilterId(any_=list(ids[start : start + AT_ONCE])))
        found += await client.read_flow_runs(flow_run_filter=of_these, limit=AT_ONCE)
    return {run.id: run for run in found}
