"""Checks of runs that AWS has no room for, and of tasks that no run needs."""

from datetime import UTC, datetime, timedelta
from typing import Any

from environments.errors import PlatformError
from environments.prefect_rest import PAGE, ask, of_project
from environments.run_terms import AWAITING_CAPACITY, RUN_TAG
from environments.settings import Environment
from infra.aws import client

WAITS_AT_MOST = timedelta(minutes=15)
"""As the alarm, in alarms.tf."""
STOPPED_WITHIN = timedelta(minutes=7)
"""From the end of a run until the agent has stopped its task: time for its hooks, and the agent's next look."""
TASKS_AT_ONCE = 100
"""https://docs.aws.amazon.com/AmazonECS/latest/APIReference/API_DescribeTasks.html"""
FINAL = ("COMPLETED", "FAILED", "CANCELLED", "CRASHED")
SHOWN = 5


def capacity(environment: Environment) -> str:
    """Whether runs wait because AWS has no room for their tasks."""
    body = of_project(environment, state={"name": {"any_": [AWAITING_CAPACITY]}})
    oldest_first = {**body, "sort": "EXPECTED_START_TIME_ASC", "limit": PAGE}
    runs: list[dict[str, Any]] = ask(environment, "/flow_runs/filter", oldest_first)
    if not runs:
        return "no run waits"
    count = f"{PAGE} or more" if len(runs) >= PAGE else str(len(runs))
    why = "\n".join(list(dict.fromkeys(str(run["state"]["message"]) for run in runs))[:SHOWN])
    waited = datetime.now(UTC) - datetime.fromisoformat(runs[0]["expected_start_time"])
    if waited <= WAITS_AT_MOST:
        return f"{count} wait: {why}"
    raise PlatformError(
        f"{count} wait, the first one for {waited.seconds // 60 + waited.days * 1440} min",
        why,
        "nothing, they start when AWS has room; or raise the quota in Service Quotas, choose another size or "
        "execution environment, or cancel them",
    )


def tasks_without_run(environment: Environment) -> str:
    """Whether tasks work on for a run that has ended or was deleted."""
    tasks = {task["taskArn"]: run for task in _running(environment) if (run := _run_of(task))}
    runs = _runs(environment, sorted(set(tasks.values())))
    without = {arn: runs.get(run) for arn, run in tasks.items() if run not in runs or _ended(runs[run])}
    if not without:
        return "none"
    listed = [f"task {arn.rpartition('/')[2]}: {_describe(tasks[arn], run)}" for arn, run in without.items()]
    why = "\n".join([*listed[:SHOWN], *([f"and {len(listed) - SHOWN} more"] if len(listed) > SHOWN else [])])
    if not any(run and datetime.now(UTC) - _since(run) > STOPPED_WITHIN for run in without.values()):
        return f"{len(without)}, which the agent stops: {why}"
    raise PlatformError(
        f"{len(without)} should have been stopped",
        why,
        f"see what keeps the agent: invoke logs agent --env {environment.name}",
    )


def _running(environment: Environment) -> list[dict[str, Any]]:
    ecs, cluster = client(environment, "ecs"), f"{environment.prefix}_workflows"
    pages = ecs.get_paginator("list_tasks").paginate(cluster=cluster, desiredStatus="RUNNING")
    arns = [arn for page in pages for arn in page["taskArns"]]
    found: list[dict[str, Any]] = []
    for start in range(0, len(arns), TASKS_AT_ONCE):
        some = arns[start : start + TASKS_AT_ONCE]
        found += ecs.describe_tasks(cluster=cluster, tasks=some, include=["TAGS"])["tasks"]
    return found


def _run_of(task: dict[str, Any]) -> str:
    return next((str(tag["value"]) for tag in task.get("tags") or () if tag["key"] == RUN_TAG), "")


def _runs(environment: Environment, ids: list[str]) -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = {}
    for start in range(0, len(ids), PAGE):
        body = {"flow_runs": {"id": {"any_": ids[start : start + PAGE]}}, "limit": PAGE}
        found |= {run["id"]: run for run in ask(environment, "/flow_runs/filter", body)}
    return found


def _ended(run: dict[str, Any]) -> bool:
    return run["state_type"] in FINAL


def _since(run: dict[str, Any]) -> datetime:
    return datetime.fromisoformat(run["state"]["timestamp"])


def _describe(run_id: str, run: dict[str, Any] | None) -> str:
    if run is None:
        return f"run {run_id} was deleted"
    return f"run {run['name']} is {run['state']['name']} since {_since(run):%H:%M:%S} UTC"
