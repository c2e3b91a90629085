import asyncio
from typing import Any

import pytest

from agent import task_log
from unit_tests.agent import ecs_fake

DEFINITION = "arn:aws:ecs:eu-west-1:123456789012:task-definition/sales:1"
TASK = "arn:aws:ecs:eu-west-1:123456789012:task/workflows/0123abcd"
PLACE = ("dev_workflows", "sales/workflow/0123abcd")


class Definitions:
    """ECS that knows one task definition."""

    async def describe_task_definition(self, taskDefinition: str) -> dict[str, Any]:
        assert taskDefinition == DEFINITION
        options = {"awslogs-group": "dev_workflows", "awslogs-stream-prefix": "sales"}
        containers = [{"name": "workflow", "logConfiguration": {"options": options}}, {"name": "sidecar"}]
        return {"taskDefinition": {"containerDefinitions": containers}}


class Logs:
    """CloudWatch Logs with one stream, of which a page has two events."""

    class exceptions:
        class ResourceNotFoundException(Exception):
            pass

    def __init__(self, *lines: str) -> None:
        self.lines = lines
        self.patterns: set[str] = set()

    async def filter_log_events(
        self, logGroupName: str, logStreamNames: list[str], filterPattern: str, nextToken: str = "0"
    ) -> dict[str, Any]:
        if (logGroupName, *logStreamNames) != PLACE:
            raise self.exceptions.ResourceNotFoundException
        self.patterns.add(filterPattern)
        start = int(nextToken)
        more = {"nextToken": str(start + 2)} if start + 2 < len(self.lines) else {}
        return {"events": [{"message": line} for line in self.lines[start : start + 2]], **more}


def test_place_is_that_of_the_first_container(monkeypatch: pytest.MonkeyPatch) -> None:
    ecs_fake.install(monkeypatch, ecs=Definitions())
    place = asyncio.run(task_log.place_of({"taskArn": TASK, "taskDefinitionArn": DEFINITION}))

    assert place == PLACE


def test_lines_with_words_are_found_on_all_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    logs = Logs("holds a", "other", "other", "other", "holds b", "holds c")
    ecs_fake.install(monkeypatch, logs=logs)

    assert asyncio.run(task_log.lines_with(PLACE, "holds")) == ["holds a", "holds b", "holds c"]
    assert logs.patterns == {'"holds"'}


def test_stream_that_was_never_written_to_has_no_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    ecs_fake.install(monkeypatch, logs=Logs())

    assert asyncio.run(task_log.lines_with(("dev_workflows", "sales/workflow/other"), "holds")) == []


def test_last_lines_are_asked_of_the_stream(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []
    logs = Logs()

    async def fetch(**arguments: Any) -> list[str]:
        asked.append(arguments)
        return ["the last line"]

    ecs_fake.install(monkeypatch, logs=logs)
    monkeypatch.setattr(task_log, "fetch_cloudwatch_logs", fetch)

    assert asyncio.run(task_log.last_lines(PLACE, 20)) == ["the last line"]
    assert asked == [{"logs_client": logs, "log_group": PLACE[0], "log_stream": PLACE[1], "max_events": 20}]
