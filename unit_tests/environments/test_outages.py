import dataclasses
import re
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import httpx
import pytest

from environments import outages, prefect_rest
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
    for remembered in ("_away", "_not_before", "_limit_told"):
        monkeypatch.setattr(outages, remembered, {})
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
        http_server.stop()
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


class Clock:
    """A clock that only goes on while somebody sleeps, who then has not to wait."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.slept: list[float] = []

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.slept.append(round(seconds, 2))
        self.now += seconds


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(outages, "time", made)
    monkeypatch.setattr(outages, "PAUSE_SECONDS", 2.0)
    return made


def limited(server: Server, *codes: int, **headers: str) -> None:
    """Let a server give these answers, with headers where it limits the rate of requests."""
    server.answer(*codes, body=b"[]")
    server.headers[429] = {name.replace("_", "-"): value for name, value in headers.items()}


def by_client(environment: Environment) -> None:
    with prefect_client(environment) as client:
        client.hello()


def patiently(environment: Environment) -> None:
    prefect_rest.ask(environment, "/x", patient=True)


def shortly(environment: Environment) -> None:
    prefect_rest.ask(environment, "/x")


PATIENT = pytest.mark.parametrize("use", [by_client, patiently])


@PATIENT
@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"Retry_After": "42"}, 42.0),
        ({"Retry_After": "0"}, 2.0),
        ({"Retry_After": "Mon, 30 Nov 2026 10:01:10 GMT", "Date": "Mon, 30 Nov 2026 10:00:00 GMT"}, 70.0),
        ({}, 2.0),
        ({"Retry_After": "soon"}, 2.0),
    ],
)
def test_request_that_is_limited_is_sent_again_when_prefect_allows_it(
    own_server: Environment,
    http_server: Server,
    clock: Clock,
    capsys: pytest.CaptureFixture[str],
    use: Callable[[Environment], None],
    headers: dict[str, str],
    seconds: float,
) -> None:
    """The first one of a command, too: an address that answers so is not a wrong one."""
    limited(http_server, 429, 200, **headers)
    use(own_server)
    said = capsys.readouterr()

    assert clock.slept == [seconds]
    assert len(http_server.requests) == 2
    assert said.err.splitlines() == [
        f"Prefect at {own_server.prefect_api_url} limits the rate of requests; "
        f"the next one follows in {seconds:.0f} s, 300 s of waiting at most"
    ]
    assert said.out == ""


@PATIENT
def test_waiting_grows_and_ends_where_prefect_does_not_say_how_long(
    own_server: Environment,
    http_server: Server,
    clock: Clock,
    capsys: pytest.CaptureFixture[str],
    use: Callable[[Environment], None],
) -> None:
    limited(http_server, 429)
    with pytest.raises(outages.RateLimitedError) as caught:
        use(own_server)

    assert clock.slept == [2.0, 4.0, 8.0, 16.0, *[30.0] * 9]
    assert caught.value.why == "it answered 429"
    assert "again later" in caught.value.todo
    assert 5 < capsys.readouterr().err.count("limits the rate") < 15


@PATIENT
def test_however_long_prefect_asks_to_wait_a_command_asks_once_more_after_its_own_patience(
    own_server: Environment, http_server: Server, clock: Clock, use: Callable[[Environment], None]
) -> None:
    limited(http_server, 429, 429, 200, Retry_After="3600")
    with pytest.raises(outages.RateLimitedError, match="asks to wait 3600 s"):
        use(own_server)

    assert clock.slept == [outages.PATIENCE_SECONDS]
    assert len(http_server.requests) == 2


def test_command_that_only_looks_waits_shortly(
    own_server: Environment, http_server: Server, clock: Clock, capsys: pytest.CaptureFixture[str]
) -> None:
    limited(http_server, 429, 429, 200, Retry_After="4")
    shortly(own_server)
    capsys.readouterr()
    limited(http_server, 429, 200, Retry_After="60")
    with pytest.raises(outages.RateLimitedError, match="asks to wait 60 s"):
        shortly(own_server)

    assert clock.slept == [4.0, 4.0]
    assert capsys.readouterr().err == ""


def test_no_request_of_a_command_is_sent_before_prefect_allows_it(
    own_server: Environment, http_server: Server, clock: Clock
) -> None:
    """So a page that looks again and again sends nothing meanwhile."""
    limited(http_server, 429, 200, Retry_After="60")
    for _ in range(3):
        with pytest.raises(outages.RateLimitedError):
            shortly(own_server)
        clock.now += 5
    assert len(http_server.requests) == 1

    by_client(own_server)
    shortly(own_server)
    assert clock.slept == [45.0]
    assert len(http_server.requests) == 3


def test_check_waits_as_long_as_it_is_told_to(own_server: Environment, http_server: Server, clock: Clock) -> None:
    limited(http_server, 429, 200, Retry_After="60")
    with pytest.raises(outages.RateLimitedError):
        check_prefect(own_server)
    check_prefect(own_server, patience=outages.PATIENCE_SECONDS)

    assert clock.slept == [60.0]
    assert len(http_server.requests) == 2


def test_prefect_that_comes_back_and_limits_requests_is_back(
    own_server: Environment, http_server: Server, clock: Clock, capsys: pytest.CaptureFixture[str]
) -> None:
    with prefect_client(own_server) as client:
        client.hello()
        limited(http_server, 504, 504, 429, 200, Retry_After="30")
        client.hello()

    told = capsys.readouterr().err.splitlines()
    assert [line.split(" ", 3)[3].partition(" ")[0] for line in told] == ["is", "is", "limits"]
    assert "is away since" in told[0]
    assert "is back after" in told[1]
    assert clock.slept == [2.0, 2.0, 30.0]


@pytest.mark.parametrize(
    ("retry_after", "seconds"),
    [
        ("30", 30.0),
        ("0.5", 0.5),
        ("-5", 0.0),
        ("Mon, 30 Nov 2026 10:00:30 GMT", 30.0),
        ("Mon, 30 Nov 2026 10:00:30", 30.0),
        ("Mon, 30 Nov 2026 09:59:00 GMT", 0.0),
        ("Monday, 30-Nov-26 10:00:30 GMT", 30.0),
        ("inf", None),
        ("nan", None),
        ("1e999", None),
        ("soon", None),
        ("Mon, 30 Nov 99999 10:00:30 GMT", None),
        ("", None),
        (None, None),
    ],
)
def test_header_says_how_long_to_wait_by_the_servers_own_clock(retry_after: str | None, seconds: float | None) -> None:
    assert outages.seconds_to_wait(retry_after, "Mon, 30 Nov 2026 10:00:00 GMT") == seconds


def test_date_without_the_servers_clock_is_taken_by_ours() -> None:
    later = format_datetime(datetime.now(UTC) + timedelta(seconds=90), usegmt=True)
    seconds = outages.seconds_to_wait(later, None)

    assert seconds is not None
    assert 85 < seconds <= 90
