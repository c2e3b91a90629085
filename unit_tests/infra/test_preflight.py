"""What a job is told of an environment that is set up, or not; GitHub is a server of the test's own."""

import dataclasses
import json
from pathlib import Path

import pytest

from environments.errors import PlatformError
from environments.settings import Environment
from infra import preflight
from unit_tests.conftest import Server

REVIEWED = [{"type": "branch_policy"}, {"type": "required_reviewers", "reviewers": [{"type": "User"}]}]


@pytest.fixture(autouse=True)
def job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, http_server: Server) -> Path:
    """A job on GitHub; gives the file of its step's outputs."""
    values = {
        "GITHUB_ACTIONS": "true",
        "GITHUB_OUTPUT": str(tmp_path / "output"),
        "GITHUB_API_URL": http_server.url,
        "GITHUB_REPOSITORY": "acme/platform",
        "GITHUB_REF": "refs/heads/develop",
        "GITHUB_TOKEN": "ghs_0123456789",
    }
    for name, value in values.items():
        monkeypatch.setenv(name, value)
    return tmp_path / "output"


def ready(job: Path) -> str:
    return job.read_text().splitlines()[1]


def has_environment(server: Server, rules: list[dict[str, object]]) -> None:
    server.answer(200, body=json.dumps({"protection_rules": rules}).encode())


@pytest.mark.parametrize("assumed", [False, True])
def test_account_of_the_template_is_skipped_and_github_is_not_asked(
    environment: Environment, job: Path, http_server: Server, capsys: pytest.CaptureFixture[str], assumed: bool
) -> None:
    template = dataclasses.replace(environment, aws_account_id=preflight.EXAMPLE_ACCOUNT)

    assert preflight.look(template, assumed, deploys=True) is False
    assert ready(job) == "false"
    assert http_server.requests == []
    (notice,) = capsys.readouterr().err.splitlines()
    assert notice.startswith("::notice title=environment dev is not set up::environments/dev.tfvars still has")
    assert notice.endswith("invoke bootstrap-account --env dev")


def test_account_that_was_never_bootstrapped_is_skipped(
    environment: Environment, job: Path, http_server: Server, capsys: pytest.CaptureFixture[str]
) -> None:
    http_server.answer(404)

    assert preflight.look(environment, assumed=False, deploys=True) is False
    assert ready(job) == "false"
    assert (
        capsys.readouterr().err.rstrip().endswith("Run: invoke bootstrap-account --env dev --repository acme/platform")
    )


def test_role_that_cannot_be_assumed_although_there_is_a_github_environment_is_an_error(
    environment: Environment, job: Path, http_server: Server
) -> None:
    has_environment(http_server, REVIEWED)
    with pytest.raises(PlatformError, match="cannot assume the plan role") as caught:
        preflight.look(environment, assumed=False, deploys=True)

    assert "dev_dataflow_automation_plan to acme/platform at refs/heads/develop" in caught.value.why
    assert "secrets of the repository" in caught.value.todo
    assert not job.exists()


def test_pull_request_without_a_role_has_no_plan_and_does_not_fail(
    environment: Environment,
    job: Path,
    http_server: Server,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("GITHUB_EVENT_NAME", "pull_request")
    has_environment(http_server, REVIEWED)

    assert preflight.look(environment, assumed=False, deploys=False) is False
    assert ready(job) == "false"
    assert capsys.readouterr().err.startswith("::warning title=this pull request has no plan::this job cannot assume")


def test_deploy_without_a_github_environment_is_an_error_and_a_plan_is_not(
    environment: Environment, job: Path, http_server: Server
) -> None:
    http_server.answer(404)
    with pytest.raises(PlatformError, match="has no GitHub environment dev"):
        preflight.look(environment, assumed=True, deploys=True)
    assert not job.exists()

    assert preflight.look(environment, assumed=True, deploys=False) is True
    assert ready(job) == "true"


@pytest.mark.parametrize(
    ("name", "rules", "warns"),
    [("prod", [], True), ("prod", REVIEWED, False), ("dev", [], False), ("dev", None, False)],
)
def test_production_without_reviewers_is_a_warning(
    environment: Environment,
    job: Path,
    http_server: Server,
    capsys: pytest.CaptureFixture[str],
    name: str,
    rules: list[dict[str, object]] | None,
    warns: bool,
) -> None:
    http_server.answer(200, body=json.dumps({"protection_rules": rules}).encode())

    assert preflight.look(dataclasses.replace(environment, name=name), assumed=True, deploys=True) is True
    assert ready(job) == "true"
    assert ("no required reviewers" in capsys.readouterr().err) is warns
    (method, path, headers) = http_server.requests[0]
    assert (method, path) == ("GET", f"/repos/acme/platform/environments/{name}")
    assert headers["Authorization"] == "Bearer ghs_0123456789"


@pytest.mark.parametrize(("code", "todo"), [(403, "actions: read"), (401, "actions: read"), (502, "run the job again")])
def test_github_that_does_not_answer_is_an_error(
    environment: Environment, job: Path, http_server: Server, code: int, todo: str
) -> None:
    http_server.answer(code)
    with pytest.raises(PlatformError, match="does not say whether") as caught:
        preflight.look(environment, assumed=True, deploys=True)

    assert f"answered {code}" in caught.value.why
    assert todo in caught.value.todo
    assert "ghs_" not in str(caught.value)


def test_github_that_is_out_of_reach_is_an_error(environment: Environment, http_server: Server) -> None:
    http_server.stop()
    with pytest.raises(PlatformError, match="does not say whether"):
        preflight.look(environment, assumed=True, deploys=True)


def test_outside_a_job_github_is_not_asked(
    environment: Environment, http_server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("GITHUB_ACTIONS")
    with pytest.raises(PlatformError, match="not a job of GitHub Actions"):
        preflight.look(environment, assumed=True, deploys=True)

    assert http_server.requests == []


def test_account_of_the_template_is_that_of_the_committed_settings(root: Path) -> None:
    files = [root / "environments" / f"{name}.tfvars" for name in ("dev", "test", "prod")]

    assert [file for file in files if f'"{preflight.EXAMPLE_ACCOUNT}"' not in file.read_text()] == []
