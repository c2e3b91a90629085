import dataclasses
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from environments import leftovers, local_stack
from environments.errors import PlatformError
from environments.local_server import listen
from environments.secrets import local_prefect_key, local_root_keys
from environments.settings import Environment
from unit_tests.conftest import LOOPBACK, Server

NETWORK = {"id": "abc", "bridge": "dataflow4566", "gateway": "172.30.0.1"}


@pytest.fixture
def port() -> Iterator[int]:
    """A port that nobody answers on: it stays taken by a socket that does not listen."""
    with socket.socket() as taken:
        taken.bind((LOOPBACK, 0))
        yield taken.getsockname()[1]


@pytest.fixture
def server(root: Path, port: int) -> local_stack.Server:
    """A server of the test's own: a program that sleeps, in a project of its own."""
    package = root / "environments"
    (package / "__init__.py").touch()
    (package / "local_server.py").write_text("import time\nprint('up', flush=True)\ntime.sleep(60)\n")
    return local_stack.Server(
        title="emulated AWS",
        kind="aws",
        port=port,
        health_url=f"http://{LOOPBACK}:{port}/health",
        log=root / "log",
        command=(sys.executable, "-m", "environments.local_server", "aws", "--port", str(port), "--gateway", "1.2.3.4"),
    )


@pytest.fixture
def run_it() -> Iterator[list[subprocess.Popen[bytes]]]:
    started: list[subprocess.Popen[bytes]] = []
    yield started
    for process in started:
        process.kill()
        process.wait()


def _start(started: list[subprocess.Popen[bytes]], command: tuple[str, ...], folder: Path) -> int:
    process = subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE)
    started.append(process)
    assert process.stdout
    assert process.stdout.readline() == b"up\n"
    return process.pid


def test_server_is_known_by_its_command_line_whatever_the_network(
    server: local_stack.Server, run_it: list[subprocess.Popen[bytes]], root: Path
) -> None:
    before = local_stack._processes(server)
    pid = _start(run_it, (*server.command[:-1], "5.6.7.8"), root)

    assert before == []
    assert [process.pid for process in local_stack._processes(server)] == [pid]


@pytest.mark.parametrize("other", ["kind", "port", "folder"])
def test_process_of_another_kind_port_or_folder_is_not_ours(
    server: local_stack.Server, run_it: list[subprocess.Popen[bytes]], root: Path, other: str
) -> None:
    """It would be stopped otherwise."""
    command, folder = list(server.command), root
    if other == "kind":
        command[3] = "prefect"
    elif other == "port":
        command[5] = str(server.port + 1)
    else:
        folder = root / "elsewhere"
        folder.mkdir()
        (folder / "environments").symlink_to(root / "environments")
    _start(run_it, tuple(command), folder)

    assert local_stack._processes(server) == []


def test_stopped_process_is_gone(server: local_stack.Server, run_it: list[subprocess.Popen[bytes]], root: Path) -> None:
    _start(run_it, server.command, root)
    [process] = local_stack._processes(server)
    local_stack._stop_process(process)

    assert not process.is_running()
    assert local_stack._processes(server) == []


def test_taken_port_names_its_owner(local: Environment) -> None:
    with listen(LOOPBACK, 0) as listener:
        port = listener.getsockname()[1]
        problem = local_stack._port_taken(
            local_stack.Server(title="Prefect server", kind="prefect", port=port, health_url="", log=Path("x"))
        )

    assert isinstance(problem, PlatformError)
    assert problem.what == f"port {port} for the Prefect server is taken"
    assert f"(process {os.getpid()})" in problem.why
    assert "local.tfvars" in problem.todo


def test_free_port_is_no_problem() -> None:
    with listen(LOOPBACK, 0) as listener:
        port = listener.getsockname()[1]

    assert (
        local_stack._port_taken(local_stack.Server(title="x", kind="aws", port=port, health_url="", log=Path("x")))
        is None
    )


def test_both_servers_stay_on_the_ports_of_the_settings(local: Environment) -> None:
    aws, prefect = local_stack.servers(local, NETWORK)

    assert (aws.port, prefect.port) == (local.aws_port, local.prefect_port)
    assert aws.command[:6] == (sys.executable, "-m", "environments.local_server", "aws", "--port", str(local.aws_port))
    assert prefect.command[3:6] == ("prefect", "--port", str(local.prefect_port))
    for server in (aws, prefect):
        assert server.health_url.startswith(f"http://127.0.0.1:{server.port}/")
        assert server.command[6:] == ("--gateway", "172.30.0.1", "--bridge", "dataflow4566", "--network", "abc")


def test_servers_that_run_are_not_started_again(local: Environment, monkeypatch: pytest.MonkeyPatch) -> None:
    """Starting asks the Docker engine and wants a key: `invoke plan` needs neither."""
    states, started = {"emulated AWS": "running", "Prefect server": "running"}, []
    monkeypatch.setattr(local_stack, "state", lambda _: states)
    monkeypatch.setattr(local_stack, "start", started.append)
    local_stack.ensure_running(local)

    assert started == []
    states["Prefect server"] = "not answering"
    local_stack.ensure_running(local)
    assert started == [local]


def test_key_of_the_prefect_server_is_in_no_command_line_no_variable_and_no_log(local: Environment) -> None:
    for server in local_stack.servers(local, NETWORK):
        key = local_prefect_key(local)

        assert key not in repr(server)
        assert key not in " ".join(server.command)
        assert key not in server.variables.values()


def test_emulated_aws_enforces_iam_and_has_a_root_user_of_its_own(
    local: Environment, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "real")
    aws, prefect = local_stack.servers(local, NETWORK)
    keys = local_root_keys(local)

    assert aws.variables["AUTH"] == "true"
    assert aws.variables.items() >= keys.items()
    assert not keys.keys() & prefect.variables.keys()
    for server in (aws, prefect):
        assert keys["AWS_SECRET_ACCESS_KEY"] not in repr(server)
        assert keys["AWS_SECRET_ACCESS_KEY"] not in " ".join(server.command)


def test_data_of_the_servers_lies_in_the_folder_that_destroy_removes(local: Environment) -> None:
    aws, prefect = local_stack.servers(local, NETWORK)
    paths = [aws.variables[name] for name in ("STATE_DIR", "S3_DATA_DIR")] + [prefect.variables["PREFECT_HOME"]]

    assert all(Path(path).is_relative_to(local.folder) for path in [*paths, aws.log, prefect.log])


class EmptyEngine:
    """A Docker engine that has nothing."""

    def __init__(self) -> None:
        self.containers = self.networks = self.api = self

    def list(self, **_: Any) -> tuple[Any, ...]:
        return ()

    images = list


def test_removal_that_is_killed_half_way_leaves_nothing_that_looks_like_an_environment(
    local: Environment, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(local_stack, "docker_client", EmptyEngine)
    (local.folder / "aws").mkdir(parents=True)
    (local.folder / "aws" / "state").write_text("x")
    with monkeypatch.context() as killed:
        killed.setattr(shutil, "rmtree", lambda *_, **__: None)  # no time for that any more
        local_stack.remove(local)

    assert not local.folder.exists()

    (local.folder / "aws").mkdir(parents=True)
    local_stack.remove(local)

    assert {file.suffix for file in local.folder.parent.iterdir()} == {".lock"}


def test_removal_leaves_the_containers_of_another_checkout_that_is_up_on_the_same_port(
    local: Environment, http_server: Server, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked: list[EmptyEngine] = []
    monkeypatch.setattr(local_stack, "docker_client", lambda: asked.append(EmptyEngine()) or asked[-1])
    local_stack.remove(dataclasses.replace(local, aws_endpoint_url=http_server.url))
    assert asked == []

    http_server.stop()
    local_stack.remove(dataclasses.replace(local, aws_endpoint_url=http_server.url))
    assert len(asked) == 1


def test_removal_takes_along_what_killed_commands_have_left(
    local: Environment, monkeypatch: pytest.MonkeyPatch
) -> None:
    cleared: list[bool] = []
    monkeypatch.setattr(local_stack, "docker_client", EmptyEngine)
    monkeypatch.setattr(leftovers, "clear", lambda: cleared.append(True))
    local_stack.remove(local)

    assert cleared


@pytest.mark.parametrize(("code", "expected"), [(200, True), (401, True), (500, False), (404, False)])
def test_server_that_asks_for_the_key_counts_as_up(http_server: Server, code: int, expected: bool) -> None:
    http_server.answer(code)
    server = local_stack.Server(title="x", kind="prefect", port=1, health_url=f"{http_server.url}/api", log=Path("x"))

    assert local_stack._answers(server) is expected


def test_server_that_is_not_there_does_not_answer(http_server: Server) -> None:
    http_server.stop()
    server = local_stack.Server(title="x", kind="prefect", port=1, health_url=http_server.url, log=Path("x"))

    assert local_stack._answers(server) is False


def test_server_that_does_not_come_up_shows_the_end_of_its_log(
    local: Environment, server: local_stack.Server, root: Path
) -> None:
    (root / "environments" / "local_server.py").write_text("raise SystemExit('no such bridge')\n")
    begin = time.monotonic()
    with pytest.raises(PlatformError) as caught:
        local_stack._start_server(local, server)

    assert caught.value.what == "the emulated AWS did not start"
    assert "no such bridge" in caught.value.why
    assert time.monotonic() - begin < 10


def test_servers_do_not_inherit_the_keys_of_other_environments(
    local: Environment,
    server: local_stack.Server,
    root: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("PREFECT_AGENT_TOKEN", "key-of-production")
    (root / "environments" / "local_server.py").write_text("import os\nraise SystemExit(str(os.environ))\n")
    with pytest.raises(PlatformError):
        local_stack._start_server(local, server)

    log = server.log.read_text()
    assert "PATH" in log
    assert "key-of-production" not in log


def test_two_stacks_on_one_machine_have_networks_of_their_own(local: Environment) -> None:
    other = dataclasses.replace(local, aws_endpoint_url="http://127.0.0.1:4567")

    assert local_stack.network_name(local) != local_stack.network_name(other)


def test_log_tail_takes_the_last_lines_even_of_broken_text(tmp_path: Path) -> None:
    log = tmp_path / "log"
    empty = local_stack.log_tail(log)
    log.write_bytes(b"".join(b"line %d \xff\n" % number for number in range(30)))

    assert empty == []
    assert [line.split()[1] for line in local_stack.log_tail(log, 3)] == ["27", "28", "29"]


@pytest.mark.parametrize("how", ["stopped", "not answering"])
def test_tasks_that_need_a_running_local_are_told_which_server_is_down(
    local: Environment, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    monkeypatch.setattr(local_stack, "state", lambda _: {"emulated AWS": "running", "Prefect server": how})
    with pytest.raises(PlatformError) as caught:
        local_stack.require_running(local)

    assert caught.value.why == f"Prefect server: {how}"
    assert "invoke deploy" in caught.value.todo


def test_on_aws_nothing_needs_to_run_on_this_machine(environment: Environment) -> None:
    assert local_stack.require_running(environment) is environment
