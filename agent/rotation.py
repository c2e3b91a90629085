"""The rotation of the Prefect keys: agent and workflows get other ones, and nothing stands still meanwhile.

New tasks take their key from Secrets Manager when they start, so the agent is replaced and runs that are going keep the
earlier one to their end. It may be revoked once they have ended. In local the Prefect server is ours: it takes all
keys that long.
"""

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from agent import key
from environments import console, local_keys, progress
from environments.errors import PlatformError
from environments.prefect_api import prefect_client
from environments.secrets import AGENT_TOKEN, WORKFLOW_TOKEN, is_set
from environments.settings import Environment
from infra.terraform import Outputs

if TYPE_CHECKING:
    from prefect.client.schemas.objects import FlowRun

STARTS_WITHIN = timedelta(minutes=10)
"""A task may get its key from Secrets Manager that long before its flow run shows that it is RUNNING."""
SHOWN_RUNS = 20
PAGE = 200


def renew(environment: Environment, outputs: Outputs) -> datetime:
    """Put the new keys into the secrets, once Prefect has taken them; gives since when they have been there.

    They are those of PREFECT_AGENT_TOKEN and PREFECT_WORKFLOW_TOKEN; in local others are made. When they are there
    already, nothing is done.

    Raises:
        PlatformError: there is no key, or Prefect does not take it. Nothing was changed.
    """
    if environment.is_local:
        local_keys.renew(environment)
    for variable in (AGENT_TOKEN, WORKFLOW_TOKEN):
        _try_key(environment, variable)
    return key.store(environment, outputs)


def _try_key(environment: Environment, variable: str) -> None:
    from prefect.exceptions import ObjectNotFound

    with prefect_client(environment, variable) as api:
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
    progress.note(f"{len(runs)} runs may still use one" if runs else "no run uses one")
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
    kept = f"{AGENT_TOKEN} and {WORKFLOW_TOKEN} are" if is_set(WORKFLOW_TOKEN) else f"{AGENT_TOKEN} is"
    console.say(f"next: put the new key wherever {kept} kept, or the next deploy brings the earlier one back")
