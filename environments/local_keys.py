"""The keys that local's Prefect server takes: the present one, and earlier ones as long as something runs with them.

Each file is for this user only, and replaced as a whole: whoever reads it, the server at every request too, finds all
of the old or all of the new.
"""

import os
import secrets as random
import tempfile
from pathlib import Path

from environments.errors import PlatformError
from environments.secrets import AGENT_TOKEN, key_file, local_prefect_key
from environments.settings import Environment


def accepted(present: Path) -> list[str]:
    """All keys that the server takes now.

    Args:
        present: the file with the present key; those before it lie beside it.
    """
    return [key for file in (present, _earlier(present)) if file.exists() for key in file.read_text("utf-8").split()]


def renew(environment: Environment) -> None:
    """Make another key the present one; the server goes on to take those before it, until `forget_earlier`.

    Nothing is done while a variable says which key is used, and it is the present one.

    Raises:
        PlatformError: the variable says another one; every task would go on with that.
    """
    file, present, given = (
        key_file(environment),
        local_prefect_key(environment),
        os.environ.get(AGENT_TOKEN, "").strip(),
    )
    if given == present:
        return
    if given:
        raise PlatformError(
            f"{AGENT_TOKEN} is set, and is not the key of environment {environment.name}",
            "its Prefect server makes its keys itself",
            f"unset {AGENT_TOKEN} and try again",
        )
    # In this order, no key is refused at any moment.
    _replace(_earlier(file), "\n".join(accepted(file)))
    _replace(file, f"local:{random.token_urlsafe(24)}")


def forget_earlier(environment: Environment) -> None:
    """Let the server take the present key only."""
    _earlier(key_file(environment)).unlink(missing_ok=True)


def _earlier(present: Path) -> Path:
    return present.with_name(f"{present.name}_earlier")


def _replace(file: Path, text: str) -> None:
    handle, draft = tempfile.mkstemp(dir=file.parent)  # mode 0600
    with os.fdopen(handle, "w", encoding="utf-8") as writing:
        writing.write(text)
    Path(draft).replace(file)
