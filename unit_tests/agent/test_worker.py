import asyncio
import dataclasses
import json
import logging
import uuid
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, cast

import boto3
import pytest
from botocore.exceptions import ClientError, EndpointConnectionError
from botocore.stub import Stubber
from prefect.workers.base import BaseWorker
from prefect_aws.workers.ecs_worker import AwsCredentials, ECSWorker

from agent import attempts, outlived, recovery, task_definitions, task_ends, worker
from agent.capacity import ON_DEMAND, SPOT
from agent.observer import Observer
from agent.project import base_job_template
from agent.worker import Agent, JobConfiguration, NotStartedError
from environments.settings import Environment
from infra.images import Image
from infra.terraform import Outputs
from unit_tests.agent import ecs_fake
from unit_tests.agent.ecs_fake import CLUSTER, FakeEcs
from unit_tests.agent.prefect_fake import NOW, FakePrefect, states_of

IMAGE = Image("dev_dataflow_automation_agent", "0" * 16, "registry/agent:" + "0" * 16, "sha256:" + "0" * 64)
TASK = "arn:aws:ecs:eu-west-1:123456789012:task/workflows/new"
ENDPOINT = {"endpoint_url": "https://ecs.eu-west-1.amazonaws.com"}
FIRST = ("SCHEDULED", "PENDING", "PENDING:Submitting")
AGAIN = ("SCHEDULED", "PENDING", "RUNNING", "CRASHED", "SCHEDULED:AwaitingRestart", "PENDING:Submitting")
NO_ROOM = "Capacity is unavailable at this time."


def _error(code: str, message: str, status: int = 400) -> ClientError:
    answer: Any = {"Error": {"Code": code, "Message": message}, "ResponseMetadata": {"HTTPStatusCode": status}}
    return ClientError(answer, "RunTask")


def _failure(reason: str) -> dict[str, Any]:
    return {"tasks": [], "failures": [{"reason": reason}]}


class RunTask:
    """Plays RunTask: answers as it was told, and then starts tasks."""

    def __init__(self) -> None:
        self.answers: list[Any] = []
        self.requests: list[dict[str, Any]] = []

    def __call__(self, **request: Any) -> Any:
        self.requests.append(json.loads(json.dumps(request)))
        answer = self.answers.pop(0) if self.answers else None
        if isinstance(answer, Exception):
            raise answer
        return answer or {"tasks": [{"taskArn": TASK, "clusterArn": request["cluster"]}], "failures": []}


class Status:
    """What Prefect's worker is told of the start of a run."""

    def __init__(self) -> None:
        self.told: list[Any] = []
        self._future = SimpleNamespace(done=lambda: bool(self.told))

    def started(self, value: Any) -> None:
        assert not self.told
        self.told.append(value)


@pytest.fixture
def prefect() -> FakePrefect:
    return FakePrefect()


@pytest.fixture
def ecs(monkeypatch: pytest.MonkeyPatch) -> FakeEcs:
    fake = FakeEcs()
    ecs_fake.install(monkeypatch, ecs=fake)
    return fake


@pytest.fixture
def template(environment: Environment, outputs: Outputs) -> dict[str, Any]:
    return base_job_template(environment, dataclasses.replace(outputs, workflows_cluster_arn=CLUSTER), IMAGE)


@pytest.fixture
def boto(aws_mocked: Callable[[str], Any], monkeypatch: pytest.MonkeyPatch) -> Any:
    """The client of ECS that Prefect's worker uses; moto keeps the task definitions."""
    client = aws_mocked("ecs")
    monkeypatch.setattr(AwsCredentials, "get_client", lambda *_, **__: client)
    return client


@pytest.fixture
def run_task(boto: Any, monkeypatch: pytest.MonkeyPatch) -> RunTask:
    played = RunTask()
    for name in worker.ONE_ATTEMPT:
        monkeypatch.setenv(f"PREFECT_INTEGRATIONS_AWS_ECS_WORKER_{name}", "1")
    monkeypatch.setattr(boto, "run_task", played)
    return played


@pytest.fixture
def agent(prefect: FakePrefect, ecs: FakeEcs, template: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> Agent:
    made = Agent(work_pool_name="dev_dataflow_automation", name="me", heartbeat_interval_seconds=10)
    monkeypatch.setattr(made, "_client", prefect)
    monkeypatch.setattr(made, "_work_pool", SimpleNamespace(base_job_template=template))
    monkeypatch.setattr(made, "get_flow_run_logger", lambda _: logging.getLogger("unit_tests.flow_run"))
    return made


@pytest.fixture
def configured(template: dict[str, Any]) -> Callable[..., JobConfiguration]:
    """A function that gives what a deployment with some job variables is run with."""
    from prefect.client.orchestration import PrefectClient

    async def render(values: dict[str, Any]) -> JobConfiguration:
        client = PrefectClient("http://127.0.0.1:9/api")  # is there to be handed over; nothing is asked
        return await JobConfiguration.from_template_and_values(template, values, client=client)

    def configuration(**values: Any) -> JobConfiguration:
        rendered = asyncio.run(render({"family": "sales", "command": "prefect flow-run execute", **values}))
        rendered.env["PREFECT__FLOW_RUN_ID"] = "of-the-run"
        return rendered

    return configuration


@pytest.fixture
def start(
    agent: Agent, prefect: FakePrefect, run_task: RunTask, configured: Callable[..., JobConfiguration]
) -> Callable[..., Status]:
    """A function that starts a run with some job variables."""

    def started(run: uuid.UUID, **values: Any) -> Status:
        status = Status()
        asyncio.run(agent.run(prefect.runs[run], configured(**values), cast(Any, status)))
        return status

    return started


def _tags(request: dict[str, Any]) -> dict[str, str]:
    return {tag["key"]: tag["value"] for tag in request["tags"]}


def _environment(request: dict[str, Any]) -> dict[str, str]:
    [container] = request["overrides"]["containerOverrides"]
    return {variable["name"]: variable["value"] for variable in container["environment"]}


def _definition(boto: Any, request: dict[str, Any]) -> dict[str, Any]:
    answer = boto.describe_task_definition(taskDefinition=request["taskDefinition"])
    definition: dict[str, Any] = answer["taskDefinition"]
    return definition


# How a run is started


def test_task_carries_its_run_its_attempt_and_how_often_it_may_be_restarted(
    prefect: FakePrefect, start: Any, run_task: RunTask
) -> None:
    run = prefect.add(*AGAIN)
    status = start(run, restarts=3, labels={"team": "data"})

    [request] = run_task.requests
    assert (request["startedBy"], request["clientToken"]) == (str(run), f"{run}-2")
    assert (request["cluster"], request["capacityProviderStrategy"]) == (
        CLUSTER,
        [{"capacityProvider": ON_DEMAND, "weight": 1}],
    )
    assert "launchType" not in request
    expected = {"team": "data", "attempt": f"{run}-2", "restarts": "3", "prefect.io/flow-run-id": str(run)}
    assert expected.items() <= _tags(request).items()
    assert status.told == [f"{CLUSTER}::{TASK}"]
    assert prefect.names(run)[-1] == "Submitting"


def test_size_of_a_run_is_in_its_request_so_that_runs_share_a_revision(
    prefect: FakePrefect, start: Any, run_task: RunTask, boto: Any
) -> None:
    for cpu, memory in ((256, 512), (1024, 4096)):
        start(prefect.add(*FIRST), cpu=cpu, memory=memory)
    small, large = run_task.requests

    assert small["taskDefinition"] == large["taskDefinition"]
    assert [(each["overrides"]["cpu"], each["overrides"]["memory"]) for each in run_task.requests] == [
        ("256", "512"),
        ("1024", "4096"),
    ]
    [container] = _definition(boto, large)["containerDefinitions"]
    assert container.get("cpu", 0) == 0
    assert "memory" not in container


def test_containers_on_own_instances_keep_their_size(
    agent: Agent, prefect: FakePrefect, configured: Callable[..., JobConfiguration]
) -> None:
    run = prefect.runs[prefect.add(*FIRST)]
    definition = agent._prepare_task_definition(configured(compatibility="EC2"), "eu-west-1", run)
    [container] = definition["containerDefinitions"]

    assert (container["cpu"], container["memory"]) == (int(definition["cpu"]), int(definition["memory"]))


@pytest.mark.parametrize(("restarts", "provider"), [(0, SPOT), (1, SPOT), (2, ON_DEMAND)])
def test_second_restart_of_a_run_on_spot_is_on_demand(
    prefect: FakePrefect, start: Any, run_task: RunTask, restarts: int, provider: str
) -> None:
    start(prefect.add(*["SCHEDULED:AwaitingRestart", "PENDING"] * restarts), capacity_provider=SPOT)

    assert run_task.requests[0]["capacityProviderStrategy"] == [{"capacityProvider": provider, "weight": 1}]


def test_run_on_spot_falls_back_to_on_demand_when_spot_has_refused_twice(
    agent: Agent, prefect: FakePrefect, start: Any, run_task: RunTask, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = SimpleNamespace(now=0.0)
    monkeypatch.setattr(agent._capacity, "_clock", lambda: clock.now)
    run_task.answers = [_failure(NO_ROOM), _failure(NO_ROOM)]
    runs = [prefect.add(*FIRST) for _ in range(3)]
    for run in runs:
        start(run, capacity_provider=SPOT)
        clock.now += 7

    assert [request["capacityProviderStrategy"][0]["capacityProvider"] for request in run_task.requests] == [
        SPOT,
        SPOT,
        ON_DEMAND,
    ]
    assert [prefect.names(run)[-1] for run in runs] == ["AwaitingCapacity", "AwaitingCapacity", "Submitting"]


@pytest.mark.parametrize(
    "answer",
    [
        _failure(NO_ROOM),
        _failure("RESOURCE:ENI"),
        _failure("You've reached the limit on the number of vCPUs you can run concurrently"),
        _error("ThrottlingException", "Rate exceeded"),
        _error("ClientException", "Tasks provisioning capacity limit exceeded."),
    ],
)
def test_run_that_aws_has_no_room_for_waits_in_its_place(
    agent: Agent, prefect: FakePrefect, start: Any, run_task: RunTask, answer: Any
) -> None:
    run_task.answers = [answer]
    run = prefect.add(*FIRST, expected_start_time=NOW)
    status = start(run)
    last = prefect.last(run)

    assert (last.name, last.state_details.scheduled_time) == ("AwaitingCapacity", NOW)
    assert str(last.message).startswith("The run waits for capacity of FARGATE since ")
    assert [type(told) for told in status.told] == [NotStartedError]
    assert len(run_task.requests) == 1
    assert agent._capacity.refused


def test_run_that_aws_refused_is_at_its_next_attempt_when_it_is_tried_again(
    agent: Agent, prefect: FakePrefect, start: Any, run_task: RunTask, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_task.answers = [_failure(NO_ROOM)]
    run = prefect.add(*FIRST)
    start(run)
    prefect.states[run] += _after(prefect, run, "PENDING")
    monkeypatch.setattr(agent._capacity, "_clock", lambda: float("inf"))
    start(run)

    assert [request["clientToken"] for request in run_task.requests] == [f"{run}-0", f"{run}-1"]


def _after(prefect: FakePrefect, run: uuid.UUID, kind: str) -> Any:
    [state] = states_of(kind)
    last = prefect.last(run).timestamp
    return [state.model_copy(update={"timestamp": last.replace(second=last.second + 1)})]


def test_no_run_is_asked_for_while_its_provider_refuses(
    agent: Agent, prefect: FakePrefect, start: Any, run_task: RunTask
) -> None:
    agent._capacity.refuse(ON_DEMAND, uuid.uuid4(), NO_ROOM)
    run = prefect.add(*FIRST)
    status = start(run)

    assert run_task.requests == []
    assert prefect.names(run)[-1] == "AwaitingCapacity"
    assert [type(told) for told in status.told] == [NotStartedError]


@pytest.mark.parametrize(
    ("answer", "next_ones"),
    [(None, 2), (_failure("MISSING"), 1)],
    ids=["started", "never-starts"],
)
def test_trial_that_ends_leaves_its_place_to_the_next_and_one_that_was_started_to_one_more(
    agent: Agent,
    prefect: FakePrefect,
    start: Any,
    run_task: RunTask,
    monkeypatch: pytest.MonkeyPatch,
    answer: Any,
    next_ones: int,
) -> None:
    clock = SimpleNamespace(now=0.0)
    monkeypatch.setattr(agent._capacity, "_clock", lambda: clock.now)
    agent._capacity.refuse(ON_DEMAND, uuid.uuid4(), NO_ROOM)
    clock.now += 7
    run_task.answers = [answer]
    start(prefect.add(*FIRST))

    admitted = [agent._capacity.choose(ON_DEMAND, uuid.UUID(int=number)) for number in range(5)]
    assert admitted == [ON_DEMAND] * next_ones + [None] * (5 - next_ones)


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (_error("ServerException", "Service Unavailable", 500), "ServerException: Service Unavailable"),
        (_error("ExpiredTokenException", "The token is expired"), "ExpiredTokenException: The token is expired"),
        (EndpointConnectionError(**ENDPOINT), "EndpointConnectionError: Could not connect"),
    ],
)
def test_run_that_aws_does_not_answer_for_stays_pending_and_starts_at_the_same_attempt(
    agent: Agent,
    prefect: FakePrefect,
    start: Any,
    run_task: RunTask,
    answer: Exception,
    words: str,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    run_task.answers = [answer]
    run = prefect.add(*FIRST)
    status = start(run)

    assert prefect.names(run)[-1] == "Submitting"
    assert prefect.proposed == []
    [record] = [record for record in caplog.records if record.levelno >= logging.WARNING]
    assert record.getMessage().startswith(f"AWS did not answer, the agent looks again soon: {words}")
    assert [type(told) for told in status.told] == [NotStartedError]
    assert agent._capacity.refused

    prefect.states[run] += [*_after(prefect, run, "SCHEDULED:Rescheduled"), *_after(prefect, run, "PENDING")]
    monkeypatch.setattr(agent._capacity, "_clock", lambda: float("inf"))
    start(run)
    assert [request["clientToken"] for request in run_task.requests] == [f"{run}-0"] * 2


NEVER: list[tuple[Any, str, str]] = [
    (_failure("LOCATION"), "AWS can not start it: LOCATION", "correct what the message names, then run it again"),
    (
        _error("ClientException", "ECS was unable to assume the role 'arn' that was provided for this task."),
        "AWS refuses to start it: ClientException: ECS was unable to assume the role",
        "invoke deploy creates the roles again",
    ),
    (
        _error("ClusterNotFoundException", "Cluster not found."),
        "AWS refuses to start it: ClusterNotFoundException: Cluster not found.",
        "invoke deploy creates the cluster again",
    ),
]


@pytest.mark.parametrize(("answer", "words", "todo"), NEVER)
def test_run_that_can_never_start_is_crashed_once_with_advice(
    agent: Agent,
    prefect: FakePrefect,
    start: Any,
    run_task: RunTask,
    answer: Any,
    words: str,
    todo: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    run_task.answers = [answer]
    run = prefect.add(*FIRST)
    status = start(run, restarts=3)
    message = str(prefect.last(run).message)

    assert prefect.names(run)[len(FIRST) :] == ["Crashed"]
    assert message.startswith(f"Not started: {words}")
    assert message.endswith(f"To do: {todo}.")
    assert [type(told) for told in status.told] == [NotStartedError]
    assert not agent._capacity.refused
    assert [
        (record.levelname, record.getMessage()) for record in caplog.records if record.levelno >= logging.ERROR
    ] == [("ERROR", message)]


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"cpu": 300}, "AWS Fargate has no size of cpu 300 with memory 1024: cpu 300 is not offered by Fargate"),
        ({"cpu": 256, "memory": 4096}, "memory 4096 does not go with cpu 256"),
        ({"env": {"LARGE": "x" * 70_000}}, "its environment variables are too large for AWS: 68 KiB of at most 48"),
    ],
)
def test_run_that_asks_for_what_aws_does_not_offer_is_crashed_and_aws_not_asked(
    prefect: FakePrefect, start: Any, run_task: RunTask, boto: Any, values: dict[str, Any], words: str
) -> None:
    run = prefect.add(*FIRST)
    start(run, **values)

    assert prefect.names(run)[len(FIRST) :] == ["Crashed"]
    assert words in str(prefect.last(run).message)
    assert run_task.requests == []
    assert boto.list_task_definitions()["taskDefinitionArns"] == []


def test_any_size_goes_on_own_instances(prefect: FakePrefect, start: Any, run_task: RunTask) -> None:
    start(prefect.add(*FIRST), cpu=300, memory=700, compatibility="EC2")

    assert run_task.requests[0]["overrides"]["cpu"] == "300"


@pytest.fixture
def submitted(
    agent: Agent, prefect: FakePrefect, configured: Any, run_task: RunTask, monkeypatch: pytest.MonkeyPatch
) -> Callable[[uuid.UUID], Status]:
    """A function that has Prefect's own worker submit a run, and what it is left with when a run does not start."""

    async def resolve(*_: Any, **__: Any) -> JobConfiguration:
        return configuration

    async def nothing(*_: Any, **__: Any) -> None:
        pass

    configuration = configured(restarts=3)
    monkeypatch.setattr(JobConfiguration, "resolve_for_flow_run", resolve)
    monkeypatch.setattr(agent, "_emit_flow_run_submitted_event", lambda *_: None)
    monkeypatch.setattr(agent, "_give_worker_labels_to_flow_run", nothing)
    monkeypatch.setattr(agent, "_propose_submitting_state", nothing)

    def submit(run: uuid.UUID) -> Status:
        status = Status()
        asyncio.run(agent._submit_run_and_capture_errors(prefect.runs[run], cast(Any, status)))
        return status

    return submit


@pytest.mark.parametrize(
    ("answer", "states"),
    [
        (_failure(NO_ROOM), ["AwaitingCapacity"]),
        (_error("ServerException", "", 500), []),
        (_failure("MISSING"), ["Crashed"]),
        (None, []),
    ],
    ids=["waits", "no-answer", "never", "started"],
)
def test_prefects_worker_adds_no_state_and_no_traceback_of_its_own(
    prefect: FakePrefect,
    submitted: Callable[[uuid.UUID], Status],
    run_task: RunTask,
    answer: Any,
    states: list[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    run_task.answers = [answer]
    run = prefect.add(*FIRST)
    status = submitted(run)

    assert prefect.names(run)[len(FIRST) :] == states
    # What is no exception, Prefect's worker writes into the run as the id of its task.
    assert isinstance(status.told[0], Exception) is (answer is not None)
    assert [record for record in caplog.records if record.exc_info] == []


def test_registration_that_aws_has_no_time_for_lets_the_run_wait(
    prefect: FakePrefect, start: Any, run_task: RunTask, boto: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def busy(**_: Any) -> Any:
        message = "Too many concurrent attempts to create a new revision of the specified family."
        raise boto.exceptions.ClientException({"Error": {"Code": "ClientException", "Message": message}}, "Register")

    monkeypatch.setattr(task_definitions.time, "sleep", lambda _: None)
    monkeypatch.setattr(boto, "register_task_definition", busy)
    run = prefect.add(*FIRST)
    start(run)

    assert prefect.names(run)[-1] == "AwaitingCapacity"
    assert run_task.requests == []


def test_definition_that_aws_refuses_ends_the_run(
    prefect: FakePrefect, start: Any, run_task: RunTask, boto: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(**_: Any) -> Any:
        answer = {"Error": {"Code": "ClientException", "Message": "Role is not valid"}}
        raise boto.exceptions.ClientException(answer, "RegisterTaskDefinition")

    monkeypatch.setattr(boto, "register_task_definition", refuse)
    run = prefect.add(*FIRST)
    start(run)

    assert prefect.names(run)[-1] == "Crashed"
    assert str(prefect.last(run).message).endswith("To do: invoke deploy creates the roles again.")


STALE = _error("InvalidParameterException", "TaskDefinition is inactive")


def test_revision_that_somebody_deregistered_is_registered_anew(
    prefect: FakePrefect, start: Any, run_task: RunTask, boto: Any
) -> None:
    start(prefect.add(*FIRST))
    first = run_task.requests[0]["taskDefinition"]
    boto.deregister_task_definition(taskDefinition=first)
    run_task.answers = [STALE]
    run = prefect.add(*FIRST)
    status = start(run)
    second, third = (request["taskDefinition"] for request in run_task.requests[1:])

    assert second == first
    assert third == f"{first.rpartition(':')[0]}:2"
    assert status.told == [f"{CLUSTER}::{TASK}"]


NOT_YET_KNOWN = _error("ClientException", "TaskDefinition not found.")


@pytest.fixture
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Pauses while AWS does not know a revision yet, which take no time."""
    taken: list[float] = []
    monkeypatch.setattr(worker.time, "sleep", taken.append)
    return taken


def test_revision_that_aws_does_not_know_yet_is_waited_for(
    prefect: FakePrefect, start: Any, run_task: RunTask, pauses: list[float]
) -> None:
    run_task.answers = [NOT_YET_KNOWN] * 4
    run = prefect.add(*FIRST)

    assert start(run).told == [f"{CLUSTER}::{TASK}"]
    assert pauses == [0.5, 1, 2, 4]
    assert len({request["taskDefinition"] for request in run_task.requests}) == 1


@pytest.mark.parametrize("answer", [STALE, NOT_YET_KNOWN], ids=["stale", "not-yet-known"])
def test_run_whose_revision_can_not_be_started_for_long_is_scheduled_again(
    agent: Agent, prefect: FakePrefect, start: Any, run_task: RunTask, pauses: list[float], answer: Exception
) -> None:
    run_task.answers = [answer] * 10
    run = prefect.add(*FIRST)
    start(run)

    assert prefect.names(run)[len(FIRST) :] == ["Rescheduled"]
    assert len(run_task.requests) == 5
    assert not agent._capacity.refused


@pytest.mark.parametrize("moved_to", ["RUNNING", "CANCELLED", "taken", "deleted"])
@pytest.mark.parametrize("answer", [STALE, NOT_YET_KNOWN, _failure(NO_ROOM)], ids=["stale", "not-yet-known", "no-room"])
def test_run_that_has_moved_on_meanwhile_is_not_scheduled_again(
    prefect: FakePrefect,
    start: Any,
    run_task: RunTask,
    boto: Any,
    pauses: list[float],
    monkeypatch: pytest.MonkeyPatch,
    answer: Any,
    moved_to: str,
) -> None:
    run = prefect.add(*FIRST, labels={"prefect.worker.name": "me"})
    run_task.answers = [answer] * 10

    def moves_on(**request: Any) -> Any:
        if not run_task.requests and moved_to == "deleted":
            prefect.delete(run)
        elif not run_task.requests and moved_to == "taken":
            prefect.runs[run].labels["prefect.worker.name"] = "other"
        elif not run_task.requests:
            prefect.states[run] += _after(prefect, run, moved_to)
        return run_task(**request)

    monkeypatch.setattr(boto, "run_task", moves_on)
    status = start(run)

    assert prefect.proposed == []
    assert len(run_task.requests) in (1, 5)
    assert [type(told) for told in status.told] == [NotStartedError]


@pytest.mark.parametrize("labels", [{}, {"prefect.worker.name": "me"}], ids=["none", "mine"])
@pytest.mark.parametrize(
    ("answer", "state"), [(STALE, "Rescheduled"), (_failure(NO_ROOM), "AwaitingCapacity")], ids=["stale", "no-room"]
)
def test_run_that_this_agent_still_has_is_put_back(
    prefect: FakePrefect, start: Any, run_task: RunTask, answer: Any, state: str, labels: dict[str, str]
) -> None:
    run_task.answers = [answer] * 10
    run = prefect.add(*FIRST, labels=labels)
    start(run)

    assert prefect.names(run)[-1] == state


def test_conflict_that_names_no_task_lets_the_run_wait(
    agent: Agent, prefect: FakePrefect, start: Any, run_task: RunTask, boto: Any
) -> None:
    answer: Any = {"Error": {"Code": "ConflictException", "Message": "token"}}
    run_task.answers = [boto.exceptions.ConflictException(answer, "RunTask")]
    run = prefect.add(*FIRST)
    status = start(run)

    assert prefect.names(run)[-1] == "AwaitingCapacity"
    assert [type(told) for told in status.told] == [NotStartedError]
    assert agent._capacity.refused


def test_revision_that_aws_does_not_know_after_all_pauses_is_forgotten(
    prefect: FakePrefect, start: Any, run_task: RunTask, boto: Any, pauses: list[float]
) -> None:
    start(prefect.add(*FIRST))
    first = run_task.requests[0]["taskDefinition"]
    boto.deregister_task_definition(taskDefinition=first)
    run_task.answers = [NOT_YET_KNOWN] * 4
    status = start(prefect.add(*FIRST))

    assert [request["taskDefinition"] for request in run_task.requests[1:5]] == [first] * 4
    assert run_task.requests[5]["taskDefinition"] == f"{first.rpartition(':')[0]}:2"
    assert status.told == [f"{CLUSTER}::{TASK}"]


def test_revision_that_aws_knew_in_the_end_is_not_held_against_the_next_runs(
    prefect: FakePrefect, start: Any, run_task: RunTask, boto: Any, pauses: list[float], agent: Agent
) -> None:
    for _ in range(5):
        run_task.answers = [NOT_YET_KNOWN]
        start(prefect.add(*FIRST))

    assert not agent._unknown
    assert len({request["taskDefinition"] for request in run_task.requests}) == 1


def test_task_that_was_started_for_the_attempt_already_is_the_one(
    prefect: FakePrefect, start: Any, run_task: RunTask, boto: Any
) -> None:
    known = TASK.replace("new", "known")
    answer: Any = {"Error": {"Code": "ConflictException", "Message": "token"}, "resourceIds": [known]}
    run_task.answers = [boto.exceptions.ConflictException(answer, "RunTask")]
    run = prefect.add(*FIRST)

    assert start(run).told == [f"{CLUSTER}::{known}"]
    assert prefect.names(run)[-1] == "Submitting"


def test_conflict_is_read_as_aws_writes_it(agent: Agent) -> None:
    client = boto3.client("ecs", region_name="eu-west-1", aws_access_key_id="x", aws_secret_access_key="x")
    with Stubber(client) as stubbed:
        stubbed.add_client_error("run_task", "ConflictException", modeled_fields={"resourceIds": [TASK]})
        task = agent._create_task_run(
            client, {"cluster": CLUSTER, "taskDefinition": "family:1", "clientToken": "run-0"}
        )

    assert task == {"taskArn": TASK, "clusterArn": CLUSTER}


def test_variables_without_room_in_the_request_are_in_the_task_definition(
    prefect: FakePrefect, start: Any, run_task: RunTask, boto: Any
) -> None:
    env = {"LARGE": "x" * 9000, "SMALL": "y", "UNSET": None}
    start(prefect.add(*FIRST), env=env)
    [request] = run_task.requests
    [container] = _definition(boto, request)["containerDefinitions"]

    assert container["environment"] == [{"name": "LARGE", "value": "x" * 9000}]
    assert _environment(request) == {"SMALL": "y", "PREFECT__FLOW_RUN_ID": "of-the-run"}
    assert len(json.dumps(request["overrides"])) <= 8192


def test_variables_with_room_are_in_the_request(prefect: FakePrefect, start: Any, run_task: RunTask, boto: Any) -> None:
    start(prefect.add(*FIRST), env={"A": "x" * 7000})
    [request] = run_task.requests
    [container] = _definition(boto, request)["containerDefinitions"]

    assert container["environment"] == []
    assert _environment(request) == {"A": "x" * 7000, "PREFECT__FLOW_RUN_ID": "of-the-run"}


def test_tags_are_made_to_fit_and_those_of_the_agent_stay(prefect: FakePrefect, start: Any, run_task: RunTask) -> None:
    labels = {f"label-{number}": "x" for number in range(60)} | {"aws:reserved": "x", "label-1": "y" * 300}
    run = prefect.add(*FIRST)
    start(run, labels=labels, restarts=2)
    tags = _tags(run_task.requests[0])

    assert len(tags) == 50
    assert "aws:reserved" not in tags
    assert tags["label-1"] == "y" * 256
    assert (tags["prefect.io/flow-run-id"], tags["attempt"], tags["restarts"]) == (str(run), f"{run}-0", "2")


# The tasks of earlier attempts


@pytest.fixture
def no_pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Pauses while a task is waited for, which take no time."""
    taken: list[float] = []

    async def pause(seconds: float) -> None:
        taken.append(seconds)

    monkeypatch.setattr(outlived.asyncio, "sleep", pause)
    monkeypatch.setattr(outlived.time, "monotonic", lambda: sum(taken))
    return taken


def test_first_attempt_of_a_run_asks_for_no_earlier_tasks(prefect: FakePrefect, start: Any, ecs: FakeEcs) -> None:
    start(prefect.add(*FIRST))

    assert ecs.requests == []


def test_task_of_an_earlier_attempt_has_ended_before_the_next_one_starts(
    prefect: FakePrefect, start: Any, ecs: FakeEcs, run_task: RunTask, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = prefect.add(*AGAIN)
    earlier = ecs.start(f"{run}-0")
    stop = ecs.stop_task

    async def stop_at_once(**asked: Any) -> None:
        assert run_task.requests == []
        await stop(**asked)
        ecs.tasks[earlier]["lastStatus"] = "STOPPED"

    async def pause(_: float) -> None:
        pass

    monkeypatch.setattr(outlived.asyncio, "sleep", pause)
    monkeypatch.setattr(ecs, "stop_task", stop_at_once)
    start(run)

    assert ecs.stopped == [earlier]
    assert [request["clientToken"] for request in run_task.requests] == [f"{run}-2"]


@pytest.mark.parametrize(
    ("reported", "last"),
    [("CRASHED", "Rescheduled"), ("CANCELLED", "Cancelled"), ("RUNNING", "Running")],
)
def test_run_whose_earlier_task_changed_its_state_while_it_stopped_is_not_started(
    prefect: FakePrefect,
    start: Any,
    ecs: FakeEcs,
    run_task: RunTask,
    no_pauses: list[float],
    monkeypatch: pytest.MonkeyPatch,
    reported: str,
    last: str,
) -> None:
    run = prefect.add(*AGAIN)
    earlier = ecs.start(f"{run}-0")

    async def stop_and_report(**_: Any) -> None:
        ecs.tasks[earlier]["lastStatus"] = "STOPPED"
        prefect.states[run] += _after(prefect, run, reported)

    monkeypatch.setattr(ecs, "stop_task", stop_and_report)
    status = start(run)

    assert run_task.requests == []
    assert prefect.names(run)[-1] == last
    assert [type(told) for told in status.told] == [NotStartedError]


def test_run_that_is_deleted_while_its_earlier_task_stops_is_no_error(
    prefect: FakePrefect,
    start: Any,
    ecs: FakeEcs,
    run_task: RunTask,
    no_pauses: list[float],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    run = prefect.add(*AGAIN)
    earlier = ecs.start(f"{run}-0")

    async def stop_and_delete(**_: Any) -> None:
        ecs.tasks[earlier]["lastStatus"] = "STOPPED"
        prefect.delete(run)

    monkeypatch.setattr(ecs, "stop_task", stop_and_delete)
    status = start(run)

    assert (run_task.requests, prefect.proposed) == ([], [])
    assert [type(told) for told in status.told] == [NotStartedError]


def test_run_whose_earlier_task_does_not_end_stays_pending(
    prefect: FakePrefect,
    start: Any,
    ecs: FakeEcs,
    run_task: RunTask,
    no_pauses: list[float],
    caplog: pytest.LogCaptureFixture,
) -> None:
    run = prefect.add(*AGAIN)
    earlier = ecs.start(f"{run}-0")
    start(run)

    assert run_task.requests == []
    assert prefect.names(run)[-1] == "Submitting"
    assert f"{earlier} did not stop within 180 s" in caplog.text
    again = [*_after(prefect, run, "SCHEDULED:Rescheduled"), *_after(prefect, run, "PENDING")]
    assert attempts.name(run, [*prefect.states[run], *again]) == f"{run}-2"


@pytest.mark.parametrize(
    ("error", "last"),
    [
        (_error("ThrottlingException", "Rate exceeded"), "Rescheduled"),
        (_error("ServerException", "", 500), "Submitting"),
        (EndpointConnectionError(**ENDPOINT), "Submitting"),
        (_error("AccessDeniedException", "not authorized to perform: ecs:ListTasks"), "Crashed"),
    ],
)
def test_run_whose_earlier_tasks_can_not_be_listed_is_not_started(
    prefect: FakePrefect,
    start: Any,
    ecs: FakeEcs,
    run_task: RunTask,
    monkeypatch: pytest.MonkeyPatch,
    error: Exception,
    last: str,
) -> None:
    async def fails(**_: Any) -> Any:
        raise error

    monkeypatch.setattr(ecs, "list_tasks", fails)
    run = prefect.add(*AGAIN)
    start(run)

    assert run_task.requests == []
    assert prefect.names(run)[-1] == last


# Which runs are started now


@pytest.fixture
def due(agent: Agent, prefect: FakePrefect, monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[uuid.UUID]]:
    """A function that gives which of some runs, due in this order, are started now."""

    def ready(*runs: uuid.UUID) -> list[uuid.UUID]:
        async def scheduled(_: Any) -> list[Any]:
            return [SimpleNamespace(flow_run=await prefect.read_flow_run(run)) for run in runs if run in prefect.runs]

        monkeypatch.setattr(BaseWorker, "_get_scheduled_flow_runs", scheduled)
        return [entry.flow_run.id for entry in asyncio.run(agent._get_scheduled_flow_runs())]

    return ready


def test_all_runs_are_started_in_their_order_while_nobody_refuses(
    agent: Agent, prefect: FakePrefect, due: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(prefect, "read_deployment", None)
    runs = [prefect.add("SCHEDULED") for _ in range(5)]

    assert due(*runs) == runs
    assert agent._waiting == {}


def test_runs_of_a_provider_that_refuses_wait_and_others_do_not(agent: Agent, prefect: FakePrefect, due: Any) -> None:
    agent._capacity.refuse(SPOT, uuid.uuid4(), NO_ROOM)
    on_spot = prefect.add("SCHEDULED", deployment_id=prefect.deploy(capacity_provider=SPOT))
    chosen = prefect.add("SCHEDULED", job_variables={"capacity_provider": SPOT})
    changed = prefect.add(
        "SCHEDULED",
        deployment_id=prefect.deploy(capacity_provider=SPOT),
        job_variables={"capacity_provider": ON_DEMAND},
    )
    usual = [prefect.add("SCHEDULED"), prefect.add("SCHEDULED", deployment_id=None)]

    assert due(on_spot, chosen, changed, *usual) == [changed, *usual]
    assert [prefect.names(run)[-1] for run in (on_spot, chosen, changed)] == [
        "AwaitingCapacity",
        "AwaitingCapacity",
        "Scheduled",
    ]
    assert dict(agent._waiting) == {agent._capacity.explain(SPOT): 2}


def test_run_that_waits_is_marked_once_and_keeps_its_place_in_the_queue(
    agent: Agent, prefect: FakePrefect, due: Any
) -> None:
    agent._capacity.refuse(ON_DEMAND, uuid.uuid4(), NO_ROOM)
    run = prefect.add("SCHEDULED", expected_start_time=NOW)
    assert [due(run) for _ in range(3)] == [[], [], []]

    assert prefect.names(run) == ["Scheduled", "AwaitingCapacity"]
    assert prefect.last(run).state_details.scheduled_time == NOW
    assert str(prefect.last(run).message).startswith("The run waits for capacity of FARGATE since ")
    assert len(prefect.proposed) == 1


def test_twenty_runs_are_marked_at_a_time(agent: Agent, prefect: FakePrefect, due: Any) -> None:
    agent._capacity.refuse(ON_DEMAND, uuid.uuid4(), NO_ROOM)
    runs = [prefect.add("SCHEDULED") for _ in range(50)]
    marked = []
    for _ in range(3):
        assert due(*runs) == []
        marked.append([prefect.names(run)[-1] for run in runs].count("AwaitingCapacity"))

    assert marked == [20, 40, 50]
    assert list(agent._waiting.values()) == [50]


def test_after_the_pause_the_first_in_the_queue_is_tried_alone(
    agent: Agent, prefect: FakePrefect, due: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = SimpleNamespace(now=0.0)
    monkeypatch.setattr(agent._capacity, "_clock", lambda: clock.now)
    agent._capacity.refuse(ON_DEMAND, uuid.uuid4(), NO_ROOM)
    runs = [prefect.add("SCHEDULED") for _ in range(5)]
    assert due(*runs) == []
    clock.now += 7

    assert due(*runs) == runs[:1]
    assert due(*runs[::-1]) == runs[:1]


def test_run_that_is_being_started_is_left_to_whoever_starts_it(agent: Agent, prefect: FakePrefect, due: Any) -> None:
    agent._capacity.refuse(ON_DEMAND, uuid.uuid4(), NO_ROOM)
    run = prefect.add("SCHEDULED")
    agent._submitting_flow_run_ids.add(run)

    assert due(run) == [run]
    assert prefect.names(run) == ["Scheduled"]


def test_run_that_moved_on_is_not_marked(
    agent: Agent, prefect: FakePrefect, due: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    agent._capacity.refuse(ON_DEMAND, uuid.uuid4(), NO_ROOM)
    run, read = prefect.add("SCHEDULED"), prefect.read_deployment

    async def cancelled_meanwhile(deployment: uuid.UUID) -> Any:
        prefect.states[run] += _after(prefect, run, "CANCELLED")
        return await read(deployment)

    monkeypatch.setattr(prefect, "read_deployment", cancelled_meanwhile)

    assert due(run) == []
    assert prefect.names(run) == ["Scheduled", "Cancelled"]


@pytest.mark.parametrize("state", ["PENDING", "RUNNING", "CANCELLED"])
def test_run_that_waits_in_the_queue_and_is_started_meanwhile_by_another_agent_is_not_marked(
    agent: Agent, prefect: FakePrefect, due: Any, monkeypatch: pytest.MonkeyPatch, state: str
) -> None:
    agent._capacity.refuse(ON_DEMAND, uuid.uuid4(), NO_ROOM)
    run, read = prefect.add("SCHEDULED"), prefect.read_deployment

    async def started_meanwhile(deployment: uuid.UUID) -> Any:
        prefect.states[run] += _after(prefect, run, state)
        return await read(deployment)

    monkeypatch.setattr(prefect, "read_deployment", started_meanwhile)

    assert due(run) == []
    assert prefect.names(run) == ["Scheduled", state.title()]


def test_errors_of_prefect_do_not_end_the_poll(
    agent: Agent, prefect: FakePrefect, due: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    agent._capacity.refuse(SPOT, uuid.uuid4(), NO_ROOM)
    on_spot = [prefect.add("SCHEDULED", job_variables={"capacity_provider": SPOT}) for _ in range(3)]
    others, request = [prefect.add("SCHEDULED"), prefect.add("SCHEDULED")], prefect.request

    async def fails_for_the_first(*args: Any, path_params: dict[str, Any], **asked: Any) -> Any:
        if path_params["id"] == on_spot[0]:
            raise ConnectionError("Prefect is away")
        return await request(*args, path_params=path_params, **asked)

    async def fails(_: uuid.UUID) -> Any:
        raise ConnectionError("Prefect is away")

    monkeypatch.setattr(prefect, "request", fails_for_the_first)
    monkeypatch.setattr(prefect, "read_deployment", fails)

    assert due(*on_spot, *others) == others
    assert [prefect.names(run)[-1] for run in on_spot] == ["Scheduled", "AwaitingCapacity", "AwaitingCapacity"]
    assert sum(agent._waiting.values()) == 3

    monkeypatch.setattr(prefect, "request", request)
    assert due(*on_spot, *others) == others
    assert prefect.names(on_spot[0])[-1] == "AwaitingCapacity"


def test_run_on_spot_that_was_restarted_twice_asks_for_on_demand_in_the_queue_too(
    agent: Agent, prefect: FakePrefect, start: Any, due: Any, run_task: RunTask
) -> None:
    agent._capacity.refuse(ON_DEMAND, uuid.uuid4(), NO_ROOM)
    spot = {"job_variables": {"capacity_provider": SPOT}}
    run = prefect.add(*["SCHEDULED:AwaitingRestart", "PENDING"] * 2, **spot)
    start(run, capacity_provider=SPOT)
    other = prefect.add("SCHEDULED", **spot)

    assert run_task.requests == []
    assert prefect.names(run)[-1] == "AwaitingCapacity"
    assert due(run, other) == [other]
    assert dict(agent._waiting) == {agent._capacity.explain(ON_DEMAND): 1}


def test_run_and_deployment_that_are_deleted_meanwhile_are_no_error(
    agent: Agent, prefect: FakePrefect, due: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    agent._capacity.refuse(ON_DEMAND, uuid.uuid4(), NO_ROOM)
    run, other, orphan = prefect.add("SCHEDULED"), prefect.add("SCHEDULED"), prefect.add("SCHEDULED")
    del prefect.deployments[prefect.runs[orphan].deployment_id or run]
    read = prefect.read_deployment

    async def deleted_meanwhile(deployment: uuid.UUID) -> Any:
        if run in prefect.runs:
            prefect.delete(run)
        return await read(deployment)

    monkeypatch.setattr(prefect, "read_deployment", deleted_meanwhile)

    assert due(run, other, orphan) == []
    assert [prefect.names(each)[-1] for each in (other, orphan)] == ["AwaitingCapacity"] * 2


def test_provider_of_a_deployment_is_remembered_for_a_minute(
    agent: Agent, prefect: FakePrefect, due: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock, reads, read = SimpleNamespace(now=1000.0), list[uuid.UUID](), prefect.read_deployment
    monkeypatch.setattr(worker.time, "monotonic", lambda: clock.now)
    agent._capacity.refuse(SPOT, uuid.uuid4(), NO_ROOM)
    deployment = prefect.deploy(capacity_provider=SPOT)
    runs = [prefect.add("SCHEDULED", deployment_id=deployment) for _ in range(5)]

    async def counted(asked: uuid.UUID) -> Any:
        reads.append(asked)
        return await read(asked)

    monkeypatch.setattr(prefect, "read_deployment", counted)
    assert (due(*runs), due(*runs), len(reads)) == ([], [], 1)

    prefect.deployments[deployment] = {"capacity_provider": ON_DEMAND}
    clock.now += 61
    assert (due(*runs), len(reads)) == (runs, 2)


# What goes on beside that


@pytest.mark.parametrize(
    ("polls", "observes", "healthy"), [(True, True, True), (True, False, False), (False, True, False)]
)
def test_agent_is_healthy_while_it_asks_for_runs_and_its_observer_reads(
    agent: Agent, monkeypatch: pytest.MonkeyPatch, polls: bool, observes: bool, healthy: bool
) -> None:
    monkeypatch.setattr(BaseWorker, "is_worker_still_polling", lambda *_: polls)
    monkeypatch.setattr(agent, "_observer", SimpleNamespace(runs=observes), raising=False)

    assert agent.is_worker_still_polling(10) is healthy


def test_agent_reads_events_and_looks_for_stranded_runs_while_it_works_and_no_longer(
    agent: Agent, monkeypatch: pytest.MonkeyPatch
) -> None:
    looking: list[recovery.Agent] = []
    reading: list[Observer] = []

    async def looks(one: recovery.Agent) -> None:
        looking.append(one)
        await asyncio.sleep(60)

    async def reads(one: Observer) -> None:
        reading.append(one)
        await asyncio.sleep(60)

    async def entered(this: Agent) -> Agent:
        return this

    async def left(*_: Any) -> None:
        pass

    async def prefects_own() -> None:
        pytest.fail("Prefect's own observer is not to be started")

    monkeypatch.setenv("TASK_EVENTS_QUEUE", "dev_dataflow_automation_task_events")
    monkeypatch.setattr(recovery, "keep_looking", looks)
    monkeypatch.setattr(Observer, "keep_reading", reads)
    monkeypatch.setattr(BaseWorker, "__aenter__", entered)
    monkeypatch.setattr(BaseWorker, "__aexit__", left)
    monkeypatch.setattr("prefect_aws.workers.ecs_worker.start_observer", prefects_own)
    monkeypatch.setattr("prefect_aws.workers.ecs_worker.stop_observer", prefects_own)

    async def work() -> None:
        async with agent:
            await asyncio.sleep(0)
            agent._submitting_flow_run_ids.add(uuid.UUID(int=1))
            agent._waiting["why"] = 2
            assert looking[0].starting() == {uuid.UUID(int=1)}
            assert looking[0].waiting() == {"why": 2}
            assert agent._observer is reading[0]
            assert agent._observer._queue == "dev_dataflow_automation_task_events"
            assert agent._observer._handle == agent._on_stopped
            beside = agent._beside
        await asyncio.sleep(0)
        assert [task.cancelled() for task in beside] == [True, True]

    asyncio.run(work())
    assert (looking[0].project, looking[0].name, looking[0].heartbeat_seconds, looking[0].capacity) == (
        "dev_dataflow_automation",
        "me",
        10,
        agent._capacity,
    )


@pytest.fixture
def settled(agent: Agent, monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Tags of the tasks whose end was seen to, and what was shown at Prefect."""
    done: list[Any] = []

    async def settle(client: Any, task: dict[str, Any], tags: dict[str, str], capacity: Any) -> None:
        assert (client, capacity) == (agent._client, agent._capacity)
        done.append(("settled", task["taskArn"], tags))

    async def replicate(event: dict[str, Any], tags: dict[str, str]) -> None:
        done.append(("shown", event["detail"]["taskArn"], tags))

    monkeypatch.setattr(task_ends, "settle", settle)
    monkeypatch.setattr(worker, "replicate_ecs_event", replicate)
    return done


def _event(arn: str, **detail: Any) -> dict[str, Any]:
    return {"detail": {"taskArn": arn, "clusterArn": CLUSTER, "lastStatus": "STOPPED", **detail}}


def test_event_of_a_stopped_task_is_seen_to_and_shown(agent: Agent, ecs: FakeEcs, settled: list[Any]) -> None:
    run = uuid.uuid4()
    arn = ecs.start(f"{run}-2", "STOPPED", restarts="3")
    asyncio.run(agent._on_stopped(_event(arn)))
    tags = {"prefect.io/flow-run-id": str(run), "attempt": f"{run}-2", "restarts": "3"}

    assert settled == [("settled", arn, tags), ("shown", arn, tags)]


def test_event_of_a_task_that_ecs_no_longer_lists_is_of_the_run_that_it_was_started_by(
    agent: Agent, settled: list[Any]
) -> None:
    run = uuid.uuid4()
    asyncio.run(agent._on_stopped(_event(TASK, startedBy=str(run))))

    assert settled[0] == ("settled", TASK, {"prefect.io/flow-run-id": str(run)})


@pytest.mark.parametrize("detail", [{}, {"startedBy": ""}, {"startedBy": "ecs-svc/1234567890"}])
def test_event_of_a_task_of_something_else_is_left_alone(
    agent: Agent, settled: list[Any], detail: dict[str, str]
) -> None:
    asyncio.run(agent._on_stopped(_event(TASK, **detail)))

    assert settled == []


def test_event_that_can_not_be_seen_to_comes_again(
    agent: Agent, ecs: FakeEcs, settled: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fails(*_: Any) -> None:
        raise ConnectionError("Prefect is away")

    monkeypatch.setattr(task_ends, "settle", fails)
    with pytest.raises(ConnectionError):
        asyncio.run(agent._on_stopped(_event(ecs.start(f"{uuid.uuid4()}-0", "STOPPED"))))


def test_event_that_can_not_be_shown_does_not_come_again(
    agent: Agent, ecs: FakeEcs, settled: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fails(*_: Any) -> None:
        raise ConnectionError("Prefect's events are away")

    monkeypatch.setattr(worker, "replicate_ecs_event", fails)
    asyncio.run(agent._on_stopped(_event(ecs.start(f"{uuid.uuid4()}-0", "STOPPED"))))

    assert [what for what, *_ in settled] == ["settled"]


def test_prefect_still_finds_its_own_worker_by_type() -> None:
    assert BaseWorker.get_worker_class_from_type("ecs") is ECSWorker


@pytest.mark.parametrize("restarts", [-1, "many"])
def test_restarts_are_a_number(restarts: Any) -> None:
    with pytest.raises(ValueError, match="restarts"):
        JobConfiguration(task_definition={"family": "x"}, restarts=restarts)


def test_container_ends_in_order_when_it_is_asked_to_stop(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[Any] = []

    async def start(this: Agent, with_healthcheck: bool) -> None:
        calls.append((this._work_pool_name, this.name, this._create_pool_if_not_found, with_healthcheck))
        raise asyncio.CancelledError

    environment: dict[str, str] = {}
    monkeypatch.setattr(worker.os, "environ", {"PREFECT_PROJECT": "dev_dataflow_automation"})
    monkeypatch.setattr(worker, "agent_name", lambda: "dev_dataflow_automation_1")
    monkeypatch.setattr(worker, "setup_signal_handlers_worker", lambda *asked: calls.append(asked[1]))
    monkeypatch.setattr(Agent, "start", start)
    worker.main()
    environment |= worker.os.environ

    assert calls == ["the agent", ("dev_dataflow_automation", "dev_dataflow_automation_1", False, True)]
    assert environment["PREFECT_INTEGRATIONS_AWS_ECS_WORKER_CREATE_TASK_RUN_MAX_ATTEMPTS"] == "1"
    assert environment["PREFECT_INTEGRATIONS_AWS_ECS_WORKER_REGISTER_TASK_DEFINITION_MAX_ATTEMPTS"] == "1"


def test_prefects_own_retries_are_off_by_the_settings_that_the_agent_makes(monkeypatch: pytest.MonkeyPatch) -> None:
    from prefect_aws.settings import EcsWorkerSettings

    for name in worker.ONE_ATTEMPT:
        monkeypatch.setenv(f"PREFECT_INTEGRATIONS_AWS_ECS_WORKER_{name}", "1")
    settings = EcsWorkerSettings()

    assert (settings.create_task_run_max_attempts, settings.register_task_definition_max_attempts) == (1, 1)
