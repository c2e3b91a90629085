import dataclasses
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from agent import last_words, rollout
from environments.errors import PlatformError
from environments.settings import Environment
from infra.terraform import Outputs

Aws = Callable[[str], Any]
CREATED = datetime(2026, 1, 1, tzinfo=UTC)
BEFORE, AFTER = CREATED - timedelta(seconds=1), CREATED + timedelta(seconds=1)
"""Before and after the agent's running task was created."""
OLD = "arn:aws:ecs:eu-west-1:123456789012:task-definition/dev_dataflow_automation_agent:1"
"""The revision before that of Terraform's outputs."""


class Ecs:
    """ECS with one service that comes up when asked to; moto's services start no tasks.

    With each look at the service one of the tasks in `stopping` stops, and another one of a revision in `crashing`.
    """

    def __init__(self, outputs: Outputs) -> None:
        self.updates: list[dict[str, Any]] = []
        self.expected: list[bool] = []
        self.looks_until_steady = 0
        self.tasks: dict[str, list[dict[str, Any]]] = {"RUNNING": [], "STOPPED": []}
        self.service: dict[str, Any] = {
            "status": "ACTIVE",
            "taskDefinition": outputs.agent_task_definition_arn,
            "desiredCount": 1,
            "runningCount": 1,
            "pendingCount": 0,
        }
        self.deployment: dict[str, Any] = {"rolloutState": "COMPLETED"}
        self.stopping: list[dict[str, Any]] = []
        self.older: list[dict[str, Any]] = []
        self.crashing: set[str] = set()

    def describe_services(self, **_: Any) -> dict[str, Any]:
        self.tasks["STOPPED"] += self.stopping[:1]
        self.stopping = self.stopping[1:]
        if self.service["taskDefinition"] in self.crashing:
            self.tasks["STOPPED"].append(_stopped(len(self.tasks["STOPPED"]) + 1, self.service["taskDefinition"]))
            self.looks_until_steady = 1
        steady = self.looks_until_steady <= 0
        self.looks_until_steady -= 1
        state = self.deployment if steady else {**self.deployment, "rolloutState": "IN_PROGRESS"}
        primary = {"status": "PRIMARY", "taskDefinition": self.service["taskDefinition"], **state}
        return {"services": [{**self.service, "deployments": [*self.older, primary]}]}

    def update_service(self, **request: Any) -> dict[str, Any]:
        self.updates.append(request)
        self.service |= {
            "taskDefinition": request["taskDefinition"],
            "desiredCount": request["desiredCount"],
            "runningCount": request["desiredCount"],
        }
        return {"service": self.service}

    def list_tasks(self, desiredStatus: str, **_: Any) -> dict[str, Any]:
        return {"taskArns": [task["taskArn"] for task in self.tasks[desiredStatus]]}

    def describe_tasks(self, tasks: list[str], **_: Any) -> dict[str, Any]:
        return {"tasks": [task for state in self.tasks.values() for task in state if task["taskArn"] in tasks]}


def _running(name: str, revision: str, created: datetime = CREATED) -> dict[str, Any]:
    return {"taskArn": f"arn:task/cluster/{name}", "taskDefinitionArn": revision, "createdAt": created}


def _stopped(number: int, revision: str = "", code: str | None = "EssentialContainerExited") -> dict[str, Any]:
    return {
        "taskArn": f"arn:task/cluster/{number}",
        "taskDefinitionArn": revision,
        "stoppedAt": datetime(2026, 1, number, tzinfo=UTC),
        "stoppedReason": f"reason {number}",
        "containers": [{"name": "agent", "exitCode": number}, {"name": "side"}],
        **({"stopCode": code} if code else {}),
    }


@pytest.fixture
def ecs(outputs: Outputs, monkeypatch: pytest.MonkeyPatch) -> Ecs:
    fake = Ecs(outputs)
    fake.tasks["RUNNING"] = [_running("one", outputs.agent_task_definition_arn)]
    monkeypatch.setattr(rollout, "client", lambda *_: fake)
    monkeypatch.setattr(rollout, "expect_agent", lambda _, expected: fake.expected.append(expected))
    monkeypatch.setattr(rollout, "POLL_SECONDS", 0.0)
    monkeypatch.setattr(rollout, "STEADY_TIMEOUT_SECONDS", 5)
    monkeypatch.setattr(rollout, "BACK_TIMEOUT_SECONDS", 0.05)
    monkeypatch.setattr(last_words, "last_lines", lambda *_: ["agent stopped: the key"])
    monkeypatch.setattr(rollout, "online_agents", lambda e: {f"{e.prefix}_one": datetime.now(UTC)})
    return fake


def test_service_that_runs_what_it_should_is_left_alone(environment: Environment, outputs: Outputs, ecs: Ecs) -> None:
    rollout.roll_out(environment, outputs, BEFORE)

    assert ecs.updates == []


@pytest.mark.parametrize(
    ("before", "key_since", "forced"),
    [
        ({"taskDefinition": OLD}, BEFORE, False),
        ({"desiredCount": 0}, BEFORE, False),
        ({"desiredCount": 0}, AFTER, False),
        ({}, AFTER, True),
    ],
    ids=["new-revision", "was-down", "was-down-and-new-key", "new-key"],
)
def test_service_is_updated_when_something_changed(
    environment: Environment, outputs: Outputs, ecs: Ecs, before: dict[str, Any], key_since: datetime, forced: bool
) -> None:
    ecs.service |= before
    rollout.roll_out(environment, outputs, key_since)
    [update] = ecs.updates

    assert update["taskDefinition"] == outputs.agent_task_definition_arn
    assert update["desiredCount"] == environment.agent_count
    assert update["forceNewDeployment"] is forced


def test_agent_that_an_interrupted_deploy_left_with_another_key_is_replaced(
    environment: Environment, outputs: Outputs, ecs: Ecs
) -> None:
    """One of two tasks was replaced then; the key is in the secret, and nothing else has changed."""
    ecs.service |= {"desiredCount": 2, "runningCount": 2}
    newer = AFTER + timedelta(seconds=1)
    ecs.tasks["RUNNING"].append(_running("one", outputs.agent_task_definition_arn, newer))
    rollout.roll_out(dataclasses.replace(environment, agent_count=2), outputs, AFTER)

    assert ecs.updates[0]["forceNewDeployment"] is True


@pytest.mark.parametrize(("count", "updates"), [(1, 1), (0, 0)])
def test_new_key_replaces_agents_and_changes_nothing_else_of_the_service(
    environment: Environment, outputs: Outputs, ecs: Ecs, count: int, updates: int
) -> None:
    """Neither the number of agents, nor their revision: that of Terraform may never have been rolled out."""
    ecs.service |= {"taskDefinition": OLD, "desiredCount": count, "runningCount": count}
    ecs.tasks["RUNNING"] = ecs.tasks["RUNNING"][:count]
    rollout.replace_older(dataclasses.replace(environment, agent_count=3), AFTER)

    assert len(ecs.updates) == updates
    assert (ecs.service["taskDefinition"], ecs.service["desiredCount"]) == (OLD, count)


@pytest.mark.parametrize("count", [0, 2])
def test_agent_that_is_started_or_stopped_stays_at_its_revision(
    environment: Environment, ecs: Ecs, monkeypatch: pytest.MonkeyPatch, count: int
) -> None:
    """That of Terraform may be one that never came up."""
    monkeypatch.setattr(rollout, "wait_until_steady", lambda *_: None)
    ecs.service["taskDefinition"] = OLD
    rollout.scale(environment, count)

    assert [(update["taskDefinition"], update["desiredCount"]) for update in ecs.updates] == [(OLD, count)]


@pytest.mark.parametrize(("count", "expected"), [(0, False), (1, True)])
def test_alarm_rings_only_for_an_agent_that_is_not_down_on_purpose(
    environment: Environment, outputs: Outputs, ecs: Ecs, count: int, expected: bool
) -> None:
    """Also where nothing has to move: an agent may be down since the first deploy."""
    ecs.service |= {"desiredCount": count, "runningCount": count}
    ecs.tasks["RUNNING"] = ecs.tasks["RUNNING"][:count]
    rollout.move(environment, outputs.agent_task_definition_arn, count)

    assert ecs.expected == [expected]


def test_rollout_waits_until_ecs_calls_it_completed(environment: Environment, outputs: Outputs, ecs: Ecs) -> None:
    ecs.looks_until_steady = 3
    rollout.wait_until_steady(environment, outputs.agent_task_definition_arn, 1)

    assert ecs.looks_until_steady == -1


def _keep(**change: Any) -> Callable[[Ecs], None]:
    return lambda ecs: ecs.service.update(change)


@pytest.mark.parametrize(
    ("unsteady", "words"),
    [
        (_keep(runningCount=0), "0 of 1 tasks running at ECS"),
        (_keep(pendingCount=1), "tasks running at ECS"),
        (lambda ecs: ecs.older.append({"status": "ACTIVE", "runningCount": 1, "pendingCount": 0}), "revision before"),
        (lambda ecs: ecs.deployment.update(rolloutState="IN_PROGRESS"), "stay up"),
        (lambda ecs: ecs.tasks.update(RUNNING=[_running("two", "")]), "agent of task two"),
        (lambda ecs: ecs.tasks.update(RUNNING=[]), "0 of 1 tasks running at ECS"),
        (lambda ecs: ecs.tasks["RUNNING"].append(_running("two", "")), "2 of 1 tasks running at ECS"),
        (_keep(runningCount=2), "2 of 1 tasks running at ECS"),
    ],
)
def test_agent_that_does_not_come_up_in_time_tells_what_is_missing(
    environment: Environment,
    outputs: Outputs,
    ecs: Ecs,
    monkeypatch: pytest.MonkeyPatch,
    unsteady: Callable[[Ecs], None],
    words: str,
) -> None:
    monkeypatch.setattr(rollout, "STEADY_TIMEOUT_SECONDS", 0.05)
    unsteady(ecs)
    with pytest.raises(PlatformError, match="revision 2 of the agent did not come up") as caught:
        rollout.wait_until_steady(environment, outputs.agent_task_definition_arn, 1)

    assert words in caught.value.why


def test_failed_deployment_that_ecs_still_shows_keeps_nobody_waiting(
    environment: Environment, outputs: Outputs, ecs: Ecs
) -> None:
    ecs.older = [{"status": "ACTIVE", "rolloutState": "FAILED", "runningCount": 0, "pendingCount": 0}]
    rollout.wait_until_steady(environment, outputs.agent_task_definition_arn, 1)

    assert ecs.looks_until_steady == -1


def test_agent_that_is_down_needs_nobody_online(
    environment: Environment, outputs: Outputs, ecs: Ecs, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rollout, "online_agents", lambda _: pytest.fail("nobody has to be asked"))
    ecs.tasks["RUNNING"] = []
    ecs.service |= {"desiredCount": 0, "runningCount": 0}

    rollout.scale(environment, 0)


@pytest.mark.parametrize(
    ("deployment", "words"),
    [
        ({"rolloutState": "FAILED", "rolloutStateReason": "circuit breaker was triggered"}, "circuit breaker"),
        ({"rolloutState": "IN_PROGRESS"}, "2 tasks stopped by themselves"),
    ],
)
def test_agent_that_fails_shows_exit_code_and_last_lines_of_its_task(
    environment: Environment, outputs: Outputs, ecs: Ecs, deployment: dict[str, Any], words: str
) -> None:
    ecs.deployment, revision = deployment, outputs.agent_task_definition_arn
    if deployment["rolloutState"] == "FAILED":
        ecs.tasks["STOPPED"] = [*(_stopped(number, revision) for number in (1, 3, 2)), _stopped(4, OLD)]
    else:
        ecs.tasks["STOPPED"] = [_stopped(1, revision)]
        ecs.stopping = [_stopped(3, revision), _stopped(2, revision, "TaskFailedToStart")]
    with pytest.raises(PlatformError) as caught:
        rollout.wait_until_steady(environment, outputs.agent_task_definition_arn, 1)

    why = caught.value.why.splitlines()
    assert words in why[0]
    assert why[1:] == [
        "task stopped: reason 3",
        "container agent exited with 3",
        "| agent stopped: the key",
    ]
    assert "invoke deploy --env dev" in caught.value.todo


@pytest.mark.parametrize(
    "codes",
    [
        ["EssentialContainerExited"],
        ["ServiceSchedulerInitiated", "ServiceSchedulerInitiated"],
        ["UserInitiated", "EssentialContainerExited", "SpotInterruption"],
        [None, None],
    ],
    ids=["one", "by-ecs", "one-beside-a-user", "no-code-yet"],
)
def test_tasks_that_did_not_stop_by_themselves_end_nothing(
    environment: Environment, outputs: Outputs, ecs: Ecs, codes: list[str | None]
) -> None:
    revision = outputs.agent_task_definition_arn
    harmless = [_stopped(number, revision, code) for number, code in enumerate(codes, 1)]
    ecs.stopping, ecs.looks_until_steady = list(harmless), 5
    rollout.wait_until_steady(environment, revision, 1)

    assert ecs.tasks["STOPPED"] == harmless


@pytest.mark.parametrize("before", [True, False], ids=["stopped-before", "of-another-revision"])
def test_tasks_of_another_rollout_end_nothing(
    environment: Environment, outputs: Outputs, ecs: Ecs, before: bool
) -> None:
    stopped = [_stopped(number, outputs.agent_task_definition_arn if before else OLD) for number in (1, 2, 3)]
    ecs.tasks["STOPPED" if before else "RUNNING"] += stopped if before else []
    ecs.stopping, ecs.looks_until_steady = [] if before else stopped, 5
    rollout.wait_until_steady(environment, outputs.agent_task_definition_arn, 1)

    assert ecs.looks_until_steady == -1


def test_tasks_that_never_become_healthy_end_the_rollout(environment: Environment, outputs: Outputs, ecs: Ecs) -> None:
    revision = outputs.agent_task_definition_arn
    unhealthy = [_stopped(number, revision, "ServiceSchedulerInitiated") for number in (1, 2)]
    ecs.stopping = [{**task, "stoppedReason": "Task failed container health checks"} for task in unhealthy]
    ecs.looks_until_steady = 5
    with pytest.raises(PlatformError) as caught:
        rollout.wait_until_steady(environment, revision, 1)

    assert "Task failed container health checks" in caught.value.why


@pytest.fixture
def bad_release(ecs: Ecs, outputs: Outputs) -> Ecs:
    """The revision before runs, that of Terraform crashes when it is rolled out."""
    ecs.service["taskDefinition"], ecs.crashing = OLD, {outputs.agent_task_definition_arn}
    ecs.tasks["RUNNING"] = [_running("one", OLD)]
    return ecs


def test_bad_release_goes_back_and_tells_who_serves(
    environment: Environment, outputs: Outputs, bad_release: Ecs
) -> None:
    with pytest.raises(PlatformError, match="revision 2 of the agent did not come up") as caught:
        rollout.roll_out(environment, outputs)

    assert bad_release.service["taskDefinition"] == OLD
    assert "| agent stopped: the key" in caught.value.why
    assert "revision 1 serves as before: dev_dataflow_automation_one online" in caught.value.why


def test_agent_that_was_down_is_down_after_a_bad_release(
    environment: Environment, outputs: Outputs, bad_release: Ecs
) -> None:
    bad_release.service |= {"desiredCount": 0, "runningCount": 0}
    with pytest.raises(PlatformError) as caught:
        rollout.roll_out(environment, outputs)

    assert (bad_release.service["taskDefinition"], bad_release.service["desiredCount"]) == (OLD, 0)
    assert "the agent is down, as it was before" in caught.value.why


def test_bad_release_that_was_interrupted_goes_back_to_the_revision_that_came_up_last(
    environment: Environment, outputs: Outputs, bad_release: Ecs
) -> None:
    """ECS is still at it when deploy comes again."""
    bad_release.service["taskDefinition"] = outputs.agent_task_definition_arn
    bad_release.older = [
        {"status": "ACTIVE", "rolloutState": "COMPLETED", "taskDefinition": OLD, "runningCount": 1, "pendingCount": 0}
    ]
    with pytest.raises(PlatformError) as caught:
        rollout.roll_out(environment, outputs)

    assert bad_release.service["taskDefinition"] == OLD
    assert "revision 1 serves" in caught.value.why


@pytest.mark.parametrize("running", [[], [_running("two", OLD)], [_running("one", "")]])
def test_nobody_is_said_to_serve_who_does_not(
    environment: Environment, outputs: Outputs, bad_release: Ecs, running: list[dict[str, Any]]
) -> None:
    """No task runs, or not one that Prefect shows online, or only one of another revision."""
    bad_release.tasks["RUNNING"] = running
    with pytest.raises(PlatformError) as caught:
        rollout.roll_out(environment, outputs)

    assert "none of its agents is online" in caught.value.why
    assert "serves" not in caught.value.why


def test_way_back_that_fails_does_not_hide_why_the_release_was_bad(
    environment: Environment, outputs: Outputs, bad_release: Ecs, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unreachable(_: Environment) -> None:
        raise PlatformError("Prefect is out of reach")

    monkeypatch.setattr(rollout, "online_agents", unreachable)
    with pytest.raises(PlatformError) as caught:
        rollout.roll_out(environment, outputs)

    assert "2 tasks stopped by themselves" in caught.value.why
    assert "going back to revision 1 failed: Prefect is out of reach" in caught.value.why


def test_service_that_went_back_to_its_old_revision_has_failed(
    environment: Environment, outputs: Outputs, ecs: Ecs
) -> None:
    ecs.service["taskDefinition"] = OLD
    with pytest.raises(PlatformError, match="ECS gave up"):
        rollout.wait_until_steady(environment, outputs.agent_task_definition_arn, 1)


def _service(aws_mocked: Aws, outputs: Outputs, desired: int) -> Any:
    ecs = aws_mocked("ecs")
    ecs.create_cluster(clusterName=outputs.agent_cluster)
    for _ in range(2):
        ecs.register_task_definition(
            family="dev_dataflow_automation_agent",
            containerDefinitions=[{"name": "agent", "image": "x", "memory": 512}],
        )
    ecs.create_service(
        cluster=outputs.agent_cluster,
        serviceName=outputs.agent_service,
        taskDefinition="dev_dataflow_automation_agent:1",
        desiredCount=desired,
    )
    return ecs


def test_request_to_ecs_is_one_that_ecs_takes(
    environment: Environment, outputs: Outputs, aws_mocked: Aws, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rollout, "wait_until_steady", lambda *_: None)
    ecs = _service(aws_mocked, outputs, 0)
    rollout.roll_out(environment, outputs, AFTER)
    [service] = ecs.describe_services(cluster=outputs.agent_cluster, services=[outputs.agent_service])["services"]

    assert service["taskDefinition"] == outputs.agent_task_definition_arn
    assert service["desiredCount"] == environment.agent_count


def test_service_that_is_gone_says_deploy(environment: Environment, outputs: Outputs, aws_mocked: Aws) -> None:
    aws_mocked("ecs").create_cluster(clusterName=outputs.agent_cluster)
    with pytest.raises(PlatformError) as caught:
        rollout.roll_out(environment, outputs)

    assert "is gone" in caught.value.what
    assert caught.value.todo == "invoke deploy --env dev"


def test_service_that_was_deleted_counts_as_gone(environment: Environment, ecs: Ecs) -> None:
    """ECS shows a deleted service for some time: INACTIVE, or DRAINING while its tasks stop."""
    for status in ("INACTIVE", "DRAINING"):
        ecs.service["status"] = status
        with pytest.raises(PlatformError, match="is gone"):
            rollout.describe(environment)


def test_ids_of_running_tasks_are_the_last_part_of_their_arns(environment: Environment, ecs: Ecs) -> None:
    assert rollout.running_tasks(environment) == ["one"]


def test_all_agents_that_prefect_shows_online_count(environment: Environment, monkeypatch: pytest.MonkeyPatch) -> None:
    beat = datetime(2026, 1, 1, tzinfo=UTC)
    names = [f"agent-{number}" for number in range(450)]
    workers = [{"name": name, "last_heartbeat_time": beat.isoformat().replace("+00:00", "Z")} for name in names]

    def ask(_: Environment, path: str, body: dict[str, Any], patient: bool) -> list[dict[str, Any]]:
        assert patient
        assert body["workers"] == {"status": {"any_": ["ONLINE"]}}
        mine = workers if path == f"/work_pools/{environment.prefix}/workers/filter" else []
        return mine[body["offset"] : body["offset"] + body["limit"]]

    monkeypatch.setattr(rollout.prefect_rest, "ask", ask)

    assert rollout.online_agents(environment) == dict.fromkeys(names, beat)
    assert rollout.online_agents(dataclasses.replace(environment, name="prod")) == {}
