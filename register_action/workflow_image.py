"""One image for a workflow folder, and what Prefect wants to know of the flows inside it."""

import dataclasses
import json
import re
from pathlib import Path
from typing import Any

from environments import console
from environments.errors import PlatformError
from environments.local_stack import docker_client
from environments.prefect_api import prefect_client
from environments.secrets import REGISTER_TOKEN
from environments.settings import ROOT, Environment
from infra import images
from register_action.discovery import FoundFlow, workflow_files

WORKFLOW_FOLDER = "/opt/workflow"
DESCRIBE = ROOT / "register_action" / "describe_flows.py"


@dataclasses.dataclass(frozen=True)
class DescribedFlow:
    """A flow as Prefect knows it: entry point, name, description and the JSON schema of its parameters."""

    entrypoint: str
    name: str
    description: str
    parameters: dict[str, Any]


def slug(name: str) -> str:
    """A name that ECR, ECS and log streams all take."""
    return re.sub(r"[^a-z0-9]+", "_", name.lower()).strip("_")[:100] or "workflow"


def repository_name(environment: Environment, folder: Path) -> str:
    """Name of the workflow's ECR repository: `<env>_<folder>`."""
    return f"{environment.name}_{slug(folder.resolve().name)}"


def base_image(environment: Environment) -> str:
    """The agent's image, which workflow images are built on; the project knows it.

    Raises:
        PlatformError: the environment is not deployed yet.
    """
    from prefect.exceptions import ObjectNotFound

    with prefect_client(environment, REGISTER_TOKEN) as client:
        try:
            template = client.read_work_pool(environment.prefix).base_job_template
        except ObjectNotFound as error:
            raise PlatformError(
                f"environment {environment.name} is not deployed yet",
                f"Prefect has no project {environment.prefix}",
                f"invoke deploy --env {environment.name}",
            ) from error
    return str(template["variables"]["properties"]["image"]["default"])


def build(environment: Environment, folder: Path) -> images.Image:
    """Build the folder's image, unless ECR or the Docker engine has one of that content; gives its name.

    Args:
        environment: where it is for.
        folder: the workflow.
    """
    base = base_image(environment)
    code = {f"workflow/{name}": data for name, data in images.content(folder, workflow_files(folder)).items()}
    dockerfile = (ROOT / "register_action" / "Dockerfile").read_bytes()
    files = {**code, "requirements.txt": code.get("workflow/requirements.txt", b""), "Dockerfile": dockerfile}
    image = images.image_name(environment, repository_name(environment, folder), images.tag_of(files, base))
    if there := images.find(environment, image):
        console.note("unchanged")
        return there
    base_name = images.fetch(environment, base)
    images.build(environment, image, files, "Dockerfile", {"BASE_IMAGE": base_name})
    return image


def push(environment: Environment, image: images.Image) -> images.Image:
    """Push the image, and make its repository, unless ECR has it; gives it with its digest."""
    if image.digest:
        console.note("already in ECR")
        return image
    images.ensure_repository(environment, image.repository)
    return images.push(environment, image)


def describe(environment: Environment, image: images.Image, flows: list[FoundFlow]) -> list[DescribedFlow]:
    """Import the flows inside their image and describe them.

    Raises:
        PlatformError: a flow fails on import; the reason holds the traceback, trimmed to the author's code.
    """
    from docker.errors import ContainerError

    try:
        output = docker_client().containers.run(
            images.fetch(environment, image.uri),
            ["python", "-c", DESCRIBE.read_text(encoding="utf-8"), *(flow.entrypoint for flow in flows)],
            remove=True,
            network_disabled=True,
            cap_drop=["ALL"],
            security_opt=["no-new-privileges"],
            environment={"PREFECT_LOGGING_LEVEL": "ERROR"},
        )
    except ContainerError as error:
        raise PlatformError("the workflow's image does not run", str(error.stderr or error)) from error
    console.note(f"{len(flows)} flows imported in it")
    answers = json.loads(output.decode().splitlines()[-1])
    broken = [answer for answer in answers if "error" in answer]
    if broken:
        raise PlatformError(
            f"{len(broken)} of {len(answers)} flows fail on import",
            "\n".join(f"{answer['entrypoint']}:\n{author_traceback(answer['error'])}" for answer in broken),
            "correct them, or add what they import to requirements.txt, and register again",
        )
    return [DescribedFlow(**answer) for answer in answers]


def author_traceback(text: str) -> str:
    """A traceback without the frames that are not the author's."""
    kept, ours = [], False
    for line in text.splitlines():
        if line.startswith("  File "):
            ours = f'"{WORKFLOW_FOLDER}' in line or 'File "flow' in line
        elif not line.startswith(" "):
            ours = True
        if ours:
            kept.append(line)
    return "\n".join(kept)
