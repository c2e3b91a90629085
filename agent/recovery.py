"""Finds runs that nobody would ever go on with, and sees to them: those that an agent left behind when it died.

Prefect's worker marks a run PENDING before it starts its task, and never looks back:
https://github.com/PrefectHQ/prefect/issues/20485. And the event of a stopped task can get lost: the agent died holding
it, or the queue was out of reach. So each agent looks, at start and again and again:

- a run that is PENDING without a task is scheduled again;
- a run that has a task which it doesn't know of is told, so that it can be cancelled;
- a run whose task has stopped is treated as if the event had come.

Several agents may do this at the same time: Prefect takes each of these changes once (its transition id), and if all
else fails, ECS starts one task for each attempt of a run (attempts.py).

It costs one request to Prefect every ten seconds, two to ECS (ListTasks) for each run that seems stranded, and each
minute one to ECS (DescribeTasks) for every 100 runs at work; ECS allows 20 of both each second:
https://docs.aws.amazon.com/AmazonECS/latest/APIReference/request-throttling.html
"""

import asyncio
import dataclasses
import datetime
import itertools
import logging
import random
import uuid
from collections.abc import Callable, Iterable, Sequence, Set
from typing import Any

from prefect.client.orchestration import PrefectClient, get_client
from prefect.client.schemas import filters as f
from prefect.client.schemas.objects import FlowRun, State, StateDetails, StateType
from prefect.exceptions import Abort
from prefect.states import Crashed, Scheduled
from prefect.utilities.engine import propose_state

from agent import attempts, aws, task_ends

LOOK_SECONDS = 10
JITTER = random.SystemRandom()
"""Agents side by side must not look in step."""
THOROUGH_EACH = 6
"""Every so many looks the tasks of all runs are looked at, not only the runs without one."""
LEFT_ALONE_SECONDS = 20
"""How long nothing is done about a run or a task after its state has changed: all may be well, only not told yet."""
MISSED_HEARTBEATS = 3
"""An agent that has missed as many is taken for dead, as Prefect does."""
RESCHEDULED = "Rescheduled"
"""Name of the state of a run that was stranded without a task."""
GONE = "The task of this run died: ECS does not know it any more, and its end was not told. To do: run it again."
PAGE = 200
DESCRIBED_AT_ONCE = 100

logger = logging.getLogger("prefect.agent.recovery")


@dataclasses.dataclass(frozen=True)
class Agent:
    """The agent that looks.

    Attributes:
        project: name of the work pool.
        name: its own at Prefect.
        heartbeat_seconds: how often agents tell that they live.
        starting: gives the runs that it is starting now.
    """

    project: str
    name: str
    heartbeat_seconds: float
    starting: Callable[[], Set[uuid.UUID]]


async def keep_looking(agent: Agent) -> None:
    """Look for ever. Whatever goes wrong is told and tried again."""
    for count in itertools.count():
        try:
            await look(agent, thorough=count % THOROUGH_EACH == 0)
        except Exception as error:
            logger.warning("could not look for stranded runs, will again: %s: %s", type(error).__name__, error)
        await asyncio.sleep(LOOK_SECONDS * JITTER.uniform(0.8, 1.2))


async def look(agent: Agent, thorough: bool) -> None:
    """Look once: at the tasks of all runs at work, or only for runs without one."""
    async with get_client() as client:
        runs = await _runs_at_work(client, agent.project, thorough)
        if runs:
            left_to_others = await _being_started_by_others(client, agent, runs)
            await _look_at([run for run in runs if run.id not in left_to_others], client, agent)


async def _look_at(runs: Sequence[FlowRun], client: PrefectClient, agent: Agent) -> None:
    pool = await client.read_work_pool(agent.project)
    cluster = pool.base_job_template["job_configuration"]["cluster"]
    async with aws.client("ecs") as ecs:
        tasks = Tasks(ecs, cluster)
        known = await tasks.described(arn for run in runs if (arn := _task_arn(run)))
        for run in runs:
            task = known.get(_task_arn(run))
            if run.id not in agent.starting() and (task is None or task["lastStatus"] == "STOPPED"):
                try:
                    await _see_to(run, task, client, tasks)
                except Abort as abort:
                    logger.info("run %s goes on by itself: %s", run.id, abort)


async def _runs_at_work(client: PrefectClient, project: str, thorough: bool) -> list[FlowRun]:
    """Runs that have been PENDING or RUNNING for a while; if not thorough, the PENDING ones without a known task."""
    states = [StateType.PENDING, StateType.RUNNING] if thorough else [StateType.PENDING]
    found: list[FlowRun] = []
    for offset in itertools.count(0, PAGE):
        page = await client.read_flow_runs(
            flow_run_filter=f.FlowRunFilter(state=f.FlowRunFilterState(type=f.FlowRunFilterStateType(any_=states))),
            work_pool_filter=f.WorkPoolFilter(name=f.WorkPoolFilterName(any_=[project])),
            limit=PAGE,
            offset=offset,
        )
        found += [run for run in page if run.state and run.state.timestamp < _ago(LEFT_ALONE_SECONDS)]
        if len(page) < PAGE:
            break
    return [run for run in found if thorough or not run.infrastructure_pid]


async def _being_started_by_others(client: PrefectClient, agent: Agent, runs: Sequence[FlowRun]) -> set[uuid.UUID]:
    """Runs without a known task that another agent has taken, and it lives: it is busy, and will start them."""
    takers = {run.id: run.labels.get("prefect.worker.name") for run in runs if not run.infrastructure_pid}
    if not set(takers.values()) - {None, agent.name}:
        return set()
    lately = {"last_heartbeat_time": {"after_": _ago(MISSED_HEARTBEATS * agent.heartbeat_seconds)}}
    alive = await client.read_workers_for_work_pool(agent.project, f.WorkerFilter.model_validate(lately))
    others = {worker.name for worker in alive} - {agent.name}
    return {run for run, taker in takers.items() if taker in others}


class Tasks:
    """The ECS tasks of a cluster; their tags are in `tags` by key."""

    def __init__(self, ecs: Any, cluster: str) -> None:
        self.ecs = ecs
        self.cluster = cluster

    async def described(self, arns: Iterable[str]) -> dict[str, dict[str, Any]]:
        """Tasks by ARN, without those that ECS doesn't know any more."""
        found: dict[str, dict[str, Any]] = {}
        waiting = list(arns)
        while some := waiting[:DESCRIBED_AT_ONCE]:
            del waiting[:DESCRIBED_AT_ONCE]
            answer = await self.ecs.describe_tasks(cluster=self.cluster, tasks=some, include=["TAGS"])
            for task in answer["tasks"]:
                tags = {tag["key"]: tag["value"] for tag in task.get("tags", [])}
                found[task["taskArn"]] = {**task, "tags": tags}
        return found

    async def of_attempt(self, run_id: uuid.UUID, attempt: str) -> dict[str, Any] | None:
        """The task that was started for an attempt of a run; None if there is none, or it stopped an hour ago."""
        for status in ("RUNNING", "STOPPED"):
            answer = await self.ecs.list_tasks(cluster=self.cluster, startedBy=str(run_id), desiredStatus=status)
            for task in (await self.described(answer["taskArns"])).values():
                if task["tags"].get(attempts.TAG, attempt) == attempt:
                    return task
        return None


async def _see_to(run: FlowRun, task: dict[str, Any] | None, client: PrefectClient, tasks: Tasks) -> None:
    """Do what has to be done about a run whose task has stopped, or is not known to it or to ECS."""
    attempt = attempts.name(run.id, await client.read_flow_run_states(run.id))
    # The task that a restarted run knows of may still be the one before.
    if task is None or task["tags"].get(attempts.TAG, attempt) != attempt:
        task = await tasks.of_attempt(run.id, attempt)
    if task is None:
        await _see_to_run_without_task(run, client)
    elif task["lastStatus"] != "STOPPED":
        logger.info("run %s has task %s", run.id, task["taskArn"])
        await client.update_flow_run(run.id, infrastructure_pid=f"{tasks.cluster}::{task['taskArn']}")
    elif task["stoppedAt"] < _ago(LEFT_ALONE_SECONDS):
        await task_ends.settle(client, task, task["tags"])


async def _see_to_run_without_task(run: FlowRun, client: PrefectClient) -> None:
    """Schedule a run again that is PENDING, and end one whose task is gone; unless it has moved on meanwhile."""
    now = await client.read_flow_run(run.id)
    if not run.state or not now.state or now.state.id != run.state.id:
        return
    if run.state.is_pending():
        if now.infrastructure_pid == run.infrastructure_pid:
            logger.warning("run %s is PENDING without a task: scheduled again", run.id)
            await propose_state(client, _scheduled_again(run.state.id), flow_run_id=run.id)
    # A run without an ECS task of its own can be one that somebody started by hand.
    elif run.infrastructure_pid:
        await propose_state(client, Crashed(message=GONE), flow_run_id=run.id)


def _scheduled_again(stranded: uuid.UUID) -> State[Any]:
    """The state of a run that was stranded in a state."""
    return Scheduled(
        name=RESCHEDULED,
        message="No ECS task was started for it: its agent died, or lost touch. It is started again.",
        state_details=StateDetails(transition_id=uuid.uuid5(stranded, RESCHEDULED)),
    )


def _task_arn(run: FlowRun) -> str:
    """ARN of the task that a run knows of; the worker writes <cluster>::<task>."""
    return (run.infrastructure_pid or "").rpartition("::")[2]


def _ago(seconds: float) -> datetime.datetime:
    return datetime.datetime.now(datetime.UTC) - datetime.timedelta(seconds=seconds)
