import stat

import pytest

from environments import local_keys
from environments.errors import PlatformError
from environments.secrets import AGENT_TOKEN, key_file, local_prefect_key, prefect_key
from environments.settings import Environment


def test_new_key_is_taken_beside_those_before_it(local: Environment) -> None:
    first = local_prefect_key(local)
    local_keys.renew(local)
    second = prefect_key(local)
    local_keys.renew(local)

    assert len({first, second, prefect_key(local)}) == 3
    assert second.startswith("local:")
    assert local_keys.accepted(key_file(local)) == [prefect_key(local), second, first]


def test_earlier_keys_are_refused_once_they_are_forgotten(local: Environment) -> None:
    local_keys.renew(local)
    local_keys.forget_earlier(local)
    local_keys.forget_earlier(local)

    assert local_keys.accepted(key_file(local)) == [prefect_key(local)]


def test_key_files_are_for_this_user_only_and_nothing_else_is_left(local: Environment) -> None:
    local_keys.renew(local)
    files = sorted(file for file in local.folder.iterdir() if file.is_file())

    assert [file.name for file in files] == ["prefect_key", "prefect_key_earlier"]
    assert [stat.S_IMODE(file.stat().st_mode) for file in files] == [0o600, 0o600]


def test_present_key_of_a_variable_is_kept(local: Environment, monkeypatch: pytest.MonkeyPatch) -> None:
    present = local_prefect_key(local)
    monkeypatch.setenv(AGENT_TOKEN, present)
    local_keys.renew(local)

    assert local_keys.accepted(key_file(local)) == [present]


def test_other_key_of_a_variable_stands_in_the_way(local: Environment, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every task would go on with it, and be refused."""
    present = local_prefect_key(local)
    monkeypatch.setenv(AGENT_TOKEN, "local:other-word")
    with pytest.raises(PlatformError, match=f"{AGENT_TOKEN} is set") as caught:
        local_keys.renew(local)

    assert local_keys.accepted(key_file(local)) == [present]
    assert "other-word" not in str(caught.value)


def test_server_without_any_key_file_takes_none(local: Environment) -> None:
    assert local_keys.accepted(key_file(local)) == []
