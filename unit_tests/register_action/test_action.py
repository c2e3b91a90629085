"""The steps of action.yml, run by `functional_tests.runner` with a stand-in for the tools."""

import hashlib
import importlib.metadata
import re
import shutil
import stat
import zipfile
from pathlib import Path
from typing import Any

import pytest
import yaml
from packaging.utils import canonicalize_name

from environments.settings import ROOT
from functional_tests.runner import Job, Result, run_action, run_composite, run_step

FOLDER = ROOT / "register_action"
ACTION: dict[str, Any] = yaml.safe_load((FOLDER / "action.yml").read_text(encoding="utf-8"))
SCRIPTS = {step["name"]: step for step in ACTION["runs"]["steps"] if "run" in step}
TOKEN = "pnu_5up3r%25secret"
KEY = "prefect_workflow_register_token"
REQUIRED = {"env": "dev", "workflow_path": "workflow", KEY: TOKEN}
DEFAULTS = {
    "git_url": "${{ github.server_url }}/${{ github.repository }}",
    "branch_name": "${{ github.head_ref || github.ref_name }}",
    "commit_sha": "${{ github.sha }}",
    "prefect_execution_environment": "ecs_fargate",
    "workflow_cpu_configuration": "512",
    "workflow_memory_configuration": "1024",
    "github_token": "${{ github.token }}",
    **dict.fromkeys(("preview", "remove", "sweep", "prune"), "false"),
    **dict.fromkeys(("workflow_name", "flows"), ""),
}
SHA = "1" * 40
FLOORS = ("register_action", "infra", "environments")
NOT_ON_A_RUNNER = {
    "emulated_aws",
    "emulated_ecs",
    "emulated_lifecycle",
    "emulated_iam",
    "emulated_permissions",
    "emulated_refusals",
    "local_server",
    "terraform",
    "terraform_process",
}
INVOKE = ["-I", "-m", "invoke", f"--search-root={ROOT}"]
WHERE = ["--env=dev", "--workflow-path=workflow", "--git-url=https://github.com/acme/etl"]
OF_BRANCH = ["--branch-name=main", f"--commit-sha={SHA}"]
SIZE = ["--execution-environment=ecs_fargate", "--cpu=512", "--memory=1024"]
STAND_IN = """#!/bin/bash
printf '%s\\0' "$@" >"{told}/arguments"
env -0 >"{told}/environment"
echo "the key is $PREFECT_WORKFLOW_REGISTER_TOKEN"
echo 'image=registry/etl@sha256:0' >>"$GITHUB_OUTPUT"
echo '| deployment |' >>"$GITHUB_STEP_SUMMARY"
"""


class Bench:
    """A runner whose cache holds a stand-in for the tools, which writes down how it was called."""

    def __init__(self, folder: Path) -> None:
        self.workspace, self.machine, self.told = folder / "workspace", folder / "machine", folder / "told"
        self.workspace.mkdir()
        self.told.mkdir()
        job = Job(self.workspace, self.machine, {"action_path": str(FOLDER)}, {})
        _, outputs = run_step(job, SCRIPTS["Look for Python and the tools"], {})
        python = self.machine / "cache" / outputs["key"] / "bin" / "python"
        python.parent.mkdir(parents=True)
        python.write_text(STAND_IN.format(told=self.told))
        python.chmod(stat.S_IRWXU)

    def run(self, inputs: dict[str, str], **github: str) -> Result:
        given = {"sha": SHA, "token": "ghs", **github}
        return run_action(FOLDER, {**REQUIRED, **inputs}, self.workspace, self.machine, given)

    @property
    def options(self) -> list[str]:
        """Task and options with which the tools were called; empty when they were not."""
        file = self.told / "arguments"
        arguments = file.read_text().split("\0")[:-1] if file.exists() else INVOKE
        assert arguments[:4] == INVOKE
        return arguments[4:]

    @property
    def environment(self) -> dict[str, str]:
        pairs = (self.told / "environment").read_text().split("\0")[:-1]
        return {name: value for name, _, value in (pair.partition("=") for pair in pairs)}


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


def readme_table(heading: str) -> dict[str, list[str]]:
    """The rows of the table under a heading of the README, by the name in their first cell."""
    text = (FOLDER / "README.md").read_text(encoding="utf-8").partition(f"\n## {heading}\n")[2].partition("\n## ")[0]
    lines = [line.strip("|").replace("\\|", "\0") for line in text.splitlines() if line.startswith("| `")]
    rows = [[cell.strip().replace("\0", "|") for cell in line.split("|")] for line in lines]
    return {row[0].strip("`"): row[1:] for row in rows}


def test_inputs_and_outputs_are_those_that_pipelines_rely_on() -> None:
    assert {name for name, told in ACTION["inputs"].items() if told.get("required")} == set(REQUIRED)
    assert {name: told["default"] for name, told in ACTION["inputs"].items() if "default" in told} == DEFAULTS
    assert set(ACTION["inputs"]) == {*REQUIRED, *DEFAULTS}
    assert set(ACTION["outputs"]) == {"deployments", "image", "deployment_urls"}


def test_readme_has_every_input_with_its_default_and_every_output() -> None:
    told = {name: row[0].strip("`") for name, row in readme_table("Inputs").items()}

    assert told == {**dict.fromkeys(REQUIRED, "required"), **DEFAULTS}
    assert set(readme_table("Outputs")) == set(ACTION["outputs"])


@pytest.mark.parametrize("message", readme_table("Troubleshooting"))
def test_troubleshooting_is_about_messages_that_there_are(message: str) -> None:
    files = [FOLDER / "action.yml", *(file for name in FLOORS for file in (ROOT / name).glob("*.py"))]
    told = "".join(file.read_text(encoding="utf-8") for file in files)

    assert [part for part in re.split("<[a-z]+>", message) if part not in told] == []


def pins(lock: str) -> dict[str, str]:
    text = (ROOT / "requirements" / lock).read_text(encoding="utf-8")
    return dict(re.findall(r"^([a-z0-9._-]+)==([^\s;]+)", text, re.MULTILINE))


def test_the_action_installs_all_that_register_imports_in_the_tested_versions() -> None:
    files = (file for name in FLOORS for file in (ROOT / name).glob("*.py") if file.stem not in NOT_ON_A_RUNNER)
    text = "\n".join(file.read_text(encoding="utf-8") for file in files)
    installed = importlib.metadata.packages_distributions()
    imported = set(re.findall(r"^ *(?:from|import) (\w+)", text, re.MULTILINE)) & set(installed)
    packages = {canonicalize_name(installed[name][0]) for name in imported}

    assert {"prefect", "docker", "pyyaml"} < packages
    assert packages - set(pins("register.txt")) == set()
    assert pins("register.txt").items() <= pins("tools.txt").items()


@pytest.mark.parametrize("name", SCRIPTS)
def test_no_input_is_ever_part_of_a_script(name: str) -> None:
    assert "${{" not in SCRIPTS[name]["run"]
    assert SCRIPTS[name]["shell"] == "bash"
    assert SCRIPTS[name]["run"].startswith("set -euo pipefail\n")


def test_actions_of_others_are_pinned_to_a_commit() -> None:
    used = [step["uses"] for step in ACTION["runs"]["steps"] if "uses" in step]
    text = (FOLDER / "action.yml").read_text(encoding="utf-8")

    assert used
    assert all(re.fullmatch(r"[\w./-]+@[0-9a-f]{40}", name) for name in used)
    assert all(re.search(rf"{name} # v\d+\.\d+\.\d+$", text, re.MULTILINE) for name in used)


def test_the_shortest_use_registers_this_commit_of_this_repository(bench: Bench) -> None:
    done = bench.run({})

    assert done.code == 0, done.log
    assert bench.options == ["register", *WHERE, *OF_BRANCH, *SIZE]
    assert bench.environment["GITHUB_TOKEN"] == "ghs"
    assert done.outputs == {"deployments": "", "image": "registry/etl@sha256:0", "deployment_urls": ""}
    assert done.summary == "| deployment |\n"


@pytest.mark.parametrize(
    ("inputs", "options"),
    [
        ({"git_url": ""}, [*WHERE[:2], *OF_BRANCH, *SIZE]),
        ({"workflow_name": "sales"}, [*WHERE, "--name=sales", *OF_BRANCH, *SIZE]),
        ({"prune": "true"}, [*WHERE, *OF_BRANCH, *SIZE, "--prune"]),
        ({"preview": "true"}, [*WHERE, *OF_BRANCH, *SIZE, "--preview"]),
        ({"flows": "one two\n three\t\r\n"}, [*WHERE, *OF_BRANCH, *SIZE, "--flow=one", "--flow=two", "--flow=three"]),
        ({"flows": " \n"}, [*WHERE, *OF_BRANCH, *SIZE]),
        ({"commit_sha": "", "branch_name": "next"}, [*WHERE, "--branch-name=next", *SIZE]),
        ({"prefect_execution_environment": "", "workflow_cpu_configuration": ""}, [*WHERE, *OF_BRANCH, SIZE[2]]),
    ],
)
def test_inputs_become_options_of_register(bench: Bench, inputs: dict[str, str], options: list[str]) -> None:
    assert bench.run(inputs).code == 0
    assert bench.options == ["register", *options]


@pytest.mark.parametrize(
    ("event", "inputs", "options"),
    [
        ("push", {}, []),
        ("push", {"preview": "true"}, ["--branch-name=fix", "--preview"]),
        ("pull_request", {}, ["--branch-name=fix", "--preview"]),
        ("delete", {"prune": "true", "flows": "a"}, []),
    ],
)
def test_remove_takes_the_whole_workflow_only_outside_pull_requests(
    bench: Bench, event: str, inputs: dict[str, str], options: list[str]
) -> None:
    assert bench.run({**inputs, "remove": "true"}, event_name=event, head_ref="fix").code == 0
    assert bench.options == ["unregister", *WHERE, "--yes", *options]


@pytest.mark.parametrize("event", ["schedule", "workflow_dispatch", "pull_request"])
def test_sweep_is_for_all_branches_and_workflows(bench: Bench, event: str) -> None:
    inputs = {"sweep": "true", "workflow_name": "sales", "flows": "one", "prune": "true"}

    assert bench.run(inputs, event_name=event, api_url="https://api.github.com").code == 0
    assert bench.options == ["unregister", *WHERE, "--yes", "--sweep"]
    assert bench.environment["GITHUB_TOKEN"] == "ghs"
    assert bench.environment["GITHUB_API_URL"] == "https://api.github.com"
    assert not [option for option in bench.options if "ghs" in option]


@pytest.mark.parametrize("space", ["{}", " {}\n", "\n{}\r\n\t"])
def test_the_token_is_in_no_argument_and_in_no_line_of_the_log(bench: Bench, space: str) -> None:
    done = bench.run({KEY: space.format(TOKEN)})

    assert bench.environment["PREFECT_WORKFLOW_REGISTER_TOKEN"].strip() == TOKEN
    assert [name for name, value in bench.environment.items() if TOKEN in value] == ["PREFECT_WORKFLOW_REGISTER_TOKEN"]
    assert not [option for option in bench.options if TOKEN in option]
    assert re.search(r"the key is\s+\*\*\*", done.log)
    assert TOKEN not in done.log


@pytest.mark.parametrize(
    ("inputs", "titles"),
    [
        ({KEY: " \n\r\n"}, [f"input {KEY} is empty"]),
        ({KEY: "k3y 1\nk3y 2"}, [f"input {KEY} has several lines"]),
        ({"env": "", "workflow_path": ""}, ["input env is empty", "input workflow_path is empty"]),
        ({"preview": "yes", "remove": ""}, [f"input {name} must be true or false" for name in ("preview", "remove")]),
        ({"sweep": "nightly"}, ["input sweep must be true or false"]),
        ({"remove": "true", "sweep": "true"}, ["inputs remove and sweep are both true"]),
        ({"prune": "true\n::add-path::/x"}, ["input prune must be true or false"]),
        ({"branch_name": "--prune"}, ["the value for --branch-name begins with a dash"]),
        ({"flows": "sales -x"}, ["the value for --flow begins with a dash"]),
    ],
)
def test_bad_inputs_are_told_all_at_once_and_nothing_runs(
    bench: Bench, inputs: dict[str, str], titles: list[str]
) -> None:
    done = bench.run(inputs)

    assert done.code == 1
    assert [(annotation["level"], annotation["title"]) for annotation in done.annotations] == [
        ("error", title) for title in titles
    ]
    assert bench.options == []


def test_a_missing_token_is_told_with_the_secret_to_set(bench: Bench) -> None:
    (annotation,) = bench.run({KEY: ""}).annotations

    assert "secret PREFECT_WORKFLOW_REGISTER_TOKEN" in annotation["message"]


@pytest.mark.parametrize("value", ["$(touch pwned)", "`touch pwned`", "a b", "'\";touch pwned #", "x\ntouch pwned"])
def test_values_arrive_as_they_are_and_run_nothing(bench: Bench, value: str) -> None:
    bench.run(dict.fromkeys(("workflow_path", "branch_name", "workflow_name"), value))

    assert {f"--workflow-path={value}", f"--branch-name={value}", f"--name={value}"} < set(bench.options)
    assert list(bench.workspace.iterdir()) == []


def small_fork(folder: Path, lock: str = "") -> Path:
    """A copy of the action with another lock: a package `invoke` that says hello. Gives the action's folder."""
    wheel = folder / "invoke-1.0-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as package:
        package.writestr("invoke.py", "print('hello from the tools')")
        package.writestr("invoke-1.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: invoke\nVersion: 1.0\n")
        package.writestr("invoke-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        package.writestr("invoke-1.0.dist-info/RECORD", "")
    digest = hashlib.sha256(wheel.read_bytes()).hexdigest()
    (folder / "requirements").mkdir()
    (folder / "requirements" / "register.txt").write_text(lock or f"invoke @ {wheel.as_uri()} --hash=sha256:{digest}")
    shutil.copytree(FOLDER, folder / "register_action", ignore=shutil.ignore_patterns("*.py"))
    return folder / "register_action"


def test_tools_are_installed_once_and_then_come_from_the_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    action, machine = small_fork(tmp_path), tmp_path / "machine"
    (tmp_path / "workspace").mkdir()
    (tmp_path / "workspace" / "invoke.py").write_text("raise SystemExit('code of the author')")
    first = run_action(action, REQUIRED, tmp_path / "workspace", machine)

    assert first.log == "hello from the tools"
    assert [file.name for file in (machine / "cache").glob("*/.complete")] == [".complete"]

    monkeypatch.setenv("PIP_CONFIG_FILE", str(tmp_path))  # pip would not start any more
    job = Job(tmp_path / "workspace", machine, {"action_path": str(action)}, {})
    codes = [run_composite(job, ACTION, REQUIRED)[0] for _ in range(2)]

    assert codes == [0, 0]
    assert job.log == ["hello from the tools"] * 2


def test_half_installed_tools_stay_out_of_the_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    action = small_fork(tmp_path, f"invoke==2.0 --hash=sha256:{'0' * 64}\n")
    job = Job(tmp_path, tmp_path / "machine", {"action_path": str(action)}, {})
    code, _ = run_composite(job, ACTION, REQUIRED)

    assert code == 1
    assert job.annotations[0]["title"] == "the tools of this action could not be installed"
    assert not (tmp_path / "machine" / "cache").exists()


def test_a_runner_without_a_fit_python_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("bash", "cat", "dirname"):
        (tmp_path / name).symlink_to(str(shutil.which(name)))
    (tmp_path / "python3").write_text("#!/bin/bash\nexit 1\n")
    (tmp_path / "python3").chmod(stat.S_IRWXU)
    monkeypatch.setenv("PATH", str(tmp_path))
    done = run_action(FOLDER, REQUIRED, tmp_path, tmp_path / "machine")

    assert done.code == 1
    assert "no Python from 3.11" in done.annotations[0]["title"]
    assert "actions/setup-python" in done.annotations[0]["message"]
