import itertools
import re
import uuid
from collections.abc import Callable, Iterable

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
    for number in range(9):
        began = clock.now
        providers.refuse(ON_DEMAND, RUNS[number], REASON)
        run = RUNS[number + 1]
        clock.now = next(now for now in itertools.count(began, 0.5) if _admitted_at(providers, clock, now, run))
        pauses.append(clock.now - began)

    assert pauses == [5, 10, 20, 40, 80, 160, 300, 300, 300]


def _admitted_at(providers: Capacity, clock: Clock, now: float, run: uuid.UUID) -> bool:
    clock.now = now
    return providers.choose(ON_DEMAND, run) is not None


def test_run_that_was_refused_four_times_in_a_row_lets_another_one_be_tried(providers: Capacity, clock: Clock) -> None:
    alone, pauses = RUNS[0], []
    for _ in range(8):
        began = clock.now
        providers.refuse(ON_DEMAND, alone, REASON)
        clock.now = next(now for now in itertools.count(began, 0.5) if _admitted_at(providers, clock, now, alone))
        pauses.append(clock.now - began)

    assert pauses == [5, 10, 20, 40 + 30, 80, 160, 300, 300 + 30]


def _hours(
    providers: Capacity, clock: Clock, queue: list[uuid.UUID], fits: Callable[[uuid.UUID], bool], hours: float
) -> dict[uuid.UUID, float]:
    """Poll each ten seconds, as an agent does; return when runs were taken, in seconds since the begin."""
    began, taken = clock.now, dict[uuid.UUID, float]()
    while clock.now < began + 3600 * hours:
        for run in _admitted(providers, [run for run in queue if run not in taken]):
            if fits(run):
                providers.taken(ON_DEMAND, run)
                taken[run] = clock.now - began
            else:
                providers.refuse(ON_DEMAND, run, REASON)
            providers.given_up(run)
        clock.now += 10
    return taken


def test_run_that_never_fits_does_not_keep_those_behind_it_from_being_started(
    providers: Capacity, clock: Clock
) -> None:
    large = RUNS[0]
    # The provider refuses all of them first, as when it has no room for anything.
    for run in RUNS[:20]:
        assert providers.choose(ON_DEMAND, run)
    for run in RUNS[:20]:
        providers.refuse(ON_DEMAND, run, REASON)
    taken = _hours(providers, clock, RUNS[:200], lambda run: run != large, 3)

    assert set(taken) == set(RUNS[1:200])
    assert max(taken.values()) < 600


def test_several_runs_that_never_fit_do_not_keep_those_behind_them_from_being_started(
    providers: Capacity, clock: Clock
) -> None:
    taken = _hours(providers, clock, RUNS[:50], lambda run: run not in RUNS[:5], 6)

    assert set(taken) == set(RUNS[5:50])


def test_run_that_fits_after_hours_is_taken_then(providers: Capacity, clock: Clock) -> None:
    large, began = RUNS[0], clock.now
    taken = _hours(providers, clock, RUNS[:50], lambda run: run != large or clock.now > began + 7200, 3)

    assert 7200 <= taken.pop(large) <= 7200 + 400
    assert max(taken.values()) < 600


def test_after_others_were_taken_the_refusals_of_a_run_hold_only_itself(providers: Capacity, clock: Clock) -> None:
    large = RUNS[0]
    providers.refuse(ON_DEMAND, large, REASON)
    clock.now += 5
    for run in _admitted(providers, RUNS[1:2]):
        providers.taken(ON_DEMAND, run)
    assert _admitted(providers, [large]) == [large]
    providers.refuse(ON_DEMAND, large, REASON)

    assert _admitted(providers, [large, *RUNS[2:4]]) == RUNS[2:4]
    clock.now += 9.9
    assert _admitted(providers, [large]) == []
    for run in RUNS[2:4]:
        providers.taken(ON_DEMAND, run)
    clock.now += 0.1
    assert _admitted(providers, [large]) == [large]


def test_run_that_alone_has_no_room_holds_nobody_when_the_provider_takes_all_again(
    providers: Capacity, clock: Clock
) -> None:
    large = RUNS[0]
    providers.refuse(ON_DEMAND, large, REASON)
    clock.now += 5
    queue = list(RUNS[1:100])
    while tried := _admitted(providers, queue):
        for run in tried:
            providers.taken(ON_DEMAND, run)
            queue.remove(run)
    assert _admitted(providers, [large]) == [large]
    providers.refuse(ON_DEMAND, large, REASON)

    assert _admitted(providers, [large, *RUNS[100:400]]) == RUNS[100:400]
    assert providers.refused
    clock.now += 10
    assert _admitted(providers, [large]) == [large]
    providers.taken(ON_DEMAND, large)
    assert not providers.refused


def test_run_that_was_refused_and_does_not_come_again_is_forgotten(providers: Capacity, clock: Clock) -> None:
    providers.refuse(ON_DEMAND, RUNS[0], REASON)
    clock.now += 5
    queue = list(RUNS[1:100])
    while tried := _admitted(providers, queue):
        for run in tried:
            providers.taken(ON_DEMAND, run)
            queue.remove(run)
    assert providers.refused

    clock.now += capacity.FORGOTTEN_AFTER_SECONDS
    assert not providers.refused


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


def test_trial_that_ends_neither_way_expires_after_a_minute(providers: Capacity, clock: Clock) -> None:
    providers.refuse(ON_DEMAND, RUNS[0], REASON)
    clock.now += 5
    assert _admitted(providers, [RUNS[1]]) == [RUNS[1]]

    clock.now += 59.9
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
