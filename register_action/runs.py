"""Starts a deployment and follows its run: state changes and log lines until it ends."""

import difflib
import time
from typing import Any
from uuid import UUID

from environments import console
from environments.errors import PlatformError
from environments.prefect_api import prefect_client
from environments.settings import Environment
from register_action.workflow_image import slug

POLL_SECONDS = 1.0
HINT_AFTER_SECONDS = 30.0
LEVELS = {10: "DEBUG", 20: "INFO", 30: "WARNING", 40: "ERROR", 50: "CRITICAL"}


def deployments(environment: Environment) -> dict[str, Any]:
    """All deployments of the environment's project, by flow name."""
    from prefect.client.schemas.filters import FlowFilter, FlowFilterId, WorkPoolFilter, WorkPoolFilterName

    found: list[Any] = []
    with prefect_client(environment) as client:
        while page := client.read_deployments(
            work_pool_filter=WorkPoolFilter(name=WorkPoolFilterName(any_=[environment.prefix])),
            limit=200,
            offset=len(found),
        ):
            found += page
        ids = [deployment.flow_id for deployment in found]
        names = {}
        for start in range(0, len(ids), 200):
            flows = client.read_flows(flow_filter=FlowFilter(id=FlowFilterId(any_=ids[start : start + 200])))
            names.update({flow.id: flow.name for flow in flows})
    return {names[deployment.flow_id]: deployment for deployment in found if deployment.name == environment.name}


def resolve(environment: Environment, name: str) -> tuple[str, Any]:
    """The flow and deployment a user means; `my_flow`, `my-flow` and `my-flow/<env>` are the same.

    Raises:
        PlatformError: there is none, or several.
    """
    known = deployments(environment)
    plain = name.removesuffix(f"/{environment.name}")
    if plain in known:
        return plain, known[plain]
    matches = [flow for flow in known if slug(flow) == slug(plain)]
    if len(matches) == 1:
        return matches[0], known[matches[0]]
    if matches:
        raise PlatformError(f"{name!r} could be {' or '.join(sorted(matches))}", todo="write the flow's name exactly")
    close = difflib.get_close_matches(slug(plain), [slug(flow) for flow in known], n=1)
    hint = f"did you mean {close[0]}? " if close else ""
    raise PlatformError(
        f"no workflow {name!r} is registered in environment {environment.name}",
        f"{hint}registered: {', '.join(sorted(known)) or 'none'}",
        f"invoke register --workflow-path ... --env {environment.name}",
    )


def start(environment: Environment, deployment: Any, parameters: dict[str, Any]) -> UUID:
    """Create a run of a deployment; gives its id.

    Raises:
        PlatformError: the parameters don't fit.
    """
    with prefect_client(environment) as client:
        run = client.create_flow_run_from_deployment(deployment.id, parameters=parameters)
    console.say(f"run {run.name} created")
    return run.id


def follow(environment: Environment, run_id: UUID) -> bool:
    """Print a run's state changes and log lines until it ends; tells whether it is COMPLETED."""
    shown: str | None = None
    printed = 0
    hint_at = time.monotonic() + HINT_AFTER_SECONDS
    with prefect_client(environment) as client:
        while True:
            state = client.read_flow_run(run_id).state
            printed += _print_logs(client, run_id, printed)
            if state and state.name != shown:
                shown = state.name
                _print_state(state)
            if state and state.is_final():
                # Prefect sends log lines in batches, the last ones after the end.
                time.sleep(2 * POLL_SECONDS)
                while more := _print_logs(client, run_id, printed):
                    printed += more
                    time.sleep(POLL_SECONDS)
                return bool(state.is_completed())
            if state and state.is_scheduled() and time.monotonic() > hint_at:
                console.say(f"no agent has taken it yet; invoke status --env {environment.name} tells why", "yellow")
                hint_at = float("inf")
            time.sleep(POLL_SECONDS)


def _print_state(state: Any) -> None:
    why = f": {state.message}" if state.message and not state.is_completed() else ""
    console.say(f"{state.timestamp:%H:%M:%S}  state    {state.name}{why}", "bold")


def _print_logs(client: Any, run_id: UUID, skip: int) -> int:
    """Print the log lines of a run after the first `skip`; gives how many there were."""
    from prefect.client.schemas.filters import LogFilter, LogFilterFlowRunId
    from prefect.client.schemas.sorting import LogSort

    of_run = LogFilter(flow_run_id=LogFilterFlowRunId(any_=[run_id]))
    printed = 0
    while lines := client.read_logs(of_run, limit=200, offset=skip + printed, sort=LogSort.TIMESTAMP_ASC):
        for line in lines:
            level = LEVELS.get(line.level, str(line.level))
            console.say(f"{line.timestamp:%H:%M:%S}  {level:<8} {line.message}", "red" if line.level >= 40 else "")
        printed += len(lines)
    return printed


def parse_parameters(pairs: list[str]) -> dict[str, Any]:
    """Read `key=value` pairs; a value that is JSON is taken as such, anything else as text.

    Raises:
        PlatformError: a pair without `=`.
    """
    import json

    parameters: dict[str, Any] = {}
    for pair in pairs:
        key, separator, value = pair.partition("=")
        if not separator or not key:
            raise PlatformError(f"--param {pair!r} is not key=value", "", "write --param name=value")
        try:
            parameters[key] = json.loads(value)
        except ValueError:
            parameters[key] = value
    return parameters


def overview(environment: Environment) -> list[dict[str, Any]]:
    """What is registered: flow, version, and state of the last run, for `invoke status`."""
    from prefect.client.schemas.filters import DeploymentFilter, DeploymentFilterId
    from prefect.client.schemas.sorting import FlowRunSort

    try:
        known = deployments(environment)
    except PlatformError:
        return []  # Prefect's own state is told by the component it belongs to
    rows = []
    with prefect_client(environment) as client:
        for flow, deployment in sorted(known.items()):
            runs = client.read_flow_runs(
                deployment_filter=DeploymentFilter(id=DeploymentFilterId(any_=[deployment.id])),
                sort=FlowRunSort.EXPECTED_START_TIME_DESC,
                limit=1,
            )
            last = f"{runs[0].state_name} {runs[0].expected_start_time:%Y-%m-%d %H:%M} UTC" if runs else "never"
            rows.append({"flow": flow, "version": deployment.version, "last_run": last})
    return rows
