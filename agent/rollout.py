"""The rollout of the agent: a new revision of its ECS service, waited for until it serves.

Done means that ECS calls the deployment completed *and* Prefect shows a worker online for each running task. If that
does not come, the error shows why the task stopped and the last lines it wrote.
"""

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


def roll_out(environment: Environment, outputs: Outputs, key_changed: bool, count: int | None = None) -> None:
    """Let the service run what Terraform describes, and wait until it does.

    Args:
        environment: whose agent.
        outputs: of Terraform; they name the revision of the task definition.
        key_changed: the Prefect key is another one: running tasks have the old one and must be replaced.
        count: how many agents; the settings' `agent_count` if not given.

    Raises:
        PlatformError: the new tasks did not come up; ECS has gone back to the revision before, if there was one.
    """
    ecs = client(environment, "ecs")
    wanted = environment.agent_count if count is None else count
    service = describe(environment, outputs)
    moves = service["taskDefinition"] != outputs.agent_task_definition_arn or service["desiredCount"] != wanted
    replaces = key_changed and service["desiredCount"] > 0
    if moves or replaces:
        service = ecs.update_service(
            cluster=outputs.agent_cluster,
            service=outputs.agent_service,
            desiredCount=wanted,
            taskDefinition=outputs.agent_task_definition_arn,
            forceNewDeployment=replaces,
        )["service"]
    wait_until_steady(environment, outputs, wanted)
    running = f"{wanted} online" if wanted else "down"
    console.note(running if moves or replaces else f"{running}, unchanged")


def wait_until_steady(environment: Environment, outputs: Outputs, wanted: int) -> None:
    """Wait until the newest deployment of the service is completed and its agents are online at Prefect."""
    deadline = time.monotonic() + STEADY_TIMEOUT_SECONDS
    missing = ""
    while time.monotonic() < deadline:
        service = describe(environment, outputs)
        newest = next(part for part in service["deployments"] if part["status"] == "PRIMARY")
        if newest["taskDefinition"] != outputs.agent_task_definition_arn or newest.get("rolloutState") == "FAILED":
            raise _failed(environment, outputs, f"ECS gave up: {newest.get('rolloutStateReason', 'circuit breaker')}")
        if newest.get("failedTasks", 0) >= 2:
            raise _failed(environment, outputs, f"{newest['failedTasks']} tasks stopped right after their start")
        missing = _missing(environment, outputs, service, newest, wanted)
        if not missing:
            return
        console.progress(f"waiting: {missing}")
        time.sleep(POLL_SECONDS)
    raise _failed(environment, outputs, f"not up within {STEADY_TIMEOUT_SECONDS} s: {missing}")


def describe(environment: Environment, outputs: Outputs) -> dict[str, Any]:
    """The ECS service of the agent as it is now."""
    found = client(environment, "ecs").describe_services(
        cluster=outputs.agent_cluster, services=[outputs.agent_service]
    )
    if not found["services"]:
        raise PlatformError(
            "the agent's ECS service is gone",
            outputs.agent_service,
            f"invoke deploy --env {environment.name}",
        )
    service: dict[str, Any] = found["services"][0]
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


def running_tasks(environment: Environment, outputs: Outputs) -> list[str]:
    """Ids of the agent's running ECS tasks."""
    ecs = client(environment, "ecs")
    arns = ecs.list_tasks(cluster=outputs.agent_cluster, serviceName=outputs.agent_service, desiredStatus="RUNNING")[
        "taskArns"
    ]
    return [arn.rsplit("/", 1)[-1] for arn in arns]


def _missing(
    environment: Environment, outputs: Outputs, service: dict[str, Any], newest: dict[str, Any], wanted: int
) -> str:
    """What is still missing for a steady service; empty when nothing is."""
    if service["runningCount"] != wanted or service["pendingCount"]:
        return f"{service['runningCount']} of {wanted} tasks running at ECS"
    if len(service["deployments"]) > 1:
        return "ECS is stopping the tasks of the revision before"
    if newest.get("rolloutState", "COMPLETED") != "COMPLETED":
        return "ECS is looking whether the new tasks stay up"
    if not wanted:
        return ""
    online = online_agents(environment)
    absent = [task for task in running_tasks(environment, outputs) if f"{environment.prefix}_{task}" not in online]
    return f"agent of task {absent[0]} is not online at Prefect yet" if absent else ""


def _failed(environment: Environment, outputs: Outputs, why: str) -> PlatformError:
    ecs = client(environment, "ecs")
    stopped = ecs.list_tasks(cluster=outputs.agent_cluster, serviceName=outputs.agent_service, desiredStatus="STOPPED")[
        "taskArns"
    ]
    reasons = []
    if stopped:
        tasks = ecs.describe_tasks(cluster=outputs.agent_cluster, tasks=stopped[:100])["tasks"]
        last = max(tasks, key=lambda task: str(task.get("stoppedAt", task.get("createdAt", ""))))
        reasons.append(f"task stopped: {last.get('stoppedReason', 'no reason given')}")
        reasons += [
            f"container {container['name']} exited with {container['exitCode']} {container.get('reason', '')}".rstrip()
            for container in last["containers"]
            if container.get("exitCode") is not None
        ]
    lines = last_lines(environment, outputs.agent_log_group)
    return PlatformError(
        "the agent did not come up",
        "\n".join([why, *reasons, *(f"| {line}" for line in lines)]),
        f"correct it and run invoke deploy --env {environment.name} again",
    )
