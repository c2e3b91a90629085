"""Checks of the Prefect project and of its runs: those that wait too long, and those that nothing works on any more."""

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from environments.errors import PlatformError
from environments.prefect_api import prefect_client
from environments.settings import Environment
from infra.aws import client

if TYPE_CHECKING:
    from prefect.client.orchestration import SyncPrefectClient
    from prefect.client.schemas.filters import FlowRunFilter
    from prefect.client.schemas.objects import FlowRun, WorkPool

LATE_AFTER = timedelta(minutes=1)
PENDING_AT_MOST = timedelta(minutes=5)
"""A task takes up to two minutes to start on Fargate, the pull of a large image included."""
MARKED_WITHIN = timedelta(minutes=1)
"""From the end of a task until the agent has marked its run."""
MOST_RUNS = 200
"""Of each kind that are looked at; Prefect gives no more at once."""
TASKS_AT_ONCE = 100
"""https://docs.aws.amazon.com/AmazonECS/latest/APIReference/API_DescribeTasks.html"""
SHOWN = 5


def project(environment: Environment) -> str:
    """Whether the project is there and hands out runs."""
    with prefect_client(environment) as api:
        pool = api.read_work_pool(environment.prefix)
    if pool.is_paused:
        raise PlatformError("paused", "no run starts until somebody resumes it", f"resume it at {_page(environment)}")
    return ", ".join([pool.name, *_limit(pool)])


def late(environment: Environment) -> str:
    """Whether runs wait for an agent for much longer than they should."""
    from prefect.client.schemas import filters as f

    due = f.FlowRunFilterNextScheduledStartTime.model_validate({"before_": datetime.now(UTC) - LATE_AFTER})
    with prefect_client(environment) as api:
        runs = _read(api, environment, "SCHEDULED", f.FlowRunFilter(next_scheduled_start_time=due))
        limit = _limit(api.read_work_pool(environment.prefix)) if runs else []
    if not runs:
        return "none"
    if any("reached" in words for words in limit):
        return f"{_count(runs)} wait for their turn, {limit[0]}; concurrency_limit in the settings raises that"
    raise PlatformError(
        f"{_count(runs)} waiting for more than {LATE_AFTER.seconds // 60} min",
        _names(runs),
        f"see what keeps the agent: invoke logs agent --env {environment.name}",
    )


def stuck(environment: Environment) -> str:
    """Whether runs stay PENDING for ever, or are RUNNING while nothing works on them."""
    from prefect.client.schemas import filters as f

    with prefect_client(environment) as api:
        pending = _read(api, environment, "PENDING", f.FlowRunFilter())
        running = _read(api, environment, "RUNNING", f.FlowRunFilter())
    now = datetime.now(UTC)
    pending = [run for run in pending if run.state and now - run.state.timestamp > PENDING_AT_MOST]
    abandoned = _without_task(environment, running)
    why = [f"PENDING for more than {PENDING_AT_MOST.seconds // 60} min: {_names(pending)}"] if pending else []
    why += [f"RUNNING, and their ECS task has ended: {_names(abandoned)}"] if abandoned else []
    if not why:
        return "none"
    raise PlatformError(
        f"{_count([*pending, *abandoned])} stuck",
        "\n".join(why),
        f"cancel them at {environment.prefect_page_url}/runs, then run their workflows again: invoke run NAME",
    )


def _read(api: "SyncPrefectClient", environment: Environment, state: str, which: "FlowRunFilter") -> "list[FlowRun]":
    """The runs of the project in a state, those that should have started first before the others."""
    from prefect.client.schemas import filters as f
    from prefect.client.schemas.objects import StateType
    from prefect.client.schemas.sorting import FlowRunSort

    in_state = f.FlowRunFilterState(type=f.FlowRunFilterStateType(any_=[StateType[state]]))
    return api.read_flow_runs(
        flow_run_filter=which.model_copy(update={"state": in_state}),
        work_pool_filter=f.WorkPoolFilter(name=f.WorkPoolFilterName(any_=[environment.prefix])),
        sort=FlowRunSort.EXPECTED_START_TIME_ASC,
        limit=MOST_RUNS,
    )


def _without_task(environment: Environment, runs: "list[FlowRun]") -> "list[FlowRun]":
    """Runs whose ECS task has stopped a while ago, or that ECS has forgotten already."""
    tasks = {(run.infrastructure_pid or "").rpartition("::")[2]: run for run in runs if run.infrastructure_pid}
    ecs, cluster, gone = client(environment, "ecs"), f"{environment.prefix}_workflows", set()
    for start in range(0, len(tasks), TASKS_AT_ONCE):
        answer = ecs.describe_tasks(cluster=cluster, tasks=list(tasks)[start : start + TASKS_AT_ONCE])
        gone |= {failure["arn"] for failure in answer["failures"] if failure.get("reason") == "MISSING"}
        gone |= {task["taskArn"] for task in answer["tasks"] if _ended(task.get("stoppedAt"))}
    return [run for arn, run in tasks.items() if arn in gone]


def _ended(stopped: datetime | None) -> bool:
    return stopped is not None and datetime.now(UTC) - stopped > MARKED_WITHIN


def _limit(pool: "WorkPool") -> list[str]:
    """What is to be said of the limit of runs at a time, if there is one."""
    if pool.concurrency_limit is None:
        return []
    words = f"{pool.active_slots or 0} of at most {pool.concurrency_limit} runs at a time"
    return [words + (" (limit reached)" if (pool.active_slots or 0) >= pool.concurrency_limit else "")]


def _page(environment: Environment) -> str:
    return f"{environment.prefect_page_url}/work-pools/work-pool/{environment.prefix}"


def _count(runs: "list[FlowRun]") -> str:
    return f"{MOST_RUNS} or more" if len(runs) >= MOST_RUNS else str(len(runs))


def _names(runs: "list[FlowRun]") -> str:
    more = f" and {len(runs) - SHOWN} more" if len(runs) > SHOWN else ""
    return ", ".join(run.name for run in runs[:SHOWN]) + more
