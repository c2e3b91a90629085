"""Capacity providers that refuse to start tasks: when to try again, and where else.

While a provider refuses, no run is started there; runs keep their place in Prefect's queue. After a pause that grows
with each refusal one run is tried, then two, then four, until the provider takes all again. On Spot a run falls back to
on-demand when Spot has refused as often as a run may be interrupted there.
"""

import dataclasses
import datetime
import random
import time
import uuid
from collections import defaultdict
from collections.abc import Callable

ON_DEMAND = "FARGATE"
SPOT = "FARGATE_SPOT"
RESTARTS_ON_SPOT = 1
"""Restarts that stay on Spot before falling back to on-demand."""
FIRST_PAUSE_SECONDS = 5.0
LONGEST_PAUSE_SECONDS = 300.0
FORGOTTEN_AFTER_SECONDS = 900.0
"""A refusal so long after the one before is the first of a row."""
ALL_AT_ONCE = 64
"""When so many runs may be tried at a time, the provider takes all again."""
TRIAL_SECONDS = 60.0
"""A run that was to be tried and has neither been started nor refused by then leaves its place to another."""
SAME_RUN = 4
"""A run that was refused so often in a row lets another one be tried: it may be the only one that has no room."""
TURN_SECONDS = 30.0
"""How much longer it waits then."""
JITTER = random.SystemRandom()


@dataclasses.dataclass
class Provider:
    """What is known of a capacity provider.

    Attributes:
        refuses: it refused lately, and has not taken enough runs since.
        refusals: how many in a row.
        reason: of the last one, in the words of AWS.
        since: time of the first one in this row.
        refused_at: when it last refused, in seconds of the clock.
        retry_at: when to try again, in seconds of the clock.
        allowed: how many runs may be tried at a time.
        trying: runs that are tried now, and since when.
        held: runs that were refused: how often, and when to try each again, in seconds of the clock.
        accepted: runs that were taken since it last refused; their tasks may still find no room.
    """

    refuses: bool = False
    refusals: int = 0
    reason: str = ""
    since: datetime.datetime | None = None
    refused_at: float = float("-inf")
    retry_at: float = 0.0
    allowed: int = 1
    trying: dict[uuid.UUID, float] = dataclasses.field(default_factory=dict)
    held: dict[uuid.UUID, tuple[int, float]] = dataclasses.field(default_factory=dict)
    accepted: set[uuid.UUID] = dataclasses.field(default_factory=set)


class Capacity:
    """Decides where a run is started, and whether now."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._providers: defaultdict[str, Provider] = defaultdict(Provider)

    @property
    def refused(self) -> bool:
        """Whether any provider refuses, or has refused a run that is to wait."""
        forgotten = self._clock() - FORGOTTEN_AFTER_SECONDS
        return any(
            provider.refuses or any(retry_at > forgotten for _, retry_at in provider.held.values())
            for provider in self._providers.values()
        )

    def choose(self, wanted: str, run: uuid.UUID) -> str | None:
        """Return the provider to start a run at now, or None when it has to wait.

        Args:
            wanted: the provider that its job variables name.
            run: its id; a run that is allowed to try holds its place until it is `taken`, `refuse`d or `given_up`.
        """
        if self._admits(wanted, run):
            return wanted
        falls_back = wanted == SPOT and self._providers[SPOT].refusals > RESTARTS_ON_SPOT
        return ON_DEMAND if falls_back and self._admits(ON_DEMAND, run) else None

    def _admits(self, name: str, run: uuid.UUID) -> bool:
        provider, now = self._providers[name], self._clock()
        if now < provider.held.get(run, (0, now))[1]:
            return False
        if not provider.refuses:
            return True
        provider.trying = {each: began for each, began in provider.trying.items() if now - began < TRIAL_SECONDS}
        if run in provider.trying:
            return True
        if now < provider.retry_at or len(provider.trying) >= provider.allowed:
            return False
        provider.trying[run] = now
        return True

    def refuse(self, name: str, run: uuid.UUID, reason: str) -> None:
        """Note that a provider refused a run; of runs that were tried at the same time, the first one counts."""
        provider, now = self._providers[name], self._clock()
        if provider.refuses and run not in provider.trying and run not in provider.accepted:
            return
        provider.held = {each: held for each, held in provider.held.items() if now - held[1] < FORGOTTEN_AFTER_SECONDS}
        times = provider.held.get(run, (0, now))[0] + 1
        if times > 1 and (provider.accepted or not provider.refuses):
            # Others have been taken since: it is this run alone that has no room.
            provider.trying.pop(run, None)
            provider.held[run] = times, now + _pause(times)
            return
        if now - provider.refused_at > FORGOTTEN_AFTER_SECONDS:
            provider.refusals = 0
        if not provider.refuses:
            provider.since = datetime.datetime.now(datetime.UTC)
        provider.refuses, provider.reason, provider.refused_at = True, reason, now
        provider.refusals += 1
        provider.retry_at = now + _pause(provider.refusals)
        provider.held[run] = times, provider.retry_at + (0 if times % SAME_RUN else TURN_SECONDS)
        provider.allowed, provider.trying, provider.accepted = 1, {}, set()

    def taken(self, name: str, run: uuid.UUID) -> None:
        """Note that a provider took a run: one more may be tried at a time, so twice as many when all were taken."""
        provider = self._providers[name]
        provider.held.pop(run, None)
        if not provider.refuses:
            return
        provider.trying.pop(run, None)
        provider.accepted.add(run)
        provider.allowed += 1
        provider.refuses = provider.allowed < ALL_AT_ONCE

    def given_up(self, run: uuid.UUID) -> None:
        """Note that a run is not started for another reason."""
        for provider in self._providers.values():
            provider.trying.pop(run, None)

    def explain(self, name: str) -> str:
        """Say what runs of a provider wait for, and since when."""
        provider = self._providers[name]
        since = f" since {provider.since:%Y-%m-%d %H:%M:%S} UTC" if provider.since else ""
        return f"waits for capacity of {name}{since}: {provider.reason.rstrip('.')}"


def _pause(refusals: int) -> float:
    """Return the seconds until the next trial after so many refusals in a row."""
    return min(FIRST_PAUSE_SECONDS * 2.0 ** (refusals - 1), LONGEST_PAUSE_SECONDS) * JITTER.uniform(0.75, 1.25)
