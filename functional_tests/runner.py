"""A runner of GitHub Actions for tests: the steps of a job or a composite action run here as they would on GitHub.

The story: a `Job` is the runner (shell, files, commands in the output, masks, cache); `run_steps` has it run steps,
`run_action` those of an `action.yml`; expressions.py knows `${{ }}`, workflows.py goes on with jobs and workflows. What
is not played here is a ValueError, never passed over. The lines that a runner itself prints before a step are left out.

Sources: https://docs.github.com/en/actions/reference/workflows-and-actions/ with its pages
metadata-syntax, workflow-commands and variables; https://github.com/actions/cache for the cache.
"""

import dataclasses
import inspect
import json
import os
import platform
import re
import shutil
import subprocess
from collections import defaultdict
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import yaml

from environments.github_actions import JOB_VARIABLES
from functional_tests.expressions import applies, as_text, interpolate

BASH = ("bash", "--noprofile", "--norc", "-e", "-o", "pipefail")
PIPES: dict[str, Any] = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
STEP_TIMEOUT_SECONDS = 400
STEP_KEYS = {"id", "name", "if", "env", "run", "shell", "uses", "with", "continue-on-error"}
NOT_INHERITED = (*JOB_VARIABLES, "INPUT_", "PYTHON", "PYTEST_", "VIRTUAL_ENV", "PREFECT_", "AWS_")
NOT_VARIABLES = ("token", "event")
DEFAULTS = {"server_url": "https://github.com", "repository": "acme/etl", "event_name": "push", "token": ""}
DEFAULTS |= {"ref": "refs/heads/main", "ref_name": "main", "head_ref": "", "base_ref": "", "sha": "0" * 40}
DEFAULTS |= {"actor": "octocat", "actor_id": "583231", "triggering_actor": "octocat", "action": "__run", "job": "job"}
DEFAULTS |= {"api_url": "https://api.github.com", "graphql_url": "https://api.github.com/graphql"}
DEFAULTS |= {"repository_id": "123456789", "repository_owner": "acme", "repository_owner_id": "1234567"}
DEFAULTS |= {"run_id": "1658821493", "run_number": "3", "run_attempt": "1", "retention_days": "90"}
DEFAULTS |= {"ref_type": "branch", "ref_protected": "false", "workflow": "pipeline", "workflow_sha": "0" * 40}
DEFAULTS |= {"workflow_ref": "acme/etl/.github/workflows/pipeline.yaml@refs/heads/main"}
"""Properties of the context `github` where the caller says nothing."""
OF_THE_MACHINE = {"environment": "github-hosted", "name": "GitHub Actions 1", "tool_cache": "/opt/hostedtoolcache"}
"""Properties of the context `runner` beside those of the job."""
OWN = "$/"
"""Before the path of what is in the repository of the workflow itself."""
COMMAND = re.compile(r"\s*::(?P<name>[a-z-]+)(?: (?P<properties>.*?))?::(?P<data>.*)")


class ActionFailedError(Exception):
    """An action that is played has failed, as it would on GitHub."""


@dataclasses.dataclass(frozen=True)
class Result:
    """What is left of a job: exit code, log with masks in place, outputs, summary, and annotations.

    An annotation has `level` and `message`, and what it was told of `title`, `file` and `line`.
    """

    code: int
    log: str
    outputs: dict[str, str]
    summary: str
    annotations: list[dict[str, str]]


@dataclasses.dataclass(frozen=True)
class Step:
    """What became of a step of a job: its name, or what it uses, and its exit code; None when it was skipped."""

    name: str
    code: int | None


class Job:
    """One job on a runner: what its steps share, and how each is run; `run_action` describes the arguments.

    `actions` are those of others that are played, by name: each takes the step's `with:`, a dash in a name being an
    underscore here, and gives the step's outputs.
    """

    def __init__(self, workspace: Path, machine: Path, github: dict[str, Any], secrets_env: dict[str, str]) -> None:
        self.github = self.context(workspace, github)
        self.cache, self.temp = machine / "cache", machine / "_temp"
        shutil.rmtree(self.temp, ignore_errors=True)
        self.temp.mkdir(parents=True)
        architecture = {"x86_64": "X64", "aarch64": "ARM64"}[platform.machine()]
        self.runner = {"os": "Linux", "arch": architecture, "temp": str(self.temp), **OF_THE_MACHINE}
        self.github["event_path"] = str(self.temp / "event.json")
        (self.temp / "event.json").write_text(json.dumps(self.github.get("event", {})), encoding="utf-8")
        self.env = {"CI": "true", "GITHUB_ACTIONS": "true", **secrets_env}
        self.masks = set(filter(None, secrets_env.values()))
        self.log: list[str] = []
        self.summary = ""
        self.annotations: list[dict[str, str]] = []
        self.actions: dict[str, Callable[..., dict[str, str]]] = {
            "actions/cache/restore": self.restore,
            "actions/cache/save": self.save,
        }

    @staticmethod
    def context(workspace: Path, github: Mapping[str, Any]) -> dict[str, Any]:
        """The context `github`: what is given, and the defaults of the rest."""
        return {**DEFAULTS, "workspace": str(workspace), **github}

    def run(self, script: str, env: Mapping[str, str]) -> tuple[int, dict[str, str]]:
        """Run the script of one step; gives its exit code and outputs."""
        folder = self.temp / f"step_{len(list(self.temp.glob('step_*')))}"
        folder.mkdir()
        files = {name: folder / name for name in ("OUTPUT", "ENV", "PATH", "STEP_SUMMARY", "script.sh")}
        for file in files.values():
            file.write_text(script if file.suffix else "", encoding="utf-8")
        variables = {
            **{name: value for name, value in os.environ.items() if not name.startswith(NOT_INHERITED)},
            **{f"GITHUB_{name.upper()}": text for name, text in self.github.items() if name not in NOT_VARIABLES},
            **{f"RUNNER_{name.upper()}": value for name, value in self.runner.items()},
            **{f"GITHUB_{name}": str(file) for name, file in files.items() if not file.suffix},
            **self.env,
            **env,
        }
        command, cwd = [*BASH, str(files["script.sh"])], self.github["workspace"]
        done = subprocess.run(command, cwd=cwd, env=variables, timeout=STEP_TIMEOUT_SECONDS, check=False, **PIPES)
        for line in done.stdout.splitlines():
            self._hear(line.decode(errors="replace"))
        self.env |= _pairs(files["ENV"])
        for line in files["PATH"].read_text(encoding="utf-8").splitlines():
            self.env["PATH"] = f"{line}:{self.env.get('PATH', os.environ['PATH'])}"
        self.summary += files["STEP_SUMMARY"].read_text(encoding="utf-8")
        return done.returncode, _pairs(files["OUTPUT"])

    def restore(self, key: str, path: str) -> dict[str, str]:
        """What `actions/cache/restore` does for one folder; gives the step's outputs. Links are quicker than copies."""
        if not (self.cache / key).exists():
            return {}
        shutil.copytree(self.cache / key, path, symlinks=True, copy_function=os.link)
        return {"cache-hit": "true"}

    def save(self, key: str, path: str) -> dict[str, str]:
        """What `actions/cache/save` does for one folder: an entry that is there already stays as it is."""
        if not (self.cache / key).exists():
            shutil.copytree(path, self.cache / key, symlinks=True, copy_function=os.link)
        return {}

    def _hear(self, line: str) -> None:
        """Obey one line of a step's output, or put it in the log."""
        command = COMMAND.fullmatch(line)
        if command and command["name"] == "add-mask":
            value = _unescaped(command["data"])
            self.masks |= {part for part in (value, *value.splitlines()) if part.strip()}
        elif command and command["name"] in ("error", "warning", "notice"):
            told = [pair.partition("=") for pair in (command["properties"] or "").split(",") if pair]
            annotation = {"level": command["name"], "message": command["data"]}
            annotation |= {name.strip(): value for name, _, value in told}
            self.annotations.append({name: self._masked(_unescaped(value)) for name, value in annotation.items()})
            self.log.append(self._masked(f"##[{command['name']}]{_unescaped(command['data'])}"))
        else:
            self.log.append(self._masked(line))

    def _masked(self, text: str) -> str:
        for value in sorted(self.masks, key=len, reverse=True):
            text = text.replace(value, "***")
        return text


def _unescaped(text: str) -> str:
    return re.sub("%(2C|3A|0A|0D|25)", lambda match: chr(int(match[1], 16)), text)


def _pairs(file: Path) -> dict[str, str]:
    """What a step wrote to GITHUB_OUTPUT or GITHUB_ENV: `name=value`, or `name<<END`, lines, `END`."""
    pairs = {}
    lines = iter(file.read_text(encoding="utf-8").splitlines())
    for line in filter(None, lines):
        match = re.fullmatch(r"([^=<]+)(=|<<)(.*)", line)
        if not match:
            raise ValueError(f"no name and value in {file.name}: {line!r}")
        name, sign, value = match.groups()
        pairs[name] = value if sign == "=" else "\n".join(iter(lines.__next__, value))
    return pairs


def run_action(
    folder: Path,
    inputs: Mapping[str, str],
    workspace: Path,
    machine: Path,
    github: dict[str, str] | None = None,
    secrets_env: dict[str, str] | None = None,
) -> Result:
    """Run a composite action as the only step of a job.

    Args:
        folder: the action's, with its `action.yml`.
        inputs: the step's `with:`.
        workspace: the folder with the checkout; scripts start in it.
        machine: the runner's own folder; its `_temp` is emptied for each job, its `cache` stays.
        github: properties of the context `github` that are not as in `DEFAULTS`.
        secrets_env: environment variables of the job that come from secrets: masked from the start.
    """
    job = Job(workspace, machine, {"action_path": str(folder), **(github or {})}, secrets_env or {})
    action = yaml.safe_load((folder / "action.yml").read_text(encoding="utf-8"))
    code, outputs = run_composite(job, action, inputs)
    return Result(code, "\n".join(job.log), outputs, job.summary, job.annotations)


def run_composite(job: Job, action: dict[str, Any], inputs: Mapping[str, str]) -> tuple[int, dict[str, str]]:
    """Run the steps of an action in a job; gives 0 or the exit code of the step that failed, and the outputs."""
    if action["runs"]["using"] != "composite" or (unknown := set(inputs) - set(action["inputs"])):
        raise ValueError(f"not a composite action, or inputs that it does not have: {unknown}")
    contexts: dict[str, Any] = {"github": job.github, "runner": job.runner}
    defaults = {name: str(told.get("default", "")) for name, told in action["inputs"].items()}
    contexts["inputs"] = {name: interpolate(value, contexts) for name, value in defaults.items()} | dict(inputs)
    steps, code = run_steps(job, action["runs"]["steps"], contexts)
    contexts["steps"] = steps
    return code, {name: interpolate(told["value"], contexts) for name, told in action["outputs"].items()}


def run_steps(
    job: Job, steps: list[dict[str, Any]], contexts: Mapping[str, Any], done: list[Step] | None = None
) -> tuple[dict[str, Any], int]:
    """Run steps in order, each under its condition; gives the context `steps`, and 0 or the first exit code that isn't.

    What became of each is added to `done`.
    """
    told: dict[str, Any] = {
        step["id"]: {"outputs": defaultdict(str), "outcome": "skipped"} for step in steps if "id" in step
    }
    contexts = {**contexts, "steps": told}
    failure = 0
    for step in steps:
        code = None
        if applies(step.get("if", True), contexts, failed=failure != 0):
            code, outputs = run_step(job, step, contexts)
            if not step.get("continue-on-error"):
                failure = failure or code
            context = told.get(step.get("id", ""), {"outputs": {}})
            context["outputs"].update(outputs)
            context["outcome"] = "failure" if code else "success"
        if done is not None:
            done.append(Step(step.get("name") or step.get("uses") or step["run"], code))
    return told, failure


def run_step(job: Job, step: dict[str, Any], contexts: Mapping[str, Any]) -> tuple[int, dict[str, str]]:
    """Run one step, of an action or of a job; gives its exit code and outputs."""
    if (unknown := set(step) - STEP_KEYS) or step.get("shell", "bash") != "bash":
        raise ValueError(f"not played here: {', '.join(unknown)} shell {step.get('shell')}")
    if "run" in step:
        env = {name: interpolate(str(value), contexts) for name, value in step.get("env", {}).items()}
        return job.run(interpolate(step["run"], contexts), env)
    inputs = {name: interpolate(as_text(value), contexts) for name, value in step.get("with", {}).items()}
    if step["uses"].startswith(OWN):
        return _run_own(job, Path(job.github["workspace"], step["uses"].removeprefix(OWN)), inputs)
    played = job.actions.get(step["uses"].partition("@")[0])
    given = {name.replace("-", "_"): value for name, value in inputs.items()}
    try:
        if not played or not inspect.signature(played).bind(**given):
            raise TypeError
    except TypeError as error:
        raise ValueError(f"not played here: {step['uses']} with {', '.join(inputs)}") from error
    try:
        return 0, played(**given)
    except ActionFailedError as error:
        job.log.append(f"##[error]{error}")
        return 1, {}


def _run_own(job: Job, folder: Path, inputs: Mapping[str, str]) -> tuple[int, dict[str, str]]:
    """Run an action of the job's own repository."""
    job.github["action_path"] = str(folder)
    try:
        return run_composite(job, yaml.safe_load((folder / "action.yml").read_text(encoding="utf-8")), inputs)
    finally:
        del job.github["action_path"]
