import base64
import json
import os
import sys
from pathlib import Path

import pytest

from agent import start_agent
from unit_tests.conftest import Server

PROJECT = "dev_dataflow_automation"


@pytest.fixture(autouse=True)
def _soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(start_agent, "UNREACHABLE_FOR_SECONDS", 0)
    monkeypatch.setattr(start_agent, "ANSWER_WITHIN_SECONDS", 2)
    monkeypatch.setattr(start_agent.time, "sleep", lambda _: None)
    monkeypatch.setattr(sys, "argv", ["start_agent.py"])


@pytest.fixture
def prefect(http_server: Server, monkeypatch: pytest.MonkeyPatch) -> Server:
    """A Prefect API and the variables that the task definition sets."""
    monkeypatch.setenv("PREFECT_API_URL", f"{http_server.url}/api")
    monkeypatch.setenv("PREFECT_PROJECT", PROJECT)
    monkeypatch.setenv("PYTHONPATH", "")  # so that it is put back
    return http_server


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """Commands that took the process over."""
    commands: list[list[str]] = []
    monkeypatch.setattr(os, "execvp", lambda _, command: commands.append(command))
    return commands


def test_agent_becomes_the_worker_beside_it(prefect: Server, started: list[list[str]]) -> None:
    start_agent.main()

    assert started == [["python", "-P", "-m", "agent.worker"]]
    assert Path(os.environ["PYTHONPATH"], "agent", "worker.py").is_file()


@pytest.mark.parametrize(
    ("code", "words"),
    [
        (401, "does not accept the key (401)"),
        (403, "does not accept the key (403)"),
        (404, f"has no project {PROJECT}. invoke deploy creates it"),
        (500, "out of reach: it answered 500"),
    ],
)
def test_agent_that_can_not_work_stops_with_one_clear_line(
    prefect: Server, started: list[list[str]], capsys: pytest.CaptureFixture[str], code: int, words: str
) -> None:
    prefect.answer(code)

    assert start_agent.main() == 1
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith("agent stopped: ")
    assert words in line
    assert os.environ["PREFECT_API_URL"] in line
    assert started == []


def test_prefect_that_is_starting_is_waited_for(
    prefect: Server, started: list[list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(start_agent, "UNREACHABLE_FOR_SECONDS", 30)
    prefect.answer(503, 500, 200)
    start_agent.main()

    assert len(prefect.requests) == 3
    assert started


def test_wrong_key_is_not_tried_again(prefect: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(start_agent, "UNREACHABLE_FOR_SECONDS", 30)
    prefect.answer(401)
    start_agent.main()

    assert len(prefect.requests) == 1


def test_prefect_that_nobody_listens_for_is_out_of_reach(
    prefect: Server, started: list[list[str]], capsys: pytest.CaptureFixture[str]
) -> None:
    prefect.stop()

    assert start_agent.main() == 1
    assert "out of reach" in capsys.readouterr().err
    assert started == []


@pytest.mark.parametrize("missing", ["PREFECT_API_URL", "PREFECT_PROJECT"])
def test_missing_variable_is_named(
    prefect: Server, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], missing: str
) -> None:
    monkeypatch.delenv(missing)

    assert start_agent.main() == 1
    assert missing in capsys.readouterr().err


@pytest.mark.parametrize(
    ("variable", "header"),
    [
        ("PREFECT_API_KEY", "Bearer pnu_secret"),
        ("PREFECT_API_AUTH_STRING", "Basic " + base64.b64encode(b"pnu_secret").decode()),
    ],
)
def test_key_is_sent_in_the_way_its_prefect_wants_and_never_printed(
    prefect: Server,
    started: list[list[str]],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    variable: str,
    header: str,
) -> None:
    monkeypatch.setenv(variable, "pnu_secret")
    prefect.answer(500, 401)
    start_agent.main()
    prefect.answer(200)
    start_agent.main()
    printed = capsys.readouterr()

    assert {headers["Authorization"] for _, _, headers in prefect.requests} == {header}
    assert "pnu_secret" not in printed.out + printed.err + str(started)


def test_api_url_may_end_in_a_slash(prefect: Server, started: list[list[str]], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PREFECT_API_URL", f"{prefect.url}/api/")
    start_agent.main()

    assert [path for _, path, _ in prefect.requests] == [f"/api/work_pools/{PROJECT}"]


def test_agent_carries_the_id_of_its_ecs_task(prefect: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    arn = "arn:aws:ecs:eu-west-1:123456789012:task/dev_dataflow_automation_agent/0123abcd"
    prefect.answer(200, body=json.dumps({"TaskARN": arn}).encode())
    monkeypatch.setenv("ECS_CONTAINER_METADATA_URI_V4", f"{prefect.url}/v4/x")

    assert start_agent.agent_name() == f"{PROJECT}_0123abcd"
    assert prefect.requests[0][1] == "/v4/x/task"


@pytest.mark.parametrize("answer", [(500, b"{}"), (200, b"no json"), (200, b"{}"), None])
def test_without_task_metadata_the_host_name_tells_agents_apart(
    prefect: Server, monkeypatch: pytest.MonkeyPatch, answer: tuple[int, bytes] | None
) -> None:
    if answer:
        prefect.answer(answer[0], body=answer[1])
        monkeypatch.setenv("ECS_CONTAINER_METADATA_URI_V4", prefect.url)

    assert start_agent.task_id() == os.uname().nodename


@pytest.fixture
def seen(prefect: Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """The file by which a health check knows that the agent was seen online; worker and Prefect are one server."""
    monkeypatch.setattr(start_agent, "HEALTH_URL", f"{prefect.url}/health")
    monkeypatch.setattr(start_agent, "SEEN_ONLINE", str(tmp_path / "seen"))
    monkeypatch.setattr(sys, "argv", ["start_agent.py", "--check"])
    return tmp_path / "seen"


@pytest.mark.parametrize(("code", "expected"), [(200, 0), (503, 1), (404, 1)])
def test_health_check_follows_the_worker(seen: Path, prefect: Server, code: int, expected: int) -> None:
    seen.touch()
    prefect.answer(code)

    assert start_agent.main() == expected
    assert [path for _, path, _ in prefect.requests] == ["/health"]


def test_agent_is_healthy_once_prefect_has_shown_it_online(seen: Path, prefect: Server) -> None:
    """ECS stops the agent before it then: not while nobody would take runs."""
    name = start_agent.agent_name()
    answers = [b"[]", json.dumps([{"name": f"{name}_other"}]).encode(), json.dumps([{"name": name}]).encode()]
    prefect.answers = [(200, body) for answer in answers for body in (b"{}", answer)] + [(200, b"{}"), (200, b"[]")]

    assert [start_agent.main() for _ in range(5)] == [1, 1, 0, 0, 0]
    paths = [path for _, path, _ in prefect.requests]
    assert paths == ["/health", f"/api/work_pools/{PROJECT}/workers/filter"] * 3 + ["/health"] * 2


@pytest.mark.parametrize("answer", [(500, b"{}"), (401, b"{}"), (200, b"no json"), (200, b"[{}]")])
def test_agent_of_which_prefect_says_nothing_is_not_healthy_yet(
    seen: Path, prefect: Server, answer: tuple[int, bytes]
) -> None:
    prefect.answers = [(200, b"{}"), answer]

    assert start_agent.main() == 1
    assert not seen.exists()


def test_health_check_fails_when_nobody_listens(http_server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    http_server.stop()
    monkeypatch.setattr(start_agent, "HEALTH_URL", http_server.url)

    assert start_agent.check() == 1
