import uuid

import pytest

from agent import attempts
from unit_tests.agent.prefect_fake import states_of

RUN = uuid.UUID("11111111-1111-4111-8111-111111111111")


def _name(*states: str) -> str:
    return attempts.name(RUN, states_of(*states))


def test_name_fits_into_a_client_token_and_startedby() -> None:
    name = _name("SCHEDULED", "PENDING")

    assert name == f"{RUN}-0"
    assert len(attempts.name(RUN, states_of(*["SCHEDULED", "PENDING", "RUNNING", "FAILED"] * 1000))) <= 64


@pytest.mark.parametrize(
    "states",
    [
        ("SCHEDULED",),
        ("SCHEDULED", "PENDING", "PENDING:Submitting"),
        ("SCHEDULED", "PENDING", "RUNNING"),
        ("SCHEDULED", "PENDING", "RUNNING", "CRASHED"),
        ("SCHEDULED", "PENDING", "RUNNING", "SCHEDULED:AwaitingRetry", "RUNNING:Retrying", "FAILED"),
        ("SCHEDULED", "PENDING", "PENDING:Submitting", "SCHEDULED:Rescheduled", "PENDING"),
        ("SCHEDULED", "PENDING", "RUNNING", "CRASHED", "SCHEDULED:AwaitingRestart"),
    ],
    ids=["waiting", "submitting", "running", "crashed", "retries-in-its-task", "stranded", "not-yet-restarted"],
)
def test_attempt_keeps_its_name_until_a_worker_takes_the_run_for_the_next_one(states: tuple[str, ...]) -> None:
    assert _name(*states) == f"{RUN}-0"


@pytest.mark.parametrize(
    "before",
    [
        ("CRASHED",),
        ("RUNNING", "CRASHED"),
        ("RUNNING", "FAILED"),
        ("CANCELLED",),
        ("RUNNING", "PAUSED:Suspended"),
    ],
)
def test_next_attempt_has_another_name(before: tuple[str, ...]) -> None:
    first = ("SCHEDULED", "PENDING", *before)
    second = (*first, "SCHEDULED", "PENDING")
    third = (*second, *before, "SCHEDULED", "PENDING")

    assert len({_name(*first), _name(*second), _name(*third)}) == 3


@pytest.mark.parametrize("before", ["SCHEDULED:AwaitingCapacity", "SCHEDULED:AwaitingRetry"])
def test_run_that_aws_refused_is_at_another_attempt_and_one_that_was_only_scheduled_is_not(before: str) -> None:
    states = ("SCHEDULED", "PENDING", before, "PENDING")

    assert _name(*states) == f"{RUN}-{int(before.endswith('AwaitingCapacity'))}"
    assert _name(*states, before, "PENDING") == f"{RUN}-{2 * before.endswith('AwaitingCapacity')}"


def test_run_that_waits_for_capacity_is_still_at_the_attempt_that_was_refused() -> None:
    assert _name("SCHEDULED", "PENDING", "SCHEDULED:AwaitingCapacity") == f"{RUN}-0"


@pytest.mark.parametrize(
    ("states", "number"),
    [
        ((), 0),
        (("SCHEDULED",), 0),
        (("SCHEDULED", "PENDING", "RUNNING", "CRASHED"), 0),
        (("SCHEDULED", "PENDING", "RUNNING", "CRASHED", "SCHEDULED:AwaitingRestart", "PENDING"), 2),
        (("SCHEDULED", "PENDING", "SCHEDULED:AwaitingCapacity", "SCHEDULED:AwaitingCapacity", "PENDING"), 2),
    ],
)
def test_number_is_0_for_the_first_attempt(states: tuple[str, ...], number: int) -> None:
    assert attempts.number(states_of(*states)) == number


def test_order_in_which_prefect_tells_states_does_not_matter() -> None:
    states = states_of("SCHEDULED", "PENDING", "RUNNING", "CRASHED", "SCHEDULED", "PENDING", "RUNNING")

    assert attempts.name(RUN, states[::-1]) == attempts.name(RUN, states) == f"{RUN}-2"


def test_restarts_are_told_from_other_schedulings() -> None:
    states = states_of("SCHEDULED", "CRASHED", "SCHEDULED:AwaitingRestart", "SCHEDULED:AwaitingRetry", "SCHEDULED")

    assert attempts.restarts(states) == 1
