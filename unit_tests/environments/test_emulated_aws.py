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
    closed,
    recording,
    remember_what_is_saved,
    save_changes,
    start_empty_if_incomplete,
)


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


@pytest.mark.parametrize(
    ("path", "reached"),
    [
        ("/_ministack/health", True),
        ("/bucket/_ministack/reset", True),
        ("/", True),
        ("/_ministack/reset", False),
        ("//_ministack/reset", False),
        ("/_ministack/config", False),
        ("/_localstack/health", False),
    ],
)
def test_controls_of_the_emulator_are_nobodys(path: str, reached: bool) -> None:
    calls: list[Any] = []

    async def answer(*arguments: Any) -> None:
        calls.append(arguments)

    asyncio.run(closed(answer)({"type": "http", "path": path}, None, answer))

    statuses = [call[0].get("status") for call in calls if "status" in call[0]]
    assert (statuses == []) is reached
    assert (statuses == [404]) is not reached


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


@pytest.mark.parametrize(("asked", "waited"), [({"WaitTimeSeconds": 20}, 1), ({"WaitTimeSeconds": 0}, 0), ({}, None)])
def test_who_waits_for_messages_has_to_ask_again_soon(asked: dict[str, int], waited: int | None) -> None:
    async def receive(data: dict[str, Any], _: str) -> dict[str, Any]:
        return data

    module = types.SimpleNamespace(_HANDLERS={"ReceiveMessage": receive})
    emulated_aws.forget_receivers(module)
    told = asyncio.run(module._HANDLERS["ReceiveMessage"]({"QueueUrl": "q", **asked}, "q"))

    assert told["QueueUrl"] == "q"
    assert told.get("WaitTimeSeconds") == waited


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
