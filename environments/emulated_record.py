"""Record of what the emulated AWS decided, one JSON line for each distinct decision.

The functional tests switch it on: they set the environment variable `IAM_RECORD` to a file, which the emulated AWS of
every platform appends to. infra/iam_contract.py compares it with AWS's service authorization reference.
"""

import dataclasses
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

FILE_VARIABLE = "IAM_RECORD"
"""Environment variable of the emulated AWS: the file to append decisions to; nothing is recorded without it."""
ROLE_ARN = re.compile(r"arn:aws:(?:sts::\d*:assumed-role|iam::\d*:role)/([^/]+)")


@dataclasses.dataclass(frozen=True)
class Decision:
    """Whether a role may do one action on one resource, with the condition keys that AWS would evaluate.

    Attributes:
        role: its full name.
        action: as policies write it, such as `ecs:RunTask`.
        resource: an ARN, or `*`.
        context: values of condition keys.
        allowed: the result.
    """

    role: str
    action: str
    resource: str
    context: Mapping[str, Any]
    allowed: bool


class Recorder:
    """Appends decisions about roles to a file; without a file it does nothing."""

    def __init__(self, file: Path | None = None) -> None:
        self._file = file
        self._written: set[str] = set()

    def record(self, principal: str, action: str, resource: str, context: Mapping[str, Any], allowed: bool) -> None:
        """Append a decision unless the same one has been written; `principal` is an ARN, and only roles count."""
        role = ROLE_ARN.match(principal)
        if not self._file or not role:
            return
        values = {key: value for key, value in context.items() if value is not None}
        decision = Decision(role[1], action, resource, values, allowed)
        line = json.dumps(dataclasses.asdict(decision), sort_keys=True, default=str)
        if line not in self._written:
            self._written.add(line)
            # One write in append mode: the emulators of several platforms share the file.
            with self._file.open("a", encoding="utf-8") as file:
                file.write(line + "\n")


def read(file: Path) -> list[Decision]:
    """The decisions in a file, each once; empty when there is no file."""
    lines = file.read_text(encoding="utf-8").splitlines() if file.exists() else []
    return [Decision(**json.loads(line)) for line in dict.fromkeys(lines)]
