"""Environments beside `local` on the same emulated AWS, one for each network: what commands do with Terraform there.

    python -m functional_tests.networks up NAME...      plan, apply and plan again, as JSON
    python -m functional_tests.networks down NAME...    destroy
    python -m functional_tests.networks remove NAME...  remove what bootstrap-account made

It runs in a platform's checkout. `invoke` takes no second emulated environment, so these are the functions that it
calls, with the roles that it takes: plan reads, deploy changes, an administrator sets the account up.
"""

import dataclasses
import json
import sys
from typing import Any

from agent import teardown
from environments import tfvars
from environments.settings import SETTINGS_FOLDER, Environment
from infra import account, adoption, terraform

IMAGE_TAG = "0" * 16
"""No task starts, so there need not be such an image."""


def main() -> None:
    """Do what the command line says for each of the environments that it names."""
    verb, *names = sys.argv[1:]
    for name in names:
        environment = read(name)
        if verb == "up":
            print(json.dumps(up(environment)))
        elif verb == "down":
            teardown.take_down(environment)
        else:
            account.remove(environment)


def read(name: str) -> Environment:
    """The environment of a tfvars file; unlike `environments.load` it lets any have an emulated AWS."""
    values, problems = tfvars.read(SETTINGS_FOLDER / f"{name}.tfvars", name)
    if problems:
        raise ValueError(problems)
    return Environment(
        name=name, **{key: tuple(value) if isinstance(value, list) else value for key, value in values.items()}
    )


def up(environment: Environment) -> dict[str, Any]:
    """Apply the environment; gives what the plans before and after say, and the outputs."""
    account.bootstrap(environment)
    planning = dataclasses.replace(environment, role="plan")
    before = terraform.drift(planning, IMAGE_TAG)
    outputs = adoption.apply(environment, IMAGE_TAG)
    return {"before": before, "outputs": dataclasses.asdict(outputs), "after": terraform.drift(planning, IMAGE_TAG)}


if __name__ == "__main__":
    main()
