"""The rollout of the agent: its ECS service gets a revision of the task definition, waited for until that one serves.

Done means that ECS calls the deployment completed *and* Prefect shows a worker online for each running task. If that
does not come, the service goes back to what it ran before, whose tasks ECS keeps until new ones are healthy; the error
shows why the new task stopped, the last lines it wrote, and who serves now.
"""

import time
from datetime import UTC, datetime
from typing import Any

from agent.last_words import explain
from environments import prefect_rest, progress
from environments.errors import PlatformError
from environments.settings import Environment
from infra.alarms import expect_agent
from infra.aws import client
from infra.terraform import Outputs

STEADY_TIMEOUT_SECONDS = 600
BACK_TIMEOUT_SECONDS = 60
POLL_SECONDS = 1.0
GIVE_UP_AFTER_TASKS = 2
"""ECS itself counts to three at least, and forgets them once a task was seen running:
https://docs.aws.amazon.com/AmazonECS/latest/developerguide/deployment-circuit-breaker.html"""


class NotUpError(PlatformError):
    """The agent's new tasks did not come up."""


def roll_out(environment: Environment, outputs: Outputs, key_since: datetime | None = None) -> str:
    """Let the service run what Terraform describes, as often as the settings say; gives the revision's ARN.

    Args:
        environment: whose agent.
        outputs: of Terraform; they name the revision of the task definition.
        key_since: as `move`.

    Raises:
        PlatformError: as `move`.
    """
    return move(environment, outputs.agent_task_definition_arn, environment.agent_count, key_since)


def scale(environment: Environment, count: int) -> None:
    """Let that many agents run, of the revision that the service has: a newer one may never have come up."""
    move(environment, describe(environment)["taskDefinition"], count)


def replace_older(environment: Environment, key_since: datetime) -> None:
    """Replace the agent's running tasks that may have another key, and change nothing else of the service."""
    service = describe(environment)
    move(environment, service["taskDefinition"], service["desiredCount"], key_since)


def move(environment: Environment, revision: str, count: int, key_since: datetime | None = None) -> str:
    """Let the service run a revision, wait until it does, and give its ARN.

    Args:
        environment: whose agent.
        revision: ARN of the task definition.
        count: how many agents.
        key_since: since when the secret has had its Prefect key: running tasks that are older are replaced. ECS stops
            them when the new ones are healthy.

    Raises:
        PlatformError: the new tasks did not come up; the service has gone back to what it ran before.
    """
    before = describe(environment)
    expect_agent(environment, count > 0)
    moves = before["taskDefinition"] != revision or before["desiredCount"] != count
    replaces = before["desiredCount"] > 0 and key_since is not None and _any_older(environment, key_since)
    if moves or replaces:
        _update(environment, revision, count, replaces)
    try:
        wait_until_steady(environment, revision, count)
    except NotUpError as error:
        why = "\n".join([error.why, _go_back(environment, before)])
        raise PlatformError(error.what, why, error.todo) from error
    running = f"{count} online" if count else "down"
    progress.note(running if moves or replaces else f"{running}, unchanged")
    return revision


def revision_number(arn: str) -> int:
    """The number of a revision, the last part of its ARN."""
    return int(arn.rsplit(":", 1)[-1])


def _update(environment: Environment, revision: str, count: int, replaces: bool = False) -> None:
    client(environment, "ecs").update_service(
        cluster=environment.agent_name,
        service=environment.agent_name,
        desiredCount=count,
        taskDefinition=revision,
        forceNewDeployment=replaces,
    )


def _go_back(environment: Environment, before: dict[str, Any]) -> str:
    """Have the service run again what it ran before, without waiting for ECS to give up; tells who serves now."""
    from botocore.exceptions import BotoCoreError, ClientError

    revision, count = _completed(before), before["desiredCount"]
    number = revision_number(revision)
    try:
        expect_agent(environment, count > 0)
        now = describe(environment)
        if (now["taskDefinition"], now["desiredCount"]) != (revision, count):
            _update(environment, revision, count)
        if not count:
            return "the agent is down, as it was before"
        deadline = time.monotonic() + BACK_TIMEOUT_SECONDS
        while time.monotonic() < deadline:
            if serving := _serving(environment, revision):
                return f"revision {number} serves as before: {', '.join(serving)} online"
            time.sleep(POLL_SECONDS)
    except (BotoCoreError, ClientError, PlatformError) as error:
        return f"going back to revision {number} failed: {error}"
    return f"ECS is to run revision {number} as before, but none of its agents is online; see invoke status"


def _completed(service: dict[str, Any]) -> str:
    """The revision that came up last: not that of a rollout which somebody interrupted, and which ECS is still at."""
    completed = (part for part in service["deployments"] if part.get("rolloutState") == "COMPLETED")
    revision: str = next(completed, service)["taskDefinition"]
    return revision


def _serving(environment: Environment, revision: str) -> list[str]:
    """Names of the agents of a revision whose tasks run and which Prefect shows online."""
    tasks = _described(environment, _tasks(environment, "RUNNING"))
    ours = [task["taskArn"].rsplit("/", 1)[-1] for task in tasks if task["taskDefinitionArn"] == revision]
    online = online_agents(environment)
    return [name for name in (f"{environment.prefix}_{task}" for task in ours) if name in online]


def _any_older(environment: Environment, moment: datetime) -> bool:
    return any(task["createdAt"] < moment for task in _described(environment, _tasks(environment, "RUNNING")))


def wait_until_steady(environment: Environment, revision: str, count: int) -> None:
    """Wait until the newest deployment of the service is completed and its agents are online at Prefect.

    Raises:
        NotUpError: ECS gave up, tasks stop by themselves, or it takes too long.
    """
    deadline = time.monotonic() + STEADY_TIMEOUT_SECONDS
    stopped_before = set(_tasks(environment, "STOPPED"))
    missing = ""
    while time.monotonic() < deadline:
        service = describe(environment)
        newest = next(part for part in service["deployments"] if part["status"] == "PRIMARY")
        if newest["taskDefinition"] != revision or newest.get("rolloutState") == "FAILED":
            reason = newest.get("rolloutStateReason") or "circuit breaker"
            raise _failed(environment, revision, f"ECS gave up: {reason}")
        missing = _missing(environment, service, newest, count)
        if not missing:
            return
        broken = _broken_tasks(environment, revision, stopped_before)
        if len(broken) >= GIVE_UP_AFTER_TASKS:
            raise _failed(environment, revision, f"{len(broken)} tasks stopped by themselves")
        progress.doing(f"waiting: {missing}")
        time.sleep(POLL_SECONDS)
    raise _failed(environment, revision, f"not up within {STEADY_TIMEOUT_SECONDS} s: {missing}")


def describe(environment: Environment) -> dict[str, Any]:
    """The ECS service of the agent as it is now.

    Raises:
        PlatformError: there is none.
    """
    from botocore.exceptions import ClientError

    name = environment.agent_name
    try:
        found = client(environment, "ecs").describe_services(cluster=name, services=[name])["services"]
    except ClientError as error:
        if error.response["Error"]["Code"] != "ClusterNotFoundException":
            raise
        found = []
    active = [service for service in found if service["status"] == "ACTIVE"]
    if not active:
        raise PlatformError(
            "the agent's ECS service is gone",
            environment.agent_name,
            f"invoke deploy --env {environment.name}",
        )
    service: dict[str, Any] = active[0]
    return service


def online_agents(environment: Environment, patient: bool = True) -> dict[str, datetime]:
    """Agents that Prefect shows online, with their last heartbeat; `patient` waits for a Prefect that is away."""
    path, which = f"/work_pools/{environment.prefix}/workers/filter", {"status": {"any_": ["ONLINE"]}}
    workers = prefect_rest.ask_all(environment, path, patient=patient, workers=which)
    beats = {worker["name"]: worker["last_heartbeat_time"] for worker in workers}
    return {name: datetime.fromisoformat(beat) if beat else datetime.now(UTC) for name, beat in beats.items()}


def running_tasks(environment: Environment) -> list[str]:
    """Ids of the agent's running ECS tasks."""
    return [arn.rsplit("/", 1)[-1] for arn in _tasks(environment, "RUNNING")]


def _tasks(environment: Environment, status: str) -> list[str]:
    name = environment.agent_name
    answer = client(environment, "ecs").list_tasks(cluster=name, serviceName=name, desiredStatus=status)
    arns: list[str] = answer["taskArns"]
    return arns


def _described(environment: Environment, arns: list[str]) -> list[dict[str, Any]]:
    if not arns:
        return []
    tasks = client(environment, "ecs").describe_tasks(cluster=environment.agent_name, tasks=arns[:100])["tasks"]
    return list(tasks)


def _broken_tasks(environment: Environment, revision: str, stopped_before: set[str]) -> list[dict[str, Any]]:
    """Tasks of the revision that have stopped since, and not because ECS or a user wanted it."""
    stopped = [arn for arn in _tasks(environment, "STOPPED") if arn not in stopped_before]
    return [
        task
        for task in _described(environment, stopped)
        if task["taskDefinitionArn"] == revision
        and (
            task.get("stopCode") in ("EssentialContainerExited", "TaskFailedToStart")
            # ECS stops these itself: https://repost.aws/knowledge-center/ecs-task-stopped
            or "health check" in task.get("stoppedReason", "")
        )
    ]


def _missing(environment: Environment, service: dict[str, Any], newest: dict[str, Any], wanted: int) -> str:
    """What is still missing for a steady service; empty when nothing is."""
    if service["runningCount"] != wanted or service["pendingCount"]:
        return f"{service['runningCount']} of {wanted} tasks running at ECS"
    # ECS goes on showing a failed deployment that has no tasks any more.
    if any(part["runningCount"] + part["pendingCount"] for part in service["deployments"] if part is not newest):
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


def _failed(environment: Environment, revision: str, why: str) -> NotUpError:
    arns = [*_tasks(environment, "STOPPED"), *_tasks(environment, "RUNNING")]
    tasks = [task for task in _described(environment, arns) if task["taskDefinitionArn"] == revision]
    return NotUpError(
        f"revision {revision_number(revision)} of the agent did not come up",
        "\n".join([why, *explain(environment, tasks)]),
        f"correct it and run invoke deploy --env {environment.name} again",
    )
