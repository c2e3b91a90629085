"""How tasks of the emulated ECS live and end, against a fake of the emulator's module."""

import contextlib
import json
import threading
from typing import Any

import docker
import pytest

from environments import emulated_lifecycle
from environments.emulated_lifecycle import NOT_STARTED, OUT_OF_MEMORY, SPOT_INTERRUPTION, live_as_on_aws

ARN = "arn:aws:ecs:eu-west-1:000000000000:task/workflows/1"
CHECK = {"command": ["CMD", "check"], "interval": 0, "retries": 2, "startPeriod": 0}


class Engine:
    """A Docker engine with one container: whether it was killed for memory, the exit codes of its health checks."""

    def __init__(self) -> None:
        self.out_of_memory = False
        self.checks: list[int] = []
        self.commands: list[list[str]] = []
        self.stopped_with: list[int] = []
        self.ended = threading.Event()
        self.labels = {"com.amazonaws.ecs.task-arn": ARN}
        self.removed: list[bool] = []
        self.api = self.containers = self

    def inspect_container(self, _: str) -> dict[str, Any]:
        return {"State": {"OOMKilled": self.out_of_memory}}

    def exec_create(self, _: str, command: list[str]) -> dict[str, str]:
        self.commands.append(command)
        return {"Id": "run"}

    def exec_start(self, _: str, detach: bool) -> None:
        assert detach

    def exec_inspect(self, _: str) -> dict[str, Any]:
        return {"Running": False, "ExitCode": self.checks.pop(0)}

    def get(self, _: str) -> "Engine":
        return self

    def stop(self, timeout: int) -> None:
        self.stopped_with.append(timeout)

    def wait(self, _: str, timeout: int) -> None:
        assert self.ended.wait(5)

    def remove(self, v: bool) -> None:
        self.removed.append(v)


class Ecs:
    """As much of the emulator's module as a task needs; background work is done at once, but for waiting."""

    _DOCKER_TIMEOUT = 1

    def __init__(self, task: dict[str, Any]) -> None:
        self.task, self._tasks = task, {ARN: task}
        self.answers = self.failures = 0
        self.healthy: list[str] = []
        self.exit_codes: list[int | None] = []
        self.threads: list[threading.Thread] = []
        self._docker: Any = None
        self._ACTION_MAP = {"RunTask": self._run_task, "StopTask": self._stop_task}

    def _get_docker(self) -> Any:
        return self._docker

    def _run_task(self, _: Any) -> Any:
        self.answers += 1
        return self.json_response({"tasks": [self.task], "failures": []})

    def _stop_task(self, _: Any) -> Any:
        return "the emulator's own way"

    def _start_task_worker(self, *_: Any) -> None:
        pass

    def _mark_task_pending(self, _: str, task: dict[str, Any]) -> bool:
        return self._becomes(task, "PENDING")

    def _mark_task_running(self, _: str, task: dict[str, Any]) -> bool:
        return self._becomes(task, "RUNNING")

    def _mark_task_stopped(self, _: str, task: dict[str, Any], reason: str, code: str, exit: int | None = None) -> bool:
        self.exit_codes.append(exit)
        task.update(stoppedReason=reason, stopCode=code)
        return self._becomes(task, "STOPPED")

    def _becomes(self, task: dict[str, Any], status: str) -> bool:
        if task["lastStatus"] == "STOPPED":
            return False
        task["lastStatus"] = status
        return True

    def _maybe_mark_stopped(self, task: dict[str, Any], _: Any) -> None:
        self._mark_task_stopped(ARN, task, "Essential container exited", "EssentialContainerExited")

    def _task_is_active(self, _: str, task: dict[str, Any]) -> bool:
        return bool(task["lastStatus"] != "STOPPED")

    def _resolve_task(self, reference: str, _: str) -> Any:
        return self._tasks.get(reference)

    def _resolve_cluster_name(self, name: str) -> str:
        return name

    def _cluster_name_from_arn(self, _: str) -> str:
        return "agents"

    def _schedule_service_deployment_completion(self, *_: Any, healthy_task: dict[str, Any]) -> None:
        self._record_service_task_healthy("agents/agent", healthy_task)

    def _record_service_task_healthy(self, service: str, _: Any) -> None:
        self.healthy.append(service)

    def _record_service_task_failure(self, _: Any) -> None:
        self.failures += 1

    def _cleanup_task_resources(self, *_: Any) -> None:
        pass

    def _forward_awslogs(self, container: Engine, *_: Any) -> None:
        assert container.ended.wait(5)

    def _sanitize(self, task: dict[str, Any]) -> dict[str, Any]:
        return {name: value for name, value in task.items() if not name.startswith("_")}

    def json_response(self, body: Any, status: int = 200) -> Any:
        return status, {}, json.dumps(body)

    def get_account_id(self) -> str:
        return "000000000000"

    def get_region(self) -> str:
        return "eu-west-1"

    def new_uuid(self) -> str:
        return "event"

    def _iso(self) -> str:
        return "2026-01-01T00:00:00Z"

    def resource_lock(self, *_: str) -> Any:
        return contextlib.nullcontext()

    request_scope = resource_lock

    def spawn_background(self, work: Any, *arguments: Any, thread_name: str) -> None:
        if thread_name == "wait-for-exit":
            self.threads.append(threading.Thread(target=work, daemon=True))
            self.threads[-1].start()
        else:
            work(*arguments)


@pytest.fixture
def engine(monkeypatch: pytest.MonkeyPatch) -> Engine:
    """The engine that the emulator finds."""
    engine = Engine()
    monkeypatch.setattr(docker, "from_env", lambda **_: engine)
    monkeypatch.setattr(emulated_lifecycle, "FIRST_CHECKS_SECONDS", 0)
    return engine


@pytest.fixture
def events() -> list[dict[str, Any]]:
    """What was told to EventBridge."""
    return []


@pytest.fixture
def ecs(engine: Engine, events: list[dict[str, Any]]) -> Any:
    """An emulator with a task of a workflow that lives as on AWS."""
    task = {
        "taskArn": ARN,
        "clusterArn": "arn:aws:ecs:eu-west-1:000000000000:cluster/agents",
        "lastStatus": "PROVISIONING",
        "healthStatus": "UNKNOWN",
        "capacityProviderName": "FARGATE_SPOT",
        "containers": [{"name": "workflow"}],
        "tags": [{"key": "environment", "value": "local"}],
        "group": "",
        "_docker_ids": ["container"],
    }
    made = Ecs(task)
    eventbridge = type("EventBridge", (), {"_dispatch_event": staticmethod(events.append)})
    live_as_on_aws(made, eventbridge)
    return made


def _start(ecs: Any, **container: Any) -> None:
    ecs._start_task_worker(ecs.task, {"containerDefinitions": [container]}, {}, None)
    ecs._mark_task_pending(ARN, ecs.task)
    ecs._mark_task_running(ARN, ecs.task)


def test_every_change_of_a_task_is_told_as_ecs_tells_it(ecs: Any, events: list[dict[str, Any]]) -> None:
    _start(ecs)
    ecs._mark_task_stopped(ARN, ecs.task, "Essential container exited", "EssentialContainerExited")

    told = [json.loads(event["Detail"]) for event in events]
    assert [one["lastStatus"] for one in told] == ["PROVISIONING", "PENDING", "RUNNING", "DEPROVISIONING", "STOPPED"]
    assert told[-1]["stoppedReason"] == "Essential container in task exited"
    assert {event["Source"] for event in events} == {"aws.ecs"}
    assert {event["DetailType"] for event in events} == {"ECS Task State Change"}
    assert events[0]["Resources"] == [ARN]
    assert not any(name == "tags" or name.startswith("_") for one in told for name in one)


def test_a_change_that_did_not_happen_is_not_told(ecs: Any, events: list[dict[str, Any]]) -> None:
    ecs.task["lastStatus"] = "STOPPED"
    ecs._mark_task_running(ARN, ecs.task)
    assert events == []


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        ("500 Server Error for http+docker://localhost/v1.41/images/create?tag=gone", "CannotPullContainerError: 500"),
        ("400 Client Error: exec: no such file", "CannotStartContainerError: 400"),
    ],
)
def test_an_engine_that_refuses_a_task_is_told_in_the_words_of_aws(ecs: Any, said: str, reason: str) -> None:
    ecs._mark_task_stopped(ARN, ecs.task, f"{NOT_STARTED}{said}", "TaskFailedToStart")
    assert ecs.task["stoppedReason"].startswith(reason)


@pytest.mark.parametrize(("killed", "reason"), [(True, OUT_OF_MEMORY), (False, None)])
def test_a_container_killed_for_its_memory_says_so(ecs: Any, engine: Engine, killed: bool, reason: str | None) -> None:
    engine.out_of_memory = killed
    ecs._mark_task_stopped(ARN, ecs.task, "Essential container exited", "EssentialContainerExited")
    assert ecs.task["containers"][0].get("reason") == reason


@pytest.mark.parametrize(
    ("provider", "reason", "code"),
    [
        ("FARGATE_SPOT", SPOT_INTERRUPTION, "SpotInterruption"),
        ("FARGATE", SPOT_INTERRUPTION, "UserInitiated"),
        ("FARGATE_SPOT", "enough", "UserInitiated"),
    ],
)
def test_a_stopped_task_ends_when_its_container_does(
    ecs: Any, engine: Engine, provider: str, reason: str, code: str
) -> None:
    ecs.task["capacityProviderName"] = provider
    _start(ecs, stopTimeout=7)
    ecs._watch_task_lifecycle(ecs.task, engine, "000000000000", "eu-west-1")
    answer = json.loads(ecs._ACTION_MAP["StopTask"]({"task": ARN, "cluster": "workflows", "reason": reason})[2])
    ecs._stop_task({"task": ARN, "reason": "once more"})

    assert answer["task"]["desiredStatus"] == "STOPPED"
    assert engine.stopped_with == [7]
    assert ecs.task["lastStatus"] == "RUNNING"
    engine.ended.set()
    ecs.threads[0].join(5)
    assert (ecs.task["lastStatus"], ecs.task["stoppedReason"], ecs.task["stopCode"]) == ("STOPPED", reason, code)


def test_a_container_goes_with_its_volumes_when_its_log_is_whole_and_its_task_has_ended(
    ecs: Any, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    def end_task(_: float) -> None:
        assert engine.removed == [], "the emulator wants to see how it ended"
        ecs._mark_task_stopped(ARN, ecs.task, "Essential container exited", "EssentialContainerExited")

    monkeypatch.setattr(emulated_lifecycle.time, "sleep", end_task)
    _start(ecs)
    engine.ended.set()
    ecs._forward_awslogs(engine, {}, "000000000000", "eu-west-1")

    assert ecs.task["lastStatus"] == "STOPPED"
    assert engine.removed == [True]


@pytest.mark.parametrize("change", [{"group": "service:agent"}, {"lastStatus": "PENDING"}])
def test_tasks_of_services_and_those_not_running_yet_stop_as_before(ecs: Any, change: dict[str, str]) -> None:
    ecs.task.update(lastStatus="RUNNING")
    ecs.task.update(change)
    assert ecs._stop_task({"task": ARN}) == "the emulator's own way"


def test_a_service_calls_a_task_steady_when_its_health_check_passes(ecs: Any, engine: Engine) -> None:
    ecs.task["group"] = "service:agent"
    engine.checks = [1, 1, 0, 1, 0, 1, 1]
    _start(ecs, healthCheck={**CHECK, "startPeriod": 60})

    assert ecs.healthy == ["agents/agent"]
    assert engine.commands[0] == ["check"]
    # Once it has been healthy, it is replaced after as many failures in a row as the check says.
    assert engine.checks == []
    assert (ecs.task["healthStatus"], ecs.failures) == ("UNHEALTHY", 1)
    assert ecs.task["stoppedReason"] == "Task failed container health checks"


def test_a_task_that_never_becomes_healthy_counts_as_failed(ecs: Any, engine: Engine) -> None:
    ecs.task["group"] = "service:agent"
    engine.checks = [1, 1]
    _start(ecs, healthCheck={**CHECK, "command": ["CMD-SHELL", "a && b"]})

    assert engine.commands == [["/bin/sh", "-c", "a && b"]] * 2
    assert (ecs.healthy, ecs.failures) == ([], 1)


def test_a_task_without_a_health_check_is_steady_at_once(ecs: Any) -> None:
    ecs.task["group"] = "service:agent"
    _start(ecs)
    ecs._record_service_task_healthy("agents/agent", ecs.task)
    assert ecs.healthy == ["agents/agent"]


def test_the_same_request_with_the_same_token_starts_one_task(ecs: Any) -> None:
    run = ecs._ACTION_MAP["RunTask"]
    first, again = run({"clientToken": "a"}), run({"clientToken": "a"})
    assert json.loads(first[2])["tasks"][0]["taskArn"] == json.loads(again[2])["tasks"][0]["taskArn"]
    assert ecs.answers == 1
    run({"clientToken": "b"})
    run({})
    run({})
    assert ecs.answers == 4


def test_another_request_with_the_same_token_is_refused_and_names_the_task(ecs: Any) -> None:
    run = ecs._ACTION_MAP["RunTask"]
    run({"clientToken": "a", "startedBy": "one"})
    status, _, body = run({"clientToken": "a", "startedBy": "other"})
    assert status == 400
    assert json.loads(body)["__type"] == "ConflictException"
    assert json.loads(body)["resourceIds"] == [ARN]


def test_a_task_that_is_to_stop_is_announced_before_it_stops(ecs: Any, events: list[dict[str, Any]]) -> None:
    _start(ecs)
    events.clear()
    ecs._stop_task({"task": ARN, "reason": SPOT_INTERRUPTION})
    ecs._stop_task({"task": ARN, "reason": SPOT_INTERRUPTION})
    (announced,) = [json.loads(event["Detail"]) for event in events]

    assert (announced["lastStatus"], announced["desiredStatus"]) == ("RUNNING", "STOPPED")
    assert (announced["stopCode"], announced["stoppedReason"]) == ("SpotInterruption", SPOT_INTERRUPTION)


@pytest.mark.parametrize("reason", emulated_lifecycle.SCHEDULER_REASONS)
def test_a_task_that_its_service_stops_says_so_in_the_words_of_aws(ecs: Any, reason: str) -> None:
    ecs.task["_deployment_id"] = "ecs-svc/1"
    ecs._mark_task_stopped(ARN, ecs.task, reason, "UserInitiated")

    assert ecs.task["stopCode"] == "ServiceSchedulerInitiated"
    assert ecs.task["stoppedReason"] == "Scaling activity initiated by (deployment ecs-svc/1)"


@pytest.mark.parametrize(("started", "exit_code"), [(None, None), ("2026-01-01T00:00:00Z", 0)])
def test_containers_that_never_ran_have_no_exit_code(ecs: Any, started: str | None, exit_code: int | None) -> None:
    ecs.task["startedAt"] = started
    ecs._mark_task_stopped(ARN, ecs.task, "enough", "UserInitiated", 0)

    assert ecs.exit_codes == [exit_code]
