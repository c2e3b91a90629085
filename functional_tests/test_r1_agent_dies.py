"""No run is lost when the agent dies: every run ends COMPLETED, exactly once."""

import datetime
import random
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from functional_tests import runs
from functional_tests.faults import Faults
from functional_tests.platform import Platform, wait_for

pytestmark = pytest.mark.reliability
SECONDS_FOR_EACH = 20
AT_LEAST_SECONDS = 180
LONGEST_PAUSE_SECONDS = 4.0
FLOW = """
from prefect import flow

@flow
def brief(number: int = 0) -> int:
    return number
"""


@pytest.fixture(scope="module")
def brief(platform: Platform, first_deploy: str, tmp_path_factory: pytest.TempPathFactory) -> str:
    """Id of a deployment of a flow that does next to nothing."""
    return runs.register(platform, tmp_path_factory.mktemp("brief") / "brief", "brief", FLOW)


@pytest.fixture
def agents(deployed: Platform, often: Callable[[int, int], int]) -> Iterator[int]:
    """How many agents there are: one in the gate, two side by side at full size."""
    count, service = often(1, 2), f"{deployed.prefix}_agent"
    scale = deployed.aws("ecs").update_service
    if count > 1:
        scale(cluster=service, service=service, desiredCount=count)
        wait_for("all agents", lambda: len(deployed.agent_containers) == count)
    yield count
    if count > 1:
        scale(cluster=service, service=service, desiredCount=1)
        wait_for("one agent", lambda: len(deployed.agent_containers) == 1)


def ended(platform: Platform, which: list[str]) -> bool:
    """Whether all these runs have come to an end."""
    found = runs.read(platform, which).values()
    return all(run["state_type"] in ("COMPLETED", "FAILED", "CRASHED", "CANCELLED") for run in found)


def not_once(platform: Platform, which: list[str]) -> dict[str, Any]:
    """Those of the runs that did not run to COMPLETED exactly once, with their states."""
    found, tasks, wrong = runs.read(platform, which), runs.tasks(platform), {}
    for run in which:
        names = [state["name"] for state in runs.states(platform, run)]
        once = found[run]["run_count"] == names.count("Running") == len(tasks[run]) == 1
        if not once or names[-1] != "Completed":
            wrong[run] = names, len(tasks[run])
    return wrong


def test_every_run_completes_once_while_agents_are_killed(
    deployed: Platform, brief: str, agents: int, often: Callable[[int, int], int], faults: Faults
) -> None:
    kills, each = often(2, 10), often(4, 10)
    seed = random.randrange(10**6)
    chance = random.Random(seed)
    print(f"seed {seed}")
    # One that an agent has taken, and died before it started the task.
    every = [runs.create(deployed, brief, state={"type": "PENDING", "name": "Submitting"})]
    killed: list[tuple[datetime.datetime, list[str]]] = []
    for _ in range(kills):
        new = [runs.create(deployed, brief, parameters={"number": number}) for number in range(each)]
        every += new
        wait_for("an agent at work", lambda new=new: taken(deployed, new), AT_LEAST_SECONDS)
        time.sleep(chance.uniform(0, LONGEST_PAUSE_SECONDS))
        victim = chance.choice(wait_for("an agent", lambda: deployed.agent_containers))
        victim.kill()
        killed.append((datetime.datetime.now(datetime.UTC), list(every)))
        wait_for("all agents", lambda gone=victim.id: running_without(deployed, gone) == agents)
    wait_for("the end of all", lambda: ended(deployed, every), AT_LEAST_SECONDS + SECONDS_FOR_EACH * len(every))
    wrong = not_once(deployed, every)
    ends = {run: runs.moment(each["state"]) for run, each in runs.read(deployed, every).items()}
    recoveries = [(max(ends[run] for run in there) - when).total_seconds() for when, there in killed]
    name = f"agent killed (1 of {agents}) while {len(every)} runs are worked off: until all that there were are done"
    fault = faults.record(name, kills, len(wrong), recoveries)
    assert wrong == {}
    assert fault.lost == 0


def taken(platform: Platform, which: list[str]) -> bool:
    """Whether an agent has taken one of these runs."""
    return any(run["state_type"] != "SCHEDULED" for run in runs.read(platform, which).values())


def running_without(platform: Platform, gone: str) -> int:
    """How many agents there are, one of them left out."""
    return len([container for container in platform.agent_containers if container.id != gone])
