import asyncio
from typing import Any

import pytest

from agent import aws


@pytest.fixture(autouse=True)
def _credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "testing")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "eu-west-1")


def _config(**options: Any) -> Any:
    async def config() -> Any:
        async with aws.client("sqs", **options) as client:
            return client.meta.config

    return asyncio.run(config())


def test_clients_wait_for_an_answer_but_not_for_long() -> None:
    config = _config()

    assert (config.connect_timeout, config.read_timeout) == (5, 10)
    assert config.retries == {"mode": "standard", "total_max_attempts": 4}
    assert _config(answer_within=30).read_timeout == 30


def test_all_clients_share_what_is_known_of_the_services() -> None:
    assert aws._session() is aws._session()
