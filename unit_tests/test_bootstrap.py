"""Functions of bootstrap.sh, called one by one against an engine that gives prepared answers."""

import json
import subprocess

import pytest

from environments.settings import ROOT
from infra import base_image
from unit_tests.conftest import Server

BASE = base_image.pinned()
REPOSITORY, _, TAG = BASE.name.rpartition(":")
MISSING = (404, b'{"message":"no such image"}')


def _answer(*digests: str, label: str = "") -> tuple[int, bytes]:
    """What the engine says of an image."""
    named = {"RepoDigests": [f"{REPOSITORY}@{digest}" for digest in digests], "Size": 125_000_000}
    answer = {**named, "Config": {"Labels": {label: "x"} if label else None}}
    return 200, json.dumps(answer, separators=(",", ":")).encode()


def _call(server: Server, commands: str) -> subprocess.CompletedProcess[str]:
    """Run commands with the functions of bootstrap.sh."""
    script = f"source <(sed -e '/^cd /d' -e '$d' bootstrap.sh); step=image; {commands}"
    return subprocess.run(
        ["bash", "-c", script],
        cwd=ROOT,
        env={"PATH": "/usr/local/bin:/usr/bin:/bin", "DOCKER_HOST": server.url.replace("http", "tcp"), "HOME": "/"},
        capture_output=True,
        text=True,
        timeout=30,
    )


@pytest.mark.parametrize(
    ("answer", "ready", "text"),
    [
        (_answer(BASE.digest), True, f"{BASE.name}, 125 MB, {BASE.digest[:19]}"),
        (_answer("sha256:" + "0" * 64), False, f"is not {BASE.digest[:19]}"),
        (_answer(label=base_image.BUILT_LOCALLY), True, f"built locally from Debian packages, not {BASE.digest[:19]}"),
        (MISSING, False, f"{BASE.name} is not there"),
    ],
    ids=["pinned", "older", "built-locally", "missing"],
)
def test_base_image_is_ready_when_it_has_the_digest_or_was_built_here(
    http_server: Server, answer: tuple[int, bytes], ready: bool, text: str
) -> None:
    http_server.answers = [answer]
    looked = _call(http_server, 'image_ready && echo ready; echo "$found"')

    assert looked.stdout.startswith("ready\n") is ready
    assert text in looked.stdout


def test_base_image_is_pulled_by_digest_and_gets_the_name(http_server: Server) -> None:
    http_server.answers = [(200, b"{}"), (201, b""), _answer(BASE.digest)]
    made = _call(http_server, 'image_make && echo "$found"')

    assert [(method, path) for method, path, _ in http_server.requests] == [
        ("POST", f"/images/create?fromImage={REPOSITORY}&tag={BASE.digest}"),
        ("POST", f"/images/{REPOSITORY}@{BASE.digest}/tag?repo={REPOSITORY}&tag={TAG}"),
        ("GET", f"/images/{BASE.name}/json"),
    ]
    assert BASE.digest[:19] in made.stdout


def test_base_image_is_built_where_no_registry_gives_it(http_server: Server) -> None:
    http_server.answers = [MISSING, MISSING, MISSING, _answer(label=base_image.BUILT_LOCALLY)]
    stand_ins = "may_install() { :; }; build_image() { echo building; }"
    made = _call(http_server, f'{stand_ins}; image_make && echo "$found"')

    assert made.stdout.splitlines()[-2] == "building"
    assert "built locally from Debian packages" in made.stdout.splitlines()[-1]
