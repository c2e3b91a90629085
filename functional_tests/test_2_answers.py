"""The emulated ECS answers, refuses and sizes tasks as AWS does; the capacity file makes it refuse capacity."""

import time
from collections.abc import Iterator
from typing import Any

import pytest

from environments.local_stack import docker_client
from functional_tests import capacity
from functional_tests.platform import Platform

CLUSTER = "local_dataflow_automation_workflows"
FAMILY = "answers"
"""Of no workflow: the agent deregisters those that no deployment needs."""
WAIT_SECONDS = 60


@pytest.fixture(scope="module")
def request_for_a_task(sample_workflow: Platform) -> Iterator[dict[str, Any]]:
    """Parameters of RunTask: a task of the sample workflow's image that sleeps, in a family of its own."""
    ecs = sample_workflow.aws("ecs")
    roles = {role["RoleName"]: role["Arn"] for role in sample_workflow.aws("iam").list_roles()["Roles"]}
    images = sample_workflow.aws("ecr").describe_images(repositoryName="local_sample_workflow")["imageDetails"]
    image = f"000000000000.dkr.ecr.eu-west-1.amazonaws.com/local_sample_workflow@{images[0]['imageDigest']}"
    definition = ecs.register_task_definition(
        family=FAMILY,
        requiresCompatibilities=["FARGATE"],
        networkMode="awsvpc",
        cpu="256",
        memory="512",
        executionRoleArn=roles["local_dataflow_automation_workflow_execution"],
        taskRoleArn=roles["local_dataflow_automation_workflow_task"],
        volumes=[{"name": "tmp"}],
        containerDefinitions=[{"name": "workflow", "image": image, "command": ["sleep", "300"]}],
    )["taskDefinition"]
    subnets = [subnet["SubnetId"] for subnet in sample_workflow.aws("ec2").describe_subnets()["Subnets"]]
    yield {
        "cluster": CLUSTER,
        "taskDefinition": definition["taskDefinitionArn"],
        "capacityProviderStrategy": [{"capacityProvider": "FARGATE", "weight": 1}],
        "networkConfiguration": {"awsvpcConfiguration": {"subnets": subnets[:1]}},
    }
    ecs.deregister_task_definition(taskDefinition=definition["taskDefinitionArn"])


def _when(ecs: Any, arn: str, status: str) -> dict[str, Any]:
    """A task as it is described when it has reached a status."""
    deadline = time.monotonic() + WAIT_SECONDS
    while time.monotonic() < deadline:
        (task,) = ecs.describe_tasks(cluster=CLUSTER, tasks=[arn])["tasks"]
        if task["lastStatus"] == status:
            assert isinstance(task, dict)
            return task
        time.sleep(0.2)
    raise AssertionError(f"{arn} did not become {status}: {task}")


def test_a_definition_is_described_with_the_defaults_of_aws(
    sample_workflow: Platform, request_for_a_task: dict[str, Any]
) -> None:
    definition = sample_workflow.aws("ecs").describe_task_definition(taskDefinition=FAMILY)["taskDefinition"]

    assert definition["enableFaultInjection"] is False
    assert definition["volumes"] == [{"name": "tmp", "host": {}}]
    assert definition["containerDefinitions"][0]["cpu"] == 0
    assert definition["containerDefinitions"][0]["portMappings"] == []


def test_a_task_gets_the_memory_that_run_task_overrides(
    sample_workflow: Platform, request_for_a_task: dict[str, Any]
) -> None:
    ecs = sample_workflow.aws("ecs")
    overrides = {"cpu": "512", "memory": "1024", "containerOverrides": [{"name": "workflow"}]}
    (started,) = ecs.run_task(**request_for_a_task, overrides=overrides)["tasks"]
    task = _when(ecs, started["taskArn"], "RUNNING")
    containers = docker_client().containers.list(filters={"label": f"com.amazonaws.ecs.task-arn={task['taskArn']}"})
    ecs.stop_task(cluster=CLUSTER, task=task["taskArn"])

    assert (started["cpu"], started["memory"]) == (task["cpu"], task["memory"]) == ("512", "1024")
    assert [container.attrs["HostConfig"]["Memory"] for container in containers] == [1024 * 2**20]
    assert _when(ecs, task["taskArn"], "STOPPED")["stopCode"] == "UserInitiated"


def test_a_size_that_fargate_does_not_offer_is_refused(
    sample_workflow: Platform, request_for_a_task: dict[str, Any]
) -> None:
    ecs = sample_workflow.aws("ecs")
    with pytest.raises(ecs.exceptions.ClientException, match="No Fargate configuration exists for given values"):
        ecs.run_task(**request_for_a_task, overrides={"cpu": "4096", "memory": "512"})


def test_capacity_that_is_refused_is_used_up(sample_workflow: Platform, request_for_a_task: dict[str, Any]) -> None:
    ecs = sample_workflow.aws("ecs")
    no_capacity = "Capacity is unavailable at this time. Please try again later or in a different availability zone"
    capacity.refuse(
        sample_workflow,
        [
            {"capacityProvider": "FARGATE", "reason": "RESOURCE:CPU"},
            {"capacityProvider": "FARGATE", "startFailure": no_capacity},
            {"capacityProvider": "FARGATE_SPOT", "reason": "RESOURCE:MEMORY"},
        ],
    )
    refused, started = ecs.run_task(**request_for_a_task), ecs.run_task(**request_for_a_task)
    task = _when(ecs, started["tasks"][0]["taskArn"], "STOPPED")

    assert (refused["tasks"], refused["failures"]) == ([], [{"reason": "RESOURCE:CPU"}])
    assert (task["stopCode"], task["stoppedReason"]) == ("TaskFailedToStart", no_capacity)
    assert "startedAt" not in task
    assert capacity.left(sample_workflow) == [{"capacityProvider": "FARGATE_SPOT", "reason": "RESOURCE:MEMORY"}]
    capacity.refuse(sample_workflow, [])
    assert capacity.left(sample_workflow) == []
