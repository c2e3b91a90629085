"""Access to the Prefect API of an environment, with Prefect's own client."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from environments import outages, prefect_rest
from environments.errors import PlatformError
from environments.secrets import AGENT_TOKEN, prefect_key
from environments.settings import Environment, machine_folder

_HOME = machine_folder() / "prefect_client"

# Prefect reads its settings once, when it is imported anywhere; nothing may import it before this module. This
# machine's own Prefect profile must not mix in, and an API that does not answer must be told in good time.
os.environ.update(
    {
        "PREFECT_HOME": str(_HOME),
        "PREFECT_PROFILES_PATH": str(_HOME / "profiles.toml"),
        "PREFECT_LOGGING_LEVEL": "ERROR",
        "PREFECT_CLIENT_MAX_RETRIES": "2",
        "PREFECT_CLIENT_CSRF_SUPPORT_ENABLED": "false",
    }
)

if TYPE_CHECKING:
    import httpx
    from prefect.client.orchestration import SyncPrefectClient


@contextlib.contextmanager
def prefect_client(environment: Environment, variable: str = AGENT_TOKEN) -> "Iterator[SyncPrefectClient]":
    """A client of the environment's Prefect API.

    Args:
        environment: whose Prefect.
        variable: the environment variable that holds the key.

    Raises:
        PlatformError: no key, a key that is not accepted, or no answer; also for calls inside the block. An API that
            has answered before and goes away is waited for, see `outages`.
    """
    key = prefect_key(environment, variable)
    Path(os.environ["PREFECT_HOME"]).mkdir(parents=True, exist_ok=True)
    import httpx
    from prefect.client.orchestration import SyncPrefectClient
    from prefect.exceptions import PrefectHTTPStatusError

    url = environment.operator_prefect_api_url
    client = SyncPrefectClient(
        url,
        api_key=key if environment.uses_prefect_cloud else None,
        auth_string=None if environment.uses_prefect_cloud else key,
        httpx_settings={"timeout": httpx.Timeout(10, connect=5)},
    )
    http: Any = client._client  # a transport of our own would not know of the surroundings' proxies
    http.send = outages.waiting(http.send, url)
    # Prefect's client would wait three times for as long as it is asked to, and say nothing.
    http.event_hooks = {"response": [outages.rate_limit_hook(url)]}
    try:
        with client:
            yield client
    except PrefectHTTPStatusError as error:
        if error.response.status_code in (401, 403):
            raise PlatformError(
                f"Prefect at {url} does not accept the key",
                f"it answered {error.response.status_code}",
                f"set {variable} to a key of environment {environment.name}",
            ) from error
        raise PlatformError(f"Prefect at {url} refused a request", _detail(error.response)) from error
    except httpx.TransportError as error:
        raise prefect_rest.out_of_reach(environment, error) from error


def _detail(response: "httpx.Response") -> str:
    try:
        answer = response.json()
        if "detail" in answer:
            return str(answer["detail"])
        # Prefect repeats the whole request beside what is wrong with it.
        return "\n".join(f"{each['loc'][-1]}: {each['msg']}" for each in answer["exception_detail"])
    except (ValueError, LookupError, TypeError):
        return f"{response.status_code} {response.text[:500]}"


def check_prefect(
    environment: Environment,
    variable: str = AGENT_TOKEN,
    key: str = "",
    todo: str = "",
    patience: float = outages.SHORT_PATIENCE_SECONDS,
) -> None:
    """Make sure that the Prefect API answers and takes the key.

    Args:
        environment: whose Prefect.
        variable: the environment variable that holds the key.
        key: another key than that.
        todo: what to do when that other one is not accepted.
        patience: seconds to wait for a Prefect that limits the rate of requests.

    Raises:
        PlatformError: as `prefect_client`.
    """
    url = environment.operator_prefect_api_url

    def ask() -> None:
        prefect_rest.ask(environment, "/work_pools/filter", {}, variable, key, todo)

    try:
        outages.paced(url, ask, patience)
    except prefect_rest.NotThereError as error:
        where = f"check prefect_api_url in environments/{environment.tfvars.name}"
        raise PlatformError(f"{error.what}: no API is there", error.why, where) from error
    outages.has_answered(url)
