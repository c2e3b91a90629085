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
        (_task("TerminationNotice", "Your Spot Task was interrupted."), "took its Spot capacity back", True),
        (_task("TerminationNotice", ""), "retired the machine", True),
        (_task("InfrastructureHealth", "", 137), "retired the machine", True),
        (
            _task("ServiceSchedulerInitiated", "ECS is performing maintenance on the underlying infrastructure", 143),
            "retired the machine",
            True,
        ),
        (_task("UserInitiated", "Task stopped by user", 137), "stopped by hand", False),
        (_task("TaskFailedToStart", PULL), "can't be pulled", False),
        (_task("TaskFailedToStart", "ResourceInitializationError: unable to pull secrets"), "could not prepare", False),
        (_task("TaskFailedToStart", "CannotStartContainerError: exec: not found"), "can't be started", False),
        (_task("TaskFailedToStart", "CannotCreateContainerError: no such volume"), "can't be created", False),
        (_task("TaskFailedToStart", "Task failed to start"), "ECS could not start it", True),
        (_task("Unlisted", ""), "ECS no longer lists it, and no stop event was received", True),
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


SCARCE = [
    ("Capacity is unavailable at this time. Please try again later", "AWS has no capacity for it"),
    ("Unexpected EC2 error: InsufficientFreeAddressesInSubnet", "its subnets have no free address"),
    (
        "Timeout waiting for network interface provisioning to complete.",
        "AWS did not provide its network interface in time",
    ),
    ("Unexpected EC2 error while attempting to Create Network Interface", "AWS could not create its network interface"),
    ("Timeout waiting for EphemeralStorage provisioning to complete.", "AWS did not provide its storage in time"),
    ("ResourceInitializationError: ThrottlingException", "AWS was asked too often while it prepared the task"),
    ("CannotPullContainerError: Rate exceeded", "AWS was asked too often while it prepared the task"),
    ("CannotPullContainerError: toomanyrequests: rate limit", "the image registry was asked too often"),
]


@pytest.mark.parametrize(("reason", "words"), SCARCE)
def test_task_that_never_started_for_want_of_what_comes_back_lets_its_run_wait(reason: str, words: str) -> None:
    cause = causes.cause_of(_task("TaskFailedToStart", reason))

    assert (cause.words, cause.waits) == (words, True)
    assert cause.todo == "nothing, it is tried again; cancel the run if it should not wait"


@pytest.mark.parametrize(("reason", "_"), SCARCE)
def test_task_that_had_started_lets_no_run_wait(reason: str, _: str) -> None:
    assert not causes.cause_of(_task(EXITED[0], reason, 1)).waits
    assert not causes.cause_of(_task(EXITED[0], EXITED[1], 1, reason)).waits


@pytest.mark.parametrize(
    "reason", ["CannotPullContainerError: not found", "ResourceInitializationError: unable to pull secrets", ""]
)
def test_task_that_never_started_for_another_reason_lets_no_run_wait(reason: str) -> None:
    assert not causes.cause_of(_task("TaskFailedToStart", reason)).waits


def test_facts_are_told_once_and_without_what_is_not_known() -> None:
    containers = [{"name": "a", "reason": "same"}, {"name": "b", "reason": "same", "exitCode": 0}, {"name": "c"}]

    assert causes.facts({"stoppedReason": "same", "containers": containers}) == "same; exit code 0"
    assert causes.facts({}) == causes.facts({"stoppedReason": None, "containers": None}) == ""
    assert "(ECS says no more)" in causes.message({})


@pytest.mark.parametrize("reported", [True, False])
@pytest.mark.parametrize(
    ("code", "itself_if_reported", "itself_if_not"),
    [(0, True, True), (1, True, False), (3, True, False), (127, True, False), (130, True, False)]
    + [(code, False, False) for code in (128, 134, 137, 139, 143)],
)
def test_flow_that_ended_its_own_process_is_told_from_one_that_was_killed(
    code: int, itself_if_reported: bool, itself_if_not: bool, reported: bool
) -> None:
    expected = itself_if_reported if reported else itself_if_not

    assert causes.ended_itself(_task(*EXITED, code), reported) is expected


@pytest.mark.parametrize(
    "task",
    [
        _task("SpotInterruption", "Your Spot Task was interrupted.", 0),
        _task("UserInitiated", "Task stopped by user", 0),
        _task("TaskFailedToStart", "CannotPullContainerError"),
        _task(*EXITED),
        _task(*EXITED, 1, "OutOfMemoryError: Container killed due to memory usage"),
        {},
    ],
    ids=["spot", "by-hand", "not-started", "no-exit-code", "out-of-memory", "unknown"],
)
def test_task_that_something_else_ended_did_not_end_itself(task: dict[str, Any]) -> None:
    assert not causes.ended_itself(task, reported=True)


def test_of_several_containers_the_worst_exit_code_counts() -> None:
    task = _task(*EXITED, 0)
    task["containers"].append({"name": "sidecar", "exitCode": 137})

    assert not causes.ended_itself(task, reported=True)


def test_message_says_that_the_flow_ended_itself() -> None:
    assert causes.message(_task(*EXITED, 3), itself=True) == (
        "The task of this run died: the flow ended its own process (Essential container in task exited; exit code 3). "
        "To do: look at its last lines."
    )
