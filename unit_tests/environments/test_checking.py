import threading
from collections.abc import Callable

import pytest
from botocore.exceptions import NoCredentialsError

from environments import checking
from environments.checking import Finding
from environments.errors import PlatformError
from environments.settings import Environment


def _raises(error: Exception) -> Callable[[Environment], str]:
    def look(_: Environment) -> str:
        raise error

    return look


WRONG = PlatformError("queue is full", "nobody reads", "invoke logs agent")


def test_what_is_wrong_says_why_and_what_to_do_and_the_others_are_still_looked_at(environment: Environment) -> None:
    found = checking.run(environment, [("queue", _raises(WRONG)), ("agent", lambda env: f"fine in {env.name}")])

    assert found == [
        Finding("queue", False, "queue is full", "nobody reads", "invoke logs agent"),
        Finding("agent", True, "fine in dev"),
    ]


def test_check_that_can_not_look_is_wrong_and_nothing_is_raised(environment: Environment) -> None:
    [found] = checking.run(environment, [("queue", _raises(NoCredentialsError()))])

    assert not found.ok
    assert "credentials" in found.why
    assert "invoke doctor" in found.todo


def test_check_that_hangs_does_not_keep_the_process_from_ending(environment: Environment) -> None:
    [found] = checking.run(environment, [("queue", lambda _: str(threading.current_thread().daemon))])

    assert found.state == "True"


def test_hint_is_well_and_says_what_to_do(environment: Environment, capsys: pytest.CaptureFixture[str]) -> None:
    found = checking.run(environment, [("queue", _raises(checking.Hint("old", "built in May", "build it again")))])
    code = checking.show(found)
    printed = capsys.readouterr().out.splitlines()

    assert found == [Finding("queue", True, "old", "built in May", "build it again")]
    assert code == 0
    assert printed[0].split() == ["hint", "queue", "old"]
    assert [line.strip() for line in printed[2:]] == ["! old", "built in May", "→ build it again"]


def test_nothing_to_check_finds_nothing(environment: Environment) -> None:
    assert checking.run(environment, []) == []
    assert checking.show([Finding("agent", True, "fine")]) == 0


def test_one_reason_of_several_findings_is_told_once(
    environment: Environment, capsys: pytest.CaptureFixture[str]
) -> None:
    code = checking.show(checking.run(environment, [("one", _raises(WRONG)), ("two", _raises(WRONG))]))
    printed = capsys.readouterr().out

    assert code == 1
    assert [line.split()[:2] for line in printed.splitlines()[:2]] == [["WRONG", "one"], ["WRONG", "two"]]
    assert printed.count("✗ queue is full") == 1
    assert printed.count("→ invoke logs agent") == 1
