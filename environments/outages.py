"""What is away for a while is waited for, and said to be.

Prefect: requests are sent again until it answers, up to `PATIENCE_SECONDS`. That holds from its first answer to this
command on; one that has never answered is told at once, because its address may be wrong. What is sent again may have
been done the first time, so it must be safe to repeat: Prefect's own client repeats all requests, too, and the few that
make something twice take a key that prevents it.
"""

import dataclasses
import time
from collections.abc import Callable
from datetime import datetime
from typing import Any, TypeVar

from environments import console
from environments.errors import PlatformError

PATIENCE_SECONDS = 300.0
PAUSE_SECONDS = 2.0
TELL_EVERY_SECONDS = 30.0
ATTEMPTS = 5
PASSING = (502, 503, 504)
"""Status codes by which a proxy or a server says that it is not there for the moment."""
T = TypeVar("T")


@dataclasses.dataclass
class _Outage:
    begin: float = dataclasses.field(default_factory=time.monotonic)
    clock: str = dataclasses.field(default_factory=lambda: f"{datetime.now():%H:%M:%S}")
    told: float = 0.0


_answered: set[str] = set()
_away: dict[str, _Outage] = {}
"""By URL; shared by the threads of a command, so that an outage is told once."""


def since(url: str) -> str:
    """Since when what answered before at this URL is away; empty when it is not."""
    return _away[url].clock if url in _away else ""


def waiting(send: Callable[..., Any], url: str) -> Callable[..., Any]:
    """Wrap the `send` of Prefect's HTTP client: beyond its own few retries it waits for an API that went away.

    Args:
        send: sends a request, and raises for a bad answer or for none.
        url: of the API.
    """
    import httpx
    from prefect.exceptions import PrefectHTTPStatusError

    def away(error: Exception) -> bool:
        if isinstance(error, PrefectHTTPStatusError):
            return error.response.status_code in PASSING
        return isinstance(error, httpx.TransportError)

    return lambda *arguments, **options: waited_for(url, lambda: send(*arguments, **options), away)


def waited_for(url: str, ask: Callable[[], T], away: Callable[[Exception], bool]) -> T:
    """What an API answers; one that has answered before and went away is asked until it is back.

    Args:
        url: of the API.
        ask: asks it, and raises for a bad answer or for none.
        away: whether such an error says that the API is not there for the moment.
    """
    while True:
        try:
            answer = ask()
        except Exception as error:
            if not away(error):
                has_answered(url)
                raise
            if url not in _answered or not _may_wait(url, error):
                raise
            time.sleep(PAUSE_SECONDS)
        else:
            has_answered(url)
            return answer


def _may_wait(url: str, error: Exception) -> bool:
    outage = _away.setdefault(url, _Outage())
    now = time.monotonic()
    left = PATIENCE_SECONDS - (now - outage.begin)
    if left <= 0:
        return False
    if not outage.told or now - outage.told >= TELL_EVERY_SECONDS:
        outage.told = now
        reason = str(error).partition("\n")[0] or type(error).__name__
        console.say(
            f"Prefect at {url} is away since {outage.clock} ({reason}); waiting for it, {left:.0f} s more at most",
            "yellow",
            stderr=True,
        )
    return True


def has_answered(url: str) -> None:
    """Note that an API answers: when it goes away from now on, it is waited for."""
    _answered.add(url)
    if outage := _away.pop(url, None):
        away = time.monotonic() - outage.begin
        console.say(f"Prefect at {url} is back after {away:.0f} s", "yellow", stderr=True)


def repeated(action: Callable[[], T], passing: Callable[[Exception], bool]) -> T:
    """Do what is safe to repeat, again after growing pauses when it fails; the last failure is raised.

    Args:
        action: what to do.
        passing: whether a failure may pass by itself.
    """
    for attempt in range(1, ATTEMPTS):
        try:
            return action()
        except Exception as error:
            if not passing(error):
                raise
            reason = (error.why if isinstance(error, PlatformError) else str(error)).partition("\n")[0]
            console.say(f"attempt {attempt} of {ATTEMPTS} failed, trying again: {reason}", "yellow", stderr=True)
            time.sleep(PAUSE_SECONDS * 2**attempt)
    return action()
