"""Reads the events of stopped tasks from the queue and hands each to the agent, for as long as the agent runs.

Whatever fails is tried again, after pauses that grow and begin anew with the next success. A message that can not be
handled becomes visible again after the queue's visibility timeout, and goes to the dead letters after five times:
events.tf says both. Prefect's own observer gives up after some failures; this one never does.
"""

import asyncio
import contextlib
import json
import logging
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

from agent import aws

AT_ONCE = 10
"""Messages that one request returns at most."""
MOST_HANDLED = 30
"""Messages that are handled at a time."""
WAIT_SECONDS = 20
"""How long SQS waits for a message before it answers that there is none."""
VISIBILITY_SECONDS = 30
"""The queue's visibility timeout, in events.tf: how long a message is hidden from other agents."""
EXTEND_EACH_SECONDS = 20.0
FIRST_PAUSE_SECONDS = 1.0
LONGEST_PAUSE_SECONDS = 60.0
JITTER = random.SystemRandom()
STUCK_AFTER_SECONDS = 600.0
"""An observer that neither read nor failed to read for so long does not run."""
Handle = Callable[[dict[str, Any]], Awaitable[None]]

logger = logging.getLogger("prefect.agent.observer")


class Observer:
    """Hands each event in a queue to a function.

    Args:
        queue: name of the SQS queue.
        handle: is awaited with the event, as EventBridge sends it; the message stays when that raises.
    """

    def __init__(self, queue: str, handle: Handle) -> None:
        self._queue = queue
        self._handle = handle
        self._active_at = time.monotonic()
        self._handling: set[asyncio.Task[None]] = set()

    @property
    def runs(self) -> bool:
        """Whether it has read, or tried to, lately."""
        return time.monotonic() - self._active_at < STUCK_AFTER_SECONDS

    async def keep_reading(self) -> None:
        """Read for ever."""
        pause = FIRST_PAUSE_SECONDS
        while True:
            try:
                async with aws.client("sqs", answer_within=WAIT_SECONDS + 10) as sqs:
                    url = (await sqs.get_queue_url(QueueName=self._queue))["QueueUrl"]
                    while True:
                        await self._read(sqs, url)
                        pause = FIRST_PAUSE_SECONDS
            except Exception as error:
                logger.warning("can not read task events, trying again: %s: %s", type(error).__name__, error)
            self._active_at = time.monotonic()
            await asyncio.sleep(pause * JITTER.uniform(0.75, 1.25))
            pause = min(2 * pause, LONGEST_PAUSE_SECONDS)

    async def _read(self, sqs: Any, url: str) -> None:
        """Take the messages that there are; the next ones are read while these are handled."""
        answer = await sqs.receive_message(QueueUrl=url, MaxNumberOfMessages=AT_ONCE, WaitTimeSeconds=WAIT_SECONDS)
        self._active_at = time.monotonic()
        for message in answer.get("Messages", []):
            task = asyncio.create_task(self._see_to(sqs, url, message))
            self._handling.add(task)
            task.add_done_callback(self._handling.discard)
        while len(self._handling) >= MOST_HANDLED:
            await asyncio.wait(self._handling, return_when=asyncio.FIRST_COMPLETED)

    async def _see_to(self, sqs: Any, url: str, message: dict[str, Any]) -> None:
        """Handle one message and delete it; one that can not be handled is left to the queue."""
        try:
            event = json.loads(message["Body"])
            async with _hidden(sqs, url, message["ReceiptHandle"]):
                await self._handle(event)
            await sqs.delete_message(QueueUrl=url, ReceiptHandle=message["ReceiptHandle"])
        except Exception as error:
            logger.warning(
                "message %s can not be handled, the queue keeps it: %s: %s",
                message.get("MessageId"),
                type(error).__name__,
                error,
            )


@contextlib.asynccontextmanager
async def _hidden(sqs: Any, url: str, receipt: str) -> AsyncIterator[None]:
    """Keep a message hidden from other agents for as long as the block takes."""

    async def extend() -> None:
        while True:
            await asyncio.sleep(EXTEND_EACH_SECONDS)
            with contextlib.suppress(Exception):  # another agent may handle it too, which does no harm
                await sqs.change_message_visibility(
                    QueueUrl=url, ReceiptHandle=receipt, VisibilityTimeout=VISIBILITY_SECONDS
                )

    extending = asyncio.create_task(extend())
    try:
        yield
    finally:
        extending.cancel()
