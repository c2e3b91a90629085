"""Why a task of a run ended, from what ECS tells of it: in words, with what to do, and whether another try makes sense.

Sources: https://docs.aws.amazon.com/AmazonECS/latest/developerguide/stopped-task-error-codes.html and
https://docs.aws.amazon.com/AmazonECS/latest/APIReference/API_Task.html#ECS-Type-Task-stopCode
"""

import dataclasses
from collections.abc import Mapping
from typing import Any


@dataclasses.dataclass(frozen=True)
class Cause:
    """A reason for the end of a task.

    Attributes:
        sign: what ECS says of such a task contains this.
        words: what happened.
        todo: what to do about it.
        again: whether a run that was told to survive the death of its task is started again.
    """

    sign: str
    words: str
    todo: str
    again: bool = True


CAUSES = (
    Cause(
        "SpotInterruption",
        "AWS took its Spot capacity back",
        "give its deployment the job variable restarts, or run it on ecs_fargate",
    ),
    Cause("OutOfMemory", "it needed more memory than the {memory} MiB it had", "give it more: job variable memory"),
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
    Cause("UserInitiated", "it was stopped by hand", "run it again when whoever stopped it agrees", again=False),
    Cause("exit code 137", "it was killed", "if nobody killed it, give it more memory: job variable memory"),
    Cause("exit code 143", "it was asked to stop", "look for who stopped it in CloudTrail: StopTask"),
    Cause("exit code 139", "it crashed in native code", "look at the packages that it uses"),
    Cause("exit code 0", "it ended without the run having ended", "look at its last lines"),
    Cause("TaskFailedToStart", "ECS could not start it", "if it happens again, look at the reason"),
    Cause("", "it ended", "look at its last lines"),
)
"""The first whose sign is found holds."""


def cause_of(task: Mapping[str, Any]) -> Cause:
    """The cause of a stopped task's end."""
    said = f"{task.get('stopCode', '')} {facts(task)}"
    found = next(cause for cause in CAUSES if cause.sign in said)
    return dataclasses.replace(found, words=found.words.format(memory=task.get("memory", "?")))


def facts(task: Mapping[str, Any]) -> str:
    """What ECS says of a stopped task: its reason, and what became of its containers."""
    said = [task.get("stoppedReason") or ""]
    for container in task.get("containers") or ():
        said.append(container.get("reason") or "")
        if container.get("exitCode") is not None:
            said.append(f"exit code {container['exitCode']}")
    return "; ".join(dict.fromkeys(filter(None, said)))


def message(task: Mapping[str, Any]) -> str:
    """One line for the state of the run: what happened, why, what to do."""
    cause = cause_of(task)
    return f"The task of this run died: {cause.words} ({facts(task) or 'ECS says no more'}). To do: {cause.todo}."
