"""Clients of AWS for what the agent does beside starting runs: they ask without blocking it, and not for long."""

import functools
from typing import Any

from aiobotocore.config import AioConfig
from aiobotocore.session import AioSession, get_session

PATIENCE = AioConfig(connect_timeout=5, read_timeout=10, retries={"mode": "standard", "max_attempts": 3})


def client(service: str) -> Any:
    """A client of a service, for `async with`."""
    return _session().create_client(service, config=PATIENCE)


@functools.cache
def _session() -> AioSession:
    # One for all: it remembers the descriptions of the services, and reading them takes a second of CPU time.
    return get_session()
