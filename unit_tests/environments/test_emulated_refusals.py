"""What the emulated ECS refuses, in the emulator's real module."""

import threading
from typing import Any

import pytest
from ministack.core import iam_evaluator

from environments import emulated_refusals
from environments.emulated_answers import answer_as_aws
from environments.emulated_refusals import TOO_MANY_REGISTRATIONS, refuse_as_aws
from unit_tests.environments.real_ecs import CLUSTER, ROLE, call, definition, real_ecs, run_request

CONTAINER = definition()["containerDefinitions"][0]
INVALID = "InvalidParameterException"
NO_PAIR = (
    "No Fargate configuration exists for given values: {} CPU, {} memory. "
    "See the Amazon ECS documentation for the valid values."
)


@pytest.fixture
def roles() -> set[str]:
    """The roles that exist."""
    return {ROLE}


@pytest.fixture
def ecs(monkeypatch: pytest.MonkeyPatch, roles: set[str]) -> Any:
    monkeypatch.setattr(iam_evaluator, "validate_role_arn", lambda arn: None if arn in roles else "not there")
    monkeypatch.setattr(emulated_refusals, "REGISTRATION_SECONDS", 0)
    module = real_ecs()
    answer_as_aws(module)
    refuse_as_aws(module)
    return module


def _tags(count: int) -> list[dict[str, str]]:
    return [{"key": f"key{number}", "value": ""} for number in range(count)]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"cpu": "1024", "memory": "1024"}, NO_PAIR.format(1024, 1024)),
        ({"cpu": "1 vCPU", "memory": "1 GB"}, NO_PAIR.format(1024, 1024)),
        ({"cpu": "300", "memory": "512"}, NO_PAIR.format(300, 512)),
        (
            {"cpu": "much"},
            "Invalid 'cpu' setting for task. For more information, see the Troubleshooting section of the "
            "Amazon ECS Developer Guide.",
        ),
        ({"cpu": None}, "Fargate requires that 'cpu' be defined at the task level."),
        ({"memory": ""}, "Fargate requires that 'memory' be defined at the task level."),
        ({"networkMode": "bridge"}, "Fargate only supports network mode 'awsvpc'."),
        ({"taskRoleArn": f"{ROLE}_gone"}, "Role is not valid"),
        ({"executionRoleArn": "nonsense"}, "Role is not valid"),
        (
            {"executionRoleArn": ""},
            "Fargate requires task definition to have execution role ARN to support log driver awslogs.",
        ),
        (
            {"executionRoleArn": "", "containerDefinitions": [{"name": "x", "image": CONTAINER["image"]}]},
            "Fargate requires task definition to have execution role ARN to support ECR images.",
        ),
        (
            {
                "requiresCompatibilities": ["EC2"],
                "executionRoleArn": "",
                "containerDefinitions": [{**CONTAINER, "secrets": [{"name": "A", "valueFrom": "arn"}]}],
            },
            "When you are specifying container secrets, you must also specify a value for 'executionRoleArn'.",
        ),
        (
            {"containerDefinitions": [{**CONTAINER, "stopTimeout": 121}]},
            "The 'stopTimeout' of container 'workflow' is longer than the 120 seconds that Fargate allows.",
        ),
        ({"family": "日次"}, "Family must be 1 to 255 letters, numbers, hyphens and underscores."),
        ({"family": "x" * 256}, "Family must be 1 to 255 letters, numbers, hyphens and underscores."),
    ],
)
def test_a_definition_that_aws_does_not_take_is_refused(ecs: Any, changes: dict[str, Any], message: str) -> None:
    status, answer = call(ecs, "RegisterTaskDefinition", **definition(**changes))

    assert (status, answer["__type"], answer["message"]) == (400, "ClientException", message)
    assert call(ecs, "ListTaskDefinitions")[1]["taskDefinitionArns"] == []


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"cpu": "1 vCPU", "memory": "2GB"},
        {"cpu": ".25 vcpu", "memory": "0.5 GB"},
        {"containerDefinitions": [{**CONTAINER, "stopTimeout": 120}]},
        {"tags": _tags(50)},
        {"requiresCompatibilities": ["EC2"], "networkMode": "bridge", "cpu": "300", "memory": "300"},
    ],
)
def test_a_definition_that_aws_takes_is_registered(ecs: Any, changes: dict[str, Any]) -> None:
    assert call(ecs, "RegisterTaskDefinition", **definition(**changes))[0] == 200


def test_a_definition_can_have_64_kib_and_no_more(ecs: Any) -> None:
    def of_size(size: int) -> dict[str, Any]:
        value = {"name": "A", "value": "x" * size}
        return definition(containerDefinitions=[{**CONTAINER, "environment": [value]}])

    room = 65_536 - len(emulated_refusals._compact(of_size(0)))
    fits, too_large = (call(ecs, "RegisterTaskDefinition", **of_size(size)) for size in (room, room + 1))

    assert fits[0] == 200
    assert too_large[1]["message"] == "Actual length: '65537'. Max allowed length is '65536' bytes."


def test_two_registrations_of_one_family_at_a_time_are_too_many(ecs: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    at_work, go_on = threading.Event(), threading.Event()

    def take_long(_: float) -> None:
        at_work.set()
        assert go_on.wait(5)

    monkeypatch.setattr(emulated_refusals.time, "sleep", take_long)
    answers: list[tuple[int, Any]] = []
    first = threading.Thread(target=lambda: answers.append(call(ecs, "RegisterTaskDefinition", **definition())))
    first.start()
    assert at_work.wait(5)
    status, refused = call(ecs, "RegisterTaskDefinition", **definition())
    go_on.set()
    other_family = call(ecs, "RegisterTaskDefinition", **definition(family="other"))
    first.join(5)

    assert (status, refused["__type"], refused["message"]) == (400, "ClientException", TOO_MANY_REGISTRATIONS)
    assert (answers[0][0], other_family[0]) == (200, 200)
    assert call(ecs, "RegisterTaskDefinition", **definition())[1]["taskDefinition"]["revision"] == 2


@pytest.mark.parametrize(
    ("changes", "code", "message"),
    [
        ({"cluster": "gone"}, "ClusterNotFoundException", "Cluster not found."),
        ({"taskDefinition": "gone"}, "ClientException", "TaskDefinition not found."),
        ({"taskDefinition": "etl:7"}, "ClientException", "TaskDefinition not found."),
        ({"taskDefinition": "etl:1"}, INVALID, "TaskDefinition is inactive"),
        ({"overrides": {"cpu": "512", "memory": "512"}}, "ClientException", NO_PAIR.format(512, 512)),
        ({"overrides": {"cpu": "4096"}}, "ClientException", NO_PAIR.format(4096, 512)),
        ({"overrides": {"memory": "8192"}}, "ClientException", NO_PAIR.format(256, 8192)),
        (
            {"overrides": {"containerOverrides": [{"name": "other"}]}},
            INVALID,
            "Override for container named other is not a container in the TaskDefinition.",
        ),
        (
            {"networkConfiguration": None},
            INVALID,
            "Network Configuration must be provided when networkMode 'awsvpc' is specified.",
        ),
        (
            {"overrides": {"taskRoleArn": f"{ROLE}_gone"}},
            "ClientException",
            f"ECS was unable to assume the role '{ROLE}_gone' that was provided for this task. Please verify that the "
            "role being passed has the proper trust relationship and permissions and that your IAM user has "
            "permissions to pass this role.",
        ),
        ({"clientToken": "x" * 65}, INVALID, "clientToken must be 1 to 64 characters in the range of 33-126."),
        ({"clientToken": "a b"}, INVALID, "clientToken must be 1 to 64 characters in the range of 33-126."),
        (
            {"startedBy": "x" * 129},
            INVALID,
            "startedBy must be 1 to 128 letters, numbers, hyphens, slashes and underscores.",
        ),
        ({"count": 11}, INVALID, "count must be between 1 and 10."),
        ({"tags": _tags(51)}, INVALID, "A resource can have 50 tags at most, the request has 51."),
        ({"tags": [{"key": "AWS:x"}]}, INVALID, "The prefix aws: of tag 'AWS:x' is reserved for AWS."),
        ({"tags": [{"key": "x", "value": "aws:y"}]}, INVALID, "The prefix aws: of tag 'x' is reserved for AWS."),
        ({"tags": [{"key": "x" * 129}]}, INVALID, f"Invalid tag key: '{'x' * 129}'."),
        ({"tags": [{"key": "a,b"}]}, INVALID, "Invalid tag key: 'a,b'."),
        ({"tags": [{"key": "x", "value": "y" * 257}]}, INVALID, "Invalid value of tag 'x'."),
        ({"tags": [{"key": "x", "value": "50%"}]}, INVALID, "Invalid value of tag 'x'."),
        ({"tags": [{"key": "x", "value": "two\nlines"}]}, INVALID, "Invalid value of tag 'x'."),
        ({"tags": [{"key": "x"}, {"key": "x"}]}, INVALID, "Duplicate tag keys found."),
    ],
)
def test_a_task_that_aws_does_not_start_is_refused(ecs: Any, changes: dict[str, Any], code: str, message: str) -> None:
    for _ in range(2):
        call(ecs, "RegisterTaskDefinition", **definition())
    call(ecs, "DeregisterTaskDefinition", taskDefinition="etl:1")
    status, answer = call(ecs, "RunTask", **run_request(**changes))

    assert (status, answer["__type"], answer["message"]) == (400, code, message)
    assert call(ecs, "ListTasks", cluster=CLUSTER)[1]["taskArns"] == []
    assert call(ecs, "ListClusters")[1]["clusterArns"] == [f"arn:aws:ecs:us-east-1:000000000000:cluster/{CLUSTER}"]


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"overrides": {"cpu": "512", "memory": "1024"}},
        {"tags": [*_tags(49), {"key": "x" * 128, "value": "日 +-=._:/@" + "y" * 246}], "count": 10},
        {"clientToken": "!" * 64, "startedBy": "x" * 128},
    ],
)
def test_a_task_that_aws_starts_is_started(ecs: Any, changes: dict[str, Any]) -> None:
    call(ecs, "RegisterTaskDefinition", **definition())
    status, answer = call(ecs, "RunTask", **run_request(**changes))

    assert status == 200
    assert len(answer["tasks"]) == changes.get("count", 1)


def test_overrides_can_have_8192_characters_and_no_more(ecs: Any) -> None:
    def of_size(size: int) -> dict[str, Any]:
        environment = [{"name": "A", "value": "ü" * size}]
        return {"containerOverrides": [{"name": "workflow", "environment": environment}]}

    call(ecs, "RegisterTaskDefinition", **definition())
    room = 8192 - len(emulated_refusals._compact(of_size(0)))
    fits, too_large = (call(ecs, "RunTask", **run_request(overrides=of_size(size))) for size in (room, room + 1))

    assert fits[0] == 200
    assert too_large[1]["__type"] == INVALID
    assert too_large[1]["message"] == "Container Overrides length must be at most 8192"


def test_a_role_that_was_deleted_after_registration_starts_no_task(ecs: Any, roles: set[str]) -> None:
    call(ecs, "RegisterTaskDefinition", **definition())
    roles.clear()
    status, answer = call(ecs, "RunTask", **run_request())

    assert (status, answer["__type"]) == (400, "ClientException")
    assert answer["message"].startswith(f"ECS was unable to assume the role '{ROLE}'")


@pytest.mark.parametrize(
    ("action", "data"), [("ListTasks", {}), ("DescribeTasks", {"tasks": ["0"]}), ("StopTask", {"task": "0"})]
)
def test_tasks_of_an_unknown_cluster_are_refused(ecs: Any, action: str, data: dict[str, Any]) -> None:
    status, answer = call(ecs, action, cluster="gone", **data)
    assert (status, answer["__type"]) == (400, "ClusterNotFoundException")
