"""The one place where environment variables and key files are read.

Secrets come from the environment of the process; in local from a file that only this user can read, made once.
"""

import contextlib
import os
import re
import secrets as random
import tempfile
from pathlib import Path

from environments.errors import PlatformError
from environments.settings import Environment

# Names of variables, not what they hold.
TOKENS = ("PREFECT_AGENT_TOKEN", "PREFECT_WORKFLOW_REGISTER_TOKEN", "PREFECT_WORKFLOW_TOKEN")
AGENT_TOKEN, REGISTER_TOKEN, WORKFLOW_TOKEN = TOKENS
SECRET_NAME = re.compile("SECRET|TOKEN|PASSW|CREDENTIAL|KEY|AUTH", re.IGNORECASE)


def prefect_key(environment: Environment, variable: str = AGENT_TOKEN) -> str:
    """The key for the environment's Prefect API: an API key of Prefect Cloud, or the auth string of an own server.

    Args:
        environment: where the key is for.
        variable: the environment variable that holds it; it wins over local's generated key. The workflows' may be
            missing: without it they have the agent's.

    Raises:
        PlatformError: there is none.
    """
    key = os.environ.get(variable, "").strip()
    if key:
        return key
    if environment.is_local:
        return local_prefect_key(environment, variable)
    if variable == WORKFLOW_TOKEN:
        return prefect_key(environment)
    raise PlatformError(
        f"no Prefect key for environment {environment.name}",
        f"the environment variable {variable} is not set",
        f"create an API key at Prefect and set {variable} to it",
    )


def is_set(variable: str) -> bool:
    """Whether an environment variable holds a key."""
    return bool(os.environ.get(variable, "").strip())


def local_prefect_key(environment: Environment, variable: str = AGENT_TOKEN) -> str:
    """The key that local's own Prefect server asks for; made when it is missing."""
    return _generated(key_file(environment, variable), "local:")


def key_file(environment: Environment, variable: str = AGENT_TOKEN) -> Path:
    """Where local keeps the generated key: the workflows', or the one of everybody else."""
    return environment.folder / ("prefect_key_workflow" if variable == WORKFLOW_TOKEN else "prefect_key")


def _generated(file: Path, prefix: str = "") -> str:
    if not file.exists():
        file.parent.mkdir(parents=True, exist_ok=True)
        # Linking the finished file into place: whoever comes at the same time ends up with the same key.
        handle, draft = tempfile.mkstemp(dir=file.parent)
        with os.fdopen(handle, "w", encoding="utf-8") as text:
            text.write(prefix + random.token_urlsafe(24))
        with contextlib.suppress(FileExistsError):
            os.link(draft, file)
        os.unlink(draft)
    return file.read_text(encoding="utf-8").strip()


def local_root_keys(environment: Environment) -> dict[str, str]:
    """Access keys of the emulated account's root user, as variables of a process; made when they are missing."""
    return {
        "AWS_ACCESS_KEY_ID": "local",
        "AWS_SECRET_ACCESS_KEY": _generated(environment.folder / "aws_secret_key"),
        "AWS_SESSION_TOKEN": "",  # one of the surroundings does not belong to them
    }


def public_variables() -> dict[str, str]:
    """This process's environment without whatever is called like a secret: for texts that others may read."""
    return {name: value for name, value in os.environ.items() if not SECRET_NAME.search(name)}


def process_environment(additions: dict[str, str]) -> dict[str, str]:
    """This process's environment without the Prefect keys, plus what is given: for programs we start."""
    inherited = {name: value for name, value in os.environ.items() if name not in TOKENS}
    return {**inherited, **additions}
