import importlib.util
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from invoke.collection import Collection
from invoke.main import program
from invoke.parser import Parser

import tasks
from environments import settings
from environments.settings import ROOT, known

INVOKE = Path(sys.executable).parent / "invoke"
TASKS = {
    *("deploy", "plan", "destroy", "status", "settings", "outputs", "doctor", "agent", "rotate-key", "unlock"),
    *("register", "unregister", "workflows", "run", "logs", "rollback", "open", "cost"),
}
OF_A_WORKFLOW = "workflow-path git-url branch-name name"
OPTIONS = {
    "register": f"{OF_A_WORKFLOW} commit-sha execution-environment cpu memory flow preview prune dry-run quiet json",
    "unregister": f"{OF_A_WORKFLOW} preview sweep yes dry-run",
    "run": "name param params-file wait execution-environment cpu memory",
    "logs": "name follow lines",
    "workflows": "json",
    "status": "json watch",
    "open": "what browser",
    "deploy": "plan yes quiet json",
    "rollback": "to yes dry-run",
    "plan": "out markdown keep exit-zero drift",
    "destroy": "yes name quiet",
    "settings": "json",
    "cost": "json",
    "preflight": "role-outcome deploys",
    "rotate-key": "",
    "bootstrap-account": "repository default-branch workflow-repository trust-users github reviewer remove yes",
}
"""What pipelines and people type; the action hands these on."""
HEAVY = ("prefect", "prefect_aws", "boto3", "botocore", "docker", "python_terraform", "rich", "hcl2")


def _run(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [str(INVOKE), *arguments]
    return subprocess.run(
        command, cwd=settings.ROOT, capture_output=True, text=True, stdin=subprocess.DEVNULL, check=False
    )


@pytest.fixture(scope="module")
def listed() -> dict[str, str]:
    """The tasks of `invoke --list`, with what it says of each."""
    answer = _run("--list", "--list-format=json")
    assert answer.returncode == 0, answer.stderr
    return {task["name"]: task["help"] for task in json.loads(answer.stdout)["tasks"]}


def test_list_has_every_task_with_a_line_of_help(listed: dict[str, str]) -> None:
    assert set(listed) >= TASKS
    assert all(listed.values())


def test_help_of_every_task_explains_every_option(
    listed: dict[str, str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)
    for name in sorted(listed):
        program.run(["invoke", "--help", name], exit=False)
        options = capsys.readouterr().out.partition("Options:")[2]
        arguments = getattr(tasks, name.replace("-", "_")).get_arguments()

        assert "--env" in options, name
        assert [argument.name for argument in arguments if not argument.help] == [], name


@pytest.mark.parametrize("name", sorted(OPTIONS))
def test_options_are_those_that_users_type(name: str) -> None:
    task = getattr(tasks, name.replace("-", "_"))
    arguments = {argument.name.replace("_", "-"): argument for argument in task.get_arguments()}

    assert set(arguments) == {"env", *OPTIONS[name].split()}
    assert {option for option, argument in arguments.items() if argument.positional} <= {"name"}


@pytest.mark.parametrize("name", ["register", "unregister", "destroy"])
def test_what_a_pipeline_says_is_all_by_name(name: str) -> None:
    """A value that slips in as a positional argument would be taken for a folder or a name."""
    assert [argument.name for argument in getattr(tasks, name).get_arguments() if argument.positional] == []


@pytest.fixture
def parser(monkeypatch: pytest.MonkeyPatch) -> Parser:
    """Invoke's own parser of the project's tasks; with a module of its own, since it uses the help texts up."""
    monkeypatch.delitem(sys.modules, "invoke.main")  # it keeps the words of the command line that a test ran before
    specification = importlib.util.spec_from_file_location("tasks_anew", ROOT / "tasks.py")
    assert specification
    assert specification.loader
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return Parser(Collection.from_module(module).to_contexts())


def test_help_of_every_task_has_examples_that_invoke_understands(listed: dict[str, str], parser: Parser) -> None:
    for name in listed:
        docstring = getattr(tasks, name.replace("-", "_")).__doc__
        examples = [line.split()[1:] for line in docstring.splitlines() if line.strip().startswith("invoke ")]

        assert examples, name
        for words in examples:
            [context] = parser.parse_argv(words)
            assert context.name == name
            assert context.args["env"].value in known(), words


def test_help_of_register_names_its_options() -> None:
    answer = _run("--help", "register")

    assert answer.returncode == 0
    assert set(OPTIONS["register"].split()) <= set(re.findall("--([a-z-]+)", answer.stdout))


def test_several_flows_and_parameters_can_be_named() -> None:
    lists = {argument.name: argument.kind for task in (tasks.register, tasks.run) for argument in task.get_arguments()}

    assert (lists["flow"], lists["param"]) == (list, list)


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ("register --execution-environment ec2", "there are: ecs_fargate, ecs_fargate_spot"),
        ("register --cpu lots", "--cpu 'lots' is not a whole number"),
        ("run sales --memory -1", "--memory '-1' is not a whole number"),
        ("run sales --param day", "--param 'day' is not key=value"),
        ("run sales --params-file nosuch.json", "--params-file nosuch.json cannot be read"),
        ("status --watch --json", "say either --watch or --json"),
        ("open --what agent-log --env dev", "did you mean agent-logs?"),
        ("register --json --env locla", "did you mean local?"),
        ("unregister --env locla", "did you mean local?"),
        ("unregister --sweep --env dev", "--sweep takes --workflow-path"),
        ("unregister --sweep --workflow-path . --name etl", "neither --name nor --branch-name"),
        ("unregister --sweep --preview --workflow-path . --branch-name fix", "neither --name nor --branch-name"),
        ("deploy --plan nosuch --env dev", "there is no plan nosuch"),
        ("deploy --env prod", "add --yes to go on without being asked"),
        ("destroy --env prod --yes", "add --name prod"),
        ("destroy --env dev --yes --name prod", "--name is prod, the environment is dev"),
    ],
)
def test_wrong_option_is_told_before_anything_is_asked_or_done(command: str, message: str) -> None:
    answer = _run(*command.split())

    assert answer.returncode == 1
    assert answer.stdout == ""
    assert message in answer.stderr
    assert "Traceback" not in answer.stderr


def test_front_door_opens_without_the_heavy_libraries() -> None:
    code = f"import tasks, sys; print([name for name in {HEAVY!r} if name in sys.modules])"
    answer = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)

    assert answer.stdout.strip() == "[]"


def test_unknown_environment_is_an_error_message_and_no_traceback() -> None:
    answer = _run("status", "--env", "locla")

    assert answer.returncode == 1
    assert answer.stdout == ""
    assert "unknown environment 'locla'" in answer.stderr
    assert "did you mean local?" in answer.stderr
    assert "Traceback" not in answer.stderr
    assert "\x1b" not in answer.stderr


def test_agent_wants_to_know_the_direction() -> None:
    answer = _run("agent", "--up", "--down")

    assert answer.returncode == 1
    assert "--up or --down" in answer.stderr
    assert "Traceback" not in answer.stderr


@pytest.mark.parametrize("command", ["plan", "deploy", "destroy"])
def test_help_tells_the_exit_codes(command: str) -> None:
    assert "xit code" in _run("--help", command).stdout


def test_settings_are_shown_to_whom_has_no_access() -> None:
    """A pipeline reads from them which role it has to take on."""
    shown = json.loads(_run("settings", "--env", "prod", "--json").stdout)

    assert shown["environment"] == "prod"
    assert shown["deploy_role"].endswith(f"{shown['aws_account_id']}:role/prod_dataflow_automation_deploy")


def test_destroy_without_a_terminal_needs_yes() -> None:
    answer = _run("destroy", "--env", "dev")

    assert answer.returncode == 1
    assert "--yes" in answer.stderr
    assert "Traceback" not in answer.stderr
