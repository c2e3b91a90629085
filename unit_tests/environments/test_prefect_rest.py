"""Plain requests to Prefect: what is sent, and what becomes of each kind of answer."""

import dataclasses
from typing import Any

import pytest

from environments import outages, prefect_rest
from environments.errors import PlatformError
from environments.prefect_api import check_prefect
from environments.secrets import AGENT_TOKEN
from environments.settings import Environment
from unit_tests.conftest import Server


@pytest.fixture
def own_server(environment: Environment, http_server: Server, monkeypatch: pytest.MonkeyPatch) -> Environment:
    """An environment scheduled by a Prefect server that the test plays."""
    monkeypatch.setenv(AGENT_TOKEN, "admin:secret-word")
    return dataclasses.replace(environment, prefect_api_url=f"{http_server.url}/api")


def _problem(environment: Environment, path: str = "/x") -> PlatformError:
    with pytest.raises(PlatformError) as caught:
        prefect_rest.ask(environment, path)
    return caught.value


def test_request_with_a_body_is_a_post_and_one_without_a_get(own_server: Environment, http_server: Server) -> None:
    http_server.answer(200, body=b'{"name": "pool"}')

    assert prefect_rest.ask(own_server, "/work_pools/x") == {"name": "pool"}
    prefect_rest.ask(own_server, "/work_pools/filter", {})
    assert [request[:2] for request in http_server.requests] == [
        ("GET", "/api/work_pools/x"),
        ("POST", "/api/work_pools/filter"),
    ]


@pytest.mark.parametrize(("code", "words"), [(401, "does not accept the key"), (404, "has trouble"), (502, "502")])
def test_answer_that_is_an_error_is_told_without_the_key(
    own_server: Environment, http_server: Server, code: int, words: str
) -> None:
    http_server.answer(code)
    problem = _problem(own_server)

    assert words in str(problem)
    assert problem.todo
    assert "secret-word" not in str(problem)
    assert isinstance(problem, prefect_rest.NotThereError) is (code == 404)


def test_answer_that_is_no_json_is_none_of_prefect(own_server: Environment, http_server: Server) -> None:
    http_server.answer(200, body=b"<html>sign in to this network")

    assert "out of reach" in _problem(own_server).what


def test_address_without_an_api_is_not_taken_for_an_environment_that_is_not_deployed(
    own_server: Environment, http_server: Server
) -> None:
    http_server.answer(404)
    with pytest.raises(PlatformError) as caught:
        check_prefect(own_server)

    assert not isinstance(caught.value, prefect_rest.NotThereError)
    assert "prefect_api_url" in caught.value.todo


def test_page_after_page_is_read_until_one_is_not_full(
    environment: Environment, monkeypatch: pytest.MonkeyPatch
) -> None:
    there = [{"id": number} for number in range(prefect_rest.PAGE * 2 + 1)]

    def page(_: Environment, path: str, body: dict[str, Any], patient: bool) -> list[dict[str, int]]:
        assert (path, body["sort"]) == ("/flows/filter", "NAME_ASC")
        return there[body["offset"] : body["offset"] + body["limit"]]

    monkeypatch.setattr(prefect_rest, "ask", page)

    assert prefect_rest.ask_all(environment, "/flows/filter", sort="NAME_ASC") == there


@pytest.mark.parametrize("code", [502, 503, 504])
def test_patient_request_waits_for_a_prefect_that_has_answered_before(
    own_server: Environment, http_server: Server, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    monkeypatch.setattr(outages.time, "sleep", lambda _: http_server.answer(200, body=b"[]"))
    http_server.answer(code)
    with pytest.raises(prefect_rest.AwayError):
        prefect_rest.ask(own_server, "/x", patient=True)
    outages.has_answered(own_server.operator_prefect_api_url)

    assert prefect_rest.ask(own_server, "/x", patient=True) == []
