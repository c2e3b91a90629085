"""A `prefect.yaml` for the tests: written, read, and what is wrong with it."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from environments.errors import PlatformError
from register_action import prefect_yaml
from register_action.prefect_yaml import Declared, Project

VARIABLES = {"BRANCH": "main", "CPU": "2048", "CRON": "0 6 * * *"}


def read_yaml(folder: Path, text: str | bytes) -> Project:
    (folder / "prefect.yaml").write_bytes(text.encode() if isinstance(text, str) else text)
    found = prefect_yaml.read(folder, VARIABLES)
    assert found is not None
    return found


def yaml_of(**entry: Any) -> str:
    return str(yaml.safe_dump({"deployments": [{"name": "daily", "entrypoint": "flow.py:sales", **entry}]}))


def declared_by(folder: Path, **entry: Any) -> Declared:
    [declared] = read_yaml(folder, yaml_of(**entry)).deployments
    return declared


def error_of(folder: Path, text: str | bytes) -> PlatformError:
    with pytest.raises(PlatformError) as caught:
        read_yaml(folder, text)
    assert caught.value.file == "prefect.yaml"
    assert caught.value.todo
    return caught.value


def problems_of(folder: Path, text: str | bytes) -> list[str]:
    return error_of(folder, text).why.splitlines()
