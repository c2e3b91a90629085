"""Repositories of git for the tests, and what is started to read them."""

import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from environments.errors import PlatformError
from register_action.source import Wanted, locate

Patch = pytest.MonkeyPatch
AUTHOR = ("-c", "user.name=a", "-c", "user.email=a@example.org", "-c", "init.defaultBranch=main")
ORIGIN = "https://github.com/acme/etl.git"


def git(folder: Path, *arguments: str, typed: str = "") -> str:
    command = ["git", "-C", str(folder), *AUTHOR, *arguments]
    return subprocess.run(command, input=typed, capture_output=True, text=True, check=True).stdout.strip()


def commit(folder: Path, files: dict[str, str]) -> str:
    """Write files and commit them; gives the commit."""
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    git(folder, "add", "--all")
    git(folder, "commit", "--quiet", "--allow-empty", "-m", "change")
    return git(folder, "rev-parse", "HEAD")


def url(repository: Path) -> str:
    return f"file://{repository}"


def checkout(tmp_path: Path, etl: Path, *options: str, origin: str = ORIGIN) -> Path:
    """A clone, as a job has checked it out."""
    workspace = tmp_path / "workspace"
    subprocess.run(["git", "clone", "--quiet", *options, url(etl), str(workspace)], check=True)
    git(workspace, "remote", "set-url", "origin", origin)
    return workspace


def in_job(monkeypatch: Patch, workspace: Path) -> None:
    """Be a step of a job that has checked out there."""
    monkeypatch.setenv("GITHUB_ACTIONS", "true")
    monkeypatch.setenv("GITHUB_WORKSPACE", str(workspace))


def refused(wanted: Wanted, scratch: Path) -> PlatformError:
    with pytest.raises(PlatformError) as caught:
        locate(wanted, scratch)
    return caught.value


class Programs:
    """What was started, with arguments and environment; the network's part may be played."""

    def __init__(self) -> None:
        self.real = subprocess.Popen
        self.calls: list[tuple[list[str], dict[str, str]]] = []
        self.server = ""

    def __call__(self, command: list[str], **options: Any) -> Any:
        if options.get("env"):
            self.calls.append((command, options["env"]))
            if self.server and {"ls-remote", "fetch"} & set(command):
                command = ["sh", "-c", self.server]
        return self.real(command, **options)

    @property
    def talked(self) -> list[str]:
        """The commands that go over the network."""
        return [word for command, _ in self.calls for word in command if word in ("fetch", "ls-remote", "clone")]


@pytest.fixture(autouse=True)
def no_git_variables(monkeypatch: Patch) -> None:
    for name in os.environ:
        if name.startswith("GIT_"):
            monkeypatch.delenv(name)


@pytest.fixture
def scratch(tmp_path: Path) -> Path:
    folder = tmp_path / "scratch"
    folder.mkdir()
    return folder


@pytest.fixture
def etl(tmp_path: Path) -> Path:
    """A repository as a team has it: two commits, the folder `workflow` and a second branch."""
    folder = tmp_path / "etl-workflows"
    folder.mkdir()
    git(folder, "init", "--quiet")
    commit(folder, {"workflow/flow.py": "first", "README.md": "", "workflow/data/a.csv": "1"})
    git(folder, "branch", "feature/x")
    commit(folder, {"workflow/flow.py": "second"})
    return folder


@pytest.fixture
def programs(monkeypatch: Patch) -> Programs:
    """All programs that are started from here on."""
    started = Programs()
    monkeypatch.setattr(subprocess, "Popen", started)
    return started
