"""AWS refuses tasks, or limits them: runs wait in their order, fit, or end at once with advice; none is lost."""

import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from functional_tests import capacity, runs
from functional_tests.faults import Faults
from functional_tests.platform import Platform, wait_for

pytestmark = pytest.mark.reliability
SECONDS_FOR_EACH = 15
AT_LEAST_SECONDS = 300
REFUSED_WITHIN_SECONDS = 60
SIZES = ({"cpu": 256, "memory": 512}, {"cpu": 512, "memory": 1024})
UNAVAILABLE = "Capacity is unavailable at this time. Please try again later or in a different availability zone"
QUOTA = "You've reached the limit on the number of vCPUs you can run concurrently"
CONCURRENT = "Too many concurrent attempts to create a new revision of the specified family."
LARGE = 20_000
FLOW = """
import os
from prefect import flow

@flow(log_prints=True)
def small(number: int = 0) -> None:
    print("variables", sum(len(value) for name, value in os.environ.items() if name.startswith("LARGE_")))
"""


@pytest.fixture(scope="module")
def small(platform: Platform, first_deploy: str, tmp_path_factory: pytest.TempPathFactory) -> str:
    """Id of a deployment of a flow that does next to nothing."""
    return runs.register(platform, tmp_path_factory.mktemp("small") / "small", "small", FLOW)


@pytest.fixture(autouse=True)
def room_again(deployed: Platform) -> Iterator[None]:
    """Whatever becomes of the test, AWS has room after it."""
    yield
    capacity.refuse(deployed, [])


def refusals(count: int) -> list[dict[str, Any]]:
    """So many refusals of each kind that RunTask knows, one after the other."""
    kinds: list[dict[str, Any]] = [
        {"capacityProvider": "FARGATE", "reason": "RESOURCE:CPU"},
        {"capacityProvider": "FARGATE_SPOT", "reason": UNAVAILABLE},
        {"capacityProvider": "FARGATE", "exception": "ThrottlingException", "message": "Rate exceeded", "times": 5},
        {"capacityProvider": "FARGATE", "reason": QUOTA},
        {"capacityProvider": "FARGATE", "startFailure": UNAVAILABLE},
    ]
    return [kinds[number % len(kinds)] for number in range(count)]


def test_runs_wait_for_capacity_in_their_order_and_each_runs_once(
    deployed: Platform, small: str, often: Callable[[int, int], int], faults: Faults
) -> None:
    count, refused = often(10, 50), often(5, 20)
    registering = {"action": "RegisterTaskDefinition", "exception": "ClientException", "message": CONCURRENT}
    capacity.refuse(deployed, [*refusals(refused), {**registering, "times": 2}])
    made = []
    for number in range(count):
        provider = "FARGATE_SPOT" if number % 5 == 4 else "FARGATE"
        variables = {**SIZES[number % 2], "capacity_provider": provider}
        made.append(runs.create(deployed, small, parameters={"number": number}, job_variables=variables))

    def ended() -> bool:
        return all(
            run["state_type"] in ("COMPLETED", "CRASHED", "FAILED") for run in runs.read(deployed, made).values()
        )

    wait_for("the end of all", ended, AT_LEAST_SECONDS + SECONDS_FOR_EACH * count)
    tasks, waited, wrong = runs.tasks(deployed), 0, {}
    for run in made:
        states = runs.states(deployed, run)
        names = [state["name"] for state in states]
        started = [task for task in tasks[run] if task.get("stopCode") != "TaskFailedToStart"]
        if names.count("Running") != 1 or names[-1] != "Completed" or len(started) != 1:
            wrong[run] = names, [task.get("stopCode") for task in tasks[run]]
        messages = [state["message"] for state in states if state["name"] == "AwaitingCapacity"]
        assert all("waits for capacity of FARGATE" in message and " since 20" in message for message in messages)
        waited += bool(messages)
    assert waited > 0
    assert wrong == {}
    left = capacity.left(deployed)
    name = f"capacity refused during {count} runs in two sizes: runs that wait for it and run once"
    assert faults.record(name, refused - len(left), len(wrong)).lost == 0
    family = tasks[made[0]][0]["taskDefinitionArn"].rpartition("/")[2].rpartition(":")[0]
    revisions = deployed.aws("ecs").list_task_definitions(familyPrefix=family)["taskDefinitionArns"]
    assert len(revisions) == 1


def test_status_says_what_waits_and_the_oldest_run_is_started_first(deployed: Platform, small: str) -> None:
    capacity.refuse(deployed, [{"capacityProvider": "FARGATE", "reason": QUOTA, "times": 1000}])
    made = [runs.create(deployed, small, parameters={"number": number}) for number in range(4)]
    for run in made:
        runs.wait_for_state(deployed, run, "AwaitingCapacity", REFUSED_WITHIN_SECONDS)
    parts = {part["name"]: part for part in deployed.status()["components"]}
    assert "4 wait: The run waits for capacity of FARGATE since " in parts["capacity"]["state"]
    assert QUOTA in parts["capacity"]["state"]
    assert parts["late runs"]["ok"]
    capacity.refuse(deployed, [])
    for run in made:
        runs.wait_for_state(deployed, run, "Completed", AT_LEAST_SECONDS)
    tasks = runs.tasks(deployed)
    began = [tasks[run][-1]["createdAt"] for run in made]
    assert began[0] == min(began)


@pytest.mark.parametrize(
    ("variables", "words"),
    [
        ({"cpu": 300, "memory": 512}, "AWS Fargate has no size of cpu 300 with memory 512"),
        ({"env": {"LARGE": "x" * 70_000}}, "its environment variables are too large for AWS"),
    ],
    ids=["size", "variables"],
)
def test_run_that_can_never_start_ends_at_once_with_advice(
    deployed: Platform, small: str, variables: dict[str, Any], words: str
) -> None:
    run = runs.create(deployed, small, job_variables=variables)
    crashed = runs.wait_for_state(deployed, run, "Crashed", REFUSED_WITHIN_SECONDS)
    assert f"Not started: {words}" in crashed["message"]
    assert " To do: " in crashed["message"]
    assert "Traceback" not in runs.log(deployed, run)
    assert run not in runs.tasks(deployed)


def test_run_fits_what_aws_limits(deployed: Platform, small: str) -> None:
    labels = {f"label{number}": "x" * 300 for number in range(60)} | {"aws:mine": "reserved"}
    variables = {"env": {f"LARGE_{number}": "y" * 2_000 for number in range(LARGE // 2_000)}, "labels": labels}
    run = runs.create(deployed, small, name="n" * 400, job_variables=variables)
    runs.wait_for_state(deployed, run, "Completed", AT_LEAST_SECONDS)
    wait_for("all variables", lambda: f"variables {LARGE}" in runs.log(deployed, run))
    (task,) = runs.tasks(deployed)[run]
    tags = {tag["key"]: tag["value"] for tag in task["tags"]}
    assert len(tags) == 50
    assert tags["prefect.io/flow-run-id"] == run
    assert not any(key.startswith("aws:") for key in tags)
    assert max(map(len, tags.values())) == 256
    assert len(json.dumps(task["overrides"])) <= 8192


def test_definitions_of_a_workflow_go_when_it_is_unregistered(deployed: Platform, small: str) -> None:
    ecs, family = deployed.aws("ecs"), runs.deployment(deployed, "small")["job_variables"]["family"]
    prefix = f"{deployed.prefix}_workflow_{family}"
    assert ecs.list_task_definitions(familyPrefix=prefix)["taskDefinitionArns"] != []
    deployed.invoke("unregister", "--name", "small", "--yes")
    wait_for("no revision", lambda: not ecs.list_task_definitions(familyPrefix=prefix)["taskDefinitionArns"], 120)
