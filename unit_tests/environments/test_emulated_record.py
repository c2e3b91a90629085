from pathlib import Path

import pytest

from environments.emulated_record import Decision, Recorder, read

ROLE = "arn:aws:iam::123456789012:role/dev_agent"
SESSION = "arn:aws:sts::123456789012:assumed-role/dev_agent/task"


@pytest.mark.parametrize("principal", [ROLE, SESSION])
def test_roles_are_known_by_their_names(tmp_path: Path, principal: str) -> None:
    file = tmp_path / "record"
    Recorder(file).record(principal, "ecs:ListTasks", "*", {"ecs:cluster": "c", "aws:TagKeys": None}, True)

    assert read(file) == [Decision("dev_agent", "ecs:ListTasks", "*", {"ecs:cluster": "c"}, True)]


@pytest.mark.parametrize("principal", ["", "arn:aws:iam::123456789012:root", "arn:aws:iam::123456789012:user/ann"])
def test_nobody_else_is_recorded(tmp_path: Path, principal: str) -> None:
    Recorder(tmp_path / "record").record(principal, "ecs:ListTasks", "*", {}, True)

    assert read(tmp_path / "record") == []


def test_several_recorders_append_to_one_file_and_each_decision_is_read_once(tmp_path: Path) -> None:
    file = tmp_path / "record"
    for recorder in (Recorder(file), Recorder(file)):
        for allowed in (True, False, True):
            recorder.record(ROLE, "ecs:ListTasks", "*", {"ecs:cluster": ["a", "b"]}, allowed)

    assert len(file.read_text().splitlines()) == 4
    assert [decision.allowed for decision in read(file)] == [True, False]


def test_nothing_is_recorded_without_a_file() -> None:
    Recorder().record(ROLE, "ecs:ListTasks", "*", {}, True)
