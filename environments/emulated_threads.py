"""The emulator's requests, tasks and saving share dictionaries across threads: whoever walks through one walks a copy.

Python stops a walk through a dictionary that another thread adds to ("changed size during iteration"): then a task did
not start, or what was there was not saved.
"""

import copy
from collections.abc import Callable
from typing import Any


class Shared(dict[Any, Any]):
    """A dictionary of which entries are listed as they are at one moment."""

    def items(self) -> Any:
        """Pairs of key and value, in a list of their own: making that can't be interrupted."""
        return list(super().items())


def walk_safely(ecs: Any, sts: Any) -> None:
    """Replace dictionaries that the emulator walks through while others add to them, and how it copies all others.

    Args:
        ecs: the emulator's ECS module; its tasks are saved one by one.
        sts: its STS module; the sessions that have expired are looked for whenever one is added.
    """
    sts._sessions = Shared(sts._sessions)
    ecs._tasks._data = Shared(ecs._tasks._data)
    vars(copy)["_deepcopy_dispatch"][dict] = copied


def copied(
    original: dict[Any, Any], memo: dict[int, Any], deepcopy: Callable[..., Any] = copy.deepcopy
) -> dict[Any, Any]:
    """A deep copy of a dictionary, as Python's own makes it."""
    made = memo[id(original)] = dict[Any, Any]()
    for key, value in list(original.items()):
        made[deepcopy(key, memo)] = deepcopy(value, memo)
    return made
