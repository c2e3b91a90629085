"""Limits of AWS for one run: what a run asks for is made to fit, or refused with advice.

Values come from prefect.yaml, from Prefect's page or from `prefect deployment run --job-variable`, so `invoke register`
has not seen all of them.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from agent.refusals import NeverStartsError
from environments import fargate
from environments.run_terms import RUN_TAG
from environments.task_limits import (
    MAXIMUM_ENV_BYTES,
    MAXIMUM_TAG_KEY,
    MAXIMUM_TAG_VALUE,
    MAXIMUM_TAGS,
    PLATFORM_TAGS,
    RESERVED_PREFIX,
)

OVERRIDES_CHARACTERS = 8192
"""https://docs.aws.amazon.com/AmazonECS/latest/APIReference/API_TaskOverride.html"""
OF_THE_RUN = "PREFECT__"
"""What the names of variables begin with that are another in each run."""
FIRST_TAGS = (RUN_TAG, *PLATFORM_TAGS)
"""Tags by which the agent knows a task again."""


def check_size(overrides: Mapping[str, Any]) -> None:
    """Make sure that Fargate offers a task's size.

    Args:
        overrides: of a request to RunTask: cpu in CPU units, memory in MiB; without, the task definition's hold.

    Raises:
        NeverStartsError: it does not.
    """
    cpu, memory = str(overrides.get("cpu") or ""), str(overrides.get("memory") or "")
    if not cpu and not memory:
        return
    if not (cpu.isdecimal() and memory.isdecimal()):
        raise NeverStartsError(f"cpu {cpu!r} and memory {memory!r} are not whole numbers. To do: correct them.")
    if problem := fargate.size_problem(int(cpu), int(memory)):
        raise NeverStartsError(
            f"AWS Fargate has no size of cpu {cpu} with memory {memory}: {problem}. To do: choose a pair that goes "
            "together, in the job variables of the run or its deployment."
        )


def fitting_tags(tags: Sequence[Mapping[str, str]]) -> tuple[list[dict[str, str]], list[str]]:
    """Return the tags as AWS takes them, and what was shortened or left out, in words.

    Args:
        tags: each with `key` and `value`; of two with the same key the last one counts.
    """
    notes, fitting = [], {}
    for tag in tags:
        key, value = tag["key"], str(tag["value"])
        if key.lower().startswith(RESERVED_PREFIX):
            notes.append(f"tag {key} is left out: AWS reserves names that begin with {RESERVED_PREFIX}")
            continue
        if len(key) > MAXIMUM_TAG_KEY or len(value) > MAXIMUM_TAG_VALUE:
            notes.append(
                f"tag {key[:MAXIMUM_TAG_KEY]} is shortened to {MAXIMUM_TAG_KEY} and {MAXIMUM_TAG_VALUE} characters"
            )
        fitting[key[:MAXIMUM_TAG_KEY]] = value[:MAXIMUM_TAG_VALUE]
    ordered = sorted(fitting, key=lambda key: key not in FIRST_TAGS)
    if left_out := ordered[MAXIMUM_TAGS:]:
        notes.append(f"AWS takes {MAXIMUM_TAGS} tags; left out: {', '.join(left_out)}")
    return [{"key": key, "value": fitting[key]} for key in ordered[:MAXIMUM_TAGS]], notes


def move_to_definition(environment: Mapping[str, str], command: str) -> list[str]:
    """Return the names of the variables that must be in the task definition, because the overrides have no room.

    Args:
        environment: all variables of a run's container.
        command: of the container.

    Raises:
        NeverStartsError: they don't fit there either.
    """
    staying, moving = dict(environment), list[str]()
    largest_first = sorted(
        (name for name in environment if not name.startswith(OF_THE_RUN)), key=lambda name: -_size(name, environment)
    )
    for name in largest_first:
        if _overrides_length(staying, command) <= OVERRIDES_CHARACTERS:
            break
        moving.append(name)
        del staying[name]
    if _overrides_length(staying, command) > OVERRIDES_CHARACTERS:
        raise NeverStartsError(
            f"its command and the variables {OF_THE_RUN}* are too long for AWS, which takes {OVERRIDES_CHARACTERS} "
            "characters of both. To do: make the command of the deployment shorter."
        )
    size = sum(_size(name, environment) for name in moving)
    if size > MAXIMUM_ENV_BYTES:
        raise NeverStartsError(
            f"its environment variables are too large for AWS: {size // 1024} KiB of at most "
            f"{MAXIMUM_ENV_BYTES // 1024}. To do: keep large values in a file, in S3 or in a "
            "Prefect variable, and have the flow read them."
        )
    return sorted(moving)


def _size(name: str, environment: Mapping[str, str]) -> int:
    return len(json.dumps({"name": name, "value": environment[name]}).encode()) + 1


def _overrides_length(environment: Mapping[str, str], command: str) -> int:
    """Length of the overrides; the container's name, cpu and memory take less than 200 characters."""
    variables = [{"name": name, "value": value} for name, value in environment.items()]
    return len(json.dumps({"command": command.split(), "environment": variables})) + 200
