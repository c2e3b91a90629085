"""The REST API of an environment's Prefect by plain HTTP, for commands that only look at it.

Importing Prefect's own client takes longer than all that such a command does. Nothing is repeated or waited for, unless
a request is patient: an answer that does not come may be what the command has to tell.
Source: https://docs.prefect.io/v3/api-ref/rest-api
"""

import base64
import http.client
import json
import urllib.error
import urllib.request
from typing import Any

from environments import outages
from environments.errors import PlatformError
from environments.secrets import AGENT_TOKEN, prefect_key
from environments.settings import Environment

PAGE = 200
"""How many entries Prefect gives at once."""
TIMEOUT_SECONDS = 10


class NotThereError(PlatformError):
    """Prefect does not know what was asked for."""


class AwayError(PlatformError):
    """Prefect did not answer, or what stands before it says that it is not there."""


def ask(
    environment: Environment,
    path: str,
    body: dict[str, Any] | None = None,
    variable: str = AGENT_TOKEN,
    key: str = "",
    todo: str = "",
    patient: bool = False,
) -> Any:
    """Send one request and give its answer: POST with a body, else GET.

    Args:
        environment: whose Prefect.
        path: below the API's URL, such as `/work_pools/filter`.
        body: of the request.
        variable: the environment variable that holds the key.
        key: another key than that.
        todo: what to do when that other one is not accepted.
        patient: wait for a Prefect that has answered before and went away, see `outages`; without, only a Prefect that
            limits the rate of requests is waited for, and shortly.

    Raises:
        NotThereError: Prefect answered 404.
        AwayError: no answer.
        RateLimitedError: Prefect takes no requests for longer than this one may wait.
        PlatformError: no key, a key that is not accepted, or another error.
    """
    url = environment.operator_prefect_api_url

    def send() -> Any:
        return _ask(environment, path, body, variable, key, todo)

    if patient:
        return outages.waited_for(url, send, lambda error: isinstance(error, AwayError))
    return outages.paced(url, send, outages.SHORT_PATIENCE_SECONDS)


def _ask(environment: Environment, path: str, body: dict[str, Any] | None, variable: str, key: str, todo: str) -> Any:
    key, url = key or prefect_key(environment, variable), environment.operator_prefect_api_url
    login = f"Bearer {key}" if environment.uses_prefect_cloud else "Basic " + base64.b64encode(key.encode()).decode()
    headers = {"Authorization": login, "Content-Type": "application/json"}
    request = urllib.request.Request(url + path, None if body is None else json.dumps(body).encode(), headers)
    try:
        with urllib.request.urlopen(request, timeout=TIMEOUT_SECONDS) as answer:
            return json.load(answer)
    except urllib.error.HTTPError as error:
        if error.code in (401, 403):
            raise PlatformError(
                f"Prefect at {url} does not accept the key",
                f"it answered {error.code}",
                todo or f"set {variable} to a key of environment {environment.name}",
            ) from error
        if error.code == outages.RATE_LIMITED:
            wait = outages.seconds_to_wait(error.headers.get("Retry-After"), error.headers.get("Date"))
            raise outages.RateLimitedError(url, wait) from error
        kinds: dict[int, type[PlatformError]] = {404: NotThereError, **dict.fromkeys(outages.PASSING, AwayError)}
        kind = kinds.get(error.code, PlatformError)
        raise kind(f"Prefect at {url} has trouble", f"it answered {error.code}", "try again in a while") from error
    except (OSError, ValueError, http.client.HTTPException) as error:
        raise out_of_reach(environment, error) from error


def out_of_reach(environment: Environment, error: Exception) -> "AwayError":
    """The error for a Prefect that does not answer, with what to do about it."""
    url, why = environment.operator_prefect_api_url, f"{type(error).__name__}: {error}"
    away = outages.since(url)
    if environment.is_local:
        todo = "invoke deploy starts it" + ("; then the same command goes on where it stopped" if away else "")
    elif away:
        todo = "run the same command again when Prefect answers: it goes on where it stopped"
    else:
        todo = f"check prefect_api_url in {environment.tfvars.name}"
    return AwayError(f"Prefect at {url} is out of reach" + (f" since {away}" if away else ""), why, todo)


def ask_all(environment: Environment, path: str, patient: bool = False, **body: Any) -> list[dict[str, Any]]:
    """All entries that a filter of the API lets through, page after page."""
    found: list[dict[str, Any]] = []
    while True:
        page = ask(environment, path, {**body, "limit": PAGE, "offset": len(found)}, patient=patient)
        found += page
        if len(page) < PAGE:
            return found


def of_project(environment: Environment, **flow_runs: Any) -> dict[str, Any]:
    """The body of a request about those runs of the environment's project that pass a filter, if one is given."""
    return {"work_pools": {"name": {"any_": [environment.prefix]}}, **({"flow_runs": flow_runs} if flow_runs else {})}
