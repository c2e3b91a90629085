"""How we speak to the user: one line per step when it starts and ends, errors as a few lines, exit codes for scripts.

Colours and styles go away by themselves when the output is piped (rich looks at the terminal and at NO_COLOR).
"""

import contextlib
import contextvars
import dataclasses
import functools
import re
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

from environments import github_actions
from environments.errors import PlatformError
from environments.printable import hanging, one_line, printable

_PROGRESS_INTERVAL_SECONDS = 5.0
PASSING = re.compile("Could not connect|Connection was closed|[Tt]imeout|Throttl|SlowDown|RequestLimitExceeded")
"""What botocore says, after all its retries, of an AWS that is out of reach or overloaded."""
_current_step: contextvars.ContextVar["Step | None"] = contextvars.ContextVar("step", default=None)
_spoken_aside: contextvars.ContextVar[bool] = contextvars.ContextVar("spoken_aside", default=False)
T = TypeVar("T")
_interruptions: list[Callable[[], None]] = []


@functools.cache
def _console(stderr: bool = False) -> Any:
    from rich.console import Console

    return Console(stderr=stderr, highlight=False, soft_wrap=True, emoji=False)


def say(text: str = "", style: str = "", stderr: bool = False) -> None:
    """Print text, whatever is in it; `style` is a rich style and shows on a terminal only."""
    _console(stderr or _spoken_aside.get()).print(printable(text), style=style or None, markup=False)


def table(rows: Sequence[tuple[str, ...]], header: tuple[str, ...] = ()) -> None:
    """Print rows in aligned columns, one line each: nothing is cut or wrapped, so that scripts can read them too."""
    lines = [tuple(one_line(cell) for cell in row) for row in (header, *rows) if row]
    widths = [max(len(cell) for cell in column) for column in zip(*lines, strict=True)]
    for number, row in enumerate(lines):
        line = "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        say(line, "bold" if header and not number else "")


def is_screen() -> bool:
    """Whether somebody sees the output on a terminal that can be drawn on."""
    return sys.stdout.isatty() and not _console(False).is_dumb_terminal


def captured(action: Callable[[], T]) -> tuple[str, T]:
    """What an action says, in place of saying it; and what it gives."""
    with _console(False).capture() as said:
        result = action()
    return said.get(), result


def confirm(question: str, yes: bool = False, wanted: str = "yes", option: str = "--yes") -> None:
    """Go on only when the user says so.

    Args:
        question: what is about to happen.
        yes: the user has said so already, by the option.
        wanted: the one answer that lets it happen.
        option: what says so where nobody can be asked.

    Raises:
        PlatformError: the answer was another one, or nobody can be asked.
    """
    if yes:
        return
    require_terminal(option)
    try:
        answer = input(f"{question} Type {wanted} to go on: ")
    except EOFError:
        answer = ""
    if answer.strip().lower() != wanted:
        raise PlatformError("not confirmed, nothing was changed")


def require_terminal(option: str = "--yes") -> None:
    """Make sure that there is somebody to ask.

    Raises:
        PlatformError: there is no terminal; it names the option that makes asking unnecessary.
    """
    if not sys.stdin.isatty():
        raise PlatformError(
            "not confirmed", "there is no terminal to ask on", f"add {option} to go on without being asked"
        )


@dataclasses.dataclass
class Step:
    """One part of a task: its name, its outcome and how long it took in seconds."""

    name: str
    done: threading.Event = dataclasses.field(default_factory=threading.Event)
    result: Any = None
    error: BaseException | None = None
    skipped: bool = False
    seconds: float = 0.0
    note: str = ""
    last_progress: float = 0.0


def progress(text: str) -> None:
    """Say what the current step is doing; shown at most every few seconds, so that long work is seen to move."""
    step = _current_step.get()
    now = time.monotonic()
    if step and now - step.last_progress >= _PROGRESS_INTERVAL_SECONDS:
        step.last_progress = now
        say(f"  … {step.name}: {text}", "dim")


def note(text: str) -> None:
    """Say in a few words how the current step ended; stands behind its name in the closing line."""
    step = _current_step.get()
    if step:
        step.note = text


class Run:
    """Starts the steps of a task, each as soon as what it needs is there; made by `steps`."""

    def __init__(self) -> None:
        self.steps: list[Step] = []

    def __call__(
        self,
        name: str,
        function: Callable[..., Any],
        *arguments: Any,
        after: tuple[Step, ...] = (),
        milestone: Step | None = None,
    ) -> Step:
        """Start a step and give its handle.

        Args:
            name: what the user sees.
            function: what the step does.
            arguments: for the function; a handle among them is waited for and replaced by its result.
            after: steps that only have to be over.
            milestone: a step that this one reaches on its way; the function sets its `done` when it is there.
        """
        step = Step(name)
        self.steps.append(step)
        work = functools.partial(_run_step, step, function, arguments, after, milestone)
        # Daemon threads: after Ctrl-C the process must be able to end while one of them hangs on the network.
        threading.Thread(target=contextvars.copy_context().run, args=(work,), name=name, daemon=True).start()
        return step


@contextlib.contextmanager
def steps(stderr: bool = False) -> Iterator[Run]:
    """Run the steps of a task side by side.

    A step whose need has failed is skipped. Leaving the block waits for all steps and raises the first error.

    Args:
        stderr: tell of them on standard error, so that standard output holds nothing but a result for scripts.
    """
    run = Run()
    aside = _spoken_aside.set(stderr)
    try:
        yield run
        for step in run.steps:
            # Waiting with a timeout keeps the main thread open to Ctrl-C.
            while not step.done.wait(0.2):
                pass
    except KeyboardInterrupt:
        _interrupt(run.steps)
        raise
    finally:
        _spoken_aside.reset(aside)
    for step in run.steps:
        if step.error:
            raise step.error


def on_interrupt(action: Callable[[], None]) -> contextlib.AbstractContextManager[None]:
    """While the block runs, Ctrl-C also calls `action`, in the main thread."""

    @contextlib.contextmanager
    def registered() -> Iterator[None]:
        _interruptions.append(action)
        try:
            yield
        finally:
            _interruptions.remove(action)

    return registered()


def _interrupt(started: list[Step]) -> None:
    """Let what must not be cut off (Terraform) come to its end; a second Ctrl-C asks it again, which makes it stop."""
    running = [step.name for step in started if not step.done.is_set()]
    place = f" in: {', '.join(running)}" if running else ""
    say(f"interrupted{place}; the same command goes on from here", "yellow")
    for step in started:
        step.skipped |= not step.done.is_set()  # what has not begun does not begin any more
    for _ in range(2):
        try:
            for action in list(_interruptions):
                action()
            while _interruptions:
                time.sleep(0.1)
            return
        except KeyboardInterrupt:
            say("interrupted again", "yellow")


def _run_step(
    step: Step,
    function: Callable[..., Any],
    arguments: tuple[Any, ...],
    after: tuple[Step, ...],
    milestone: Step | None,
) -> None:
    needs = [*(argument for argument in arguments if isinstance(argument, Step)), *after]
    for need in needs:
        need.done.wait()
    try:
        if step.skipped or any(need.error or need.skipped for need in needs):
            step.skipped = True
        else:
            _work(step, function, [a.result if isinstance(a, Step) else a for a in arguments])
    except BaseException as error:
        step.error = step.error or error  # nobody reads the output any more
    finally:
        if milestone and not milestone.done.is_set():
            milestone.skipped = step.skipped or step.error is not None
            milestone.done.set()
        step.done.set()


def _work(step: Step, function: Callable[..., Any], arguments: list[Any]) -> None:
    _current_step.set(step)
    begin = step.last_progress = time.monotonic()
    say(f"→ {step.name}", "dim")
    try:
        step.result = function(*arguments)
    except BaseException as error:
        step.error = error
    step.seconds = time.monotonic() - begin
    if step.error:
        say(f"✗ {step.name}  {step.seconds:.1f} s", "bold red")
    else:
        say(f"✓ {step.name}  {step.seconds:.1f} s" + (f"  {step.note}" if step.note else ""), "green")


def report(error: BaseException) -> int:
    """Print an error for the user and give the exit code: 1 for errors, 130 for Ctrl-C.

    An error that is nobody's fault but ours is written whole to a log file, which the message names.
    """
    if isinstance(error, KeyboardInterrupt):
        _console(True).print("stopped by Ctrl-C", style="yellow", markup=False)
        return 130
    shown = explained(error)
    say_problem(shown, stderr=True)
    github_actions.annotate(shown)
    return 1


def say_problem(problem: PlatformError, stderr: bool = False) -> None:
    """Print what happened, why, and what to do next."""
    out = _console(stderr)
    out.print(f"✗ {one_line(problem.what)}", style="bold red", markup=False)
    for line in problem.why.splitlines():
        out.print(f"  {printable(line)}", markup=False)
    if problem.todo:
        out.print(f"  → {hanging(problem.todo, 4)}", style="bold", markup=False)


def explained(error: BaseException) -> PlatformError:
    """Any error as one for the user; one that is nobody's fault but ours is written whole to a log file."""
    if isinstance(error, PlatformError):
        return error
    library = type(error).__module__.split(".")[0]
    text = str(error) or type(error).__name__
    if library == "botocore" and (PASSING.search(text) or "reached max retries" in text):
        return PlatformError(
            "AWS does not answer as it should", text, "run the same command again in a while; it goes on from there"
        )
    if library == "botocore":
        return PlatformError(
            "AWS did not do what was asked", text, "invoke doctor checks credentials and the connection"
        )
    if library in ("docker", "requests", "urllib3"):
        return PlatformError("the Docker engine did not do what was asked", text, "invoke doctor checks the engine")
    if library in ("httpx", "httpcore"):
        return PlatformError(
            "Prefect is out of reach",
            f"{type(error).__name__}: {text}",
            "invoke doctor checks the connection",
        )
    if library == "prefect":
        return PlatformError(
            "Prefect did not do what was asked", text, "invoke doctor checks the key and the connection"
        )
    from environments.settings import ROOT

    log = ROOT / ".local" / "logs" / "error.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    log.write_text("".join(traceback.format_exception(error)), encoding="utf-8")
    return PlatformError(
        "this should not have happened",
        f"{type(error).__name__}: {text}",
        f"please report it with {log.relative_to(ROOT)}",
    )


def command(function: Callable[..., Any]) -> Callable[..., Any]:
    """Make a function fit to be an invoke task: errors print as a few lines and end with the right exit code.

    A whole number that the function returns becomes the exit code.
    """

    @functools.wraps(function)
    def wrapped(*arguments: Any, **options: Any) -> None:
        try:
            code = function(*arguments, **options)
        except (Exception, KeyboardInterrupt) as error:
            code = report(error)
        if isinstance(code, int) and code:
            sys.stdout.flush()
            raise SystemExit(code)

    return wrapped
