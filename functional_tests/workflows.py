"""Workflows of GitHub Actions for tests: the jobs of a pipeline run here, in the order and with the values of GitHub.

The story: `run_workflow` reads a workflow, follows `needs` and `if` from job to job, goes into the workflows that it
calls, and hands the steps of each job to a `Job` of runner.py. Nothing of the workflow is changed but the name of the
environment, where the caller asks for that; the actions of others are played by the `Runner` that it is given.

Sources: https://docs.github.com/en/actions/reference/workflows-and-actions/ with its pages workflow-syntax, contexts
and reusing-workflow-configurations; https://docs.github.com/en/actions/reference/security/oidc for a token's subject.
"""

import dataclasses
import json
import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import yaml

from functional_tests.expressions import applies, evaluate, interpolate
from functional_tests.runner import OWN, ActionFailedError, Job, Step, run_steps

WORKFLOW_KEYS = {"name", "on", "permissions", "concurrency", "jobs"}
JOB_KEYS = {
    "name",
    "needs",
    "if",
    "permissions",
    "environment",
    "timeout-minutes",
    "outputs",
    "strategy",
    "concurrency",
}
STEPS_KEYS, CALL_KEYS = {"runs-on", "steps"}, {"uses", "with", "secrets"}
LEVELS = ("none", "read", "write")
OF_EVERY_EVENT = {"repository": {"visibility": "public"}}
"""What the event of each run holds."""


@dataclasses.dataclass
class Runner:
    """Where jobs run, and what is around them.

    Attributes:
        workspace: the checkout; all jobs share it, each finds it as the one before left it.
        machine: the runner's own folder: `_temp` is emptied for each job, the cache stays.
        github: properties of the context `github` that are not as in runner.DEFAULTS; `event` may be nested.
        secrets: of the repository.
        variables: of the repository.
        environments: name of an environment in the workflows -> the one that it is here.
        env: environment variables of the machine.
        assume: gives the credentials (as variables) of the role with this ARN for a token with these claims; raises
            ActionFailedError when AWS refuses.
    """

    workspace: Path
    machine: Path
    github: dict[str, Any]
    secrets: dict[str, str]
    environments: dict[str, str]
    env: dict[str, str]
    assume: Callable[[str, dict[str, str]], dict[str, str]]
    variables: dict[str, str] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class JobDone:
    """What became of a job: its result as the context `needs` has it, and what it left."""

    result: str
    steps: list[Step] = dataclasses.field(default_factory=list)
    log: str = ""
    summary: str = ""
    outputs: Mapping[str, str] = dataclasses.field(default_factory=dict)
    annotations: list[dict[str, str]] = dataclasses.field(default_factory=list)
    environment: str = ""
    runs_on: str = ""


Done = dict[str, JobDone]
"""Jobs in the order in which they ended, by name; `plan/plan` is job `plan` of the workflow that job `plan` calls."""


def run_workflow(runner: Runner, file: str) -> Done:
    """Run a workflow of `.github/workflows` as the event in `runner.github` would.

    Raises:
        ValueError: the workflow needs something that is not played here, or that GitHub would refuse.
    """
    granted = dict.fromkeys(("actions", "attestations", "contents", "id-token"), "write")
    done: Done = {}
    contexts: dict[str, Any] = {"inputs": {}, "secrets": defaultdict(str, runner.secrets), "file": file}
    contexts["vars"] = defaultdict(str, runner.variables)
    _run_jobs(runner, _read(runner, file), contexts, granted, "", done)
    return done


def _read(runner: Runner, file: str) -> dict[str, Any]:
    read = yaml.safe_load((runner.workspace / ".github" / "workflows" / file).read_text(encoding="utf-8"))
    workflow = {"on" if key is True else key: value for key, value in read.items()}  # `on` is a truth value to YAML 1.1
    if unknown := set(workflow) - WORKFLOW_KEYS:
        raise ValueError(f"not played here: {', '.join(unknown)}")
    return workflow


def _run_jobs(
    runner: Runner, workflow: dict[str, Any], contexts: dict[str, Any], granted: dict[str, str], path: str, done: Done
) -> Done:
    """Run the jobs of a workflow, each after those that it needs; returns those of this workflow by their own names."""
    results: Done = {}
    waiting = dict(workflow["jobs"])
    while waiting:
        name = next((name for name, job in waiting.items() if not _needs(job) - set(results)), "")
        if not name:
            raise ValueError(f"these jobs need each other: {', '.join(waiting)}")
        job = waiting.pop(name)
        if unknown := set(job) - JOB_KEYS - (CALL_KEYS if "uses" in job else STEPS_KEYS):
            raise ValueError(f"not played here: {', '.join(unknown)}")
        needs = {
            each: {"result": results[each].result, "outputs": defaultdict(str, results[each].outputs)}
            for each in _needs(job)
        }
        event = {**OF_EVERY_EVENT, **runner.github.get("event", {})}
        github = {**Job.context(runner.workspace, runner.github), "event": event}
        here = {**contexts, "needs": needs, "github": github}
        failed = any(needed["result"] != "success" for needed in needs.values())
        if not applies(job.get("if", True), here, failed):
            results[name] = done[path + name] = JobDone("skipped")
            continue
        each = [_run_job(runner, job, {**here, **matrix}, granted, path + name, done) for matrix in _matrix(job, here)]
        results[name] = done[path + name] = dataclasses.replace(each[-1], result=_together(each))
    return results


def _needs(job: dict[str, Any]) -> set[str]:
    needs = job.get("needs", [])
    return {needs} if isinstance(needs, str) else set(needs)


def _matrix(job: dict[str, Any], contexts: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The contexts `matrix` of a job; of matrices only a list that an earlier job has made is played."""
    if "strategy" not in job:
        return [{}]
    made = re.fullmatch(r"\$\{\{ fromJSON\((.*)\) \}\}", job["strategy"]["matrix"]["include"])
    if not made:
        raise ValueError("not played here: this matrix")
    return [{"matrix": each} for each in json.loads(evaluate(made[1], contexts))]


def _together(jobs: Iterable[JobDone]) -> str:
    found = {job.result for job in jobs}
    return next((result for result in ("failure", "success") if result in found), "skipped")


def _run_job(
    runner: Runner, job: dict[str, Any], contexts: dict[str, Any], granted: dict[str, str], path: str, done: Done
) -> JobDone:
    permissions = {name: job.get("permissions", {}).get(name, "none") for name in granted}
    if beyond := [name for name in granted if LEVELS.index(permissions[name]) > LEVELS.index(granted[name])]:
        raise ValueError(
            f"GitHub does not start this: job {path} wants more of {', '.join(beyond)} than its caller has"
        )
    if "uses" in job:
        file = job["uses"].removeprefix(f"{OWN}.github/workflows/")
        called = _read(runner, file)
        told = called["on"]["workflow_call"]
        inner = {**_handed_over(runner, told, job, contexts), "file": file, "vars": contexts["vars"]}
        jobs = _run_jobs(runner, called, inner, permissions, f"{path}/", done)
        ended = {"jobs": {name: {"outputs": defaultdict(str, one.outputs)} for name, one in jobs.items()}}
        given = {name: interpolate(output["value"], ended) for name, output in told.get("outputs", {}).items()}
        return JobDone(_together(jobs.values()), outputs=given)
    environment = interpolate(job.get("environment", ""), contexts)
    machine = Job(runner.workspace, runner.machine, dict(runner.github), {})
    machine.env |= runner.env
    machine.masks |= set(filter(None, contexts["secrets"].values()))
    machine.actions |= _played(
        runner, machine, claims(machine.github, environment, contexts["file"]), permissions["id-token"] == "write"
    )
    done_steps: list[Step] = []
    contexts = {**contexts, "github": {"event": {}, **machine.github}, "runner": machine.runner}
    steps, code = run_steps(machine, job["steps"], contexts, done_steps)
    outputs = {name: interpolate(value, {**contexts, "steps": steps}) for name, value in job.get("outputs", {}).items()}
    result = "failure" if code else "success"
    log = "\n".join(machine.log)
    return JobDone(
        result,
        done_steps,
        log,
        machine.summary,
        outputs,
        machine.annotations,
        environment,
        interpolate(job["runs-on"], contexts),
    )


def _handed_over(runner: Runner, told: dict[str, Any], job: dict[str, Any], contexts: dict[str, Any]) -> dict[str, Any]:
    """The contexts of a workflow that a job calls: its inputs, and the secrets that it is handed."""
    inputs, secrets = told.get("inputs", {}), told.get("secrets", {})
    given, handed = job.get("with", {}), job.get("secrets", {})
    missing = {name for name, each in inputs.items() if each.get("required")} - set(given)
    if wrong := missing | (set(given) - set(inputs)) | (set(handed) - set(secrets)):
        raise ValueError(f"GitHub does not start this: {', '.join(wrong)}")
    values = {name: each.get("default") for name, each in inputs.items()}
    for name, value in given.items():
        values[name] = interpolate(value, contexts) if isinstance(value, str) else value
    if "environment" in values:
        values["environment"] = runner.environments.get(values["environment"], values["environment"])
    handed = {name: interpolate(value, contexts) for name, value in handed.items()}
    return {"inputs": values, "secrets": defaultdict(str, handed)}


def _played(runner: Runner, job: Job, token: dict[str, str], oidc: bool) -> dict[str, Callable[..., dict[str, str]]]:
    """The actions of others in a job: https://github.com/actions, https://github.com/aws-actions."""

    def checkout(persist_credentials: str, **_: str) -> dict[str, str]:
        return {}  # the workspace is the checkout

    def credentials(role_to_assume: str, aws_region: str, aws_access_key_id: str = "", **_: str) -> dict[str, str]:
        if not oidc or aws_access_key_id:
            raise ActionFailedError("Credentials could not be loaded, no id-token")
        got = runner.assume(role_to_assume, token)
        job.masks |= {got[name] for name in ("AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN") if got.get(name)}
        job.env |= {**got, "AWS_REGION": aws_region, "AWS_DEFAULT_REGION": aws_region}
        return {}

    def attest(subject_name: str, subject_digest: str) -> dict[str, str]:
        if not (subject_name and re.fullmatch("sha256:[0-9a-f]{64}", subject_digest)):
            raise ActionFailedError(f"no subject to attest: {subject_name}@{subject_digest}")
        job.log.append(f"attested {subject_name}@{subject_digest}")
        return {}

    return {
        "actions/attest": attest,
        "actions/checkout": checkout,
        "aws-actions/configure-aws-credentials": credentials,
    }


def claims(github: Mapping[str, Any], environment: str, file: str) -> dict[str, str]:
    """The claims of GitHub's token in a job of this workflow file that trust policies test."""
    told = {"repository": github["repository"], "ref": github["ref"]}
    told["job_workflow_ref"] = f"{github['repository']}/.github/workflows/{file}@{github['ref']}"
    if environment:
        what = f"environment:{environment}"
        told["environment"] = environment
    elif github["event_name"] == "pull_request":
        what = "pull_request"
    else:
        what = f"ref:{github['ref']}"
    return {"sub": f"repo:{github['repository']}:{what}", **told}
