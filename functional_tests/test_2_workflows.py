"""`invoke register`, `run` and `logs`: a workflow runs as an ECS task in its own container."""

import json
import urllib.request
from pathlib import Path
from typing import Any

import pytest

from functional_tests import runs
from functional_tests.platform import Platform
from infra.images import SBOM, sbom_tag

PREFIX = "local_dataflow_automation"
SIMILAR_NAMES = """
from prefect import flow

@flow(name="日次", log_prints=True)
def daily():
    print("this is 日次")

@flow(name="週次", log_prints=True)
def weekly():
    print("this is 週次")
"""
FAILING_FLOW = """
from prefect import flow

@flow
def {name}(reason: str = "it was meant to"):
    raise RuntimeError(reason)
"""


@pytest.fixture(scope="module")
def ran(sample_workflow: Platform) -> str:
    """What a run of the sample workflow printed."""
    return sample_workflow.invoke("run", "sample_workflow", "--param", "count=12").stdout


def test_the_sample_workflow_runs_to_completed_in_its_own_container(sample_workflow: Platform, ran: str) -> None:
    assert "Completed" in ran
    assert "loaded 12 rows, their sum is 650" in ran
    ecs = sample_workflow.aws("ecs")
    cluster = f"{PREFIX}_workflows"
    arns = [
        arn
        for state in ("STOPPED", "RUNNING")
        for arn in ecs.list_tasks(cluster=cluster, desiredStatus=state)["taskArns"]
    ]
    task = ecs.describe_tasks(cluster=cluster, tasks=arns)["tasks"][-1]
    assert task["capacityProviderName"] == "FARGATE"
    pushed = sample_workflow.aws("ecr").describe_images(repositoryName="local_sample_workflow")["imageDetails"]
    assert pushed[0]["imageDigest"] in task["containers"][0]["image"]


def test_what_a_workflow_prints_is_in_its_logs(sample_workflow: Platform, ran: str) -> None:
    assert "loaded 12 rows, their sum is 650" in sample_workflow.invoke("logs", "sample_workflow").stdout


def test_logs_of_flows_with_similar_names_are_kept_apart(deployed: Platform, tmp_path: Path) -> None:
    folder = tmp_path / "similar_names"
    folder.mkdir()
    (folder / "flow.py").write_text(SIMILAR_NAMES)
    deployed.invoke("register", "--workflow-path", str(folder))
    for name in ("日次", "週次"):
        assert f"this is {name}" in deployed.invoke("run", name).stdout
    for name, other in (("日次", "週次"), ("週次", "日次")):
        shown = deployed.invoke("logs", name).stdout
        assert f"this is {name}" in shown
        assert f"this is {other}" not in shown
    # Other tests of this platform expect the sample workflow alone.
    deployed.invoke("unregister", "--name", "similar_names", "--yes")


def test_the_agents_log_names_the_runs_it_started(sample_workflow: Platform, ran: str) -> None:
    assert "Created ECS task" in sample_workflow.invoke("logs", "agent").stdout


def test_registering_unchanged_content_builds_and_pushes_nothing(sample_workflow: Platform) -> None:
    again = sample_workflow.invoke("register", "--workflow-path", "examples/sample_workflow/workflow").stdout
    assert "unchanged" in again
    assert "already in ECR" in again


def test_a_workflows_task_definition_holds_no_key(sample_workflow: Platform, ran: str) -> None:
    family = runs.family(sample_workflow, "sample-workflow")
    definition = sample_workflow.aws("ecs").describe_task_definition(taskDefinition=family)["taskDefinition"]
    (container,) = definition["containerDefinitions"]
    assert [secret["name"] for secret in container["secrets"]] == ["PREFECT_API_AUTH_STRING"]
    assert sample_workflow.key not in str(definition)


@pytest.mark.parametrize("name", ["failing_flow"])
def test_a_run_that_fails_shows_why_and_exits_1(deployed: Platform, tmp_path: Path, name: str) -> None:
    folder = tmp_path / name
    folder.mkdir()
    (folder / "flow.py").write_text(FAILING_FLOW.format(name=name))
    deployed.invoke("register", "--workflow-path", str(folder))
    ran = deployed.invoke("run", name, "--param", "reason=no rows today", check=False)
    assert ran.returncode == 1
    assert "no rows today" in ran.stdout
    assert "Failed" in ran.stdout
    deployed.invoke("unregister", "--name", name, "--yes")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["run", "sample_workflw"], "did you mean sample-workflow"),
        (["run", "sample_workflow", "--param", "count=many"], "not of type 'integer'"),
        (["register", "--workflow-path", "docs/nowhere"], "no folder"),
        (["register", "--workflow-path", "examples/sample_workflow", "--cpu", "512", "--memory", "5000"], "1024, 2048"),
        (["register", "--workflow-path", "examples/sample_workflow", "--execution-environment", "gpu"], "ecs_fargate"),
        (["register", "--workflow-path", "../..", "--git-url", "file:///nowhere"], "outside"),
        (["register", "--workflow-path", "x", "--git-url", "file:///nowhere"], "nowhere"),
        (["unregister", "--name", "sample_workflw", "--yes"], "did you mean sample_workflow"),
        (["deploy", "--env", "prd"], "did you mean prod"),
    ],
)
def test_bad_input_gets_a_clear_error(sample_workflow: Platform, arguments: list[str], words: str) -> None:
    refused = sample_workflow.invoke(*arguments, check=False)
    assert refused.returncode == 1
    assert words in refused.stdout
    assert "Traceback" not in refused.stdout


@pytest.mark.parametrize(("repository", "package"), [(f"{PREFIX}_agent", "prefect-aws"), ("local_sample_workflow", "")])
def test_each_image_has_its_sbom_beside_it(sample_workflow: Platform, repository: str, package: str) -> None:
    """Read as cosign reads it: the only layer of the artifact with the tag that the image's digest makes."""
    ecr = sample_workflow.aws("ecr")
    details = ecr.describe_images(repositoryName=repository)["imageDetails"]
    tags = {tag for image in details for tag in image["imageTags"]}
    pushed = [image["imageDigest"] for image in details if not image["imageTags"][0].endswith(SBOM)]
    token = ecr.get_authorization_token()["authorizationData"][0]["authorizationToken"]
    for digest in pushed:
        assert sbom_tag(digest) in tags
        manifest = _from_registry(sample_workflow, token, f"{repository}/manifests/{sbom_tag(digest)}")
        [layer] = manifest["layers"]
        document = _from_registry(sample_workflow, token, f"{repository}/blobs/{layer['digest']}")
        names = {each["name"] for each in document["components"]}

        assert document["bomFormat"] == "CycloneDX"
        assert document["metadata"]["component"]["version"] == digest
        assert {"prefect", "python", "libc6", package or "prefect"} <= names


def _from_registry(platform: Platform, token: str, path: str) -> Any:
    address = f"http://127.0.0.1:{platform.aws_port}/v2/{path}"
    request = urllib.request.Request(address, headers={"Authorization": f"Basic {token}"})
    with urllib.request.urlopen(request, timeout=10) as answer:
        return json.load(answer)
