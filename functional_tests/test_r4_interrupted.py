"""A deploy that is interrupted, by Ctrl-C or killed: the next one finishes the job, and nothing is left lying about."""

import contextlib
import os
import re
import shutil
import signal
import subprocess
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from functional_tests.faults import Faults
from functional_tests.places import BUCKET
from functional_tests.platform import Platform, folder_of, take_away, wait_for

pytestmark = [pytest.mark.reliability, pytest.mark.timeout(3600)]
PREFIX = "local_dataflow_automation"
AGENT = f"{PREFIX}_agent"
STEPS = (
    *("→ Checks", "→ Agent image\n", "→ Local servers", "→ AWS account", "→ AWS infrastructure"),
    *("→ Agent image to ECR", "→ Prefect key", "→ Prefect project", "→ Agent\n"),
)
EVERY_STEP = [(step, number) for step in STEPS for number in (signal.SIGINT, signal.SIGKILL)]
A_FEW = [("→ AWS infrastructure", signal.SIGKILL), ("→ Agent\n", signal.SIGINT)]
ATTEMPTS = 3
CANCELLATION = ((signal.SIGINT, 7.5), (signal.SIGTERM, 2.5), (signal.SIGKILL, 60))
"""What a runner of GitHub Actions sends to the process of a step, and for how long it waits then.

https://github.com/actions/runner/blob/main/src/Runner.Sdk/ProcessInvoker.cs
"""
FIRST_APPLY = 40
"""How many resources the first apply makes, at least."""


@pytest.fixture
def temporary() -> Iterator[Path]:
    """The system's temporary folder, as the commands see it; Terraform puts sockets there, so its path is short."""
    folder = Path(tempfile.mkdtemp(prefix="r4"))
    yield folder
    shutil.rmtree(folder)


def test_deploy_that_was_interrupted_goes_on(
    deployed: Platform, temporary: Path, often: Callable[[int, int], int], faults: Faults
) -> None:
    recoveries: dict[signal.Signals, list[float]] = {signal.SIGINT: [], signal.SIGKILL: []}
    for step, number in (*A_FEW, *EVERY_STEP)[: often(len(A_FEW), len(A_FEW) + len(EVERY_STEP))]:
        deployed.aws("ecs").update_service(cluster=AGENT, service=AGENT, desiredCount=0)
        output = interrupted_at(deployed, step, number, temporary)
        if number == signal.SIGINT:
            assert "stopped by Ctrl-C" in output
        recoveries[number].append(seconds_of_deploy(deployed, temporary))
        assert_nothing_is_left(deployed, temporary)
    assert_whole(deployed)
    for number, name in ((signal.SIGINT, "Ctrl-C during deploy"), (signal.SIGKILL, "deploy killed")):
        fault = faults.record(name, len(recoveries[number]), 0, recoveries[number])
        assert fault.recoveries


def test_what_a_killed_terraform_could_not_write_down_is_taken_up_with_its_lock(
    deployed: Platform, temporary: Path, faults: Faults
) -> None:
    kill_before_state_is_written(deployed, temporary)
    begin = time.monotonic()
    taken_up = recover(deployed, temporary)
    recovery = time.monotonic() - begin
    assert "aws_internet_gateway" in (deployed.folder / ".local/local/logs/terraform_apply.jsonl").read_text()
    assert re.search(r"[1-9]\d* resources taken up", taken_up), taken_up
    assert_nothing_is_left(deployed, temporary)
    assert_whole(deployed)
    assert faults.record("deploy and Terraform killed, state not written", 1, 0, [recovery]).recoveries


def test_deploy_that_a_runner_cancels_leaves_no_lock_and_loses_nothing(
    deployed: Platform, temporary: Path, faults: Faults
) -> None:
    """As a runner does it: interrupt, SIGTERM after 7.5 s, SIGKILL after another 2.5 s, then the steps that tidy up."""
    lose_internet_gateway(deployed)
    deployed.aws("ecs").put_cluster_capacity_providers(
        cluster=f"{PREFIX}_workflows", capacityProviders=["FARGATE"], defaultCapacityProviderStrategy=[]
    )
    command = start_apply(deployed, temporary)
    wait_for("the internet gateway to be made", lambda: "aws_internet_gateway.this[0]" in made(deployed), 120)
    for number, seconds in CANCELLATION:
        command.send_signal(number)
        with contextlib.suppress(subprocess.TimeoutExpired):
            command.communicate(timeout=seconds)
            break
    begin = time.monotonic()
    deployed.invoke("unlock", "own", TMPDIR=str(temporary))
    recovery = time.monotonic() - begin

    assert [key for key in state_objects(deployed) if key.endswith(".tflock")] == []
    lost = int(gateway(deployed)["InternetGatewayId"] not in written_state(deployed))
    deployed.invoke("deploy", TMPDIR=str(temporary))
    assert_nothing_is_left(deployed, temporary)
    assert_whole(deployed)
    assert faults.record("deploy cancelled by a runner", 1, lost, [recovery]).lost == 0


def test_first_deploy_that_dies_at_any_moment_is_finished_by_the_next(
    tmp_path: Path, temporary: Path, often: Callable[[int, int], int], faults: Faults
) -> None:
    if not (times := often(0, 6)):
        pytest.skip("only with --full: each first deploy takes a minute")
    recoveries = []
    with fresh_platform(tmp_path.resolve()) as fresh:
        for number in range(times):
            command = start_apply(fresh, temporary)
            enough = int(FIRST_APPLY * (number + 0.5) / times)
            wait_for(f"{enough} resources to be made", lambda enough=enough: len(made(fresh)) >= enough, 180)
            cut_power(fresh, command)
            begin = time.monotonic()
            recover(fresh, temporary)
            recoveries.append(time.monotonic() - begin)
            assert_nothing_is_left(fresh, temporary)
            assert_whole(fresh)
            fresh.invoke("destroy", "--yes", TMPDIR=str(temporary))
            assert not fresh.containers("", everything=True)
    assert faults.record("first deploy and Terraform killed", times, 0, recoveries).recoveries


@contextlib.contextmanager
def fresh_platform(folder: Path) -> Iterator[Platform]:
    """A platform that was never up."""
    platform = Platform(folder)
    try:
        yield platform
    finally:
        take_away(folder)


def start_apply(platform: Platform, temporary: Path) -> "subprocess.Popen[str]":
    """A deploy in which Terraform has just begun."""
    log = apply_log(platform)
    log.unlink(missing_ok=True)
    command = platform.start("deploy", TMPDIR=str(temporary))
    wait_for("Terraform to begin", lambda: log.exists() or command.poll() is not None, 180)
    assert log.exists(), command.communicate()[0]
    return command


def apply_log(platform: Platform) -> Path:
    return platform.folder / ".local/local/logs/terraform_apply.jsonl"


def made(platform: Platform) -> list[str]:
    """Addresses of what the apply that is going on has made so far."""
    lines = apply_log(platform).read_text().splitlines()
    found = [re.search(r'"addr":"((?:[^"\\]|\\.)+)"', line) for line in lines if '"type":"apply_complete"' in line]
    return [match[1] for match in found if match and not match[1].startswith("data.")]


def interrupted_at(platform: Platform, step: str, number: signal.Signals, temporary: Path) -> str:
    """A deploy that gets a signal a moment after a step has begun; gives what it printed."""
    command = platform.start("deploy", TMPDIR=str(temporary))
    printed = []
    for line in command.stdout or ():
        printed.append(line)
        if line.startswith(step):
            break
    time.sleep(0.3)
    command.send_signal(number)
    output, _ = command.communicate(timeout=120)
    expected = 130 if number == signal.SIGINT else -signal.SIGKILL
    assert command.returncode == expected, "".join([*printed, output])
    return output


def cut_power(platform: Platform, command: "subprocess.Popen[str]") -> None:
    """End a command and its Terraform without a chance to do anything; the provider is left without either."""
    victims = [process for process in at_work(platform) if process.name() == "terraform"]
    command.kill()
    for process in victims:
        with contextlib.suppress(psutil.Error):
            process.kill()
    output, _ = command.communicate()
    assert command.returncode == -signal.SIGKILL, f"it was over before:\n{output}"


def recover(platform: Platform, temporary: Path) -> str:
    """Do what the commands say until deploy is done; gives what unlock printed."""
    variables = {"TMPDIR": str(temporary)}
    next_one = platform.invoke("deploy", check=False, **variables)
    if next_one.returncode == 0:
        return ""
    assert "another run holds the lock" in next_one.stdout
    assert f"@{os.uname().nodename} since " in next_one.stdout
    lock = re.search(r"invoke (unlock [0-9a-f-]{36} --env local)", next_one.stdout)
    assert lock, next_one.stdout
    unlocked = platform.invoke(*lock[1].split(), **variables)
    platform.invoke("deploy", **variables)
    return unlocked.stdout


def seconds_of_deploy(platform: Platform, temporary: Path) -> float:
    """How long the next deploy takes to have all well again."""
    begin = time.monotonic()
    platform.invoke("deploy", TMPDIR=str(temporary))
    seconds = time.monotonic() - begin
    assert platform.status()["ok"] is True
    return seconds


def assert_nothing_is_left(platform: Platform, temporary: Path) -> None:
    """No process but the two servers, no container but the agent, no temporary file."""
    servers = set(platform.servers().values())
    wait_for("all other processes to end", lambda: {process.pid for process in at_work(platform)} <= servers)
    assert len(servers) == 2
    # Runs of the tests before may still be at work.
    wait_for("all runs to end", lambda: len(platform.containers("", everything=True)) == 1)
    assert len(platform.agent_containers) == 1
    assert [file.name for file in temporary.iterdir()] == []


def at_work(platform: Platform) -> list[psutil.Process]:
    """The processes that work on this platform."""
    return [process for process in psutil.process_iter() if folder_of(process).startswith(str(platform.folder))]


def assert_whole(platform: Platform) -> None:
    """All is as the settings say, and on AWS nothing is there twice."""
    planned = platform.invoke("plan", check=False)
    assert planned.returncode == 0, planned.stdout
    ec2, events = platform.aws("ec2"), platform.aws("events")
    made = Counter(
        (call, tag["Value"])
        for call, listed in (
            ("describe_vpcs", "Vpcs"),
            ("describe_subnets", "Subnets"),
            ("describe_internet_gateways", "InternetGateways"),
            ("describe_route_tables", "RouteTables"),
            ("describe_security_groups", "SecurityGroups"),
            ("describe_security_group_rules", "SecurityGroupRules"),
        )
        for item in getattr(ec2, call)()[listed]
        for tag in item.get("Tags", [])
        if tag["Key"] == "Name"
    )
    assert set(made.values()) == {1}, made
    assert len(events.list_targets_by_rule(Rule=f"{PREFIX}_task_events")["Targets"]) == 1


def kill_before_state_is_written(platform: Platform, temporary: Path) -> None:
    """Kill a deploy that has made an internet gateway, and its Terraform, which writes its state every 20 seconds."""
    for _ in range(ATTEMPTS):
        lose_internet_gateway(platform)
        # Ten seconds of work for Terraform, beside what it is killed for.
        platform.aws("ecs").put_cluster_capacity_providers(
            cluster=f"{PREFIX}_workflows", capacityProviders=["FARGATE"], defaultCapacityProviderStrategy=[]
        )
        command = start_apply(platform, temporary)
        wait_for("the internet gateway to be made", lambda: "aws_internet_gateway.this[0]" in made(platform), 120)
        cut_power(platform, command)
        if gateway(platform)["InternetGatewayId"] not in written_state(platform):
            return
        recover(platform, temporary)
    pytest.fail(f"{ATTEMPTS} times Terraform wrote its state just then")


def state_objects(platform: Platform) -> list[str]:
    """Keys of what is in the bucket of Terraform's state."""
    return [each["Key"] for each in platform.aws("s3").list_objects_v2(Bucket=BUCKET)["Contents"]]


def written_state(platform: Platform) -> str:
    """Terraform's state as it is in the bucket."""
    return str(platform.aws("s3").get_object(Bucket=BUCKET, Key="terraform.tfstate")["Body"].read().decode())


def gateway(platform: Platform) -> dict[str, Any]:
    """The internet gateway."""
    filters = [{"Name": "tag:Name", "Values": [PREFIX]}]
    (found,) = platform.aws("ec2").describe_internet_gateways(Filters=filters)["InternetGateways"]
    return dict(found)


def lose_internet_gateway(platform: Platform) -> None:
    """Take away the internet gateway: the next deploy makes another one, of which the state knows nothing yet."""
    ec2, lost = platform.aws("ec2"), gateway(platform)
    for attachment in lost["Attachments"]:
        ec2.detach_internet_gateway(InternetGatewayId=lost["InternetGatewayId"], VpcId=attachment["VpcId"])
    ec2.delete_internet_gateway(InternetGatewayId=lost["InternetGatewayId"])
