"""Prefect goes away or limits requests, and AWS throttles, fails, is slow and breaks off, while all is at work."""

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from subprocess import Popen
from typing import Any

import pytest

from functional_tests.faults import Faults
from functional_tests.outages import misbehaving_aws, prefect_away, prefect_limits_requests
from functional_tests.platform import Platform, wait_for

pytestmark = pytest.mark.reliability

FLOW = """
import os
import time
import urllib.error
import urllib.request

from prefect import flow, task


def prefect_answers():
    try:
        urllib.request.urlopen(os.environ["PREFECT_API_URL"] + "/health", timeout=2)
    except urllib.error.HTTPError:
        return True
    except OSError:
        return False
    return True


@task
def work():
    return 1


@flow
def {name}(until_prefect_is_away: bool = False):
    while until_prefect_is_away and prefect_answers():
        time.sleep(0.5)
    return work()
"""
RATE = 0.2
"""Share of requests to AWS that go wrong in one way or another."""
SIGNED = {"authorization": ""}
"""Requests with credentials: not those by which local looks whether its server is up."""
CODES = {
    "ec2": ("RequestLimitExceeded", 503),
    "s3": ("SlowDown", 503),
    "iam": ("Throttling", 400),
    "sts": ("Throttling", 400),
    "ecr": ("ThrottlingException", 400),
    "ecs": ("ThrottlingException", 400),
    "logs": ("ThrottlingException", 400),
    "secretsmanager": ("ThrottlingException", 400),
}
"""How each service says that it is asked too often, with the status: it is said where commands meet it."""
AGENT_ASKS = tuple(f"AWS_ENDPOINT_URL_{service}" for service in ("ECS", "EC2", "LOGS", "SQS"))
"""Variables that say where these services are; they count more than the one for all, which the emulator sets."""
COMMAND_SECONDS = 400
Often = Callable[[int, int], int]


def misbehaviour() -> list[dict[str, Any]]:
    """Rules of microburst: AWS throttles, fails, is slow, and breaks off, the first request in any case.

    A connection breaks before anything is done, or, less often, when all is done and the answer is on its way: that a
    command stops then is right, if it is said and the same command goes on.
    """
    share = RATE / 4
    return [
        {"headers": SIGNED, "times": 1, "reset": True},
        *(
            {"service": service, "probability": share, "error": {"code": code, "status": status}}
            for service, (code, status) in CODES.items()
        ),
        *(
            {"service": service, "probability": share, "error": {"code": "InternalFailure", "status": 500}}
            for service in CODES
        ),
        {"headers": SIGNED, "probability": share, "latency": {"min": 200, "max": 1500}},
        {"headers": SIGNED, "probability": share / 2, "reset": True},
        {"headers": SIGNED, "probability": share / 50, "response": {"abort_frac": 0.5}},
    ]


def test_commands_and_a_run_get_through_while_prefect_is_away(
    deployed: Platform, tmp_path: Path, often: Often, faults: Faults
) -> None:
    """All three at once, each at a point from which on it needs Prefect; what the run has left to do, it does then."""
    seconds = often(5, 120)
    for hangs in (False, True)[: often(1, 2)]:
        kind = "hangs" if hangs else "gone"
        deployed.invoke("register", "--workflow-path", workflow(tmp_path, f"at_work_{kind}"))
        commands = {"run": deployed.start("run", f"at_work_{kind}", "--param", "until_prefect_is_away=true")}
        said = {"run": read_until(commands["run"], "state    Running")}
        commands["register"] = deployed.start("register", "--workflow-path", workflow(tmp_path, f"new_{kind}"))
        commands["deploy"] = deployed.start("deploy")
        said["register"] = read_until(commands["register"], "✓ Prefect project")
        said["deploy"] = read_until(commands["deploy"], "✓ Local servers")
        with prefect_away(deployed, hangs):
            time.sleep(seconds)
            for command, process in commands.items():
                said[command] += read_until(process, "is away since")
        back = time.monotonic()

        def rest(process: "Popen[str]", back: float = back) -> tuple[str, float]:
            return process.communicate(timeout=COMMAND_SECONDS)[0], time.monotonic() - back

        with ThreadPoolExecutor() as pool:
            ends = dict(zip(commands, pool.map(rest, commands.values()), strict=True))
        for command, (printed, recovery) in ends.items():
            name = f"Prefect {'hangs' if hangs else 'is gone'} for {seconds} s during {command}"
            fault = faults.record(name, 1, int(commands[command].returncode != 0), [recovery])
            assert fault.lost == 0, said[command] + printed
            assert "is back after" in said[command] + printed
    assert "Completed" in deployed.invoke("run", f"new_{kind}").stdout, "the agent does not take runs any more"


def test_commands_wait_while_prefect_limits_the_rate_of_requests(
    deployed: Platform, tmp_path: Path, often: Often, faults: Faults
) -> None:
    """Every third request of each command is answered 429."""
    for number in range(often(1, 5)):
        folder = workflow(tmp_path, f"limited_{number}")
        commands = {
            "register": ("register", "--workflow-path", folder),
            "run": ("run", f"limited_{number}"),
            "workflows": ("workflows",),
            "deploy": ("deploy",),
        }
        for command, arguments in commands.items():
            with prefect_limits_requests(deployed) as limits:
                done = deployed.invoke(*arguments, check=False, **limits.variables)
            fault = faults.record(
                f"Prefect limits the rate of requests during {command}", limits.refused, int(done.returncode != 0)
            )
            assert fault.injected
            assert fault.lost == 0, done.stdout
            assert "limits the rate of requests" in done.stdout


def test_commands_get_through_an_aws_that_misbehaves_or_go_on_the_next_time(
    deployed: Platform, tmp_path: Path, often: Often, faults: Faults
) -> None:
    """At full size the agent asks that AWS, too, and each deploy gives it back the address that it should have."""
    commands = ("register", "run", "deploy") if often(0, 1) else ("register", "deploy")
    # The emulated ECS has no images that came by way of the proxy: another address is another registry to Docker.
    deployed.invoke("register", "--workflow-path", workflow(tmp_path, "at_hand"))
    with misbehaving_aws(deployed) as aws:
        for number in range(often(1, 5)):
            folder = workflow(tmp_path, f"through_{number}")
            arguments = {"register": ("--workflow-path", folder), "run": ("at_hand",), "deploy": ()}
            for command in commands:
                if command == "run":
                    let_agent_ask(deployed, aws.containers_url)
                aws.misbehave(misbehaviour())
                first, begin = deployed.invoke(command, *arguments[command], check=False), time.monotonic()
                injected = sum(aws.misbehave([]).values())
                # A second run would be another one.
                repeats = first.returncode and command != "run"
                again = deployed.invoke(command, *arguments[command], check=False) if repeats else first
                recoveries = [time.monotonic() - begin] if repeats else []
                fault_name = f"AWS throttles, fails, is slow or breaks off during {command}"
                fault = faults.record(fault_name, injected, int(again.returncode != 0), recoveries)
                assert fault.injected
                assert fault.lost == 0, again.stdout
                assert "should not have happened" not in first.stdout
    assert deployed.status()["ok"] is True


def let_agent_ask(platform: Platform, url: str) -> None:
    """Have ECS start an agent for which AWS is at this address."""
    ecs, name = platform.aws("ecs"), f"{platform.prefix}_agent"
    (service,) = ecs.describe_services(cluster=name, services=[name])["services"]
    definition = ecs.describe_task_definition(taskDefinition=service["taskDefinition"])["taskDefinition"]
    definition["containerDefinitions"][0]["environment"] += [{"name": each, "value": url} for each in AGENT_ASKS]
    taken = ("family", "containerDefinitions", "volumes", "networkMode", "cpu", "memory", "requiresCompatibilities")
    roles = ("executionRoleArn", "taskRoleArn")
    made = ecs.register_task_definition(**{part: definition[part] for part in (*taken, *roles)})["taskDefinition"]
    ecs.update_service(cluster=name, service=name, taskDefinition=made["taskDefinitionArn"])
    wait_for("an agent that asks there", lambda: [url] == addresses(platform) and platform.status()["ok"], 300)


def addresses(platform: Platform) -> list[str]:
    """Where the running agents ask AWS."""
    variables = [variable for agent in platform.agent_containers for variable in agent.attrs["Config"]["Env"]]
    return [value for name, _, value in (each.partition("=") for each in variables) if name == AGENT_ASKS[0]]


def workflow(folder: Path, name: str) -> str:
    """A folder with a flow that nobody has seen before; gives its path."""
    (folder / name).mkdir()
    (folder / name / "flow.py").write_text(FLOW.format(name=name))
    return str(folder / name)


def read_until(process: "Popen[str]", words: str) -> str:
    """What a command prints, up to a line with these words."""
    seen = ""
    for line in process.stdout or ():
        seen += line
        if words in line:
            return seen
    raise AssertionError(f"it never said {words!r}:\n{seen}")
