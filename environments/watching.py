"""Looks again and again and shows what it sees: on a terminal in place, elsewhere whenever something has changed."""

import contextlib
import time
from collections.abc import Callable, Iterator
from datetime import datetime
from typing import TypeVar

from environments import console

EVERY_SECONDS = 5.0
"""From the end of a look to the beginning of the next."""
Draw = Callable[[object, str], None]
T = TypeVar("T")


def watch(look: Callable[[], T], show: Callable[[T], int]) -> int:
    """Look and show until Ctrl-C; gives the exit code of the last look. A look that fails is told, and ends nothing.

    Args:
        look: gives what there is to see.
        show: prints it, and gives its exit code.

    Raises:
        KeyboardInterrupt: Ctrl-C came before anything was seen.
    """
    code: int | None = None
    page = ""
    on_screen = console.is_screen()
    try:
        with _screen() if on_screen else _paper() as draw:
            while True:
                seen, page, code = _look(look, show)
                draw(seen, page)
                time.sleep(EVERY_SECONDS)
    except KeyboardInterrupt:
        if code is None:
            raise
    if on_screen:
        print(page, end="")  # the screen is gone, and what was seen last should stay
    return code


def _look(look: Callable[[], T], show: Callable[[T], int]) -> tuple[object, str, int]:
    """What was seen, the page that shows it, and its exit code."""
    try:
        seen = look()
        page, code = console.captured(lambda: show(seen))
        return seen, page, code
    except Exception as error:
        problem = console.explained(error)
        page, _ = console.captured(lambda: console.say_problem(problem))
        return str(problem), page, 1


@contextlib.contextmanager
def _screen() -> Iterator[Draw]:
    """Draw each page in place of the one before; what the terminal showed before comes back in the end."""
    from rich.console import Console
    from rich.live import Live
    from rich.text import Text

    # A console of its own: what is captured from the other one must not draw the screen.
    own = Console(highlight=False)
    with Live(console=own, screen=True, auto_refresh=False, redirect_stdout=False, redirect_stderr=False) as live:

        def draw(_: object, page: str) -> None:
            header = f"{_clock()}, again every {EVERY_SECONDS:g} s until Ctrl-C\n"
            live.update(Text.assemble((header, "dim"), Text.from_ansi(page)), refresh=True)

        yield draw


@contextlib.contextmanager
def _paper() -> Iterator[Draw]:
    """Print each page below the one before, unless the same was seen."""
    before: list[object] = []

    def draw(seen: object, page: str) -> None:
        if before != [seen]:
            before[:] = [seen]
            print(f"{_clock()}\n{page}", flush=True)

    yield draw


def _clock() -> str:
    return f"{datetime.now():%H:%M:%S}"
