"""The rate limit of Prefect Cloud, for the Prefect server of environment local: a file says how many requests it takes.

Whoever wants to see what happens above the limit (a test, or a user) writes the number of requests a minute to
`.local/local/prefect_requests_a_minute`. Above it the server answers 429 and says in `Retry-After` when to ask again,
as Prefect Cloud does: https://docs.prefect.io/v3/concepts/rate-limits. Without the file there is no limit.
"""

import contextlib
import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

FILE = "prefect_requests_a_minute"
BURST_SECONDS = 5.0
"""Requests for so long may come at once."""
EXEMPT = ("/api/health", "/api/ready")


class Bucket:
    """Requests that may come now; they are refilled as time passes."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._left, self._filled_at = float("inf"), clock()

    def take(self, a_minute: float) -> float:
        """Take one request of so many a minute; return the seconds to wait when there is none left, else 0."""
        now, rate = self._clock(), max(a_minute, 1.0) / 60
        self._left = min(self._left + (now - self._filled_at) * rate, BURST_SECONDS * rate)
        self._filled_at = now
        if self._left < 1:
            return (1 - self._left) / rate
        self._left -= 1
        return 0.0


def limited(application: Any, file: Path) -> Any:
    """Wrap the Prefect server so that it takes no more requests than a file says.

    Args:
        application: the server, an ASGI application.
        file: holds a number, or is not there.
    """
    bucket = Bucket()

    async def wrapped(scope: Any, receive: Any, send: Any) -> None:
        wait = 0.0
        if scope["type"] == "http" and not scope["path"].startswith(EXEMPT):
            with contextlib.suppress(OSError, ValueError):
                wait = bucket.take(float(file.read_text(encoding="utf-8")))
        if wait:
            headers = [(b"retry-after", str(math.ceil(wait)).encode()), (b"content-type", b"application/json")]
            await send({"type": "http.response.start", "status": 429, "headers": headers})
            await send({"type": "http.response.body", "body": b'{"detail":"Rate limit exceeded."}'})
            return
        await application(scope, receive, send)

    return wrapped
