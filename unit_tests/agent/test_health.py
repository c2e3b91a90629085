from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from agent import health, last_words
from environments.errors import PlatformError
from environments.settings import Environment

NAME = "dev_dataflow_automation_agent"


def _ago(seconds: float) -> datetime:
    return datetime.now(UTC) - timedelta(seconds=seconds)


class Ecs:
    """ECS with the agent's service and what the test says of its tasks; moto's services start none."""

    def __init__(self) -> None:
        self.service: dict[str, Any] = {
            "status": "ACTIVE",
            "taskDefinition": f"arn:aws:ecs:eu-west-1:123456789012:task-definition/{NAME}:7",
            "desiredCount": 1,
            "runningCount": 1,
            "events": [],
        }
        self.tasks: dict[str, list[dict[str, Any]]] = {"RUNNING": [], "STOPPED": []}
        self.images: list[str] = []
        self.newer = ""

    def describe_services(self, **_: Any) -> dict[str, Any]:
        return {"services": [self.service]}

    def list_tasks(self, desiredStatus: str, **_: Any) -> dict[str, Any]:
        return {"taskArns": [task["taskArn"] for task in self.tasks[desiredStatus]]}

    def describe_tasks(self, tasks: list[str], **_: Any) -> dict[str, Any]:
        return {"tasks": [task for each in self.tasks.values() for task in each if task["taskArn"] in tasks]}

    def describe_task_definition(self, taskDefinition: str) -> dict[str, Any]:
        assert taskDefinition == self.service["taskDefinition"]
        return {"taskDefinition": {"containerDefinitions": [{"image": image} for image in self.images]}}

    def runs(self, *ages: float, health: str = "HEALTHY") -> None:
        """Tasks that have been running for so many seconds."""
        self.tasks["RUNNING"] = [
            {
                "taskArn": f"arn:task/run{number}",
                "createdAt": _ago(age),
                "startedAt": _ago(age),
                "healthStatus": health,
            }
            for number, age in enumerate(ages)
        ]

    def stopped(self, *stops: tuple[float, float, str]) -> None:
        """Tasks that stopped so many seconds ago, after they had been running for so many, with a code."""
        self.tasks["STOPPED"] = [
            {
                "taskArn": f"arn:task/stop{number}",
                "createdAt": _ago(ago + lived),
                "startedAt": _ago(ago + lived),
                "stoppedAt": _ago(ago),
                "stopCode": code,
                "stoppedReason": f"reason {number}",
                "containers": [{"name": "agent", "exitCode": number, "reason": "OutOfMemoryError"}, {"name": "side"}],
            }
            for number, (ago, lived, code) in enumerate(stops)
        ]


@pytest.fixture
def ecs(monkeypatch: pytest.MonkeyPatch) -> Ecs:
    fake = Ecs()
    fake.runs(60)
    monkeypatch.setattr(health, "client", lambda *_: fake)
    monkeypatch.setattr("agent.rollout.client", lambda *_: fake)
    for module in (health, last_words):
        monkeypatch.setattr(module, "last_lines", lambda _, group, stream, *limit: [f"last of {stream}"])
    monkeypatch.setattr(health.releases, "newer", lambda *_: fake.newer)
    return fake


def _problem(check: Callable[[Environment], str], environment: Environment) -> PlatformError:
    with pytest.raises(PlatformError) as caught:
        check(environment)
    return caught.value


CRASH, FAILED, SCALED = "EssentialContainerExited", "TaskFailedToStart", "ServiceSchedulerInitiated"


def test_agent_that_runs_is_told_with_its_revision(environment: Environment, ecs: Ecs) -> None:
    assert health.at_ecs(environment) == "1 of 1 running, revision 7"


def test_revision_that_did_not_come_up_is_told_beside_the_one_that_runs(environment: Environment, ecs: Ecs) -> None:
    ecs.newer = "revision 8 rolled back"

    assert health.at_ecs(environment) == "1 of 1 running, revision 7; revision 8 rolled back"


def test_agent_that_is_down_on_purpose_says_how_to_start_it(environment: Environment, ecs: Ecs) -> None:
    ecs.service |= {"desiredCount": 0, "runningCount": 0}

    assert _problem(health.at_ecs, environment).todo == "invoke agent --up --env dev"


def test_agent_with_tasks_missing_is_wrong_with_what_ecs_says(environment: Environment, ecs: Ecs) -> None:
    ecs.service |= {"desiredCount": 3, "events": [{"message": "no capacity"}, {"message": "older"}]}
    problem = _problem(health.at_ecs, environment)

    assert problem.what == "1 of 3 running, revision 7"
    assert problem.why == "no capacity"


@pytest.mark.parametrize(
    ("stops", "age"),
    [
        ([(2, 25, CRASH), (30, 25, CRASH)], 1),
        ([(2, 25, FAILED), (30, 25, CRASH), (60, 2, SCALED)], 1),
        ([(1, 600, CRASH), (700, 600, CRASH)], 5),
    ],
    ids=["at-once", "after-a-rollout", "lives-longer"],
)
def test_crash_loop_is_told_with_reason_and_last_words_of_the_newest(
    environment: Environment, ecs: Ecs, stops: list[tuple[float, float, str]], age: float
) -> None:
    ecs.stopped(*stops)
    ecs.runs(age)
    problem = _problem(health.at_ecs, environment)

    assert problem.what == "crash loop, 2 tasks stopped by themselves"
    assert problem.why.splitlines() == [
        "task stopped: reason 0",
        "container agent exited with 0 OutOfMemoryError",
        "| last of agent/agent/stop0",
    ]
    assert "invoke logs agent --env dev" in problem.todo


def test_task_that_is_not_healthy_yet_does_not_end_a_loop(environment: Environment, ecs: Ecs) -> None:
    ecs.stopped((3, 2, CRASH), (5, 2, CRASH))
    ecs.runs(25, health="UNKNOWN")

    assert _problem(health.at_ecs, environment).what.startswith("crash loop")


@pytest.mark.parametrize(
    ("stops", "age"),
    [
        ([(3, 2, CRASH), (5, 2, CRASH)], 2.5),
        ([(40, 600, CRASH), (700, 600, CRASH)], 31),
        ([(1, 2, CRASH)], 0.5),
        ([(1, 2, SCALED), (5, 2, CRASH), (9, 2, CRASH)], 0.5),
        ([(1, 2, CRASH), (5, 2, SCALED), (9, 2, CRASH)], 0.5),
    ],
    ids=["outlived", "long-enough", "once", "stopped-by-ecs-since", "not-in-a-row"],
)
def test_what_is_no_loop_any_more_is_well(
    environment: Environment, ecs: Ecs, stops: list[tuple[float, float, str]], age: float
) -> None:
    ecs.stopped(*stops)
    ecs.runs(age)

    assert health.at_ecs(environment).startswith("1 of 1 running")


def test_agent_that_crashed_once_and_is_not_back_is_told_with_its_last_words(
    environment: Environment, ecs: Ecs
) -> None:
    ecs.stopped((1, 600, CRASH))
    ecs.runs()
    ecs.service["runningCount"] = 0
    problem = _problem(health.at_ecs, environment)

    assert problem.what == "0 of 1 running"
    assert "| last of agent/agent/stop0" in problem.why


def test_agents_of_running_tasks_are_named_when_prefect_shows_them_online(
    environment: Environment, ecs: Ecs, monkeypatch: pytest.MonkeyPatch
) -> None:
    online: dict[str, datetime] = {}

    def agents(_: Environment, patient: bool) -> dict[str, datetime]:
        assert not patient
        return online

    monkeypatch.setattr(health, "online_agents", agents)
    ecs.runs(5, 5)
    before = _problem(health.at_prefect, environment)
    online |= {f"{environment.prefix}_{task}": datetime.now(UTC) for task in ("run0", "stopped")}
    after = health.at_prefect(environment)

    assert before.what == "none online"
    assert "| last of agent/agent/" in before.why
    assert "invoke logs agent --env dev" in before.todo
    assert after == f"online: {environment.prefix}_run0"


def test_image_of_the_running_revision_that_is_gone_is_pushed_by_deploy(
    environment: Environment, ecs: Ecs, monkeypatch: pytest.MonkeyPatch
) -> None:
    gone: list[str] = []
    monkeypatch.setattr(health, "missing_images", lambda _, uris: [uri for uri in uris if uri in gone])
    ecs.images = [f"registry/{NAME}:abc"]
    assert health.image(environment) == f"{NAME}:abc"
    gone += ecs.images
    problem = _problem(health.image, environment)

    assert (problem.what, problem.todo) == ("not in ECR", "invoke deploy --env dev pushes it")
    assert f"registry/{NAME}:abc" in problem.why


def test_keys_that_tasks_start_with_are_tried_and_not_that_of_this_machine(
    environment: Environment, aws_mocked: Callable[[str], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in (("prefect_key", "of agent"), ("prefect_key_workflow", "of workflows")):
        aws_mocked("secretsmanager").create_secret(Name=f"{environment.prefix}_{name}", SecretString=value)
    tried: dict[str, str] = {}
    monkeypatch.setattr(health, "check_prefect", lambda _, key, todo: tried.update({key: todo}))

    assert health.keys(environment) == "accepted"
    assert tried == {
        "of agent": "set PREFECT_AGENT_TOKEN to a good one; invoke rotate-key --env dev",
        "of workflows": "set PREFECT_WORKFLOW_TOKEN to a good one; invoke rotate-key --env dev",
    }
