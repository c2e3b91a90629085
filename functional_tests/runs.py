"""Runs and their ECS tasks, as tests create them and look at them: by the APIs, without the project's code."""

import datetime
from pathlib import Path
from typing import Any

from functional_tests.platform import Platform, wait_for

RUN_TAG = "prefect.io/flow-run-id"
AT_ONCE = 100


def register(platform: Platform, folder: Path, flow: str, code: str) -> str:
    """Register a workflow that is one small file, in a new folder; gives the id of the flow's deployment."""
    folder.mkdir()
    (folder / "flow.py").write_text(code)
    platform.invoke("register", "--workflow-path", str(folder), "--cpu", "256", "--memory", "512")
    return str(deployment(platform, flow)["id"])


def deployment(platform: Platform, flow: str, name: str = "") -> dict[str, Any]:
    """A deployment of a flow; by default the one that is named after the environment."""
    named = {"name": {"any_": [name or platform.name]}}
    (found,) = platform.prefect("/deployments/filter", flows={"name": {"any_": [flow]}}, deployments=named)
    return dict(found)


def family(platform: Platform, flow: str, name: str = "") -> str:
    """The task definition family of a deployment's runs; arguments as for `deployment`."""
    return f"{platform.prefix}_workflow_{deployment(platform, flow, name)['job_variables']['family']}"


def create(platform: Platform, deployment: str, **properties: Any) -> str:
    """Create a run of a deployment; gives its id."""
    return str(platform.prefect(f"/deployments/{deployment}/create_flow_run", properties)["id"])


def read(platform: Platform, runs: list[str]) -> dict[str, dict[str, Any]]:
    """Runs by id."""
    found = platform.prefect("/flow_runs/filter", flow_runs={"id": {"any_": runs}}, limit=200)
    return {run["id"]: run for run in found}


def states(platform: Platform, run: str) -> list[dict[str, Any]]:
    """The states that a run has had, in their order."""
    found = platform.prefect(f"/flow_run_states/?flow_run_id={run}", method="GET")
    return sorted(found, key=lambda state: str(state["timestamp"]))


def wait_for_state(platform: Platform, run: str, name: str, seconds: float = 60, nth: int = 1) -> dict[str, Any]:
    """Wait until a run has got a state of this name for the nth time; gives that state."""

    def there() -> Any:
        return [state for state in states(platform, run) if state["name"] == name][nth - 1 : nth]

    (found,) = wait_for(f"{name} of run {run}", there, seconds)
    return dict(found)


def log(platform: Platform, run: str) -> str:
    """The log of a run at Prefect."""
    lines = platform.prefect("/logs/filter", logs={"flow_run_id": {"any_": [run]}}, sort="TIMESTAMP_ASC", limit=200)
    return "\n".join(line["message"] for line in lines)


def container(platform: Platform, run: str) -> Any:
    """The container that a run is in now, None if there is none."""
    variable = f"PREFECT__FLOW_RUN_ID={run}"
    running = platform.containers("")
    return next((each for each in running if variable in each.attrs["Config"]["Env"]), None)


def run_and_see(platform: Platform, flow: str, *options: str) -> tuple[Any, str]:
    """Run a flow by command to its end; gives the container of its task, as it was then, and what was printed.

    Containers go when their task has ended.
    """
    command, its_family = ("run", flow, *options), family(platform, flow)
    process = platform.start(*command)
    try:
        (container,) = wait_for(f"a container of {its_family}", lambda: platform.containers(its_family))
    finally:
        done = platform.finish(process, *command)
    return container, done.stdout


def tasks(platform: Platform) -> dict[str, list[dict[str, Any]]]:
    """All ECS tasks of workflows that there were lately, by run, in the order in which they were created."""
    ecs, cluster = platform.aws("ecs"), f"{platform.prefix}_workflows"
    arns: list[str] = []
    for status in ("RUNNING", "STOPPED"):
        for page in ecs.get_paginator("list_tasks").paginate(cluster=cluster, desiredStatus=status):
            arns += page["taskArns"]
    found: dict[str, list[dict[str, Any]]] = {}
    for first in range(0, len(arns), AT_ONCE):
        some = arns[first : first + AT_ONCE]
        for task in ecs.describe_tasks(cluster=cluster, tasks=some, include=["TAGS"])["tasks"]:
            tags = {tag["key"]: tag["value"] for tag in task["tags"]}
            found.setdefault(tags[RUN_TAG], []).append(task)
    return {run: sorted(each, key=lambda task: task["createdAt"]) for run, each in found.items()}


def moment(state: dict[str, Any]) -> datetime.datetime:
    """When a run came into a state."""
    return datetime.datetime.fromisoformat(state["timestamp"].replace("Z", "+00:00"))
