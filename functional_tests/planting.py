"""Canaries: each function here plants a secret in the real thing, where a leak would put it, for as long as its block.

Each is called with the platform that is searched and the secret.
"""

import base64
import contextlib
import json
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from datetime import UTC, datetime

import docker

from functional_tests import canary, runs
from functional_tests.places import BUCKET, STATE_KEY, Used, terraform
from functional_tests.platform import BASE_IMAGE
from functional_tests.runner import run_action

PREFIX = "local_dataflow_automation"
Plant = Callable[[Used, str], contextlib.AbstractContextManager[None]]


@contextlib.contextmanager
def in_the_state(used: Used, secret: str) -> Iterator[None]:
    s3, which = used.platform.aws("s3"), {"Bucket": BUCKET, "Key": STATE_KEY}
    body = json.loads(s3.get_object(**which)["Body"].read())
    body["outputs"]["planted"] = {"value": secret, "type": "string"}
    planted = s3.put_object(**which, Body=json.dumps(body).encode())["VersionId"]
    try:
        yield
    finally:
        s3.delete_object(**which, VersionId=planted)


@contextlib.contextmanager
def in_a_plan(used: Used, secret: str) -> Iterator[None]:
    module = used.folder / f"module-{uuid.uuid4().hex}"
    module.mkdir()
    (module / "main.tf").write_text(f'output "planted" {{\n  value     = "{secret}"\n  sensitive = true\n}}\n')
    terraform(used, module, "plan", "-input=false", f"-out={module / 'planted.tfplan'}")
    assert secret.encode() not in (module / "planted.tfplan").read_bytes(), "it takes more than reading the file"
    used.plans.append((module, module / "planted.tfplan"))
    yield
    used.plans.pop()


def in_an_image(line: str) -> Plant:
    """A line of a Dockerfile writes it."""

    @contextlib.contextmanager
    def plant(used: Used, secret: str) -> Iterator[None]:
        tag = f"127.0.0.1:{used.platform.aws_port}/planted:{uuid.uuid4().hex}"
        dockerfile = f"FROM {BASE_IMAGE}\n{line.format(secret)}\n"
        build = ["docker", "build", "--force-rm", "--tag", tag, "-"]
        subprocess.run(build, input=dockerfile.encode(), check=True, capture_output=True)
        yield
        subprocess.run(["docker", "rmi", "--force", tag], check=True, capture_output=True)

    return plant


@contextlib.contextmanager
def in_a_task_definition(used: Used, secret: str) -> Iterator[None]:
    ecs = used.platform.aws("ecs")
    environment = [{"name": "PLANTED", "value": secret}]
    container = {"name": "planted", "image": BASE_IMAGE, "memory": 64, "environment": environment}
    made = ecs.register_task_definition(family="planted", containerDefinitions=[container])["taskDefinition"]
    ecs.deregister_task_definition(taskDefinition=made["taskDefinitionArn"])
    yield


@contextlib.contextmanager
def in_a_task(used: Used, secret: str) -> Iterator[None]:
    ecs, family = used.platform.aws("ecs"), runs.family(used.platform, "sample-workflow")
    name = ecs.describe_task_definition(taskDefinition=family)["taskDefinition"]["containerDefinitions"][0]["name"]
    container = {"name": name, "command": ["true"], "environment": [{"name": "PLANTED", "value": secret}]}
    started = ecs.run_task(
        cluster=f"{PREFIX}_workflows",
        taskDefinition=family,
        launchType="FARGATE",
        networkConfiguration={"awsvpcConfiguration": {"subnets": [a_subnet(used)]}},
        overrides={"containerOverrides": [container]},
    )
    assert started["failures"] == []
    yield


def a_subnet(used: Used) -> str:
    (found, *_) = used.platform.aws("ec2").describe_subnets()["Subnets"]
    return str(found["SubnetId"])


@contextlib.contextmanager
def in_cloudwatch(used: Used, secret: str) -> Iterator[None]:
    cloudwatch = used.platform.aws("logs")
    stream = {"logGroupName": f"{PREFIX}_agent", "logStreamName": "planted"}
    cloudwatch.create_log_stream(**stream)
    event = {"timestamp": int(time.time() * 1000), "message": f"key is {secret}"}
    cloudwatch.put_log_events(**stream, logEvents=[event])
    yield
    cloudwatch.delete_log_stream(**stream)


@contextlib.contextmanager
def in_a_servers_log(used: Used, secret: str) -> Iterator[None]:
    header = f"Basic {base64.b64encode(secret.encode()).decode()}"
    with (used.platform.folder / ".local/local/logs/prefect.log").open("a") as log:
        log.write(f"Authorization: {header}\n")
    yield


@contextlib.contextmanager
def in_a_runs_log(used: Used, secret: str) -> Iterator[None]:
    (run, *_) = used.platform.prefect("/flow_runs/filter", limit=1)
    line = {"name": "planted", "level": 20, "message": f"key is {secret}", "timestamp": str(datetime.now(UTC))}
    used.platform.prefect("/logs/", [{**line, "flow_run_id": run["id"]}])
    yield


@contextlib.contextmanager
def in_what_is_printed(used: Used, secret: str) -> Iterator[None]:
    used.platform.invoke("run", secret, check=False)
    yield
    used.platform.printed.pop()


@contextlib.contextmanager
def in_an_argument(used: Used, secret: str) -> Iterator[None]:
    # Over before the search begins, as what a task starts is.
    subprocess.run([sys.executable, "-c", "import time; time.sleep(0.3)", f"--key={secret}"], check=True)
    yield


@contextlib.contextmanager
def in_a_label(used: Used, secret: str) -> Iterator[None]:
    engine = docker.from_env()
    container = engine.containers.create(BASE_IMAGE, labels={**used.platform.label, "planted": secret})
    yield
    container.remove(force=True, v=True)


def in_a_job(script: str) -> Plant:
    """A step of a job writes it, and nothing masks it."""

    @contextlib.contextmanager
    def plant(used: Used, secret: str) -> Iterator[None]:
        step = {"id": "step", "shell": "bash", "env": {"CANARY": "${{ inputs.canary }}"}, "run": script}
        action = {
            "inputs": {"canary": {"description": "what to write"}},
            "outputs": {"value": {"value": "${{ steps.step.outputs.value }}"}},
            "runs": {"using": "composite", "steps": [step]},
        }
        folder = used.folder / f"action-{uuid.uuid4().hex}"
        folder.mkdir()
        (folder / "action.yml").write_text(json.dumps(action))
        done = run_action(folder, {"canary": secret}, folder, used.machine)
        left = list(canary.of_job(done, used.machine))
        used.jobs += left
        yield
        del used.jobs[-len(left) :]

    return plant


PLANTS: dict[str, tuple[str, Plant]] = {
    "an older version of the state": ("Terraform state", in_the_state),
    "a value of a saved plan": ("Terraform plan", in_a_plan),
    "ENV": ("image layers and history", in_an_image("ENV PLANTED={}")),
    "a file of a layer": ("image layers and history", in_an_image("RUN echo {} > /planted && sync")),
    "LABEL": ("image layers and history", in_an_image("LABEL planted={}")),
    "a task definition out of use": ("task definitions", in_a_task_definition),
    "overrides of a task": ("task definitions", in_a_task),
    "a CloudWatch event": ("logs", in_cloudwatch),
    "a header in a server's log": ("logs", in_a_servers_log),
    "a run's log at Prefect": ("logs", in_a_runs_log),
    "what a command prints": ("printed", in_what_is_printed),
    "an argument of a process": ("process lists", in_an_argument),
    "a label of a container": ("Docker labels", in_a_label),
    "a job's log": ("pipelines' output", in_a_job('echo "key is $CANARY"')),
    "a job's summary": ("pipelines' output", in_a_job('echo "key is $CANARY" >>"$GITHUB_STEP_SUMMARY"')),
    "a step's output": ("pipelines' output", in_a_job('echo "value=$CANARY" >>"$GITHUB_OUTPUT"')),
    "a variable for later steps": ("pipelines' output", in_a_job('echo "KEY=$CANARY" >>"$GITHUB_ENV"')),
    "an annotation": ("pipelines' output", in_a_job('echo "::notice title=key::is $CANARY"')),
}
"""What is planted, and in which place."""
