"""Where no secret may be: each place gives all that is there, for the search in canary.py."""

import dataclasses
import json
import os
import subprocess
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from functional_tests import canary
from functional_tests.canary import Found
from functional_tests.platform import Platform, image_tags
from infra.terraform_process import program

BUCKET = "local-dataflow-automation-state-000000000000"
STATE_KEY = "terraform.tfstate"


@dataclasses.dataclass
class Used:
    """A platform that has done all that it can do, and what it gave.

    That is saved plans with their modules, jobs' output, and the container that a workflow was in.
    """

    platform: Platform
    folder: Path
    machine: Path
    plans: list[tuple[Path, Path]]
    jobs: list[Found]
    workflow: Any


def images(used: Used) -> Iterator[Found]:
    """Every layer of the platform's images, each once, and their configurations with their histories."""
    tags = [tag for tag in image_tags() if f":{used.platform.aws_port}/" in tag]
    saved = used.folder / "images.tar"
    subprocess.run(["docker", "save", "--output", str(saved), *tags], check=True, capture_output=True)
    with tarfile.open(saved) as archive:
        for member in archive:
            if data := archive.extractfile(member):
                yield member.name, data.read()
    saved.unlink()


def state(used: Used) -> Iterator[Found]:
    """Every version of every object in the state bucket, and what Terraform keeps on this machine."""
    s3 = used.platform.aws("s3")
    for page in s3.get_paginator("list_object_versions").paginate(Bucket=BUCKET):
        for version in page["Versions"]:
            which = {"Key": version["Key"], "VersionId": version["VersionId"]}
            yield str(which), s3.get_object(Bucket=BUCKET, **which)["Body"].read()
    yield from canary.files(used.platform.folder / ".local/local/terraform/terraform.tfstate")


def plans(used: Used) -> Iterator[Found]:
    """Saved plans, and what Terraform reads in them, values that it calls sensitive included."""
    for module, plan in used.plans:
        yield from canary.files(plan)
        yield f"terraform show {plan.name}", terraform(used, module, "show", "-json", str(plan))


def terraform(used: Used, module: Path, *arguments: str) -> bytes:
    """Run Terraform as the platform does; gives what it prints."""
    local = used.platform.folder / ".local"
    own = module.is_relative_to(used.platform.folder)
    data = local / "local/terraform" if own else module / ".terraform"
    variables = {"TF_DATA_DIR": str(data), "TF_CLI_CONFIG_FILE": str(local / "terraform.rc")}
    command = [program(), f"-chdir={module}", *arguments]
    return subprocess.run(command, env={**os.environ, **variables}, check=True, capture_output=True).stdout


def definitions(used: Used) -> Iterator[Found]:
    """All task definitions, those out of use too, and what tasks were started with."""
    ecs = used.platform.aws("ecs")
    for status in ("ACTIVE", "INACTIVE"):
        for page in ecs.get_paginator("list_task_definitions").paginate(status=status):
            for arn in page["taskDefinitionArns"]:
                yield arn, as_json(ecs.describe_task_definition(taskDefinition=arn))
    for cluster in ecs.list_clusters()["clusterArns"]:
        for status in ("RUNNING", "STOPPED"):
            for page in ecs.get_paginator("list_tasks").paginate(cluster=cluster, desiredStatus=status):
                if arns := page["taskArns"]:
                    yield cluster, as_json(ecs.describe_tasks(cluster=cluster, tasks=arns))


def logs(used: Used) -> Iterator[Found]:
    """Log files of servers and commands, CloudWatch's log groups, and the logs of runs that Prefect keeps."""
    yield from canary.files(*used.platform.folder.joinpath(".local").glob("**/logs"))
    cloudwatch = used.platform.aws("logs")
    for group in cloudwatch.describe_log_groups()["logGroups"]:
        for page in cloudwatch.get_paginator("filter_log_events").paginate(logGroupName=group["logGroupName"]):
            yield group["logGroupName"], as_json(page["events"])
    offset = 0
    while page := used.platform.prefect("/logs/filter", limit=200, offset=offset):
        yield "Prefect", as_json(page)
        offset += len(page)


def labels(used: Used) -> Iterator[Found]:
    """What Docker shows of each container but its environment, where tasks get the key."""
    for container in (used.workflow, *used.platform.containers("", everything=True)):
        yield container.name, str([container.labels, container.attrs["Path"], container.attrs["Args"]]).encode()


def as_json(answer: Any) -> bytes:
    """What AWS or Prefect answered, to be searched."""
    return json.dumps(answer, default=str).encode()


PLACES: dict[str, Callable[[Used], Iterator[Found]]] = {
    "Terraform state": state,
    "Terraform plan": plans,
    "image layers and history": images,
    "task definitions": definitions,
    "logs": logs,
    "printed": lambda used: ((f"command {n}", text.encode()) for n, text in enumerate(used.platform.printed)),
    "process lists": lambda used: ((line.decode(errors="replace"), line) for line in set(used.platform.arguments)),
    "pipelines' output": lambda used: iter(used.jobs),
    "Docker labels": labels,
}
