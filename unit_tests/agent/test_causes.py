from typing import Any

import pytest

from agent import causes


def _task(code: str, reason: str, exit_code: int | None = None, said: str = "") -> dict[str, Any]:
    container = {"name": "workflow", "reason": said, **({} if exit_code is None else {"exitCode": exit_code})}
    return {"stopCode": code, "stoppedReason": reason, "memory": "512", "containers": [container]}


EXITED = ("EssentialContainerExited", "Essential container in task exited")
PULL = "CannotPullContainerError: pull image manifest has been retried 5 time(s): not found"


@pytest.mark.parametrize(
    ("task", "words", "again"),
    [
        (
            _task(*EXITED, 137, "OutOfMemoryError: Container killed due to memory usage"),
            "more memory than the 512",
            True,
        ),
        (_task(*EXITED, 137), "it was killed", True),
        (_task(*EXITED, 143), "asked to stop", True),
        (_task(*EXITED, 139), "native code", True),
        (_task(*EXITED, 0), "without the run having ended", True),
        (_task(*EXITED, 1), "it ended", True),
        (_task("SpotInterruption", "Your Spot Task was interrupted.", 143), "took its Spot capacity back", True),
        (_task("UserInitiated", "Task stopped by user", 137), "stopped by hand", False),
        (_task("TaskFailedToStart", PULL), "can't be pulled", False),
        (_task("TaskFailedToStart", "ResourceInitializationError: unable to pull secrets"), "could not prepare", False),
        (_task("TaskFailedToStart", "CannotStartContainerError: exec: not found"), "can't be started", False),
        (_task("TaskFailedToStart", "Capacity is unavailable at this time."), "could not start it", True),
        ({}, "it ended", True),
    ],
)
def test_cause_is_told_in_words_and_only_what_may_go_better_is_tried_again(
    task: dict[str, Any], words: str, again: bool
) -> None:
    cause = causes.cause_of(task)

    assert words in cause.words
    assert cause.again is again


def test_message_holds_what_happened_what_ecs_says_and_what_to_do() -> None:
    said = causes.message(_task(*EXITED, 137, "OutOfMemoryError: Container killed due to memory usage"))

    assert said == (
        "The task of this run died: it needed more memory than the 512 MiB it had (Essential container in task exited; "
        "OutOfMemoryError: Container killed due to memory usage; exit code 137). "
        "To do: give it more: job variable memory."
    )
    assert "\n" not in said


def test_every_cause_says_what_to_do() -> None:
    assert all(cause.words and cause.todo for cause in causes.CAUSES)
    assert causes.CAUSES[-1].sign == ""
