"""Waiting until a Prefect that limits the rate of requests takes one, in the agent and in the containers of workflows.

Prefect's client sends a request again after the time that an answer 429 names in `Retry-After`, but only as often as
PREFECT_CLIENT_MAX_RETRIES says. Prefect Cloud names a few seconds, and the runs of a project share one limit, so a run
among many uses its retries up in a quarter of a minute and fails. Here a request is sent until it is taken.
https://docs.prefect.io/v3/concepts/rate-limits

This file imports nothing of this project: the process of a workflow runs it by its path.
"""

import importlib
import sys
import time
from http import HTTPStatus
from typing import Any

PATIENCE_SECONDS = 1800.0
"""Prefect Cloud counts requests by the minute; a request that is not taken in all this time will not be."""


def wait_out() -> None:
    """Replace the method that sends, in both HTTP clients of Prefect, by one that waits out the limit.

    Each round of it is what Prefect's client does by itself: some requests, with a pause after each. After
    `PATIENCE_SECONDS` it returns the answer 429. The method is private to a pinned version of Prefect.
    """
    clients: Any = importlib.import_module("prefect.client.base")
    blocking, asynchronous = clients.PrefectHttpxSyncClient, clients.PrefectHttpxAsyncClient
    send, send_async = blocking._send_with_retry, asynchronous._send_with_retry

    def sent(client: Any, *arguments: Any, **options: Any) -> Any:
        begin = time.monotonic()
        answer: Any = send(client, *arguments, **options)
        while waits(answer, begin):
            answer = send(client, *arguments, **options)
        return answer

    async def sent_async(client: Any, *arguments: Any, **options: Any) -> Any:
        begin = time.monotonic()
        answer: Any = await send_async(client, *arguments, **options)
        while waits(answer, begin):
            answer = await send_async(client, *arguments, **options)
        return answer

    blocking._send_with_retry, asynchronous._send_with_retry = sent, sent_async


def waits(answer: Any, begin: float) -> bool:
    """Whether to send a request again, which the log says.

    Args:
        answer: to the request.
        begin: when it was sent first, by `time.monotonic`.
    """
    waited = time.monotonic() - begin
    if answer.status_code != HTTPStatus.TOO_MANY_REQUESTS or waited > PATIENCE_SECONDS:
        return False
    text = f"Prefect limits the rate of requests (HTTP 429): a request has waited {waited:.0f} s and is sent again"
    sys.stderr.write(f"{text}\n")
    return True
