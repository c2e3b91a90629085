import base64
import dataclasses
import json
from collections.abc import Callable

import pytest

from environments.errors import PlatformError
from environments.prefect_api import check_prefect, prefect_client
from environments.secrets import AGENT_TOKEN, REGISTER_TOKEN
from environments.settings import Environment
from unit_tests.conftest import Server


@pytest.fixture
def own_server(environment: Environment, http_server: Server, monkeypatch: pytest.MonkeyPatch) -> Environment:
    """An environment scheduled by a Prefect server that the test plays."""
    monkeypatch.setenv(AGENT_TOKEN, "admin:secret-word")
    monkeypatch.setenv(REGISTER_TOKEN, "admin:other-word")
    return dataclasses.replace(environment, prefect_api_url=f"{http_server.url}/api")


def _read(environment: Environment) -> None:
    with prefect_client(environment) as client:
        client.hello()


USES = pytest.mark.parametrize("use", [check_prefect, _read], ids=["check", "client"])


def test_own_server_gets_the_key_as_auth_string(own_server: Environment, http_server: Server) -> None:
    check_prefect(own_server)
    [(_, path, headers)] = http_server.requests

    assert path.startswith("/api/")
    assert headers["Authorization"] == "Basic " + base64.b64encode(b"admin:secret-word").decode()


def test_another_key_is_tried_in_place_of_that_of_this_machine(own_server: Environment, http_server: Server) -> None:
    http_server.answer(401)
    with pytest.raises(PlatformError) as caught:
        check_prefect(own_server, key="agent:stored-word", todo="store another one")
    [(_, _, headers)] = http_server.requests

    assert headers["Authorization"] == "Basic " + base64.b64encode(b"agent:stored-word").decode()
    assert caught.value.todo == "store another one"
    assert "stored-word" not in str(caught.value)


@USES
@pytest.mark.parametrize("code", [401, 403])
def test_key_that_is_not_accepted_names_the_variable_and_not_the_key(
    own_server: Environment, http_server: Server, use: Callable[[Environment], None], code: int
) -> None:
    http_server.answer(code)
    with pytest.raises(PlatformError) as caught:
        use(own_server)

    assert "does not accept the key" in caught.value.what
    assert AGENT_TOKEN in caught.value.todo
    assert "secret-word" not in str(caught.value)


def test_register_is_told_its_own_variable(own_server: Environment, http_server: Server) -> None:
    http_server.answer(401)
    with pytest.raises(PlatformError) as caught, prefect_client(own_server, REGISTER_TOKEN) as client:
        client.hello()

    assert REGISTER_TOKEN in caught.value.todo


@USES
def test_prefect_out_of_reach_names_url_and_settings_file(
    own_server: Environment, http_server: Server, use: Callable[[Environment], None]
) -> None:
    http_server.stop()
    with pytest.raises(PlatformError) as caught:
        use(own_server)

    assert own_server.prefect_api_url in caught.value.what
    assert "out of reach" in caught.value.what
    assert "prefect_api_url" in caught.value.todo
    assert "dev.tfvars" in caught.value.todo


def test_refused_request_gives_the_reason_of_prefect(own_server: Environment, http_server: Server) -> None:
    http_server.answer(409, body=b'{"detail": "it is there already"}')
    with pytest.raises(PlatformError) as caught:
        _read(own_server)

    assert "it is there already" in caught.value.why


def test_request_that_is_not_valid_is_told_without_its_content(own_server: Environment, http_server: Server) -> None:
    """As Prefect answers when the parameters of a run are larger than it stores."""
    found = {"type": "value_error", "loc": ["body", "parameters"], "msg": "must be less than 524,288 bytes"}
    body = {"exception_message": "Invalid request received.", "exception_detail": [{**found, "input": "x" * 1000}]}
    http_server.answer(422, body=json.dumps(body).encode())
    with pytest.raises(PlatformError) as caught:
        _read(own_server)

    assert caught.value.why == "parameters: must be less than 524,288 bytes"


@pytest.mark.parametrize("body", [b"[]", b"no json", b'{"exception_detail": 1}', b'{"exception_detail": [{}]}'])
def test_refusal_in_other_words_is_shown_as_it_is(own_server: Environment, http_server: Server, body: bytes) -> None:
    http_server.answer(422, body=body)
    with pytest.raises(PlatformError) as caught:
        _read(own_server)

    assert caught.value.why == f"422 {body.decode()}"


def test_missing_key_is_told_before_anybody_is_asked(
    environment: Environment, http_server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(AGENT_TOKEN, raising=False)
    with pytest.raises(PlatformError, match="no Prefect key"), prefect_client(environment):
        pytest.fail("there is no key to make a client with")

    assert http_server.requests == []
