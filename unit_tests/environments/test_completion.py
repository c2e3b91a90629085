"""What bash offers behind `.venv/bin/invoke` when Tab is pressed, with the script that people source."""

import fcntl
import os
import pty
import select
import shlex
import struct
import subprocess
import sys
import termios
import time
from pathlib import Path

import pytest

from environments.settings import ROOT, known

INVOKE = Path(sys.executable).parent / "invoke"
SCRIPT = "environments/completion.bash"


def offered(*words: str) -> list[str]:
    """The words that are offered for the last one, which may be empty."""
    line = shlex.join([str(INVOKE), *words])
    code = (
        f"source {SCRIPT}; COMP_WORDS=({line}); COMP_CWORD={len(words)}; _invoke; printf '%s\\n' \"${{COMPREPLY[@]}}\""
    )
    command = ["bash", "--norc", "-euo", "pipefail", "-c", code]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.split()


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["dep"], ["deploy"]),
        (["deploy", "--e"], ["--env"]),
        (["deploy", "--ye"], ["--yes"]),
        (["register", "--execution"], ["--execution-environment"]),
        (["deploy", "--env", "pr"], ["prod"]),
        (["deploy", "--env", "=", "pr"], ["prod"]),
        (["deploy", "--env", "="], known()),
        (["deploy", "-e", ""], known()),
        (["register", "--workflow-path", "d"], []),  # bash goes on with files
    ],
)
def test_word_is_completed(words: list[str], expected: list[str]) -> None:
    assert offered(*words) == expected


def test_behind_a_task_its_options_are_offered() -> None:
    assert {"--env", "--plan", "--yes"} <= set(offered("deploy", ""))


def test_in_a_shell_tab_behind_the_invoke_of_the_project_completes_the_task() -> None:
    mine, its = pty.openpty()
    fcntl.ioctl(its, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 1000, 0, 0))  # a line for the whole path
    command = ["bash", "--norc", "--noprofile", "-i"]
    variables = {**os.environ, "PATH": "/usr/bin:/bin", "TERM": "dumb", "PS1": "$ "}
    shell = subprocess.Popen(
        command, cwd=ROOT, stdin=its, stdout=its, stderr=its, env=variables, start_new_session=True
    )
    os.close(its)
    os.write(mine, f"source {SCRIPT}\n{shlex.quote(str(INVOKE))} rotate\t".encode())
    shown, deadline = "", time.monotonic() + 20
    while "rotate-key" not in shown and time.monotonic() < deadline:
        if select.select([mine], [], [], 1)[0]:
            shown += os.read(mine, 4096).decode()
    shell.kill()
    shell.wait()
    os.close(mine)

    assert f"{INVOKE} rotate-key" in shown
