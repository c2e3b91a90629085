import types
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from agent import run_health
from environments.errors import PlatformError
from environments.settings import Environment

CLUSTER = "arn:aws:ecs:eu-west-1:123456789012:cluster/dev_dataflow_automation_workflows"


class Prefect:
    """Prefect's answers: a work pool, and the runs in each state; remembers what it was asked for."""

    def __init__(self) -> None:
        self.pool: dict[str, Any] = {"is_paused": False, "concurrency_limit": None, "active_slots": None}
        self.runs: dict[str, list[Any]] = {"SCHEDULED": [], "PENDING": [], "RUNNING": []}
        self.asked: list[dict[str, Any]] = []

    def ask(self, _: Environment, path: str, body: dict[str, Any] | None = None) -> Any:
        if body is None:
            assert path == "/work_pools/dev_dataflow_automation"
            return self.pool
        assert body["work_pools"] == {"name": {"any_": ["dev_dataflow_automation"]}}
        which = understood(body["flow_runs"])
        self.asked.append(which)
        [state] = which["state"]["type"]["any_"]
        return self.runs[state][: body["limit"]] if path == "/flow_runs/filter" else len(self.runs[state])


def understood(which: dict[str, Any]) -> dict[str, Any]:
    """What Prefect itself understands of a filter: it leaves out what it does not know."""
    from prefect.client.schemas.filters import FlowRunFilter

    read = FlowRunFilter.model_validate(which).model_dump(mode="json", exclude_unset=True)
    assert read.keys() == which.keys()
    return read


@pytest.fixture
def prefect(monkeypatch: pytest.MonkeyPatch) -> Prefect:
    fake = Prefect()
    monkeypatch.setattr(run_health, "ask", fake.ask)
    return fake


@pytest.fixture
def tasks(monkeypatch: pytest.MonkeyPatch) -> dict[str, dict[str, Any]]:
    """The tasks that ECS knows, by ARN; it takes so many at once."""
    known: dict[str, dict[str, Any]] = {}

    def describe(cluster: str, tasks: list[str]) -> dict[str, Any]:
        assert cluster == "dev_dataflow_automation_workflows"
        assert 0 < len(tasks) <= 100
        return {
            "tasks": [{"taskArn": arn, **known[arn]} for arn in tasks if arn in known],
            "failures": [{"arn": arn, "reason": "MISSING"} for arn in tasks if arn not in known],
        }

    monkeypatch.setattr(run_health, "client", lambda *_: types.SimpleNamespace(describe_tasks=describe))
    return known


def _ago(age: timedelta) -> datetime:
    return datetime.now(UTC) - age


def _run(name: str, age: timedelta = timedelta(), task: str | None = None) -> dict[str, Any]:
    state = {"timestamp": _ago(age).isoformat().replace("+00:00", "Z")}
    return {"name": name, "state": state, "infrastructure_pid": task and f"{CLUSTER}::{task}"}


def _problem(check: Callable[[Environment], str], environment: Environment) -> PlatformError:
    with pytest.raises(PlatformError) as caught:
        check(environment)
    return caught.value


def test_project_that_is_paused_says_where_to_resume_it(environment: Environment, prefect: Prefect) -> None:
    assert run_health.project(environment) == "dev_dataflow_automation"
    prefect.pool["is_paused"] = True
    problem = _problem(run_health.project, environment)

    assert problem.what == "paused"
    assert f"{environment.prefect_page_url}/work-pools/work-pool/dev_dataflow_automation" in problem.todo


@pytest.mark.parametrize(
    ("slots", "words"), [(3, "3 of at most 5 runs at a time"), (5, "5 of at most 5 runs at a time (limit reached)")]
)
def test_limit_of_the_project_is_shown_with_how_much_is_used(
    environment: Environment, prefect: Prefect, slots: int, words: str
) -> None:
    prefect.pool |= {"concurrency_limit": 5, "active_slots": slots}

    assert run_health.project(environment) == f"dev_dataflow_automation, {words}"


def test_late_runs_are_those_that_should_have_started_a_while_ago(environment: Environment, prefect: Prefect) -> None:
    assert run_health.late(environment) == "none"
    [asked] = prefect.asked
    before = datetime.fromisoformat(asked["next_scheduled_start_time"]["before_"])
    assert abs(before - _ago(run_health.LATE_AFTER)) < timedelta(seconds=30)

    prefect.runs["SCHEDULED"] = [_run(f"run-{number}") for number in range(7)]
    problem = _problem(run_health.late, environment)
    assert problem.what == "7 waiting for more than 1 min"
    assert problem.why == "run-0, run-1, run-2, run-3, run-4 and 2 more"
    assert "invoke logs agent --env dev" in problem.todo


def test_runs_that_wait_for_the_limit_wait_for_their_turn(environment: Environment, prefect: Prefect) -> None:
    prefect.runs["SCHEDULED"] = [_run("run")] * 200
    prefect.pool |= {"concurrency_limit": 5, "active_slots": 5}
    state = run_health.late(environment)

    assert state.startswith("200 or more wait for their turn, 5 of at most 5")
    assert "concurrency_limit" in state
    prefect.pool["active_slots"] = 4
    assert "waiting" in _problem(run_health.late, environment).what


def test_queue_tells_how_many_run_and_how_many_should_have_started(environment: Environment, prefect: Prefect) -> None:
    prefect.runs = {"SCHEDULED": [_run("a")] * 4, "PENDING": [_run("b")], "RUNNING": [_run("c")] * 300}

    assert run_health.queue(environment) == "300 running, 1 starting, 4 waiting"
    [scheduled] = [which for which in prefect.asked if which["state"]["type"]["any_"] == ["SCHEDULED"]]
    before = datetime.fromisoformat(scheduled["next_scheduled_start_time"]["before_"])
    assert abs(before - _ago(timedelta())) < timedelta(seconds=30)


def test_run_that_stays_pending_is_stuck(
    environment: Environment, prefect: Prefect, tasks: dict[str, dict[str, Any]]
) -> None:
    prefect.runs["PENDING"] = [_run("starting", timedelta(minutes=4)), _run("forgotten", timedelta(minutes=6))]
    problem = _problem(run_health.stuck, environment)

    assert problem.what == "1 stuck"
    assert problem.why == "PENDING for more than 5 min: forgotten"


def test_run_whose_task_is_gone_is_stuck(
    environment: Environment, prefect: Prefect, tasks: dict[str, dict[str, Any]]
) -> None:
    tasks |= {
        "at-work": {},
        "just-ended": {"stoppedAt": _ago(timedelta())},
        "ended": {"stoppedAt": _ago(timedelta(minutes=2))},
    }
    prefect.runs["RUNNING"] = [_run(name, task=name) for name in ("at-work", "just-ended", "ended", "unknown")]
    prefect.runs["RUNNING"].append(_run("elsewhere"))
    problem = _problem(run_health.stuck, environment)

    assert problem.what == "2 stuck"
    assert problem.why == "RUNNING, and their ECS task has ended: ended, unknown"


def test_many_tasks_are_looked_at_in_portions(
    environment: Environment, prefect: Prefect, tasks: dict[str, dict[str, Any]]
) -> None:
    tasks |= {f"task-{number}": {} for number in range(200)}
    prefect.runs["RUNNING"] = [_run(task, task=task) for task in tasks]

    assert run_health.stuck(environment) == "none"
