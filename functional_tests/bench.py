"""Measures, each against what one would do instead, in one run: `nox -s bench`.

- start-up: `invoke --list` here, and with an empty tasks.py
- first deploy: `invoke deploy` from nothing, and the same steps typed one after the other
- register: `invoke register` of 20 flows, and `prefect deploy --all` of the same; and what each further flow costs

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
from functools import partial
from pathlib import Path
from typing import Any

import psutil

from functional_tests.platform import INVOKE, ROOT, Platform, step_seconds, wait_for

PREFIX = "local_dataflow_automation"
START_UP_RUNS = 15
START_UP_LIMIT = 1.3
FIRST_DEPLOY_LIMIT = 0.85
FLOWS, MANY_FLOWS = 20, 200
UNCHANGED_RUNS = 3
UNCHANGED_LIMIT = 0.5
FIRST_REGISTER_LIMIT = 1.0
FURTHER_FLOW_SECONDS = 0.05
FLOW = """from prefect import flow, task


@task
def extract(count: int) -> list[int]:
    return list(range(count))


@flow(log_prints=True)
def {name}(count: int = {number}, label: str = "sum") -> int:
    \"""Sum of numbers, number {number}.\"""
    print(label, sum(extract(count)))
    return count
"""
Row = tuple[str, float, float, float]
"""What was measured, our seconds, the seconds it is held against, and the greatest ratio that is good enough."""


def main() -> int:
    """Measure what is named on the command line, or everything; print a table; 1 when a limit is exceeded."""
    measures = {"start-up": start_up, "first-deploy": first_deploy, "register": register}
    chosen = sys.argv[1:] or list(measures)
    memory = psutil.virtual_memory().total / 2**30
    system = f"{machine.system()} {machine.machine()}, Python {machine.python_version()}"
    print(f"{os.cpu_count()} processors, {memory:.0f} GiB, {system}")
    rows = [row for name in chosen for row in measures[name]()]
    for what, ours, theirs, limit in rows:
        ratio = ours / theirs
        verdict = "ok" if ratio <= limit else "OVER"
        print(f"{what}: {ours:.3f} s / {theirs:.3f} s = {ratio:.2f} (limit {limit}) {verdict}")
    return 0 if all(ours / theirs <= limit for _, ours, theirs, limit in rows) else 1


def start_up() -> list[Row]:
    """Median time of `invoke --list` in this project and in a folder with an empty tasks.py, run in turns."""
    with tempfile.TemporaryDirectory() as empty:
        Path(empty, "tasks.py").write_text("from invoke import task\n\n\n@task\ndef nothing(c):\n    pass\n")
        times: dict[str, list[float]] = {str(ROOT): [], empty: []}
        for _ in range(START_UP_RUNS):
            for folder, measured in times.items():
                measured.append(timed(partial(call, [*INVOKE, "--list"], Path(folder))))
        ours, theirs = (statistics.median(measured) for measured in times.values())
    return [("invoke --list against an empty tasks.py, median", ours, theirs, START_UP_LIMIT)]


def first_deploy() -> list[Row]:
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
    return [("first deploy against the same steps one after the other", ours, theirs, FIRST_DEPLOY_LIMIT)]


def register() -> list[Row]:
    """Times of registering 20 flows, first and unchanged, against `prefect deploy --all`; and of each further flow."""
    with tempfile.TemporaryDirectory() as folder:
        platform = Platform(Path(folder, "platform").resolve())
        few, many, theirs = (Path(folder, name) for name in ("bench_few", "bench_many", "bench_theirs"))
        write_flows(few, FLOWS)
        write_flows(many, MANY_FLOWS)
        write_flows(theirs, FLOWS)
        try:
            platform.invoke("deploy")
            deploy_all = prefect_deploy_all(platform, theirs)
            registers = {
                name: partial(platform.invoke, "register", "--workflow-path", str(path))
                for name, path in (("few", few), ("many", many))
            }
            ours = {name: [timed(action)] for name, action in registers.items()}
            by_prefect = [timed(deploy_all)]
            for _ in range(UNCHANGED_RUNS):
                for name, action in registers.items():
                    ours[name].append(timed(action))
                by_prefect.append(timed(deploy_all))
        finally:
            platform.invoke("destroy", "--yes")
    unchanged = {name: statistics.median(times[1:]) for name, times in ours.items()}
    first = {name: times[0] for name, times in ours.items()}
    further = MANY_FLOWS - FLOWS
    limit = FURTHER_FLOW_SECONDS
    return [
        ("20 flows, first, against prefect deploy --all", first["few"], by_prefect[0], FIRST_REGISTER_LIMIT),
        ("20 flows, unchanged", unchanged["few"], statistics.median(by_prefect[1:]), UNCHANGED_LIMIT),
        ("each further flow, first, against 50 ms", (first["many"] - first["few"]) / further, limit, 1.0),
        ("each further flow, unchanged, against 50 ms", (unchanged["many"] - unchanged["few"]) / further, limit, 1.0),
    ]


def write_flows(folder: Path, count: int) -> None:
    """A workflow's folder with one flow in each of its modules."""
    folder.mkdir()
    for number in range(count):
        name = f"{folder.name}_{number:03}"
        (folder / f"{name}.py").write_text(FLOW.format(name=name, number=number))


def prefect_deploy_all(platform: Platform, folder: Path) -> Callable[[], None]:
    """`prefect deploy --all` for a folder of flows, with the steps that Prefect's documentation has for images."""
    repository = f"{PREFIX}_bench"
    platform.aws("ecr").create_repository(repositoryName=repository)
    agent = platform.agent_containers[0].image.tags[0]
    (folder / "Dockerfile").write_text(f"FROM {agent}\nCOPY . /opt/workflow\nWORKDIR /opt/workflow\n")
    image = {"image_name": f"127.0.0.1:{platform.aws_port}/{repository}", "tag": "bench"}
    docker = "prefect_docker.deployments.steps"
    steps = {
        "build": [{f"{docker}.build_docker_image": {**image, "dockerfile": "Dockerfile", "rm": True}}],
        "push": [{f"{docker}.push_docker_image": image}],
        "pull": [{"prefect.deployments.steps.set_working_directory": {"directory": "/opt/workflow"}}],
    }
    pool = {"name": PREFIX, "job_variables": {"image": ":".join(image.values())}}
    deployments = [
        {"name": "bench", "entrypoint": f"{file.name}:{file.stem}", "work_pool": pool}
        for file in sorted(folder.glob("*.py"))
    ]
    (folder / "prefect.yaml").write_text(json.dumps({"name": "bench", **steps, "deployments": deployments}))
    variables = {
        **os.environ,
        "PREFECT_API_URL": f"http://127.0.0.1:{platform.prefect_port}/api",
        "PREFECT_API_AUTH_STRING": platform.key,
        "PREFECT_HOME": str(folder.parent / "prefect_home"),
        "DOCKER_CONFIG": str(log_in(platform, folder.parent / "docker")),
    }
    prefect = [str(Path(sys.executable).parent / "prefect")]
    return lambda: call([*prefect, "--no-prompt", "deploy", "--all"], folder, variables)


def log_in(platform: Platform, folder: Path) -> Path:
    """Log Docker's own commands in to the emulated ECR; gives the folder for DOCKER_CONFIG."""
    answer = platform.aws("ecr").get_authorization_token()["authorizationData"][0]
    folder.mkdir(exist_ok=True)
    login = {"auths": {f"127.0.0.1:{platform.aws_port}": {"auth": answer["authorizationToken"]}}}
    (folder / "config.json").write_text(json.dumps(login))
    return folder


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
    variables |= {"AWS_ACCESS_KEY_ID": "local", "AWS_SECRET_ACCESS_KEY": platform.root_key}
    step("account", *python, load + "from infra import account; account.bootstrap(environment)")
    step(
        "terraform init",
        *terraform,
        "init",
        "-input=false",
        f"-backend-config=bucket={bucket}",
        "-backend-config=key=terraform.tfstate",
        "-backend-config=region=eu-west-1",
        "-backend-config=use_path_style=true",
    )
    step("terraform apply", *terraform, "apply", "-input=false", "-auto-approve", *settings)
    step("docker build", "docker", "build", "-f", "agent/Dockerfile", "-t", image, ".")
    variables["DOCKER_CONFIG"] = str(log_in(platform, platform.folder / ".local" / "docker"))
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
