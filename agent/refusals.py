"""What AWS answers when it does not start a task: whether to wait, to ask again, or to give up, and what to do then.

Sources: https://docs.aws.amazon.com/AmazonECS/latest/APIReference/API_RunTask.html,
https://docs.aws.amazon.com/AmazonECS/latest/developerguide/api_failures_messages.html and
https://docs.aws.amazon.com/AmazonECS/latest/APIReference/CommonErrors.html
"""

from collections.abc import Mapping, Sequence
from typing import Any


class RefusedError(Exception):
    """AWS has no room for the task now, or is asked too often; no task was started."""


class NoAnswerError(Exception):
    """AWS did not answer, or failed: the task may have been started."""


class NeverStartsError(Exception):
    """The request can not succeed, however often it is repeated; the text says why and what to do."""


class StaleError(Exception):
    """The revision of the task definition was deregistered meanwhile."""


class NotYetKnownError(Exception):
    """AWS does not know the revision yet: it was registered a moment ago."""


NEVER = ("MISSING", "INACTIVE", "ATTRIBUTE", "LOCATION")
"""Reasons of `failures` that do not pass; all others are about capacity, quotas and AWS's own agents."""
THROTTLED = ("Throttling", "TooManyRequests", "RequestLimitExceeded", "SlowDown", "LimitExceeded", "Rate exceeded")
"""Words of codes and messages by which AWS asks to be asked less often."""
SCARCE = (
    *("capacity is unavailable", "insufficient capacity", "capacity limit exceeded", "reached the limit", "quota"),
    *("Create Network Interface", "network interface provision", "InsufficientFreeAddresses", "EphemeralStorage"),
)
"""Words of messages by which AWS says that it has no room."""
OURS = ("ExpiredToken", "UnrecognizedClient", "InvalidClientTokenId", "InvalidSignature", "RequestExpired")
"""Words of codes by which AWS refuses the agent's credentials, which it gets anew."""
CONCURRENT = "Too many concurrent attempts to create a new revision"
ADVICE = (
    ("No Fargate configuration", "choose cpu and memory that go together, see the table in the message of register"),
    ("PassRole", "invoke deploy sets up the roles; if it was interrupted, run it again"),
    ("Role is not valid", "invoke deploy creates the roles again"),
    ("assume the role", "invoke deploy creates the roles again"),
    ("AccessDenied", "invoke deploy sets up what the agent may do; after an update run invoke bootstrap-account first"),
    ("ClusterNotFound", "invoke deploy creates the cluster again"),
    ("subnet", "invoke deploy sets up the network and the project; check subnet_ids in the settings"),
    ("security group", "invoke deploy sets up the network and the project"),
    ("8192", "make command and env of the deployment shorter"),
    ("tag", "make the deployment's labels fewer or shorter"),
)
"""What to do about an error that contains a word."""


def of_failures(failures: Sequence[Mapping[str, Any]]) -> Exception:
    """Return what the `failures` of an answer of RunTask mean."""
    reasons = "; ".join(
        dict.fromkeys(": ".join(filter(None, (each.get("reason"), each.get("detail")))) for each in failures)
    )
    words = reasons or "AWS started no task and gave no reason"
    if any(str(each.get("reason", "")).startswith(NEVER) for each in failures):
        return NeverStartsError(f"AWS can not start it: {words}. To do: {_advice(words)}.")
    return RefusedError(words)


def of_error(error: Exception) -> Exception:
    """Return what an error of an AWS client means; errors of the program itself are returned as they are."""
    from botocore.exceptions import BotoCoreError, ClientError, ParamValidationError

    if isinstance(error, ParamValidationError):
        return NeverStartsError(f"the request is not one that AWS takes: {error}. To do: {_advice(str(error))}.")
    if isinstance(error, BotoCoreError | TimeoutError):
        return NoAnswerError(f"{type(error).__name__}: {error}")
    if not isinstance(error, ClientError):
        return error
    code, message = error.response["Error"].get("Code", ""), error.response["Error"].get("Message", "")
    words = f"{code}: {message}"
    if "TaskDefinition is inactive" in message:
        return StaleError(words)
    if message.startswith("TaskDefinition not found"):
        return NotYetKnownError(words)
    if CONCURRENT in message or _has(THROTTLED, words) or _has(SCARCE, message):
        return RefusedError(words)
    status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 400)
    if status >= 500 or _has(("ServerException", "ServiceUnavailable", "InternalError", "InternalFailure"), code):
        return NoAnswerError(words)
    if _has(OURS, code):
        return NoAnswerError(words)
    return NeverStartsError(f"AWS refuses to start it: {words}. To do: {_advice(words)}.")


def _has(signs: Sequence[str], words: str) -> bool:
    return any(sign.lower() in words.lower() for sign in signs)


def _advice(words: str) -> str:
    return next(
        (advice for sign, advice in ADVICE if sign.lower() in words.lower()),
        "correct what the message names, then run it again",
    )
