"""The guard of the unit tests, seen in a test run of its own: what reaches for this machine fails."""

import os
import re
import subprocess
import sys
from collections.abc import Iterator

import pytest

from environments.settings import ROOT
from unit_tests.conftest import Server
from unit_tests.guard import sitecustomize

TESTS = """
import contextlib, os, socket, subprocess, sys, threading
from pathlib import Path

import docker, psutil

from environments import leftovers

PORT, PROCESS, LOCAL = int(os.environ["PORT"]), int(os.environ["PROCESS"]), Path(os.environ["LOCAL"])
CONNECT = f"import socket; socket.create_connection(('127.0.0.1', {PORT}))"

def test_connect():
    exec(CONNECT)

def test_connect_and_catch_the_error():
    with contextlib.suppress(BaseException):
        exec(CONNECT)

def test_connect_in_a_thread():
    thread = threading.Thread(target=exec, args=(CONNECT,))
    thread.start()
    thread.join()

def test_connect_in_another_process():
    subprocess.run([sys.executable, "-c", CONNECT])

def test_send_a_datagram():
    with socket.socket(type=socket.SOCK_DGRAM) as sender:
        sender.sendto(b"x", ("127.0.0.1", PORT))

def test_look_up_a_name():
    socket.getaddrinfo("example.org", 443)

def test_listen_for_other_machines():
    socket.create_server(("0.0.0.0", 0))

def test_docker_engine():
    docker.from_env()

def test_docker_program():
    subprocess.run(["docker", "ps"])

def test_terraform_behind_another_program():
    subprocess.run(leftovers.ending_with_us([str(LOCAL / "bin" / "terraform"), "version"]))

def test_signal():
    os.kill(PROCESS, 15)

def test_signal_to_a_group():
    os.killpg(PROCESS, 15)

def test_stop_with_psutil():
    psutil.Process(PROCESS).terminate()

def test_read_local_data():
    (LOCAL / "local" / "prefect_key").read_text()

def test_write_local_data():
    (LOCAL / "local").mkdir(parents=True, exist_ok=True)

def test_own_server_is_reached(http_server):
    socket.create_connection(("127.0.0.1", http_server.port)).close()

def test_own_process_is_stopped():
    process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    process.terminate()
    assert process.wait() == -15

def test_surroundings_are_not_seen(local):
    from environments import settings
    seen = [name for name, value in os.environ.items() if value == "of-the-surroundings"]
    assert seen == []
    assert Path.home() != LOCAL.parent
    assert settings.machine_folder() != LOCAL
"""
VARIABLES = (
    *("AWS_ACCESS_KEY_ID", "AWS_PROFILE", "PREFECT_API_URL", "PREFECT_AGENT_TOKEN", "TF_CLI_ARGS", "DOCKER_HOST"),
    *("GITHUB_ACTIONS", "GITHUB_OUTPUT", "RUNNER_TEMP", "ACTIONS_ID_TOKEN_REQUEST_TOKEN", "CI", "GIT_DIR"),
    *("INVOKE_RUN_DRY", "HTTPS_PROXY", "XDG_CONFIG_HOME", "NO_COLOR"),
)
"""Variables that a developer's machine or a runner sets."""
LINE = re.compile(r"^(PASSED|FAILED|ERROR) \S+::test_(\w+)(?: - (.*))?$", re.MULTILINE)


@pytest.fixture(scope="module")
def outsider() -> Iterator["subprocess.Popen[bytes]"]:
    """A process that those tests did not start."""
    process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"], start_new_session=True)
    yield process
    process.kill()
    process.wait()


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    """A server that those tests did not start."""
    outside = Server()
    outside.start()
    yield outside
    outside.stop()


@pytest.fixture(scope="module")
def outcomes(
    outsider: "subprocess.Popen[bytes]", server: Server, tmp_path_factory: pytest.TempPathFactory
) -> dict[tuple[str, str], str]:
    """The messages of those tests, by outcome and name."""
    file = tmp_path_factory.mktemp("guarded") / "test_guarded.py"
    file.write_text(TESTS, encoding="utf-8")
    command = [*(sys.executable, "-m", "pytest", "-p", "unit_tests.conftest", "-p", "no:cacheprovider"), "-rA", "-q"]
    variables = {
        name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", sitecustomize.VARIABLE)
    }
    variables |= dict.fromkeys(VARIABLES, "of-the-surroundings") | {"COLUMNS": "1000"}
    variables |= {"PORT": str(server.port), "PROCESS": str(outsider.pid), "LOCAL": str(ROOT / ".local")}
    done = subprocess.run([*command, str(file)], cwd=ROOT, env=variables, capture_output=True, text=True, check=False)
    assert done.returncode == 1, done.stdout + done.stderr
    return {(outcome, name): message for outcome, name, message in LINE.findall(done.stdout)}


@pytest.mark.parametrize(
    ("name", "outcome", "deed"),
    [
        ("connect", "FAILED", "connect to"),
        ("connect_and_catch_the_error", "ERROR", "connect to"),
        ("connect_in_a_thread", "ERROR", "connect to"),
        ("connect_in_another_process", "ERROR", "connect to"),
        ("send_a_datagram", "FAILED", "connect to"),
        ("look_up_a_name", "FAILED", "look up example.org"),
        ("listen_for_other_machines", "FAILED", "listen on ('0.0.0.0', 0)"),
        ("docker_engine", "FAILED", "connect to /var/run/docker.sock"),
        ("docker_program", "FAILED", "start docker ps"),
        ("terraform_behind_another_program", "FAILED", "start setpriv"),
        ("signal", "FAILED", "send signal 15 to process"),
        ("signal_to_a_group", "FAILED", "send signal 15 to process"),
        ("stop_with_psutil", "FAILED", "send signal 15 to process"),
        ("read_local_data", "FAILED", "touch"),
        ("write_local_data", "FAILED", "touch"),
    ],
)
def test_reaching_for_this_machine_fails_the_test(
    outcomes: dict[tuple[str, str], str], name: str, outcome: str, deed: str
) -> None:
    assert f"Failed: a unit test tried to {deed}" in outcomes[outcome, name]


def test_server_and_process_of_the_machine_notice_nothing(
    outcomes: dict[tuple[str, str], str], server: Server, outsider: "subprocess.Popen[bytes]"
) -> None:
    assert outcomes
    assert server.requests == []
    assert outsider.poll() is None


@pytest.mark.parametrize("name", ["own_server_is_reached", "own_process_is_stopped", "surroundings_are_not_seen"])
def test_what_a_test_started_itself_is_allowed(outcomes: dict[tuple[str, str], str], name: str) -> None:
    assert ("PASSED", name) in outcomes
    assert ("ERROR", name) not in outcomes
