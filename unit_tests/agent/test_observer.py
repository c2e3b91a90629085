import asyncio
import json
import re
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from agent import observer
from agent.observer import Observer
from environments.settings import ROOT
from unit_tests.agent import ecs_fake

QUEUE = "dev_dataflow_automation_task_events"
URL = "https://sqs.eu-west-1.amazonaws.com/123456789012/queue"


class FakeSqs:
    """Plays SQS: gives out messages once, and answers or fails as it was told; then it is empty."""

    def __init__(self) -> None:
        self.answers: list[Any] = []
        self.deleted: list[str] = []
        self.extended: list[tuple[str, int]] = []
        self.received: list[dict[str, Any]] = []
        self.at_end: Callable[[], Awaitable[None]] = _end

    def send(self, *bodies: str) -> None:
        """Add messages that one request returns; the receipt of each is its body."""
        self.answers.append({"Messages": [{"MessageId": each, "ReceiptHandle": each, "Body": each} for each in bodies]})

    async def get_queue_url(self, QueueName: str) -> dict[str, str]:
        assert QueueName == QUEUE
        return {"QueueUrl": URL}

    async def receive_message(self, **asked: Any) -> Any:
        self.received.append(asked)
        if not self.answers:
            await self.at_end()
            return {}
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    async def delete_message(self, QueueUrl: str, ReceiptHandle: str) -> None:
        assert QueueUrl == URL
        self.deleted.append(ReceiptHandle)

    async def change_message_visibility(self, QueueUrl: str, ReceiptHandle: str, VisibilityTimeout: int) -> None:
        self.extended.append((ReceiptHandle, VisibilityTimeout))


async def _end() -> None:
    raise asyncio.CancelledError


class NoJitter:
    """Chance that always gives the middle."""

    @staticmethod
    def uniform(low: float, high: float) -> float:
        return (low + high) / 2


@pytest.fixture
def sqs(monkeypatch: pytest.MonkeyPatch) -> FakeSqs:
    fake = FakeSqs()
    ecs_fake.install(monkeypatch, sqs=fake)
    return fake


@pytest.fixture
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Pauses of the observer, which take no time."""
    taken: list[float] = []
    sleep = asyncio.sleep

    async def pause(seconds: float) -> None:
        taken.append(seconds)
        await sleep(0)

    monkeypatch.setattr(observer, "JITTER", NoJitter())
    monkeypatch.setattr(observer.asyncio, "sleep", pause)
    return taken


def _read(handle: Callable[[dict[str, Any]], Awaitable[None]]) -> Observer:
    """Read until the queue is empty, and see all messages handled."""
    reading = Observer(QUEUE, handle)

    async def read() -> None:
        try:
            await reading.keep_reading()
        except asyncio.CancelledError:
            await asyncio.gather(*reading._handling)

    asyncio.run(read())
    return reading


class Handler:
    """Handles events, but fails with those that have `fails`."""

    def __init__(self) -> None:
        self.handled: list[Any] = []

    async def __call__(self, event: dict[str, Any]) -> None:
        if event["fails"]:
            raise ConnectionError("Prefect is away")
        self.handled.append(event)


GOOD = [json.dumps({"id": number, "fails": False}) for number in range(40)]
FAILING = json.dumps({"id": -1, "fails": True})


def test_messages_are_handled_and_deleted(sqs: FakeSqs) -> None:
    handler = Handler()
    sqs.send(*GOOD[:3])
    sqs.send(*GOOD[3:5])
    _read(handler)

    assert [event["id"] for event in handler.handled] == [0, 1, 2, 3, 4]
    assert sqs.deleted == GOOD[:5]


@pytest.mark.parametrize("bad", ["not JSON", "", "[1", "null", "[]", "{}", FAILING])
def test_message_that_can_not_be_handled_stays_and_the_others_are_handled(sqs: FakeSqs, bad: str) -> None:
    sqs.send(GOOD[0], bad, GOOD[1])
    sqs.send(GOOD[2])
    _read(Handler())

    assert sqs.deleted == GOOD[:3]


def test_message_without_a_body_stays(sqs: FakeSqs) -> None:
    sqs.answers.append({"Messages": [{"MessageId": "1", "ReceiptHandle": "1"}]})
    sqs.send(GOOD[0])
    _read(Handler())

    assert sqs.deleted == [GOOD[0]]


def test_queue_decides_how_long_a_message_is_hidden(sqs: FakeSqs) -> None:
    _read(Handler())

    assert sqs.received == [{"QueueUrl": URL, "MaxNumberOfMessages": 10, "WaitTimeSeconds": 20}]


def test_reading_goes_on_however_often_it_fails(sqs: FakeSqs, pauses: list[float]) -> None:
    handler = Handler()
    sqs.answers += [ConnectionError("SQS is away")] * 50
    sqs.send(GOOD[0])
    _read(handler)

    assert [event["id"] for event in handler.handled] == [0]
    assert pauses[:9] == [1, 2, 4, 8, 16, 32, 60, 60, 60]
    assert pauses == pauses[:6] + [60] * 44


def test_pause_begins_anew_after_a_success(sqs: FakeSqs, pauses: list[float]) -> None:
    sqs.answers += [ConnectionError("SQS is away")] * 3
    sqs.answers.append({})
    sqs.answers += [ConnectionError("SQS is away")] * 2
    _read(Handler())

    assert pauses == [1, 2, 4, 1, 2]


def test_queue_that_is_not_there_yet_is_waited_for(
    sqs: FakeSqs, pauses: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    get_queue_url, asked = sqs.get_queue_url, []

    async def missing_at_first(QueueName: str) -> dict[str, str]:
        asked.append(QueueName)
        if len(asked) <= 10:
            raise LookupError("The specified queue does not exist.")
        return await get_queue_url(QueueName)

    monkeypatch.setattr(sqs, "get_queue_url", missing_at_first)
    sqs.send(GOOD[0])
    _read(Handler())

    assert len(asked) == 11
    assert sqs.deleted == [GOOD[0]]


def test_messages_are_read_while_others_are_handled_but_thirty_at_a_time(sqs: FakeSqs) -> None:
    at_work, most = 0, 0
    release = asyncio.Event()

    async def slow(_: dict[str, Any]) -> None:
        nonlocal at_work, most
        at_work += 1
        most = max(most, at_work)
        asyncio.get_running_loop().call_later(0.1, release.set)
        await release.wait()
        at_work -= 1

    for start in range(0, 40, 10):
        sqs.send(*GOOD[start : start + 10])
    _read(slow)

    assert most == 30
    assert sorted(sqs.deleted) == sorted(GOOD)


def test_message_stays_hidden_while_it_is_handled_and_no_longer(sqs: FakeSqs, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(observer, "EXTEND_EACH_SECONDS", 0.01)

    async def slow(_: dict[str, Any]) -> None:
        while len(sqs.extended) < 3:
            await asyncio.sleep(0.01)

    async def wait_a_little() -> None:
        while not sqs.deleted:
            await asyncio.sleep(0.01)
        so_far = len(sqs.extended)
        await asyncio.sleep(0.05)
        assert len(sqs.extended) == so_far
        raise asyncio.CancelledError

    sqs.send(GOOD[0])
    sqs.at_end = wait_a_little
    _read(slow)

    assert sqs.deleted == [GOOD[0]]
    assert set(sqs.extended) == {(GOOD[0], 30)}


def test_extending_that_fails_does_not_disturb_the_handling(sqs: FakeSqs, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(observer, "EXTEND_EACH_SECONDS", 0.01)
    tried = 0

    async def fails(**_: Any) -> None:
        nonlocal tried
        tried += 1
        raise ConnectionError("SQS is away")

    async def slow(_: dict[str, Any]) -> None:
        while tried < 3:
            await asyncio.sleep(0.01)

    monkeypatch.setattr(sqs, "change_message_visibility", fails)
    sqs.send(GOOD[0])
    _read(slow)

    assert sqs.deleted == [GOOD[0]]


def test_visibility_is_that_of_the_queue_and_is_extended_before_it_ends() -> None:
    [seconds] = re.findall(r"visibility_timeout_seconds = (\d+)", (ROOT / "infra" / "events.tf").read_text())

    assert int(seconds) == observer.VISIBILITY_SECONDS > observer.EXTEND_EACH_SECONDS


class Clock:
    """A clock that stands still until a test moves it."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 1000.0
        monkeypatch.setattr(observer.time, "monotonic", lambda: self.now)


def test_observer_that_neither_reads_nor_fails_to_for_ten_minutes_does_not_run(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clock = Clock(monkeypatch)
    reading = Observer(QUEUE, Handler())
    runs = []
    for seconds in (0, 599, 1):
        clock.now += seconds
        runs.append(reading.runs)

    assert runs == [True, True, False]


@pytest.mark.parametrize("answer", [{}, ConnectionError("SQS is away")], ids=["reads", "fails"])
def test_observer_that_reads_or_fails_to_runs(
    sqs: FakeSqs, pauses: list[float], monkeypatch: pytest.MonkeyPatch, answer: Any
) -> None:
    clock = Clock(monkeypatch)
    reading = Observer(QUEUE, Handler())
    clock.now += 700
    assert not reading.runs

    async def read() -> None:
        with pytest.raises(asyncio.CancelledError):
            await reading.keep_reading()

    sqs.answers.append(answer)
    asyncio.run(read())

    assert reading.runs
