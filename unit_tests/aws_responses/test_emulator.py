"""The emulated AWS answers as AWS does: in the emulator's real modules, compared with the samples."""

import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from ministack.core import iam_evaluator
from ministack.services import eventbridge

from environments import emulated_lifecycle, emulated_refusals
from environments.emulated_answers import answer_as_aws
from environments.emulated_capacity import refuse_capacity, replace
from environments.emulated_lifecycle import SPOT_INTERRUPTION, live_as_on_aws
from environments.emulated_refusals import refuse_as_aws
from unit_tests.aws_responses import body, samples, stopped_tasks
from unit_tests.environments.real_ecs import CLUSTER, NETWORK, call, real_ecs

ADDRESS = "10.0.0.139"
ROLES = {
    body("ecs_describe_task_definition", "minimal")["taskDefinition"][role]
    for role in ("taskRoleArn", "executionRoleArn")
}


class Engine:
    """A Docker engine with one container that runs until it is stopped, and then has an exit code."""

    def __init__(self) -> None:
        self.exit_code = 143
        self.out_of_memory = False
        self.ended = threading.Event()
        self.status = "running"
        self.id = "0123456789abcdef"
        self.labels: dict[str, str] = {}
        self.attrs = {"NetworkSettings": {"Networks": {"ours": {"IPAddress": ADDRESS}}}}
        self.api = self.containers = self

    def get(self, _: str) -> "Engine":
        return self

    def reload(self) -> None:
        self.status = "exited" if self.ended.is_set() else "running"

    def stop(self, timeout: int) -> None:
        assert timeout == emulated_lifecycle.STOP_TIMEOUT_SECONDS
        self.ended.set()

    def wait(self, *_: str, **__: Any) -> dict[str, int]:
        assert self.ended.wait(5)
        return {"StatusCode": self.exit_code}

    def remove(self, **_: Any) -> None:
        pass

    def inspect_container(self, _: str) -> dict[str, Any]:
        return {"State": {"OOMKilled": self.out_of_memory}}


@pytest.fixture
def engine(monkeypatch: pytest.MonkeyPatch) -> Engine:
    import docker

    engine = Engine()
    monkeypatch.setattr(docker, "from_env", lambda **_: engine)
    return engine


@pytest.fixture
def events() -> list[dict[str, Any]]:
    """The events that were sent, as targets of a rule get them."""
    return []


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "capacity.json"


@pytest.fixture
def ecs(monkeypatch: pytest.MonkeyPatch, engine: Engine, events: list[dict[str, Any]], file: Path) -> Iterator[Any]:
    """The emulator's ECS with all that is replaced in it; tasks start when `start` says so."""
    monkeypatch.setattr(iam_evaluator, "validate_role_arn", lambda arn: None if arn in ROLES else "not there")
    monkeypatch.setattr(emulated_refusals, "REGISTRATION_SECONDS", 0)
    module = real_ecs()
    monkeypatch.setattr(module, "_get_docker", lambda: engine)
    monkeypatch.setattr(module, "_run_task_worker", lambda *_: None)
    answer_as_aws(module)
    refuse_capacity(module, file)
    refuse_as_aws(module)

    def send(event: dict[str, Any]) -> None:
        events.append(eventbridge._pattern_event_view(event).event_with_detail())

    live_as_on_aws(module, SimpleNamespace(_dispatch_event=send))
    assert call(module, "RegisterTaskDefinition", **_request())[0] == 200
    yield module
    engine.ended.set()


def _request(case: str = "minimal") -> dict[str, Any]:
    request: dict[str, Any] = samples("ecs_describe_task_definition")[case]["request"]
    return request


def _run(ecs: Any, **changes: Any) -> tuple[int, dict[str, Any]]:
    request = {
        "cluster": CLUSTER,
        "taskDefinition": "etl",
        "capacityProviderStrategy": [{"capacityProvider": "FARGATE", "weight": 1}],
        "networkConfiguration": NETWORK,
        "startedBy": "6f1d9a2e-5c1b-4c59-9a53-6a2ea1b3c111",
    }
    return call(ecs, "RunTask", **{**request, **changes})


def _start(ecs: Any, engine: Engine, **changes: Any) -> dict[str, Any]:
    """A task whose container runs: its record in the emulator."""
    arn = _run(ecs, **changes)[1]["tasks"][0]["taskArn"]
    task: dict[str, Any] = ecs._tasks[arn]
    ecs._mark_task_pending(arn, task)
    ecs._mark_task_activating(arn, task)
    assert ecs._attach_started_container(task, engine, 0, "token", "ours")
    ecs._mark_task_running(arn, task)
    return task


def _described(ecs: Any, record: dict[str, Any]) -> dict[str, Any]:
    (task,) = call(ecs, "DescribeTasks", cluster=CLUSTER, tasks=[record["taskArn"]])[1]["tasks"]
    assert isinstance(task, dict)
    # As over the wire: moments are numbers there.
    normalised: dict[str, Any] = ecs._normalize_ecs_timestamps(task)
    return normalised


def _missing(sample: Any, answer: Any, path: str = "") -> Iterator[str]:
    """Where an answer lacks what the sample has, or has it in another type."""
    if isinstance(sample, dict) and isinstance(answer, dict):
        for name, part in sample.items():
            if name not in answer:
                yield f"{path}.{name}"
            else:
                yield from _missing(part, answer[name], f"{path}.{name}")
    elif isinstance(sample, list) and isinstance(answer, list):
        named = {part["name"]: part for part in answer if isinstance(part, dict) and "name" in part}
        for place, part in enumerate(sample):
            name = part.get("name") if isinstance(part, dict) else None
            other = named.get(name) if name else answer[place] if place < len(answer) else None
            yield from (
                [f"{path}[{name or place}]"] if other is None else _missing(part, other, f"{path}[{name or place}]")
            )
    elif _kind(sample) != _kind(answer):
        yield f"{path}: {answer!r} where AWS has {sample!r}"


def _kind(value: Any) -> type:
    return float if isinstance(value, int | float) and not isinstance(value, bool) else type(value)


@pytest.mark.parametrize("case", samples("ecs_describe_task_definition"))
def test_definition_is_described_as_aws_describes_it(case: str, ecs: Any) -> None:
    call(ecs, "RegisterTaskDefinition", **_request(case))
    answer = call(ecs, "DescribeTaskDefinition", taskDefinition="etl")[1]
    sample = body("ecs_describe_task_definition", case)
    own = ("taskDefinitionArn", "revision", "registeredAt", "registeredBy", "requiresAttributes")

    def comparable(definition: dict[str, Any]) -> dict[str, Any]:
        return {name: value for name, value in definition.items() if name not in own}

    assert comparable(answer["taskDefinition"]) == comparable(sample["taskDefinition"])
    assert list(_missing(sample, ecs._normalize_ecs_timestamps(answer))) == []


def test_task_that_starts_is_answered_as_aws_answers_it(ecs: Any) -> None:
    answer = ecs._normalize_ecs_timestamps(_run(ecs)[1])
    sample = body("ecs_run_task", "started")

    assert list(_missing(sample, answer)) == []
    assert set(answer["tasks"][0]) - set(sample["tasks"][0]) == {"connectivity", "connectivityAt"}
    assert answer["tasks"][0]["lastStatus"] == "PROVISIONING"


def test_task_that_runs_is_described_as_aws_describes_it(ecs: Any, engine: Engine) -> None:
    (sample,) = body("ecs_describe_tasks", "running")["tasks"]
    answer = _described(ecs, _start(ecs, engine))

    assert list(_missing(sample, answer)) == []
    assert set(answer) == set(sample)
    assert answer["version"] == sample["version"]


def test_task_that_is_not_known_is_answered_as_aws_answers_it(ecs: Any) -> None:
    sample = body("ecs_describe_tasks", "missing")
    arn = sample["failures"][0]["arn"]
    assert call(ecs, "DescribeTasks", cluster=CLUSTER, tasks=[arn])[1] == sample


def _exit(exit_code: int, out_of_memory: bool = False) -> Callable[[Any, Engine, dict[str, Any]], None]:
    def end(ecs: Any, engine: Engine, task: dict[str, Any]) -> None:
        engine.exit_code, engine.out_of_memory = exit_code, out_of_memory
        engine.ended.set()
        ecs._maybe_mark_stopped(task)

    return end


def _stop(reason: str | None) -> Callable[[Any, Engine, dict[str, Any]], None]:
    def end(ecs: Any, engine: Engine, task: dict[str, Any]) -> None:
        engine.exit_code = stopped_tasks()["by_hand"]["containers"][0]["exitCode"]
        call(ecs, "StopTask", cluster=CLUSTER, task=task["taskArn"], **({"reason": reason} if reason else {}))
        assert engine.ended.wait(5)
        ecs._maybe_mark_stopped(task)

    return end


def _fail(reason: str) -> Callable[[Any, Engine, dict[str, Any]], None]:
    return lambda ecs, engine, task: ecs._fail_task_start(task, engine, reason)


def _scale(ecs: Any, engine: Engine, task: dict[str, Any]) -> None:
    task.update(group="service:agent", _deployment_id="ecs-svc/8646900195280463695")
    engine.ended.set()
    ecs._stop_task({"task": task["taskArn"], "cluster": CLUSTER, "reason": "Service scaling down"})


SPOT = {"capacityProviderStrategy": [{"capacityProvider": "FARGATE_SPOT", "weight": 1}]}
ENDS: dict[str, tuple[dict[str, Any], bool, Callable[[Any, Engine, dict[str, Any]], None]]] = {
    "exit_0": ({}, True, _exit(0)),
    "exit_1": ({}, True, _exit(1)),
    "exit_137": ({}, True, _exit(137)),
    "exit_139": ({}, True, _exit(139)),
    "exit_143": ({}, True, _exit(143)),
    "out_of_memory": ({}, True, _exit(137, out_of_memory=True)),
    "spot": (SPOT, True, _stop(SPOT_INTERRUPTION)),
    "by_hand": ({}, True, _stop(None)),
    "service_scaled": ({}, True, _scale),
    "image_missing": ({}, False, _fail(stopped_tasks()["image_missing"]["stoppedReason"])),
    "secret_denied": ({}, False, _fail(stopped_tasks()["secret_denied"]["stoppedReason"])),
}
"""How a task of the emulator comes to these ends: what is asked for, whether it starts, and what happens then."""
ADDRESS_FIELDS = ("[privateDnsName]", "[privateIPv4Address]", ".privateIpv4Address")
"""The emulated task gets its address from its container; on AWS its network interface is there before."""
COMPARED = ("stopCode", "stoppedReason", "lastStatus", "desiredStatus", "capacityProviderName")


@pytest.mark.parametrize("case", ENDS)
def test_task_that_stopped_is_described_as_aws_describes_it(case: str, ecs: Any, engine: Engine) -> None:
    changes, starts, end = ENDS[case]
    task = _start(ecs, engine, **changes) if starts else ecs._tasks[_run(ecs, **changes)[1]["tasks"][0]["taskArn"]]
    end(ecs, engine, task)
    sample, answer = stopped_tasks()[case], _described(ecs, task)
    (container,), (described,) = sample["containers"], answer["containers"]

    known = ADDRESS_FIELDS if not starts else ()
    assert [field for field in _missing(sample, answer) if not field.endswith(known)] == []
    assert {name: answer[name] for name in COMPARED} == {name: sample[name] for name in COMPARED}
    if case != "service_scaled":  # the emulator stops those without waiting for their exit code
        assert described.get("exitCode") == container.get("exitCode")
    assert described.get("reason") == container.get("reason")
    assert ("startedAt" in answer) is starts


@pytest.mark.parametrize("case", samples("ecs_run_task_failures"))
def test_failures_of_the_capacity_file_are_answered_as_aws_answers_them(case: str, ecs: Any, file: Path) -> None:
    sample = body("ecs_run_task_failures", case)
    replace(file, sample["failures"])
    assert _run(ecs) == (200, sample)


@pytest.mark.parametrize("case", ["throttled", "provisioning_limit", "server", "concurrent_registration"])
def test_errors_of_the_capacity_file_are_answered_as_aws_answers_them(case: str, ecs: Any, file: Path) -> None:
    sample = samples("ecs_errors")[case]
    code, message = sample["response"]["__type"], sample["response"]["message"]
    replace(file, [{"action": sample["operation"], "exception": code, "message": message}])
    answer = _run(ecs) if sample["operation"] == "RunTask" else call(ecs, sample["operation"], **_request())

    assert answer == (sample["status"], sample["response"])


LONG = [{"name": "workflow", "environment": [{"name": "A", "value": "x" * 9000}]}]
GONE = body("ecs_errors", "role")["message"].split("'")[1]
REFUSED: dict[str, dict[str, Any]] = {
    "inactive": {"taskDefinition": "etl:1"},
    "unknown_definition": {"taskDefinition": "nothing"},
    "unknown_cluster": {"cluster": "nothing"},
    "overrides": {"overrides": {"containerOverrides": LONG}},
    "unknown_container": {"overrides": {"containerOverrides": [{"name": "django"}]}},
    "role": {"overrides": {"taskRoleArn": GONE}},
    "size": {**_request(), "cpu": "1024", "memory": "1024"},
    "cpu": {**_request(), "cpu": "much"},
    "invalid_role": {**_request(), "taskRoleArn": GONE},
    "unknown_described": {"taskDefinition": "nothing"},
    "unknown_task": {"cluster": CLUSTER, "task": "0" * 32},
}
"""For each error of the samples that our requests can cause, a request that causes it."""


@pytest.mark.parametrize("case", REFUSED)
def test_requests_are_refused_as_aws_refuses_them(case: str, ecs: Any) -> None:
    sample, request = samples("ecs_errors")[case], REFUSED[case]
    call(ecs, "RegisterTaskDefinition", **_request())
    call(ecs, "DeregisterTaskDefinition", taskDefinition="etl:1")
    answer = _run(ecs, **request) if sample["operation"] == "RunTask" else call(ecs, sample["operation"], **request)

    assert answer == (sample["status"], sample["response"])


def test_token_of_another_request_is_refused_as_aws_refuses_it(ecs: Any) -> None:
    sample = samples("ecs_errors")["token"]
    arn = _run(ecs, clientToken="a")[1]["tasks"][0]["taskArn"]
    status, answer = _run(ecs, clientToken="a", startedBy="other")

    assert (status, answer) == (sample["status"], {**sample["response"], "resourceIds": [arn]})


@pytest.mark.parametrize(("case", "which"), [("running", 2), ("spot_notice", 3), ("stopped", -1)])
def test_events_have_what_those_of_aws_have(
    case: str, which: int, ecs: Any, engine: Engine, events: list[dict[str, Any]]
) -> None:
    sample = body("ecs_task_state_change_events", case)
    spot = case == "spot_notice"
    task = _start(ecs, engine, **(SPOT if spot else {}))
    if case != "running":
        (_stop(SPOT_INTERRUPTION) if spot else _exit(137, out_of_memory=True))(ecs, engine, task)
    event = events[which]

    assert list(_missing(sample, event)) == []
    assert set(event) == set(sample)
    named = ("lastStatus", "desiredStatus", "stopCode", "stoppedReason")
    assert [event["detail"].get(name) for name in named] == [sample["detail"].get(name) for name in named]
    assert (event["source"], event["detail-type"]) == (sample["source"], sample["detail-type"])
    assert event["resources"] == [task["taskArn"]]
