import contextlib
import io
import os
import pty
import re
import sys
import time
from pathlib import Path

import pytest
from rich.console import Console

from environments import console, displays, progress
from environments.errors import PlatformError
from environments.progress import Step, steps
from unit_tests.conftest import failing


def test_each_step_says_when_it_begins_and_how_it_ended(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(PlatformError), steps() as run:
        run("good", lambda: progress.note("as it should"))
        run("bad", failing(PlatformError("no")))
    lines = capsys.readouterr().out.splitlines()

    assert {"→ good", "→ bad"} <= set(lines)
    assert any(line.startswith("✓ good") and line.endswith("as it should") for line in lines)
    assert any(line.startswith("✗ bad") for line in lines)


def test_progress_shows_now_and_then_only(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(displays, "SAY_EVERY_SECONDS", 0.05)

    def work() -> None:
        for part in range(40):
            progress.doing(f"part {part}")
            time.sleep(0.005)

    with steps() as run:
        run("long", work)

    assert 1 <= capsys.readouterr().out.count("long: part") <= 10


def test_progress_of_a_step_told_aside_is_told_aside(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(displays, "SAY_EVERY_SECONDS", 0)
    with steps(stderr=True) as run:
        run("long", lambda: progress.doing("half"))
    printed = capsys.readouterr()

    assert "… long: half" in printed.err
    assert printed.out == ""


def drawn(*given: Step) -> list[str]:
    """Lines of the page for these steps, on a terminal of 60 columns."""
    terminal = Console(width=60, file=io.StringIO(), force_terminal=False)
    with terminal.capture() as captured:
        terminal.print(displays.Page(list(given)))
    return [line.rstrip() for line in captured.get().splitlines()]


def over(step: Step) -> Step:
    """The step, as it is at its end."""
    step.done.set()
    return step


def test_page_says_of_each_step_its_state_its_time_and_what_it_is_doing(monkeypatch: pytest.MonkeyPatch) -> None:
    now = time.monotonic()
    monkeypatch.setattr(time, "monotonic", lambda: now)
    working = Step("working", begin=now - 2, doing="12 of 40 changes made")

    lines = drawn(
        over(Step("done", begin=now, seconds=1.25, note="as it should")),
        working,
        Step("waiting", needs=(over(Step("over")), working)),
        over(Step("failed", begin=now, seconds=3, note="not told", error=PlatformError("no"))),
        over(Step("skipped", skipped=True)),
    )

    assert re.sub(" +", " ", lines[0]) == "✓ done 1.2 s as it should"
    assert re.search("working +2.0 s 12 of 40 changes made$", lines[1])
    assert re.sub(" +", " ", lines[2]) == "· waiting waits for working"
    assert re.sub(" +", " ", lines[3]) == "✗ failed 3.0 s"
    assert lines[4] == "- skipped"


def test_page_has_one_line_for_each_step_whatever_that_says() -> None:
    step = Step("step [bold]", begin=time.monotonic(), doing="a line\nand more " + "x" * 200 + "\x1b[2J")

    (line,) = drawn(step)

    assert "[bold]" in line
    assert line.endswith("…")
    assert "\x1b" not in line


def test_on_a_terminal_the_page_is_drawn_and_what_is_said_stands_above(tmp_path: Path) -> None:
    code = """
import time
from environments.console import say
from environments.progress import doing, steps

def work():
    doing("half")
    time.sleep(0.5)
    say("by the way")

with steps() as run:
    run("second", print, run("first", work))
say("the end")
"""
    child, terminal = pty.fork()
    if child == 0:
        os.environ["TERM"] = "xterm-256color"
        os.execv(sys.executable, [sys.executable, "-c", code])
    seen = b""
    with contextlib.suppress(OSError):  # how a terminal ends
        while part := os.read(terminal, 4096):
            seen += part
    assert os.waitpid(child, 0)[1] == 0
    text = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", seen.decode())
    end = [re.sub(" +", " ", line).strip() for line in text.split("by the way")[1].splitlines() if line.strip()]

    assert re.search(r"first +0\.\d s half", text)
    assert "waits for first" in text
    assert "→ first" not in text
    assert re.fullmatch(r"✓ first 0\.\d s", end[-3])
    assert re.fullmatch(r"✓ second 0\.0 s", end[-2])
    assert end[-1] == "the end"


def test_quiet_command_says_nothing_but_errors(capsys: pytest.CaptureFixture[str]) -> None:
    def work() -> None:
        progress.doing("half")
        console.say("by the way")

    def quiet() -> None:
        console.be_quiet()
        with steps() as run:
            run("step", work)
        console.table([("a", "b")])
        raise PlatformError("no")

    with pytest.raises(SystemExit):
        console.command(quiet)()
    printed = capsys.readouterr()

    assert (printed.out, printed.err) == ("", "✗ no\n")
    assert not console.is_quiet()


def test_lines_fold_in_github_actions_and_a_table_is_on_the_jobs_page(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    page = tmp_path / "summary"
    monkeypatch.setenv("GITHUB_ACTIONS", "true")
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(page))
    with pytest.raises(PlatformError), steps() as run:
        first = run("first", progress.note, "built | pushed")
        second = run("second", failing(PlatformError("no")), after=(first,))
        run("third", print, after=(second,))
    lines = capsys.readouterr().out.splitlines()

    assert lines[0] == "::group::Steps"
    assert lines[1:5] == ["→ first", "✓ first  0.0 s  built | pushed", "→ second", "✗ second  0.0 s"]
    assert lines[5] == "::endgroup::"
    assert re.fullmatch(r"3 steps in 0\.\d s: 1 done, 1 failed, 1 skipped", lines[6])
    assert "| first | done | 0.0 s | built \\| pushed |" in page.read_text()
    assert "| third | skipped | 0.0 s |  |" in page.read_text()
