"""Checks of the Prefect project and of its runs: those that wait too long, and those that nothing works on any more."""

from datetime import UTC, datetime, timedelta
from typing import Any

from environments import pages
from environments.errors import PlatformError
from environments.prefect_rest import PAGE, ask, of_project
from environments.run_terms import AWAITING_CAPACITY
from environments.settings import Environment
from infra.aws import client

LATE_AFTER = timedelta(minutes=1)
PENDING_AT_MOST = timedelta(minutes=5)
"""A task takes up to two minutes to start on Fargate, the pull of a large image included."""
MARKED_WITHIN = timedelta(minutes=1)
"""From the end of a task until the agent has marked its run."""
TASKS_AT_ONCE = 100
"""https://docs.aws.amazon.com/AmazonECS/latest/APIReference/API_DescribeTasks.html"""
SHOWN = 5


def project(environment: Environment) -> str:
    """Whether the project is there and hands out runs."""
    pool = _pool(environment)
    if pool["is_paused"]:
        raise PlatformError(
            "paused", "no run starts until somebody resumes it", f"resume it at {pages.project(environment)}"
        )
    return ", ".join([environment.prefix, *_limit(pool)])


def queue(environment: Environment) -> str:
    """How many runs are at work, and how many wait for an agent or for their turn."""
    now = datetime.now(UTC).isoformat()
    kinds: dict[str, dict[str, Any]] = {
        "running": {"state": _state("RUNNING")},
        "starting": {"state": _state("PENDING")},
        "waiting": {"state": _state("SCHEDULED"), "next_scheduled_start_time": {"before_": now}},
    }
    counts = {kind: ask(environment, "/flow_runs/count", of_project(environment, **of)) for kind, of in kinds.items()}
    return ", ".join(f"{count} {kind}" for kind, count in counts.items())


def late(environment: Environment) -> str:
    """Whether runs wait for an agent for much longer than they should."""
    due = (datetime.now(UTC) - LATE_AFTER).isoformat()
    waiting = {"type": {"any_": ["SCHEDULED"]}, "name": {"not_any_": [AWAITING_CAPACITY]}}
    runs = _read(environment, waiting, next_scheduled_start_time={"before_": due})
    if not runs:
        return "none"
    limit = _limit(_pool(environment))
    if any("reached" in words for words in limit):
        return f"{_count(runs)} wait for their turn, {limit[0]}; concurrency_limit in the settings raises that"
    raise PlatformError(
        f"{_count(runs)} waiting for more than {LATE_AFTER.seconds // 60} min",
        _names(runs),
        f"see what keeps the agent: invoke logs agent --env {environment.name}",
    )


def stuck(environment: Environment) -> str:
    """Whether runs stay PENDING for ever, or are RUNNING while nothing works on them."""
    oldest = datetime.now(UTC) - PENDING_AT_MOST
    pending = [
        run
        for run in _read(environment, _state("PENDING"))
        if datetime.fromisoformat(run["state"]["timestamp"]) < oldest
    ]
    abandoned = _without_task(environment, _read(environment, _state("RUNNING")))
    why = [f"PENDING for more than {PENDING_AT_MOST.seconds // 60} min: {_names(pending)}"] if pending else []
    why += [f"RUNNING, and their ECS task has ended: {_names(abandoned)}"] if abandoned else []
    if not why:
        return "none"
    raise PlatformError(
        f"{_count([*pending, *abandoned])} stuck",
        "\n".join(why),
        f"cancel them at {environment.prefect_page_url}/runs, then run their workflows again: invoke run NAME",
    )


def _pool(environment: Environment) -> dict[str, Any]:
    pool: dict[str, Any] = ask(environment, f"/work_pools/{environment.prefix}")
    return pool


def _state(kind: str) -> dict[str, Any]:
    return {"type": {"any_": [kind]}}


def _read(environment: Environment, state: dict[str, Any], **which: Any) -> list[dict[str, Any]]:
    """The runs of the project in a state, those that should have started first before the others."""
    body = of_project(environment, state=state, **which)
    runs: list[dict[str, Any]] = ask(
        environment, "/flow_runs/filter", {**body, "sort": "EXPECTED_START_TIME_ASC", "limit": PAGE}
    )
    return runs


def _without_task(environment: Environment, runs: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Runs whose ECS task has stopped a while ago, or that ECS has forgotten already."""
    tasks = {pid.rpartition("::")[2]: run for run in runs if (pid := run.get("infrastructure_pid"))}
    ecs, cluster, gone = client(environment, "ecs"), f"{environment.prefix}_workflows", set()
    for start in range(0, len(tasks), TASKS_AT_ONCE):
        answer = ecs.describe_tasks(cluster=cluster, tasks=list(tasks)[start : start + TASKS_AT_ONCE])
        gone |= {failure["arn"] for failure in answer["failures"] if failure.get("reason") == "MISSING"}
        gone |= {task["taskArn"] for task in answer["tasks"] if _ended(task.get("stoppedAt"))}
    return [run for arn, run in tasks.items() if arn in gone]


def _ended(stopped: datetime | None) -> bool:
    return stopped is not None and datetime.now(UTC) - stopped > MARKED_WITHIN


def _limit(pool: dict[str, Any]) -> list[str]:
    """What is to be said of the limit of runs at a time, if there is one."""
    most, taken = pool["concurrency_limit"], pool.get("active_slots") or 0
    if most is None:
        return []
    return [f"{taken} of at most {most} runs at a time" + (" (limit reached)" if taken >= most else "")]


def _count(runs: list[dict[str, Any]]) -> str:
    return f"{PAGE} or more" if len(runs) >= PAGE else str(len(runs))


def _names(runs: list[dict[str, Any]]) -> str:
    more = f" and {len(runs) - SHOWN} more" if len(runs) > SHOWN else ""
    return ", ".join(str(run["name"]) for run in runs[:SHOWN]) + more
