"""How the steps of a task are shown while it is at work.

On a terminal each has a line of one page that stays up to date; elsewhere a line is printed when one begins and when it
ends, and every few seconds what it is doing. In GitHub Actions these lines fold, and a table is on the job's page.
"""

import contextlib
import sys
import time
from collections.abc import Iterator
from typing import Any

from environments import console, github_actions
from environments.printable import one_line
from environments.progress import Display, Step

SAY_EVERY_SECONDS = 5.0
DRAWN_A_SECOND = 8
SIGNS = {"waiting": ("·", "dim"), "done": ("✓", "green"), "failed": ("✗", "bold red"), "skipped": ("-", "dim")}
"""Before a step's name, by its state, and in which style of rich; one that is working has a spinner."""


@contextlib.contextmanager
def chosen(steps: list[Step]) -> Iterator[Display]:
    """The display that suits where the output goes, while the steps are at work.

    Args:
        steps: those that there are; more may come while the block runs.
    """
    if console.is_quiet():
        yield Display()
    elif github_actions.active():
        with _folded(steps):
            yield Lines()
    elif console.is_screen():
        with _drawn(steps):
            yield Display()
    else:
        yield Lines()


class Lines(Display):
    """Prints a line when something happens to a step."""

    def __init__(self) -> None:
        self._told: dict[Step, float] = {}

    def begun(self, step: Step) -> None:
        """Say its name."""
        self._told[step] = time.monotonic()
        console.say(f"→ {step.name}", "dim")

    def moved(self, step: Step) -> None:
        """Say what it is doing, unless that was said a moment ago."""
        now = time.monotonic()
        if now - self._told[step] >= SAY_EVERY_SECONDS:
            self._told[step] = now
            console.say(f"  … {step.name}: {step.doing}", "dim")

    def ended(self, step: Step) -> None:
        """Say how it ended and how long it took."""
        sign, style = SIGNS["failed" if step.error else "done"]
        note = f"  {step.note}" if step.note and not step.error else ""
        console.say(f"{sign} {step.name}  {step.seconds:.1f} s{note}", style)


@contextlib.contextmanager
def _folded(steps: list[Step]) -> Iterator[None]:
    """Let lines fold on the job's page; when they end, say how it went, with a table in the job's summary."""
    begin = time.monotonic()
    stream = console.current().file
    github_actions.group("Steps", stream)
    try:
        yield
    finally:
        github_actions.end_group(stream)
        counts = {state: sum(step.state == state for step in steps) for state in ("done", "failed", "skipped")}
        told = ", ".join(f"{count} {state}" for state, count in counts.items() if count)
        console.say(f"{len(steps)} steps in {time.monotonic() - begin:.1f} s: {told}")
        github_actions.summary(_markdown(steps))


def _markdown(steps: list[Step]) -> str:
    from environments import markdown

    rows = [(step.name, step.state, f"{step.seconds:.1f} s", one_line(step.note).replace("|", "\\|")) for step in steps]
    return markdown.table(("step", "state", "took", ""), rows, left=2)


@contextlib.contextmanager
def _drawn(steps: list[Step]) -> Iterator[None]:
    """Keep a page up to date that has a line for each step; what is printed meanwhile stands above it."""
    from rich.live import Live

    # What goes elsewhere than to this terminal still does.
    out, err = sys.stdout.isatty(), sys.stderr.isatty()
    page, terminal = Page(steps), console.current()
    with Live(page, console=terminal, refresh_per_second=DRAWN_A_SECOND, redirect_stdout=out, redirect_stderr=err):
        yield


class Page:
    """What rich draws: a line for each step, with its state, its seconds and what it is doing or waiting for."""

    def __init__(self, steps: list[Step]) -> None:
        from rich.spinner import Spinner

        self._steps = steps
        self._spinner = Spinner("dots", style="cyan")

    def __rich__(self) -> Any:
        """The page as it is now."""
        from rich.table import Table
        from rich.text import Text

        page = Table.grid(padding=(0, 1), expand=True)
        page.add_column(width=1)
        page.add_column(no_wrap=True)
        page.add_column(justify="right", no_wrap=True)
        page.add_column(ratio=1, no_wrap=True, overflow="ellipsis")
        now = time.monotonic()
        for step in list(self._steps):
            sign, style = SIGNS.get(step.state, (self._spinner, ""))
            seconds = step.seconds if step.done.is_set() else now - (now if step.begin is None else step.begin)
            took = f"{seconds:.1f} s" if step.begin is not None else ""
            row = (Text(sign, style) if isinstance(sign, str) else sign, Text(one_line(step.name), style))
            page.add_row(*row, Text(took, style), Text(one_line(_told(step)), "dim"))
        return page


def _told(step: Step) -> str:
    """What stands behind a step's name."""
    if step.state == "waiting":
        return "waits for " + ", ".join(need.name for need in step.needs if not need.done.is_set())
    return step.doing if step.state == "working" else step.note if step.state == "done" else ""
