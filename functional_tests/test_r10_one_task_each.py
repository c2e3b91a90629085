"""One run has one active task. A run goes on whose task died while it waited; one that ended itself does not."""

import datetime
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from functional_tests import runs
from functional_tests.faults import Faults
from functional_tests.platform import Platform, wait_for

pytestmark = pytest.mark.reliability
STARTS_WITHIN_SECONDS = 300
STOPPED_WITHIN_SECONDS = 120
SEEN_WITHIN_SECONDS = 120
SLOT_FREE_WITHIN_SECONDS = 60
SLOTS = "one_task_each"
FLOWS = f"""
import getpass, grp, os, pathlib, pwd, signal, sys, time
from prefect import flow, pause_flow_run, task
from prefect.concurrency.sync import concurrency
from prefect.runtime import flow_run

def again():
    return flow_run.run_count > 1

@flow(log_prints=True)
def ticks():
    if again():
        return
    for number in range(600):
        print("tick", flow_run.run_count, number)
        time.sleep(1)

@flow(retries=1, retry_delay_seconds=600)
def retries():
    if not again():
        raise ValueError("the first try fails")

@flow
def pauses():
    if not again():
        pause_flow_run(timeout=3000, poll_interval=3)

def note(flow, flow_run, state):
    print("hook", state.name, flush=True)

def handle(*_):
    print("handler", flush=True)
    sys.exit(1)

@flow(log_prints=True, on_crashed=[note])
def interrupted(own_handler: bool):
    if again():
        return
    if own_handler:
        signal.signal(signal.SIGTERM, handle)
    try:
        print("at work", flush=True)
        time.sleep(600)
    finally:
        print("finally", flush=True)

@flow(log_prints=True)
def ends(how: str):
    print("charging the customers", flush=True)
    if how == "sys.exit":
        sys.exit("configuration is missing")
    if how == "interrupt":
        raise KeyboardInterrupt
    os._exit(int(how))

@task
def holding():
    with concurrency("{SLOTS}"):
        print("holds its slot", flush=True)
        time.sleep(600)

@flow
def inner():
    holding()

@flow
def holds():
    if not again():
        inner()

@flow(log_prints=True)
def user():
    me = pwd.getpwuid(os.getuid())
    print("user", getpass.getuser(), me.pw_name, me.pw_dir, grp.getgrgid(os.getgid()).gr_name, pathlib.Path.home())
    pathlib.Path("~/written").expanduser().touch()
"""


@pytest.fixture(scope="module")
def deployments(platform: Platform, first_deploy: str, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Ids of the deployments by flow."""
    folder = tmp_path_factory.mktemp("one") / "one"
    folder.mkdir()
    (folder / "flow.py").write_text(FLOWS)
    platform.invoke("register", "--workflow-path", str(folder), "--cpu", "256", "--memory", "512")
    flows = ("ticks", "retries", "pauses", "interrupted", "ends", "holds", "user")
    return {flow: str(runs.deployment(platform, flow)["id"]) for flow in flows}


@pytest.fixture
def events_off(deployed: Platform) -> Iterator[Callable[[], None]]:
    """Lets the events of stopped tasks get lost from its call on."""
    events = deployed.aws("events")
    (rule,) = events.list_rules(NamePrefix=f"{deployed.prefix}_task_events")["Rules"]
    yield lambda: events.disable_rule(Name=rule["Name"])
    events.enable_rule(Name=rule["Name"])


def active(platform: Platform, run: str) -> list[dict[str, Any]]:
    """The tasks of a run of which a container runs."""
    ended = ("DEPROVISIONING", "STOPPED")
    return [task for task in runs.tasks(platform).get(run, []) if task["lastStatus"] not in ended]


def wait_for_each(platform: Platform, which: list[str], name: str, seconds: float = STARTS_WITHIN_SECONDS) -> None:
    """Wait until all these runs are in a state of this name."""

    def all_are() -> bool:
        return {run["state_name"] for run in runs.read(platform, which).values()} == {name}

    wait_for(f"{name} of {len(which)} runs", all_are, seconds)


def test_task_that_outlives_its_run_is_stopped_and_a_retry_has_the_run_for_itself(
    deployed: Platform, deployments: dict[str, str], often: Callable[[int, int], int], faults: Faults
) -> None:
    count, stopped = 0, list[float]()
    # As many at a time as the project runs side by side.
    for number in often(1, 2) * [often(3, 5)]:
        count += number
        stopped += outlive(deployed, [runs.create(deployed, deployments["ticks"]) for _ in range(number)])
    lost = count - len(stopped)
    assert faults.record("task outlives its run: until it is stopped", count, lost, stopped).lost == 0


def outlive(platform: Platform, made: list[str]) -> list[float]:
    """End runs in Prefect while their tasks work, a third of them to start again; gives when each task was stopped."""
    wait_for_each(platform, made, "Running")
    failed, deleted, retried = made[0::3], made[1::3], made[2::3]
    begin = time.monotonic()
    for run in [*failed, *retried]:
        platform.prefect(f"/flow_runs/{run}/set_state", {"state": {"type": "FAILED"}, "force": True})
    for run in retried:
        retry = {"type": "SCHEDULED", "name": "AwaitingRetry"}
        platform.prefect(f"/flow_runs/{run}/set_state", {"state": retry})
    for run in deleted:
        platform.prefect(f"/flow_runs/{run}", method="DELETE")
    stopped: dict[str, float] = {}
    side_by_side = 0
    while time.monotonic() - begin < STOPPED_WITHIN_SECONDS and len(stopped) < len(made):
        for run in made:
            tasks = active(platform, run)
            side_by_side += len(tasks) > 1
            if run not in stopped and all(task["taskArn"] != runs.tasks(platform)[run][0]["taskArn"] for task in tasks):
                stopped[run] = time.monotonic() - begin
        time.sleep(0.5)
    wait_for_each(platform, retried, "Completed")
    assert side_by_side == 0
    assert all(runs.states(platform, run)[-1]["name"] == "Failed" for run in failed)
    assert all(len(runs.tasks(platform)[run]) == 2 for run in retried)
    for run in retried:
        lines = [line for line in runs.log(platform, run).splitlines() if line.startswith("tick")]
        assert len(lines) == len(set(lines))
    return list(stopped.values())


def test_run_whose_task_dies_while_it_waits_goes_on_with_the_event_and_without(
    deployed: Platform,
    deployments: dict[str, str],
    events_off: Callable[[], None],
    often: Callable[[int, int], int],
    faults: Faults,
) -> None:
    waiting = {"retries": "AwaitingRetry", "pauses": "Paused", "ticks": "Running"}
    for lost_event in (False, True):
        made: dict[str, str] = {}
        for number in range(often(3, 5)):
            flow = list(waiting)[number % 3]
            made[runs.create(deployed, deployments[flow], job_variables={"restarts": 1})] = flow
        for run, flow in made.items():
            runs.wait_for_state(deployed, run, waiting[flow], STARTS_WITHIN_SECONDS)
        if lost_event:
            events_off()
        killed = datetime.datetime.now(datetime.UTC)
        for run in made:
            runs.container(deployed, run).kill()
        seen = [
            (runs.moment(runs.wait_for_state(deployed, run, "Crashed", SEEN_WITHIN_SECONDS)) - killed).total_seconds()
            for run in made
        ]
        wait_for_each(deployed, list(made), "Completed")
        twice = [run for run in made if len(runs.tasks(deployed)[run]) != 2]
        how = "the event is lost" if lost_event else "the event comes"
        name = f"task dies while its run waits or works, {how}: until it is CRASHED"
        assert faults.record(name, len(made), len(twice), seen).lost == 0


@pytest.mark.parametrize("own_handler", [True, False], ids=["own handler", "no handler"])
def test_interrupted_flow_has_its_grace_period_and_starts_again(
    deployed: Platform, deployments: dict[str, str], own_handler: bool
) -> None:
    spot = {"capacity_provider": "FARGATE_SPOT", "restarts": 1}
    parameters = {"own_handler": own_handler}
    run = runs.create(deployed, deployments["interrupted"], parameters=parameters, job_variables=spot)
    container = wait_for("its container", lambda: runs.container(deployed, run), STARTS_WITHIN_SECONDS)
    wait_for("its work", lambda: "at work" in container.logs().decode(), STARTS_WITHIN_SECONDS)
    (task,) = runs.tasks(deployed)[run]
    deployed.aws("ecs").stop_task(
        cluster=task["clusterArn"], task=task["taskArn"], reason="Your Spot Task was interrupted."
    )
    wait_for_each(deployed, [run], "Completed")
    log = runs.log(deployed, run)
    wanted = ["at work", *(["handler"] if own_handler else []), "finally", "hook Crashed"]
    group, stream = f"{deployed.prefix}_workflows", task["taskArn"].rpartition("/")[2]
    pages = deployed.aws("logs").get_paginator("describe_log_streams").paginate(logGroupName=group)
    names = [each["logStreamName"] for page in pages for each in page["logStreams"]]
    (name,) = [name for name in names if name.endswith(stream)]
    events = deployed.aws("logs").get_log_events(logGroupName=group, logStreamName=name)["events"]
    written = [event["message"] for event in events]
    assert [words for words in wanted if not any(words in line for line in written)] == []
    assert [state["name"] for state in runs.states(deployed, run)].count("AwaitingRestart") == 1
    assert "finally" in log


def test_flow_that_ends_itself_is_not_restarted(deployed: Platform, deployments: dict[str, str]) -> None:
    ways = ("sys.exit", "interrupt", "0", "3")
    made = {
        how: runs.create(deployed, deployments["ends"], parameters={"how": how}, job_variables={"restarts": 2})
        for how in ways
    }
    words = "Not started again: the flow ended its own process"
    for how, run in made.items():
        wait_for(f"the end of {how}", lambda run=run: words in runs.log(deployed, run), STARTS_WITHIN_SECONDS)
    tasks = runs.tasks(deployed)
    assert {how: len(tasks[run]) for how, run in made.items()} == dict.fromkeys(ways, 1)
    assert {run["state_name"] for run in runs.read(deployed, list(made.values())).values()} == {"Crashed"}


def test_killed_run_holds_no_slot_and_leaves_no_run_at_work(
    deployed: Platform, deployments: dict[str, str], faults: Faults
) -> None:
    deployed.prefect("/v2/concurrency_limits/", {"name": SLOTS, "limit": 1})
    run = runs.create(deployed, deployments["holds"])
    container = wait_for("its container", lambda: runs.container(deployed, run), STARTS_WITHIN_SECONDS)
    wait_for("its slot", lambda: "holds its slot" in container.logs().decode(), STARTS_WITHIN_SECONDS)

    def taken() -> int:
        return int(deployed.prefect(f"/v2/concurrency_limits/{SLOTS}", method="GET")["active_slots"])

    assert taken() == 1
    begin = time.monotonic()
    container.kill()
    wait_for("a free slot", lambda: taken() == 0, SLOT_FREE_WITHIN_SECONDS)
    seconds = time.monotonic() - begin
    inside = deployed.prefect("/flow_runs/filter", flows={"name": {"any_": ["inner"]}}, sort="START_TIME_DESC")[0]

    def children() -> list[dict[str, Any]]:
        task_runs = deployed.prefect("/task_runs/filter", flow_runs={"id": {"any_": [run, inside["id"]]}})
        return [*task_runs, *runs.read(deployed, [inside["id"]]).values()]

    wait_for("no child at work", lambda: {each["state_name"] for each in children()} == {"Crashed"})
    assert len(children()) == 3
    assert faults.record("killed run holds a concurrency slot: until it is free", 1, 0, [seconds]).lost == 0


def test_process_of_a_run_has_a_user_with_a_name_and_a_home(deployed: Platform, deployments: dict[str, str]) -> None:
    run = runs.create(deployed, deployments["user"])
    words = "user workflow workflow /tmp workflow /tmp"
    wait_for(words, lambda: words in runs.log(deployed, run), STARTS_WITHIN_SECONDS)
