"""What must be right before anything is changed: tools, Docker engine, credentials, account, Prefect.

`invoke doctor` shows all of it; `deploy` and others raise one error that lists all that is wrong.
"""

from environments import checking, local_stack, outages, progress
from environments.checking import Check, Finding
from environments.errors import PlatformError
from environments.prefect_api import check_prefect
from environments.secrets import AGENT_TOKEN, WORKFLOW_TOKEN, is_set, prefect_key
from environments.settings import Environment
from infra import aws, base_image, encryption, state, terraform, terraform_process
from infra.roles import role_name


def checks(environment: Environment) -> list[Check]:
    """The checks that apply to an environment: a title each, and a function that tells what it found or raises."""
    common: list[Check] = [
        ("Terraform", lambda _: terraform_process.program()),
        ("Docker engine", lambda _: f"version {local_stack.docker_client().version()['Version']}"),
        ("Base image", _base_image),
        ("Prefect key", _key),
    ]
    if environment.is_local:
        return [*common, ("Ports", _ports)]
    return [*common, ("AWS account", _account), ("Account's set-up", _set_up), ("Prefect API", _prefect)]


def account(environment: Environment) -> None:
    """Make sure that credentials of the environment's own account are at hand; local needs none.

    Raises:
        PlatformError: there are none, or they are of another account: both are named.
    """
    if not environment.is_local:
        aws.check_account(environment)


def ready(environment: Environment) -> Environment:
    """The environment, if a task may go to work on it: credentials of its own account, or in local its servers.

    Raises:
        PlatformError: as `account`; or a server of local does not run.
    """
    account(environment)
    return local_stack.require_running(environment)


def results(environment: Environment) -> list[Finding]:
    """Run all checks side by side."""
    return checking.run(environment, checks(environment))


def show(environment: Environment, image_tag: str = "") -> int:
    """Print every check and what to do about each that failed; gives 0 when all is well, else 1.

    Args:
        environment: which one.
        image_tag: tag of the agent's image, to look for drift as well.
    """
    found = results(environment)
    if image_tag:
        found += checking.run(environment, [("AWS as in the settings", lambda _: _no_drift(environment, image_tag))])
    return checking.show(found)


def require(environment: Environment) -> None:
    """Raise one error that lists all that is wrong; with a wrong account nothing else counts, it is told alone.

    Raises:
        PlatformError: at least one check failed; nothing has been changed.
    """
    account(environment)
    problems = checking.problems(results(environment))
    if len(problems) == 1:
        raise problems[0]
    if problems:
        listed = [f"{p.what}: {p.why}".replace("\n", "; ") + (f"\n  → {p.todo}" if p.todo else "") for p in problems]
        raise PlatformError(f"{len(problems)} things are in the way; nothing was changed", "\n".join(listed))
    progress.note("settings, tools, engine, credentials and Prefect are fine")


def _no_drift(environment: Environment, image_tag: str) -> str:
    if changes := terraform.drift(environment, image_tag):
        raise PlatformError(
            f"{len(changes)} resources differ from the settings",
            "\n".join(changes),
            f"invoke plan --env {environment.name} shows how; invoke deploy puts it right",
        )
    return "no changes"


def _base_image(_: Environment) -> str:
    base = base_image.pinned()
    there = base_image.local()
    if there is None:
        raise PlatformError(
            f"the base image {base.pinned} is missing", "the agent's image is built on it", "./bootstrap.sh brings it"
        )
    return there.deviation or base.pinned


def _key(environment: Environment) -> str:
    prefect_key(environment)
    if environment.is_local:
        return "generated"
    if is_set(WORKFLOW_TOKEN):
        return "set; workflows have their own"
    if not environment.uses_prefect_cloud:
        return "set; an own Prefect server knows one, for agent and workflows"
    return f"set; workflows get the agent's, unless {WORKFLOW_TOKEN} gives them one of their own"


def _ports(environment: Environment) -> str:
    problems = local_stack.check_ports(environment)
    if problems:
        raise PlatformError(
            "; ".join(problem.what for problem in problems),
            "\n".join(problem.why for problem in problems),
            problems[0].todo,
        )
    return f"{environment.aws_port} and {environment.prefect_port} are ours or free"


def _account(environment: Environment) -> str:
    aws.check_account(environment)
    return environment.aws_account_id


def _set_up(environment: Environment) -> str:
    from botocore.exceptions import BotoCoreError, ClientError

    try:
        there = state.has_bucket(environment)
    except (BotoCoreError, ClientError) as error:
        raise PlatformError(
            f"the state bucket {state.bucket_name(environment)} can't be looked at",
            str(error),
            f"use credentials of the role {role_name(environment, 'deploy')}, or an administrator's",
        ) from error
    if not there:
        raise PlatformError(
            f"account {environment.aws_account_id} is not set up for environment {environment.name}",
            f"there is no state bucket {state.bucket_name(environment)}",
            f"an administrator runs invoke bootstrap-account --env {environment.name}, once",
        )
    encryption.check(environment)
    return f"{state.bucket_name(environment)} is there"


def _prefect(environment: Environment) -> str:
    for variable in (AGENT_TOKEN, WORKFLOW_TOKEN):
        check_prefect(environment, variable, patience=outages.PATIENCE_SECONDS)
    return environment.prefect_api_url
