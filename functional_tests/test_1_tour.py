"""docs/tour.md tells the truth: each of its commands, in their order, prints what stands below it."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from functional_tests import tour
from functional_tests.platform import COMMAND_TIMEOUT_SECONDS, ROOT, Platform

STOPS = list(tour.stops((ROOT / "docs" / "tour.md").read_text()))
BOOTSTRAP = "./bootstrap.sh"
DEPLOY, DESTROY = ".venv/bin/invoke deploy", ".venv/bin/invoke destroy --yes"


@pytest.fixture(scope="module")
def clone(platform: Platform) -> Path:
    """The platform's checkout, with the virtual environment of this one."""
    (platform.folder / ".venv").symlink_to(Path(sys.prefix))
    return platform.folder


@pytest.mark.parametrize("stop", STOPS, ids=lambda stop: stop.command.partition("\n")[0])
def test_command_prints_what_the_tour_says(
    stop: tour.Stop, clone: Path, platform: Platform, request: pytest.FixtureRequest
) -> None:
    if stop.command == DESTROY:
        pytest.skip("other tests want the platform; test_7_destroy compares it")
    if stop.command == DEPLOY:
        printed = str(request.getfixturevalue("first_deploy"))
    else:
        done = subprocess.run(
            ["bash", "-c", stop.command],
            cwd=ROOT if stop.command == BOOTSTRAP else clone,  # it would make a virtual environment of the clone's own
            env={**os.environ, "PATH": f"{clone}/.venv/bin:{os.environ['PATH']}"},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=COMMAND_TIMEOUT_SECONDS,
            check=False,
        )
        printed = done.stdout
        assert done.returncode == 0, printed
    platform.printed.append(printed)
    told = printed.replace(f":{platform.prefect_port}", ":4200").replace(f":{platform.aws_port}", ":4566")
    assert stop.is_true(told), told
