"""What is registered and how it runs, as read from Prefect and as shown."""

import json
from typing import Any

import pytest

from environments import prefect_rest
from environments.errors import PlatformError
from environments.secrets import AGENT_TOKEN
from environments.settings import Environment
from register_action import overview
from unit_tests.register_action.conftest import COMMIT, IMAGE, POOL

DAY = "2026-01-02T03:04:05.123456Z"


class Prefect:
    """Answers of Prefect's REST API to filters: deployments, their flows, and runs; counts what it was asked."""

    def __init__(self) -> None:
        self.deployments: list[dict[str, Any]] = []
        self.runs: list[dict[str, Any]] = []
        self.asked: list[str] = []

    def ask(self, _: Environment, path: str, body: dict[str, Any], patient: bool = False) -> list[dict[str, Any]]:
        self.asked.append(path)
        assert body["work_pools"] == {"name": {"any_": [POOL]}}
        if path == "/deployments/filter":
            return self.deployments
        if path == "/flows/filter":
            return [{"id": name, "name": name} for name in {each["flow_id"] for each in self.deployments}]
        assert (path, body["sort"]) == ("/flow_runs/filter", "EXPECTED_START_TIME_DESC")
        which = body["flow_runs"]
        runs = sorted(self.runs, key=lambda run: str(run["expected_start_time"]), reverse=True)
        if "deployment_id" in which:
            assert which["start_time"] == {"is_null_": False}
            runs = [run for run in runs if run["deployment_id"] in which["deployment_id"]["any_"] and run["start_time"]]
        else:
            assert which.keys() == {"expected_start_time"}
        return runs[: body["limit"]]

    def add(self, full_name: str, **fields: Any) -> None:
        flow, _, name = full_name.partition("/")
        nothing = {"version": None, "labels": None, "job_variables": None, "schedules": [], "paused": False}
        self.deployments.append({"id": full_name, "flow_id": flow, "name": name, **nothing, **fields})

    def ran(self, full_name: str, expected: str, state: str, started: str | None = None) -> None:
        times = {"expected_start_time": expected, "start_time": started}
        self.runs.append({"name": "brave-fox", "deployment_id": full_name, "state_name": state, **times})


@pytest.fixture
def prefect(monkeypatch: pytest.MonkeyPatch) -> Prefect:
    """A deployment that ran, one that is paused and was only scheduled, and a preview."""
    fake = Prefect()
    monkeypatch.setattr(prefect_rest, "ask", fake.ask)
    monkeypatch.setattr(overview, "ask", fake.ask)
    schedules = [{"schedule": {"cron": "0 6 * * *", "timezone": "Europe/Berlin"}, "active": True}]
    variables, labels = {"image": IMAGE.pinned}, {"workflow": "etl", "base_image": "agent@sha256:0"}
    fake.add("tax/dev", paused=True)
    fake.add("sales/dev", version=COMMIT, labels=labels, schedules=schedules, job_variables=variables)
    fake.add("sales/dev-fix", labels={"preview": "fix", "workflow": "etl"})
    fake.ran("sales/dev", DAY, "Failed", DAY)
    fake.ran("sales/dev", DAY.replace("T03", "T09"), "Completed", DAY.replace("T03", "T09"))
    fake.ran("tax/dev", DAY.replace("T03", "T10"), "Late")
    return fake


def test_workflows_have_version_image_schedule_and_last_run(environment: Environment, prefect: Prefect) -> None:
    (sales, preview, tax), _ = overview.read(environment)

    assert sales == {
        "name": "sales/dev",
        "workflow": "etl",
        "version": COMMIT,
        "image": IMAGE.pinned,
        "base_image": "agent@sha256:0",
        "schedule": "0 6 * * * Europe/Berlin",
        "last_run": "Completed 2026-01-02 09:04 UTC",
        "state": "registered",
    }
    assert (preview["name"], preview["state"]) == ("sales/dev-fix", "preview")
    assert preview["base_image"] is tax["base_image"] is None
    assert (tax["state"], tax["last_run"], tax["version"], tax["image"]) == ("paused", "never", "", "")


def test_runs_are_the_newest_first_those_that_wait_too(environment: Environment, prefect: Prefect) -> None:
    prefect.ran("gone/dev", DAY, "Cancelled", DAY)
    _, runs = overview.read(environment)

    assert [(run["deployment"], run["state"]) for run in runs] == [
        ("tax/dev", "Late"),
        ("sales/dev", "Completed"),
        ("sales/dev", "Failed"),
        ("", "Cancelled"),
    ]
    assert runs[0]["since"] == DAY.replace("T03", "T10")


def test_deployment_that_ran_long_ago_is_asked_for_on_its_own(
    environment: Environment, prefect: Prefect, monkeypatch: pytest.MonkeyPatch
) -> None:
    overview.read(environment)
    assert prefect.asked.count("/flow_runs/filter") == 1
    monkeypatch.setattr(overview, "NEWEST", 2)
    prefect.ran("tax/dev", DAY.replace("2026", "2025"), "Crashed", DAY.replace("2026", "2025"))
    workflows, _ = overview.read(environment)

    assert {each["name"]: each["last_run"] for each in workflows} == {
        "sales/dev": "Completed 2026-01-02 09:04 UTC",
        "sales/dev-fix": "never",
        "tax/dev": "Crashed 2025-01-02 03:04 UTC",
    }
    assert prefect.asked.count("/flow_runs/filter") == 1 + 3


def test_workflows_are_printed_one_line_for_each_or_as_json(
    environment: Environment, prefect: Prefect, capsys: pytest.CaptureFixture[str]
) -> None:
    rows, _ = overview.read(environment)
    overview.show(rows, False)
    header, *lines = capsys.readouterr().out.splitlines()
    overview.show(rows, True)

    assert header.split() == ["deployment", "workflow", "version", "image", "schedule", "last", "run", "state"]
    assert len(lines) == 3
    assert lines[0].split()[:4] == ["sales/dev", "etl", "c0ffeec0ffee", "1" * 12]
    assert json.loads(capsys.readouterr().out) == rows


def test_missing_key_is_told(environment: Environment, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(AGENT_TOKEN, raising=False)

    with pytest.raises(PlatformError, match="no Prefect key"):
        overview.read(environment)
