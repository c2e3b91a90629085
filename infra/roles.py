"""The roles in which people and pipelines work on an environment; `infra.account` makes them, once per account."""

from environments.settings import Environment

ROLES = {
    "deploy": "brings the environment up, changes it and takes it down",
    "register": "pushes the images of workflows",
    "plan": "reads, for plans and the search for drift",
}


def role_name(environment: Environment, role: str) -> str:
    """The name of one of the environment's `ROLES` at IAM."""
    if role not in ROLES:
        raise ValueError(f"no role {role!r}, there are: {', '.join(ROLES)}")
    return f"{environment.prefix}_{role}"


def role_arn(environment: Environment, role: str) -> str:
    """The ARN of one of the environment's `ROLES`, whether it is there yet or not."""
    return f"arn:aws:iam::{environment.aws_account_id}:role/{role_name(environment, role)}"
