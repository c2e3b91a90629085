import stat

import pytest

from environments import local_keys
from environments.errors import PlatformError
from environments.secrets import AGENT_TOKEN, WORKFLOW_TOKEN, key_file, local_prefect_key, prefect_key
from environments.settings import Environment


def _present(local: Environment) -> set[str]:
    return {prefect_key(local, variable) for variable in (AGENT_TOKEN, WORKFLOW_TOKEN)}


def test_new_keys_are_taken_beside_those_before_them(local: Environment) -> None:
    made: list[set[str]] = []
    for _ in range(3):
        local_keys.renew(local)
        made.append(_present(local))

    assert len(set.union(*made)) == 6
    assert all(key.startswith("local:") for key in set.union(*made))
    assert set(local_keys.accepted(key_file(local))) >= set.union(*made)


def test_earlier_keys_are_refused_once_they_are_forgotten(local: Environment) -> None:
    local_keys.renew(local)
    local_keys.forget_earlier(local)
    local_keys.forget_earlier(local)

    assert set(local_keys.accepted(key_file(local))) == _present(local)


def test_key_files_are_for_this_user_only_and_nothing_else_is_left(local: Environment) -> None:
    local_keys.renew(local)
    files = sorted(file for file in local.folder.iterdir() if file.is_file())

    assert [file.name for file in files] == ["prefect_key", "prefect_key_earlier", "prefect_key_workflow"]
    assert [stat.S_IMODE(file.stat().st_mode) for file in files] == [0o600] * 3


@pytest.mark.parametrize("variable", [AGENT_TOKEN, WORKFLOW_TOKEN])
def test_present_key_of_a_variable_is_kept(local: Environment, monkeypatch: pytest.MonkeyPatch, variable: str) -> None:
    present = local_prefect_key(local, variable)
    monkeypatch.setenv(variable, present)
    local_keys.renew(local)

    assert present in _present(local)
    assert set(local_keys.accepted(key_file(local))) == _present(local)


@pytest.mark.parametrize("variable", [AGENT_TOKEN, WORKFLOW_TOKEN])
def test_other_key_of_a_variable_stands_in_the_way(
    local: Environment, monkeypatch: pytest.MonkeyPatch, variable: str
) -> None:
    """Every task would go on with it, and be refused."""
    present = _present(local)
    monkeypatch.setenv(variable, "local:other-word")
    with pytest.raises(PlatformError, match=f"{variable} is set") as caught:
        local_keys.renew(local)

    assert set(local_keys.accepted(key_file(local))) == present
    assert "other-word" not in str(caught.value)


def test_server_without_any_key_file_takes_none(local: Environment) -> None:
    assert local_keys.accepted(key_file(local)) == []
