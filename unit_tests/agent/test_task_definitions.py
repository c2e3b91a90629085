import copy
import json
import logging
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import boto3
import pytest
from botocore.exceptions import ClientError
from botocore.stub import Stubber

from agent import task_definitions
from agent.task_definitions import Revisions, same
from environments import emulated_answers
from unit_tests.conftest import ACCOUNT, REGION

FAMILY = "dev_dataflow_automation_workflow_sales"
CONTAINER: dict[str, Any] = {
    "name": "workflow",
    "image": "registry/sales@sha256:1",
    "user": "10001:10001",
    "command": ["prefect", "flow-run", "execute"],
    "readonlyRootFilesystem": True,
    "stopTimeout": 120,
    "environment": [{"name": "A", "value": "1"}, {"name": "B", "value": "2"}],
    "secrets": [{"name": "PREFECT_API_KEY", "valueFrom": "arn:1"}, {"name": "OTHER", "valueFrom": "arn:2"}],
    "mountPoints": [
        {"sourceVolume": "tmp", "containerPath": "/tmp", "readOnly": False},
        {"sourceVolume": "data", "containerPath": "/data", "readOnly": True},
    ],
    "linuxParameters": {"initProcessEnabled": True, "capabilities": {"drop": ["ALL"]}},
    "logConfiguration": {"logDriver": "awslogs", "options": {"awslogs-group": "dev", "awslogs-region": "eu-west-1"}},
}
DEFINITION: dict[str, Any] = {
    "family": FAMILY,
    "requiresCompatibilities": ["FARGATE"],
    "networkMode": "awsvpc",
    "runtimePlatform": {"operatingSystemFamily": "LINUX", "cpuArchitecture": "X86_64"},
    "cpu": "256",
    "memory": "512",
    "executionRoleArn": "arn:aws:iam::123456789012:role/execution",
    "taskRoleArn": "arn:aws:iam::123456789012:role/task",
    "volumes": [{"name": "tmp"}, {"name": "data"}],
    "containerDefinitions": [CONTAINER],
}


def _registered(definition: dict[str, Any]) -> dict[str, Any]:
    """A definition as the emulator gives it back, which is as AWS does."""
    stored = {
        **copy.deepcopy(definition),
        "taskDefinitionArn": _arn(1),
        "revision": 1,
        "status": "ACTIVE",
        "compatibilities": ["EC2", "FARGATE"],
        "registeredAt": 1.0,
        "registeredBy": "arn:aws:sts::123456789012:assumed-role/agent/1",
    }
    return emulated_answers.full_definition(stored)


def _arn(revision: int, family: str = FAMILY) -> str:
    return f"arn:aws:ecs:{REGION}:{ACCOUNT}:task-definition/{family}:{revision}"


def _with(place: str, **changes: Any) -> dict[str, Any]:
    """The definition with some fields changed, added or (None) left out: its own, or those of its container."""
    changed = copy.deepcopy(DEFINITION)
    target = changed if place == "task" else changed["containerDefinitions"][0]
    target.update(changes)
    for name in [name for name, value in changes.items() if value is None]:
        del target[name]
    return changed


def test_definition_that_aws_gives_back_is_the_same() -> None:
    registered = _registered(DEFINITION)

    assert registered != DEFINITION
    assert same(DEFINITION, registered)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("taskDefinitionArn", _arn(7)),
        ("revision", 7),
        ("status", "ACTIVE"),
        ("compatibilities", ["EC2", "FARGATE", "MANAGED_INSTANCES"]),
        ("requiresAttributes", [{"name": "com.amazonaws.ecs.capability.docker-remote-api.1.19"}]),
        ("registeredAt", 1.0),
        ("registeredBy", "arn:aws:sts::123456789012:assumed-role/agent/1"),
        ("deregisteredAt", 1.0),
        ("deleteRequestedAt", 1.0),
        ("placementConstraints", []),
        ("inferenceAccelerators", []),
        ("tags", []),
        ("enableFaultInjection", False),
        ("pidMode", None),
        ("ephemeralStorage", {}),
    ],
)
def test_field_that_aws_adds_to_a_definition_makes_no_difference(name: str, value: Any) -> None:
    assert same(DEFINITION, {**DEFINITION, name: value})


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *emulated_answers.CONTAINER_DEFAULTS.items(),
        ("memory", 0),
        ("links", []),
        ("entryPoint", []),
        ("dnsServers", []),
        ("dockerSecurityOptions", []),
        ("dockerLabels", {}),
        ("ulimits", []),
        ("extraHosts", []),
        ("environmentFiles", []),
        ("resourceRequirements", []),
        ("dependsOn", []),
        ("interactive", False),
        ("pseudoTerminal", False),
        ("privileged", False),
        ("disableNetworking", False),
        ("workingDirectory", ""),
        ("hostname", None),
    ],
)
def test_default_that_aws_adds_to_a_container_makes_no_difference(name: str, value: Any) -> None:
    wanted = _with("container", environment=None, mountPoints=None)
    registered = copy.deepcopy(wanted)
    registered["containerDefinitions"][0][name] = value

    assert registered != wanted
    assert same(wanted, registered)


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("volumes", 0, "host"), {}),
        (("containerDefinitions", 0, "mountPoints", 0, "readOnly"), None),
        (("containerDefinitions", 0, "logConfiguration", "secretOptions"), []),
        (("containerDefinitions", 0, "linuxParameters", "devices"), []),
        (("containerDefinitions", 0, "linuxParameters", "tmpfs"), []),
        (("containerDefinitions", 0, "linuxParameters", "capabilities", "add"), []),
        (("containerDefinitions", 0, "linuxParameters", "sharedMemorySize"), 0),
    ],
    ids=lambda value: value[-1] if isinstance(value, tuple) else "",
)
def test_default_that_aws_adds_deeper_makes_no_difference(path: tuple[Any, ...], value: Any) -> None:
    registered: Any = copy.deepcopy(DEFINITION)
    target = registered
    for step in path[:-1]:
        target = target[step]
    target[path[-1]] = value

    assert registered != DEFINITION
    assert same(DEFINITION, registered)


@pytest.mark.parametrize(
    ("place", "name"),
    [
        ("task", "volumes"),
        ("container", "environment"),
        ("container", "secrets"),
        ("container", "mountPoints"),
    ],
)
def test_order_of_what_has_none_makes_no_difference(place: str, name: str) -> None:
    values = DEFINITION[name] if place == "task" else CONTAINER[name]
    other = _with(place, **{name: values[::-1]})

    assert other != DEFINITION
    assert same(DEFINITION, other)


@pytest.mark.parametrize(
    ("place", "name", "values"),
    [
        ("task", "requiresCompatibilities", ["FARGATE", "EC2"]),
        ("container", "portMappings", [{"containerPort": 80}, {"containerPort": 443}]),
        ("container", "ulimits", [{"name": "nofile", "softLimit": 1}, {"name": "core", "softLimit": 2}]),
        ("container", "systemControls", [{"namespace": "b", "value": "1"}, {"namespace": "a", "value": "2"}]),
        ("container", "environmentFiles", [{"value": "arn:b", "type": "s3"}, {"value": "arn:a", "type": "s3"}]),
    ],
)
def test_order_of_what_a_user_may_add_makes_no_difference(place: str, name: str, values: list[Any]) -> None:
    assert same(_with(place, **{name: values}), _with(place, **{name: values[::-1]}))
    assert not same(_with(place, **{name: values}), _with(place, **{name: values[:1]}))


@pytest.mark.parametrize(
    ("place", "changes"),
    [
        ("task", {"cpu": "512"}),
        ("task", {"memory": "1024"}),
        ("task", {"taskRoleArn": "arn:aws:iam::123456789012:role/other"}),
        ("task", {"runtimePlatform": {"operatingSystemFamily": "LINUX", "cpuArchitecture": "ARM64"}}),
        ("task", {"runtimePlatform": None}),
        ("task", {"volumes": [{"name": "tmp"}]}),
        ("task", {"enableFaultInjection": True}),
        ("task", {"requiresCompatibilities": ["EC2"]}),
        ("container", {"image": "registry/sales@sha256:2"}),
        ("container", {"user": "1000"}),
        ("container", {"cpu": 128}),
        ("container", {"essential": False}),
        ("container", {"readonlyRootFilesystem": False}),
        ("container", {"stopTimeout": 30}),
        ("container", {"command": CONTAINER["command"][::-1]}),
        ("container", {"entryPoint": ["sh"]}),
        ("container", {"environment": [*CONTAINER["environment"], {"name": "C", "value": ""}]}),
        ("container", {"environment": [{"name": "A", "value": ""}, CONTAINER["environment"][1]]}),
        ("container", {"environment": CONTAINER["environment"][:1]}),
        ("container", {"secrets": CONTAINER["secrets"][:1]}),
        (
            "container",
            {"mountPoints": [{**CONTAINER["mountPoints"][0], "readOnly": True}, CONTAINER["mountPoints"][1]]},
        ),
        ("container", {"linuxParameters": {"initProcessEnabled": False, "capabilities": {"drop": ["ALL"]}}}),
        ("container", {"linuxParameters": {"initProcessEnabled": True}}),
    ],
)
def test_real_difference_is_one_in_both_directions(place: str, changes: dict[str, Any]) -> None:
    other = _with(place, **changes)

    assert not same(other, _registered(DEFINITION))
    assert not same(DEFINITION, _registered(other))
    assert same(other, _registered(other))


PORT = {"containerPort": 80, "hostPort": 80, "protocol": "tcp"}
HEALTH = {"command": ["CMD", "true"], "interval": 30, "timeout": 5, "retries": 3}


@pytest.mark.parametrize("name", ["hostPort", "protocol"])
def test_default_that_aws_adds_to_a_port_makes_no_difference(name: str) -> None:
    wanted = _with("container", portMappings=[{key: value for key, value in PORT.items() if key != name}])

    assert same(wanted, _with("container", portMappings=[PORT]))
    assert same(wanted, _registered(wanted))


@pytest.mark.parametrize("change", [{"containerPort": 81}, {"hostPort": 8080}, {"protocol": "udp"}])
def test_another_port_is_a_difference(change: dict[str, Any]) -> None:
    wanted = _with("container", portMappings=[{"containerPort": 80}])

    assert not same(wanted, _with("container", portMappings=[{**PORT, **change}]))
    assert not same(wanted, DEFINITION)


@pytest.mark.parametrize("name", ["interval", "timeout", "retries"])
def test_default_that_aws_adds_to_a_health_check_makes_no_difference(name: str) -> None:
    wanted = _with("container", healthCheck={key: value for key, value in HEALTH.items() if key != name})

    assert same(wanted, _with("container", healthCheck=HEALTH))
    assert same(wanted, _registered(wanted))


@pytest.mark.parametrize(
    "change", [{"command": ["CMD", "false"]}, {"interval": 31}, {"timeout": 6}, {"retries": 4}, {"startPeriod": 1}]
)
def test_another_health_check_is_a_difference(change: dict[str, Any]) -> None:
    wanted = _with("container", healthCheck={"command": HEALTH["command"]})

    assert not same(wanted, _with("container", healthCheck={**HEALTH, **change}))
    assert not same(wanted, DEFINITION)


def test_empty_value_of_a_variable_is_a_value() -> None:
    [container] = task_definitions.normalised(_with("container", environment=[{"name": "A", "value": ""}]))[
        "containerDefinitions"
    ]

    assert container["environment"] == [{"name": "A", "value": ""}]


def test_command_keeps_its_order() -> None:
    assert task_definitions.normalised(DEFINITION)["containerDefinitions"][0]["command"] == CONTAINER["command"]


@pytest.fixture
def ecs(aws_mocked: Callable[[str], Any]) -> Any:
    return aws_mocked("ecs")


def _active(ecs: Any, family: str = FAMILY) -> list[str]:
    return [each.rpartition("/")[2].rpartition(":")[2] for each in task_definitions.active_revisions(ecs, family)]


def _image(number: int) -> dict[str, Any]:
    return _with("container", image=f"registry/sales@sha256:{number}")


def test_content_that_is_new_is_registered_and_found_again(ecs: Any) -> None:
    revisions = Revisions()
    first = revisions.find_or_register(ecs, DEFINITION)

    assert first == _arn(1)
    assert [revisions.find_or_register(ecs, copy.deepcopy(DEFINITION)) for _ in range(3)] == [first] * 3
    assert Revisions().find_or_register(ecs, DEFINITION) == first
    assert _active(ecs) == ["1"]


def test_known_content_is_not_asked_about_again(ecs: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    revisions = Revisions()
    first = revisions.find_or_register(ecs, DEFINITION)

    assert revisions.find_or_register(None, DEFINITION) == first


def test_fifty_runs_at_once_register_one_revision(ecs: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    revisions, barrier = Revisions(), threading.Barrier(50)
    register, at_once, most = ecs.register_task_definition, 0, 0

    def counted(**definition: Any) -> Any:
        nonlocal at_once, most
        at_once += 1
        most = max(most, at_once)
        answer = register(**definition)
        at_once -= 1
        return answer

    def find(_: int) -> str:
        barrier.wait()
        return revisions.find_or_register(ecs, copy.deepcopy(DEFINITION))

    monkeypatch.setattr(ecs, "register_task_definition", counted)
    with ThreadPoolExecutor(50) as pool:
        found = list(pool.map(find, range(50)))

    assert found == [_arn(1)] * 50
    assert _active(ecs) == ["1"]
    assert most == 1


def test_runs_of_many_families_and_contents_at_once_disturb_each_other_not(ecs: Any) -> None:
    revisions, barrier = Revisions(), threading.Barrier(40)

    def find(number: int) -> tuple[str, str]:
        family, image = f"family-{number % 4}", number % 2
        definition = {**_image(image), "family": family}
        barrier.wait()
        for _ in range(20):
            arn = revisions.find_or_register(ecs, definition)
            revisions.forget(f"{arn}0")
        return family, arn

    with ThreadPoolExecutor(40) as pool:
        found = set(pool.map(find, range(40)))

    assert {family: [arn for each, arn in found if each == family] for family, _ in found}.keys() == {
        f"family-{number}" for number in range(4)
    }
    assert len(found) == 4
    assert [_active(ecs, f"family-{number}") for number in range(4)] == [["1"]] * 4


def test_real_change_is_another_revision_and_the_one_before_is_deregistered(ecs: Any) -> None:
    Revisions().find_or_register(ecs, _image(1))

    assert Revisions().find_or_register(ecs, _image(2)) == _arn(2)
    assert _active(ecs) == ["2"]


def test_revisions_that_this_agent_used_lately_stay(ecs: Any) -> None:
    now = 0.0
    revisions = Revisions(lambda: now)
    for number in range(3):
        revisions.find_or_register(ecs, _image(number))
        now += 1000
    assert _active(ecs) == ["1", "2", "3"]

    revisions.find_or_register(ecs, _image(1))  # used again
    now += 2000
    revisions.find_or_register(ecs, _image(3))

    assert _active(ecs) == ["2", "3", "4"]


def test_revisions_of_other_families_stay(ecs: Any) -> None:
    for family in (f"{FAMILY}-daily", FAMILY[:-1]):
        ecs.register_task_definition(**{**DEFINITION, "family": family})
    ecs.register_task_definition(**_image(1))
    Revisions().find_or_register(ecs, _image(2))

    assert [_active(ecs, family) for family in (f"{FAMILY}-daily", FAMILY[:-1], FAMILY)] == [["1"], ["1"], ["2"]]


def test_content_of_a_deregistered_revision_is_registered_anew(ecs: Any) -> None:
    ecs.register_task_definition(**DEFINITION)
    ecs.deregister_task_definition(taskDefinition=_arn(1))

    assert Revisions().find_or_register(ecs, DEFINITION) == _arn(2)


def test_forgotten_revision_is_looked_for_again(ecs: Any) -> None:
    revisions = Revisions()
    first = revisions.find_or_register(ecs, DEFINITION)
    other = revisions.find_or_register(ecs, {**DEFINITION, "family": "other"})
    ecs.deregister_task_definition(taskDefinition=first)
    assert revisions.find_or_register(ecs, DEFINITION) == first
    revisions.forget(first)

    assert revisions.find_or_register(ecs, DEFINITION) == _arn(2)
    assert revisions.find_or_register(None, {**DEFINITION, "family": "other"}) == other


@pytest.fixture
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Pauses between attempts, which take no time."""
    taken: list[float] = []
    monkeypatch.setattr(task_definitions.time, "sleep", taken.append)
    return taken


class Busy:
    """ECS that refuses some registrations because another one is under way; meanwhile something happens."""

    def __init__(self, ecs: Any, times: int, meanwhile: Callable[[], Any] = lambda: None) -> None:
        self._ecs = ecs
        self._times = times
        self._meanwhile = meanwhile
        self.registrations = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._ecs, name)

    def register_task_definition(self, **definition: Any) -> Any:
        self.registrations += 1
        if self.registrations > self._times:
            return self._ecs.register_task_definition(**definition)
        self._meanwhile()
        message = "Too many concurrent attempts to create a new revision of the specified family."
        raise self._ecs.exceptions.ClientException(
            {"Error": {"Code": "ClientException", "Message": message}}, "RegisterTaskDefinition"
        )


def test_registration_that_aws_has_no_time_for_is_tried_again_after_growing_pauses(
    ecs: Any, pauses: list[float]
) -> None:
    busy = Busy(ecs, 7)

    assert Revisions().find_or_register(busy, DEFINITION) == _arn(1)
    assert busy.registrations == 8
    assert all(0.5 <= pause / (0.25 * 2**number) <= 1.5 for number, pause in enumerate(pauses))
    assert len(pauses) == 7


def test_revision_that_another_agent_registered_meanwhile_is_the_one(ecs: Any, pauses: list[float]) -> None:
    busy = Busy(ecs, 1, lambda: ecs.register_task_definition(**DEFINITION))

    assert Revisions().find_or_register(busy, DEFINITION) == _arn(1)
    assert busy.registrations == 1
    assert _active(ecs) == ["1"]


def test_revision_with_another_content_that_was_registered_meanwhile_is_not_the_one(
    ecs: Any, pauses: list[float]
) -> None:
    busy = Busy(ecs, 1, lambda: ecs.register_task_definition(**_image(2)))

    assert Revisions().find_or_register(busy, DEFINITION) == _arn(2)


def test_registration_that_aws_never_has_time_for_is_refused(ecs: Any, pauses: list[float]) -> None:
    busy = Busy(ecs, 100)
    with pytest.raises(ecs.exceptions.ClientException, match="Too many concurrent attempts"):
        Revisions().find_or_register(busy, DEFINITION)

    assert busy.registrations == 8


@pytest.fixture
def stubbed() -> Iterator[Stubber]:
    client = boto3.client("ecs", region_name=REGION, aws_access_key_id="x", aws_secret_access_key="x")
    with Stubber(client) as stubber:
        yield stubber
        stubber.assert_no_pending_responses()


@pytest.mark.parametrize(
    ("code", "message"), [("ClientException", "Role is not valid"), ("ThrottlingException", "Rate exceeded")]
)
def test_other_errors_of_a_registration_are_left_to_the_caller(
    stubbed: Stubber, pauses: list[float], code: str, message: str
) -> None:
    stubbed.add_client_error("describe_task_definition", "ClientException")
    stubbed.add_client_error("register_task_definition", code, message)
    with pytest.raises(ClientError, match=message):
        Revisions().find_or_register(stubbed.client, DEFINITION)

    assert pauses == []


@pytest.mark.parametrize("code", ["ClientException", "ServerException", "ThrottlingException", "AccessDeniedException"])
@pytest.mark.parametrize("operation", ["list_task_definitions", "deregister_task_definition"])
def test_revision_is_used_though_others_can_not_be_deregistered(
    stubbed: Stubber, code: str, operation: str, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(task_definitions.logger, "handlers", [caplog.handler])
    stubbed.add_client_error("describe_task_definition", "ClientException")
    stubbed.add_response("register_task_definition", {"taskDefinition": {"taskDefinitionArn": _arn(2)}})
    if operation == "deregister_task_definition":
        stubbed.add_response("list_task_definitions", {"taskDefinitionArns": [_arn(1), _arn(2)]})
    stubbed.add_client_error(operation, code, "not now")
    with caplog.at_level(logging.WARNING, logger=task_definitions.logger.name):
        found = Revisions().find_or_register(stubbed.client, DEFINITION)

    assert found == _arn(2)
    assert f"revisions of {FAMILY} that nothing uses stay registered" in caplog.text
    assert "not now" in caplog.text


def test_family_is_what_stands_before_the_revision() -> None:
    assert task_definitions.family_of(_arn(12)) == FAMILY


def test_content_is_the_same_whatever_the_order_of_its_fields() -> None:
    backwards = dict(reversed(DEFINITION.items()))

    assert json.dumps(backwards) != json.dumps(DEFINITION)
    assert same(backwards, DEFINITION)
