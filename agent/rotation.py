"""The rotation of the Prefect key: agent and workflows get another one, and nothing stands still meanwhile.

New tasks take the key from Secrets Manager when they start, so the agent is replaced and runs that are going keep the
earlier key to their end. That one may be revoked once they have ended. In local the Prefect server is ours: it takes
both keys that long.
"""

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from agent import key
from environments import console, local_keys
from environments.errors import PlatformError
from environments.prefect_api import prefect_client
from environments.secrets import AGENT_TOKEN
from environments.settings import Environment
from infra.terraform import Outputs

if TYPE_CHECKING:
    from prefect.client.schemas.objects import FlowRun

STARTS_WITHIN = timedelta(minutes=10)
"""A task may get its key from Secrets Manager that long before its flow run shows that it is RUNNING."""
SHOWN_RUNS = 20
PAGE = 200


def renew(environment: Environment, outputs: Outputs) -> datetime:
    """Put the new key into the secret, once Prefect has taken it; gives since when it has been there.

    It is that of PREFECT_AGENT_TOKEN; in local another one is made. When it is there already, nothing is done.

    Raises:
        PlatformError: there is no key, or Prefect does not take it. Nothing was changed.
    """
    if environment.is_local:
        local_keys.renew(environment)
    _try_key(environment)
    return key.store(environment, outputs)


def _try_key(environment: Environment) -> None:
    from prefect.exceptions import ObjectNotFound

    with prefect_client(environment) as api:
        try:
            api.read_work_pool(environment.prefix)
        except ObjectNotFound as error:
            raise PlatformError(
                f"Prefect at {environment.operator_prefect_api_url} has no project {environment.prefix}",
                "or the key may not see it",
                f"invoke deploy --env {environment.name} makes it",
            ) from error


def retire_earlier(environment: Environment, key_since: datetime) -> "list[FlowRun]":
    """Find the runs that may still use an earlier key; in local, without any, earlier keys are refused from now on."""
    runs = [run for run in _active_runs(environment) if _began(run) < key_since + STARTS_WITHIN]
    if environment.is_local and not runs:
        local_keys.forget_earlier(environment)
    console.note(f"{len(runs)} runs may still use one" if runs else "no run uses one")
    return runs


def _active_runs(environment: Environment) -> "list[FlowRun]":
    from prefect.client.schemas.filters import (
        FlowRunFilter,
        FlowRunFilterState,
        FlowRunFilterStateType,
        WorkPoolFilter,
        WorkPoolFilterName,
    )
    from prefect.client.schemas.objects import StateType

    active = [StateType.PENDING, StateType.RUNNING, StateType.PAUSED, StateType.CANCELLING]
    of_project = WorkPoolFilter(name=WorkPoolFilterName(any_=[environment.prefix]))
    in_state = FlowRunFilter(state=FlowRunFilterState(type=FlowRunFilterStateType(any_=active)))
    found: list[FlowRun] = []
    with prefect_client(environment) as api:
        while page := api.read_flow_runs(
            flow_run_filter=in_state, work_pool_filter=of_project, limit=PAGE, offset=len(found)
        ):
            found += page
    return found


def _began(run: "FlowRun") -> datetime:
    """When a run's task was started at the latest: a PENDING one has been waiting for it since then."""
    return run.start_time or (run.state.timestamp if run.state else datetime.max.replace(tzinfo=UTC))


def show(environment: Environment, runs: "list[FlowRun]") -> None:
    """Tell when the earlier key may be revoked."""
    console.say(f"agent and new runs of environment {environment.name} have the present key", "bold green")
    if runs:
        console.table(
            [
                (run.name, str(run.state.name) if run.state else "", f"{_began(run):%Y-%m-%d %H:%M:%S}")
                for run in runs[:SHOWN_RUNS]
            ],
            ("run", "state", "since (UTC)"),
        )
        if len(runs) > SHOWN_RUNS:
            console.say(f"and {len(runs) - SHOWN_RUNS} more")
    if environment.is_local:
        say_when = "is accepted until invoke rotate-key finds these runs ended" if runs else "is not accepted any more"
        console.say(f"the earlier key {say_when}")
        return
    console.say(
        "the earlier key may be revoked at Prefect "
        + ("when these runs have ended: they may have started with it" if runs else "now: no run uses it")
    )
    console.say(f"next: put the new key wherever {AGENT_TOKEN} is kept, or the next deploy brings the earlier one back")
