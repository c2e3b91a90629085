import asyncio
from pathlib import Path
from typing import Any

import pytest

from environments.emulated_rate_limit import Bucket, limited


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def test_burst_is_taken_and_the_rest_at_the_rate() -> None:
    clock = Clock()
    bucket = Bucket(clock)
    assert [bucket.take(60) for _ in range(6)] == [0, 0, 0, 0, 0, pytest.approx(1)]
    clock.now += 0.75
    assert bucket.take(60) == pytest.approx(0.25)
    clock.now += 0.25
    assert bucket.take(60) == 0
    clock.now += 3600
    assert [bucket.take(60) > 0 for _ in range(6)] == [False] * 5 + [True]


def _statuses(file: Path, *paths: str) -> list[tuple[int, dict[bytes, bytes]]]:
    answers: list[tuple[int, dict[bytes, bytes]]] = []

    async def server(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})

    async def send(event: Any) -> None:
        if event["type"] == "http.response.start":
            answers.append((event["status"], dict(event["headers"])))

    async def ask() -> None:
        application = limited(server, file)
        for path in paths:
            await application({"type": "http", "path": path}, None, send)

    asyncio.run(ask())
    return answers


def test_server_says_when_to_ask_again(tmp_path: Path) -> None:
    file = tmp_path / "limit"
    file.write_text("12\n")  # one at once, then one in five seconds
    answers = _statuses(file, "/api/flows", "/api/flows", "/api/health")

    assert [status for status, _ in answers] == [200, 429, 200]
    assert answers[1][1][b"retry-after"] == b"5"


@pytest.mark.parametrize("text", [None, "", "many"])
def test_without_a_number_there_is_no_limit(tmp_path: Path, text: str | None) -> None:
    file = tmp_path / "limit"
    if text is not None:
        file.write_text(text)
    assert [status for status, _ in _statuses(file, *["/api/flows"] * 20)] == [200] * 20
