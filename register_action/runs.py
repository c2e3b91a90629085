"""Starts a deployment and follows its run: state changes and log lines until it ends."""

import difflib
import re
import time
from typing import Any
from uuid import UUID, uuid4

from environments import console
from environments.errors import PlatformError
from environments.prefect_api import prefect_client
from environments.printable import hanging
from environments.run_terms import AWAITING_CAPACITY, AWAITING_RESTART, NOT_RESTARTED
from environments.settings import Environment
from register_action import registered
from register_action.parameters import fitted, unknown
from register_action.registered import Registered
from register_action.workflow import Choice, check_size

POLL_SECONDS = 1.0
HINT_AFTER_SECONDS = 30.0
RESTARTED_WITHIN_SECONDS = 200.0
"""From a crash until the agent has decided about a restart: an interrupted task has 120 s to end."""
LEFT = 19
"""How far the time and the level of a line reach."""
LEVELS = {10: "DEBUG", 20: "INFO", 30: "WARNING", 40: "ERROR", 50: "CRITICAL"}


def resolve(environment: Environment, name: str) -> Registered:
    """The deployment a user means; `my_flow`, `my-flow` and `my-flow/<env>` are the same, `-` and `_` alike.

    Raises:
        PlatformError: there is none, or several.
    """
    return _resolve(environment, registered.of_environment(environment), name)


def _plain(name: str) -> str:
    """A name as people compare it: upper and lower case are alike, and so is all punctuation."""
    return re.sub(r"[\W_]+", "-", name.casefold()).strip("-") or name


def _resolve(environment: Environment, known: list[Registered], name: str) -> Registered:
    flow, _, deployment = name.rpartition("/") if "/" in name else (name, "", "")
    of_flow = [each for each in known if each.flow == flow]
    of_flow = of_flow or [each for each in known if _plain(each.flow) == _plain(flow)]
    exact = [each for each in of_flow if each.deployment.name == deployment]
    alike = [each for each in of_flow if not deployment or _plain(each.deployment.name) == _plain(deployment)]
    matches = exact or alike
    plain = [each for each in matches if each.deployment.name == environment.name]
    real = [each for each in matches if not each.preview]
    for choice in (plain, real, matches):
        if len(choice) == 1:
            return choice[0]
    if matches:
        raise PlatformError(
            f"{name!r} could be {' or '.join(sorted(each.name for each in matches))}", todo="write one of these names"
        )
    names = sorted({each.flow for each in known if not each.preview} | {each.name for each in of_flow})
    alike_names = {_plain(each): each for each in names}
    close = difflib.get_close_matches(_plain(name), alike_names, n=1)
    hint = f"did you mean {alike_names[close[0]]}? " if close else ""
    raise PlatformError(
        f"no workflow {name!r} is registered in environment {environment.name}",
        f"{hint}registered: {', '.join(names) or 'none'}",
        f"invoke register --workflow-path ... --env {environment.name}",
    )


def start(environment: Environment, chosen: Registered, parameters: dict[str, Any], choice: Choice) -> UUID:
    """Create a run of a deployment; gives its id.

    Args:
        environment: where.
        chosen: the deployment.
        parameters: of the flow.
        choice: cpu, memory and execution environment of this run alone, where they are given.

    Raises:
        PlatformError: the flow has no parameter of such a name, the values don't fit, or Fargate has no such size.
    """
    check_size(environment, {**(chosen.deployment.job_variables or {}), **choice.job_variables}, "this run")
    schema = chosen.deployment.parameter_openapi_schema or {}
    if problems := unknown(schema, parameters):
        raise PlatformError(
            f"the parameters don't fit {chosen.name}", "\n".join(problems), "correct --param or --params-file"
        )
    with prefect_client(environment) as client:
        run = client.create_flow_run_from_deployment(
            chosen.deployment.id,
            parameters=fitted(schema, parameters, chosen.deployment.parameters or {}),
            job_variables=choice.job_variables or None,
            idempotency_key=str(uuid4()),  # a request that is sent again makes no second run
        )
    console.say(f"run {run.name} of {chosen.name} created")
    return run.id


def follow(environment: Environment, run_id: UUID) -> bool:
    """Print a run's state changes and log lines until it ends; tells whether it is COMPLETED.

    A run that crashed and may be started again has not ended before the agent has decided about that.

    Raises:
        PlatformError: Prefect can't be asked any more, and the run goes on; or the run was deleted.
    """
    from prefect.exceptions import ObjectNotFound

    try:
        return _follow(environment, run_id)
    except ObjectNotFound as error:
        raise PlatformError(
            f"run {run_id} is not at Prefect any more", "somebody deleted it or its deployment"
        ) from error
    except PlatformError as error:
        raise PlatformError(
            error.what,
            f"{error.why}\nnobody follows run {run_id} any more; the run itself goes on",
            f"invoke workflows --env {environment.name} tells how it ended; invoke run would start another one",
        ) from error


def _follow(environment: Environment, run_id: UUID) -> bool:
    shown: str | None = None
    printed, decided, restarted_until = 0, False, 0.0
    hint_at = time.monotonic() + HINT_AFTER_SECONDS
    with prefect_client(environment) as client:
        while True:
            run = client.read_flow_run(run_id)
            state, lines = run.state, _print_logs(client, run_id, printed)
            printed += len(lines)
            decided |= any(line.message.startswith(NOT_RESTARTED) for line in lines)
            if state and state.name != shown:
                shown, restarted_until = state.name, 0.0
                _print_state(state)
                if not decided and _may_start_again(client, run):
                    console.say("it may be started again: waiting for what the agent decides", "yellow")
                    restarted_until = time.monotonic() + RESTARTED_WITHIN_SECONDS
            if state and state.is_final() and (decided or time.monotonic() >= restarted_until):
                # Prefect sends log lines in batches, the last ones after the end.
                time.sleep(2 * POLL_SECONDS)
                while lines := _print_logs(client, run_id, printed):
                    printed += len(lines)
                    time.sleep(POLL_SECONDS)
                return bool(state.is_completed())
            untaken = state and state.is_scheduled() and state.name != AWAITING_CAPACITY
            if untaken and time.monotonic() > hint_at:
                console.say(f"no agent has taken it yet; invoke status --env {environment.name} tells why", "yellow")
                hint_at = float("inf")
            time.sleep(POLL_SECONDS)


def _may_start_again(client: Any, run: Any) -> bool:
    """Whether a run has crashed that was told to survive that, and has not done so as often as it may."""
    if not run.state.is_crashed() or run.deployment_id is None:
        return False
    variables = {**(client.read_deployment(run.deployment_id).job_variables or {}), **(run.job_variables or {})}
    made: int = sum(state.name == AWAITING_RESTART for state in client.read_flow_run_states(run.id))
    return made < int(variables.get("restarts") or 0)


def _print_state(state: Any) -> None:
    why = f": {state.message}" if state.message and not state.is_completed() else ""
    console.say(hanging(f"{state.timestamp:%H:%M:%S}  state    {state.name}{why}", LEFT), "bold")


def _print_logs(client: Any, run_id: UUID, skip: int) -> list[Any]:
    """Print the log lines of a run after the first `skip`, and give them."""
    from prefect.client.schemas.filters import LogFilter, LogFilterFlowRunId
    from prefect.client.schemas.sorting import LogSort

    of_run = LogFilter(flow_run_id=LogFilterFlowRunId(any_=[run_id]))
    printed: list[Any] = []
    while lines := client.read_logs(of_run, limit=200, offset=skip + len(printed), sort=LogSort.TIMESTAMP_ASC):
        for line in lines:
            level = LEVELS.get(line.level, str(line.level))
            text = hanging(f"{line.timestamp:%H:%M:%S}  {level:<8} {line.message}", LEFT)
            console.say(text, "red" if line.level >= 40 else "")
        printed += lines
    return printed


def log_prefix(environment: Environment, name: str) -> str:
    """Return the beginning of the names of a deployment's log streams.

    Raises:
        PlatformError: there is no such deployment, or its log streams are not its own.
    """
    known = registered.of_environment(environment)
    chosen = _resolve(environment, known, name)
    family = _family(chosen)
    if sharing := [each.name for each in known if each is not chosen and _family(each) == family]:
        raise PlatformError(
            f"{chosen.name} has no log streams of its own",
            f"it shares them with {', '.join(sharing)}; invoke register gives each deployment its own",
            f"register it again; invoke run {chosen.name} shows the log of a run",
        )
    # A slash ends the prefix in a stream's name, so that of sales does not match that of sales_daily.
    return f"{family}/"


def _family(each: Registered) -> str:
    """The task family of a deployment's runs; one that names none gets the project's default."""
    return str((each.deployment.job_variables or {}).get("family") or "any")
