"""How the pipelines go, also when a step fails: each line of theirs is run, with stand-ins for what they call."""

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from functional_tests.workflows import Done, Runner, run_workflow
from unit_tests.test_pipelines import CALLERS, FOLDER, SECRETS

ACCOUNT = "222222222222"
STAND_IN = """#!/bin/bash
# Writes down how it was called, as which role and with which keys; says the keys aloud; fails where the test wants it.
name=${0##*/}
keys=$(compgen -e | grep '^PREFECT_' | tr '\\n' ' ')
echo "$name $* | ${AWS_ROLE:-nobody} | ${keys% }" >>"$CALLS"
echo "$PREFECT_AGENT_TOKEN $PREFECT_WORKFLOW_REGISTER_TOKEN $PREFECT_WORKFLOW_TOKEN"
while (($#)); do
  case $1 in
    settings)
      for role in deploy register plan; do
        echo "${role}_role=arn:aws:iam::$ACCOUNT:role/$3_$role" >>"$GITHUB_OUTPUT"
      done
      echo aws_region=eu-west-1 >>"$GITHUB_OUTPUT" ;;
    --out) echo "$RANDOM$RANDOM" | tee "$2" | sha256sum >>"$CALLS" ;;
    --plan) sha256sum <"$2" >>"$CALLS" ;;
  esac
  [[ $1 != "$FAIL" ]] || exit "$CODE"
  shift
done
"""
ACTION = """
name: stand-in
inputs:
  env: {required: true}
  workflow_path: {required: true}
  prefect_workflow_register_token: {required: true}
outputs: {}
runs:
  using: composite
  steps:
    - shell: bash
      env:
        PREFECT_WORKFLOW_REGISTER_TOKEN: ${{ inputs.prefect_workflow_register_token }}
        TARGET: ${{ inputs.env }}
        FOLDER: ${{ inputs.workflow_path }}
      run: .venv/bin/invoke register --env "$TARGET" --workflow-path "$FOLDER"
"""


def git(folder: Path, *arguments: str) -> str:
    who = ["-c", "user.name=x", "-c", "user.email=x@example.com", "-c", "commit.gpgsign=false"]
    done = subprocess.run(["git", *who, *arguments], cwd=folder, capture_output=True, text=True, check=True)
    return done.stdout.strip()


class Fork:
    """A checkout with the real pipelines and stand-ins for all that they call, and the server it was pushed to."""

    def __init__(self, folder: Path) -> None:
        self.workspace, self.server, self.calls_file = (
            folder / "work",
            folder / "server/acme/platform",
            folder / "calls",
        )
        shutil.copytree(FOLDER, self.workspace / ".github" / "workflows")
        for name in ("bootstrap.sh", ".venv/bin/nox", ".venv/bin/invoke"):
            self.write(name, STAND_IN).chmod(0o755)
        self.write("register_action/action.yml", ACTION)
        self.server.mkdir(parents=True)
        git(self.server, "init", "--quiet", "--bare")
        git(self.workspace, "init", "--quiet")
        git(self.workspace, "add", "--all")
        git(self.workspace, "commit", "--quiet", "--message", "one")
        self.sha = git(self.workspace, "rev-parse", "HEAD")
        self.assumed: list[tuple[str, str]] = []
        self.runner = Runner(
            workspace=self.workspace,
            machine=folder / "machine",
            github={"server_url": f"file://{folder}/server", "repository": "acme/platform", "sha": self.sha},
            secrets={**SECRETS, "OTHER": "0th3r"},
            environments={},
            env={"CALLS": str(self.calls_file), "ACCOUNT": ACCOUNT, "FAIL": "none", "CODE": "1"},
            assume=self.assume,
        )

    def write(self, name: str, text: str) -> Path:
        file = self.workspace / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, encoding="utf-8")
        return file

    def assume(self, role: str, claims: dict[str, str]) -> dict[str, str]:
        self.assumed.append((role, claims["sub"]))
        self.claims = claims
        return {"AWS_ROLE": role.rpartition("_")[2], "AWS_SECRET_ACCESS_KEY": "s3cr3tk3y"}

    def run(self, file: str, fail: str = "none", code: int = 1, **github: Any) -> Done:
        self.runner.env |= {"FAIL": fail, "CODE": str(code)}
        self.runner.github |= github
        self.done = run_workflow(self.runner, file)
        return self.done

    @property
    def results(self) -> dict[str, str]:
        return {name: job.result for name, job in self.done.items()}

    @property
    def calls(self) -> list[str]:
        lines = self.calls_file.read_text(encoding="utf-8") if self.calls_file.exists() else ""
        return lines.replace(str(self.runner.machine / "_temp"), "TEMP").splitlines()

    @property
    def tags(self) -> dict[str, str]:
        lines = git(self.workspace, "ls-remote", "--tags", str(self.server)).splitlines()
        return {line.split("\t")[1].removeprefix("refs/tags/"): line.split("\t")[0] for line in lines}


@pytest.fixture
def fork(tmp_path: Path) -> Fork:
    return Fork(tmp_path)


@pytest.mark.parametrize("file", CALLERS)
def test_a_pipeline_tests_plans_deploys_proves_and_then_moves_the_tag(fork: Fork, file: str) -> None:
    _, env, tag = CALLERS[file]
    done = fork.run(file, ref="refs/heads/b")

    functional = ["nox -s test-functional | nobody | "] if env == "test" else []
    out, plan = "--out TEMP/plan/plan.tfplan --markdown TEMP/plan/plan.md", "TEMP/plan/plan.tfplan"
    digests = [call for call in fork.calls if re.match("[0-9a-f]{64}", call)]
    assert [call for call in fork.calls if call not in digests] == [
        "bootstrap.sh  | nobody | ",
        "nox -s dev-unit | nobody | ",
        *functional,
        "bootstrap.sh  | nobody | ",
        f"invoke settings --env {env} | nobody | ",
        f"invoke plan --env {env} {out} | plan | ",
        "bootstrap.sh  | nobody | ",
        f"invoke settings --env {env} | nobody | ",
        f"invoke deploy --env {env} --plan {plan} --yes | deploy | PREFECT_AGENT_TOKEN PREFECT_WORKFLOW_TOKEN",
        f"invoke register --env {env} --workflow-path examples/sample_workflow/workflow | register | "
        "PREFECT_WORKFLOW_REGISTER_TOKEN",
        f"invoke run sample_workflow --env {env} | register | PREFECT_AGENT_TOKEN",
    ]
    assert len(digests) == 2
    assert len(set(digests)) == 1  # the plan that was shown, to the last byte
    assert set(fork.results.values()) == {"success"}
    assert list(done)[-2:] == ["platform/tag", "platform"]
    assert {name: job.environment for name, job in done.items() if job.environment} == {"platform/deploy": env}
    assert fork.tags == {tag: fork.sha}
    assert fork.assumed == [
        (f"arn:aws:iam::{ACCOUNT}:role/{env}_{role}", f"repo:acme/platform:{subject}")
        for role, subject in (
            ("plan", "ref:refs/heads/b"),
            ("deploy", f"environment:{env}"),
            ("register", f"environment:{env}"),
        )
    ]
    assert fork.claims == {
        "sub": f"repo:acme/platform:environment:{env}",
        "repository": "acme/platform",
        "environment": env,
        "ref": "refs/heads/b",
        "job_workflow_ref": "acme/platform/.github/workflows/platform.yaml@refs/heads/b",
    }


@pytest.mark.parametrize("moment", ["dev-unit", "settings", "plan", "deploy", "register", "run"])
def test_whatever_fails_nothing_comes_after_it_and_the_tag_stays(fork: Fork, moment: str) -> None:
    git(fork.workspace, "push", "--quiet", str(fork.server), "HEAD:refs/tags/github_action_development")
    git(fork.workspace, "commit", "--quiet", "--allow-empty", "--message", "two")
    fork.run("development.yaml", fail=moment, sha=git(fork.workspace, "rev-parse", "HEAD"))

    assert re.search(rf"\b{moment}\b", fork.calls[-1]) or moment in fork.calls[-2]
    assert fork.results["platform/tag"] == "skipped"
    assert fork.results["platform"] == "failure"
    assert fork.tags == {"github_action_development": fork.sha}


def test_a_plan_with_changes_goes_on(fork: Fork) -> None:
    fork.run("production.yaml", fail="plan", code=2)
    assert fork.tags == {}  # the stand-in leaves before it writes a plan

    fork.run("production.yaml", fail="--markdown", code=2)
    assert fork.tags == {"github_action_prod": fork.sha}


def test_no_secret_shows_in_any_log(fork: Fork) -> None:
    told = "".join(f"{job.log}{job.summary}{job.outputs}" for job in fork.run("integration.yaml").values())

    assert "***" in told
    assert [value for value in (*SECRETS.values(), "s3cr3tk3y") if value in told] == []


def test_a_tag_that_does_not_move_is_an_error_that_says_so(fork: Fork) -> None:
    shutil.rmtree(fork.server)
    done = fork.run("development.yaml")

    assert done["platform/tag"].result == "failure"
    assert [each["title"] for each in done["platform/tag"].annotations] == [
        "the tag github_action_development has not moved"
    ]


def test_without_an_account_of_its_own_a_fork_is_told_so_before_anything_is_asked_of_aws(fork: Fork) -> None:
    fork.runner.env["ACCOUNT"] = "111111111111"
    done = fork.run("development.yaml")

    (told,) = done["platform/plan/plan"].annotations
    assert (told["level"], told["title"]) == ("error", "environment dev is not set up")
    assert fork.assumed == []
    assert (fork.results["platform/gate"], fork.results["platform/deploy"]) == ("success", "skipped")


def of_fork(name: str) -> dict[str, Any]:
    return {"pull_request": {"head": {"repo": {"full_name": name}}}}


@pytest.mark.parametrize(
    ("base", "env"), [("develop", "test"), ("main", "prod"), ("master", "prod"), ("feature/x", "dev"), ("Dev", "dev")]
)
def test_a_pull_request_is_planned_for_the_environment_that_its_base_deploys(fork: Fork, base: str, env: str) -> None:
    request = {"event_name": "pull_request", "base_ref": base, "event": of_fork("acme/platform")}
    fork.run("pull_request.yaml", fail="--markdown", code=2, **request)

    assert set(fork.results.values()) == {"success"}
    assert [call for call in fork.calls if " plan " in call and not call.endswith("| plan | ")] == []
    assert fork.assumed == [(f"arn:aws:iam::{ACCOUNT}:role/{env}_plan", "repo:acme/platform:pull_request")]
    assert [call for call in fork.calls if "PREFECT" in call] == []


def test_a_pull_request_of_a_stranger_is_tested_and_gets_no_token_for_aws(fork: Fork) -> None:
    fork.run("pull_request.yaml", event_name="pull_request", base_ref="main", event=of_fork("stranger/platform"))

    assert fork.results == {"gate": "success", "plan": "skipped"}
    assert fork.assumed == []


def test_a_pull_request_of_a_fork_without_an_account_is_warned_and_not_failed(fork: Fork) -> None:
    fork.runner.env["ACCOUNT"] = "111111111111"
    request = {"event_name": "pull_request", "base_ref": "main", "event": of_fork("acme/platform")}
    done = fork.run("pull_request.yaml", **request)

    assert [each["level"] for each in done["plan/plan"].annotations] == ["warning"]
    assert set(fork.results.values()) == {"success"}
    assert fork.assumed == []


@pytest.mark.parametrize(("code", "result"), [(0, "success"), (2, "failure"), (1, "failure")])
def test_drift_is_looked_for_where_pipelines_have_deployed(fork: Fork, code: int, result: str) -> None:
    for tag in ("github_action_prod", "github_action_test", "v1"):
        git(fork.workspace, "tag", tag)
    done = fork.run("drift.yaml", fail="--markdown", code=code)

    assert [role.rpartition("/")[2] for role, _ in fork.assumed] == ["test_plan", "prod_plan"]
    assert done["plan"].result == result
    assert [each["title"] for each in done["plan/plan"].annotations] == (
        ["environment prod has drifted"] if code == 2 else []
    )


def test_where_nothing_is_deployed_no_drift_is_looked_for(fork: Fork) -> None:
    done = fork.run("drift.yaml")

    assert fork.results == {"deployed": "success", "plan": "skipped"}
    assert [each["level"] for each in done["deployed"].annotations] == ["notice"]


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("contents: write # for the tag", "contents: read"),
        ("      tag: github_action_prod\n", ""),
        ("environment: prod", "enviroment: prod"),
        ("      AWS_ACCESS_KEY_ID:", "      AWS_KEY:"),
    ],
)
def test_what_github_would_not_start_the_runner_does_not_start_either(fork: Fork, old: str, new: str) -> None:
    file = fork.workspace / ".github" / "workflows" / "production.yaml"
    file.write_text(file.read_text(encoding="utf-8").replace(old, new), encoding="utf-8")

    with pytest.raises(ValueError, match="GitHub does not start this"):
        fork.run("production.yaml")
