"""The ECS tasks of a cluster, with their tags."""

import uuid
from collections.abc import Iterable, Mapping
from typing import Any

from environments.run_terms import ATTEMPT_TAG, RUN_TAG

DESCRIBED_AT_ONCE = 100
"""https://docs.aws.amazon.com/AmazonECS/latest/APIReference/API_DescribeTasks.html"""
ENDED = ("DEPROVISIONING", "STOPPED")
"""States of a task of which no container runs any more.

https://docs.aws.amazon.com/AmazonECS/latest/developerguide/task-lifecycle-explanation.html
"""
Task = dict[str, Any]
"""As ECS describes it, but `tags` are values by key."""


class Tasks:
    """The tasks of a cluster.

    Args:
        ecs: a client of `agent.aws`.
        cluster: its name or ARN.
    """

    def __init__(self, ecs: Any, cluster: str) -> None:
        self.ecs = ecs
        self.cluster = cluster

    async def described(self, arns: Iterable[str]) -> dict[str, Task]:
        """Return tasks by ARN, without those that ECS no longer lists."""
        found: dict[str, Task] = {}
        waiting = list(arns)
        while some := waiting[:DESCRIBED_AT_ONCE]:
            del waiting[:DESCRIBED_AT_ONCE]
            answer = await self.ecs.describe_tasks(cluster=self.cluster, tasks=some, include=["TAGS"])
            for task in answer["tasks"]:
                tags = {tag["key"]: tag["value"] for tag in task.get("tags", [])}
                found[task["taskArn"]] = {**task, "tags": tags}
        return found

    async def running(self) -> list[Task]:
        """Return all tasks that nobody has told to stop."""
        arns: list[str] = []
        async for page in self.ecs.get_paginator("list_tasks").paginate(cluster=self.cluster, desiredStatus="RUNNING"):
            arns += page["taskArns"]
        return list((await self.described(arns)).values())

    async def of_run(self, run_id: uuid.UUID) -> list[Task]:
        """Return the tasks of a run, running ones first; ECS forgets a stopped one after about an hour."""
        found: list[Task] = []
        for status in ("RUNNING", "STOPPED"):
            answer = await self.ecs.list_tasks(cluster=self.cluster, startedBy=str(run_id), desiredStatus=status)
            found += (await self.described(answer["taskArns"])).values()
        return found

    async def of_attempt(self, run_id: uuid.UUID, attempt: str) -> Task | None:
        """Return the task that was started for an attempt of a run; None if ECS lists none."""
        of_it = (task for task in await self.of_run(run_id) if task["tags"].get(ATTEMPT_TAG, attempt) == attempt)
        return next(of_it, None)

    async def stop(self, task: Task, why: str) -> None:
        """Have ECS stop a task; its containers have their `stopTimeout` to end by themselves."""
        await self.ecs.stop_task(
            cluster=self.cluster, task=task["taskArn"], reason=f"Stopped by the agent: {why}"[:255]
        )


def run_of(tags: Mapping[str, str]) -> uuid.UUID | None:
    """Return the id of the run that a task was started for; None if it was started for something else."""
    try:
        return uuid.UUID(tags.get(RUN_TAG, ""))
    except ValueError:
        return None
