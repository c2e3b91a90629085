"""The rollout of the agent: a new revision of its ECS service, waited for until it serves.

Done means that ECS calls the deployment completed *and* Prefect shows a worker online for each running task. If that
does not come, the error shows why the task stopped and the last lines it wrote.
"""

import dataclasses
import time
from datetime import UTC, datetime
from typing import Any

from environments import console
from environments.errors import PlatformError
from environments.prefect_api import prefect_client
from environments.settings import Environment
from infra.aws import client
from infra.logs import last_lines
from infra.terraform import Outputs

STEADY_TIMEOUT_SECONDS = 600
POLL_SECONDS = 1.0
GIVE_UP_AFTER_TASKS = 2
LAST_WORDS_TIMEOUT_SECONDS = 10.0
LOG_STREAM_PREFIX = "agent/agent/"
"""Prefix and container of the agent's task definition; the task's id follows."""


def roll_out(
    environment: Environment, outputs: Outputs, key_since: datetime | None = None, count: int | None = None
) -> None:
    """Let the service run what Terraform describes, and wait until it does.

    Args:
        environment: whose agent.
        outputs: of Terraform; they name the revision of the task definition.
        key_since: since when the secret has had its Prefect key: running tasks that are older are replaced. ECS stops
            them when the new ones are healthy.
        count: how many agents; the settings' `agent_count` if not given.

    Raises:
        PlatformError: the new tasks did not come up; ECS has gone back to the revision before, if there was one.
    """
    ecs = client(environment, "ecs")
    wanted = environment.agent_count if count is None else count
    service = describe(environment)
    moves = service["taskDefinition"] != outputs.agent_task_definition_arn or service["desiredCount"] != wanted
    replaces = service["desiredCount"] > 0 and key_since is not None and _any_older(environment, key_since)
    if moves or replaces:
        service = ecs.update_service(
            cluster=environment.agent_name,
            service=environment.agent_name,
            desiredCount=wanted,
            taskDefinition=outputs.agent_task_definition_arn,
            forceNewDeployment=replaces,
        )["service"]
    wait_until_steady(environment, outputs, wanted)
    running = f"{wanted} online" if wanted else "down"
    console.note(running if moves or replaces else f"{running}, unchanged")


def replace_older(environment: Environment, outputs: Outputs, key_since: datetime) -> None:
    """Replace the agent's running tasks that may have another key, and change nothing else of the service."""
    service = describe(environment)
    as_it_is = dataclasses.replace(outputs, agent_task_definition_arn=service["taskDefinition"])
    roll_out(environment, as_it_is, key_since, service["desiredCount"])


def _any_older(environment: Environment, moment: datetime) -> bool:
    running = _tasks(environment, "RUNNING")
    if not running:
        return False
    tasks = client(environment, "ecs").describe_tasks(cluster=environment.agent_name, tasks=running)["tasks"]
    return any(task["createdAt"] < moment for task in tasks)


def wait_until_steady(environment: Environment, outputs: Outputs, wanted: int) -> None:
    """Wait until the newest deployment of the service is completed and its agents are online at Prefect."""
    deadline = time.monotonic() + STEADY_TIMEOUT_SECONDS
    stopped_before = set(_tasks(environment, "STOPPED"))
    missing = ""
    while time.monotonic() < deadline:
        service = describe(environment)
        newest = next(part for part in service["deployments"] if part["status"] == "PRIMARY")
        if newest["taskDefinition"] != outputs.agent_task_definition_arn or newest.get("rolloutState") == "FAILED":
            raise _failed(environment, f"ECS gave up: {newest.get('rolloutStateReason', 'circuit breaker')}")
        missing = _missing(environment, service, newest, wanted)
        if not missing:
            return
        broken = _broken_tasks(environment, stopped_before)
        if len(broken) >= GIVE_UP_AFTER_TASKS:
            raise _failed(environment, f"{len(broken)} tasks stopped by themselves")
        console.progress(f"waiting: {missing}")
        time.sleep(POLL_SECONDS)
    raise _failed(environment, f"not up within {STEADY_TIMEOUT_SECONDS} s: {missing}")


def describe(environment: Environment) -> dict[str, Any]:
    """The ECS service of the agent as it is now."""
    found = client(environment, "ecs").describe_services(
        cluster=environment.agent_name, services=[environment.agent_name]
    )
    active = [service for service in found["services"] if service["status"] == "ACTIVE"]
    if not active:
        raise PlatformError(
            "the agent's ECS service is gone",
            environment.agent_name,
            f"invoke deploy --env {environment.name}",
        )
    service: dict[str, Any] = active[0]
    return service


def online_agents(environment: Environment) -> dict[str, datetime]:
    """Agents that Prefect shows online, with the time of their last heartbeat."""
    from prefect.client.schemas.objects import WorkerStatus

    with prefect_client(environment) as api:
        workers = api.read_workers_for_work_pool(environment.prefix)
    return {
        worker.name: worker.last_heartbeat_time or datetime.now(UTC)
        for worker in workers
        if worker.status == WorkerStatus.ONLINE
    }


def running_tasks(environment: Environment) -> list[str]:
    """Ids of the agent's running ECS tasks."""
    return [arn.rsplit("/", 1)[-1] for arn in _tasks(environment, "RUNNING")]


def _tasks(environment: Environment, status: str) -> list[str]:
    name = environment.agent_name
    answer = client(environment, "ecs").list_tasks(cluster=name, serviceName=name, desiredStatus=status)
    arns: list[str] = answer["taskArns"]
    return arns


def _broken_tasks(environment: Environment, stopped_before: set[str]) -> list[dict[str, Any]]:
    """Tasks of the agent that have stopped since, and not because ECS or a user wanted it."""
    stopped = [arn for arn in _tasks(environment, "STOPPED") if arn not in stopped_before][:100]
    if not stopped:
        return []
    tasks = client(environment, "ecs").describe_tasks(cluster=environment.agent_name, tasks=stopped)["tasks"]
    return [task for task in tasks if task.get("stopCode") in ("EssentialContainerExited", "TaskFailedToStart")]


def _missing(environment: Environment, service: dict[str, Any], newest: dict[str, Any], wanted: int) -> str:
    """What is still missing for a steady service; empty when nothing is."""
    if service["runningCount"] != wanted or service["pendingCount"]:
        return f"{service['runningCount']} of {wanted} tasks running at ECS"
    if len(service["deployments"]) > 1:
        return "ECS is stopping the tasks of the revision before"
    if newest.get("rolloutState", "COMPLETED") != "COMPLETED":
        return "ECS is looking whether the new tasks stay up"
    if not wanted:
        return ""
    tasks, online = running_tasks(environment), online_agents(environment)
    if len(tasks) != wanted:
        return f"{len(tasks)} of {wanted} tasks running at ECS"
    absent = [task for task in tasks if f"{environment.prefix}_{task}" not in online]
    return f"agent of task {absent[0]} is not online at Prefect yet" if absent else ""


def _failed(environment: Environment, why: str) -> PlatformError:
    stopped = _tasks(environment, "STOPPED")[:100]
    tasks = (
        client(environment, "ecs").describe_tasks(cluster=environment.agent_name, tasks=stopped)["tasks"]
        if stopped
        else []
    )
    tasks.sort(key=lambda task: str(task.get("stoppedAt", task.get("createdAt", ""))), reverse=True)
    reasons = [f"task stopped: {task.get('stoppedReason', 'no reason given')}" for task in tasks[:1]]
    reasons += [
        f"container {container['name']} exited with {container['exitCode']} {container.get('reason', '')}".rstrip()
        for task in tasks[:1]
        for container in task["containers"]
        if container.get("exitCode") is not None
    ]
    lines = _last_words(environment, tasks)
    return PlatformError(
        "the agent did not come up",
        "\n".join([why, *reasons, *(f"| {line}" for line in lines)]),
        f"correct it and run invoke deploy --env {environment.name} again",
    )


def _last_words(environment: Environment, tasks: list[dict[str, Any]]) -> list[str]:
    """The last lines of the newest of these tasks that wrote any; they reach CloudWatch a moment after the end."""
    streams = [f"{LOG_STREAM_PREFIX}{task['taskArn'].rsplit('/', 1)[-1]}" for task in tasks[:5]] or [LOG_STREAM_PREFIX]
    deadline = time.monotonic() + LAST_WORDS_TIMEOUT_SECONDS
    while True:
        for stream in streams:
            if lines := last_lines(environment, environment.agent_name, stream):
                return lines
        if time.monotonic() > deadline:
            return []
        time.sleep(POLL_SECONDS)
