"""What Terraform says when it fails, as errors of ours."""

import re
from typing import Any

from environments.errors import PlatformError
from environments.settings import Environment
from infra.state import LOCK_KEY, bucket_name

NAME_TAKEN = re.compile("Already ?Exists|already exists|Duplicate|AlreadyAssociated|not idempotent|Subnet.Conflict")
"""What AWS says when something of a name, a place or a range that is asked for is there already."""
STALE = "the plan is stale; nothing was changed"
PASSING = re.compile(
    r"unexpected EOF|connection reset|connection refused|broken pipe|i/o timeout|StatusCode: 5\d\d|Throttl|SlowDown"
)
"""What Terraform says of an AWS that was overloaded or out of reach for a moment."""

ADDRESS_LEFT_BEHIND = re.compile(r"(disassociating|deleting) EC2 EIP")
"""What Terraform reports when it removes the address of a NAT gateway that has just gone.

It would end the association first, which went with the gateway. A role that may change only what carries certain tags
is refused, since the missing association has none; the next run no longer sees it. `ReleaseAddress` alone fails at
times as well: https://github.com/hashicorp/terraform-provider-aws/issues/49299
"""


def failure(environment: Environment, command: str, words: str) -> PlatformError:
    """The error for a Terraform run that failed: what users can mend is explained, the rest is in Terraform's words."""
    held = {
        name: value.strip()
        for name, value in re.findall(r"^\s*(ID|Who|Created|Operation):\s*(.+)$", words, re.MULTILINE)
    }
    if "Error acquiring the state lock" in words and held:
        return lock_held(environment, held)
    if bucket_name(environment) in words and re.search("does not exist|NoSuchBucket", words):
        return PlatformError(
            f"environment {environment.name} is not deployed",
            f"there is no state bucket {bucket_name(environment)}",
            f"invoke deploy --env {environment.name}"
            if environment.is_local
            else f"invoke bootstrap-account --env {environment.name} makes it, once per account; then invoke deploy",
        )
    if "Saved plan is stale" in words:
        return PlatformError(
            STALE,
            f"environment {environment.name} was changed after the plan was made",
            f"plan again, and look at it: invoke plan --env {environment.name} --out FILE",
        )
    changing = command in ("apply", "destroy")
    todo = "what is done stays done; once that is mended the same command goes on from there" if changing else ""
    return PlatformError(f"terraform {command} failed", words, todo)


def lock_held(environment: Environment, held: dict[str, Any]) -> PlatformError:
    """The error for a lock that another run holds, or held when it died: Terraform's own words on it, by name."""
    known = {"Who", "Created", "Operation", "ID"} <= held.keys()
    return PlatformError(
        "another run holds the lock of this environment",
        f"{held['Who']} since {held['Created']} ({held['Operation']})" if known else "the lock does not say which",
        "wait for it; if that run is dead for sure: "
        + (
            f"invoke unlock {held['ID']} --env {environment.name}"
            if known
            else f"delete {LOCK_KEY} of the state bucket"
        ),
    )


def diagnostic(event: dict[str, Any]) -> list[str]:
    """The lines of an error among Terraform's JSON events: what, where, and more on it."""
    told = event.get("diagnostic", {})
    place = told.get("range", {})
    where = f"{place['filename']}:{place['start']['line']}" if place else told.get("address", "")
    return [line for line in (told.get("summary", event.get("@message", "")), where, told.get("detail", "")) if line]


def readable(words: str) -> str:
    """Terraform's message without the frame it draws around it."""
    lines = [re.sub(r"^[│╷╵]\s?", "", line).rstrip() for line in words.splitlines()]
    return "\n".join(line for line in lines if line)
