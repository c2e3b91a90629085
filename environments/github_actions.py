"""What a GitHub Actions runner offers and wants: its variables, and the files and commands it reads.

Commands go to standard error, which a runner reads too, so that standard output holds results only.

Sources: https://docs.github.com/en/actions/reference/workflows-and-actions/workflow-commands,
https://github.com/actions/runner/blob/main/src/Runner.Worker/Handlers/ScriptHandler.cs
"""

import os
import sys
import urllib.parse
from pathlib import Path
from typing import TextIO

from environments.errors import PlatformError
from environments.printable import printable

JOB_VARIABLES = ("GITHUB_", "RUNNER_", "ACTIONS_", "CI")
"""What the names of the variables begin with that a job sets for everything that it starts.

https://docs.github.com/en/actions/reference/workflows-and-actions/variables#default-environment-variables
"""


def leave_job() -> None:
    """Remove a job's variables from this process: what it starts is no longer a step of that job."""
    for name in [name for name in os.environ if name.startswith(JOB_VARIABLES)]:
        del os.environ[name]


def active() -> bool:
    """Whether this process is a step of a GitHub Actions job."""
    return os.environ.get("GITHUB_ACTIONS") == "true"


def workspace() -> Path | None:
    """The folder into which the job checks its repository out; None outside GitHub Actions."""
    folder = os.environ.get("GITHUB_WORKSPACE", "")
    return Path(folder) if active() and folder else None


def git_token() -> str:
    """The job's token for reading repositories on GitHub, if it was handed on; else empty."""
    return os.environ.get("GITHUB_TOKEN", "").strip()


def server_host() -> str:
    """The host of the GitHub that the job runs on; github.com outside a job."""
    return urllib.parse.urlsplit(os.environ.get("GITHUB_SERVER_URL") or "https://github.com").netloc.lower()


def api_url() -> str:
    """The URL of the REST API of the GitHub that the job runs on; that of github.com outside a job."""
    return (os.environ.get("GITHUB_API_URL") or "https://api.github.com").rstrip("/")


def annotate(error: PlatformError) -> None:
    """Show an error at the top of the job's page and, when it has a place, beside the line of the pull request."""
    if not active():
        return
    properties = {"title": error.what}
    if error.file:
        # The author knows the file by its path in the repository, the error by its path in the workflow's folder.
        properties["file"] = Path(os.environ.get("WORKFLOW_PATH", "."), error.file).as_posix()
        properties["line"] = str(max(error.line, 1))
    told = ",".join(f"{name}={_escaped(value, ':,')}" for name, value in properties.items())
    text = "\n".join(part for part in (error.why, error.todo) if part) or error.what
    print(f"::error {told}::{_escaped(text)}", file=sys.stderr, flush=True)


def warn(text: str, title: str = "") -> None:
    """Show a warning at the top of the job's page."""
    _show("warning", text, title)


def notice(text: str, title: str = "") -> None:
    """Show a notice at the top of the job's page."""
    _show("notice", text, title)


def _show(level: str, text: str, title: str) -> None:
    if active():
        properties = f" title={_escaped(title, ':,')}" if title else ""
        print(f"::{level}{properties}::{_escaped(text)}", file=sys.stderr, flush=True)


def group(title: str, stream: TextIO) -> None:
    """Let what is printed on this stream from now on fold under a title, until `end_group`."""
    print(f"::group::{_escaped(title)}", file=stream, flush=True)


def end_group(stream: TextIO) -> None:
    """End what folds."""
    print("::endgroup::", file=stream, flush=True)


def output(name: str, value: str) -> None:
    """Give a value to the steps that come after this one."""
    _append("GITHUB_OUTPUT", name, value)


def summary(markdown: str) -> None:
    """Add to the page that sums the job up."""
    if active() and (file := os.environ.get("GITHUB_STEP_SUMMARY")):
        with Path(file).open("a", encoding="utf-8") as text:
            text.write(markdown.rstrip("\n") + "\n")


def _append(variable: str, name: str, value: str) -> None:
    if active() and (file := os.environ.get(variable)):
        # A delimiter that nobody can guess: a value can't smuggle in another one.
        delimiter = f"end_{os.urandom(8).hex()}"
        with Path(file).open("a", encoding="utf-8") as text:
            text.write(f"{name}<<{delimiter}\n{value}\n{delimiter}\n")


def _escaped(text: str, more: str = "") -> str:
    text = printable(text)
    for character in "%\r\n" + more:
        text = text.replace(character, f"%{ord(character):02X}")
    return text
