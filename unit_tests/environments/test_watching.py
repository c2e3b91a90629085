"""A page that stays up to date: in place on a terminal, below each other elsewhere, until Ctrl-C."""

import os
import pty
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable

import pytest

from environments import console, watching
from environments.errors import PlatformError
from environments.settings import ROOT

PROGRAM = """
import itertools, signal, sys
from environments import console, watching

looks = itertools.count(1)
signal.signal(signal.SIGINT, signal.default_int_handler)  # it is ignored where a shell started us in the background

def show(number):
    console.say(f"look {number}", "bold")
    return 3

watching.EVERY_SECONDS = 0.01
sys.exit(watching.watch(lambda: next(looks), show))
"""
TOP, ENTERED, LEFT = "\x1b[H", "\x1b[?1049h", "\x1b[?1049l"


@pytest.fixture
def looks(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Callable[[], object]]:
    """Makes a look that gives these things in turn, or raises them, until Ctrl-C comes."""

    def prepare(*seen: object) -> Callable[[], object]:
        left = list(seen)

        def pause(seconds: float) -> None:
            assert seconds == watching.EVERY_SECONDS
            if not left:
                raise KeyboardInterrupt

        def look() -> object:
            found = left.pop(0)
            if isinstance(found, BaseException):
                raise found
            return found

        monkeypatch.setattr(watching.time, "sleep", pause)
        return look

    return prepare


def _show(seen: object) -> int:
    console.say(f"saw {seen}")
    return 0 if seen == "well" else 1


@pytest.mark.parametrize(("last", "code"), [("well", 0), ("wrong", 1), (PlatformError("Prefect is away"), 1)])
def test_exit_code_after_ctrl_c_is_that_of_the_last_look(
    looks: Callable[..., Callable[[], object]], last: object, code: int
) -> None:
    assert watching.watch(looks("wrong", "well", last), _show) == code


def test_without_a_terminal_a_page_is_printed_when_something_has_changed(
    looks: Callable[..., Callable[[], object]], capsys: pytest.CaptureFixture[str]
) -> None:
    watching.watch(looks("well", "well", "wrong", "wrong", "well"), _show)
    lines = capsys.readouterr().out.splitlines()

    assert [line for line in lines if line.startswith("saw")] == ["saw well", "saw wrong", "saw well"]
    assert all(re.fullmatch("[0-9]{2}:[0-9]{2}:[0-9]{2}", line) for line in lines[::3])


def test_look_that_fails_is_told_and_the_next_one_follows(
    looks: Callable[..., Callable[[], object]], capsys: pytest.CaptureFixture[str]
) -> None:
    away = PlatformError("Prefect is away", "no route", "wait")
    watching.watch(looks("well", away, away, "well"), _show)
    told = [line for line in capsys.readouterr().out.splitlines() if line and ":" not in line]

    assert told == ["saw well", "✗ Prefect is away", "  no route", "  → wait", "saw well"]


def test_ctrl_c_before_anything_was_seen_is_ctrl_c(looks: Callable[..., Callable[[], object]]) -> None:
    with pytest.raises(KeyboardInterrupt):
        watching.watch(looks(KeyboardInterrupt()), _show)


def test_on_a_terminal_the_page_is_drawn_in_place_and_the_last_one_stays() -> None:
    mine, its = pty.openpty()
    variables = {**os.environ, "TERM": "xterm", "PYTHONPATH": str(ROOT)}
    process = subprocess.Popen([sys.executable, "-c", PROGRAM], stdin=its, stdout=its, stderr=its, env=variables)
    os.close(its)
    drawn, deadline = "", time.monotonic() + 20
    while "look 3" not in drawn and time.monotonic() < deadline:
        drawn += os.read(mine, 4096).decode()
    process.send_signal(signal.SIGINT)
    while piece := _rest(mine):
        drawn += piece
    os.close(mine)

    assert process.wait(20) == 3
    before, _, after = drawn.partition(LEFT)
    assert before.partition("look 1")[0].count(ENTERED) == 1
    assert TOP in before.partition("look 1")[2].partition("look 2")[0]
    assert "until Ctrl-C" in before
    [kept] = re.findall("look [0-9]+", after)
    assert kept == re.findall("look [0-9]+", before)[-1]
    assert "Traceback" not in drawn


def _rest(terminal: int) -> str:
    try:
        return os.read(terminal, 4096).decode()
    except OSError:  # how Linux tells that nobody writes any more
        return ""
