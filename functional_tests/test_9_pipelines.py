"""The three pipelines: their steps run in order against `local`, with the values that GitHub's runner would give.

Everything is as written but the name of the environment. The gate is narrowed to a few of its tests; GitHub's own
actions are played by workflows.py, its API by github_api.py; the token that GitHub would sign is taken to the STS of
the emulated AWS, where the roles of `local` trust the branches that those of the pipeline's own environment trust.
"""

import base64
import dataclasses
import hashlib
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from functional_tests.canary import leaks
from functional_tests.github_api import REVIEWED, GitHubApi, github_api
from functional_tests.places import BUCKET
from functional_tests.platform import ROOT, Platform
from functional_tests.runner import ActionFailedError
from functional_tests.workflows import Done, Runner, run_workflow

pytestmark = pytest.mark.timeout(1500)
REPOSITORY = "acme/dataflow-automation-infra"
TOKEN = "ghs_0123456789"
ISSUER = "https://token.actions.githubusercontent.com"
LEFT_OUT = " ".join(f"--ignore=unit_tests/{name}" for name in ("agent", "environments", "infra", "register_action"))
NARROWED = f"{LEFT_OUT} -k 'floor or expressions' -p no:cacheprovider"
"""A few unit tests, and of the functional tests some that need no platform."""
TRUST = """
import sys
from environments.settings import load
from infra import account, trust
trust.BRANCHES["local"] = trust.BRANCHES[sys.argv[1]]
account.bootstrap(load("local"), trust.Trust(sys.argv[2]))
"""
PIPELINES = {
    "development.yaml": ("dev", "feature/faster", "github_action_development", 14),
    "integration.yaml": ("test", "develop", "github_action_test", 30),
    "production.yaml": ("prod", "main", "github_action_prod", 7),
}
"""Environment, branch, tag, and a setting that the pushed commit changes."""
GROUP = "local_dataflow_automation_workflows"


class Fork:
    """A fork of the platform on GitHub, checked out in the platform's folder, and the runner that works there."""

    def __init__(self, platform: Platform, machine: Path, folder: Path, api: GitHubApi) -> None:
        self.platform, self.workspace, self.api = platform, platform.folder, api
        self.server = folder / "server" / REPOSITORY
        self.server.mkdir(parents=True)
        self.git("init", "--quiet", "--bare", str(self.server))
        self.git("init", "--quiet", "--initial-branch=main")
        lend_tools(self.workspace)
        self.commit("fork")
        self.runner = Runner(
            workspace=self.workspace,
            machine=machine,
            github={
                "server_url": f"file://{folder / 'server'}",
                "api_url": api.url,
                "repository": REPOSITORY,
                "token": TOKEN,
            },
            secrets={
                "PREFECT_AGENT_TOKEN": platform.key,
                "PREFECT_WORKFLOW_REGISTER_TOKEN": platform.register_key,
            },
            environments=dict.fromkeys(("dev", "test", "prod"), "local"),
            env={"PYTEST_ADDOPTS": NARROWED, "PYTEST_DEBUG_TEMPROOT": str(folder)},
            assume=self.assume,
        )

    def git(self, *arguments: str) -> str:
        """Run git in the checkout, whatever the settings of this machine's user."""
        who = ["-c", "user.name=author", "-c", "user.email=author@example.com", "-c", "commit.gpgsign=false"]
        done = subprocess.run(["git", *who, *arguments], cwd=self.workspace, capture_output=True, text=True, check=True)
        return done.stdout.strip()

    def commit(self, message: str) -> None:
        """Commit all there is."""
        self.git("add", "--all")
        self.git("commit", "--quiet", "--message", message)

    def set(self, setting: str, value: int) -> None:
        """Commit another value of a setting."""
        file = self.workspace / "environments" / "local.tfvars"
        text, count = re.subn(rf"^({setting} *= ).*$", rf"\g<1>{value}", file.read_text(), flags=re.MULTILINE)
        assert count == 1
        file.write_text(text)
        self.commit(f"{setting} {value}")

    def push(self, file: str, **env: str) -> Done:
        """What a push of the newest commit to the pipeline's branch sets off."""
        _, branch, _, _ = PIPELINES[file]
        self.git("push", "--quiet", "--force", str(self.server), f"HEAD:refs/heads/{branch}")
        self.runner.github |= {"ref": f"refs/heads/{branch}", "ref_name": branch, "sha": self.git("rev-parse", "HEAD")}
        self.runner.env |= {"PYTEST_ADDOPTS": NARROWED, **env}
        return self.run(file)

    def run(self, file: str, **github: Any) -> Done:
        """What an event sets off."""
        runner = dataclasses.replace(self.runner, github={**self.runner.github, **github})
        done = run_workflow(runner, file)
        for name, job in done.items():
            print(f"--- {name}: {job.result}\n{job.log}")
        return done

    def trust(self, environment: str) -> None:
        """Have local's roles trust this repository as those of another environment would."""
        command = [sys.executable, "-c", TRUST, environment, REPOSITORY]
        subprocess.run(command, cwd=self.workspace, check=True, timeout=60)

    def assume(self, role: str, claims: dict[str, str]) -> dict[str, str]:
        """Take a role on with a token as GitHub issues it: AWS looks at who says so, for whom, and about which job."""
        import boto3
        from botocore import UNSIGNED
        from botocore.client import Config
        from botocore.exceptions import ClientError

        endpoint = f"http://127.0.0.1:{self.platform.aws_port}"
        unsigned = Config(signature_version=UNSIGNED)
        sts = boto3.client("sts", region_name="eu-west-1", endpoint_url=endpoint, config=unsigned)
        parts = ({"alg": "none"}, {"iss": ISSUER, "aud": "sts.amazonaws.com", **claims}, {})
        token = ".".join(base64.urlsafe_b64encode(json.dumps(part).encode()).decode().rstrip("=") for part in parts)
        try:
            got = sts.assume_role_with_web_identity(
                RoleArn=role, RoleSessionName="GitHubActions", WebIdentityToken=token
            )
        except ClientError as error:
            raise ActionFailedError(str(error)) from error
        names = {
            "AccessKeyId": "ACCESS_KEY_ID",
            "SecretAccessKey": "SECRET_ACCESS_KEY",
            "SessionToken": "SESSION_TOKEN",
        }
        return {f"AWS_{variable}": got["Credentials"][name] for name, variable in names.items()}

    @property
    def tags(self) -> dict[str, str]:
        """Tags of the server, and the commits that they name."""
        lines = self.git("ls-remote", "--tags", str(self.server)).splitlines()
        return {line.split("\t")[1].removeprefix("refs/tags/"): line.split("\t")[0] for line in lines}


def lend_tools(workspace: Path) -> None:
    """Give a copied checkout the .venv of this one, such that bootstrap.sh finds it ready and leaves it alone."""
    (workspace / ".venv").mkdir()
    for entry in (ROOT / ".venv").iterdir():
        if entry.name != ".made-from":
            (workspace / ".venv" / entry.name).symlink_to(entry)
    locked = hashlib.sha256((workspace / "requirements" / "tools.txt").read_bytes()).hexdigest()
    (workspace / ".venv" / ".made-from").write_text(f"{locked}  - {workspace}\n")
    (workspace / ".local" / "lint").mkdir(parents=True, exist_ok=True)
    for name in ("checkers", "checkov"):
        if (ROOT / ".local" / "lint" / name).exists():
            (workspace / ".local" / "lint" / name).symlink_to(ROOT / ".local" / "lint" / name)
    # It would make what is missing, and this .venv is lent.
    subprocess.run(["./bootstrap.sh", "--check"], cwd=workspace, check=True)


@pytest.fixture(scope="module")
def fork(
    platform: Platform, first_deploy: str, runners_machine: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Fork]:
    """A fork that nothing has been pushed to; the platform's folder is no checkout afterwards."""
    try:
        with github_api(REPOSITORY, TOKEN) as api:
            api.environments["local"] = REVIEWED
            yield Fork(platform, runners_machine, tmp_path_factory.mktemp("fork"), api)
    finally:
        for name in (".git", ".venv", ".local/lint"):
            shutil.rmtree(platform.folder / name, ignore_errors=True)


@pytest.fixture(
    scope="module",
    # All three call the same workflow; in this one's gate there are functional tests, too.
    params=[pytest.param(file, marks=() if file == "integration.yaml" else pytest.mark.full) for file in PIPELINES],
)
def pushed(fork: Fork, request: pytest.FixtureRequest) -> tuple[Fork, str, Done]:
    """A pipeline that has run for a commit with another setting."""
    file = request.param
    environment, _, _, days = PIPELINES[file]
    fork.trust(environment)
    fork.set("log_retention_days", days)
    return fork, file, fork.push(file)


def test_a_pipeline_goes_through_its_jobs_in_order_and_all_pass(pushed: tuple[Fork, str, Done]) -> None:
    _, file, done = pushed
    steps = {name.removeprefix("platform/"): [step.name for step in job.steps] for name, job in done.items()}
    codes = {(name, step.name): step.code for name, job in done.items() for step in job.steps}
    skipped = {("platform/deploy", "Release the lock of a deploy that was cut off")}
    skipped |= {("gate/gate", "Functional tests")} if file != "integration.yaml" else set()
    skipped |= {("platform/tag", "Make a release")} if file != "production.yaml" else set()

    # The image was in ECR already: this run has built nothing to attest.
    assert {name: job.result for name, job in done.items() if job.result != "success"} == {"platform/attest": "skipped"}
    assert [name for name in steps if steps[name]] == ["gate/gate", "plan/plan", "check_tag", "deploy", "tag"]
    assert [name for name in steps["deploy"] if not name.startswith("actions/")] == [
        "Set up",
        "Settings",
        "Assume the deploy role",
        "Deploy what was planned",
        "Release the lock of a deploy that was cut off",
        "Assume the register role",
        "Register a workflow as other repositories do",
        "Run it",
        "Remove it",
    ]
    assert {step for step, code in codes.items() if code is None} == skipped
    assert set(codes.values()) <= {0, None}
    assert {name: job.environment for name, job in done.items() if job.environment} == {"platform/deploy": "local"}


def test_the_gate_really_tests(pushed: tuple[Fork, str, Done]) -> None:
    _, file, done = pushed
    log = done["gate/gate"].log
    runs = re.findall(r"\b\d+ passed", log)
    assert "Session lint was successful" in log
    assert len(runs) == (3 if file == "integration.yaml" else 1)  # unit tests go before functional tests too


def test_the_plan_is_shown_and_is_what_is_applied(pushed: tuple[Fork, str, Done]) -> None:
    fork, file, done = pushed
    summary, days = done["platform/plan/plan"].summary, PIPELINES[file][3]
    (group,) = fork.platform.aws("logs").describe_log_groups(logGroupNamePrefix=GROUP)["logGroups"]

    assert "aws_cloudwatch_log_group" in summary
    assert re.search(rf"retention_in_days +=.* {days}\b", summary)
    assert group["retentionInDays"] == days


def test_the_workflow_went_through_the_action_and_ran(pushed: tuple[Fork, str, Done]) -> None:
    fork, _, done = pushed
    deploy = done["platform/deploy"]

    assert fork.git("rev-parse", "HEAD")[:7] in deploy.summary
    assert "state    Completed" in deploy.log


def test_the_proof_leaves_nothing_behind(pushed: tuple[Fork, str, Done]) -> None:
    fork, _, _ = pushed
    listed = json.loads(fork.platform.invoke("workflows", "--json", stderr=False).stdout)
    repositories = fork.platform.aws("ecr").describe_repositories()["repositories"]

    assert "platform_proof" not in str(listed)
    assert [each["repositoryName"] for each in repositories if "proof" in each["repositoryName"]] == []


def test_at_the_end_the_tag_names_the_commit(pushed: tuple[Fork, str, Done]) -> None:
    fork, file, done = pushed
    assert fork.tags[PIPELINES[file][2]] == fork.git("rev-parse", "HEAD")
    assert list(done)[-2:] == ["platform/tag", "platform"]
    assert set(fork.tags) & {f"{PIPELINES[file][2]}_trial"} == set()
    assert f"uses: {REPOSITORY}/register_action@{fork.git('rev-parse', 'HEAD')} # " in done["platform/tag"].summary


def test_the_keys_show_nowhere(pushed: tuple[Fork, str, Done]) -> None:
    fork, _, done = pushed
    told = [(name, f"{job.log}{job.summary}{job.outputs}{job.annotations}".encode()) for name, job in done.items()]
    s3 = fork.platform.aws("s3")
    plans = s3.list_objects_v2(Bucket=BUCKET, Prefix="plans/")["Contents"]
    kept = [(plan["Key"], s3.get_object(Bucket=BUCKET, Key=plan["Key"])["Body"].read()) for plan in plans]
    for secret in (fork.platform.key, fork.runner.github["token"]):
        assert leaks(secret, [*told, *kept]) == []


def test_a_gate_that_does_not_pass_stops_the_pipeline_and_the_tag_stays(fork: Fork) -> None:
    before = fork.tags
    fork.git("commit", "--quiet", "--allow-empty", "--message", "one more")
    done = fork.push("development.yaml", PYTEST_ADDOPTS=f"{LEFT_OUT} -k nothing_is_called_like_this")

    assert done["gate/gate"].result == "failure"
    assert {name for name, job in done.items() if job.result == "skipped"} == {"platform"}
    assert fork.tags == before


MAIN = {
    "repository": REPOSITORY,
    "ref": "refs/heads/main",
    "environment": "local",
    "job_workflow_ref": f"{REPOSITORY}/.github/workflows/platform.yaml@refs/heads/main",
}
"""Claims of the job that deploys prod, but the subject."""
INSIDE = f"repo:{REPOSITORY}:environment:local"


@pytest.mark.parametrize(
    ("role", "claims"),
    [
        ("deploy", {"sub": f"repo:{REPOSITORY}:ref:refs/heads/main"}),
        ("deploy", {"sub": f"repo:{REPOSITORY}:pull_request"}),
        ("deploy", {"sub": f"repo:{REPOSITORY}:environment:other"}),
        ("deploy", {"sub": "repo:stranger/dataflow-automation-infra:environment:local"}),
        ("deploy", {"sub": INSIDE, "ref": "refs/heads/feature/x"}),
        ("deploy", {"sub": INSIDE, "job_workflow_ref": f"{REPOSITORY}/.github/workflows/other.yaml@refs/heads/main"}),
        ("register", {"sub": f"repo:{REPOSITORY}:ref:refs/heads/main"}),
        ("register", {"sub": INSIDE, "repository": "acme/other"}),
        ("plan", {"sub": f"repo:{REPOSITORY}:ref:refs/heads/other"}),
        ("plan", {"sub": "repo:stranger/dataflow-automation-infra:pull_request"}),
    ],
)
def test_a_role_is_refused_to_any_other_job(fork: Fork, role: str, claims: dict[str, str]) -> None:
    fork.trust("prod")
    arn = "arn:aws:iam::000000000000:role/local_dataflow_automation_{}"
    assert fork.assume(arn.format("deploy"), {**MAIN, "sub": INSIDE})["AWS_SESSION_TOKEN"]
    with pytest.raises(ActionFailedError, match="AccessDenied"):
        fork.assume(arn.format(role), {**MAIN, **claims})
