"""The attempts of a run: how they are named, and how many there were.

An attempt begins when a worker marks the run PENDING and ends when the run leaves the task that was started for it. Its
name is the `clientToken` of its task, and a tag of it: ECS starts no two tasks with one token, and the tag says which
attempt a task is of. https://docs.aws.amazon.com/AmazonECS/latest/APIReference/ECS_Idempotency.html
"""

from collections.abc import Sequence
from typing import Any
from uuid import UUID

from prefect.client.schemas.objects import State

TAG = "attempt"
AWAITING_RESTART = "AwaitingRestart"
"""Name of the state of a run whose task died and that will be started again."""


def name(run_id: UUID, states: Sequence[State[Any]]) -> str:
    """The name of a run's latest attempt.

    It is the number of things that happened to the run before it was last PENDING, other than being scheduled and
    PENDING. So a run that was stranded before its task was started, and is scheduled again, is still at the same
    attempt; one that is retried, resumed or restarted is at another.
    """
    ordered = sorted(states, key=lambda state: state.timestamp)
    began = max((place for place, state in enumerate(ordered) if state.is_pending()), default=len(ordered))
    return f"{run_id}-{sum(not (state.is_pending() or state.is_scheduled()) for state in ordered[:began])}"


def restarts(states: Sequence[State[Any]]) -> int:
    """How often a run was scheduled again because its task had died."""
    return sum(state.name == AWAITING_RESTART for state in states)
