"""The attempts of a run: how they are named, and how many restarts there were.

An attempt begins when a worker marks the run PENDING and ends when the run leaves the task that was started for it. Its
name is the `clientToken` of its task and a tag of it: ECS starts no two tasks with one token, and the tag says which
attempt a task belongs to. https://docs.aws.amazon.com/AmazonECS/latest/APIReference/ECS_Idempotency.html
"""

from collections.abc import Sequence
from typing import Any
from uuid import UUID

from prefect.client.schemas.objects import State

from environments.run_terms import AWAITING_CAPACITY, AWAITING_RESTART


def name(run_id: UUID, states: Sequence[State[Any]]) -> str:
    """Return the name of a run's latest attempt.

    It counts what happened to the run before it was last PENDING, other than being scheduled and PENDING. So a run that
    was stranded before its task was started, and is scheduled again, is still at the same attempt; one that is retried,
    resumed or restarted is at another. So is one that AWS refused: ECS may answer a token that it knows with the same
    refusal again.
    """
    return f"{run_id}-{number(states)}"


def number(states: Sequence[State[Any]]) -> int:
    """Return the number of a run's latest attempt; 0 is the first."""
    ordered = sorted(states, key=lambda state: state.timestamp)
    began = max((place for place, state in enumerate(ordered) if state.is_pending()), default=len(ordered))
    return sum(_ends_an_attempt(state) for state in ordered[:began])


def _ends_an_attempt(state: State[Any]) -> bool:
    return state.name == AWAITING_CAPACITY or not (state.is_pending() or state.is_scheduled())


def restarts(states: Sequence[State[Any]]) -> int:
    """Return how often a run was scheduled again because its task had died."""
    return sum(state.name == AWAITING_RESTART for state in states)
