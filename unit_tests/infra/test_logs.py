import itertools
import time
from collections.abc import Callable
from typing import Any

import pytest

from environments.errors import PlatformError
from environments.settings import Environment
from infra import logs

Aws = Callable[[str], Any]
GROUP = "dev_dataflow_automation_workflows"


@pytest.fixture
def write(aws_mocked: Aws) -> Callable[[str, list[str]], None]:
    """Make a log group; gives a function that writes lines to a stream of it, each later than the ones before."""
    cloudwatch = aws_mocked("logs")
    cloudwatch.create_log_group(logGroupName=GROUP)
    clock = itertools.count(int(time.time() * 1000) - 60_000)
    known: set[str] = set()

    def written(stream: str, lines: list[str]) -> None:
        if stream not in known:
            known.add(stream)
            cloudwatch.create_log_stream(logGroupName=GROUP, logStreamName=stream)
        events = [{"timestamp": next(clock), "message": line} for line in lines]
        cloudwatch.put_log_events(logGroupName=GROUP, logStreamName=stream, logEvents=events)

    return written


def test_last_lines_are_those_of_the_newest_stream(
    environment: Environment, write: Callable[[str, list[str]], None]
) -> None:
    write("b/1", [f"old {number}" for number in range(3)])
    write("a/2", [f"new {number}" for number in range(5)])

    assert logs.last_lines(environment, GROUP, limit=2) == ["new 3", "new 4"]


def test_prefix_chooses_among_several_writers(
    environment: Environment, write: Callable[[str, list[str]], None]
) -> None:
    write("sales/1", ["sales, old"])
    write("sales/0", ["sales, new"])
    write("sales_daily/1", ["daily"])
    write("stock/1", ["stock"])

    assert logs.last_lines(environment, GROUP, "sales/") == ["sales, new"]


def test_nothing_written_yet_is_no_error(environment: Environment, write: Callable[[str, list[str]], None]) -> None:
    write("a/1", ["a"])

    assert logs.last_lines(environment, GROUP, "nobody/") == []


def test_environment_that_is_not_deployed_is_told(environment: Environment, aws_mocked: Aws) -> None:
    with pytest.raises(PlatformError) as caught:
        logs.last_lines(environment, GROUP)

    assert GROUP in caught.value.what
    assert caught.value.todo == "invoke deploy --env dev"


def test_following_gives_each_line_once_and_goes_on_with_the_next_task(
    environment: Environment, write: Callable[[str, list[str]], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logs, "FOLLOW_SECONDS", 0.0)
    write("a/1", ["one", "two"])
    lines = logs.follow(environment, GROUP)
    seen = [next(lines), next(lines)]
    write("a/1", ["three"])
    seen.append(next(lines))
    write("a/2", ["four"])
    seen.append(next(lines))

    assert seen == ["one", "two", "three", "four"]


@pytest.mark.parametrize("text", ["many", "0", "-1", "10001", "1e3", "9" * 5000, "", "\N{ARABIC-INDIC DIGIT ONE}"])
def test_number_of_lines_that_cloudwatch_does_not_give_is_refused(text: str) -> None:
    with pytest.raises(PlatformError, match="whole number from 1 to 10000"):
        logs.line_count(text)


def test_number_of_lines_is_read() -> None:
    assert [logs.line_count(text) for text in ("1", "0100", "10000")] == [1, 100, 10000]
