"""Whatever is typed behind `invoke`: an answer or an error in words, on a machine where nothing answers."""

import inspect
import socket
import subprocess
import tempfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from invoke.main import program

import tasks
from environments import leftovers, watching
from unit_tests.any_input.cases import TEXT, UNEXPECTED, told, watched
from unit_tests.conftest import failing

NAMES = sorted(name for name, task in vars(tasks).items() if type(task).__name__ == "Task")
OPTIONS = {
    name: [f"--{option.replace('_', '-')}" for option in list(inspect.signature(getattr(tasks, name)).parameters)[1:]]
    for name in NAMES
}
VALUES = st.one_of(
    st.sampled_from(
        ["local", "dev", "prod", "yes", "no", "0", "-1", "sales", ".", "/nowhere", "acme/etl", "day=1", "256"]
    ),
    TEXT,
)


@st.composite
def lines(draw: st.DrawFn) -> list[str]:
    """A command line: a task with options of its own and of others, with values and without."""
    name = draw(st.sampled_from(NAMES))
    words = [name.replace("_", "-")]
    for option, value in draw(
        st.lists(st.tuples(st.sampled_from(OPTIONS[name]) | TEXT, st.none() | VALUES), max_size=5)
    ):
        words += draw(st.sampled_from([[option], [value or "x"], [option, value or ""], [f"{option}={value}"]]))
    return words


@pytest.fixture
def nothing_answers(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine without programs, servers and credentials; gives the folder that commands are typed in."""

    def refuse(*_: Any, **__: Any) -> Any:
        raise ConnectionRefusedError("nothing answers here")

    class Missing(subprocess.Popen):  # a class, because annotations name its kinds
        def __init__(self, *_: Any, **__: Any) -> None:
            raise FileNotFoundError("no such program here")

    for name in ("connect", "connect_ex", "sendto"):
        monkeypatch.setattr(socket.socket, name, refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    monkeypatch.setattr(subprocess, "Popen", Missing)
    # Somebody is there who ends a page that would stay up to date for ever.
    monkeypatch.setattr(watching, "time", SimpleNamespace(sleep=failing(KeyboardInterrupt())))
    place = tmp_path / "place"
    place.mkdir()
    monkeypatch.chdir(place)
    monkeypatch.setattr(tempfile, "tempdir", str(place))
    own = tmp_path / "own"
    own.mkdir()
    monkeypatch.setattr(
        leftovers, "own_folder", lambda: own
    )  # which goes when a command ends, as this process does not
    return place


def typed(words: list[str]) -> tuple[int, str]:
    """Exit code and output of a command line."""
    code: Any = 0

    def run() -> None:
        nonlocal code
        try:
            program.run(["invoke", "--search-root", str(Path(tasks.__file__).parent), *words])
        except SystemExit as end:
            code = end.code

    said = told(run)
    return code or 0, said


@given(lines())
@example(["logs", "agent", "--lines", "many"])
@example(["logs", "agent", "--lines", "9" * 5000])
@example(["run", "\ud800", "--param", "a=\ud800"])
@example(["register", "--workflow-path", "\ud800", "--git-url", "https://x/\ud800"])
@example(["settings", "--env", "\x1b[31m"])
@example(["\x1b[31m"])
@example(["status", "--watch"])
def test_any_command_line_ends_with_words_and_changes_nothing(nothing_answers: Path, words: list[str]) -> None:
    with watched() as done:
        code, said = typed(words)

    assert code in (0, 1, 2)
    assert said.strip() or not code
    assert "Traceback" not in said
    assert UNEXPECTED not in said
    # The keys of this machine's own servers are made when they are first asked for.
    allowed = [str(nothing_answers.parent / name) for name in ("place", "own", "project/.local")]
    assert [deed for deed in done if not any(place in deed for place in allowed)] == []
    assert [*nothing_answers.iterdir(), *(nothing_answers.parent / "own").iterdir()] == []
