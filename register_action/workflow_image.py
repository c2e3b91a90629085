"""One image for a workflow's folder: built and pushed only when ECR has none of that content, and looked into."""

import dataclasses
import itertools
import json
import posixpath
import re
from typing import Any

from environments import leftovers, progress
from environments.errors import PlatformError
from environments.local_stack import docker_client, docker_errors
from environments.settings import ROOT, Environment
from infra import images
from infra.aws import check_account
from infra.images import Image
from register_action.discovery import FoundFlow, check_names
from register_action.registered import DESCRIBED, Project
from register_action.workflow import Workflow

DOCKERFILE = ROOT / "register_action" / "Dockerfile"
DESCRIBE = ROOT / "register_action" / "describe_flows.py"
AUTHORS_DOCKERFILE = "Dockerfile"
SCRATCH = "tmp"
"""The volume of the image; in memory while flows are imported, because Docker would leave it behind."""
SET_DIRECTORY = "prefect.deployments.steps.set_working_directory"
LAST_LINES = 15
IMPORT_SECONDS = 120
TIMED_OUT = b"Timeout ("
"""How Python's faulthandler begins, which cuts the import off."""
PIP_COMPLAINS = re.compile(r"\s*(error|ERROR): |.* has requirement ")
FRAME = re.compile(r'^  File "([^"]+)", line (\d+)', re.MULTILINE)


@dataclasses.dataclass(frozen=True)
class Content:
    """What an image is made from: its name, its build context, and whether the Dockerfile in it is the author's."""

    image: Image
    files: dict[str, bytes] = dataclasses.field(repr=False)
    by_author: bool = False


@dataclasses.dataclass(frozen=True)
class DescribedFlow:
    """A flow as Prefect knows it: entry point, name, description, schema of its parameters, folder in the image."""

    entrypoint: str
    name: str
    description: str
    parameters: dict[str, Any]
    directory: str


def repository_name(environment: Environment, workflow_name: str) -> str:
    """Name of a workflow's ECR repository."""
    return f"{environment.name}_{workflow_name}"


def content(environment: Environment, workflow: Workflow, project: Project) -> Content:
    """What the workflow's image is made from, with the digest if ECR has it already.

    Raises:
        PlatformError: no access to the environment's AWS account.
    """
    if not environment.is_local:
        check_account(environment)
    if by_author := AUTHORS_DOCKERFILE in workflow.files:
        files = dict(workflow.files)
    else:
        # A change of a schedule is no change of the image.
        files = {f"workflow/{name}": data for name, data in workflow.files.items() if name != "prefect.yaml"}
        files |= {f"packages/{name}": data for name, data in workflow.packages.extra.items()}
        files |= {"packages/requirements.txt": workflow.packages.requirements, "Dockerfile": DOCKERFILE.read_bytes()}
    tag = images.tag_of(files, base_image(workflow, project))
    image = images.image_name(environment, repository_name(environment, workflow.name), tag)
    there = images.find(environment, image)
    progress.note(f"{image.repository}:{image.tag}, " + ("already in ECR" if there else "new"))
    return Content(there or image, files, by_author)


def build(environment: Environment, workflow: Workflow, project: Project, made_from: Content) -> Image:
    """Build the image, unless ECR or the Docker engine has it.

    Raises:
        PlatformError: a step failed; the reason holds the step and its last lines.
    """
    if made_from.image.digest:
        progress.note("already in ECR")
        return made_from.image
    if images.is_built(environment, made_from.image):
        progress.note("unchanged")
        return made_from.image
    base = base_image(workflow, project)
    arguments = {"BASE_IMAGE": images.fetch(environment, base)} if base else {}
    try:
        images.build(environment, made_from.image, made_from.files, "Dockerfile", arguments)
    except images.BuildError as error:
        raise _explained(workflow, made_from, error) from error
    return made_from.image


def base_image(workflow: Workflow, project: Project) -> str:
    """The agent's image if the workflow is built on it, else empty: an author's Dockerfile need not ask for it."""
    authors = workflow.files.get(AUTHORS_DOCKERFILE)
    return project.base_image if authors is None or b"BASE_IMAGE" in authors else ""


def push(environment: Environment, image: Image) -> Image:
    """Push the image, and make its repository, unless ECR has it; gives it with its digest."""
    if image.digest:
        progress.note("already in ECR")
        return image
    images.ensure_repository(environment, image.repository)
    return images.push(environment, image)


def describe(environment: Environment, workflow: Workflow, project: Project, image: Image) -> list[DescribedFlow]:
    """What Prefect wants to know of the wanted flows: from their deployments of the same image, else by importing them.

    Raises:
        PlatformError: a flow fails on import; the reason holds the traceback, trimmed to the author's code.
    """
    flows = known(workflow, project, image)
    if nothing_new := all(flow.entrypoint in flows for flow in workflow.flows):
        progress.note("known from their deployments")
    else:
        flows = {flow.entrypoint: flow for flow in _imported(environment, image, workflow.flows)}
        progress.note(f"{len(flows)} imported in the image")
    described = [flows[flow.entrypoint] for flow in workflow.flows]
    if not nothing_new:
        check_names(
            (f"{found.file}:{found.line}", flow.name) for found, flow in zip(workflow.flows, described, strict=True)
        )
    return described


def known(workflow: Workflow, project: Project, image: Image) -> dict[str, DescribedFlow]:
    """Flows that deployments of exactly this image tell of, by entry point."""
    own = {entry.flow.entrypoint for entry in workflow.entries if not (entry.declared and entry.declared.description)}
    described = {}
    for each in project.existing:
        deployment = each.deployment
        # What prefect.yaml said instead of the flow's own description is of no use once it does not say it any more.
        told = not each.label(DESCRIBED) or deployment.entrypoint not in own
        if image.digest and each.image == image.pinned and deployment.entrypoint and told:
            described[deployment.entrypoint] = DescribedFlow(
                entrypoint=deployment.entrypoint,
                name=each.flow,
                description=deployment.description or "",
                parameters=deployment.parameter_openapi_schema or {},
                directory=(deployment.pull_steps or [{}])[0].get(SET_DIRECTORY, {}).get("directory", "/"),
            )
    return described


def _imported(environment: Environment, image: Image, flows: list[FoundFlow]) -> list[DescribedFlow]:
    errors = docker_errors()
    name, output = images.fetch(environment, image.uri), b""
    try:
        printed = docker_client().containers.run(
            name,
            ["python", "-c", DESCRIBE.read_text(encoding="utf-8"), *(flow.entrypoint for flow in flows)],
            remove=True,
            labels=leftovers.label(),
            network_disabled=True,
            tmpfs={f"/{SCRATCH}": "exec"},
            cap_drop=["ALL"],
            security_opt=["no-new-privileges"],
            environment={"PREFECT_LOGGING_LEVEL": "ERROR", "IMPORT_SECONDS": str(IMPORT_SECONDS)},
        )
        output = printed or b"it printed nothing"
        by_entrypoint = {answer["entrypoint"]: answer for answer in json.loads(output.decode().splitlines()[-1])}
        answers = [by_entrypoint[flow.entrypoint] for flow in flows]
    except (errors.ContainerError, errors.APIError, ValueError, LookupError, TypeError) as error:
        last_words = getattr(error, "stderr", None) or output or str(error).encode()
        if TIMED_OUT in last_words:
            raise PlatformError(
                f"importing the flows takes more than {IMPORT_SECONDS} s",
                last_words[last_words.index(TIMED_OUT) :].decode(errors="replace"),
                "move what takes long, or waits for a network, into the flows; it is not there when they are imported",
            ) from error
        raise PlatformError(
            "Python and Prefect don't run in the workflow's image",
            "\n".join(last_words.decode(errors="replace").splitlines()[-LAST_LINES:]),
            "a Dockerfile of your own begins best with `ARG BASE_IMAGE` and `FROM ${BASE_IMAGE}`: "
            "that is the platform's image with Python and Prefect",
        ) from error
    failed = [
        (flow, author_traceback(answer["error"], answer["directory"]), answer["directory"])
        for flow, answer in zip(flows, answers, strict=True)
        if "error" in answer
    ]
    if failed:
        file, line = _place(*failed[0])
        raise PlatformError(
            f"{len(failed)} of {len(flows)} flows fail on import",
            "\n".join(f"{flow.entrypoint}:\n{told}" for flow, told, _ in failed),
            "correct them, or add what they import to requirements.txt, and register again",
            file=file,
            line=line,
        )
    return [DescribedFlow(**answer) for answer in answers]


def _place(flow: FoundFlow, told: str, directory: str) -> tuple[str, int]:
    """Where in the author's folder an import failed: the last line of theirs in the traceback, else the flow."""
    if not (frames := FRAME.findall(told)):
        return flow.file, flow.line
    path, line = frames[-1]
    return posixpath.relpath(posixpath.join(directory, path), directory), int(line)


def author_traceback(text: str, directory: str) -> str:
    """A traceback without the frames that are not the author's.

    Args:
        text: the traceback.
        directory: where the author's code lies in the image.
    """
    kept, ours = [], False
    for line in text.splitlines():
        if line.startswith("  File "):
            path = line.split('"')[1] if '"' in line else ""
            inside = path.startswith(directory.rstrip("/") + "/") and "site-packages" not in path
            ours = inside or not path.startswith(("/", "<"))
        elif not line.startswith(" "):
            ours = True
        if ours:
            kept.append(line)
    return "\n".join(kept) or text  # a group of errors is drawn in another way


def _explained(workflow: Workflow, made_from: Content, error: images.BuildError) -> PlatformError:
    """A failed build in the author's words: their packages, or the step of their Dockerfile."""
    lines = "\n".join([*error.lines[-LAST_LINES:], error.reason])
    if not made_from.by_author and "requirements.txt" in error.step:
        file = workflow.packages.file
        told = list(itertools.dropwhile(lambda line: not PIP_COMPLAINS.match(line), error.lines))[-LAST_LINES:]
        return PlatformError(
            "the workflow's packages don't install together with Prefect",
            "\n".join(told) or lines,
            f"correct {file} and register again",
            file=file,
            line=1,
        )
    return PlatformError(
        f"building the image failed at {error.step or 'its first step'}",
        lines,
        f"correct {AUTHORS_DOCKERFILE} and register again" if made_from.by_author else "register again",
        file=AUTHORS_DOCKERFILE if made_from.by_author else "",
        line=1,
    )


def delete_unused(environment: Environment, name: str, unused: set[str]) -> list[str]:
    """Delete images of a workflow from ECR.

    Args:
        environment: whose ECR.
        name: the workflow's.
        unused: URIs by digest that no deployment runs any more.

    Returns:
        The digests that were deleted.
    """
    repository = repository_name(environment, name)
    digests = sorted({uri.partition("@")[2] for uri in unused if f"/{repository}@" in uri})
    return images.delete(environment, repository, digests) if digests else []
