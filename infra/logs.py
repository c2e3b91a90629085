"""Reads what containers wrote, from CloudWatch Logs."""

import re
import time
from collections.abc import Iterator

from environments.errors import PlatformError
from environments.settings import Environment
from infra.aws import client

FOLLOW_SECONDS = 1.0
MAXIMUM_LINES = 10_000
"""https://docs.aws.amazon.com/AmazonCloudWatchLogs/latest/APIReference/API_GetLogEvents.html"""


def line_count(text: str) -> int:
    """How many lines a user wants to see.

    Raises:
        PlatformError: it is no number, or none that CloudWatch gives at once.
    """
    if not re.fullmatch("[0-9]{1,5}", text) or not 1 <= int(text) <= MAXIMUM_LINES:
        raise PlatformError(
            f"--lines {text!r} can't be shown", f"it is a whole number from 1 to {MAXIMUM_LINES}", "write --lines 100"
        )
    return int(text)


def last_lines(environment: Environment, log_group: str, prefix: str = "", limit: int = 15) -> list[str]:
    """The last lines of the newest log stream of a group.

    Args:
        environment: whose logs.
        log_group: name of the group.
        prefix: of the stream's name, to choose among several writers.
        limit: how many lines.
    """
    stream = _newest_stream(environment, log_group, prefix)
    if not stream:
        return []
    logs = client(environment, "logs")
    events = logs.get_log_events(logGroupName=log_group, logStreamName=stream, limit=limit)["events"]
    return [event["message"] for event in events]


def follow(environment: Environment, log_group: str, prefix: str = "") -> Iterator[str]:
    """Lines as they come, for ever; goes on with the next stream when a new task starts."""
    logs = client(environment, "logs")
    seen: dict[str, str] = {}
    while True:
        stream = _newest_stream(environment, log_group, prefix)
        while stream:
            token = {"nextToken": seen[stream]} if stream in seen else {}
            answer = logs.get_log_events(logGroupName=log_group, logStreamName=stream, startFromHead=True, **token)
            yield from (event["message"] for event in answer["events"])
            finished = not answer["events"] or answer["nextForwardToken"] == seen.get(stream)
            seen[stream] = answer["nextForwardToken"]
            if finished:
                break
        time.sleep(FOLLOW_SECONDS)


def _newest_stream(environment: Environment, log_group: str, prefix: str) -> str:
    logs = client(environment, "logs")
    choice = {"logStreamNamePrefix": prefix} if prefix else {"orderBy": "LastEventTime", "descending": True}
    try:
        pages = logs.get_paginator("describe_log_streams").paginate(logGroupName=log_group, **choice)
        streams = [stream for page in pages for stream in page["logStreams"]]
    except logs.exceptions.ResourceNotFoundException as error:
        raise PlatformError(
            f"environment {environment.name} has no log group {log_group}",
            "it is not deployed",
            f"invoke deploy --env {environment.name}",
        ) from error
    newest = max(
        streams,
        key=lambda stream: stream.get("lastEventTimestamp", stream.get("creationTime", 0)),
        default=None,
    )
    return newest["logStreamName"] if newest else ""
