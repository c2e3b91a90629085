"""The pipelines of the example repositories, read: whom they run for, their permissions, and what they hand over."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from environments.settings import ROOT
from functional_tests.expressions import applies

EXAMPLES = sorted((ROOT / "examples").iterdir())
ACTION = ROOT / "register_action"
INPUTS = yaml.safe_load((ACTION / "action.yml").read_text(encoding="utf-8"))["inputs"]
REGISTER = "your-org/dataflow-automation-infra/register_action"
OIDC = {"id-token": "write"}


def read(text: str) -> dict[str, Any]:
    workflow = yaml.safe_load(text)
    return {"on" if key is True else key: value for key, value in workflow.items()}


def pipeline(example: Path, name: str) -> dict[str, Any]:
    return read((example / ".github" / "workflows" / f"{name}.yaml").read_text(encoding="utf-8"))


def only_job(workflow: dict[str, Any]) -> dict[str, Any]:
    (job,) = workflow["jobs"].values()
    assert isinstance(job, dict)
    return job


def registering(job: dict[str, Any]) -> dict[str, Any]:
    """The job's step with the platform's action."""
    (step,) = [step for step in job["steps"] if step["uses"].startswith(f"{REGISTER}@")]
    assert isinstance(step, dict)
    return step


def event(name: str, author: str | None, repository: str | None) -> dict[str, Any]:
    """The context `github` of an event; on GitHub a property that is missing is null."""
    request = {"head": {"repo": {"full_name": repository}}, "user": {"login": author}}
    return {"event_name": name, "repository": "acme/etl", "event": {"pull_request": request}}


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda example: example.name)
@pytest.mark.parametrize("name", ["dev", "prod", "sweep"])
def test_job_gets_the_permissions_that_it_needs(example: Path, name: str) -> None:
    workflow = pipeline(example, name)
    job = only_job(workflow)

    assert workflow["permissions"] == {}
    assert job["permissions"] == {**OIDC, **({"pull-requests": "read"} if name == "sweep" else {"contents": "read"})}
    assert job["environment"] == registering(job)["with"]["env"] == ("prod" if name == "prod" else "dev")
    assert job["timeout-minutes"] <= 60
    assert registering(job)["with"].keys() <= INPUTS.keys()


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda example: example.name)
@pytest.mark.parametrize(
    ("name", "author", "repository", "runs"),
    [
        ("push", None, None, True),
        ("pull_request", "ada", "acme/etl", True),
        ("pull_request", "ada", "stranger/etl", False),
        ("pull_request", "dependabot[bot]", "acme/etl", False),
        ("pull_request", "dependabot[bot]", "stranger/etl", False),
    ],
)
def test_dev_runs_for_pushes_and_for_pull_requests_with_secrets(
    example: Path, name: str, author: str | None, repository: str | None, runs: bool
) -> None:
    condition = only_job(pipeline(example, "dev"))["if"]

    assert applies(condition, {"github": event(name, author, repository)}, failed=False) == runs


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda example: example.name)
def test_sweep_runs_each_night_and_by_hand_for_the_environment_that_has_previews(example: Path) -> None:
    dev, sweep = (pipeline(example, name) for name in ("dev", "sweep"))
    of_dev, of_sweep = registering(only_job(dev)), registering(only_job(sweep))

    assert sweep["on"].keys() == {"schedule", "workflow_dispatch"}
    assert len(sweep["on"]["schedule"]) == 1
    assert re.fullmatch(r"\d+ \d+ \* \* \*", sweep["on"]["schedule"][0]["cron"])
    assert of_sweep["uses"] == of_dev["uses"]
    shared = ("env", "workflow_path", "prefect_workflow_register_token")
    assert of_sweep["with"] == {name: of_dev["with"][name] for name in shared} | {"sweep": True}


@pytest.mark.parametrize("name", ["dev", "sweep"])
def test_readme_of_the_action_shows_the_pipeline_of_the_examples(name: str) -> None:
    readme = (ACTION / "README.md").read_text(encoding="utf-8")
    shown = [read(block) for block in re.findall(r"```yaml\n(on:\n.*?)```", readme, re.DOTALL)]
    (workflow,) = [block for block in shown if ("schedule" in block["on"]) == (name == "sweep")]
    for example in EXAMPLES:
        real = pipeline(example, name)
        job, real_job = only_job(workflow), only_job(real)

        assert workflow["on"] == real["on"]
        assert [job[key] for key in job if key != "steps"] == [real_job[key] for key in job if key != "steps"]
        assert [step.get("with") for step in job["steps"]] == [step.get("with") for step in real_job["steps"]]
