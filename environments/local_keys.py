"""The keys that local's Prefect server takes: the present ones, and earlier ones as long as something runs with them.

The agent has one, as this machine's user has, and the workflows another.

Each file is for this user only, and replaced as a whole: whoever reads it, the server at every request too, finds all
of the old or all of the new.
"""

import os
import secrets as random
import tempfile
from pathlib import Path

from environments.errors import PlatformError
from environments.secrets import AGENT_TOKEN, WORKFLOW_TOKEN, is_set, key_file, local_prefect_key, prefect_key
from environments.settings import Environment

PRESENT = (AGENT_TOKEN, WORKFLOW_TOKEN)


def make(environment: Environment) -> None:
    """Make the keys that are missing."""
    for variable in PRESENT:
        local_prefect_key(environment, variable)


def accepted(present: Path) -> list[str]:
    """All keys that the server takes now.

    Args:
        present: the file with the agent's present key; the others lie beside it and begin with its name.
    """
    files = sorted(present.parent.glob(f"{present.name}*"))
    return [key for file in files for key in file.read_text("utf-8").split()]


def renew(environment: Environment) -> None:
    """Make other keys the present ones; the server goes on to take those before them, until `forget_earlier`.

    Nothing is done while a variable says which key is used, and it is the present one.

    Raises:
        PlatformError: the variable says another one; every task would go on with that.
    """
    make(environment)
    given = [variable for variable in PRESENT if is_set(variable)]
    for variable in given:
        if prefect_key(environment, variable) != local_prefect_key(environment, variable):
            raise PlatformError(
                f"{variable} is set, and is not the key of environment {environment.name}",
                "its Prefect server makes its keys itself",
                f"unset {variable} and try again",
            )
    if given:
        return
    # In this order, no key is refused at any moment.
    file = key_file(environment)
    _replace(_earlier(file), "\n".join(accepted(file)))
    for variable in PRESENT:
        _replace(key_file(environment, variable), f"local:{random.token_urlsafe(24)}")


def forget_earlier(environment: Environment) -> None:
    """Let the server take the present keys only."""
    _earlier(key_file(environment)).unlink(missing_ok=True)


def _earlier(present: Path) -> Path:
    return present.with_name(f"{present.name}_earlier")


def _replace(file: Path, text: str) -> None:
    handle, draft = tempfile.mkstemp(dir=file.parent)  # mode 0600
    with os.fdopen(handle, "w", encoding="utf-8") as writing:
        writing.write(text)
    Path(draft).replace(file)
