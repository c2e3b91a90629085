"""Slips behind `invoke`: which task or option was probably meant."""

import subprocess
import sys

import pytest
from invoke.main import program

from environments.settings import ROOT


def typed(words: list[str]) -> int | str | None:
    """The exit code of a command line."""
    with pytest.raises(SystemExit) as end:
        program.run(["invoke", "--search-root", str(ROOT), *words])
    return end.value.code


@pytest.mark.parametrize(
    ("line", "what", "hint"),
    [
        ("deplyo", "there is no task 'deplyo'", "did you mean deploy?"),
        ("rotate_kee --env dev", "there is no task 'rotate_kee'", "did you mean rotate-key?"),
        ("--help stauts", "there is no task 'stauts'", "did you mean status?"),
        ("settings --jsno", "settings has no option '--jsno'", "did you mean --json?"),
        ("settings --evn dev", "settings has no option '--evn'", "did you mean --env?"),
        ("settings dev", "settings can't take 'dev'", "did you mean --env dev?"),
        ("run sales --prama day=1", "run has no option '--prama'", "did you mean --param?"),
        ("settings it's", "settings can't take \"it's\"", ""),
        ("settings --env dev \x1b[31m", "settings can't take '\\x1b[31m'", ""),
    ],
)
def test_mistyped_word_gets_the_one_that_was_meant(
    capsys: pytest.CaptureFixture[str], line: str, what: str, hint: str
) -> None:
    assert typed(line.split(" ")) == 1
    out, told = capsys.readouterr()

    assert out == ""
    assert told.splitlines()[0] == f"✗ {what}"
    assert hint in told
    assert "→ invoke --" in told


@pytest.mark.parametrize(
    ("line", "word"),
    [
        ("settings --env", "needed value"),  # invoke's own words, of a value that is missing
        ("run", "'name'"),
        ("settings --env deploy", "unknown environment 'deploy'"),  # values may be called like tasks
        ("logs nosuch --lines many", "--lines 'many'"),
    ],
)
def test_line_that_invoke_understands_is_left_to_it(capsys: pytest.CaptureFixture[str], line: str, word: str) -> None:
    assert typed(line.split(" ")) == 1
    told = capsys.readouterr().err

    assert word in told
    assert "invoke --list" not in told


def test_help_is_whole_although_the_options_were_read_before(capsys: pytest.CaptureFixture[str]) -> None:
    program.run(["invoke", "--search-root", str(ROOT), "settings", "--help"], exit=False)

    assert "for scripts" in capsys.readouterr().out


def test_tasks_can_be_imported_without_invoke() -> None:
    code = "import sys; sys.argv = ['python', 'deplyo']; import tasks; print(tasks.deploy.name or 'there')"
    answer = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)

    assert (answer.returncode, answer.stderr) == (0, "")
