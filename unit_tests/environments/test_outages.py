import dataclasses
import re
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest

from environments import outages
from environments.errors import PlatformError
from environments.prefect_api import check_prefect, prefect_client
from environments.secrets import AGENT_TOKEN
from environments.settings import Environment
from unit_tests.conftest import Server

URL = "http://prefect.example/api"


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Pauses that a test can wait for, and no outage of another test."""
    from prefect.settings import PREFECT_CLIENT_MAX_RETRIES, temporary_settings

    monkeypatch.setattr(outages, "PAUSE_SECONDS", 0.01)
    monkeypatch.setattr(outages, "_answered", set())
    monkeypatch.setattr(outages, "_away", {})
    with temporary_settings({PREFECT_CLIENT_MAX_RETRIES: 0}):
        yield


@pytest.fixture
def own_server(environment: Environment, http_server: Server, monkeypatch: pytest.MonkeyPatch) -> Environment:
    """An environment scheduled by a Prefect server that the test plays."""
    monkeypatch.setenv(AGENT_TOKEN, "admin:secret-word")
    return dataclasses.replace(environment, prefect_api_url=f"{http_server.url}/api")


def sender(*outcomes: Any) -> Callable[[], Any]:
    """Something that sends and gives these outcomes in turn; errors are raised."""
    left = list(outcomes)

    def send() -> Any:
        outcome = left.pop(0)
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    return send


@pytest.mark.parametrize("code", outages.PASSING)
def test_prefect_that_goes_away_is_waited_for_and_that_is_told_once(
    own_server: Environment, http_server: Server, capsys: pytest.CaptureFixture[str], code: int
) -> None:
    with prefect_client(own_server) as client:
        client.hello()
        http_server.answer(code, code, code, 200)
        client.hello()

    said = capsys.readouterr()
    assert said.err.count("is away since") == 1
    assert said.err.count("is back after") == 1
    assert said.out == ""


@pytest.mark.parametrize(
    "error", [httpx.ConnectError("refused"), httpx.ReadTimeout("slow"), httpx.ReadError("reset")], ids=repr
)
def test_request_is_sent_again_until_it_is_answered(error: Exception) -> None:
    send = outages.waiting(sender("first", error, error, "second"), URL)

    assert [send(), send()] == ["first", "second"]


def test_prefect_that_never_answered_is_told_at_once() -> None:
    send = outages.waiting(sender(httpx.ConnectError("refused"), "never asked"), URL)
    with pytest.raises(httpx.ConnectError):
        send()

    assert outages.since(URL) == ""


def test_prefect_that_was_checked_is_waited_for(own_server: Environment, http_server: Server) -> None:
    check_prefect(own_server)
    http_server.answer(503, 503, 200)
    with prefect_client(own_server) as client:
        client.hello()

    assert len(http_server.requests) == 4


def test_answer_that_is_a_refusal_is_no_outage(own_server: Environment, http_server: Server) -> None:
    with pytest.raises(PlatformError, match="refused a request"), prefect_client(own_server) as client:
        client.hello()
        http_server.answer(500)
        client.hello()

    assert len(http_server.requests) == 2


def test_patience_ends_with_a_word_on_what_the_same_command_will_do(
    own_server: Environment,
    http_server: Server,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(outages, "PATIENCE_SECONDS", 0.2)
    monkeypatch.setattr(outages, "TELL_EVERY_SECONDS", 0.05)
    with pytest.raises(PlatformError) as caught, prefect_client(own_server) as client:
        client.hello()
        http_server.httpd.shutdown()
        http_server.httpd.server_close()
        client.hello()

    assert re.search(r"out of reach since \d\d:\d\d:\d\d", caught.value.what)
    assert "goes on where it stopped" in caught.value.todo


def test_long_wait_is_told_again(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(outages, "TELL_EVERY_SECONDS", 0.0)
    send = outages.waiting(sender("first", *[httpx.ConnectError("refused")] * 3, "second"), URL)
    send()
    send()

    assert capsys.readouterr().err.count("waiting for it") == 3


def test_what_may_pass_is_tried_again() -> None:
    assert outages.repeated(sender(OSError("broken"), OSError("broken"), "done"), lambda _: True) == "done"


def test_what_does_not_pass_is_tried_once() -> None:
    with pytest.raises(OSError, match="denied"):
        outages.repeated(sender(OSError("denied"), "never tried"), lambda _: False)


def test_the_last_failure_is_the_one_that_is_told() -> None:
    failures = [OSError(f"attempt {number}") for number in range(outages.ATTEMPTS)]
    with pytest.raises(OSError, match=str(failures[-1])):
        outages.repeated(sender(*failures, "never tried"), lambda _: True)
