"""The queue of task events is out of reach or holds what nobody understands, and Prefect is asked too often."""

import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from functional_tests import runs
from functional_tests.faults import Faults
from functional_tests.platform import Platform, wait_for

pytestmark = pytest.mark.reliability
STARTS_WITHIN_SECONDS = 300
SEEN_WITHIN_SECONDS = 120
OUTAGE_SECONDS = 4
POLICY = "queue_is_out_of_reach"
REQUESTS_A_MINUTE = 240
"""Of Prefect: a run takes about 40, and all begin at once."""
FLOW = """
import time
from prefect import flow
from prefect.runtime import flow_run

@flow
def storm():
    pass

@flow
def lasting():
    if flow_run.run_count == 1:
        time.sleep(600)
"""


@pytest.fixture(scope="module")
def deployments(platform: Platform, first_deploy: str, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Ids of the deployments by flow."""
    folder = tmp_path_factory.mktemp("storms") / "storms"
    folder.mkdir()
    (folder / "flow.py").write_text(FLOW)
    platform.invoke("register", "--workflow-path", str(folder), "--cpu", "256", "--memory", "512")
    return {flow: str(runs.deployment(platform, flow)["id"]) for flow in ("storm", "lasting")}


@pytest.fixture
def queue_access(deployed: Platform) -> Iterator[Callable[[bool], None]]:
    """Takes the agent's permission to read its queue away, or gives it back."""
    iam, role = deployed.aws("iam"), f"{deployed.prefix}_agent_task"
    denied = {"Effect": "Deny", "Action": "sqs:*", "Resource": "*"}
    document = json.dumps({"Version": "2012-10-17", "Statement": [denied]})

    def give(allowed: bool) -> None:
        if allowed:
            iam.delete_role_policy(RoleName=role, PolicyName=POLICY)
        else:
            iam.put_role_policy(RoleName=role, PolicyName=POLICY, PolicyDocument=document)

    yield give
    if POLICY in iam.list_role_policies(RoleName=role)["PolicyNames"]:
        give(True)


@pytest.fixture
def request_limit(deployed: Platform) -> Iterator[Callable[[int], None]]:
    """Lets the Prefect server take so many requests a minute."""
    file = deployed.folder / ".local" / "local" / "prefect_requests_a_minute"
    yield lambda count: file.write_text(str(count)) and None
    file.unlink(missing_ok=True)


def test_observer_survives_outages_of_its_queue_and_messages_that_nobody_understands(
    deployed: Platform,
    deployments: dict[str, str],
    queue_access: Callable[[bool], None],
    often: Callable[[int, int], int],
    faults: Faults,
) -> None:
    sqs = deployed.aws("sqs")
    url = sqs.get_queue_url(QueueName=f"{deployed.prefix}_task_events")["QueueUrl"]
    agent = deployed.only_agent()
    run = runs.create(deployed, deployments["lasting"], job_variables={"restarts": 1})
    container = wait_for("its container", lambda: runs.container(deployed, run), STARTS_WITHIN_SECONDS)
    runs.wait_for_state(deployed, run, "Running", STARTS_WITHIN_SECONDS)
    outages = often(2, 10)
    for number in range(outages):
        sqs.send_message(QueueUrl=url, MessageBody=f"not JSON {number}")
        sqs.send_message(QueueUrl=url, MessageBody='{"detail": []}')
        queue_access(False)
        time.sleep(OUTAGE_SECONDS)
        queue_access(True)
        time.sleep(1)
    begin = time.monotonic()
    container.kill()
    runs.wait_for_state(deployed, run, "Crashed", SEEN_WITHIN_SECONDS)
    seconds = time.monotonic() - begin
    runs.wait_for_state(deployed, run, "Completed", STARTS_WITHIN_SECONDS)
    assert [each.id for each in deployed.agent_containers] == [agent.id]
    lost = int(len(runs.tasks(deployed)[run]) != 2)
    name = "observer's queue is out of reach, with messages that nobody understands: until a death is seen after it"
    assert faults.record(name, outages, lost, [seconds]).lost == 0


def test_messages_that_nobody_understands_are_set_aside(deployed: Platform) -> None:
    """Also those of the outages before: after this test none is left."""
    sqs = deployed.aws("sqs")
    queue, dead = [
        sqs.get_queue_url(QueueName=f"{deployed.prefix}_task_events{end}")["QueueUrl"] for end in ("", "_dead_letters")
    ]
    sqs.send_message(QueueUrl=queue, MessageBody="set this aside")

    def held(url: str) -> int:
        names = ["ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible"]
        return sum(map(int, sqs.get_queue_attributes(QueueUrl=url, AttributeNames=names)["Attributes"].values()))

    wait_for("no message in the queue, and dead letters", lambda: not held(queue) and held(dead), 400)
    parts = {part["name"]: part for part in deployed.status()["components"]}
    assert not parts["dead letters"]["ok"]
    sqs.purge_queue(QueueUrl=dead)
    assert held(dead) == 0


def test_no_run_is_lost_when_prefect_is_asked_too_often(
    deployed: Platform,
    deployments: dict[str, str],
    request_limit: Callable[[int], None],
    often: Callable[[int, int], int],
    faults: Faults,
    tmp_path: Path,
) -> None:
    count = often(5, 20)
    made = [runs.create(deployed, deployments["storm"]) for _ in range(count)]
    request_limit(REQUESTS_A_MINUTE)
    command = deployed.start("run", "storm")
    try:
        deployed.finish(command, "run", "storm")
        time.sleep(often(5, 60))
    finally:
        request_limit(10**6)

    def ended() -> bool:
        return all(
            run["state_type"] in ("COMPLETED", "CRASHED", "FAILED") for run in runs.read(deployed, made).values()
        )

    wait_for("the end of all", ended, 300 + 20 * count)
    tasks = runs.tasks(deployed)
    wrong = {
        run: [state["name"] for state in runs.states(deployed, run)]
        for run in made
        if runs.read(deployed, [run])[run]["state_type"] != "COMPLETED" or len(tasks[run]) != 1
    }
    assert wrong == {}
    name = f"Prefect answers 429 to whatever is more than {REQUESTS_A_MINUTE} requests a minute, during {count} runs"
    assert faults.record(name, 1, len(wrong)).lost == 0
