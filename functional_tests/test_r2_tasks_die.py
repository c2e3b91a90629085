"""A task that dies is seen: its run says why, with its last lines, and starts again if it was told to survive that."""

import datetime
from collections.abc import Callable
from typing import Any

import pytest

from functional_tests import runs
from functional_tests.faults import Faults
from functional_tests.platform import Platform, wait_for

pytestmark = pytest.mark.reliability
SEEN_WITHIN_SECONDS = 30
STARTS_WITHIN_SECONDS = 300
LAST_WORDS = "these are its last words"
TIDIED_UP = "tidied up before the end"
FLOW = f"""
import time
from prefect import flow
from prefect.logging.loggers import flow_run_logger
from prefect.runtime import flow_run

def tidy_up(flow, flow_run, state):
    flow_run_logger(flow_run, flow).info("{TIDIED_UP}")

@flow(on_cancellation=[tidy_up])
def frail(dies: int = 0, mib: int = 0):
    print("{LAST_WORDS}", flush=True)
    held = b"x" * (mib << 20)
    if flow_run.run_count <= dies:
        time.sleep(600)
    del held
"""


@pytest.fixture(scope="module")
def started(platform: Platform, first_deploy: str, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Runs by what will happen to them, at work side by side; `dies` is how often they wait for it."""
    folder = tmp_path_factory.mktemp("frail") / "frail"
    folder.mkdir()
    (folder / "flow.py").write_text(FLOW)
    platform.invoke("register", "--workflow-path", str(folder), "--cpu", "256", "--memory", "512")
    frail = runs.deployment(platform, "frail")
    nowhere = frail["job_variables"]["image"].partition("@")[0] + ":gone"
    chosen: dict[str, dict[str, Any]] = {
        "interrupted": {
            "parameters": {"dies": 2},
            "job_variables": {"capacity_provider": "FARGATE_SPOT", "restarts": 2},
        },
        "killed": {"parameters": {"dies": 1}, "job_variables": {"restarts": 1}},
        "cancelled": {"parameters": {"dies": 1}, "job_variables": {"restarts": 1}},
        "stopped by hand": {"parameters": {"dies": 1}, "job_variables": {"restarts": 1}},
        "hungry": {"parameters": {"mib": 2000}},
        "without an image": {"job_variables": {"image": nowhere, "restarts": 1}},
    }
    return {name: runs.create(platform, frail["id"], **properties) for name, properties in chosen.items()}


def end(
    platform: Platform, run: str, by: Callable[[Any, dict[str, Any]], None], nth: int = 1
) -> tuple[dict[str, Any], float]:
    """End the task of a run that is at work for the nth time; gives its crashed state, and the seconds until then."""
    container = wait_for(f"run {run} at work", lambda: runs.container(platform, run), STARTS_WITHIN_SECONDS)
    wait_for("its last words", lambda: LAST_WORDS in container.logs().decode(), STARTS_WITHIN_SECONDS)
    task, before = runs.tasks(platform)[run][-1], datetime.datetime.now(datetime.UTC)
    by(container, task)
    crashed = runs.wait_for_state(platform, run, "Crashed", SEEN_WITHIN_SECONDS + 30, nth)
    return crashed, (runs.moment(crashed) - before).total_seconds()


def stop(platform: Platform, reason: str) -> Callable[[Any, dict[str, Any]], None]:
    """How AWS or somebody stops a task."""
    ecs = platform.aws("ecs")
    return lambda _, task: ecs.stop_task(cluster=task["clusterArn"], task=task["taskArn"], reason=reason)


def record(faults: Faults, name: str, seen: list[float], otherwise: bool = False) -> None:
    """Take down a kind of death, and fail if one was seen late or something else was not as it should be."""
    lost = sum(seconds > SEEN_WITHIN_SECONDS for seconds in seen) + otherwise
    assert faults.record(f"{name}: until its run is CRASHED", len(seen), lost, seen).lost == 0


def test_run_without_an_image_says_so_and_is_not_started_again(
    platform: Platform, started: dict[str, str], faults: Faults
) -> None:
    run = started["without an image"]
    crashed = runs.wait_for_state(platform, run, "Crashed", STARTS_WITHIN_SECONDS)
    wait_for("the end of it", lambda: "Not started again: it would end the same way." in runs.log(platform, run))
    (task,) = runs.tasks(platform)[run]
    assert "its image can't be pulled (CannotPullContainerError" in crashed["message"]
    assert runs.states(platform, run)[-1] == crashed
    record(faults, "image can't be pulled", [(runs.moment(crashed) - task["stoppedAt"]).total_seconds()])


def test_run_over_its_memory_says_so(platform: Platform, started: dict[str, str], faults: Faults) -> None:
    run = started["hungry"]
    # Prefect's own process in the container lives on, and may be the first to say so.
    crashed = runs.wait_for_state(platform, run, "Crashed", STARTS_WITHIN_SECONDS)
    wait_for("the reason", lambda: "needed more memory than the 512 MiB" in runs.log(platform, run))
    (task,) = runs.tasks(platform)[run]
    assert "OutOfMemoryError: Container killed due to memory usage" in runs.log(platform, run)
    assert LAST_WORDS in runs.log(platform, run)
    record(faults, "task over its memory", [max(0.0, (runs.moment(crashed) - task["stoppedAt"]).total_seconds())])


def test_killed_run_says_so_and_starts_again(platform: Platform, started: dict[str, str], faults: Faults) -> None:
    run = started["killed"]
    crashed, seen = end(platform, run, lambda container, _: container.kill())
    assert "it was killed (Essential container in task exited; exit code 137)" in crashed["message"]
    assert LAST_WORDS in runs.log(platform, run).partition("The last lines that its task wrote:")[2]
    runs.wait_for_state(platform, run, "Completed", STARTS_WITHIN_SECONDS)
    record(faults, "container killed", [seen], otherwise=len(runs.tasks(platform)[run]) != 2)


def test_run_on_spot_starts_again_on_spot_and_then_on_demand(
    platform: Platform, started: dict[str, str], faults: Faults
) -> None:
    run, seen = started["interrupted"], []
    for nth in (1, 2):
        seen.append(end(platform, run, stop(platform, "Your Spot Task was interrupted."), nth)[1])
        restarted = runs.wait_for_state(platform, run, "AwaitingRestart", SEEN_WITHIN_SECONDS, nth)
        assert restarted["message"] == f"Restart {nth} of 2: AWS took its Spot capacity back."
    runs.wait_for_state(platform, run, "Completed", STARTS_WITHIN_SECONDS)
    capacity = [task["capacityProviderName"] for task in runs.tasks(platform)[run]]
    assert capacity == ["FARGATE_SPOT", "FARGATE_SPOT", "FARGATE"]
    record(faults, "Spot task interrupted", seen)


def test_run_that_was_stopped_by_hand_stays_stopped(
    platform: Platform, started: dict[str, str], faults: Faults
) -> None:
    run = started["stopped by hand"]
    _, seen = end(platform, run, stop(platform, "Task stopped by user"))
    wait_for("the end of it", lambda: "Not started again: it would end the same way." in runs.log(platform, run))
    assert "it was stopped by hand (Task stopped by user" in runs.log(platform, run)
    record(faults, "task stopped by hand", [seen])


def test_cancelled_run_ends_with_its_hook_and_its_task(
    platform: Platform, started: dict[str, str], faults: Faults
) -> None:
    run = started["cancelled"]
    container = wait_for(f"run {run} at work", lambda: runs.container(platform, run), STARTS_WITHIN_SECONDS)
    wait_for("its last words", lambda: LAST_WORDS in container.logs().decode(), STARTS_WITHIN_SECONDS)
    begin = datetime.datetime.now(datetime.UTC)
    platform.prefect(f"/flow_runs/{run}/set_state", {"state": {"type": "CANCELLING"}})
    cancelled = runs.wait_for_state(platform, run, "Cancelled", STARTS_WITHIN_SECONDS)
    wait_for("the end of its task", lambda: runs.tasks(platform)[run][-1].get("stoppedAt"))
    assert [state["name"] for state in runs.states(platform, run)][-1] == "Cancelled"
    assert TIDIED_UP in runs.log(platform, run)
    seen = (runs.moment(cancelled) - begin).total_seconds()
    lost = (seen > SEEN_WITHIN_SECONDS) + (len(runs.tasks(platform)[run]) != 1)
    assert faults.record("run cancelled while it is at work: until it is CANCELLED", 1, lost, [seen]).lost == 0
