"""AWS clients for an environment: the one place where they are made."""

import dataclasses
import functools
import threading
from typing import Any

from environments.errors import PlatformError
from environments.secrets import local_root_keys
from environments.settings import Environment
from infra.roles import role_arn

SESSION_SECONDS = 12 * 60 * 60
ATTEMPTS = 8
"""Of each request, with growing pauses: about a minute in which AWS may throttle, fail or be out of reach."""
_making = threading.RLock()
"""Sessions of botocore are not safe to share between threads while they make clients; clients are."""


@functools.cache
def client(environment: Environment, service: str) -> Any:
    """A client of botocore for the environment's region; in local for the emulated AWS.

    Args:
        environment: whose account and region; in local its role is who asks.
        service: botocore's name of the service, such as `ecs`.
    """
    with _making:
        return _session(environment).create_client(
            service,
            region_name=environment.aws_region,
            endpoint_url=environment.aws_endpoint_url,
            config=_config(environment),
        )


def _config(environment: Environment) -> Any:
    from botocore.config import Config

    return Config(
        retries={"mode": "standard", "total_max_attempts": ATTEMPTS},
        connect_timeout=5,
        read_timeout=30,
        s3={"addressing_style": "path" if environment.is_local else "auto"},
    )


@functools.cache
def _session(environment: Environment) -> Any:
    """One session for all clients: each one reads the descriptions of AWS anew."""
    import botocore.session  # all of boto3 that is needed here, and imported in less time

    session = botocore.session.Session()
    if keys := aws_variables(environment):
        session.set_credentials(keys["AWS_ACCESS_KEY_ID"], keys["AWS_SECRET_ACCESS_KEY"], keys["AWS_SESSION_TOKEN"])
    return session


def as_root(environment: Environment) -> Environment:
    """The environment as the root user of the emulated account has it; on AWS nothing changes."""
    return dataclasses.replace(environment, role="root") if environment.is_local else environment


@functools.cache
def aws_variables(environment: Environment) -> dict[str, str]:
    """Variables by which AWS tools find credentials and endpoint; empty on AWS, where their own chain does.

    In local these are a session of the environment's role, and its policies are enforced.

    Raises:
        PlatformError: the role is not there.
    """
    if not environment.is_local:
        return {}
    surroundings = {
        "AWS_REGION": environment.aws_region,
        "AWS_ENDPOINT_URL": environment.aws_endpoint_url or "",
        "AWS_EC2_METADATA_DISABLED": "true",
    }
    if environment.role == "root":
        return {**surroundings, **local_root_keys(environment)}
    from botocore.exceptions import ClientError

    try:
        session = client(as_root(environment), "sts").assume_role(
            RoleArn=role_arn(environment, environment.role),
            RoleSessionName=environment.role,
            DurationSeconds=SESSION_SECONDS,
        )["Credentials"]
    except ClientError as error:
        raise PlatformError(
            f"environment {environment.name} is not deployed",
            f"its {environment.role} role is missing: {error}",
            f"invoke deploy --env {environment.name}",
        ) from error
    return {
        **surroundings,
        "AWS_ACCESS_KEY_ID": session["AccessKeyId"],
        "AWS_SECRET_ACCESS_KEY": session["SecretAccessKey"],
        "AWS_SESSION_TOKEN": session["SessionToken"],
    }


def forget_sessions() -> None:
    """Have clients and sessions made anew: those of an emulated AWS end with its process."""
    for remembered in (client, _session, aws_variables):
        remembered.cache_clear()


def check_account(environment: Environment) -> None:
    """Make sure that the credentials are good and belong to the environment's account.

    Raises:
        PlatformError: there are none, they are refused, AWS is out of reach, or it is another account.
    """
    from botocore.exceptions import BotoCoreError, ClientError

    try:
        account = client(environment, "sts").get_caller_identity()["Account"]
    except (BotoCoreError, ClientError) as error:
        raise PlatformError(
            f"no access to AWS for environment {environment.name}",
            str(error),
            "set AWS credentials for its account (aws sso login, AWS_PROFILE, ...)",
        ) from error
    if account != environment.aws_account_id:
        raise PlatformError(
            f"these AWS credentials are for account {account}",
            f"environment {environment.name} lives in account {environment.aws_account_id}",
            f"use credentials of that account, or correct aws_account_id in environments/{environment.name}.tfvars",
        )
