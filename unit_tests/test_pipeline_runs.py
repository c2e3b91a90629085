"""How the pipelines go, also when a step fails: each line of theirs is run, with stand-ins for what they call."""

import json
import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from functional_tests.runner import ActionFailedError
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
      printf '%s\n' aws_region=eu-west-1 "own_account=$OWN_ACCOUNT" "runner=$BUILDS_ON" >>"$GITHUB_OUTPUT" ;;
    preflight) echo "ready=$READY" >>"$GITHUB_OUTPUT" ;;
    --keep) echo "plan=plans/1@sha256:2" >>"$GITHUB_OUTPUT" ;;
    deploy) [[ -z $DIGEST ]] || printf '%s\n' image_name=registry/agent "image_digest=$DIGEST" >>"$GITHUB_OUTPUT" ;;
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
  workflow_name: {default: ""}
  remove: {default: "false"}
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
        NAME: ${{ inputs.workflow_name }}
        REMOVE: ${{ inputs.remove }}
      run: |
        task=register
        [[ $REMOVE == false ]] || task=unregister
        exec .venv/bin/invoke "$task" --env "$TARGET" --workflow-path "$FOLDER" --name "$NAME"
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
        shutil.copytree(FOLDER.parent, self.workspace / ".github")
        for name in ("bootstrap.sh", ".venv/bin/nox", ".venv/bin/invoke", "bin/gh"):
            self.write(name, STAND_IN).chmod(0o755)
        self.write("register_action/action.yml", ACTION)
        self.server.mkdir(parents=True)
        git(self.server, "init", "--quiet", "--bare")
        git(self.workspace, "init", "--quiet")
        git(self.workspace, "add", "--all")
        git(self.workspace, "commit", "--quiet", "--message", "one")
        self.sha = git(self.workspace, "rev-parse", "HEAD")
        self.assumed: list[tuple[str, str]] = []
        self.refused: set[str] = set()
        self.runner = Runner(
            workspace=self.workspace,
            machine=folder / "machine",
            github={"server_url": f"file://{folder}/server", "repository": "acme/platform", "sha": self.sha},
            secrets={**SECRETS, "OTHER": "0th3r"},
            environments={},
            env={
                "CALLS": str(self.calls_file),
                "ACCOUNT": ACCOUNT,
                "OWN_ACCOUNT": "true",
                "BUILDS_ON": "ubuntu-24.04",
                "READY": "true",
                "DIGEST": f"sha256:{'0' * 64}",
                "FAIL": "none",
                "CODE": "1",
                "PATH": f"{self.workspace / 'bin'}:{os.environ['PATH']}",
            },
            assume=self.assume,
        )

    def hook(self, name: str, line: str) -> None:
        """Have the server refuse what a line of shell refuses."""
        file = self.server / "hooks" / name
        file.write_text(f"#!/bin/sh\n{line}\n", encoding="utf-8")
        file.chmod(0o755)

    def write(self, name: str, text: str) -> Path:
        file = self.workspace / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, encoding="utf-8")
        return file

    def assume(self, role: str, claims: dict[str, str]) -> dict[str, str]:
        self.assumed.append((role, claims["sub"]))
        self.claims = claims
        if role in self.refused:
            raise ActionFailedError("AccessDenied")
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
    proof = f"--env {env} --workflow-path functional_tests/proof --name platform-proof | register | "
    release = [call for call in fork.calls if call.startswith("gh release")]
    assert [call for call in fork.calls if call not in release] == [
        "bootstrap.sh  | nobody | ",
        "nox -s lint | nobody | ",
        "nox -s dev-unit | nobody | ",
        *functional,
        "bootstrap.sh  | nobody | ",
        f"invoke settings --env {env} | nobody | ",
        f"invoke preflight --env {env} --role-outcome success --deploys | plan | ",
        f"invoke plan --env {env} --exit-zero --keep | plan | ",
        "bootstrap.sh  | nobody | ",
        f"invoke settings --env {env} | nobody | ",
        f"invoke deploy --env {env} --plan plans/1@sha256:2 --yes | deploy | "
        "PREFECT_AGENT_TOKEN PREFECT_WORKFLOW_TOKEN",
        f"invoke register {proof}PREFECT_WORKFLOW_REGISTER_TOKEN",
        f"invoke run platform_proof --env {env} | register | PREFECT_AGENT_TOKEN",
        f"invoke unregister {proof}PREFECT_WORKFLOW_REGISTER_TOKEN",
    ]
    assert [call.split()[:3] for call in release] == ([["gh", "release", "view"]] if env == "prod" else [])
    assert set(fork.results.values()) == {"success"}
    assert list(done)[-2:] == ["platform/tag", "platform"]
    assert done["platform/attest"].log == f"attested registry/agent@sha256:{'0' * 64}"
    assert {name: job.environment for name, job in done.items() if job.environment} == {"platform/deploy": env}
    assert {name: sha for name, sha in fork.tags.items() if not name.startswith("release-")} == {tag: fork.sha}
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


MOMENTS = ("bootstrap.sh", "lint", "dev-unit", "settings", "preflight", "plan", "deploy", "register", "run")


@pytest.mark.parametrize("moment", MOMENTS)
def test_whatever_fails_nothing_comes_after_it_and_the_tag_stays(fork: Fork, moment: str) -> None:
    git(fork.workspace, "push", "--quiet", str(fork.server), "HEAD:refs/tags/github_action_development")
    git(fork.workspace, "commit", "--quiet", "--allow-empty", "--message", "two")
    sha = git(fork.workspace, "rev-parse", "HEAD")
    if moment == "bootstrap.sh":
        fork.write("bootstrap.sh", "#!/bin/bash\nexit 1\n")
    fork.run("development.yaml", fail=moment, sha=sha)

    # What was left half-way is put in order, whatever has failed.
    tidying = {"deploy": ["unlock"], "register": ["unregister"], "run": ["unregister"]}
    words = [call.split()[1] for call in fork.calls if call.startswith("invoke")]
    order = ["settings", "preflight", "plan", "settings", "deploy", "register", "run"]
    if moment in order:
        last = order.index(moment) + 1
        assert words == [*order[:last], *tidying.get(moment, [])]
    else:
        assert words == []
    assert fork.results["platform"] == ("skipped" if moment in MOMENTS[:3] else "failure")
    assert fork.results.get("platform/tag", "skipped") == "skipped"
    assert fork.tags == {"github_action_development": fork.sha}


def test_lock_of_a_deploy_that_was_cut_off_is_released_by_the_role_that_deploys(fork: Fork) -> None:
    fork.run("development.yaml", fail="deploy")

    assert fork.calls[-1] == "invoke unlock own --env dev | deploy | "


def test_no_secret_shows_in_any_log(fork: Fork) -> None:
    told = "".join(f"{job.log}{job.summary}{job.outputs}" for job in fork.run("integration.yaml").values())

    assert "***" in told
    assert [value for value in (*SECRETS.values(), "s3cr3tk3y") if value in told] == []


def test_a_tag_that_does_not_move_is_an_error_that_says_so(fork: Fork) -> None:
    fork.hook("update", "test $1 != refs/tags/github_action_development")
    done = fork.run("development.yaml")

    assert (fork.results["platform/deploy"], fork.results["platform/tag"]) == ("success", "failure")
    assert [each["title"] for each in done["platform/tag"].annotations] == [
        "the tag github_action_development has not moved"
    ]


@pytest.mark.parametrize("file", [*CALLERS, "pull_request.yaml", "drift.yaml"])
def test_environment_that_nobody_has_set_up_is_skipped_before_anything_is_asked_of_aws(fork: Fork, file: str) -> None:
    for tag in ("github_action_development", "github_action_test", "github_action_prod"):
        git(fork.workspace, "tag", tag)
    fork.runner.env |= {"OWN_ACCOUNT": "false", "READY": "false"}
    request = {"event_name": "pull_request", "base_ref": "main", "event": of_fork("acme/platform")}
    done = fork.run(file, **(request if file == "pull_request.yaml" else {}))

    assert fork.assumed == []
    assert "failure" not in fork.results.values()
    assert {name.rpartition("/")[2] for name, job in done.items() if job.result == "skipped"} == (
        {"attest", "check_tag", "deploy", "tag"} if file in CALLERS else set()
    )
    asked = [call for call in fork.calls if " preflight " in call]
    assert asked
    assert {call.partition("--role-outcome ")[2].split()[0] for call in asked} == {"skipped"}
    assert fork.tags == {}


def test_role_that_is_refused_is_left_to_the_preflight(fork: Fork) -> None:
    fork.refused = {f"arn:aws:iam::{ACCOUNT}:role/dev_plan"}
    done = fork.run("development.yaml", fail="preflight")

    assert done["platform/plan"].result == "failure"
    assert fork.calls[-1] == "invoke preflight --env dev --role-outcome failure --deploys | nobody | "


@pytest.mark.parametrize(
    ("builds_on", "chosen", "runs_on"),
    [
        ("ubuntu-24.04", "", "ubuntu-24.04"),
        ("ubuntu-24.04-arm", "", "ubuntu-24.04-arm"),
        ("ubuntu-24.04-arm", "our-own", "our-own"),
    ],
)
def test_images_are_built_on_a_runner_of_the_environments_processor_or_on_the_one_that_is_chosen(
    fork: Fork, builds_on: str, chosen: str, runs_on: str
) -> None:
    fork.runner.env["BUILDS_ON"] = builds_on
    fork.runner.variables = {"DEPLOY_RUNNER": chosen} if chosen else {}
    done = fork.run("development.yaml")

    assert done["platform/deploy"].runs_on == runs_on
    assert done["gate/gate"].runs_on == done["platform/plan/plan"].runs_on == "ubuntu-24.04"


@pytest.mark.parametrize(("chosen", "result"), [("", "skipped"), ("true", "success")])
def test_image_of_a_private_repository_is_attested_where_its_plan_allows_it(
    fork: Fork, chosen: str, result: str
) -> None:
    fork.runner.variables = {"ATTESTATIONS": chosen}
    fork.run("development.yaml", event={"repository": {"visibility": "private"}})

    assert fork.results["platform/attest"] == result
    assert fork.results["platform/tag"] == "success"


def test_image_that_was_built_before_is_not_attested(fork: Fork) -> None:
    fork.runner.env["DIGEST"] = ""
    fork.run("development.yaml")

    assert fork.results["platform/attest"] == "skipped"
    assert fork.results["platform/tag"] == "success"


def test_tag_does_not_go_backwards(fork: Fork) -> None:
    git(fork.workspace, "commit", "--quiet", "--allow-empty", "--message", "newer")
    git(fork.workspace, "tag", "github_action_prod")
    done = fork.run("production.yaml")  # of the first commit

    (told,) = done["platform/check_tag"].annotations
    assert told["title"] == "github_action_prod would go backwards"
    assert fork.results["platform/deploy"] == "skipped"


def test_tag_moves_between_branches(fork: Fork) -> None:
    git(fork.workspace, "checkout", "--quiet", "--orphan", "other")
    git(fork.workspace, "commit", "--quiet", "--allow-empty", "--message", "of another branch")
    git(fork.workspace, "push", "--quiet", str(fork.server), "HEAD:refs/tags/github_action_development")
    git(fork.workspace, "tag", "github_action_development")
    fork.run("development.yaml")

    assert fork.tags == {"github_action_development": fork.sha}


def test_tag_that_github_refuses_is_found_before_the_deploy_and_leaves_nothing(fork: Fork) -> None:
    fork.hook("pre-receive", "echo refusing to allow a GitHub App to update workflow >&2; exit 1")
    done = fork.run("production.yaml")

    (told,) = done["platform/check_tag"].annotations
    assert told["title"] == "GitHub does not let this run move github_action_prod"
    assert "refusing to allow a GitHub App" in done["platform/check_tag"].log
    assert fork.results["platform/deploy"] == "skipped"
    assert fork.tags == {}


def test_ruleset_that_keeps_deployed_tags_is_in_nobodys_way(fork: Fork) -> None:
    (pattern,) = json.loads((FOLDER.parent / "rulesets" / "deployed_tags.json").read_text())["conditions"]["ref_name"][
        "include"
    ]
    fork.hook("update", f"case $1 in {pattern}) case $3 in *[!0]*) ;; *) exit 1 ;; esac ;; esac")
    fork.run("production.yaml")

    assert set(fork.results.values()) == {"success"}
    assert fork.tags["github_action_prod"] == fork.sha
    assert [tag for tag in fork.tags if "trial" in tag] == []


def test_tag_that_was_overtaken_after_the_deploy_stays_with_the_newer_commit(fork: Fork) -> None:
    git(fork.workspace, "commit", "--quiet", "--allow-empty", "--message", "newer")
    newer = git(fork.workspace, "rev-parse", "HEAD")
    fork.write("bin/gh", "#!/bin/bash\n").chmod(0o755)
    overtaken = f"[[ $1 != run ]] || git tag --force github_action_prod {newer}\nkeys="
    fork.write(".venv/bin/invoke", STAND_IN.replace("keys=", overtaken, 1)).chmod(0o755)
    done = fork.run("production.yaml")

    assert [each["title"] for each in done["platform/tag"].annotations] == ["github_action_prod would go backwards"]
    assert "github_action_prod" not in fork.tags


def test_checkout_that_cannot_know_which_commit_is_older_is_an_error(fork: Fork) -> None:
    git(fork.workspace, "tag", "github_action_prod")
    fork.run("production.yaml", sha="1" * 40)

    (told,) = fork.done["platform/check_tag"].annotations
    assert told["title"] == "this checkout lacks commits"


def test_jobs_that_compare_commits_have_all_of_them() -> None:
    jobs = yaml.safe_load((FOLDER / "platform.yaml").read_text(encoding="utf-8"))["jobs"]
    for name in ("check_tag", "tag"):
        checkout = jobs[name]["steps"][0]["with"]
        assert (checkout["fetch-depth"], checkout["fetch-tags"]) == (0, True)


def test_release_that_fails_is_a_warning(fork: Fork) -> None:
    fork.write("bin/gh", "#!/bin/bash\nexit 1\n").chmod(0o755)
    done = fork.run("production.yaml")

    assert set(fork.results.values()) == {"success"}
    (told,) = done["platform/tag"].annotations
    assert told["level"] == "warning"
    assert told["title"].startswith("no release release-")


def test_production_is_released_once_and_says_how_to_pin_the_action(fork: Fork) -> None:
    fork.write("bin/gh", '#!/bin/bash\necho "gh $*" >>"$CALLS"\n[[ $2 == create && $GH_TOKEN ]]\n').chmod(0o755)
    fork.runner.github["token"] = "ghs_0123456789"
    done = fork.run("production.yaml")

    view, create = [call for call in fork.calls if call.startswith("gh ")]
    name = view.split()[3]
    assert re.fullmatch(rf"release-\d{{8}}-{fork.sha[:12]}", name)
    assert create.startswith(f"gh release create {name} --repo acme/platform --verify-tag --generate-notes ")
    assert fork.tags[name] == fork.sha
    assert f"uses: acme/platform/register_action@{fork.sha} # github_action_prod" in done["platform/tag"].summary
    assert "ghs_0123456789" not in "".join(fork.calls)


def of_fork(name: str) -> dict[str, Any]:
    return {"pull_request": {"head": {"repo": {"full_name": name}}}}


@pytest.mark.parametrize(
    ("base", "env"), [("develop", "test"), ("main", "prod"), ("master", "prod"), ("feature/x", "dev"), ("Dev", "dev")]
)
def test_a_pull_request_is_planned_for_the_environment_that_its_base_deploys(fork: Fork, base: str, env: str) -> None:
    request = {"event_name": "pull_request", "base_ref": base, "event": of_fork("acme/platform")}
    fork.run("pull_request.yaml", **request)

    assert set(fork.results.values()) == {"success"}
    assert [call for call in fork.calls if call.startswith("invoke plan")] == [
        f"invoke plan --env {env} --exit-zero | plan | "
    ]
    assert f"invoke preflight --env {env} --role-outcome success | plan | " in fork.calls
    assert fork.assumed == [(f"arn:aws:iam::{ACCOUNT}:role/{env}_plan", "repo:acme/platform:pull_request")]
    assert [call for call in fork.calls if "PREFECT" in call] == []


def test_a_pull_request_of_a_stranger_is_tested_and_gets_no_token_for_aws(fork: Fork) -> None:
    fork.run("pull_request.yaml", event_name="pull_request", base_ref="main", event=of_fork("stranger/platform"))

    assert fork.results == {"gate/gate": "success", "gate": "success", "plan": "skipped"}
    assert fork.assumed == []


def test_a_pull_request_of_a_bot_is_tested_and_gets_no_token_for_aws(fork: Fork) -> None:
    request = {"event_name": "pull_request", "base_ref": "main", "event": of_fork("acme/platform")}
    fork.run("pull_request.yaml", actor="dependabot[bot]", **request)

    assert fork.results == {"gate/gate": "success", "gate": "success", "plan": "skipped"}


@pytest.mark.parametrize(("fail", "result"), [("none", "success"), ("--drift", "failure")])
def test_drift_is_looked_for_where_pipelines_have_deployed(fork: Fork, fail: str, result: str) -> None:
    for tag in ("github_action_prod", "github_action_test", "v1"):
        git(fork.workspace, "tag", tag)
    done = fork.run("drift.yaml", fail=fail)

    assert [role.rpartition("/")[2] for role, _ in fork.assumed] == ["test_plan", "prod_plan"]
    assert done["plan"].result == result
    assert [call for call in fork.calls if call.startswith("invoke plan")] == [
        f"invoke plan --env {env} --exit-zero --drift | plan | " for env in ("test", "prod")
    ]


def test_where_nothing_is_deployed_no_drift_is_looked_for(fork: Fork) -> None:
    done = fork.run("drift.yaml")

    assert fork.results == {"deployed": "success", "plan": "skipped"}
    assert [each["level"] for each in done["deployed"].annotations] == ["notice"]


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("contents: write # for the tag and the release", "contents: read"),
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
