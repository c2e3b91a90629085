"""What one would do instead of our commands, for `bench.py` to hold them against.

Prefect's own commands, Terraform's and Docker's, on a platform of the same kind.
"""

import contextlib
import copy
import json
import os
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from functional_tests import runs
from functional_tests.platform import Platform, wait_for

PREFIX = "local_dataflow_automation"
STATE_BUCKET = "local-dataflow-automation-state-000000000000"
PREFECT = str(Path(sys.executable).with_name("prefect"))
TERRAFORM = ("terraform", "-chdir=infra")
STOCK = "bench_stock"
STOCK_COMMAND = "/opt/venv/bin/prefect flow-run execute"
"""The default of Prefect's ECS worker; PATH has our own first."""
START_SECONDS = 90


def by_hand(platform: Platform) -> dict[str, float]:
    """Do what a first deploy does with the commands a person would type, one after the other; gives their seconds."""
    python = [sys.executable, "-c"]
    load = "from environments.settings import load; environment = load('local'); "
    tag = uuid.uuid4().hex[:16]
    image = f"{registry(platform)}/{PREFIX}_agent:{tag}"
    took: dict[str, float] = {}

    def step(name: str, *command: str) -> None:
        took[name] = timed(lambda: call(list(command), platform.folder, variables))

    variables = dict(os.environ)
    step("servers", *python, load + "from environments import local_stack; local_stack.start(environment)")
    variables = operator(platform) | {"TF_DATA_DIR": str(platform.folder / ".local" / "by_hand")}
    step("account", *python, load + "from infra import account; account.bootstrap(environment)")
    backend = {"bucket": STATE_BUCKET, "key": "terraform.tfstate", "region": "eu-west-1", "use_path_style": "true"}
    options = [f"-backend-config={name}={value}" for name, value in backend.items()]
    step("terraform init", *TERRAFORM, "init", "-input=false", *options)
    step("terraform apply", *TERRAFORM, "apply", "-input=false", "-auto-approve", *inputs(tag))
    step("docker build", "docker", "build", "-f", "agent/Dockerfile", "-t", image, ".")
    variables["DOCKER_CONFIG"] = str(log_in(platform, platform.folder / ".local" / "docker"))
    step("docker push", "docker", "push", image)
    secret = {"SecretId": f"{PREFIX}_prefect_key", "SecretString": platform.key}
    took["secret"] = timed(lambda: platform.aws("secretsmanager").put_secret_value(**secret))
    step("prefect work-pool create", PREFECT, "work-pool", "create", PREFIX, "--type", "ecs")
    took["worker"] = timed(lambda: start_agent(platform))
    return took


def start_agent(platform: Platform) -> None:
    """Scale the service to one and wait until the service is stable and the agent has registered at Prefect."""
    name = f"{PREFIX}_agent"
    platform.aws("ecs").update_service(cluster=name, service=name, desiredCount=1)
    wait_for("the agent at ECS", lambda: platform.agent_containers)
    wait_for("the agent at Prefect", lambda: b"started!" in platform.agent_containers[0].logs())


def terraform_plan(platform: Platform) -> Callable[[], None]:
    """`terraform plan` alone, on the state of a platform that is deployed; anything but "no changes" is an error."""
    (agent,) = platform.agent_containers
    tag = next(tag.rpartition(":")[2] for tag in agent.image.tags)
    variables = operator(platform) | {"TF_DATA_DIR": str(platform.folder / ".local" / "local" / "terraform")}
    command = [*TERRAFORM, "plan", "-input=false", "-detailed-exitcode", *inputs(tag)]
    return lambda: call(command, platform.folder, variables)


def prefect_deploy_all(platform: Platform, folder: Path) -> Callable[[], None]:
    """`prefect deploy --all` for a folder of flows, with the steps that Prefect's documentation has for images."""
    repository = f"{PREFIX}_bench"
    platform.aws("ecr").create_repository(repositoryName=repository)
    agent = platform.agent_containers[0].image.tags[0]
    (folder / "Dockerfile").write_text(f"FROM {agent}\nCOPY . /opt/workflow\nWORKDIR /opt/workflow\n")
    image = {"image_name": f"{registry(platform)}/{repository}", "tag": "bench"}
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
    variables = operator(platform) | {"DOCKER_CONFIG": str(log_in(platform, folder.parent / "docker"))}
    return lambda: call([PREFECT, "--no-prompt", "deploy", "--all"], folder, variables)


@contextlib.contextmanager
def stock_worker(platform: Platform, deployment: str) -> Iterator[str]:
    """`prefect worker start --type ecs` with its default settings, at work on a work pool of its own.

    Args:
        platform: on whose ECS cluster it starts tasks.
        deployment: id of one of ours; the same flow in the same image gets a deployment for this worker.

    Yields:
        The id of that deployment.
    """
    pool = platform.prefect(f"/work_pools/{PREFIX}", method="GET")
    platform.prefect("/work_pools/", name=STOCK, type="ecs", base_job_template=stock_template(platform, pool))
    ours = platform.prefect(f"/deployments/{deployment}", method="GET")
    same = {name: ours[name] for name in ("flow_id", "entrypoint", "path", "pull_steps")}
    variables = {**ours["job_variables"], "family": STOCK}
    wanted = {**same, "name": STOCK, "work_pool_name": STOCK, "job_variables": variables}
    made = platform.prefect("/deployments/", wanted)
    command = [PREFECT, "worker", "start", "--pool", STOCK, "--type", "ecs"]
    with (platform.folder / ".local" / "stock_worker.log").open("wb") as log:
        worker = subprocess.Popen(command, env=operator(platform), stdout=log, stderr=subprocess.STDOUT)
        try:
            online = f"/work_pools/{STOCK}/workers/filter"
            wait_for("the stock worker", lambda: platform.prefect(online), START_SECONDS)
            yield str(made["id"])
        finally:
            worker.kill()  # asked to end, it waits for its observer of ECS, which may be in a pause of minutes
            worker.wait()


def stock_template(platform: Platform, pool: dict[str, Any]) -> dict[str, Any]:
    """The base job template of our work pool, without what Prefect's own worker does not know."""
    template: dict[str, Any] = copy.deepcopy(pool["base_job_template"])
    configuration, variables = template["job_configuration"], template["variables"]["properties"]
    for ours in ("restarts", "match_latest_revision_in_family"):
        del configuration[ours]
    variables["command"]["default"] = STOCK_COMMAND
    # The worker is not in a container as its runs are, and reaches Prefect by another name.
    variables["env"]["default"] = {"PREFECT_API_URL": f"http://host.docker.internal:{platform.prefect_port}/api"}
    return template


def seconds_to_running(platform: Platform, deployment: str) -> float:
    """Create a run and wait for it; gives the seconds from its creation to its code's start, as Prefect has them."""
    run = runs.create(platform, deployment)
    runs.wait_for_state(platform, run, "Completed", START_SECONDS)
    of_run = runs.read(platform, [run])[run]
    created, begun = (runs.moment({"timestamp": of_run[name]}) for name in ("created", "start_time"))
    return (begun - created).total_seconds()


def operator(platform: Platform) -> dict[str, str]:
    """Environment variables of a person who works with a platform's AWS and Prefect."""
    return {
        **os.environ,
        "TF_CLI_CONFIG_FILE": str(platform.folder / ".local" / "terraform.rc"),
        "AWS_ENDPOINT_URL": f"http://{registry(platform)}",
        "AWS_REGION": "eu-west-1",
        "AWS_DEFAULT_REGION": "eu-west-1",
        "AWS_ACCESS_KEY_ID": "local",
        "AWS_SECRET_ACCESS_KEY": platform.root_key,
        "PREFECT_API_URL": f"http://127.0.0.1:{platform.prefect_port}/api",
        "PREFECT_API_AUTH_STRING": platform.key,
        "PREFECT_HOME": str(platform.folder / ".local" / "prefect_home"),
    }


def inputs(tag: str) -> list[str]:
    """The options that Terraform wants with the module."""
    return ["-var-file=../environments/local.tfvars", "-var=environment=local", f"-var=agent_image_tag={tag}"]


def registry(platform: Platform) -> str:
    """Host and port of the emulated AWS, its registry included."""
    return f"127.0.0.1:{platform.aws_port}"


def log_in(platform: Platform, folder: Path) -> Path:
    """Log Docker's own commands in to the emulated ECR; gives the folder for DOCKER_CONFIG."""
    answer = platform.aws("ecr").get_authorization_token()["authorizationData"][0]
    folder.mkdir(exist_ok=True)
    login = {"auths": {registry(platform): {"auth": answer["authorizationToken"]}}}
    (folder / "config.json").write_text(json.dumps(login))
    return folder


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
