"""The agent's image: its content, its name and how it gets into ECR."""

from pathlib import Path

from environments import progress
from environments.errors import PlatformError
from environments.settings import ROOT, Environment
from infra import base_image, images

RUNS_INSIDE = (
    "__init__",
    "attempts",
    "aws",
    "capacity",
    "causes",
    "limits",
    "observer",
    "outlived",
    "prefect_states",
    "rate_limits",
    "recovery",
    "refusals",
    "remains",
    "run_workflow",
    "start_agent",
    "task_definitions",
    "task_ends",
    "task_log",
    "tasks",
    "unused_definitions",
    "worker",
)
SHARED = ("fargate", "run_terms", "task_limits")
"""Modules of `environments` that the image holds, too."""
FILES = (
    "agent/Dockerfile",
    "agent/without_symbols.py",
    *(f"agent/{module}.py" for module in RUNS_INSIDE),
    *(f"environments/{module}.py" for module in SHARED),
    "requirements/agent.txt",
)


def name(environment: Environment) -> images.Image:
    """The image of this checkout's agent; its tag is a hash of the content, known before anything is built.

    The digest of the base image counts as content, so that an update of the base image makes another agent image.
    """
    tag = images.tag_of(_content(), base_image.pinned().pinned)
    return images.image_name(environment, environment.agent_name, tag)


def build(environment: Environment) -> images.Image:
    """Build the image unless the engine or ECR has it; gives its name.

    In local, the step's note says so when the base image is not the pinned one.

    Raises:
        PlatformError: no registry gives the pinned base image, whose digest the tag of an image on AWS stands for.
    """
    image = name(environment)
    # In local, ECR may not be up yet, and its images come from this engine anyway.
    if not environment.is_local and images.find(environment, image):
        progress.note("already in ECR")
        return image
    if images.is_built(environment, image):
        progress.note("unchanged")
        return image
    base = base_image.provide()
    if base.deviation and not environment.is_local:
        raise PlatformError(
            "the agent's image is built on the pinned base image only",
            base.deviation,
            "run the same command again where the Docker engine reaches the registry of the base image",
        )
    images.build(environment, image, _content(), "agent/Dockerfile", {"BASE_IMAGE": base.reference})
    if base.deviation:
        progress.note(f"built; {base.deviation}")
    return image


def _content() -> dict[str, bytes]:
    return images.content(ROOT, (Path(ROOT, file) for file in FILES))
