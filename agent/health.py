"""Checks of the agent: its service at ECS, its image, its key, and whether Prefect sees it."""

from datetime import UTC, datetime
from typing import Any

from agent import releases
from agent.last_words import LOG_STREAM_PREFIX, explain
from agent.rollout import describe, online_agents, revision_number, running_tasks
from environments.errors import PlatformError
from environments.prefect_api import check_prefect
from environments.secrets import AGENT_TOKEN, WORKFLOW_TOKEN
from environments.settings import Environment
from infra.aws import client
from infra.health import missing_images
from infra.logs import last_lines

CRASHED = ("EssentialContainerExited", "TaskFailedToStart")
"""https://docs.aws.amazon.com/AmazonECS/latest/developerguide/stopped-task-error-codes.html"""
LOOP_OF_TASKS = 2
STABLE_AFTER_SECONDS = 30.0
LAST_LINES = 3
SECRETS = {"prefect_key": AGENT_TOKEN, "prefect_key_workflow": WORKFLOW_TOKEN}
"""Names of the secrets with the Prefect keys, and the variables that they come from."""


def at_ecs(environment: Environment) -> str:
    """Whether as many agents run as should, and don't stop by themselves again and again."""
    service = describe(environment)
    running, wanted = service["runningCount"], service["desiredCount"]
    if not wanted:
        raise PlatformError(
            "down", "somebody stopped it, or agent_count is 0; runs wait", _with(environment, "invoke agent --up")
        )
    crashed = _crashed_in_a_row(_tasks(environment, "STOPPED"))
    looping = len(crashed) >= LOOP_OF_TASKS and not _outlived(crashed[0], _tasks(environment, "RUNNING"))
    if looping or (running != wanted and crashed):
        raise PlatformError(
            f"crash loop, {len(crashed)} tasks stopped by themselves" if looping else f"{running} of {wanted} running",
            "\n".join(explain(environment, crashed[:1], timeout=0)),
            _with(environment, "invoke logs agent", "shows more; correct it, then invoke deploy"),
        )
    state = f"{running} of {wanted} running, revision {revision_number(service['taskDefinition'])}"
    if running != wanted:
        events = [event["message"] for event in service.get("events", [])[:1]]
        raise PlatformError(
            state,
            "\n".join(events),
            _with(environment, "invoke status", "again in a minute; if it stays so, invoke deploy"),
        )
    newer = releases.newer(environment, service["taskDefinition"])
    return f"{state}; {newer}" if newer else state


def _tasks(environment: Environment, status: str) -> list[dict[str, Any]]:
    """The newest tasks of the agent; ECS forgets those that have stopped after about an hour."""
    ecs, name = client(environment, "ecs"), environment.agent_name
    arns = ecs.list_tasks(cluster=name, serviceName=name, desiredStatus=status)["taskArns"]
    return ecs.describe_tasks(cluster=name, tasks=arns)["tasks"] if arns else []


def _crashed_in_a_row(stopped: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The tasks that stopped last, newest first, up to one that ECS or a person has stopped."""
    newest_first = sorted(stopped, key=_ended, reverse=True)
    ordered = [task.get("stopCode") in CRASHED for task in newest_first]
    return newest_first[: ordered.index(False)] if False in ordered else newest_first


def _outlived(crashed: dict[str, Any], running: list[dict[str, Any]]) -> bool:
    """Whether a healthy task has been running for longer than the one that crashed before it, or long enough."""
    began = crashed.get("startedAt") or _ended(crashed)
    lived = min((_ended(crashed) - began).total_seconds(), STABLE_AFTER_SECONDS)
    now = datetime.now(UTC)
    healthy = [task for task in running if task.get("healthStatus") == "HEALTHY"]
    return any((now - task["startedAt"]).total_seconds() > lived for task in healthy)


def _ended(task: dict[str, Any]) -> datetime:
    ended: datetime = task.get("stoppedAt") or task["createdAt"]
    return ended


def at_prefect(environment: Environment) -> str:
    """Whether Prefect sees the agents that run; it shows stopped ones online until they have missed some heartbeats."""
    online = online_agents(environment, patient=False)
    names = [f"{environment.prefix}_{task}" for task in running_tasks(environment)]
    if serving := [name for name in names if name in online]:
        return f"online: {', '.join(serving)}"
    lines = last_lines(environment, environment.agent_name, LOG_STREAM_PREFIX, LAST_LINES)
    raise PlatformError(
        "none online",
        "\n".join(["the agent at ECS has not been heard of for a while", *(f"| {line}" for line in lines)])
        if names
        else "none runs",
        _with(environment, "invoke logs agent", "tells what keeps it")
        if names
        else _with(environment, "invoke deploy"),
    )


def image(environment: Environment) -> str:
    """Whether ECR has the image of the revision that the service runs: the next task would not start without."""
    definition = client(environment, "ecs").describe_task_definition(
        taskDefinition=describe(environment)["taskDefinition"]
    )["taskDefinition"]
    uris: list[str] = [container["image"] for container in definition["containerDefinitions"]]
    if gone := missing_images(environment, uris):
        raise PlatformError(
            "not in ECR",
            f"{', '.join(gone)} is gone; the agent can't start again",
            _with(environment, "invoke deploy", "pushes it"),
        )
    return ", ".join(uri.rpartition("/")[2] for uri in uris)


def keys(environment: Environment) -> str:
    """Whether Prefect takes the keys that agent and workflows start with."""
    secrets_manager = client(environment, "secretsmanager")
    for of, variable in SECRETS.items():
        stored = secrets_manager.get_secret_value(SecretId=f"{environment.prefix}_{of}")["SecretString"]
        todo = "invoke deploy" if environment.is_local else f"set {variable} to a good one; invoke rotate-key"
        check_prefect(environment, key=stored, todo=_with(environment, todo))
    return "accepted"


def _with(environment: Environment, command: str, words: str = "") -> str:
    """A command for this environment, and what is to be said of it."""
    return f"{command} --env {environment.name} {words}".rstrip()
