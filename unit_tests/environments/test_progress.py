import contextlib
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

from environments import displays, progress
from environments.console import say, table
from environments.errors import PlatformError
from environments.progress import Step, steps
from environments.settings import ROOT
from unit_tests.conftest import failing


def _slowly(function: Callable[..., Any], *arguments: Any) -> Any:
    time.sleep(0.05)
    return function(*arguments)


def test_run_remembers_its_steps_in_the_order_they_were_given() -> None:
    with steps() as run:
        first = run("first", time.sleep, 0.05)
        second = run("second", lambda: None)

    assert run.steps == [first, second]
    assert first.seconds >= 0.05


@pytest.mark.parametrize("printed", [0, 1], ids=["nothing-printed", "beginning-printed"])
def test_step_whose_output_can_not_be_printed_is_over(monkeypatch: pytest.MonkeyPatch, printed: int) -> None:
    said: list[str] = []

    def broken(text: str = "", style: str = "") -> None:
        said.append(text)
        if len(said) > printed:
            raise BrokenPipeError

    monkeypatch.setattr(displays.console, "say", broken)
    milestone = Step("milestone")
    with pytest.raises(BrokenPipeError), steps() as run:
        first = run("first", lambda: None, milestone=milestone)
        second = run("second", lambda: None, after=(milestone,))

    assert first.done.is_set()
    assert second.skipped


def test_steps_run_side_by_side() -> None:
    barrier = threading.Barrier(2, timeout=5)
    with steps() as run:
        run("one", barrier.wait)
        run("two", barrier.wait)

    assert not barrier.broken


def test_a_step_gets_the_result_of_the_one_it_needs() -> None:
    with steps() as run:
        number = run("number", _slowly, int, 20)
        total = run("total", lambda a, b, c: a + b + c, number, 2, number)

    assert total.result == 42


def test_a_step_waits_for_those_it_comes_after() -> None:
    order: list[str] = []
    with steps() as run:
        slow = run("slow", _slowly, order.append, "slow")
        run("next", order.append, "next", after=(slow,))

    assert order == ["slow", "next"]


def test_failure_skips_what_depends_on_it_and_nothing_else() -> None:
    done: list[str] = []
    with pytest.raises(PlatformError, match="first"), steps() as run:
        failed = run("failed", failing(PlatformError("first")))
        direct = run("direct", done.append, failed)
        behind = run("behind", done.append, "behind", after=(direct,))
        run("other", _slowly, done.append, "other")

    assert direct.skipped
    assert behind.skipped
    assert done == ["other"]


def test_the_error_raised_is_that_of_the_first_step_given() -> None:
    with pytest.raises(PlatformError, match="first"), steps() as run:
        run("one", _slowly, failing(PlatformError("first")))
        run("two", failing(PlatformError("second")))


def test_milestone_is_reached_before_its_step_ends() -> None:
    seen = threading.Event()
    with steps() as run:
        milestone = Step("milestone")

        def work() -> bool:
            milestone.done.set()
            return seen.wait(5)

        worker = run("worker", work, milestone=milestone)
        run("waiting", seen.set, after=(milestone,))

    assert worker.result is True


@pytest.mark.parametrize("skipped", [False, True], ids=["step-fails", "step-is-skipped"])
def test_milestone_that_is_not_reached_skips_who_waits_for_it(skipped: bool) -> None:
    milestone = Step("milestone")
    done: list[str] = []
    with pytest.raises(PlatformError), steps() as run:
        before = run("before", failing(PlatformError("no")) if skipped else lambda: None)
        run("worker", failing(PlatformError("no")), after=(before,), milestone=milestone)
        waiting = run("waiting", done.append, "ran", after=(milestone,))

    assert waiting.skipped
    assert done == []


def test_milestone_that_its_step_passed_over_counts_as_reached_at_the_end() -> None:
    milestone = Step("milestone")
    done: list[str] = []
    with steps() as run:
        run("worker", lambda: None, milestone=milestone)
        run("waiting", done.append, "ran", after=(milestone,))

    assert done == ["ran"]


def test_output_that_nobody_reads_any_more_does_not_hang() -> None:
    """As in `invoke deploy | head -1`: the steps must come to an end."""
    code = "from environments.progress import steps\nwith steps() as run:\n    run('b', print, run('a', print))"
    process = subprocess.Popen(
        [sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    )
    assert process.stdout
    process.stdout.close()
    try:
        process.wait(4)
    finally:
        process.kill()


def test_ctrl_c_calls_what_is_registered_and_goes_on_as_ctrl_c(capsys: pytest.CaptureFixture[str]) -> None:
    interrupted, begun = threading.Event(), threading.Event()

    def work() -> bool:
        with progress.on_interrupt(interrupted.set):
            begun.set()
            return interrupted.wait(5)

    with pytest.raises(KeyboardInterrupt), steps() as run:
        step = run("long", work)
        next_one = run("next one", say, "begun", after=(step,))
        begun.wait(5)
        raise KeyboardInterrupt

    assert next_one.done.wait(5)
    assert step.result is True
    assert "interrupted in: long" in (out := capsys.readouterr().out)
    assert "begun" not in out


def test_steps_told_aside_leave_standard_output_to_the_result(capsys: pytest.CaptureFixture[str]) -> None:
    with steps(stderr=True) as run:
        inner = run("inner", table, [("a", "b")])
        run("after", say, "said", after=(inner,))
        say("said outside of a step")
    print("the result")
    printed = capsys.readouterr()

    assert printed.out == "the result\n"
    assert {"→ inner", "a  b", "→ after", "said", "said outside of a step"} <= set(printed.err.splitlines())


@pytest.mark.parametrize("error", [None, PlatformError("no"), KeyboardInterrupt()], ids=["well", "failed", "ctrl-c"])
def test_aside_ends_with_its_steps(error: BaseException | None, capsys: pytest.CaptureFixture[str]) -> None:
    with contextlib.suppress(PlatformError, KeyboardInterrupt), steps(stderr=True):
        if error:
            raise error
    inside = capsys.readouterr()
    say("afterwards")
    with steps() as run:
        run("next", lambda: None)
    printed = capsys.readouterr()

    assert inside.out == ""
    assert {"afterwards", "→ next"} <= set(printed.out.splitlines())
    assert printed.err == ""
