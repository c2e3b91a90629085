"""Finds runs and tasks that nobody would ever go on with, and sees to them.

Prefect's worker marks a run PENDING before it starts its task, and never looks back:
https://github.com/PrefectHQ/prefect/issues/20485. The event of a stopped task can get lost: the agent died holding
it, or the queue was out of reach. And a run can end without its task. So each agent looks, again and again:

- a run that is PENDING without a task is scheduled again;
- a run that has a task which it doesn't know of gets to know it, so that it can be cancelled;
- a run whose task has stopped is treated as if the event had come, also while it waits in its task;
- a task whose run has ended, was deleted or is at a later attempt is stopped (outlived.py);
- a task definition that no deployment needs any more is deregistered (unused_definitions.py).

Several agents may do this at the same time: Prefect takes each of these changes once, and if all else fails, ECS starts
one task for each attempt of a run (attempts.py).

It costs one request to Prefect every ten seconds, two to ECS (ListTasks) for each run that seems stranded, and each
minute one to ECS (DescribeTasks) for every 100 runs at work and for every 100 tasks; ECS allows 20 of both each second:
https://docs.aws.amazon.com/AmazonECS/latest/APIReference/request-throttling.html
"""

import asyncio
import dataclasses
import datetime
import itertools
import logging
import random
import uuid
from collections.abc import Awaitable, Callable, Sequence, Set
from typing import Any

from prefect.client.orchestration import PrefectClient, get_client
from prefect.client.schemas import filters as f
from prefect.client.schemas.objects import FlowRun, StateType
from prefect.client.schemas.sorting import LogSort
from prefect.states import Cancelled

from agent import attempts, aws, outlived, prefect_states, task_ends, unused_definitions
from agent.capacity import Capacity
from agent.tasks import ENDED, Task, Tasks
from environments.run_terms import ATTEMPT_TAG, NOT_RESTARTED, RESTARTS_TAG, RUN_TAG, WAITING

LOOK_SECONDS = 10
JITTER = random.SystemRandom()
"""Agents side by side must not look in step."""
THOROUGH_EACH = 6
"""Every so many looks the tasks of all runs are looked at, not only the runs without one."""
LEFT_ALONE_SECONDS = 20
"""How long nothing is done about a run or a task after its state has changed: the event of that may be under way."""
MISSED_HEARTBEATS = 3
"""An agent that has missed as many is taken for dead, as Prefect does."""
UNLISTED = "Unlisted"
"""Stands for the `stopCode` of a task that ECS no longer lists."""
RETRY = "AwaitingRetry"
"""Prefect's name for the state of a run that waits for its next retry."""
TAKER = "prefect.worker.name"
"""Label of a run by which Prefect's worker says who has taken it."""
LISTED_SECONDS = 3600
"""How long ECS lists a stopped task."""
PAGE = 200

logger = logging.getLogger("prefect.agent.recovery")


@dataclasses.dataclass(frozen=True)
class Agent:
    """The agent that looks.

    Attributes:
        project: name of the work pool.
        name: its own at Prefect.
        heartbeat_seconds: how often agents report that they are alive.
        starting: returns the runs that it is starting now.
        capacity: where it notes which capacity providers refuse.
        waiting: returns for each of these why runs wait, and how many.
        decided: ids of the CRASHED states of runs of which is known whether they are restarted.
    """

    project: str
    name: str
    heartbeat_seconds: float
    starting: Callable[[], Set[uuid.UUID]]
    capacity: Capacity
    waiting: Callable[[], dict[str, int]]
    decided: set[uuid.UUID] = dataclasses.field(default_factory=set)


async def keep_looking(agent: Agent) -> None:
    """Look for ever. Whatever goes wrong is logged and tried again."""
    for count in itertools.count():
        thorough = count % THOROUGH_EACH == 0
        await _try("look for stranded runs", look(agent, thorough))
        if thorough:
            await _try("look for tasks without a run", look_at_tasks(agent))
            for why, number in agent.waiting().items():
                logger.warning("%s: %s, each %s", WAITING, number, why)
        await asyncio.sleep(LOOK_SECONDS * JITTER.uniform(0.8, 1.2))


async def _try(what: str, looking: Awaitable[None]) -> None:
    try:
        await looking
    except Exception as error:
        logger.warning("could not %s, will again: %s: %s", what, type(error).__name__, error)


async def look(agent: Agent, thorough: bool) -> None:
    """Look once: at the tasks of all runs at work, or only for runs without one."""
    async with get_client() as client:
        runs = await _runs_at_work(client, agent.project, thorough)
        if runs:
            left_to_others = await _being_started_by_others(client, agent, runs)
            await _look_at([run for run in runs if run.id not in left_to_others], client, agent)
        if thorough:
            await _look_at_crashed(client, agent)


async def look_at_tasks(agent: Agent) -> None:
    """Stop the tasks that outlived their run, and deregister the definitions that no deployment needs."""
    async with get_client() as client, aws.client("ecs") as ecs:
        template = (await client.read_work_pool(agent.project)).base_job_template
        await outlived.stop_all(client, Tasks(ecs, template["job_configuration"]["cluster"]))
        await unused_definitions.deregister(client, ecs, agent.project, template)


async def _look_at(runs: Sequence[FlowRun], client: PrefectClient, agent: Agent) -> None:
    pool = await client.read_work_pool(agent.project)
    cluster = pool.base_job_template["job_configuration"]["cluster"]
    async with aws.client("ecs") as ecs:
        tasks = Tasks(ecs, cluster)
        known = await tasks.described(arn for run in runs if (arn := _task_arn(run)))
        for run in runs:
            task = known.get(_task_arn(run))
            if run.id not in agent.starting() and (task is None or task["lastStatus"] in ENDED):
                await _see_to(run, task, client, tasks, agent.capacity)


async def _look_at_crashed(client: PrefectClient, agent: Agent) -> None:
    """See to runs whose task reported their crash before it ended, and of which the event of its end was lost.

    A run that is interrupted does so in its grace period. Each is looked at once: a task is listed for an hour.
    """
    runs = await _read_runs(
        client,
        agent.project,
        type=f.FlowRunFilterStateType(any_=[StateType.CRASHED]),
        ended=f.FlowRunFilterEndTime.model_validate({"after_": _ago(LISTED_SECONDS)}),
    )
    crashed = {run.state.id: run for run in runs if run.state and run.infrastructure_pid}
    agent.decided.intersection_update(crashed)
    new = {state: run for state, run in crashed.items() if state not in agent.decided}
    cluster = (await client.read_work_pool(agent.project)).base_job_template["job_configuration"]["cluster"]
    async with aws.client("ecs") as ecs:
        known = await Tasks(ecs, cluster).described(map(_task_arn, new.values()))
    for state, run in new.items():
        task = known.get(_task_arn(run))
        if task and task["lastStatus"] != "STOPPED":
            continue
        if task and int(task["tags"].get(RESTARTS_TAG) or 0) and not await _is_decided(client, run):
            if task["stoppedAt"] > _ago(LEFT_ALONE_SECONDS):
                continue
            await task_ends.settle(client, task, {RUN_TAG: str(run.id), **task["tags"]}, agent.capacity)
        agent.decided.add(state)


async def _is_decided(client: PrefectClient, run: FlowRun) -> bool:
    """Whether the log of a run says why it is not restarted."""
    of_run = f.LogFilter(flow_run_id=f.LogFilterFlowRunId(any_=[run.id]))
    lines = await client.read_logs(of_run, limit=PAGE, sort=LogSort.TIMESTAMP_DESC)
    return any(line.message.startswith(NOT_RESTARTED) for line in lines)


async def _runs_at_work(client: PrefectClient, project: str, thorough: bool) -> list[FlowRun]:
    """Runs that have needed a task for a while; if not thorough, the PENDING ones without a known task."""
    if not thorough:
        pending = await _read_runs(client, project, type=f.FlowRunFilterStateType(any_=[StateType.PENDING]))
        return [run for run in pending if not run.infrastructure_pid]
    at_work = [StateType.PENDING, StateType.RUNNING, StateType.CANCELLING, StateType.PAUSED]
    runs = await _read_runs(client, project, type=f.FlowRunFilterStateType(any_=at_work))
    runs += await _read_runs(client, project, name=f.FlowRunFilterStateName(any_=[RETRY]))
    return [run for run in runs if task_ends.needs_a_task(run)]


async def _read_runs(
    client: PrefectClient, project: str, ended: f.FlowRunFilterEndTime | None = None, **state: Any
) -> list[FlowRun]:
    found: list[FlowRun] = []
    for offset in itertools.count(0, PAGE):
        page = await client.read_flow_runs(
            flow_run_filter=f.FlowRunFilter(state=f.FlowRunFilterState(**state), end_time=ended),
            work_pool_filter=f.WorkPoolFilter(name=f.WorkPoolFilterName(any_=[project])),
            limit=PAGE,
            offset=offset,
        )
        found += [run for run in page if run.state and run.state.timestamp < _ago(LEFT_ALONE_SECONDS)]
        if len(page) < PAGE:
            break
    return found


async def _being_started_by_others(client: PrefectClient, agent: Agent, runs: Sequence[FlowRun]) -> set[uuid.UUID]:
    """Runs that another agent has taken, and it is alive: it is busy, and will start them."""
    pending = [run for run in runs if run.state and run.state.is_pending()]
    takers = {run.id: run.labels.get(TAKER) for run in pending}
    if not set(takers.values()) - {None, agent.name}:
        return set()
    lately = {"last_heartbeat_time": {"after_": _ago(MISSED_HEARTBEATS * agent.heartbeat_seconds)}}
    alive = await client.read_workers_for_work_pool(agent.project, f.WorkerFilter.model_validate(lately))
    others = {worker.name for worker in alive} - {agent.name}
    return {run for run, taker in takers.items() if taker in others}


async def _see_to(run: FlowRun, task: Task | None, client: PrefectClient, tasks: Tasks, capacity: Capacity) -> None:
    """Do what has to be done about a run whose task has stopped, or is not known to it or to ECS."""
    attempt = attempts.name(run.id, await client.read_flow_run_states(run.id))
    # The task that a restarted run knows of may still be the one before.
    if task is None or task["tags"].get(ATTEMPT_TAG, attempt) != attempt:
        task = await tasks.of_attempt(run.id, attempt)
    if task is None:
        await _see_to_run_without_task(run, client, capacity)
    elif task["lastStatus"] not in ENDED:
        logger.info("run %s has task %s", run.id, task["taskArn"])
        await client.update_flow_run(run.id, infrastructure_pid=f"{tasks.cluster}::{task['taskArn']}")
    elif task.get("stoppedAt", _ago(0)) < _ago(LEFT_ALONE_SECONDS):
        await task_ends.settle(client, task, {RUN_TAG: str(run.id), **task["tags"]}, capacity)


async def _see_to_run_without_task(run: FlowRun, client: PrefectClient, capacity: Capacity) -> None:
    """Schedule a run again that is PENDING, and end one whose task is gone; unless it has moved on meanwhile."""
    now = await client.read_flow_run(run.id)
    if not run.state or not now.state or now.state.id != run.state.id:
        return
    if run.state.is_pending():
        if now.infrastructure_pid == run.infrastructure_pid:
            logger.warning("run %s is PENDING without a task: scheduled again", run.id)
            message = "No ECS task was started for it: its agent died, or lost touch. It is started again."
            again = prefect_states.rescheduled(message)
            await prefect_states.propose(client, run.id, again, once=f"{run.state.id} rescheduled")
    elif run.state.is_cancelling():
        await prefect_states.propose(client, run.id, Cancelled(message="It has no task."))
    # A run that no agent has taken can be one that somebody started by hand.
    elif run.infrastructure_pid or TAKER in run.labels:
        tags = {RUN_TAG: str(run.id)}
        task = {"stopCode": UNLISTED, "taskArn": _task_arn(run)}
        await task_ends.settle(client, task, tags, capacity)


def _task_arn(run: FlowRun) -> str:
    """ARN of the task that a run knows of; the worker writes <cluster>::<task>."""
    return (run.infrastructure_pid or "").rpartition("::")[2]


def _ago(seconds: float) -> datetime.datetime:
    return datetime.datetime.now(datetime.UTC) - datetime.timedelta(seconds=seconds)
