import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from invoke.main import program

from environments.settings import ROOT

INVOKE = Path(sys.executable).parent / "invoke"
TASKS = {"deploy", "plan", "destroy", "register", "run", "status", "outputs", "doctor", "logs", "agent", "unlock"}
HEAVY = ("prefect", "prefect_aws", "boto3", "botocore", "docker", "python_terraform", "rich", "hcl2")


def _run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(INVOKE), *arguments], cwd=ROOT, capture_output=True, text=True, stdin=subprocess.DEVNULL, check=False
    )


@pytest.fixture(scope="module")
def listed() -> dict[str, str]:
    """The tasks of `invoke --list`, with what it says of each."""
    answer = _run("--list", "--list-format=json")
    assert answer.returncode == 0, answer.stderr
    return {task["name"]: task["help"] for task in json.loads(answer.stdout)["tasks"]}


def test_list_has_every_task_with_a_line_of_help(listed: dict[str, str]) -> None:
    assert set(listed) >= TASKS
    assert all(listed.values())


def test_help_of_every_task_explains_every_option(
    listed: dict[str, str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)
    for name in sorted(listed):
        program.run(["invoke", "--help", name], exit=False)
        options = capsys.readouterr().out.partition("Options:")[2]
        without_help = [line for line in options.splitlines() if re.fullmatch(r"\s+-.*\S", line) and "  -" in line]
        explained = [line for line in without_help if re.search(r"\S\s{2,}\S", line)]

        assert "--env" in options, name
        assert without_help == explained, name


def test_front_door_opens_without_the_heavy_libraries() -> None:
    code = f"import tasks, sys; print([name for name in {HEAVY!r} if name in sys.modules])"
    answer = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)

    assert answer.stdout.strip() == "[]"


def test_unknown_environment_is_an_error_message_and_no_traceback() -> None:
    answer = _run("status", "--env", "locla")

    assert answer.returncode == 1
    assert answer.stdout == ""
    assert "unknown environment 'locla'" in answer.stderr
    assert "did you mean local?" in answer.stderr
    assert "Traceback" not in answer.stderr
    assert "\x1b" not in answer.stderr


def test_agent_wants_to_know_the_direction() -> None:
    answer = _run("agent", "--up", "--down")

    assert answer.returncode == 1
    assert "--up or --down" in answer.stderr
    assert "Traceback" not in answer.stderr


def test_destroy_without_a_terminal_needs_yes() -> None:
    answer = _run("destroy", "--env", "dev")

    assert answer.returncode == 1
    assert "--yes" in answer.stderr
    assert "Traceback" not in answer.stderr
