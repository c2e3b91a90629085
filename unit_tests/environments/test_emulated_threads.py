import copy
from typing import Any

import pytest
from ministack.services import ecs, sts

from environments.emulated_threads import Shared, copied, walk_safely


class Busy:
    """A value while which is looked at another thread adds to its dictionary."""

    def __init__(self, home: dict[Any, Any]) -> None:
        self.home = home

    def __deepcopy__(self, memo: dict[int, Any]) -> str:
        self.home[len(self.home)] = "new"
        return "copy"


class Late(float):
    """The time at which a session expires, while which is looked at another thread adds one; it is far away."""

    sessions: dict[Any, Any]

    def __lt__(self, _: float) -> bool:
        self.sessions[f"ASI{len(self.sessions)}"] = {}
        return False


@pytest.fixture
def walked_safely(monkeypatch: pytest.MonkeyPatch) -> None:
    """The emulator with its dictionaries replaced, for this test only."""
    monkeypatch.setattr(sts, "_sessions", dict(sts._sessions))
    monkeypatch.setattr(ecs._tasks, "_data", dict(ecs._tasks._data))
    monkeypatch.setitem(vars(copy)["_deepcopy_dispatch"], dict, copied)
    walk_safely(ecs, sts)


@pytest.mark.usefixtures("walked_safely")
def test_what_is_added_during_a_copy_does_not_stop_it() -> None:
    shared: dict[Any, Any] = {}
    shared |= {"a": Busy(shared), "b": [1]}
    made = copy.deepcopy({"inner": shared})["inner"]

    assert made == {"a": "copy", "b": [1]}
    assert made["b"] is not shared["b"]
    assert "new" in shared.values()


@pytest.mark.usefixtures("walked_safely")
def test_copy_of_what_contains_itself_ends() -> None:
    circle: dict[str, Any] = {}
    circle["self"] = circle
    made = copy.deepcopy(circle)

    assert made["self"] is made


def test_entries_added_during_a_walk_do_not_stop_it() -> None:
    shared = Shared({"a": 1, "b": 2})
    for key, _ in shared.items():
        shared[key * 2] = 0

    assert list(shared) == ["a", "b", "aa", "bb"]


@pytest.mark.usefixtures("walked_safely")
def test_tasks_are_saved_while_others_start_and_sessions_made_while_others_are() -> None:
    tasks = ecs._tasks._data
    tasks["account", "region", "one"] = {"lastStatus": "RUNNING", "busy": Busy(tasks)}
    saved = ecs.get_state()["tasks"]._data
    expires = Late()
    expires.sessions = sts._sessions
    sts._sessions["ASIA"] = {"Expiration": expires}
    sts.register_session("ASIB", {})

    assert saved["account", "region", "one"]["busy"] == "copy"
    assert {"ASIA", "ASIB"} <= sts._sessions.keys()
