"""What is away for a while is waited for, and said to be.

Prefect: requests are sent again until it answers, up to `PATIENCE_SECONDS`. That holds from its first answer to this
command on; one that has never answered is told at once, because its address may be wrong. What is sent again may have
been done the first time, so it must be safe to repeat: Prefect's own client repeats all requests, too, and the few that
make something twice take a key that prevents it.

A Prefect that limits the rate of requests (HTTP 429) is asked again as soon as it allows, by all threads of a command
alike: for `PATIENCE_SECONDS` at most, and for `SHORT_PATIENCE_SECONDS` where a command only looks.
https://www.rfc-editor.org/rfc/rfc9110#field.retry-after
"""

import dataclasses
import math
import time
from collections.abc import Callable
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, TypeVar

from environments import console
from environments.errors import PlatformError

PATIENCE_SECONDS = 300.0
SHORT_PATIENCE_SECONDS = 10.0
PAUSE_SECONDS = 2.0
LONGEST_PAUSE_SECONDS = 30.0
TELL_EVERY_SECONDS = 30.0
ATTEMPTS = 5
PASSING = (502, 503, 504)
"""Status codes by which a proxy or a server says that it is not there for the moment."""
RATE_LIMITED = 429
T = TypeVar("T")


@dataclasses.dataclass
class _Outage:
    begin: float = dataclasses.field(default_factory=time.monotonic)
    clock: str = dataclasses.field(default_factory=lambda: f"{datetime.now():%H:%M:%S}")
    told: float = 0.0


class RateLimitedError(PlatformError):
    """Prefect answered 429.

    Args:
        url: of the API.
        seconds: how long Prefect asks to wait; None if it does not say.
    """

    def __init__(self, url: str, seconds: float | None) -> None:
        asks = "" if seconds is None else f" and asks to wait {math.ceil(seconds)} s"
        super().__init__(
            f"Prefect at {url} limits the rate of requests",
            f"it answered {RATE_LIMITED}{asks}",
            "run the same command again later; completed changes are kept",
        )
        self.seconds = seconds


_answered: set[str] = set()
_away: dict[str, _Outage] = {}
"""By URL; shared by the threads of a command, so that an outage is told once."""
_not_before: dict[str, float] = {}
"""When an API that limits the rate of requests may be asked again, by URL."""
_limit_told: dict[str, float] = {}


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
            answer = paced(url, ask, PATIENCE_SECONDS)
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


def rate_limit_hook(url: str) -> Callable[[Any], None]:
    """Make a hook of an HTTP client that raises `RateLimitedError` for an answer 429 of this API."""

    def check(response: Any) -> None:
        if response.status_code == RATE_LIMITED:
            raise RateLimitedError(
                url, seconds_to_wait(response.headers.get("Retry-After"), response.headers.get("Date"))
            )

    return check


def paced(url: str, ask: Callable[[], T], patience: float) -> T:
    """Ask an API no sooner than it allows, and again while it answers that it limits the rate of requests.

    Args:
        url: of the API.
        ask: sends the request; raises `RateLimitedError` for such an answer.
        patience: seconds to wait, over all repetitions.

    Raises:
        RateLimitedError: the API would have to be waited for longer than that.
    """
    begin: float | None = None
    limited: RateLimitedError | None = None
    pause = PAUSE_SECONDS
    while True:
        now = time.monotonic()
        if (resume := _not_before.get(url, now)) > now:
            begin = now if begin is None else begin
            if resume > begin + patience:
                raise limited or RateLimitedError(url, resume - now)
            _tell_limit(url, resume - now, begin + patience - now)
            time.sleep(resume - now)
        try:
            return ask()
        except RateLimitedError as error:
            has_answered(url)
            limited, now = error, time.monotonic()
            begin = now if begin is None else begin
            wait = pause if error.seconds is None else max(error.seconds, PAUSE_SECONDS)
            pause = min(2 * pause, LONGEST_PAUSE_SECONDS)
            # However long Prefect asks to wait, a command with that much patience asks once more before it gives up.
            _not_before[url] = max(_not_before.get(url, 0.0), now + min(wait, PATIENCE_SECONDS))


def _tell_limit(url: str, seconds: float, left: float) -> None:
    now = time.monotonic()
    if now - _limit_told.get(url, -math.inf) >= TELL_EVERY_SECONDS:
        _limit_told[url] = now
        console.say(
            f"Prefect at {url} limits the rate of requests; the next one follows in {seconds:.0f} s, "
            f"{left:.0f} s of waiting at most",
            "yellow",
            stderr=True,
        )


def seconds_to_wait(retry_after: str | None, date: str | None) -> float | None:
    """Read for how many seconds an answer asks to send no request; None if it does not say, or nothing sensible.

    Args:
        retry_after: the answer's header of that name: seconds, or a date by the server's clock.
        date: its header Date, which says what that clock shows.
    """
    try:
        seconds = float(retry_after or "")
    except ValueError:
        try:
            now = _date(date) if date else datetime.now(UTC)
            seconds = (_date(retry_after or "") - now).total_seconds()
        except (ValueError, OverflowError):
            return None
    return max(seconds, 0.0) if math.isfinite(seconds) else None


def _date(value: str) -> datetime:
    date = parsedate_to_datetime(value)
    return date if date.tzinfo else date.replace(tzinfo=UTC)


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
