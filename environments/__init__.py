"""Ground floor: what an environment is, and how we speak to the user.

The story: `settings.load` turns `environments/<env>.tfvars` into a frozen `Environment`. For environment `local`,
`local_stack` starts what AWS and Prefect Cloud are elsewhere: the emulated AWS (`emulated_aws`) and a Prefect server,
as background processes on this machine (`local_server`). `progress` runs steps side by side, `console` speaks;
`leftovers` takes away what a killed command has left; `errors` has the one error type; `secrets` and `local_keys` are
where keys are read, `github_actions` where a runner's variables are; `emulated_iam` lets the emulated AWS ask for the
permissions that AWS asks for (`emulated_permissions`); `prefect_api` is where Prefect's client comes from. Nothing here
imports the other floors.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from environments.settings import Environment


def load(name: str, role: str = "deploy") -> "Environment":
    """What `settings.load` gives; `invoke --list` lists tasks without reading what they need."""
    from environments import settings

    return settings.load(name, role)
