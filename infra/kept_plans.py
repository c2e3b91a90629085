"""Plans that wait in the state bucket for the deploy that applies them.

A plan holds the values of all resources, and whoever can read a repository can download what its jobs keep. So a job
keeps a plan where the state is, and hands only its name on. The name has the hash of the content: whoever else can
write there can not exchange the plan for another. Plans expire after `PLAN_DAYS` (state.py).
"""

import hashlib
import re
import uuid
from pathlib import Path

from environments.errors import PlatformError
from environments.settings import Environment
from infra.aws import client
from infra.state import PLAN_DAYS, PLANS, bucket_name

NAME = re.compile(rf"({PLANS}[0-9a-f]{{32}})@sha256:([0-9a-f]{{64}})")


def is_name(text: str) -> bool:
    """Whether a text names a plan that `keep` has kept, and not a file."""
    return NAME.fullmatch(text) is not None


def keep(environment: Environment, file: Path) -> str:
    """Store a saved plan in the state bucket; returns the name by which `fetch` finds it."""
    content, key = file.read_bytes(), f"{PLANS}{uuid.uuid4().hex}"
    client(environment, "s3").put_object(Bucket=bucket_name(environment), Key=key, Body=content)
    return f"{key}@sha256:{hashlib.sha256(content).hexdigest()}"


def fetch(environment: Environment, name: str, folder: Path) -> Path:
    """Read a plan from the state bucket into a new file of a folder.

    Args:
        environment: whose plan.
        name: as returned by `keep`.
        folder: for the file.

    Raises:
        PlatformError: the plan has expired, belongs to another environment, or is not the one that was kept.
    """
    match = NAME.fullmatch(name)
    if not match:
        raise PlatformError(f"{name!r} does not name a plan", todo=f"invoke plan --env {environment.name} --keep")
    s3, (key, expected) = client(environment, "s3"), match.groups()
    try:
        content = s3.get_object(Bucket=bucket_name(environment), Key=key)["Body"].read()
    except s3.exceptions.NoSuchKey as error:
        raise PlatformError(
            f"the state bucket of environment {environment.name} has no plan {key}",
            f"plans expire after {PLAN_DAYS} days",
            f"plan again: invoke plan --env {environment.name} --keep; in a pipeline, re-run all jobs",
        ) from error
    if (actual := hashlib.sha256(content).hexdigest()) != expected:
        raise PlatformError(
            f"the plan {key} has been changed since it was kept",
            f"its SHA-256 is {actual}, not {expected}",
            f"find out who wrote to {bucket_name(environment)}/{key}, then plan again",
        )
    file = folder / "kept.tfplan"
    file.write_bytes(content)
    return file
