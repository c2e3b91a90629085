"""Measures, each against what one would do instead, in one run: `nox -s bench`.

- start-up: `invoke --list` here, and with an empty tasks.py
- first deploy: `invoke deploy` from nothing, and the same steps typed one after the other

Ratios count; absolute times depend on the machine. Exit code 1 when a ratio is over its limit.
"""

import json
import os
import platform as machine
import statistics
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil

from functional_tests.platform import INVOKE, ROOT, Platform, step_seconds, wait_for

PREFIX = "local_dataflow_automation"
START_UP_RUNS = 15
START_UP_LIMIT = 1.3
FIRST_DEPLOY_LIMIT = 0.85


def main() -> int:
    """Measure what is named on the command line, or everything; print a table; 1 when a limit is exceeded."""
    measures = {"start-up": start_up, "first-deploy": first_deploy}
    chosen = sys.argv[1:] or list(measures)
    memory = psutil.virtual_memory().total / 2**30
    system = f"{machine.system()} {machine.machine()}, Python {machine.python_version()}"
    print(f"{os.cpu_count()} processors, {memory:.0f} GiB, {system}")
    rows = [measures[name]() for name in chosen]
    for what, ours, theirs, limit in rows:
        ratio = ours / theirs
        verdict = "ok" if ratio <= limit else "OVER"
        print(f"{what}: {ours:.3f} s / {theirs:.3f} s = {ratio:.2f} (limit {limit}) {verdict}")
    return 0 if all(ours / theirs <= limit for _, ours, theirs, limit in rows) else 1


def start_up() -> tuple[str, float, float, float]:
    """Median time of `invoke --list` in this project and in a folder with an empty tasks.py, run in turns."""
    with tempfile.TemporaryDirectory() as empty:
        Path(empty, "tasks.py").write_text("from invoke import task\n\n\n@task\ndef nothing(c):\n    pass\n")
        times: dict[str, list[float]] = {str(ROOT): [], empty: []}
        for _ in range(START_UP_RUNS):
            for folder, measured in times.items():
                measured.append(timed(lambda folder=folder: call([*INVOKE, "--list"], Path(folder))))  # type: ignore[misc]
        ours, theirs = (statistics.median(measured) for measured in times.values())
    return "invoke --list against an empty tasks.py, median", ours, theirs, START_UP_LIMIT


def first_deploy() -> tuple[str, float, float, float]:
    """Time of a deploy from nothing, and of its steps by hand; both build the agent's image without any cache."""
    with tempfile.TemporaryDirectory() as folder:
        ours_platform, theirs_platform = (fresh_platform(Path(folder, name).resolve()) for name in ("ours", "theirs"))
        try:
            begin = time.monotonic()
            output = ours_platform.invoke("deploy").stdout
            ours = time.monotonic() - begin
            print(json.dumps(step_seconds(output)))
        finally:
            ours_platform.invoke("destroy", "--yes")
        try:
            theirs = by_hand(theirs_platform)
        finally:
            theirs_platform.invoke("destroy", "--yes")
    return "first deploy against the same steps one after the other", ours, theirs, FIRST_DEPLOY_LIMIT


def fresh_platform(folder: Path) -> Platform:
    """A platform whose agent image no build cache knows."""
    folder.mkdir()
    platform = Platform(folder)
    requirements = folder / "requirements" / "agent.txt"
    requirements.write_text(f"# {uuid.uuid4()}\n{requirements.read_text()}")
    return platform


def by_hand(platform: Platform) -> float:
    """Do what deploy does with the commands a person would type, one after the other; gives the seconds it took."""
    python = [sys.executable, "-c"]
    load = "from environments.settings import load; environment = load('local'); "
    registry = f"127.0.0.1:{platform.aws_port}"
    tag = uuid.uuid4().hex[:16]
    prefect = [str(Path(sys.executable).parent / "prefect")]
    terraform = ["terraform", "-chdir=infra"]
    variables = {
        **os.environ,
        "TF_DATA_DIR": str(platform.folder / ".local" / "by_hand"),
        "TF_CLI_CONFIG_FILE": str(platform.folder / ".local" / "terraform.rc"),
        "AWS_ACCESS_KEY_ID": "local",
        "AWS_SECRET_ACCESS_KEY": "local",
        "AWS_ENDPOINT_URL": f"http://{registry}",
        "AWS_REGION": "eu-west-1",
        "PREFECT_API_URL": f"http://127.0.0.1:{platform.prefect_port}/api",
        "PREFECT_HOME": str(platform.folder / ".local" / "prefect_home"),
    }
    bucket = "local-dataflow-automation-state-000000000000"
    settings = ["-var-file=../environments/local.tfvars", "-var=environment=local", f"-var=agent_image_tag={tag}"]
    image = f"{registry}/{PREFIX}_agent:{tag}"
    took: dict[str, float] = {}

    def step(name: str, *command: str) -> None:
        took[name] = timed(lambda: call(list(command), platform.folder, variables))

    step("servers", *python, load + "from environments import local_stack; local_stack.start(environment)")
    variables["PREFECT_API_AUTH_STRING"] = platform.key
    step("bucket", *python, load + "from infra import state; state.ensure_bucket(environment)")
    step(
        "terraform init", *terraform, "init", "-input=false", f"-backend-config=bucket={bucket}",
        "-backend-config=key=terraform.tfstate", "-backend-config=region=eu-west-1",
        "-backend-config=use_path_style=true",
    )  # fmt: skip
    step("terraform apply", *terraform, "apply", "-input=false", "-auto-approve", *settings)
    step("docker build", "docker", "build", "-f", "agent/Dockerfile", "-t", image, ".")
    step("docker push", "docker", "push", image)
    secret = {"SecretId": f"{PREFIX}_prefect_key", "SecretString": platform.key}
    took["secret"] = timed(lambda: platform.aws("secretsmanager").put_secret_value(**secret))
    step("prefect work-pool create", *prefect, "work-pool", "create", PREFIX, "--type", "ecs")
    took["agent"] = timed(lambda: start_agent(platform))
    print(json.dumps({name: round(seconds, 1) for name, seconds in took.items()}))
    return sum(took.values())


def start_agent(platform: Platform) -> None:
    """Scale the service to one and wait until the service is stable and the agent has registered at Prefect."""
    name = f"{PREFIX}_agent"
    platform.aws("ecs").update_service(cluster=name, service=name, desiredCount=1)
    wait_for("the agent at ECS", lambda: platform.agent_containers)
    wait_for("the agent at Prefect", lambda: b"started!" in platform.agent_containers[0].logs())


def timed(action: Callable[[], Any]) -> float:
    """Seconds that an action takes."""
    begin = time.monotonic()
    action()
    return time.monotonic() - begin


def call(command: list[str], folder: Path, variables: dict[str, str] | None = None) -> None:
    """Run a command without showing what it prints, unless it fails."""
    answer = subprocess.run(command, cwd=folder, env=variables, capture_output=True, text=True, check=False)
    if answer.returncode:
        raise SystemExit(f"{' '.join(command)} failed:\n{answer.stdout}{answer.stderr}")


if __name__ == "__main__":
    sys.exit(main())
