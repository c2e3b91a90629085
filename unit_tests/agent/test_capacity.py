import itertools
import re
import uuid
from collections.abc import Iterable

import pytest

from agent import capacity
from agent.capacity import ON_DEMAND, SPOT, Capacity

REASON = "Capacity is unavailable at this time."
RUNS = [uuid.UUID(int=number) for number in range(1000)]


class Clock:
    """A clock that stands still until a test moves it."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class NoJitter:
    """Chance that always gives the middle."""

    @staticmethod
    def uniform(low: float, high: float) -> float:
        return (low + high) / 2


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def providers(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> Capacity:
    monkeypatch.setattr(capacity, "JITTER", NoJitter())
    return Capacity(clock)


def _admitted(providers: Capacity, runs: Iterable[uuid.UUID], wanted: str = ON_DEMAND) -> list[uuid.UUID]:
    return [run for run in runs if providers.choose(wanted, run)]


def _refuse_in_a_row(providers: Capacity, clock: Clock, times: int, name: str = ON_DEMAND) -> None:
    for number in range(times):
        run = uuid.UUID(int=10_000 + number)
        assert providers.choose(name, run) == name
        providers.refuse(name, run, REASON)
        clock.now += capacity.LONGEST_PAUSE_SECONDS


def test_every_run_is_started_where_it_wants_to_while_nobody_refuses(providers: Capacity) -> None:
    assert [providers.choose(name, RUNS[0]) for name in (ON_DEMAND, SPOT, "my-instances")] == [
        ON_DEMAND,
        SPOT,
        "my-instances",
    ]
    assert _admitted(providers, RUNS) == RUNS
    assert not providers.refused


def test_no_run_is_started_at_a_provider_that_refuses_until_its_pause_is_over(
    providers: Capacity, clock: Clock
) -> None:
    providers.refuse(ON_DEMAND, RUNS[0], REASON)

    assert providers.refused
    clock.now += 4.9
    assert _admitted(providers, RUNS) == []
    clock.now += 0.1
    assert _admitted(providers, RUNS) == [RUNS[0]]


def test_pauses_double_with_each_refusal_up_to_five_minutes(providers: Capacity, clock: Clock) -> None:
    pauses = []
    for _ in range(9):
        began = clock.now
        providers.refuse(ON_DEMAND, RUNS[0], REASON)
        clock.now = next(now for now in itertools.count(began, 0.5) if _admitted_at(providers, clock, now))
        pauses.append(clock.now - began)

    assert pauses == [5, 10, 20, 40, 80, 160, 300, 300, 300]


def _admitted_at(providers: Capacity, clock: Clock, now: float) -> bool:
    clock.now = now
    return providers.choose(ON_DEMAND, RUNS[0]) is not None


def test_pauses_of_agents_side_by_side_differ_by_a_quarter_at_most(clock: Clock) -> None:
    ends = set()
    for _ in range(50):
        one = Capacity(clock)
        one.refuse(ON_DEMAND, RUNS[0], REASON)
        ends.add(one._providers[ON_DEMAND].retry_at - clock.now)

    assert len(ends) > 40
    assert all(0.75 * 5 <= pause <= 1.25 * 5 for pause in ends)


def test_after_the_pause_one_run_is_tried_then_two_then_four_in_the_order_of_the_queue(
    providers: Capacity, clock: Clock
) -> None:
    providers.refuse(ON_DEMAND, RUNS[0], REASON)
    clock.now += 5
    queue, rounds = list(RUNS[:300]), []
    while providers.refused:
        tried = _admitted(providers, queue)
        assert tried == queue[: len(tried)]
        rounds.append(len(tried))
        for run in tried:
            providers.taken(ON_DEMAND, run)
            queue.remove(run)

    assert rounds == [1, 2, 4, 8, 16, 32]
    assert _admitted(providers, queue) == queue


def test_run_that_is_tried_keeps_its_place_however_often_it_is_asked_for(providers: Capacity, clock: Clock) -> None:
    providers.refuse(ON_DEMAND, RUNS[0], REASON)
    clock.now += 5

    assert _admitted(providers, [RUNS[1], RUNS[1], RUNS[2], RUNS[1]]) == [RUNS[1]] * 3


def test_run_that_is_given_up_leaves_its_place_to_the_next(providers: Capacity, clock: Clock) -> None:
    providers.refuse(ON_DEMAND, RUNS[0], REASON)
    clock.now += 5

    assert _admitted(providers, RUNS[1:3]) == [RUNS[1]]
    providers.given_up(RUNS[1])
    assert _admitted(providers, RUNS[2:4]) == [RUNS[2]]


def test_trial_that_ends_neither_way_expires_after_two_minutes(providers: Capacity, clock: Clock) -> None:
    providers.refuse(ON_DEMAND, RUNS[0], REASON)
    clock.now += 5
    assert _admitted(providers, [RUNS[1]]) == [RUNS[1]]

    clock.now += 119.9
    assert _admitted(providers, [RUNS[2]]) == []
    clock.now += 0.1
    assert _admitted(providers, [RUNS[2], RUNS[1]]) == [RUNS[2]]


def test_many_runs_that_are_refused_at_the_same_time_count_once(providers: Capacity, clock: Clock) -> None:
    assert _admitted(providers, RUNS[:50]) == RUNS[:50]
    for run in RUNS[:50]:
        providers.refuse(ON_DEMAND, run, REASON)

    clock.now += 5
    assert _admitted(providers, RUNS[:50]) == [RUNS[0]]


def test_refused_trial_begins_with_one_run_again(providers: Capacity, clock: Clock) -> None:
    providers.refuse(ON_DEMAND, RUNS[0], REASON)
    clock.now += 5
    for run in _admitted(providers, RUNS[:1]):
        providers.taken(ON_DEMAND, run)
    assert _admitted(providers, RUNS[1:9]) == RUNS[1:3]
    providers.refuse(ON_DEMAND, RUNS[1], REASON)
    providers.refuse(ON_DEMAND, RUNS[2], REASON)  # tried at the same time

    clock.now += 9.9
    assert _admitted(providers, RUNS[1:9]) == []
    clock.now += 0.1
    assert _admitted(providers, RUNS[1:9]) == [RUNS[1]]


def test_task_that_finds_no_room_after_its_start_is_a_refusal_as_well(providers: Capacity, clock: Clock) -> None:
    providers.refuse(ON_DEMAND, RUNS[0], REASON)
    clock.now += 5
    assert _admitted(providers, RUNS[1:9]) == [RUNS[1]]
    providers.taken(ON_DEMAND, RUNS[1])
    providers.refuse(ON_DEMAND, RUNS[1], REASON)

    clock.now += 9.9
    assert _admitted(providers, RUNS[2:9]) == []
    clock.now += 0.1
    assert _admitted(providers, RUNS[2:9]) == [RUNS[2]]


def test_refusal_long_after_the_one_before_is_the_first_of_a_row(providers: Capacity, clock: Clock) -> None:
    _refuse_in_a_row(providers, clock, 4)
    clock.now += capacity.FORGOTTEN_AFTER_SECONDS
    assert providers.choose(ON_DEMAND, RUNS[0])
    providers.refuse(ON_DEMAND, RUNS[0], REASON)

    clock.now += 5
    assert providers.choose(ON_DEMAND, RUNS[0]) == ON_DEMAND


def test_runs_on_spot_fall_back_to_on_demand_after_the_second_refusal(providers: Capacity, clock: Clock) -> None:
    providers.refuse(SPOT, RUNS[0], REASON)
    assert providers.choose(SPOT, RUNS[0]) is None

    clock.now += 5
    assert providers.choose(SPOT, RUNS[0]) == SPOT
    providers.refuse(SPOT, RUNS[0], REASON)
    assert [providers.choose(SPOT, run) for run in RUNS[:3]] == [ON_DEMAND] * 3


def test_spot_is_tried_again_while_runs_fall_back(providers: Capacity, clock: Clock) -> None:
    _refuse_in_a_row(providers, clock, 2, SPOT)

    assert [providers.choose(SPOT, run) for run in RUNS[:3]] == [SPOT, ON_DEMAND, ON_DEMAND]


def test_runs_on_spot_wait_when_on_demand_refuses_too(providers: Capacity, clock: Clock) -> None:
    _refuse_in_a_row(providers, clock, 2, SPOT)
    assert providers.choose(SPOT, RUNS[0]) == SPOT
    providers.refuse(ON_DEMAND, RUNS[1], REASON)

    assert providers.choose(SPOT, RUNS[1]) is None


def test_runs_on_demand_never_go_to_spot(providers: Capacity, clock: Clock) -> None:
    _refuse_in_a_row(providers, clock, 5)
    providers.choose(ON_DEMAND, RUNS[0])

    assert providers.choose(ON_DEMAND, RUNS[1]) is None


def test_providers_refuse_each_by_itself(providers: Capacity) -> None:
    providers.refuse(SPOT, RUNS[0], REASON)

    assert providers.refused
    assert providers.choose(ON_DEMAND, RUNS[1]) == ON_DEMAND
    assert providers.choose(SPOT, RUNS[1]) is None


def test_explanation_says_where_since_when_and_in_the_words_of_aws(providers: Capacity, clock: Clock) -> None:
    providers.refuse(SPOT, RUNS[0], "first")
    since = re.fullmatch(
        r"waits for capacity of FARGATE_SPOT since (\d{4}-\d\d-\d\d \d\d:\d\d:\d\d) UTC: first", providers.explain(SPOT)
    )
    assert since
    clock.now += 5
    assert providers.choose(SPOT, RUNS[0])
    providers.refuse(SPOT, RUNS[0], REASON)

    assert providers.explain(SPOT) == f"waits for capacity of FARGATE_SPOT since {since[1]} UTC: {REASON[:-1]}"
