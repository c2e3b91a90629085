"""Prefect's own clients against a server that limits the rate of requests."""

import asyncio
from collections.abc import Callable, Iterator

import pytest
from prefect.client.base import PrefectHttpxAsyncClient, PrefectHttpxSyncClient
from prefect.exceptions import PrefectHTTPStatusError
from prefect.settings import PREFECT_CLIENT_MAX_RETRIES, temporary_settings

from agent import rate_limits
from unit_tests.conftest import Server

RETRIES = 1


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch, http_server: Server) -> Iterator[None]:
    """The clients wait the limit out during one test only, retry once by themselves, and make no pauses."""
    http_server.headers = {code: {"Retry-After": "0"} for code in (429, 503)}
    for client in (PrefectHttpxSyncClient, PrefectHttpxAsyncClient):
        monkeypatch.setattr(client, "_send_with_retry", client._send_with_retry)
    rate_limits.wait_out()
    with temporary_settings({PREFECT_CLIENT_MAX_RETRIES: RETRIES}):
        yield


def get(url: str) -> int:
    with PrefectHttpxSyncClient() as client:
        return client.get(url).status_code


def get_async(url: str) -> int:
    async def ask() -> int:
        async with PrefectHttpxAsyncClient() as client:
            return (await client.get(url)).status_code

    return asyncio.run(ask())


@pytest.mark.parametrize("ask", [get, get_async])
def test_request_is_sent_until_it_is_taken(
    http_server: Server, capsys: pytest.CaptureFixture[str], ask: Callable[[str], int]
) -> None:
    refusals = 5 * (RETRIES + 1)
    http_server.answer(*[429] * refusals, 200)

    assert ask(http_server.url) == 200
    assert len(http_server.requests) == refusals + 1
    assert capsys.readouterr().err.count("Prefect limits the rate of requests (HTTP 429)") == 5


@pytest.mark.parametrize("ask", [get, get_async])
@pytest.mark.parametrize("code", [404, 500, 503])
def test_other_answers_are_those_of_prefects_client(http_server: Server, ask: Callable[[str], int], code: int) -> None:
    http_server.answer(*[code] * 10)

    with pytest.raises(PrefectHTTPStatusError):
        ask(http_server.url)
    assert len(http_server.requests) == (RETRIES + 1 if code == 503 else 1)


@pytest.mark.parametrize("ask", [get, get_async])
def test_refusal_is_given_back_when_patience_ends(
    http_server: Server, monkeypatch: pytest.MonkeyPatch, ask: Callable[[str], int]
) -> None:
    monkeypatch.setattr(rate_limits, "PATIENCE_SECONDS", 0.0)
    http_server.answer(*[429] * 10)

    with pytest.raises(PrefectHTTPStatusError, match="429"):
        ask(http_server.url)
    assert len(http_server.requests) == RETRIES + 1
