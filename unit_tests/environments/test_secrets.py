import os
import shutil
import stat
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from environments.errors import PlatformError
from environments.secrets import (
    AGENT_TOKEN,
    REGISTER_TOKEN,
    TOKENS,
    WORKFLOW_TOKEN,
    key_file,
    local_prefect_key,
    local_root_keys,
    prefect_key,
    process_environment,
    public_variables,
)
from environments.settings import Environment


@pytest.mark.parametrize("variable", TOKENS)
def test_environment_variable_wins_over_the_generated_key(
    local: Environment, monkeypatch: pytest.MonkeyPatch, variable: str
) -> None:
    generated = prefect_key(local, variable)
    monkeypatch.setenv(variable, "  from-variable \n")

    assert prefect_key(local, variable) == "from-variable"
    assert local_prefect_key(local, variable) == generated


def test_local_makes_a_key_once_for_this_user_only(local: Environment) -> None:
    first = prefect_key(local)

    assert first.startswith("local:")
    assert len(first) > 30
    assert prefect_key(local) == prefect_key(local, REGISTER_TOKEN) == first
    assert stat.S_IMODE(key_file(local).stat().st_mode) == 0o600


def test_workflows_of_local_have_a_key_of_their_own(local: Environment) -> None:
    key = prefect_key(local, WORKFLOW_TOKEN)

    assert key.startswith("local:")
    assert key != prefect_key(local)
    assert stat.S_IMODE(key_file(local, WORKFLOW_TOKEN).stat().st_mode) == 0o600


def test_workflows_without_a_key_of_their_own_have_the_agents(
    environment: Environment, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(AGENT_TOKEN, "of-the-agent")
    assert prefect_key(environment, WORKFLOW_TOKEN) == "of-the-agent"
    monkeypatch.setenv(WORKFLOW_TOKEN, "of-workflows")
    assert (prefect_key(environment, WORKFLOW_TOKEN), prefect_key(environment)) == ("of-workflows", "of-the-agent")


def test_threads_that_come_at_once_get_the_same_key(local: Environment) -> None:
    barrier = threading.Barrier(8)

    def read(_: int) -> str:
        barrier.wait(5)
        return prefect_key(local)

    with ThreadPoolExecutor(8) as pool:
        keys = set(pool.map(read, range(8)))

    assert len(keys) == 1
    assert [file.name for file in local.folder.iterdir()] == [key_file(local).name]


@pytest.mark.parametrize("variable", [AGENT_TOKEN, REGISTER_TOKEN])
@pytest.mark.parametrize("value", [None, "", "  "])
def test_missing_key_names_the_variable(
    environment: Environment, monkeypatch: pytest.MonkeyPatch, variable: str, value: str | None
) -> None:
    if value is not None:
        monkeypatch.setenv(variable, value)
    with pytest.raises(PlatformError) as caught:
        prefect_key(environment, variable)

    assert "dev" in caught.value.what
    assert variable in caught.value.why
    assert variable in caught.value.todo


def test_programs_we_start_do_not_get_the_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(AGENT_TOKEN, "secret-1")
    monkeypatch.setenv(REGISTER_TOKEN, "secret-2")
    monkeypatch.setenv(WORKFLOW_TOKEN, "secret-3")
    monkeypatch.setenv("KEPT", "yes")
    made = process_environment({"ADDED": "too"})

    assert not {"secret-1", "secret-2", "secret-3"} & set(made.values())
    assert made["KEPT"] == "yes"
    assert made["ADDED"] == "too"
    assert made["PATH"] == os.environ["PATH"]


def test_root_keys_of_local_are_made_once_for_this_user_only(local: Environment) -> None:
    first = local_root_keys(local)
    [file] = local.folder.iterdir()

    assert first.keys() == {"AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"}
    assert len(first["AWS_SECRET_ACCESS_KEY"]) >= 32
    assert local_root_keys(local) == first
    assert stat.S_IMODE(file.stat().st_mode) == 0o600


def test_root_keys_of_two_machines_differ(local: Environment) -> None:
    first = local_root_keys(local)
    shutil.rmtree(local.folder)

    assert local_root_keys(local)["AWS_SECRET_ACCESS_KEY"] != first["AWS_SECRET_ACCESS_KEY"]


def test_real_credentials_give_way_to_those_of_local(local: Environment, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "real")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "real")
    monkeypatch.setenv("AWS_SESSION_TOKEN", "real")

    assert "real" not in process_environment(local_root_keys(local)).values()


@pytest.mark.parametrize(
    "name",
    ["AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "GITHUB_TOKEN", "PREFECT_AGENT_TOKEN", "db_password", "X_AUTH"],
)
def test_what_is_called_like_a_secret_is_not_public(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setenv(name, "hidden")
    monkeypatch.setenv("STAGE_BUCKET", "shown")
    variables = public_variables()

    assert variables["STAGE_BUCKET"] == "shown"
    assert name not in variables
    assert "hidden" not in variables.values()
