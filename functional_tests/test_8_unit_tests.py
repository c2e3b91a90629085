"""The unit tests leave a platform alone that is up in the same checkout, with a run that is active all the while."""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from functional_tests import runs
from functional_tests.platform import Platform, wait_for

FLOW = """import time

from prefect import flow
from prefect.variables import Variable


@flow(log_prints=True)
def patient() -> None:
    print("waiting")
    while Variable.get("patience") != "over":
        time.sleep(1)
"""
SECONDS = 1200
CHANGING = ("aws", "prefect", "logs")
"""Folders below `.local/local` that the servers write to."""


@pytest.fixture
def checkout(platform: Platform, first_deploy: str) -> Iterator[Path]:
    """The folder of a platform that is up, as a checkout of git, whose list of files the unit tests read."""
    for command in (["init", "--quiet"], ["add", "--all"]):
        subprocess.run(["git", *command], cwd=platform.folder, check=True)
    yield platform.folder
    shutil.rmtree(platform.folder / ".git")


@pytest.fixture
def run(platform: Platform, first_deploy: str, tmp_path: Path) -> Iterator[str]:
    """A run that ends when the variable `patience` is set to `over`."""
    yield runs.create(platform, runs.register(platform, tmp_path / "patient", "patient", FLOW))
    platform.invoke("unregister", "--name", "patient", "--yes")


@pytest.mark.timeout(SECONDS)
def test_platform_and_its_run_are_the_same_after_the_unit_tests(platform: Platform, checkout: Path, run: str) -> None:
    runs.wait_for_state(platform, run, "Running")
    wait_for("the ends of other runs", lambda: len(platform.containers("")) == 2, seconds=400)
    before = seen(platform)
    # Whatever the unit tests could find the platform by.
    variables = {
        "AWS_ACCESS_KEY_ID": "local",
        "AWS_SECRET_ACCESS_KEY": platform.root_key,
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{platform.aws_port}",
        "PREFECT_API_URL": platform.prefect_url,
        "PREFECT_API_AUTH_STRING": platform.key,
        "PREFECT_AGENT_TOKEN": platform.key,
        "UNIT_TESTS_PROFILE": "busy",
    }
    tested = subprocess.run(
        # Behind the platform: ECS replaces an agent whose health check gets too little processor time.
        ["nice", sys.executable, "-m", "nox", "--session=dev-unit"],
        cwd=checkout,
        env={**os.environ, **variables},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=SECONDS,
        check=False,
    )
    after = seen(platform)
    platform.prefect("/variables/", {"name": "patience", "value": "over"})
    runs.wait_for_state(platform, run, "Completed")

    assert after == before
    assert tested.returncode == 0, tested.stdout
    states = [state["type"] for state in runs.states(platform, run)]
    assert states[states.index("RUNNING") :] == ["RUNNING", "COMPLETED"]
    assert runs.log(platform, run).count("waiting") == 1
    assert platform.status()["ok"] is True


def seen(platform: Platform) -> dict[str, Any]:
    """Servers and containers with the time of their start, files with size and time of their last change."""
    servers, containers = platform.servers(), platform.containers("")
    assert len(servers) == 2
    assert len(containers) == 2, "agent and run"
    return {
        "servers": {kind: (pid, psutil.Process(pid).create_time()) for kind, pid in servers.items()},
        "containers": {container.id: container.attrs["State"]["StartedAt"] for container in containers},
        "files": files(platform.folder / ".local") | files(platform.folder / "environments"),
    }


def files(folder: Path) -> dict[Path, tuple[int, int]]:
    """Size and last change of the files below a folder, without what the servers write and what Python compiles."""
    left_out = {folder / "local" / name for name in CHANGING}
    return {
        file: (file.stat().st_size, file.stat().st_mtime_ns)
        for file in folder.rglob("*")
        if file.is_file() and not left_out & {*file.parents} and file.parent.name != "__pycache__"
    }
