"""What a case of bad input is: whatever it holds, the user gets an answer or an error in words, and nothing is changed.

`harmless` holds for one case. What Python does meanwhile is told by its audit hooks, below every library.

Source: https://docs.python.org/3.11/library/audit_events.html
"""

import contextlib
import os
import sys
import tempfile
import unicodedata
from collections.abc import Callable, Iterator
from io import BytesIO, TextIOWrapper
from pathlib import Path
from typing import Any

from hypothesis import strategies as st

from environments import console
from environments.errors import PlatformError

CHANGES = ("os.chmod", "os.link", "os.mkdir", "os.remove", "os.rename", "os.rmdir", "os.symlink", "os.truncate")
STARTS = ("os.exec", "os.fork", "os.kill", "os.killpg", "os.posix_spawn", "os.system", "subprocess.Popen")
REQUESTS = ("socket.connect", "socket.getaddrinfo", "socket.sendto", "urllib.Request")
WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC
STEERING = ("Cc", "Cf", "Cs", "Zl", "Zp")
"""Categories of characters that are nothing to see: they steer terminals, turn lines around, or are no text at all."""
UNEXPECTED = "this should not have happened"
"""How the console begins an error that would be a traceback."""

NASTY = st.sampled_from(
    [
        *("", " ", "\0", "\x1b[31m", "\x9b2J", "\r", "\n", "\x0b", "\x85", "\u2028", "\u202e", "\ud800", "\ufeff"),
        *("${path.module}", "%{if true}", "{{ $HOME }}", "$(id)", "`id`", "'; id #", '"', "\\", "[bold]", "::error::x"),
        *(
            "..",
            "../..",
            "/",
            "/etc/passwd",
            "~",
            "-",
            "--env",
            "-rf",
            "a" * 300,
            "\N{KELVIN SIGN}",
            "İ",
            "ß",
            "٣",
            "²",
        ),
        *("NaN", "1e999", "-1", "9" * 5000, "null", "true", "[" * 2000, "{" * 2000, "%s", "{0}", "\N{PILE OF POO}"),
    ]
)
TEXT = st.lists(st.one_of(NASTY, st.text(max_size=8)), max_size=4).map("".join)
"""Texts that people should not write: control characters, halves of characters, other languages' code, far too much."""

_deeds: list[str] | None = None
"""What was done since the case began; None between cases."""


def _listen(event: str, arguments: tuple[Any, ...]) -> None:
    if _deeds is None:
        return
    if event == "open":
        path, mode, flags = arguments
        changes = (isinstance(flags, int) and flags & WRITING) or set(str(mode or "")) & {*"wax+"}
        if changes and not isinstance(path, int) and path != os.devnull and "__pycache__" not in str(path):
            _deeds.append(f"open {path} {mode}")
    elif event in (*CHANGES, *STARTS, *REQUESTS) and "__pycache__" not in str(arguments):
        _deeds.append(f"{event} {arguments}")
    elif event == "exec" and getattr(arguments[0], "co_filename", "").endswith(OF_THE_AUTHOR):
        _deeds.append(f"exec {arguments[0].co_filename}")


OF_THE_AUTHOR = "_by_author.py"
"""How the modules of made up workflows end, so that the hook knows their code from ours."""
sys.addaudithook(_listen)


@contextlib.contextmanager
def watched() -> Iterator[list[str]]:
    """Have what is changed, started and asked meanwhile taken down."""
    global _deeds
    _deeds = []
    try:
        yield _deeds
    finally:
        _deeds = None


@contextlib.contextmanager
def harmless() -> Iterator[None]:
    """One case: the block ends, or raises an error for the user, and changes, starts and asks nothing."""
    problem = None
    with watched() as done:
        try:
            yield
        except PlatformError as error:
            problem = error
    assert done == [], f"it did {done}"
    if problem:
        assert problem.what
        assert problem.why or problem.todo
        assert UNEXPECTED not in told(lambda: console.report(problem))


def told(function: Callable[[], Any]) -> str:
    """What a function prints, on both streams; they are as a process has them, so what is printed must be UTF-8."""
    out, err = (TextIOWrapper(BytesIO(), "utf-8", errors, newline="") for errors in ("strict", "backslashreplace"))
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        function()
        out.flush()
        err.flush()
    text = (out.buffer.getvalue() + err.buffer.getvalue()).decode()
    steering = {character for character in text if unicodedata.category(character) in STEERING} - {"\n"}
    assert not steering, f"{steering} in {text!r}"
    return text


@contextlib.contextmanager
def folder() -> Iterator[Path]:
    """An empty folder for one case."""
    with tempfile.TemporaryDirectory(prefix="case-") as made:
        yield Path(made)
