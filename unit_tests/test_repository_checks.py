"""Checks that some repositories cannot run: CodeQL, dependency review, Scorecard. A stand-in `gh` answers the scripts.

The answers are those that GitHub documents: https://docs.github.com/en/rest/code-scanning/code-scanning and
https://docs.github.com/en/rest/dependency-graph/dependency-review
"""

import os
from pathlib import Path
from typing import Any

import pytest

from functional_tests.runner import Job, run_steps
from unit_tests.test_pipelines import FOLDER, read

GH = """#!/bin/bash
# The `gh` of a runner: says which address was asked for, and answers as the test wants.
[[ $GH_TOKEN ]] || exit 9
echo "$*" >>"$ASKED"
case $* in
  *--jq*) echo "$FACTS" ;;
  *) [[ -z $REFUSAL ]] || { echo "gh: $REFUSAL" >&2; exit 1; } ;;
esac
"""
REFUSED = "Code Security must be enabled for this repository to use code scanning. (HTTP 403)"
NO_ANALYSIS = "no analysis found (HTTP 404)"
REVIEW = "actions/dependency-review-action"
Outcome = tuple[dict[str, str], int]
"""The outputs of a job's first step, and the exit code of the job."""


class Check:
    """A runner on which the steps of one job run, and what `gh` answers there."""

    def __init__(self, folder: Path) -> None:
        self.asked_file = folder / "asked"
        program = folder / "bin" / "gh"
        program.parent.mkdir()
        program.write_text(GH, encoding="utf-8")
        program.chmod(0o755)
        self.job = Job(folder, folder / "machine", {"repository": "acme/platform"}, {})
        self.job.env |= {"PATH": f"{program.parent}:{os.environ['PATH']}", "ASKED": str(self.asked_file)}
        self.reviewed: list[dict[str, str]] = []
        self.job.actions[REVIEW] = self.review

    def review(self, **options: str) -> dict[str, str]:
        self.reviewed.append(options)
        return {}

    def run(self, file: str, name: str, facts: str = "", refusal: str = "", **inputs: Any) -> Outcome:
        """Run the steps of a job."""
        self.job.env |= {"FACTS": facts, "REFUSAL": refusal}
        job = read(FOLDER / file)["jobs"][name]
        pull_request = {"base": {"sha": "b" * 40}, "head": {"sha": "a" * 40}}
        github = {**self.job.github, "token": "t0k3n", "event": {"pull_request": pull_request}}
        steps, code = run_steps(self.job, job["steps"], {"inputs": inputs, "github": github})
        outputs = steps[job["steps"][0]["id"]]["outputs"]
        return {name: value for name, value in outputs.items() if value}, code

    def repository(self, facts: str, refusal: str = "", in_forks: bool = True) -> Outcome:
        return self.run("repository.yaml", "repository", facts, refusal, check="CodeQL", in_forks=in_forks)

    @property
    def asked(self) -> list[str]:
        return self.asked_file.read_text(encoding="utf-8").splitlines()


@pytest.fixture
def check(tmp_path: Path) -> Check:
    return Check(tmp_path)


def test_a_public_repository_may_run_every_check(check: Check) -> None:
    assert check.repository("public false", REFUSED, in_forks=False) == ({"available": "true", "public": "true"}, 0)
    assert check.job.annotations == []


@pytest.mark.parametrize("visibility", ["private", "internal"])
@pytest.mark.parametrize("refusal", ["", NO_ANALYSIS], ids=["analysed", "not-yet-analysed"])
def test_a_private_repository_with_a_license_may_run_them_too(check: Check, visibility: str, refusal: str) -> None:
    assert check.repository(f"{visibility} false", refusal) == ({"available": "true", "public": "false"}, 0)
    assert check.asked[-1] == "api --silent repos/acme/platform/code-scanning/alerts?per_page=1"
    assert check.job.annotations == []


def test_a_private_repository_without_a_license_skips_with_a_notice(check: Check) -> None:
    assert check.repository("private false", REFUSED) == ({"available": "false", "public": "false"}, 0)
    (notice,) = check.job.annotations
    assert (notice["level"], notice["title"]) == ("notice", "CodeQL is skipped")
    assert "license for GitHub Code Security" in notice["message"]


def test_a_fork_skips_what_does_not_support_forks(check: Check) -> None:
    assert check.repository("public true", in_forks=False) == ({"available": "false", "public": "true"}, 0)
    (notice,) = check.job.annotations
    assert notice == {"level": "notice", "title": "CodeQL is skipped", "message": "it does not support forks"}
    assert check.repository("public true")[0]["available"] == "true"


def test_an_answer_that_says_nothing_of_licenses_fails(check: Check) -> None:
    outputs, code = check.repository("private false", "Server Error (HTTP 502)")
    assert (outputs, code) == ({}, 1)
    (error,) = check.job.annotations
    assert error["level"] == "error"
    assert "HTTP 502" in error["message"]


def test_dependencies_are_reviewed_where_there_is_a_dependency_graph(check: Check) -> None:
    assert check.run("dependency_review.yaml", "review") == ({"available": "true"}, 0)
    assert check.asked == [f"api --silent repos/acme/platform/dependency-graph/compare/{'b' * 40}...{'a' * 40}"]
    assert check.reviewed == [{"fail_on_severity": "moderate"}]


def test_dependency_review_is_skipped_where_there_is_none(check: Check) -> None:
    assert check.run("dependency_review.yaml", "review", refusal="Forbidden (HTTP 403)") == ({"available": "false"}, 0)
    assert check.reviewed == []
    (notice,) = check.job.annotations
    assert (notice["level"], notice["title"]) == ("notice", "dependency review is skipped")


def test_dependency_review_fails_when_github_does_not_answer(check: Check) -> None:
    assert check.run("dependency_review.yaml", "review", refusal="Server Error (HTTP 502)") == ({}, 1)
    assert check.reviewed == []


@pytest.mark.parametrize(("file", "name"), [("codeql.yaml", "analyze"), ("scorecard.yaml", "scorecard")])
def test_checks_that_need_code_scanning_wait_for_the_look_up(file: str, name: str) -> None:
    jobs = read(FOLDER / file)["jobs"]
    assert jobs[name]["needs"] == "repository"
    assert jobs[name]["if"] == "needs.repository.outputs.available == 'true'"
    assert jobs["repository"]["uses"] == "$/.github/workflows/repository.yaml"


def test_the_job_of_scorecard_is_such_that_its_results_are_accepted() -> None:
    """https://github.com/ossf/scorecard-action#workflow-restrictions."""
    workflow = read(FOLDER / "scorecard.yaml")
    job = workflow["jobs"]["scorecard"]
    allowed = {"actions/checkout", "github/codeql-action/upload-sarif", "ossf/scorecard-action"}

    assert {"env", "defaults"} & {*workflow, *job} == set()
    assert {step.get("uses", "a script").partition("@")[0] for step in job["steps"]} == allowed
    assert job["runs-on"].startswith("ubuntu-")
    assert [name for name, each in workflow["jobs"].items() if "id-token" in each["permissions"]] == ["scorecard"]


def test_the_matrix_has_every_python_and_processor() -> None:
    job = read(FOLDER / "unit_tests.yaml")["jobs"]["unit"]
    matrix = {"python": ["3.11", "3.12", "3.13", "3.14"], "runner": ["ubuntu-24.04", "ubuntu-24.04-arm"]}
    assert job["strategy"] == {"fail-fast": False, "matrix": matrix}
    assert job["steps"][1]["with"] == {"python-version": "${{ matrix.python }}"}
