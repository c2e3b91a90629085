"""Clients of AWS for what the agent does beside starting runs: they ask without blocking it, and not for long."""

import functools
from typing import Any

from aiobotocore.config import AioConfig
from aiobotocore.session import AioSession, get_session

ANSWER_WITHIN_SECONDS = 10


def client(service: str, answer_within: int = ANSWER_WITHIN_SECONDS) -> Any:
    """Return a client of a service, for `async with`.

    Args:
        service: botocore's name of it.
        answer_within: seconds that one request may take.
    """
    config = AioConfig(connect_timeout=5, read_timeout=answer_within, retries={"mode": "standard", "max_attempts": 3})
    return _session().create_client(service, config=config)


@functools.cache
def _session() -> AioSession:
    # One for all: it remembers the descriptions of the services, and reading them takes a second of CPU time.
    return get_session()
