"""Runs of what is registered: which deployment is meant, how its run starts and is followed, and the overview."""

import time
import types
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any
from uuid import UUID, uuid4

import httpx
import pytest

from environments import run_terms
from environments.errors import PlatformError
from environments.settings import EXECUTION_ENVIRONMENTS, Environment
from register_action import runs
from register_action.parameters import KIND, VAR_KEYWORD
from register_action.workflow import Choice
from unit_tests.register_action.conftest import PARAMETERS, FakePrefect, not_found

DAY = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


Resolve = Callable[[str], str]


@pytest.fixture
def resolve(environment: Environment, prefect: FakePrefect) -> Resolve:
    """The full name of the deployment that is found in a project with previews and names that are alike."""
    for name in ("sample-workflow/dev", "sales_report/dev", "Sales Report/dev", "tax/dev-early", "tax/dev-late"):
        prefect.add(name)
    prefect.add("stock/dev-night")
    for name in ("sample-workflow/dev-fix", "stock/dev-fix", "new/dev-fix", "both/dev-fix", "both/dev-fix-2"):
        prefect.add(name, labels={"preview": "fix"})
    return lambda name: runs.resolve(environment, name).name


def test_name_that_differs_by_its_letters_is_not_taken_for_another(
    environment: Environment, prefect: FakePrefect
) -> None:
    prefect.add("日次/dev")
    prefect.add(f"{'x' * 150}a/dev")
    for name in ("週次", "workflow", f"{'x' * 150}b"):
        with pytest.raises(PlatformError, match="no workflow"):
            runs.resolve(environment, name)

    assert runs.resolve(environment, "日次").name == "日次/dev"


def refused(resolve: Resolve, name: str) -> PlatformError:
    with pytest.raises(PlatformError) as caught:
        resolve(name)
    return caught.value


@pytest.mark.parametrize("name", ["sample-workflow", "Sample Workflow", "sample_workflow/Dev", "sample-workflow/"])
def test_real_deployment_goes_before_previews_however_its_name_is_written(resolve: Resolve, name: str) -> None:
    assert resolve(name) == "sample-workflow/dev"


UNDOUBTED = {
    "stock": "stock/dev-night",
    "new": "new/dev-fix",
    "tax/dev_late": "tax/dev-late",
    "sample_workflow/dev-fix": "sample-workflow/dev-fix",
    "sales_report": "sales_report/dev",
    "Sales Report/dev": "Sales Report/dev",
}


@pytest.mark.parametrize(("name", "found"), UNDOUBTED.items())
def test_deployment_is_found_as_soon_as_the_name_leaves_no_doubt(resolve: Resolve, name: str, found: str) -> None:
    assert resolve(name) == found


DOUBTED = {"sales-report": ("Sales Report/dev", "sales_report/dev"), "both": ("both/dev-fix", "both/dev-fix-2")}


@pytest.mark.parametrize(("name", "choices"), DOUBTED.items())
def test_name_that_could_be_several_lists_them(resolve: Resolve, name: str, choices: tuple[str, str]) -> None:
    error = refused(resolve, name)

    assert error.what == f"{name!r} could be {' or '.join(choices)}"
    assert error.todo == "write one of these names"


def test_name_written_exactly_is_never_several(resolve: Resolve, prefect: FakePrefect) -> None:
    prefect.add("tax/dev_late")

    assert [resolve("tax/dev-late"), resolve("tax/dev_late")] == ["tax/dev-late", "tax/dev_late"]


NEAR = {"sample_workflo": "sample-workflow", "tax/dev-lat": "tax/dev-late", "new/dev-fox": "new/dev-fix"}


@pytest.mark.parametrize(("name", "hint"), NEAR.items())
def test_unknown_name_gets_one_that_can_be_used_and_the_list(resolve: Resolve, name: str, hint: str) -> None:
    error = refused(resolve, name)

    assert error.what == f"no workflow {name!r} is registered in environment dev"
    assert f"did you mean {hint}?" in error.why
    assert "sales_report, sample-workflow, stock, tax" in error.why
    assert error.todo == "invoke register --workflow-path ... --env dev"
    assert resolve(hint)


@pytest.mark.usefixtures("prefect")
def test_nothing_registered_says_so(environment: Environment) -> None:
    assert refused(lambda name: runs.resolve(environment, name).name, "sales").why == "registered: none"


class Runs:
    """The part of the Prefect client that has to do with runs, for `FakePrefect`; runs are made by the test."""

    def __init__(self, prefect: Any) -> None:
        self.started: list[tuple[UUID, dict[str, Any]]] = []
        self.keys: list[str] = []
        self.known: list[Any] = []
        self.states: list[Any] = []
        self.past: list[Any] = []
        self.lines: list[Any] = []
        self.deployment = uuid4()
        self.variables: dict[str, Any] = {}
        mine = (
            "create_flow_run_from_deployment",
            "read_flow_run",
            "read_flow_run_states",
            "read_deployment",
            "read_logs",
        )
        for name in mine:
            setattr(prefect, name, getattr(self, name))

    def create_flow_run_from_deployment(self, deployment_id: UUID, idempotency_key: str, **told: Any) -> Any:
        self.keys.append(idempotency_key)
        self.started.append((deployment_id, told))
        from prefect.client.schemas.objects import FlowRun

        self.known.append(FlowRun(flow_id=uuid4(), name="brave-fox", deployment_id=deployment_id))
        return self.known[-1]

    def read_flow_run(self, _: UUID) -> Any:
        from prefect.client.schemas.objects import FlowRun

        state = self.states.pop(0) if len(self.states) > 1 else self.states[0]
        self.past += [state] if state not in self.past else []
        return FlowRun(flow_id=uuid4(), deployment_id=self.deployment, job_variables=self.variables, state=state)

    def read_flow_run_states(self, _: UUID) -> list[Any]:
        return self.past

    def read_deployment(self, deployment_id: UUID) -> Any:
        assert deployment_id == self.deployment
        return types.SimpleNamespace(job_variables={"restarts": 1})

    def read_logs(self, _: Any, limit: int, offset: int, sort: Any) -> list[Any]:
        assert sort.value == "TIMESTAMP_ASC"
        return self.lines[offset : offset + min(limit, 2)]


@pytest.fixture
def of_flows(prefect: FakePrefect) -> Runs:
    prefect.add("sales/dev", job_variables={"cpu": 512, "memory": 2048})
    return Runs(prefect)


def start(environment: Environment, choice: Choice) -> UUID:
    return runs.start(environment, runs.resolve(environment, "sales"), {"day": 1}, choice)


@pytest.mark.parametrize(
    ("choice", "told"),
    [
        (Choice(), None),
        (Choice(cpu=1024), {"cpu": 1024}),
        (Choice(memory=3072), {"memory": 3072}),
        (
            Choice((), "ecs_fargate_spot", 256, 512),
            {**EXECUTION_ENVIRONMENTS["ecs_fargate_spot"], "cpu": 256, "memory": 512},
        ),
    ],
)
def test_run_starts_with_its_parameters_and_only_what_was_chosen_for_it(
    environment: Environment, prefect: FakePrefect, of_flows: Runs, choice: Choice, told: dict[str, Any] | None
) -> None:
    run_id = start(environment, choice)

    expected = {"parameters": {"day": 1}, "job_variables": told}
    assert of_flows.started == [(prefect.deployments["sales/dev"].id, expected)]
    assert [run_id] == [run.id for run in of_flows.known]


def test_each_start_has_a_key_by_which_prefect_knows_a_request_that_is_sent_again(
    environment: Environment, of_flows: Runs
) -> None:
    start(environment, Choice())
    start(environment, Choice())

    assert len({key for key in of_flows.keys if key}) == 2


def test_parameter_that_the_flow_does_not_have_starts_nothing(
    environment: Environment, prefect: FakePrefect, of_flows: Runs
) -> None:
    prefect.edit("sales/dev", parameter_openapi_schema=PARAMETERS)
    with pytest.raises(PlatformError) as caught:
        runs.start(environment, runs.resolve(environment, "sales"), {"dayz": 1, "limit": 2}, Choice())

    assert caught.value.what == "the parameters don't fit sales/dev"
    assert caught.value.why == "the flow has no parameter 'dayz'; did you mean day?"
    assert of_flows.started == []


def test_parameter_of_any_name_goes_where_prefect_passes_it_on(
    environment: Environment, prefect: FakePrefect, of_flows: Runs
) -> None:
    properties = {**PARAMETERS["properties"], "more": {"type": "object", KIND: VAR_KEYWORD}}
    prefect.edit("sales/dev", parameter_openapi_schema={**PARAMETERS, "properties": properties})
    prefect.edit("sales/dev", parameters={"limit": 1, "more": {"region": "eu"}})
    runs.start(environment, runs.resolve(environment, "sales"), {"dayz": 1}, Choice())

    [(_, told)] = of_flows.started
    assert told["parameters"] == {"more": {"region": "eu", "dayz": 1}}


@pytest.mark.parametrize("choice", [Choice(cpu=4096), Choice(memory=512), Choice(cpu=3), Choice(memory=5000)])
def test_size_that_fargate_has_not_starts_nothing(environment: Environment, of_flows: Runs, choice: Choice) -> None:
    with pytest.raises(PlatformError, match="no size of cpu") as caught:
        start(environment, choice)

    assert "allowed: " in caught.value.why
    assert of_flows.started == []


def follow(environment: Environment, of_flows: Runs, monkeypatch: pytest.MonkeyPatch, *states: str) -> bool:
    """Follow a run that goes through some states, each a type or one of the agent's names."""
    from prefect.client.schemas.objects import State, StateType

    monkeypatch.setattr(runs, "POLL_SECONDS", 0)
    why = {"FAILED": "so it is"}
    of_flows.past = []
    of_flows.states = [
        State(type=StateType.SCHEDULED, name=state, timestamp=DAY)
        if state == run_terms.AWAITING_RESTART
        else State(type=StateType[state], timestamp=DAY, message=why.get(state))
        for state in states
    ]
    return runs.follow(environment, uuid4())


@pytest.mark.parametrize(("end", "told"), [("COMPLETED", "Completed"), ("FAILED", "Failed: so it is")])
def test_run_is_followed_to_its_end_each_state_and_line_once(
    environment: Environment, of_flows: Runs, monkeypatch: Any, capsys: Any, end: str, told: str
) -> None:
    of_flows.lines = [
        types.SimpleNamespace(level=level, message="said", timestamp=DAY) for level in (20, 20, 35, 40, 20)
    ]
    well = follow(environment, of_flows, monkeypatch, "SCHEDULED", "RUNNING", "RUNNING", end)
    lines = [line.removeprefix("03:04:05  ") for line in capsys.readouterr().out.splitlines()]

    assert well is (end == "COMPLETED")
    assert [line[9:] for line in lines if line.startswith("state")] == ["Scheduled", "Running", told]
    assert [line.split() for line in lines if not line.startswith("state")] == [
        [level, "said"] for level in ("INFO", "INFO", "35", "ERROR", "INFO")
    ]


def test_run_that_crashes_is_followed_until_it_was_started_again(
    environment: Environment, of_flows: Runs, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    lived = ("RUNNING", "CRASHED", "CRASHED", run_terms.AWAITING_RESTART, "RUNNING")
    begin = time.monotonic()

    assert follow(environment, of_flows, monkeypatch, *lived, "COMPLETED")
    assert capsys.readouterr().out.count("it may be started again") == 1
    assert not follow(environment, of_flows, monkeypatch, *lived, "CRASHED"), "once is all it may"
    assert time.monotonic() - begin < runs.RESTARTED_WITHIN_SECONDS


def test_crashed_run_has_ended_when_the_agent_says_so_or_nothing_in_time(
    environment: Environment, of_flows: Runs, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = f"{run_terms.NOT_RESTARTED}: it would end the same way."
    of_flows.lines = [types.SimpleNamespace(level=40, message=words, timestamp=DAY)]
    assert not follow(environment, of_flows, monkeypatch, "RUNNING", "CRASHED")

    of_flows.lines = []
    monkeypatch.setattr(runs, "RESTARTED_WITHIN_SECONDS", 0.01)
    assert not follow(environment, of_flows, monkeypatch, "CRASHED")


def test_crashed_run_that_may_not_start_again_has_ended_at_once(
    environment: Environment, of_flows: Runs, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    of_flows.variables = {"restarts": 0}  # for this run alone

    assert not follow(environment, of_flows, monkeypatch, "CRASHED", "RUNNING")
    assert "started again" not in capsys.readouterr().out


def test_run_that_was_deleted_is_followed_no_more(
    environment: Environment, of_flows: Runs, prefect: FakePrefect, monkeypatch: pytest.MonkeyPatch
) -> None:
    def gone(_: UUID) -> None:
        raise not_found()

    monkeypatch.setattr(prefect, "read_flow_run", gone, raising=False)
    with pytest.raises(PlatformError, match="is not at Prefect any more"):
        runs.follow(environment, uuid4())


def test_run_that_can_not_be_followed_any_more_is_said_to_go_on(
    environment: Environment, of_flows: Runs, prefect: FakePrefect, monkeypatch: pytest.MonkeyPatch
) -> None:
    def away(_: UUID) -> None:
        raise httpx.ConnectError("connection refused")

    monkeypatch.setattr(prefect, "read_flow_run", away, raising=False)
    with pytest.raises(PlatformError, match="out of reach") as caught:
        runs.follow(environment, run := uuid4())

    assert f"run {run} any more; the run itself goes on" in caught.value.why
    assert "invoke workflows" in caught.value.todo


def test_run_that_no_agent_takes_is_told_once(
    environment: Environment, of_flows: Runs, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(runs, "HINT_AFTER_SECONDS", -1)
    follow(environment, of_flows, monkeypatch, *["SCHEDULED"] * 3, "COMPLETED")

    assert capsys.readouterr().out.count("no agent has taken it yet; invoke status --env dev tells why") == 1


def test_log_streams_are_those_of_the_deployments_task_family(environment: Environment, prefect: FakePrefect) -> None:
    prefect.add("sales/dev", job_variables={"family": "sales"})
    prefect.add("sales/dev-night", job_variables={"family": "sales_night"})

    assert runs.log_prefix(environment, "sales/dev-night") == "sales_night/"
    assert runs.log_prefix(environment, "sales") == "sales/"


@pytest.mark.parametrize("variables", [{"family": "workflow"}, {}], ids=["one family", "the project's default"])
def test_log_that_a_deployment_shares_with_another_is_not_shown_for_its_own(
    environment: Environment, prefect: FakePrefect, variables: dict[str, str]
) -> None:
    prefect.add("日次/dev", job_variables=variables)
    prefect.add("週次/dev", job_variables=variables)
    prefect.add("sales/dev", job_variables={"family": "sales"})
    with pytest.raises(PlatformError) as caught:
        runs.log_prefix(environment, "週次")

    assert "日次/dev" in caught.value.why
    assert "sales" not in str(caught.value)
    assert runs.log_prefix(environment, "sales") == "sales/"
