from typing import Any

import pytest

from environments import emulated_ecs
from environments.emulated_ecs import adapt_tasks, registry_image

PORT, GATEWAY, NETWORK = 4566, "172.30.0.1", "network-id"


@pytest.mark.parametrize(
    ("image", "expected"),
    [
        ("000000000000.dkr.ecr.eu-west-1.amazonaws.com/dev_x:1", "127.0.0.1:4566/dev_x:1"),
        ("000000000000.dkr.ecr.eu-west-1.amazonaws.com/a/b@sha256:0", "127.0.0.1:4566/a/b@sha256:0"),
        ("python:3.11", "python:3.11"),
        ("docker.io/library/python:3.11", "docker.io/library/python:3.11"),
        ("x.dkr.ecr.y", "x.dkr.ecr.y"),
    ],
)
def test_only_images_of_ecr_are_pulled_from_the_emulator(image: str, expected: str) -> None:
    assert registry_image(image, PORT) == expected


class Ecs:
    """The three functions of the emulator that are replaced."""

    def __init__(self) -> None:
        self.started: list[Any] = []

    def _start_task_worker(self, task: Any, definition: Any, overrides: Any, client: Any) -> None:
        self.started.append(definition)

    def _register_metadata(self, *_: Any) -> str:
        return "token"

    def _build_run_kwargs(self, container: Any, definition: Any, *_: Any) -> dict[str, Any]:
        return {"image": container["image"], "detach": True}


@pytest.fixture
def ecs() -> Ecs:
    module = Ecs()
    adapt_tasks(module, PORT, GATEWAY, NETWORK)
    return module


def test_task_is_pulled_from_the_emulator_and_its_definition_stays_as_it_was(ecs: Ecs) -> None:
    image = "000000000000.dkr.ecr.eu-west-1.amazonaws.com/dev_x:1"
    definition = {"containerDefinitions": [{"image": image}]}
    ecs._start_task_worker({}, definition, {}, None)

    assert ecs.started[0]["containerDefinitions"][0]["image"] == "127.0.0.1:4566/dev_x:1"
    assert definition["containerDefinitions"][0]["image"] == image


def test_every_container_knows_the_role_in_which_its_task_starts(ecs: Ecs) -> None:
    """Without one it is the empty name, which no role has (emulated_iam.py)."""
    containers = [{"image": "x"}, {"image": "y"}]
    ecs._start_task_worker({}, {"containerDefinitions": containers, "executionRoleArn": "arn:role/start"}, {}, None)
    ecs._start_task_worker({}, {"containerDefinitions": containers}, {}, None)
    roles = [[container["executionRole"] for container in made["containerDefinitions"]] for made in ecs.started]

    assert roles == [["arn:role/start", "arn:role/start"], ["", ""]]
    assert containers == [{"image": "x"}, {"image": "y"}]


def test_task_gets_a_session_of_its_task_role_and_nothing_of_the_emulators_own(
    ecs: Ecs, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ministack.services import sts

    sessions: dict[str, Any] = {}
    monkeypatch.setattr(sts, "_sessions", sessions)
    variables: dict[str, str] = {}
    definition = {"taskRoleArn": "arn:aws:iam::000000000000:role/dev_agent_task"}
    arn = "arn:aws:ecs:eu-central-1:000000000000:task/cluster/id"
    ecs._register_metadata(arn, "", definition, {}, "FARGATE", variables, False, None)
    session = sessions[variables["AWS_ACCESS_KEY_ID"]]

    assert session["Arn"] == "arn:aws:sts::000000000000:assumed-role/dev_agent_task/id"
    assert session["SecretAccessKey"] == variables["AWS_SECRET_ACCESS_KEY"]
    assert session["SessionToken"] == variables["AWS_SESSION_TOKEN"]


def test_two_tasks_of_a_role_have_keys_of_their_own() -> None:
    role = "arn:aws:iam::000000000000:role/dev_agent_task"
    one, other = (emulated_ecs.role_credentials(role, name) for name in ("1", "2"))

    assert one.keys() == other.keys()
    assert not set(one.values()) & set(other.values())
    assert emulated_ecs.role_credentials("", "1") == {}


def test_task_is_confined_as_on_fargate(ecs: Ecs) -> None:
    container = {
        "image": "x",
        "user": "10001:10001",
        "readonlyRootFilesystem": True,
        "linuxParameters": {"capabilities": {"drop": ["ALL"]}, "initProcessEnabled": True},
        "mountPoints": [
            {"sourceVolume": "scratch", "containerPath": "/tmp"},
            {"sourceVolume": "host", "containerPath": "/h"},
        ],
    }
    definition = {"memory": "512", "volumes": [{"name": "scratch"}, {"name": "host", "host": {"sourcePath": "/x"}}]}
    arguments = ecs._build_run_kwargs(container, definition, None)

    assert arguments["image"] == "x"
    assert arguments["detach"] is True
    assert arguments["network"] == NETWORK
    assert arguments["extra_hosts"] == {"host.docker.internal": GATEWAY}
    assert arguments["read_only"] is True
    assert arguments["cap_drop"] == ["ALL"]
    assert arguments["init"] is True
    assert arguments["security_opt"] == ["no-new-privileges"]
    assert arguments["mem_limit"] == "512m"
    assert arguments["user"] == "10001:10001"
    assert [(mount["Target"], mount["Source"], mount["Type"]) for mount in arguments["mounts"]] == [
        ("/tmp", None, "volume")
    ]


def test_limit_of_the_container_goes_before_that_of_the_task(ecs: Ecs) -> None:
    assert ecs._build_run_kwargs({"image": "x", "memory": 256}, {"memory": "512"})["mem_limit"] == "256m"


def test_task_that_says_nothing_is_not_limited(ecs: Ecs) -> None:
    arguments = ecs._build_run_kwargs({"image": "x", "linuxParameters": None}, {})

    assert arguments["read_only"] is False
    assert arguments["cap_drop"] == []
    assert arguments["user"] is None
    assert arguments["mounts"] == []
    assert "mem_limit" not in arguments


def test_task_learns_its_region_and_gets_no_endpoint_that_botocore_refuses(ecs: Ecs) -> None:
    variables = {"AWS_CONTAINER_CREDENTIALS_FULL_URI": "http://x", "AWS_CONTAINER_AUTHORIZATION_TOKEN": "t", "A": "b"}
    arn = "arn:aws:ecs:eu-central-1:000000000000:task/cluster/id"
    token = ecs._register_metadata(arn, "", {}, {}, "FARGATE", variables, False, None)

    assert token == "token"
    assert variables == {"A": "b", "AWS_REGION": "eu-central-1", "AWS_DEFAULT_REGION": "eu-central-1"}
