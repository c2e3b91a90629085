"""How we speak to the user: lines, tables, questions, errors as a few lines, exit codes for scripts.

Colours and styles go away by themselves when the output is piped (rich looks at the terminal and at NO_COLOR).
"""

import contextlib
import contextvars
import functools
import re
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

from environments import github_actions
from environments.errors import PlatformError
from environments.printable import hanging, one_line, printable

PASSING = re.compile("Could not connect|Connection was closed|[Tt]imeout|Throttl|SlowDown|RequestLimitExceeded")
"""What botocore says, after all its retries, of an AWS that is out of reach or overloaded."""
_spoken_aside: contextvars.ContextVar[bool] = contextvars.ContextVar("spoken_aside", default=False)
_quiet: contextvars.ContextVar[bool] = contextvars.ContextVar("quiet", default=False)
T = TypeVar("T")


@functools.cache
def _console(stderr: bool = False) -> Any:
    from rich.console import Console

    return Console(stderr=stderr, highlight=False, soft_wrap=True, emoji=False)


def say(text: str = "", style: str = "", stderr: bool = False) -> None:
    """Print text, whatever is in it; `style` is a rich style and shows on a terminal only."""
    if is_quiet():
        return
    _console(stderr or _spoken_aside.get()).print(printable(text), style=style or None, markup=False)


def be_quiet(quiet: bool = True) -> None:
    """Say nothing but errors, until the end of this command."""
    _quiet.set(quiet)


def is_quiet() -> bool:
    """Whether nothing is said but errors."""
    return _quiet.get()


@contextlib.contextmanager
def spoken_aside(aside: bool) -> Iterator[None]:
    """While the block runs, say everything on standard error, so that standard output holds nothing but a result."""
    before = _spoken_aside.set(aside)
    try:
        yield
    finally:
        _spoken_aside.reset(before)


def current() -> Any:
    """The rich console that `say` prints on now."""
    return _console(_spoken_aside.get())


def table(rows: Sequence[tuple[str, ...]], header: tuple[str, ...] = ()) -> None:
    """Print rows in aligned columns, one line each: nothing is cut or wrapped, so that scripts can read them too."""
    lines = [tuple(one_line(cell) for cell in row) for row in (header, *rows) if row]
    widths = [max(len(cell) for cell in column) for column in zip(*lines, strict=True)]
    for number, row in enumerate(lines):
        line = "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        say(line, "bold" if header and not number else "")


def is_screen() -> bool:
    """Whether somebody sees what `say` prints on a terminal that can be drawn on."""
    stream = sys.stderr if _spoken_aside.get() else sys.stdout
    return stream.isatty() and not current().is_dumb_terminal


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
    _say_problem(_console(stderr), problem, "✗", "bold red")


def say_hint(hint: PlatformError) -> None:
    """Print what could be better, why, and what to do; nothing is wrong."""
    if not is_quiet():
        _say_problem(current(), hint, "!", "bold yellow")


def _say_problem(out: Any, problem: PlatformError, mark: str, style: str) -> None:
    out.print(f"{mark} {one_line(problem.what)}", style=style, markup=False)
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
    from environments import settings

    log = settings.machine_folder() / "logs" / "error.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    log.write_text("".join(traceback.format_exception(error)), encoding="utf-8")
    return PlatformError(
        "this should not have happened",
        f"{type(error).__name__}: {text}",
        f"please report it with {log.relative_to(settings.ROOT)}",
    )


def command(function: Callable[..., Any]) -> Callable[..., Any]:
    """Make a function fit to be an invoke task: errors print as a few lines and end with the right exit code.

    A whole number that the function returns becomes the exit code.
    """

    @functools.wraps(function)
    def wrapped(*arguments: Any, **options: Any) -> None:
        try:
            code = contextvars.copy_context().run(function, *arguments, **options)
        except (Exception, KeyboardInterrupt) as error:
            code = report(error)
        if isinstance(code, int) and code:
            sys.stdout.flush()
            raise SystemExit(code)

    return wrapped
