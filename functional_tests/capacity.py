"""Capacity that a local platform does not have, for tests of how runs wait: see environments/emulated_capacity.py."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from environments import emulated_capacity
from functional_tests.platform import Platform


def refuse(platform: Platform, entries: Sequence[Mapping[str, Any]]) -> None:
    """Have requests to the platform's ECS answered by these entries from now on, in place of any from before."""
    emulated_capacity.replace(_file(platform), entries)


def left(platform: Platform) -> list[dict[str, Any]]:
    """The entries that have not been used up yet."""
    return emulated_capacity.read(_file(platform))


def _file(platform: Platform) -> Path:
    return platform.folder / ".local" / platform.name / "aws" / emulated_capacity.FILE
