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

AGENT_TOKEN = "PREFECT_AGENT_TOKEN"  # noqa: S105 - the name of a variable
SECRET_NAME = re.compile("SECRET|TOKEN|PASSW|CREDENTIAL|KEY|AUTH", re.IGNORECASE)
REGISTER_TOKEN = "PREFECT_WORKFLOW_REGISTER_TOKEN"  # noqa: S105 - the name of a variable


def prefect_key(environment: Environment, variable: str = AGENT_TOKEN) -> str:
    """The key for the environment's Prefect API: an API key of Prefect Cloud, or the auth string of an own server.

    Args:
        environment: where the key is for.
        variable: the environment variable that holds it; it wins over local's generated key.

    Raises:
        PlatformError: there is none.
    """
    key = os.environ.get(variable, "").strip()
    if key:
        return key
    if environment.is_local:
        return _generated(key_file(environment))
    raise PlatformError(
        f"no Prefect key for environment {environment.name}",
        f"the environment variable {variable} is not set",
        f"create an API key at Prefect and set {variable} to it",
    )


def local_prefect_key(environment: Environment) -> str:
    """The key that local's own Prefect server asks for; made when it is missing."""
    return _generated(key_file(environment))


def key_file(environment: Environment) -> Path:
    """Where local keeps the generated key."""
    return environment.folder / "prefect_key"


def _generated(file: Path) -> str:
    if not file.exists():
        file.parent.mkdir(parents=True, exist_ok=True)
        # Linking the finished file into place: whoever comes at the same time ends up with the same key.
        handle, draft = tempfile.mkstemp(dir=file.parent)
        with os.fdopen(handle, "w", encoding="utf-8") as text:
            text.write(f"local:{random.token_urlsafe(24)}")
        with contextlib.suppress(FileExistsError):
            os.link(draft, file)
        os.unlink(draft)
    return file.read_text(encoding="utf-8").strip()


def aws_environment(environment: Environment) -> dict[str, str]:
    """Variables by which AWS tools find credentials and endpoint; empty on AWS, where their own chain does.

    The emulated AWS takes any key; these are no secrets.
    """
    if not environment.is_local:
        return {}
    return {
        "AWS_ACCESS_KEY_ID": "local",
        "AWS_SECRET_ACCESS_KEY": "local",
        "AWS_SESSION_TOKEN": "",
        "AWS_REGION": environment.aws_region,
        "AWS_ENDPOINT_URL": environment.aws_endpoint_url or "",
        "AWS_EC2_METADATA_DISABLED": "true",
    }


def public_variables() -> dict[str, str]:
    """This process's environment without whatever is called like a secret: for texts that others may read."""
    return {name: value for name, value in os.environ.items() if not SECRET_NAME.search(name)}


def process_environment(additions: dict[str, str]) -> dict[str, str]:
    """This process's environment without the Prefect keys, plus what is given: for programs we start."""
    inherited = {name: value for name, value in os.environ.items() if name not in (AGENT_TOKEN, REGISTER_TOKEN)}
    return {**inherited, **additions}
