"""Why the agent's tasks stopped, and the last lines that they wrote."""

import time
from typing import Any

from environments.settings import Environment
from infra.logs import last_lines

TIMEOUT_SECONDS = 10.0
POLL_SECONDS = 1.0
LOG_STREAM_PREFIX = "agent/agent/"
"""Prefix and container of the agent's task definition; the task's id follows."""


def explain(environment: Environment, tasks: list[dict[str, Any]], timeout: float = TIMEOUT_SECONDS) -> list[str]:
    """Lines for an error: why the newest of these ECS tasks stopped, and the last ones that any of them wrote.

    Args:
        environment: whose agent.
        tasks: as ECS describes them.
        timeout: seconds to wait for lines; they reach CloudWatch a moment after the end.
    """
    newest = sorted(tasks, key=lambda task: str(task.get("stoppedAt", "")), reverse=True)
    stopped = [task for task in newest[:1] if task.get("stoppedAt")]
    reasons = [f"task stopped: {task.get('stoppedReason', 'no reason given')}" for task in stopped]
    reasons += [
        f"container {container['name']} exited with {container['exitCode']} {container.get('reason', '')}".rstrip()
        for task in stopped
        for container in task["containers"]
        if container.get("exitCode") is not None
    ]
    return [*reasons, *(f"| {line}" for line in _lines(environment, newest, timeout))]


def _lines(environment: Environment, tasks: list[dict[str, Any]], timeout: float) -> list[str]:
    """The last lines of the first of these tasks that wrote any."""
    streams = [f"{LOG_STREAM_PREFIX}{task['taskArn'].rsplit('/', 1)[-1]}" for task in tasks[:5]]
    deadline = time.monotonic() + timeout
    while streams:
        for stream in streams:
            if lines := last_lines(environment, environment.agent_name, stream):
                return lines
        if time.monotonic() > deadline:
            break
        time.sleep(POLL_SECONDS)
    return []
