"""Why a task of a run ended, from what ECS says of it: in words, with what to do, and what becomes of the run.

Sources: https://docs.aws.amazon.com/AmazonECS/latest/developerguide/stopped-task-error-codes.html and
https://docs.aws.amazon.com/AmazonECS/latest/APIReference/API_Task.html#ECS-Type-Task-stopCode
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

DIED = "The task of this run died"
"""What the message of a run's state begins with when the agent marked it."""
NEVER_STARTED = "TaskFailedToStart"
ENDED_BY_ITSELF = "EssentialContainerExited"
FIRST_SIGNAL = 128
"""A container that a signal ended has this exit code, plus the number of the signal."""
INTERRUPTED = 130
"""Exit code after SIGINT: a flow can raise KeyboardInterrupt, and nothing on ECS sends that signal."""


@dataclasses.dataclass(frozen=True)
class Cause:
    """A reason for the end of a task.

    Attributes:
        sign: what ECS says of such a task contains this.
        words: what happened.
        todo: what to do about it.
        again: whether a run with `restarts` is started again.
        waits: whether the task never started for want of something that comes back, so that the run waits for it.
    """

    sign: str
    words: str
    todo: str
    again: bool = True
    waits: bool = False


def _scarce(sign: str, words: str) -> Cause:
    return Cause(sign, words, "nothing, it is tried again; cancel the run if it should not wait", waits=True)


def _lost(sign: str) -> Cause:
    return Cause(sign, "AWS retired the machine that it ran on", "give its deployment the job variable restarts")


CAUSES = (
    Cause(
        "SpotInterruption",
        "AWS took its Spot capacity back",
        "give its deployment the job variable restarts, or run it on ecs_fargate",
    ),
    Cause("Unlisted", "ECS no longer lists it, and no stop event was received", "run it again"),
    # Which stop code this has differs between the pages of AWS.
    Cause(
        "Spot Task was interrupted",
        "AWS took its Spot capacity back",
        "give its deployment the job variable restarts, or run it on ecs_fargate",
    ),
    _lost("TerminationNotice"),
    _lost("performing maintenance on the underlying infrastructure"),
    _lost("InfrastructureHealth"),
    Cause("OutOfMemory", "it needed more memory than the {memory} MiB it had", "give it more: job variable memory"),
    _scarce("Capacity is unavailable", "AWS has no capacity for it"),
    _scarce("InsufficientFreeAddresses", "its subnets have no free address"),
    _scarce("Timeout waiting for network interface", "AWS did not provide its network interface in time"),
    _scarce("Create Network Interface", "AWS could not create its network interface"),
    _scarce("Timeout waiting for EphemeralStorage", "AWS did not provide its storage in time"),
    _scarce("ThrottlingException", "AWS was asked too often while it prepared the task"),
    _scarce("Rate exceeded", "AWS was asked too often while it prepared the task"),
    _scarce("toomanyrequests", "the image registry was asked too often"),
    Cause(
        "CannotPull",
        "its image can't be pulled",
        "register the workflow again, and see that the network reaches ECR",
        again=False,
    ),
    Cause(
        "ResourceInitializationError",
        "ECS could not prepare it: its network, secrets or logs",
        "see that the network reaches ECR, Secrets Manager and CloudWatch Logs; invoke deploy puts the roles right",
        again=False,
    ),
    Cause(
        "CannotStartContainer",
        "its container can't be started",
        "correct its image or its command",
        again=False,
    ),
    Cause(
        "CannotCreateContainer",
        "its container can't be created",
        "correct its image, or what its deployment asks for",
        again=False,
    ),
    Cause("UserInitiated", "it was stopped by hand", "run it again when whoever stopped it agrees", again=False),
    Cause("exit code 137", "it was killed", "if nobody killed it, give it more memory: job variable memory"),
    Cause("exit code 143", "it was asked to stop", "look for who stopped it in CloudTrail: StopTask"),
    Cause("exit code 139", "it crashed in native code", "look at the packages that it uses"),
    Cause("exit code 0", "it ended without the run having ended", "look at its last lines"),
    Cause(NEVER_STARTED, "ECS could not start it", "if it happens again, look at the reason"),
    Cause("", "it ended", "look at its last lines"),
)
"""The first whose sign is found holds."""


def cause_of(task: Mapping[str, Any]) -> Cause:
    """Return the cause of a stopped task's end."""
    described = f"{task.get('stopCode', '')} {facts(task)}"
    started = task.get("stopCode") != NEVER_STARTED
    found = next(cause for cause in CAUSES if cause.sign in described and not (cause.waits and started))
    return dataclasses.replace(found, words=found.words.format(memory=task.get("memory", "?")))


def facts(task: Mapping[str, Any]) -> str:
    """Return what ECS says of a stopped task: its reason, and what became of its containers."""
    reasons = [task.get("stoppedReason") or ""]
    for container in task.get("containers") or ():
        reasons.append(container.get("reason") or "")
        if container.get("exitCode") is not None:
            reasons.append(f"exit code {container['exitCode']}")
    return "; ".join(dict.fromkeys(filter(None, reasons)))


def message(task: Mapping[str, Any], itself: bool = False) -> str:
    """Return one line for the state of the run: what happened, why, what to do.

    Args:
        task: as ECS describes it.
        itself: the run's own code ended it, see `ended_itself`.
    """
    cause = cause_of(task)
    if itself:
        cause = Cause("", "the flow ended its own process", "look at its last lines")
    return f"{DIED}: {cause.words} ({facts(task) or 'ECS says no more'}). To do: {cause.todo}."


def ended_itself(task: Mapping[str, Any], reported: bool) -> bool:
    """Whether the run's own code ended its process: by `sys.exit`, `os._exit`, or an error outside of the flow.

    Args:
        task: as ECS describes it.
        reported: whether the run's process reported a crash before it ended. One that ended with an error and could
            not report it had lost Prefect.
    """
    codes = [each["exitCode"] for each in task.get("containers") or () if each.get("exitCode") is not None]
    if task.get("stopCode") != ENDED_BY_ITSELF or not codes or "OutOfMemory" in facts(task):
        return False
    code = max(codes)
    return code == 0 or (reported and (code < FIRST_SIGNAL or code == INTERRUPTED))
