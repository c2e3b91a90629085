"""What the task of a run wrote to CloudWatch Logs."""

import itertools
from collections.abc import Mapping
from typing import Any

from prefect_aws.observers.ecs import fetch_cloudwatch_logs

from agent import aws

Place = tuple[str, str]
"""Name of a log group, and of a stream in it."""


async def place_of(task: Mapping[str, Any]) -> Place:
    """Return where the first container of a task writes.

    Args:
        task: as ECS describes it.
    """
    async with aws.client("ecs") as ecs:
        found = await ecs.describe_task_definition(taskDefinition=task["taskDefinitionArn"])
    container = found["taskDefinition"]["containerDefinitions"][0]
    options = container["logConfiguration"]["options"]
    task_id = task["taskArn"].rpartition("/")[2]
    return options["awslogs-group"], f"{options['awslogs-stream-prefix']}/{container['name']}/{task_id}"


async def last_lines(place: Place, count: int) -> list[str]:
    """Return the last lines of a stream; none when nothing was ever written."""
    group, stream = place
    async with aws.client("logs") as logs:
        lines: list[str] = await fetch_cloudwatch_logs(
            logs_client=logs, log_group=group, log_stream=stream, max_events=count
        )
    return lines


async def lines_with(place: Place, words: str) -> list[str]:
    """Return the lines of a stream that contain some words."""
    group, stream = place
    found: list[str] = []
    async with aws.client("logs") as logs:
        token: dict[str, str] = {}
        for _ in itertools.count():
            try:
                page = await logs.filter_log_events(
                    logGroupName=group, logStreamNames=[stream], filterPattern=f'"{words}"', **token
                )
            except logs.exceptions.ResourceNotFoundException:
                return found  # nothing was ever written
            found += [event["message"] for event in page["events"] if words in event["message"]]
            if "nextToken" not in page:
                break
            token = {"nextToken": page["nextToken"]}
    return found
