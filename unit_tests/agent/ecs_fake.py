"""ECS for tests of what runs in the agent, as an asynchronous client sees it: tasks with their tags, and revisions."""

import datetime
import uuid
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from typing import Any

import pytest

from agent import aws
from unit_tests.agent.prefect_fake import NOW, TEMPLATE

CLUSTER = TEMPLATE["job_configuration"]["cluster"]
ENDING = ("STOPPING", "DEPROVISIONING", "STOPPED")
PAGE = 100


class FakeEcs:
    """Plays ECS: ListTasks, DescribeTasks, StopTask and what there is of task definitions.

    As on AWS a task that was told to stop is listed as STOPPED at once, while its containers may run for a while.
    """

    def __init__(self) -> None:
        self.tasks: dict[str, dict[str, Any]] = {}
        self.revisions: list[str] = []
        self.requests: list[tuple[str, Any]] = []
        self.stopped: list[str] = []
        self.reasons: list[str] = []

    def start(self, attempt: str, status: str = "RUNNING", seconds_ago: float = 60, **tags: str) -> str:
        """Add a task of an attempt; return its ARN."""
        arn = f"arn:aws:ecs:eu-west-1:123456789012:task/workflows/{len(self.tasks)}"
        run = attempt[: len(str(uuid.UUID(int=0)))]
        self.tasks[arn] = {
            "taskArn": arn,
            "startedBy": run,
            "lastStatus": status,
            "desiredStatus": "STOPPED" if status in ENDING else "RUNNING",
            "tags": [{"key": key, "value": value} for key, value in _tags(run, attempt, tags).items()],
        }
        if status == "STOPPED":
            self.tasks[arn]["stoppedAt"] = NOW - datetime.timedelta(seconds=seconds_ago)
        return arn

    def start_for(self, api_url: str, attempt: str) -> str:
        """Add a task that was started for the Prefect API at a URL; return its ARN."""
        arn = self.start(attempt)
        environment = [{"name": "A", "value": "x"}, {"name": "PREFECT_API_URL", "value": api_url}]
        self.tasks[arn]["overrides"] = {"containerOverrides": [{"name": "other"}, {"environment": environment}]}
        return arn

    def identifier(self, arn: str) -> str:
        """Return what the worker writes into a run about its task."""
        return f"{CLUSTER}::{arn}"

    async def list_tasks(self, cluster: str, startedBy: str, desiredStatus: str) -> dict[str, Any]:
        self.requests.append(("ListTasks", startedBy))
        return {"taskArns": [arn for arn in self._listed(cluster, desiredStatus, startedBy)]}

    async def describe_tasks(self, cluster: str, tasks: list[str], include: list[str]) -> dict[str, Any]:
        assert (cluster, include) == (CLUSTER, ["TAGS"])
        assert 0 < len(tasks) <= PAGE
        self.requests.append(("DescribeTasks", tasks))
        return {"tasks": [dict(self.tasks[arn]) for arn in tasks if arn in self.tasks]}

    async def stop_task(self, cluster: str, task: str, reason: str) -> None:
        assert cluster == CLUSTER
        assert len(reason) <= 255
        self.stopped.append(task)
        self.reasons.append(reason)
        self.tasks[task]["desiredStatus"] = "STOPPED"

    async def deregister_task_definition(self, taskDefinition: str) -> None:
        self.revisions.remove(taskDefinition)

    def get_paginator(self, operation: str) -> Any:
        pages = {
            "list_tasks": self._task_pages,
            "list_task_definitions": self._revision_pages,
            "list_task_definition_families": self._family_pages,
        }
        return _Paginator(pages[operation])

    def _listed(self, cluster: str, desired: str, run: str = "") -> list[str]:
        assert cluster == CLUSTER
        tasks = [task for task in self.tasks.values() if task["desiredStatus"] == desired]
        return [task["taskArn"] for task in tasks if run in ("", task["startedBy"])]

    def _task_pages(self, cluster: str, desiredStatus: str) -> Iterable[dict[str, Any]]:
        self.requests.append(("ListTasks", ""))
        listed = self._listed(cluster, desiredStatus)
        return [{"taskArns": listed[start : start + PAGE]} for start in range(0, max(len(listed), 1), PAGE)]

    def _revision_pages(self, familyPrefix: str, status: str) -> Iterable[dict[str, Any]]:
        assert status == "ACTIVE"
        found = [arn for arn in self.revisions if arn.rpartition("/")[2].startswith(familyPrefix)]
        return [{"taskDefinitionArns": found[start : start + 2]} for start in range(0, max(len(found), 1), 2)]

    def _family_pages(self, familyPrefix: str, status: str) -> Iterable[dict[str, Any]]:
        assert status == "ACTIVE"
        names = {arn.rpartition("/")[2].rpartition(":")[0] for arn in self.revisions}
        return [{"families": [name]} for name in sorted(names) if name.startswith(familyPrefix)]


class _Paginator:
    def __init__(self, pages: Any) -> None:
        self._pages = pages

    async def paginate(self, **asked: Any) -> AsyncIterator[dict[str, Any]]:
        for page in self._pages(**asked):
            yield page


def _tags(run: str, attempt: str, more: dict[str, str]) -> dict[str, str]:
    return {"prefect.io/flow-run-id": run, "attempt": attempt, "restarts": "0", **more}


def install(monkeypatch: pytest.MonkeyPatch, **services: Any) -> None:
    """Have the agent's clients of AWS be these, by service."""

    @asynccontextmanager
    async def client(service: str, **_: Any) -> AsyncIterator[Any]:
        yield services[service]

    monkeypatch.setattr(aws, "client", client)
