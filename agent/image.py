"""The agent's image: its content, its name and how it gets into ECR."""

from pathlib import Path

from environments import progress
from environments.settings import ROOT, Environment
from infra import images

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
    """The image of this checkout's agent; its tag is a hash of the content, known before anything is built."""
    return images.image_name(environment, environment.agent_name, images.tag_of(_content(), images.BASE_IMAGE))


def build(environment: Environment) -> images.Image:
    """Build the image unless the engine or ECR has it; gives its name."""
    image = name(environment)
    # In local, ECR may not be up yet, and its images come from this engine anyway.
    if not environment.is_local and images.find(environment, image):
        progress.note("already in ECR")
        return image
    images.build(environment, image, _content(), "agent/Dockerfile", {"BASE_IMAGE": images.BASE_IMAGE})
    return image


def _content() -> dict[str, bytes]:
    return images.content(ROOT, (Path(ROOT, file) for file in FILES))
