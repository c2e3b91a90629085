"""What stands between a command and a change: plans that are applied as they were shown; keys that rotate in use."""

import base64
import threading
import urllib.error
import urllib.request
import zipfile

import pytest

from functional_tests.platform import Platform, wait_for

FLOW = """import time

from prefect import flow, task


@task
def nap() -> None:
    time.sleep(1)


@flow(log_prints=True)
def napping(seconds: int = 45) -> None:
    for _ in range(seconds):
        nap()
"""
SETTING = "log_retention_days"


@pytest.fixture(scope="module")
def planned(platform: Platform, first_deploy: str) -> Platform:
    """A platform with a setting that was changed; the tests plan and deploy it, so it can stay."""
    settings = platform.folder / "environments" / "local.tfvars"
    lines = [line for line in settings.read_text().splitlines() if not line.startswith(SETTING)]
    settings.write_text("\n".join([*lines, f"{SETTING} = 3", ""]))
    return platform


def test_plan_needs_neither_key_nor_engine_and_can_be_read_in_a_comment(planned: Platform) -> None:
    saved = planned.invoke(
        *("plan", "--out", "saved", "--markdown", "saved.md"),
        check=False,
        PREFECT_AGENT_TOKEN="local:wrong",
        DOCKER_HOST="unix:///nonexistent.sock",
    )
    assert saved.returncode == 2, saved.stdout
    text = (planned.folder / "saved.md").read_text()
    assert text.startswith("## Plan for environment local: changes\n")
    assert '| update | `aws_cloudwatch_log_group.this["agent"]` |' in text
    assert text.count("\n```") == 2
    assert "retention_in_days" in text


def test_saved_plan_holds_no_key(planned: Platform) -> None:
    with zipfile.ZipFile(planned.folder / "saved") as plan:
        contents = [plan.read(name) for name in plan.namelist()]
    assert sum(map(len, contents)) > 10_000
    for key in (planned.key, planned.register_key):
        assert not [content for content in contents if key.partition(":")[2].encode() in content]


def test_deploy_applies_the_plan_once_and_then_it_is_stale(planned: Platform) -> None:
    planned.invoke("deploy", "--plan", "saved")
    assert retention(planned) == 3
    stale = planned.invoke("deploy", "--plan", "saved", check=False)
    assert stale.returncode == 1
    assert "the plan is stale; nothing was changed" in stale.stdout


def test_key_rotates_while_a_run_is_going(platform: Platform, first_deploy: str) -> None:
    register(platform)
    platform.invoke("run", "napping", "--no-wait")
    wait_for("the run", lambda: run_state(platform) == "RUNNING")
    earlier, ended, running = platform.key, threading.Event(), list[bool]()
    watching = threading.Thread(target=watch, args=(platform, ended, running))
    watching.start()
    rotated = platform.invoke("rotate-key").stdout
    ended.set()
    watching.join()
    assert running
    assert all(running), "for a moment no agent was running"
    assert platform.key != earlier
    assert not [key for key in (earlier, platform.key) if key.partition(":")[2] in rotated]
    assert "is accepted until invoke rotate-key finds these runs ended" in rotated
    assert [accepts(platform, key) for key in (earlier, platform.key, "local:wrong")] == [True, True, False]
    assert platform.status()["ok"] is True
    wait_for("the end of the run", lambda: run_state(platform) not in ("PENDING", "RUNNING"))
    assert run_state(platform) == "COMPLETED"


def test_same_key_is_left_alone_and_the_earlier_one_goes_with_its_runs(platform: Platform, first_deploy: str) -> None:
    """Beside the rotation above."""
    keys = platform.folder / ".local" / "local" / "prefect_key_earlier"
    earlier = keys.read_text().split()
    before = platform.only_agent()
    again = platform.invoke("rotate-key", PREFECT_AGENT_TOKEN=platform.key).stdout
    after = platform.only_agent()
    assert "unchanged" in again
    assert before.id == after.id
    assert earlier
    assert not any(accepts(platform, key) for key in earlier)
    assert accepts(platform, platform.key)


def test_new_key_is_known_to_every_task_at_once(platform: Platform, first_deploy: str) -> None:
    register(platform)
    assert "Completed" in platform.invoke("run", "napping", "--param", "seconds=1").stdout


def register(platform: Platform) -> None:
    """Register the flow above."""
    folder = platform.folder / "napping"
    folder.mkdir(exist_ok=True)
    (folder / "flow.py").write_text(FLOW)
    platform.invoke("register", "--workflow-path", str(folder))


def retention(platform: Platform) -> int:
    """Days for which the agent's log is kept."""
    name = "local_dataflow_automation_agent"
    (group,) = platform.aws("logs").describe_log_groups(logGroupNamePrefix=name)["logGroups"]
    return int(group.get("retentionInDays", 0))


def run_state(platform: Platform) -> str:
    """State of the last run of the flow above."""
    named = {"name": {"any_": ["napping"]}}
    runs = platform.prefect("/flow_runs/filter", flows=named, sort="EXPECTED_START_TIME_DESC", limit=1)
    return str(runs[0]["state_type"]) if runs else ""


def watch(platform: Platform, ended: threading.Event, running: list[bool]) -> None:
    """Look again and again whether an agent's container is running."""
    while not ended.wait(0.2):
        running.append(bool(platform.agent_containers))


def accepts(platform: Platform, key: str) -> bool:
    """Whether the Prefect API takes a key."""
    login = f"Basic {base64.b64encode(key.encode()).decode()}"
    request = urllib.request.Request(f"{platform.prefect_url}/admin/version", headers={"Authorization": login})
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:
            return bool(answer.status == 200)
    except urllib.error.HTTPError as error:
        return error.code != 401
