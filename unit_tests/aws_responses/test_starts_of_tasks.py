"""What the agent makes of AWS's answers to RunTask."""

import pytest

from agent.worker import Agent
from unit_tests import aws_responses
from unit_tests.aws_responses import body, samples

REQUEST = {"cluster": "arn:aws:ecs:us-west-2:111122223333:cluster/workflows", "taskDefinition": "etl:1"}


@pytest.fixture
def agent() -> Agent:
    return Agent(work_pool_name="dev_dataflow_automation", name="me", heartbeat_interval_seconds=10)


def test_task_that_was_started_is_the_one(agent: Agent) -> None:
    ecs = aws_responses.client("ecs", samples("ecs_run_task")["started"])
    started = agent._create_task_run(ecs, REQUEST)

    assert started["taskArn"] == body("ecs_run_task", "started")["tasks"][0]["taskArn"]
    assert started["lastStatus"] == "PROVISIONING"


def test_task_that_was_started_with_this_token_before_is_the_one(agent: Agent) -> None:
    ecs = aws_responses.client("ecs", samples("ecs_errors")["token"])
    started = agent._create_task_run(ecs, REQUEST)

    assert started == {
        "taskArn": body("ecs_run_task", "started")["tasks"][0]["taskArn"],
        "clusterArn": REQUEST["cluster"],
    }


@pytest.mark.parametrize("case", samples("ecs_run_task_failures"))
def test_task_that_was_not_started_is_told_with_the_reason(case: str, agent: Agent) -> None:
    ecs = aws_responses.client("ecs", samples("ecs_run_task_failures")[case])
    (failure,) = body("ecs_run_task_failures", case)["failures"]
    with pytest.raises(RuntimeError) as caught:
        agent._create_task_run(ecs, REQUEST)
    assert failure["reason"] in str(caught.value)


@pytest.mark.parametrize(
    "case",
    [name for name, sample in samples("ecs_errors").items() if sample["operation"] == "RunTask" and name != "token"],
)
def test_error_of_aws_is_told_in_its_words(case: str, agent: Agent) -> None:
    ecs = aws_responses.client("ecs", samples("ecs_errors")[case])
    with pytest.raises(ecs.exceptions.ClientError) as caught:
        agent._create_task_run(ecs, REQUEST)
    assert body("ecs_errors", case)["message"] in str(caught.value)
