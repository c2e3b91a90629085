"""Capacity that the emulated ECS does not have, in the emulator's real module."""

import json
import threading
from pathlib import Path
from typing import Any

import pytest

from environments import emulated_capacity
from environments.emulated_answers import answer_as_aws
from environments.emulated_capacity import FILE, read, refuse_capacity, replace, take
from unit_tests.environments.real_ecs import CLUSTER, call, definition, real_ecs, run_request

NO_CAPACITY = "Capacity is unavailable at this time. Please try again later or in a different availability zone"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / FILE


@pytest.fixture
def ecs(file: Path) -> Any:
    module = real_ecs()
    answer_as_aws(module)
    refuse_capacity(module, file)
    call(module, "RegisterTaskDefinition", **definition())
    return module


def _run(ecs: Any, provider: str = "FARGATE") -> tuple[int, dict[str, Any]]:
    return call(ecs, "RunTask", **run_request(capacityProviderStrategy=[{"capacityProvider": provider, "weight": 1}]))


def test_without_a_file_everything_has_capacity(ecs: Any, file: Path) -> None:
    assert len(_run(ecs)[1]["tasks"]) == 1
    assert not file.exists()


def test_an_entry_answers_its_capacity_provider_and_is_gone_then(ecs: Any, file: Path) -> None:
    replace(file, [{"capacityProvider": "FARGATE_SPOT", "reason": "RESOURCE:CPU", "detail": "none", "arn": "a"}])
    on_demand, refused, again = _run(ecs), _run(ecs, "FARGATE_SPOT"), _run(ecs, "FARGATE_SPOT")

    assert refused == (200, {"tasks": [], "failures": [{"arn": "a", "reason": "RESOURCE:CPU", "detail": "none"}]})
    assert [len(answer["tasks"]) for _, answer in (on_demand, again)] == [1, 1]
    assert read(file) == []


def test_an_entry_answers_as_often_as_it_says_in_the_order_of_the_file(ecs: Any, file: Path) -> None:
    replace(
        file,
        [
            {"exception": "ThrottlingException", "message": "Rate exceeded", "times": 2},
            {"reason": NO_CAPACITY},
        ],
    )
    first = _run(ecs)
    left = read(file)
    answers = [first, _run(ecs), _run(ecs), _run(ecs)]

    assert [status for status, _ in answers] == [400, 400, 200, 200]
    assert (first[1]["__type"], first[1]["message"]) == ("ThrottlingException", "Rate exceeded")
    assert left[0]["times"] == 1
    assert answers[2][1] == {"tasks": [], "failures": [{"reason": NO_CAPACITY}]}
    assert len(answers[3][1]["tasks"]) == 1


def test_an_entry_of_another_action_answers_that_one(ecs: Any, file: Path) -> None:
    words = "Too many concurrent attempts to create a new revision of the specified family."
    replace(file, [{"action": "RegisterTaskDefinition", "exception": "ClientException", "message": words}])

    assert len(_run(ecs)[1]["tasks"]) == 1
    status, answer = call(ecs, "RegisterTaskDefinition", **definition())
    assert (status, answer["__type"], answer["message"]) == (400, "ClientException", words)
    assert call(ecs, "RegisterTaskDefinition", **definition())[0] == 200


def test_a_task_that_fails_to_start_is_created_and_stops_with_the_reason(
    ecs: Any, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its worker is the emulator's own, with an engine that is not to be asked."""
    monkeypatch.setattr(ecs, "_get_docker", object)
    replace(file, [{"capacityProvider": "FARGATE", "startFailure": NO_CAPACITY}])
    status, answer = _run(ecs)
    for thread in threading.enumerate():
        if thread.name.startswith("ministack-ecs-task"):
            thread.join(5)
    arn = answer["tasks"][0]["taskArn"]
    (task,) = call(ecs, "DescribeTasks", cluster=CLUSTER, tasks=[arn])[1]["tasks"]

    assert (status, answer["failures"]) == (200, [])
    assert (task["lastStatus"], task["desiredStatus"]) == ("STOPPED", "STOPPED")
    assert (task["stopCode"], task["stoppedReason"]) == ("TaskFailedToStart", NO_CAPACITY)
    assert "startedAt" not in task
    assert "exitCode" not in task["containers"][0]
    assert NO_CAPACITY not in json.dumps(task["overrides"])
    assert read(file) == []


@pytest.mark.parametrize("content", ["", "no json", "{}", '["text"]'])
def test_a_file_that_holds_something_else_refuses_nothing(ecs: Any, file: Path, content: str) -> None:
    file.write_text(content)
    assert len(_run(ecs)[1]["tasks"]) == 1


def test_requests_side_by_side_use_up_as_many_answers_as_there_are(file: Path) -> None:
    replace(file, [{"reason": "AGENT", "times": 30}])
    taken: list[Any] = []

    def take_some() -> None:
        for _ in range(10):
            taken.append(take(file, "RunTask", "FARGATE"))

    threads = [threading.Thread(target=take_some) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert sum(entry is not None for entry in taken) == 30
    assert read(file) == []
    assert list(file.parent.glob(f"*{emulated_capacity.FILE}")) == [file]
