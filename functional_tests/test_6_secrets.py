"""The Prefect key is where it must be and nowhere else; a canary that is planted in any of these places is found.

Each place is searched once, for the key and for the canaries that were planted there before: what is shown to find a
canary is the very search that does not find the key. places.py knows the places, planting.py how to get into them.
"""

import contextlib
import functools
import gzip
import io
import re
import secrets
import zipfile
from base64 import b64encode
from collections.abc import Callable
from pathlib import Path
from urllib.parse import quote

import pytest

from functional_tests import canary, runs
from functional_tests.canary import Found
from functional_tests.places import PLACES, Used
from functional_tests.planting import PLANTS
from functional_tests.platform import Platform
from functional_tests.repository import Repository
from functional_tests.runner import run_action

KEY, WORKFLOW_KEY, REGISTER_KEY = "the Prefect key", "the workflows' key", "the key to register"
ROOT_KEY = "the root user's secret access key"
KEYS = (KEY, WORKFLOW_KEY, REGISTER_KEY, ROOT_KEY)
FLOW = "from prefect import flow\n\n@flow\ndef searched():\n    pass\n"
Searched = Callable[[str], dict[str, list[str]]]


@pytest.fixture(scope="module")
def used(sample_workflow: Platform, runners_machine: Path, tmp_path_factory: pytest.TempPathFactory) -> Used:
    """A platform that was deployed, has registered and run a workflow, by command and in a job, and has made a plan."""
    platform, folder = sample_workflow, tmp_path_factory.mktemp("used")
    workflow, _ = runs.run_and_see(platform, "sample-workflow")
    plan, comment = folder / "saved.tfplan", folder / "plan.md"
    platform.invoke("plan", "--out", str(plan), "--markdown", str(comment))
    used = Used(
        platform, folder, runners_machine, [(platform.folder / "infra", plan)], [*canary.files(comment)], workflow
    )
    author = Repository(folder / "author")
    inputs = {"env": "local", "workflow_path": "workflow", "workflow_name": "searched", "git_url": author.url}
    inputs["prefect_workflow_register_token"] = platform.register_key
    used.jobs += job(used, platform.folder / "register_action", inputs, author.folder, author.commit(flow__py=FLOW))
    return used


def job(used: Used, action: Path, inputs: dict[str, str], workspace: Path, commit: str = "0" * 40) -> list[Found]:
    """Run an action as a job would; gives all that it leaves where others can read it."""
    done = run_action(action, inputs, workspace, used.machine, {"sha": commit})
    print(f"{done.log}\n[{done.code}]")
    assert done.code == 0
    return list(canary.of_job(done, used.machine))


@pytest.fixture(scope="module")
def searched(used: Used) -> Callable[[str], dict[str, list[str]]]:
    """Gives for a place where in it the key was found, and each of the canaries that were planted there."""

    @functools.cache
    def search(place: str) -> dict[str, list[str]]:
        planted = {name: f"local:{secrets.token_urlsafe(24)}" for name, (where, _) in PLANTS.items() if where == place}
        with contextlib.ExitStack() as plants:
            for name, secret in planted.items():
                plants.enter_context(PLANTS[name][1](used, secret))
            keys = {
                KEY: used.platform.key,
                WORKFLOW_KEY: used.platform.workflow_key,
                REGISTER_KEY: used.platform.register_key,
                ROOT_KEY: used.platform.root_key,
            }
            return canary.hits({**keys, **planted}, PLACES[place](used))

    return search


def test_every_place_has_its_canary() -> None:
    assert {place for place, _ in PLANTS.values()} == PLACES.keys()


@pytest.mark.parametrize("place", PLACES)
def test_the_key_is_not_in(searched: Searched, place: str) -> None:
    assert {key: searched(place)[key] for key in KEYS} == {key: [] for key in KEYS}
    assert searched(place)[canary.CLEAN], "there was nothing to search"


@pytest.mark.parametrize("name", PLANTS)
def test_a_canary_is_found_in(searched: Searched, name: str) -> None:
    place, _ = PLANTS[name]
    assert searched(place)[name]


@pytest.mark.parametrize("task", ["deploy", "register", "run"])
def test_processes_were_watched_while_the_platform_did(used: Used, task: str) -> None:
    assert [line for line in used.platform.arguments if re.search(rf"\0invoke\0{task}\0".encode(), line)]


@pytest.mark.parametrize(
    "write",
    [
        lambda secret: secret,
        lambda secret: quote(secret, safe=""),
        lambda secret: "Basic " + b64encode(f"local:{secret}".encode()).decode(),
        lambda secret: b64encode(f"AWS:{secret} and more".encode()).decode(),
        lambda secret: b64encode(f"{secret}\n".encode()).decode(),
        lambda secret: b64encode(f"xx{secret}".encode(), b"-_").decode(),
    ],
)
@pytest.mark.parametrize("secret", ["S0meKey_of-Prefect", "pnu_0123456789abcdef", "a?b/c+d>e~f%g h", 'quo"te\\s'])
def test_a_secret_is_found_however_it_is_written(write: Callable[[str], str], secret: str) -> None:
    assert canary.leaks(f"local:{secret}", [("here", f"<{write(secret)}>".encode()), ("there", b"nothing")]) == ["here"]


def test_a_secret_is_found_inside_of_archives() -> None:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("tfplan", "s3cret " * 9)
    contents = [("plan", packed.getvalue()), ("layer", gzip.compress(b"s3cret " * 9))]

    assert not [name for name, raw in contents if b"s3cret" in raw]
    assert canary.leaks("s3cret", contents) == ["plan tfplan", "layer"]


@pytest.mark.parametrize("name", ["prefect_key", "prefect_key_workflow"])
def test_the_key_files_are_for_this_user_only(used: Used, name: str) -> None:
    file = used.platform.folder / ".local" / "local" / name
    assert file.stat().st_mode & 0o077 == 0
