"""What the agent makes of AWS's answers to RunTask and RegisterTaskDefinition."""

import pytest

from agent import refusals
from agent.worker import Agent
from unit_tests import aws_responses
from unit_tests.aws_responses import body, samples

REQUEST = {"cluster": "arn:aws:ecs:us-west-2:111122223333:cluster/workflows", "taskDefinition": "etl:1"}
WAITS, ASKS_AGAIN, NEVER, STALE = (
    refusals.RefusedError,
    refusals.NoAnswerError,
    refusals.NeverStartsError,
    refusals.StaleError,
)
FAILURES = {
    "fargate_capacity": WAITS,
    "vcpu_quota": WAITS,
    "task_quota": WAITS,
    "fargate_spot": WAITS,
    "cpu": WAITS,
    "memory": WAITS,
    "eni": WAITS,
    "agent": WAITS,
    "location": NEVER,
    "attribute": NEVER,
}
ERRORS = {
    "throttled": WAITS,
    "provisioning_limit": WAITS,
    "server": ASKS_AGAIN,
    "inactive": STALE,
    "unknown_definition": refusals.NotYetKnownError,
    "unknown_cluster": NEVER,
    "overrides": NEVER,
    "unknown_container": NEVER,
    "role": NEVER,
    "concurrent_registration": WAITS,
    "size": NEVER,
    "cpu": NEVER,
    "invalid_role": NEVER,
    "too_long": NEVER,
}
"""For each sample what the run does: wait, be tried again, or end."""


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
def test_failures_say_whether_the_run_waits(case: str, agent: Agent) -> None:
    ecs = aws_responses.client("ecs", samples("ecs_run_task_failures")[case])
    (failure,) = body("ecs_run_task_failures", case)["failures"]
    with pytest.raises(FAILURES[case], match=failure["reason"]):
        agent._create_task_run(ecs, REQUEST)


@pytest.mark.parametrize("case", ERRORS)
def test_errors_say_whether_the_run_waits(case: str) -> None:
    sample = samples("ecs_errors")[case]
    ecs = aws_responses.client("ecs", sample)
    request = (
        REQUEST if sample["operation"] == "RunTask" else samples("ecs_describe_task_definition")["minimal"]["request"]
    )
    call = ecs.run_task if sample["operation"] == "RunTask" else ecs.register_task_definition
    with pytest.raises(ecs.exceptions.ClientError) as caught:
        call(**request)
    meaning = refusals.of_error(caught.value)

    assert type(meaning) is ERRORS[case]
    assert sample["response"]["message"] in str(meaning)
