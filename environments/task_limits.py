"""What AWS accepts for a task besides its size: labels, which become tags of the task, and environment variables.

The agent's image contains this file.

Sources: https://docs.aws.amazon.com/AmazonECS/latest/APIReference/API_Tag.html and
https://docs.aws.amazon.com/AmazonECS/latest/developerguide/service-quotas.html
"""

import json
import re
import unicodedata
from collections.abc import Iterable, Iterator, Mapping

from environments.run_terms import ATTEMPT_TAG, RESTARTS_TAG

MAXIMUM_TAGS = 50
RESERVED_PREFIX = "aws:"
MAXIMUM_TAG_KEY = 128
MAXIMUM_TAG_VALUE = 256
PLATFORM_TAGS = (ATTEMPT_TAG, RESTARTS_TAG)
"""Tags that the agent sets on every task."""
PREFECT_TAGS = "prefect.io/"
"""Prefix of the tags that Prefect's worker sets; the agent finds the run of a task by them."""
RESERVED_TAGS = 16
"""Tags kept for Prefect's worker, which sets 11, and the agent, which sets PLATFORM_TAGS; the rest is in reserve."""
MAXIMUM_ENV_BYTES = 48 * 1024
"""A task definition has at most 64 KiB, and the agent moves an env into it that is too large for a task's overrides."""


def label_problems(labels: Mapping[str, str], environment_tags: Iterable[str]) -> Iterator[str]:
    """Say what AWS, or the platform, would refuse about the labels of a deployment.

    Args:
        labels: by key. A value that the agent fills in for each run is not checked.
        environment_tags: keys of the tags that every task of the environment has.
    """
    for key, value in labels.items():
        if text := _key_problem(key):
            yield f"label {key!r}: {text}"
        if "{{" not in value and (text := _value_problem(value)):
            yield f"label {key!r}: its value {text}"
    environment_keys = set(environment_tags)
    allowed = MAXIMUM_TAGS - RESERVED_TAGS - len(environment_keys)
    if (count := len(labels.keys() - environment_keys)) > allowed:
        yield (
            f"{count} labels: a task has at most {MAXIMUM_TAGS} tags, and Prefect, the agent and the environment "
            f"take {MAXIMUM_TAGS - allowed}; at most {allowed} labels remain"
        )


def _key_problem(key: str) -> str:
    if not key:
        return "the name is empty"
    if key.lower().startswith(RESERVED_PREFIX):
        return "AWS reserves names that begin with aws:"
    if key.startswith(PREFECT_TAGS) or key in PLATFORM_TAGS:
        return "the platform sets this tag itself"
    if len(key) > MAXIMUM_TAG_KEY:
        return f"the name has {len(key)} characters; AWS accepts {MAXIMUM_TAG_KEY}"
    if text := _character_problem(key):
        return f"the name {text}"
    if not re.search("[A-Za-z0-9_./=+:@]", key):
        return "the name has no ASCII letter or digit; Prefect's worker replaces all other characters by dashes"
    return ""


def _value_problem(value: str) -> str:
    if value.lower().startswith(RESERVED_PREFIX):
        return "begins with aws:, which AWS reserves"
    if len(value) > MAXIMUM_TAG_VALUE:
        return f"has {len(value)} characters; AWS accepts {MAXIMUM_TAG_VALUE}"
    return _character_problem(value)


def _character_problem(text: str) -> str:
    # Letters, separators and numbers of any script.
    refused = [each for each in text if unicodedata.category(each)[0] not in "LZN" and each not in "_.:/=+-@"]
    return f"contains {refused[0]!r}; AWS accepts letters, digits, spaces and _ . : / = + - @" if refused else ""


def env_problems(env: Mapping[str, str]) -> Iterator[str]:
    """Say which environment variables of a deployment could not be passed to its tasks.

    Args:
        env: values by name; values that the agent fills in for each run are counted as they are written.
    """
    for name in env:
        if not name or "=" in name:
            yield f"env {name!r}: the name of an environment variable is not empty and contains no ="
    # The request to AWS is JSON, in which most characters beyond ASCII take six bytes.
    size = len(json.dumps([{"name": name, "value": value} for name, value in env.items()]))
    if size > MAXIMUM_ENV_BYTES:
        yield f"env: its {len(env)} variable(s) take {size:,} bytes; {MAXIMUM_ENV_BYTES:,} fit into a task definition"
