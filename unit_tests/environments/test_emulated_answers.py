"""What the emulated ECS answers, in the emulator's real module."""

import copy
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from environments.emulated_answers import CONTAINER_DEFAULTS, answer_as_aws, full_definition
from unit_tests.environments.real_ecs import CLUSTER, call, definition, real_ecs, run_request


@pytest.fixture
def ecs() -> Any:
    module = real_ecs()
    answer_as_aws(module)
    return module


def _registered(ecs: Any, **changes: Any) -> dict[str, Any]:
    status, answer = call(ecs, "RegisterTaskDefinition", **definition(**changes))
    assert status == 200
    described: dict[str, Any] = call(ecs, "DescribeTaskDefinition", taskDefinition="etl")[1]["taskDefinition"]
    assert answer["taskDefinition"] == described
    return described


@pytest.mark.parametrize(("field", "default"), CONTAINER_DEFAULTS.items())
def test_container_definition_has_each_default_of_aws_unless_it_was_given(ecs: Any, field: str, default: Any) -> None:
    (container,) = _registered(ecs)["containerDefinitions"]
    registered = {
        "cpu": 128,
        "portMappings": [{"containerPort": 80, "hostPort": 80, "protocol": "udp"}],
        "essential": True,
        "environment": [{"name": "A", "value": "b"}],
        "mountPoints": [{"sourceVolume": "tmp", "containerPath": "/tmp"}],
        "volumesFrom": [{"sourceContainer": "other"}],
        "systemControls": [{"namespace": "net.core.somaxconn", "value": "1024"}],
    }[field]
    (other,) = _registered(ecs, containerDefinitions=[{**container, field: registered}])["containerDefinitions"]

    assert container[field] == default
    assert other[field] == registered


def test_task_definition_has_the_defaults_of_aws(ecs: Any) -> None:
    described = _registered(ecs)

    assert described["enableFaultInjection"] is False
    assert described["volumes"] == [{"name": "tmp", "host": {}}]
    assert described["placementConstraints"] == []
    assert described["compatibilities"] == ["EC2", "FARGATE", "MANAGED_INSTANCES"]
    assert described["status"] == "ACTIVE"
    assert {"name": "com.amazonaws.ecs.capability.ecr-auth"} in described["requiresAttributes"]
    assert {"registeredAt", "registeredBy", "revision", "taskDefinitionArn"} <= set(described)


def test_what_was_not_given_is_not_answered_as_null_or_empty(ecs: Any) -> None:
    described = _registered(ecs)

    assert not {"proxyConfiguration", "runtimePlatform", "ephemeralStorage", "pidMode", "ipcMode"} & set(described)


def test_fault_injection_that_was_asked_for_stays(ecs: Any) -> None:
    assert _registered(ecs, enableFaultInjection=True)["enableFaultInjection"] is True


def test_ports_and_health_check_are_completed(ecs: Any) -> None:
    container = definition()["containerDefinitions"][0]
    check = {"command": ["CMD", "true"], "retries": 9}
    full = {**container, "portMappings": [{"containerPort": 80}], "healthCheck": check}
    (described,) = _registered(ecs, containerDefinitions=[full])["containerDefinitions"]

    assert described["portMappings"] == [{"containerPort": 80, "hostPort": 80, "protocol": "tcp"}]
    assert described["healthCheck"] == {"command": ["CMD", "true"], "interval": 30, "timeout": 5, "retries": 9}


def test_a_volume_with_a_configuration_gets_no_host() -> None:
    volume = {"name": "data", "efsVolumeConfiguration": {"fileSystemId": "fs-1"}}
    stored = {"containerDefinitions": [], "volumes": [volume]}
    before = copy.deepcopy(stored)

    assert full_definition(stored)["volumes"] == [volume]
    assert stored == before


def test_a_family_is_its_newest_active_revision(ecs: Any) -> None:
    for _ in range(3):
        call(ecs, "RegisterTaskDefinition", **definition())
    call(ecs, "DeregisterTaskDefinition", taskDefinition="etl:3")

    def described(reference: str) -> tuple[int, Any]:
        answer = call(ecs, "DescribeTaskDefinition", taskDefinition=reference)[1]["taskDefinition"]
        return answer["revision"], answer["status"]

    assert described("etl") == (2, "ACTIVE")
    assert described("etl:3") == (3, "INACTIVE")
    call(ecs, "DeregisterTaskDefinition", taskDefinition="etl:1")
    call(ecs, "DeregisterTaskDefinition", taskDefinition="etl:2")
    status, answer = call(ecs, "DescribeTaskDefinition", taskDefinition="etl")
    assert (status, answer["__type"], answer["message"]) == (
        400,
        "ClientException",
        "Unable to describe task definition.",
    )


def test_tags_are_answered_only_when_asked_for(ecs: Any) -> None:
    tags = [{"key": "environment", "value": "dev"}]
    call(ecs, "RegisterTaskDefinition", **definition(tags=tags))
    task = call(ecs, "RunTask", **run_request(tags=tags))[1]["tasks"][0]["taskArn"]
    of_definition = {
        str(include): call(ecs, "DescribeTaskDefinition", taskDefinition="etl", include=include)[1]["tags"]
        for include in ([], ["TAGS"])
    }
    of_task = {
        str(include): call(ecs, "DescribeTasks", cluster=CLUSTER, tasks=[task], include=include)[1]["tasks"][0]["tags"]
        for include in ([], ["TAGS"])
    }

    assert of_definition == of_task == {"[]": [], "['TAGS']": tags}


def _task(ecs: Any, **changes: Any) -> dict[str, Any]:
    call(ecs, "RegisterTaskDefinition", **definition())
    (started,) = call(ecs, "RunTask", **run_request(**changes))[1]["tasks"]
    (described,) = call(ecs, "DescribeTasks", cluster=CLUSTER, tasks=[started["taskArn"]])[1]["tasks"]
    assert started["overrides"] == described["overrides"]
    assert isinstance(described, dict)
    return described


def test_a_task_is_described_by_the_size_that_it_was_started_with(ecs: Any) -> None:
    override = {"name": "workflow", "memory": 900, "environment": [{"name": "A", "value": ""}]}
    task = _task(ecs, overrides={"cpu": "512", "memory": "1024", "containerOverrides": [override]})

    assert (task["cpu"], task["memory"]) == ("512", "1024")
    assert task["overrides"]["containerOverrides"] == [override]
    assert (task["overrides"]["cpu"], task["overrides"]["memory"]) == ("512", "1024")
    assert task["containers"][0]["memory"] == "900"


def test_a_task_without_overrides_names_its_containers_and_has_the_size_of_its_definition(ecs: Any) -> None:
    task = _task(ecs)

    assert (task["cpu"], task["memory"]) == ("256", "512")
    assert task["overrides"] == {"containerOverrides": [{"name": "workflow"}], "inferenceAcceleratorOverrides": []}
    assert "memory" not in task["containers"][0]
    assert task["group"] == "family:etl"


def test_a_task_on_fargate_has_a_network_interface_and_no_container_instance(ecs: Any) -> None:
    task = _task(ecs)
    (attachment,) = task["attachments"]
    details = {detail["name"]: detail["value"] for detail in attachment["details"]}

    assert attachment["type"] == "ElasticNetworkInterface"
    assert details["networkInterfaceId"].startswith("eni-")
    assert task["containers"][0]["networkInterfaces"] == [{"attachmentId": attachment["id"]}]
    assert "containerInstanceArn" not in task
    assert (task["launchType"], task["capacityProviderName"]) == ("FARGATE", "FARGATE")
    assert task["fargateEphemeralStorage"] == {"sizeInGiB": 20}


def test_a_running_task_has_no_fields_of_a_stopped_one(ecs: Any) -> None:
    task = _task(ecs)
    assert not {"stopCode", "stoppedReason", "stoppedAt", "stoppingAt", "executionStoppedAt"} & set(task)

    call(ecs, "StopTask", cluster=CLUSTER, task=task["taskArn"], reason="enough")
    (stopped,) = call(ecs, "DescribeTasks", cluster=CLUSTER, tasks=[task["taskArn"]])[1]["tasks"]
    assert (stopped["stopCode"], stopped["stoppedReason"]) == ("UserInitiated", "enough")
    assert {"stoppedAt", "stoppingAt", "executionStoppedAt"} <= set(stopped)
    assert stopped["attachments"][0]["status"] == "DELETED"


@pytest.mark.parametrize("count", [0, 101])
def test_no_tasks_and_too_many_are_not_described(ecs: Any, count: int) -> None:
    status, answer = call(ecs, "DescribeTasks", cluster=CLUSTER, tasks=["0" * 32] * count)
    assert (status, answer["__type"]) == (400, "InvalidParameterException")


def test_a_task_that_ecs_does_not_know_is_missing(ecs: Any) -> None:
    arn = f"arn:aws:ecs:us-east-1:000000000000:task/{CLUSTER}/{'0' * 32}"
    status, answer = call(ecs, "DescribeTasks", cluster=CLUSTER, tasks=[arn])

    assert (status, answer["tasks"]) == (200, [])
    assert answer["failures"] == [{"arn": arn, "reason": "MISSING"}]


def test_a_task_that_is_being_stopped_is_to_be_stopped_and_still_runs(ecs: Any) -> None:
    arn = _task(ecs)["taskArn"]
    stopping = "2026-01-02T03:04:05Z"
    ecs._tasks[arn]["_stopping"] = ["enough", "UserInitiated", stopping]
    (task,) = call(ecs, "DescribeTasks", cluster=CLUSTER, tasks=[arn])[1]["tasks"]

    assert (task["lastStatus"], task["desiredStatus"]) == ("RUNNING", "STOPPED")
    assert (task["stopCode"], task["stoppedReason"], task["stoppingAt"]) == ("UserInitiated", "enough", stopping)
    assert "stoppedAt" not in task
    assert call(ecs, "ListTasks", cluster=CLUSTER)[1] == {"taskArns": []}
    assert call(ecs, "ListTasks", cluster=CLUSTER, desiredStatus="STOPPED")[1] == {"taskArns": [arn]}


def test_tasks_are_listed_page_by_page(ecs: Any) -> None:
    call(ecs, "RegisterTaskDefinition", **definition())
    started = {call(ecs, "RunTask", **run_request())[1]["tasks"][0]["taskArn"] for _ in range(5)}
    pages, token = [], None
    while token or not pages:
        page = call(ecs, "ListTasks", cluster=CLUSTER, maxResults=2, nextToken=token)[1]
        pages.append(page["taskArns"])
        token = page.get("nextToken")

    assert [len(page) for page in pages] == [2, 2, 1]
    assert {arn for page in pages for arn in page} == started


def test_a_task_is_forgotten_an_hour_after_it_stopped(ecs: Any) -> None:
    stopped, old = _task(ecs)["taskArn"], _task(ecs)["taskArn"]
    for arn in (stopped, old):
        call(ecs, "StopTask", cluster=CLUSTER, task=arn)
    for arn, seconds in ((stopped, 3590), (old, 3610)):
        moment = datetime.now(UTC) - timedelta(seconds=seconds)
        ecs._tasks[arn]["stoppedAt"] = moment.isoformat().replace("+00:00", "Z")
    answer = call(ecs, "DescribeTasks", cluster=CLUSTER, tasks=[stopped, old])[1]

    assert [task["taskArn"] for task in answer["tasks"]] == [stopped]
    assert answer["failures"] == [{"arn": old, "reason": "MISSING"}]
    assert call(ecs, "ListTasks", cluster=CLUSTER, desiredStatus="STOPPED")[1]["taskArns"] == [stopped]
