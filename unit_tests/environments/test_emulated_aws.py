import asyncio
import sys
import threading
import time
import types
from pathlib import Path
from typing import Any

import pytest

from environments import emulated_aws
from environments.emulated_aws import (
    Changes,
    adapt_tasks,
    recording,
    registry_image,
    remember_what_is_saved,
    save_changes,
    start_empty_if_incomplete,
)

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


def _request(changes: Changes, method: str, path: str, kind: str = "http") -> None:
    async def application(scope: Any, receive: Any, send: Any) -> None:
        assert changes.anything == 0.0  # a change counts when it is made, not when it is asked for

    scope = {"type": kind, "method": method, "path": path}
    asyncio.run(recording(application, changes)(scope, None, None))


@pytest.mark.parametrize(
    ("method", "path", "anything", "images"),
    [
        ("GET", "/", False, False),
        ("HEAD", "/v2/x/blobs/1", False, False),
        ("POST", "/", True, False),
        ("DELETE", "/bucket/key", True, False),
        ("PUT", "/v2/x/manifests/1", True, True),
        ("PATCH", "/v2/x/blobs/uploads/1", True, True),
    ],
)
def test_requests_that_may_change_something_are_noted(method: str, path: str, anything: bool, images: bool) -> None:
    changes = Changes()
    _request(changes, method, path)

    assert (changes.anything > 0, changes.images > 0) == (anything, images)


def test_start_and_stop_of_the_server_are_no_changes() -> None:
    changes = Changes()
    asyncio.run(recording(_nothing, changes)({"type": "lifespan"}, None, None))

    assert changes.anything == 0.0


async def _nothing(scope: Any, receive: Any, send: Any) -> None:
    pass


def test_request_that_fails_halfway_counts_as_a_change() -> None:
    async def failing(scope: Any, receive: Any, send: Any) -> None:
        raise ZeroDivisionError

    changes = Changes()
    with pytest.raises(ZeroDivisionError):
        asyncio.run(recording(failing, changes)({"type": "http", "method": "POST", "path": "/"}, None, None))

    assert changes.anything > 0


def test_state_is_saved_once_after_changes_and_images_only_when_pushed(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    saved: list[set[str]] = []
    arrived = threading.Event()

    def save_all(services: dict[str, Any]) -> None:
        saved.append(set(services))
        arrived.set()

    persistence = types.SimpleNamespace(save_all=save_all)
    monkeypatch.setitem(sys.modules, "ministack", types.ModuleType("ministack"))
    monkeypatch.setitem(sys.modules, "ministack.core", types.ModuleType("ministack.core"))
    monkeypatch.setitem(sys.modules, "ministack.core.persistence", persistence)
    monkeypatch.setattr(emulated_aws, "SAVE_AFTER_QUIET_SECONDS", 0.02)
    ministack = types.SimpleNamespace(_build_persistence_save_dict=lambda: {"ecs": 1, "ecr": 2})
    changes = Changes()
    threading.Thread(target=save_changes, args=(ministack, changes, tmp_path), daemon=True).start()

    time.sleep(0.1)
    untouched = list(saved)
    changes.anything = time.monotonic()
    assert arrived.wait(5)
    arrived.clear()
    time.sleep(0.1)
    after_change = list(saved)
    changes.anything = changes.images = time.monotonic()
    assert arrived.wait(5)

    assert untouched == []
    assert after_change == [{"ecs"}]
    assert saved == [{"ecs"}, {"ecs", "ecr"}]


@pytest.mark.parametrize(
    ("there", "kept"),
    [
        (["s3.json", "ecs.json"], True),
        (["s3.json", "ecs.json", "new.json"], True),
        (["ecs.json"], False),
        ([], False),
        (["ecs.json.tmp", "s3.json.tmp"], False),
    ],
    ids=["complete", "one-more", "one-lost", "all-lost", "half-written"],
)
def test_an_account_whose_state_is_incomplete_starts_empty(tmp_path: Path, there: list[str], kept: bool) -> None:
    state, stored = tmp_path / "state", tmp_path / "s3" / "bucket" / "terraform.tfstate"
    for folder in (state, stored.parent):
        folder.mkdir(parents=True)
    stored.write_text("{}")
    for name in ("s3.json", "ecs.json"):
        (state / name).write_text("{}")
    remember_what_is_saved(state)
    for name in ("s3.json", "ecs.json"):
        (state / name).unlink()
    for name in there:
        (state / name).write_text("{}")
    start_empty_if_incomplete(state, tmp_path / "s3")

    assert stored.exists() is kept
    assert sorted(file.name for file in state.glob("*.json")) == (sorted(there) if kept else [])


def test_state_saved_by_an_orderly_stop_alone_is_kept(tmp_path: Path) -> None:
    (tmp_path / "ecs.json").write_text("{}")
    start_empty_if_incomplete(tmp_path, tmp_path / "s3")

    assert (tmp_path / "ecs.json").exists()


def test_first_start_finds_no_folders_at_all(tmp_path: Path) -> None:
    start_empty_if_incomplete(tmp_path / "state", tmp_path / "s3")

    assert list(tmp_path.iterdir()) == []


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
    one, other = (emulated_aws.role_credentials(role, name) for name in ("1", "2"))

    assert one.keys() == other.keys()
    assert not set(one.values()) & set(other.values())
    assert emulated_aws.role_credentials("", "1") == {}


def test_task_is_confined_as_on_fargate(ecs: Ecs) -> None:
    container = {
        "image": "x",
        "readonlyRootFilesystem": True,
        "linuxParameters": {"capabilities": {"drop": ["ALL"]}},
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
    assert arguments["security_opt"] == ["no-new-privileges"]
    assert arguments["mem_limit"] == "512m"
    assert list(arguments["tmpfs"]) == ["/tmp"]


def test_limit_of_the_container_goes_before_that_of_the_task(ecs: Ecs) -> None:
    assert ecs._build_run_kwargs({"image": "x", "memory": 256}, {"memory": "512"})["mem_limit"] == "256m"


def test_task_that_says_nothing_is_not_limited(ecs: Ecs) -> None:
    arguments = ecs._build_run_kwargs({"image": "x", "linuxParameters": None}, {})

    assert arguments["read_only"] is False
    assert arguments["cap_drop"] == []
    assert arguments["tmpfs"] == {}
    assert "mem_limit" not in arguments


def test_task_learns_its_region_and_gets_no_endpoint_that_botocore_refuses(ecs: Ecs) -> None:
    variables = {"AWS_CONTAINER_CREDENTIALS_FULL_URI": "http://x", "AWS_CONTAINER_AUTHORIZATION_TOKEN": "t", "A": "b"}
    arn = "arn:aws:ecs:eu-central-1:000000000000:task/cluster/id"
    token = ecs._register_metadata(arn, "", {}, {}, "FARGATE", variables, False, None)

    assert token == "token"
    assert variables == {"A": "b", "AWS_REGION": "eu-central-1", "AWS_DEFAULT_REGION": "eu-central-1"}


def test_service_gives_back_the_rebalancing_it_was_told() -> None:
    services: dict[str, dict[str, Any]] = {}

    def create(data: dict[str, Any]) -> None:
        services[f"c/{data['serviceName']}"] = {}

    module = types.SimpleNamespace(
        _services=services,
        _ACTION_MAP={"CreateService": create, "UpdateService": lambda data: None},
        _resolve_cluster_name=lambda name: name.rsplit("/", 1)[-1],
    )
    emulated_aws.remember_availability_zone_rebalancing(module)
    setting = "availabilityZoneRebalancing"
    module._ACTION_MAP["CreateService"]({"cluster": "c", "serviceName": "s", setting: "DISABLED"})
    created = services["c/s"][setting]
    module._ACTION_MAP["UpdateService"]({"cluster": "arn:cluster/c", "service": "arn:service/c/s"})

    assert created == services["c/s"][setting] == "DISABLED"


def test_tasks_of_the_last_process_are_stopped_in_every_respect() -> None:
    running = {"lastStatus": "STOPPED", "desiredStatus": "RUNNING"}
    evicted = {"desiredStatus": "RUNNING", "stopCode": "TaskFailedToStart", "stoppedReason": "no image"}
    restored: list[Any] = []
    module = types.SimpleNamespace(
        _restore_state=restored.append, _tasks=types.SimpleNamespace(all_items=lambda: [(1, running), (2, evicted)])
    )
    emulated_aws.stop_restored_tasks(module)
    module._restore_state({"saved": 1})

    assert restored == [{"saved": 1}]
    assert [task["desiredStatus"] for task in (running, evicted)] == ["STOPPED", "STOPPED"]
    assert running["stopCode"] == "ServiceSchedulerInitiated"
    assert evicted["stoppedReason"] == "no image"


def test_egress_rule_takes_the_place_of_the_default_one_it_repeats() -> None:
    default, other = {"IpProtocol": "-1"}, {"IpProtocol": "tcp"}
    group = {"IpPermissionsEgress": [default, other]}
    module = types.SimpleNamespace(
        _ACTION_MAP={"AuthorizeSecurityGroupEgress": lambda parameters: "authorized"},
        _security_groups={"sg-1": group},
        _p=lambda parameters, name: parameters.get(name, ""),
        _parse_ip_permissions=lambda parameters, name: [{"IpProtocol": "-1"}],
        _rules_match=lambda one, two: one == two,
    )
    emulated_aws.replace_default_egress(module)
    authorize = module._ACTION_MAP["AuthorizeSecurityGroupEgress"]

    assert authorize({"GroupId": "sg-missing"}) == "authorized"
    assert group["IpPermissionsEgress"] == [default, other]
    assert authorize({"GroupId": "sg-1"}) == "authorized"
    assert group["IpPermissionsEgress"] == [other]
