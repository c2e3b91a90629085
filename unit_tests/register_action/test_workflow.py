import dataclasses
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from environments.errors import PlatformError
from environments.secrets import AGENT_TOKEN, REGISTER_TOKEN
from environments.settings import EXECUTION_ENVIRONMENTS, Environment
from register_action import workflow
from register_action.discovery import FoundFlow
from register_action.workflow import Choice, branch_slug, check_size, choose, job_variables
from unit_tests.register_action.conftest import HandOver, a_source

DAILY = """deployments:
  - name: daily
    entrypoint: flow.py:sales
"""
SIZED = f"""{DAILY}    work_pool: {{job_variables: {{cpu: 1024, memory: 4096, capacity_provider: FARGATE}}}}
"""


def _names(handed_over: workflow.Workflow) -> list[str]:
    return [f"{entry.flow.name}/{entry.name}" for entry in handed_over.entries]


def _refused(hand_over: HandOver, *flows: str, **said: Any) -> PlatformError:
    with pytest.raises(PlatformError) as caught:
        hand_over(*flows, **said)
    assert caught.value.why
    assert caught.value.todo
    return caught.value


def test_flow_without_an_entry_is_named_after_the_environment(hand_over: HandOver) -> None:
    assert _names(hand_over("sales", "stock_count")) == ["sales/dev", "stock-count/dev"]


@pytest.mark.parametrize(
    ("preview", "branch", "entry", "expected"),
    [
        (False, "main", "daily", "sales/dev-daily"),
        (False, "main", "dev", "sales/dev"),
        (False, "main", "prod", "sales/dev-prod"),
        (True, "feature/New_Tax", "daily", "sales/dev-feature-new-tax-daily"),
        (True, "feature/New_Tax", "dev", "sales/dev-feature-new-tax"),
    ],
)
def test_entry_is_part_of_the_name_unless_it_is_called_like_the_environment(
    hand_over: HandOver, preview: bool, branch: str, entry: str, expected: str
) -> None:
    text = DAILY.replace("daily", entry)
    read = hand_over("sales", "stock", prefect_yaml=text, choice=Choice(preview=preview), branch=branch)

    assert _names(read)[0] == expected
    assert read.entries[0].declared is not None


def test_flow_with_an_entry_has_no_deployment_besides(hand_over: HandOver) -> None:
    read = hand_over("sales", "stock", prefect_yaml=DAILY + DAILY.partition("\n")[2].replace("daily", "weekly"))

    assert _names(read) == ["sales/dev-daily", "sales/dev-weekly", "stock/dev"]
    assert [flow.name for flow in read.flows] == ["sales", "stock"]


def test_only_previews_know_whose_they_are(hand_over: HandOver) -> None:
    real = hand_over("sales", branch="feature/x")
    preview = hand_over("sales", branch="feature/x", choice=Choice(preview=True))

    assert (real.preview, _names(real)) == ("", ["sales/dev"])
    assert (preview.preview, _names(preview)) == ("feature/x", ["sales/dev-feature-x"])
    assert preview.name == "etl"


@pytest.mark.parametrize(
    ("branch", "expected"),
    [
        ("main", "main"),
        ("feature/ABC-1_fix", "feature-abc-1-fix"),
        ("--a//b--", "a-b"),
        ("dependabot/pip/x-1.2.3", "dependabot-pip-x-1-2-3"),
        ("x" * 59 + "/yz", "x" * 59),
        ("日本", "preview"),
        ("_", "preview"),
    ],
)
def test_branch_is_spelled_in_lower_case_with_dashes(branch: str, expected: str) -> None:
    assert branch_slug(branch) == expected


@settings(max_examples=200, deadline=None, database=None)
@given(branch=st.text(min_size=1, max_size=200))
def test_any_branch_gives_previews_a_name_of_their_own(branch: str) -> None:
    assert re.fullmatch("[a-z0-9]+(-[a-z0-9]+)*", branch_slug(branch))
    assert len(branch_slug(branch)) <= 60


def test_flows_that_are_not_wanted_have_no_deployment(hand_over: HandOver) -> None:
    text = DAILY + "  - {name: all, entrypoint: flow.py:stock}\n"
    chosen = hand_over("sales", "stock", "tax", prefect_yaml=text, choice=Choice(flows=("stock", "tax")))

    assert _names(chosen) == ["stock/dev-all", "tax/dev"]
    assert "no flow 'salse'" in _refused(hand_over, "sales", choice=Choice(flows=("salse",))).what


@pytest.mark.parametrize("name", list(EXECUTION_ENVIRONMENTS))
def test_choice_becomes_job_variables_of_the_work_pool(name: str) -> None:
    assert choose([], name, "1024", "2048").job_variables == {
        **EXECUTION_ENVIRONMENTS[name],
        "cpu": 1024,
        "memory": 2048,
    }
    assert choose([], name, None, "").job_variables == EXECUTION_ENVIRONMENTS[name]


def test_what_is_left_open_is_left_to_the_environment() -> None:
    assert choose([], "", "", None) == Choice()
    assert choose(["a", "b"], "", None, None, preview=True) == Choice(flows=("a", "b"), preview=True)
    assert Choice().job_variables == {}


def test_prefect_yaml_goes_before_the_choice_and_only_where_it_says_something(hand_over: HandOver) -> None:
    choice = choose([], "ecs_fargate_spot", "512", "2048")
    read = hand_over("sales", "stock", prefect_yaml=SIZED, choice=choice)
    cpu_only = hand_over("sales", prefect_yaml=SIZED.replace("memory: 4096, ", ""), choice=choice)

    assert [job_variables(read, entry) for entry in read.entries] == [
        {"capacity_provider": "FARGATE", "compatibility": "FARGATE", "cpu": 1024, "memory": 4096},
        {"capacity_provider": "FARGATE_SPOT", "compatibility": "FARGATE", "cpu": 512, "memory": 2048},
    ]
    assert job_variables(cpu_only, cpu_only.entries[0])["memory"] == 2048


def test_unknown_execution_environment_lists_those_there_are() -> None:
    with pytest.raises(PlatformError, match="unknown execution environment 'ecs_ec2'") as caught:
        choose([], "ecs_ec2", None, None)

    assert all(name in caught.value.why for name in EXECUTION_ENVIRONMENTS)


@pytest.mark.parametrize("text", ["big", "0.5", "-512", "512 MB", "1" * 7, "٥١٢", "512\n"])
@pytest.mark.parametrize("option", ["cpu", "memory"])
def test_size_that_is_no_number_is_refused(option: str, text: str) -> None:
    with pytest.raises(PlatformError) as caught:
        choose([], "", text if option == "cpu" else None, text if option == "memory" else None)

    assert caught.value.what == f"--{option} {text!r} is not a whole number"
    assert f"--{option} 1024" in caught.value.todo


@pytest.mark.parametrize(
    ("cpu", "memory", "allowed"),
    [("512", "8192", "1024, 2048, 3072, 4096"), ("300", "1024", "256, 512, 1024"), ("4096", "1024", "8192 to 30720")],
)
def test_size_that_fargate_does_not_have_lists_those_it_has(
    hand_over: HandOver, cpu: str, memory: str, allowed: str
) -> None:
    error = _refused(hand_over, "sales", choice=choose([], "", cpu, memory))

    assert error.what == f"AWS Fargate has no size of cpu {cpu} with memory {memory}, which flow.py:sales asks for"
    assert allowed in error.why
    assert (error.file, error.line) == ("", 0)


def test_size_is_checked_as_the_whole_it_ends_up_as(hand_over: HandOver, environment: Environment) -> None:
    text = SIZED.replace("memory: 4096, ", "")
    error = _refused(hand_over, "stock", "sales", prefect_yaml=text)

    assert f"cpu 1024 with memory {environment.workflow_memory}" in error.what
    assert (error.file, error.line) == ("prefect.yaml", 2)
    assert hand_over("sales", prefect_yaml=text, choice=choose([], "", None, "2048"))
    assert _refused(hand_over, "sales", prefect_yaml=DAILY, choice=choose([], "", "256", "4096")).file == ""


@pytest.mark.parametrize("size", [None, "{{ prefect.variables.cpu }}", "512"])
def test_size_that_prefect_fills_in_for_each_run_is_no_error(environment: Environment, size: Any) -> None:
    check_size(environment, {"cpu": size}, "this run")
    check_size(environment, {"memory": size and "1024"}, "this run")


@pytest.mark.parametrize("zero", [{"cpu": 0}, {"memory": 0}, {"cpu": "4096"}])
def test_nothing_is_no_size(environment: Environment, zero: dict[str, Any]) -> None:
    with pytest.raises(PlatformError, match="which this run asks for"):
        check_size(environment, zero, "this run")


@pytest.mark.parametrize(
    "variables",
    [
        "labels: {aws:team: data}",
        "labels.aws:team: data",
        "env: {BIG: 'LARGE'}",
        "env.BIG: LARGE",
    ],
)
def test_job_variables_that_aws_refuses_are_told_with_their_line(hand_over: HandOver, variables: str) -> None:
    text = variables.replace("LARGE", "x" * 50_000)
    error = _refused(hand_over, "sales", prefect_yaml=f"{DAILY}    work_pool: {{job_variables: {{{text}}}}}\n")

    assert error.what == "AWS does not accept the job variables of flow.py:sales"
    assert "aws:" in error.why or "50,0" in error.why
    assert "x" * 50 not in str(error)
    assert (error.file, error.line) == ("prefect.yaml", 2)


def test_job_variables_that_aws_accepts_are_no_error(hand_over: HandOver) -> None:
    labels = ", ".join(f"team{number}: data" for number in range(30))
    text = f"{DAILY}    work_pool: {{job_variables: {{labels: {{{labels}}}, env: {{A: '', B: '{'x' * 40_000}'}}}}}}\n"

    assert _names(hand_over("sales", prefect_yaml=text)) == ["sales/dev-daily"]


def test_name_of_the_agents_repository_is_not_to_be_had(hand_over: HandOver, environment: Environment) -> None:
    error = _refused(hand_over, "sales", name="dataflow_automation_agent")

    assert environment.agent_name in error.why
    assert "--name" in error.todo


def test_preview_needs_a_branch(hand_over: HandOver) -> None:
    assert "--branch-name" in _refused(hand_over, "sales", choice=Choice(preview=True), branch="").todo
    assert _names(hand_over("sales", branch="")) == ["sales/dev"]


def test_entrypoints_that_are_not_there_are_listed_with_the_flows_that_are(hand_over: HandOver) -> None:
    text = (
        "deployments:\n  - {name: a, entrypoint: flow.py:sales}\n"
        "  - {name: b, entrypoint: flow.py:sale}\n  - {name: c, entrypoint: etl.py:sales}\n"
    )
    error = _refused(hand_over, "sales", "stock", prefect_yaml=text, choice=Choice(flows=("stock",)))

    assert error.why.splitlines() == ["prefect.yaml:3: b: flow.py:sale", "prefect.yaml:4: c: etl.py:sales"]
    assert "flow.py:sales, flow.py:stock" in error.todo
    assert (error.file, error.line) == ("prefect.yaml", 3)


def test_image_gets_the_files_and_the_author_the_notes(hand_over: HandOver, tmp_path: Path) -> None:
    hand_over("sales")
    folder = tmp_path / "workflow"
    (folder / "uv.lock").write_text("")
    (folder / "data.csv").write_text("1,2")
    (folder / ".env").write_text("KEY=1")
    read = hand_over("sales", prefect_yaml=DAILY + "    version: 7\n")

    assert sorted(read.files) == ["data.csv", "flow.py", "prefect.yaml", "uv.lock"]
    assert read.files["data.csv"] == b"1,2"
    assert any("version" in note for note in read.notes)
    assert any("uv.lock" in note for note in read.notes)


@pytest.mark.parametrize("variable", [AGENT_TOKEN, REGISTER_TOKEN])
def test_prefect_yaml_can_not_name_our_keys(
    hand_over: HandOver, monkeypatch: pytest.MonkeyPatch, variable: str
) -> None:
    monkeypatch.setenv(variable, "a-very-secret-key")
    error = _refused(hand_over, "sales", prefect_yaml=f'{DAILY}    parameters: {{key: "{{{{ ${variable} }}}}"}}\n')

    assert "not set" in error.why
    assert "a-very-secret-key" not in str(error)


def test_no_code_of_the_workflow_runs(environment: Environment, tmp_path: Path) -> None:
    (tmp_path / "flow.py").write_text("from prefect import flow\n1 / 0\n@flow\ndef sales(): ...\n")
    read = workflow.read(environment, a_source(tmp_path), Choice())

    assert read.flows == [FoundFlow("flow.py", "sales", "sales", 4)]


def test_other_environments_own_sizes_and_names_hold(hand_over: HandOver, environment: Environment) -> None:
    small = dataclasses.replace(environment, name="test", workflow_cpu=256, workflow_memory=512)
    folder = hand_over("sales").source
    read = workflow.read(small, folder, choose([], "", None, "2048"))

    assert _names(read) == ["sales/test"]
    with pytest.raises(PlatformError, match="cpu 256 with memory 4096"):
        workflow.read(small, folder, choose([], "", None, "4096"))
