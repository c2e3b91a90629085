import asyncio
import uuid
from types import SimpleNamespace
from typing import Any

import boto3
import pytest
from botocore.stub import Stubber
from prefect.client.schemas.objects import FlowRun
from prefect.workers.base import BaseWorker
from prefect_aws.workers.ecs_worker import ECSWorker

from agent import recovery, worker
from agent.worker import Agent, JobConfiguration
from unit_tests.agent.prefect_fake import FakePrefect

CLUSTER = "arn:aws:ecs:eu-west-1:123456789012:cluster/dev_dataflow_automation_workflows"
TASK = "arn:aws:ecs:eu-west-1:123456789012:task/dev_dataflow_automation_workflows/1"
DEFINITION = {"family": "workflow", "containerDefinitions": [{"name": "workflow"}]}
REQUEST = {"cluster": CLUSTER, "taskDefinition": "family:1", "clientToken": "run-0"}


@pytest.fixture
def agent() -> Agent:
    return Agent(work_pool_name="dev_dataflow_automation", name="me", heartbeat_interval_seconds=10)


@pytest.fixture
def configurations(monkeypatch: pytest.MonkeyPatch) -> list[JobConfiguration]:
    """What Prefect's own worker was told to run."""
    told: list[JobConfiguration] = []

    async def run(_: Any, flow_run: FlowRun, configuration: JobConfiguration, task_status: Any = None) -> Any:
        told.append(configuration)

    monkeypatch.setattr(ECSWorker, "run", run)
    return told


def test_task_carries_the_name_of_its_attempt_and_how_often_it_may_be_restarted(
    agent: Agent, configurations: list[JobConfiguration], monkeypatch: pytest.MonkeyPatch
) -> None:
    prefect = FakePrefect()
    monkeypatch.setattr(agent, "_client", prefect)
    run = prefect.add("SCHEDULED", "PENDING", "RUNNING", "CRASHED", "SCHEDULED", "PENDING:Submitting")
    asked = JobConfiguration(
        task_definition=DEFINITION, task_run_request={"cluster": CLUSTER}, restarts=3, labels={"team": "data"}
    )
    asyncio.run(agent.run(prefect.runs[run], asked))

    [told] = configurations
    assert told.task_run_request == {"cluster": CLUSTER, "startedBy": str(run), "clientToken": f"{run}-2"}
    assert told.labels == {"team": "data", "attempt": f"{run}-2", "restarts": "3"}


@pytest.mark.parametrize(("restarts", "capacity"), [(0, "FARGATE_SPOT"), (1, "FARGATE_SPOT"), (2, "FARGATE")])
def test_second_restart_of_a_run_on_spot_is_on_demand(
    agent: Agent,
    configurations: list[JobConfiguration],
    monkeypatch: pytest.MonkeyPatch,
    restarts: int,
    capacity: str,
) -> None:
    prefect = FakePrefect()
    monkeypatch.setattr(agent, "_client", prefect)
    run = prefect.add(*["SCHEDULED:AwaitingRestart", "PENDING"] * restarts)
    request = {"cluster": CLUSTER, "capacityProviderStrategy": [{"capacityProvider": "FARGATE_SPOT", "weight": 1}]}
    asyncio.run(agent.run(prefect.runs[run], JobConfiguration(task_definition=DEFINITION, task_run_request=request)))

    [told] = configurations
    assert told.task_run_request["capacityProviderStrategy"] == [{"capacityProvider": capacity, "weight": 1}]


def test_request_to_ecs_holds_what_the_attempt_is_called(agent: Agent) -> None:
    asked = JobConfiguration(
        task_definition=DEFINITION,
        task_run_request={"cluster": CLUSTER, "clientToken": "run-0", "startedBy": "run-0", "tags": []},
        labels={"restarts": "3"},
        command="prefect flow-run execute",
    )
    request = agent._prepare_task_run_request(asked, DEFINITION, "family:1", False)

    assert (request["clientToken"], request["startedBy"]) == ("run-0", "run-0")
    assert {"key": "restarts", "value": "3"} in request["tags"]


def test_task_that_was_started_for_the_attempt_already_is_the_one(agent: Agent) -> None:
    client = boto3.client("ecs", region_name="eu-west-1", aws_access_key_id="x", aws_secret_access_key="x")
    with Stubber(client) as ecs:
        ecs.add_client_error("run_task", "ConflictException", modeled_fields={"resourceIds": [TASK]})
        task = agent._create_task_run(client, REQUEST)

    assert task == {"taskArn": TASK, "clusterArn": CLUSTER}


def test_other_errors_of_ecs_are_errors(agent: Agent) -> None:
    client = boto3.client("ecs", region_name="eu-west-1", aws_access_key_id="x", aws_secret_access_key="x")
    with Stubber(client) as ecs:
        ecs.add_client_error("run_task", "InvalidParameterException")
        with pytest.raises(client.exceptions.InvalidParameterException):
            agent._create_task_run(client, REQUEST)


def test_agent_looks_for_stranded_runs_while_it_works_and_no_longer(
    agent: Agent, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[recovery.Agent] = []

    async def looks(looking: recovery.Agent) -> None:
        told.append(looking)
        await asyncio.sleep(60)

    async def entered(this: Agent) -> Agent:
        return this

    async def left(*_: Any) -> None:
        pass

    monkeypatch.setattr(recovery, "keep_looking", looks)
    monkeypatch.setattr(ECSWorker, "__aenter__", entered)
    monkeypatch.setattr(ECSWorker, "__aexit__", left)

    async def work() -> None:
        async with agent:
            await asyncio.sleep(0)
            agent._submitting_flow_run_ids.add(uuid.UUID(int=1))
            assert told[0].starting() == {uuid.UUID(int=1)}
        await asyncio.sleep(0)
        assert agent._recovery.cancelled()

    asyncio.run(work())
    [looking] = told
    assert (looking.project, looking.name, looking.heartbeat_seconds) == ("dev_dataflow_automation", "me", 10)


def test_prefect_still_finds_its_own_worker_by_type() -> None:
    assert BaseWorker.get_worker_class_from_type("ecs") is ECSWorker


def test_container_ends_in_order_when_it_is_asked_to_stop(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[Any] = []

    async def start(this: Agent, with_healthcheck: bool) -> None:
        calls.append((this._work_pool_name, this.name, this._create_pool_if_not_found, with_healthcheck))
        raise asyncio.CancelledError

    monkeypatch.setenv("PREFECT_PROJECT", "dev_dataflow_automation")
    monkeypatch.setattr(worker, "agent_name", lambda: "dev_dataflow_automation_1")
    monkeypatch.setattr(worker, "setup_signal_handlers_worker", lambda *asked: calls.append(asked[1]))
    monkeypatch.setattr(worker, "task_ends", SimpleNamespace(observe=lambda: calls.append("observes")))
    monkeypatch.setattr(Agent, "start", start)
    worker.main()

    assert calls == ["the agent", "observes", ("dev_dataflow_automation", "dev_dataflow_automation_1", False, True)]
