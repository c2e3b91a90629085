import contextlib
import dataclasses
import types
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from agent import rotation
from environments import local_keys
from environments.errors import PlatformError
from environments.secrets import AGENT_TOKEN, key_file, local_prefect_key, prefect_key
from environments.settings import Environment
from infra.terraform import Outputs
from unit_tests.conftest import Server

SINCE = datetime(2026, 1, 1, tzinfo=UTC)
WELL_AFTER = SINCE + rotation.STARTS_WITHIN + timedelta(seconds=1)


@pytest.fixture
def runs(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Flow runs that Prefect knows; what is asked for is looked at as Prefect would."""
    known: list[Any] = []

    def read_flow_runs(flow_run_filter: Any, work_pool_filter: Any, limit: int, offset: int) -> list[Any]:
        states = flow_run_filter.state.type.any_
        of_project = [run for run in known if run.pool in work_pool_filter.name.any_ and run.state.type.value in states]
        return of_project[offset : offset + min(limit, 2)]

    @contextlib.contextmanager
    def client(*_: Any) -> Iterator[Any]:
        yield types.SimpleNamespace(read_flow_runs=read_flow_runs, read_work_pool=lambda _: None)

    monkeypatch.setattr(rotation, "prefect_client", client)
    return known


def _run(state: str, moment: datetime, project: str = "dev_dataflow_automation", name: str = "one") -> Any:
    from prefect.client.schemas.objects import State, StateType

    started = None if state in ("PENDING", "SCHEDULED") else moment
    now = State(type=StateType(state), timestamp=moment)
    return types.SimpleNamespace(name=name, state=now, start_time=started, pool=project)


@pytest.fixture
def stored(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Keys that were put into the secret."""
    keys: list[str] = []

    def store(environment: Environment, _: Outputs) -> datetime:
        keys.append(prefect_key(environment))
        return SINCE

    monkeypatch.setattr(rotation.key, "store", store)
    return keys


@pytest.mark.parametrize(("code", "changes"), [(200, True), (401, False), (403, False), (404, False), (500, False)])
def test_key_is_stored_only_when_prefect_takes_it(
    environment: Environment,
    outputs: Outputs,
    http_server: Server,
    stored: list[str],
    monkeypatch: pytest.MonkeyPatch,
    code: int,
    changes: bool,
) -> None:
    monkeypatch.setenv(AGENT_TOKEN, "admin:new-word")
    monkeypatch.setenv("PREFECT_CLIENT_MAX_RETRIES", "0")
    pool = b'{"id": "11111111-1111-4111-8111-111111111111", "name": "dev_dataflow_automation", "type": "ecs"}'
    http_server.answer(code, body=pool)
    own_server = dataclasses.replace(environment, prefect_api_url=f"{http_server.url}/api")
    with contextlib.nullcontext() if changes else pytest.raises(PlatformError, match="Prefect at ") as caught:
        rotation.renew(own_server, outputs)

    assert stored == ["admin:new-word"] * changes
    assert "new-word" not in str(caught.value if caught else "")
    assert any(path.endswith("/work_pools/dev_dataflow_automation") for _, path, _ in http_server.requests)


def test_without_a_key_nothing_is_asked_or_changed(
    environment: Environment, outputs: Outputs, stored: list[str]
) -> None:
    with pytest.raises(PlatformError, match="no Prefect key"):
        rotation.renew(environment, outputs)

    assert stored == []


def test_local_makes_a_key_and_takes_both(
    local: Environment, outputs: Outputs, runs: list[Any], stored: list[str]
) -> None:
    before = local_prefect_key(local)
    rotation.renew(local, outputs)

    assert stored == [prefect_key(local)] != [before]
    assert {prefect_key(local), before} < set(local_keys.accepted(key_file(local)))


@pytest.mark.parametrize(
    ("run", "counts"),
    [
        (_run("RUNNING", SINCE - timedelta(days=1)), True),
        (_run("RUNNING", SINCE + timedelta(seconds=5)), True),
        (_run("RUNNING", WELL_AFTER), False),
        (_run("PENDING", SINCE), True),
        (_run("PENDING", WELL_AFTER), False),
        (_run("CANCELLING", SINCE), True),
        (_run("PAUSED", SINCE), True),
        (_run("SCHEDULED", SINCE), False),
        (_run("COMPLETED", SINCE), False),
        (_run("RUNNING", SINCE, "prod_dataflow_automation"), False),
    ],
)
def test_runs_that_may_have_an_earlier_key_are_those_that_began_before(
    environment: Environment, runs: list[Any], run: Any, counts: bool
) -> None:
    runs.append(run)

    assert rotation.retire_earlier(environment, SINCE) == [run] * counts


def test_all_pages_of_runs_are_read(environment: Environment, runs: list[Any]) -> None:
    runs += [_run("RUNNING", SINCE, name=str(number)) for number in range(5)]

    assert [run.name for run in rotation.retire_earlier(environment, SINCE)] == list("01234")


@pytest.mark.parametrize("state", ["RUNNING", "COMPLETED"])
def test_local_takes_the_earlier_key_as_long_as_a_run_may_have_it(
    local: Environment, runs: list[Any], state: str
) -> None:
    local_keys.renew(local)
    runs.append(_run(state, SINCE, "local_dataflow_automation"))
    rotation.retire_earlier(local, SINCE)

    assert len(local_keys.accepted(key_file(local))) == (4 if state == "RUNNING" else 2)


def _shown(environment: Environment, runs: list[Any], capsys: pytest.CaptureFixture[str]) -> str:
    rotation.show(environment, runs)
    return capsys.readouterr().out


def test_end_says_when_the_earlier_key_may_be_revoked(
    environment: Environment, capsys: pytest.CaptureFixture[str]
) -> None:
    with_runs = _shown(environment, [_run("RUNNING", SINCE, name="busy-bee")], capsys)

    assert "busy-bee  Running  2026-01-01 00:00:00" in with_runs
    assert "may be revoked at Prefect when these runs have ended" in with_runs
    assert "may be revoked at Prefect now" in _shown(environment, [], capsys)


def test_end_warns_that_the_next_deploy_stores_what_the_pipeline_has(
    environment: Environment, capsys: pytest.CaptureFixture[str]
) -> None:
    assert f"put the new key wherever {AGENT_TOKEN} is kept" in _shown(environment, [], capsys)


@pytest.mark.parametrize(("count", "words"), [(0, "is not accepted any more"), (1, "is accepted until invoke rotate")])
def test_local_says_what_its_own_server_does(
    local: Environment, capsys: pytest.CaptureFixture[str], count: int, words: str
) -> None:
    shown = _shown(local, [_run("RUNNING", SINCE)] * count, capsys)

    assert words in shown
    assert "revoked" not in shown


def test_many_runs_are_counted_and_not_all_listed(environment: Environment, capsys: pytest.CaptureFixture[str]) -> None:
    shown = _shown(environment, [_run("RUNNING", SINCE)] * (rotation.SHOWN_RUNS + 3), capsys)

    assert "and 3 more" in shown
