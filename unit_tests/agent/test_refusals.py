from typing import Any

import pytest
from botocore.exceptions import (
    ClientError,
    ConnectTimeoutError,
    EndpointConnectionError,
    NoCredentialsError,
    ParamValidationError,
    ReadTimeoutError,
)

from agent import refusals
from agent.refusals import NeverStartsError, NoAnswerError, NotYetKnownError, RefusedError, StaleError

ROLE = "arn:aws:iam::123456789012:role/dev_dataflow_automation_workflow_task"
ENDPOINT = {"endpoint_url": "https://ecs.eu-west-1.amazonaws.com"}


def _failures(*reasons: str, detail: str = "") -> list[dict[str, Any]]:
    more = {"detail": detail} if detail else {}
    return [
        {"arn": "arn:aws:ecs:eu-west-1:123456789012:container-instance/1", "reason": each, **more} for each in reasons
    ]


def _client_error(code: str, message: str = "", status: int = 400, operation: str = "RunTask") -> ClientError:
    answer: Any = {"Error": {"Code": code, "Message": message}, "ResponseMetadata": {"HTTPStatusCode": status}}
    return ClientError(answer, operation)


@pytest.mark.parametrize(
    "reason",
    [
        "Capacity is unavailable at this time. Please try again later or in a different availability zone",
        "You've reached the limit on the number of vCPUs you can run concurrently",
        "You\u2019ve reached the limit on the number of tasks you can run concurrently",
        "RESOURCE:CPU",
        "RESOURCE:MEMORY",
        "RESOURCE:ENI",
        "RESOURCE:PORTS",
        "AGENT",
        "EMPTY CAPACITY PROVIDER",
        "NO ACTIVE INSTANCES",
        "something that AWS has not said before",
    ],
)
def test_failure_that_passes_is_waited_for_and_told_in_the_words_of_aws(reason: str) -> None:
    meaning = refusals.of_failures(_failures(reason))

    assert type(meaning) is RefusedError
    assert str(meaning) == reason


@pytest.mark.parametrize("reason", ["MISSING", "INACTIVE", "ATTRIBUTE", "LOCATION", "ATTRIBUTE:ecs.capability.x"])
def test_failure_that_never_passes_ends_the_run(reason: str) -> None:
    meaning = refusals.of_failures(_failures("RESOURCE:CPU", reason))

    assert type(meaning) is NeverStartsError
    assert str(meaning) == (
        f"AWS can not start it: RESOURCE:CPU; {reason}. To do: correct what the message names, then run it again."
    )


def test_details_of_failures_are_told_once_each() -> None:
    assert str(refusals.of_failures(_failures("AGENT", "AGENT", detail="not connected"))) == "AGENT: not connected"


def test_answer_without_task_and_without_failure_is_waited_for() -> None:
    meaning = refusals.of_failures([])

    assert type(meaning) is RefusedError
    assert str(meaning) == "AWS started no task and gave no reason"


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("ThrottlingException", "Rate exceeded"),
        ("Throttling", "Rate exceeded"),
        ("TooManyRequestsException", ""),
        ("RequestLimitExceeded", "Request limit exceeded."),
        ("LimitExceededException", "The limit for the resource was exceeded."),
        ("SlowDown", "Please reduce your request rate"),
        ("ClientException", "Too many concurrent attempts to create a new revision of the specified family."),
        ("ClientException", "Tasks provisioning capacity limit exceeded."),
        ("ClientException", "Capacity is unavailable at this time."),
        ("InvalidParameterException", "Insufficient capacity for the requested configuration"),
        ("ClientException", "You\u2019ve reached the limit on the number of tasks you can run concurrently"),
        ("ClientException", "ElasticNetworkInterface quota exceeded"),
        ("ClientException", "Create Network Interface failed"),
        ("ClientException", "InsufficientFreeAddressesInSubnet"),
    ],
)
@pytest.mark.parametrize("status", [400, 503])
def test_error_for_want_of_room_or_patience_is_waited_for(code: str, message: str, status: int) -> None:
    meaning = refusals.of_error(_client_error(code, message, status))

    assert type(meaning) is RefusedError
    assert str(meaning) == f"{code}: {message}"


@pytest.mark.parametrize(
    "error",
    [
        _client_error("ServerException", "Service Unavailable. Please try again later.", 500),
        _client_error("ServerException", "", 400),
        _client_error("ServiceUnavailableException", "", 400),
        _client_error("InternalFailure", "", 400),
        _client_error("InternalError", "", 400),
        _client_error("502", "Bad Gateway", 502),
        _client_error("ExpiredTokenException", "The security token included in the request is expired"),
        _client_error("UnrecognizedClientException", "The security token included in the request is invalid"),
        _client_error("InvalidClientTokenId", ""),
        _client_error("InvalidSignatureException", "Signature expired"),
        _client_error("RequestExpired", ""),
    ],
)
def test_answer_that_says_nothing_of_the_task_is_asked_for_again(error: ClientError) -> None:
    meaning = refusals.of_error(error)

    assert type(meaning) is NoAnswerError
    assert str(meaning) == f"{error.response['Error']['Code']}: {error.response['Error']['Message']}"


@pytest.mark.parametrize(
    "error",
    [
        EndpointConnectionError(**ENDPOINT),
        ConnectTimeoutError(**ENDPOINT),
        ReadTimeoutError(**ENDPOINT),
        NoCredentialsError(),
        TimeoutError("task 1 did not stop within 180 s"),
    ],
)
def test_answer_that_does_not_come_is_asked_for_again(error: Exception) -> None:
    meaning = refusals.of_error(error)

    assert type(meaning) is NoAnswerError
    assert str(meaning) == f"{type(error).__name__}: {error}"


@pytest.mark.parametrize("code", ["InvalidParameterException", "ClientException"])
def test_inactive_revision_is_stale(code: str) -> None:
    meaning = refusals.of_error(_client_error(code, "TaskDefinition is inactive"))

    assert type(meaning) is StaleError


def test_revision_that_aws_does_not_know_yet_is_one_that_it_will_know() -> None:
    assert type(refusals.of_error(_client_error("ClientException", "TaskDefinition not found."))) is NotYetKnownError


@pytest.mark.parametrize(
    ("code", "message", "advice"),
    [
        (
            "ClientException",
            "No Fargate configuration exists for given values: 300 CPU, 512 memory.",
            "choose cpu and memory that go together, see the table in the message of register",
        ),
        (
            "AccessDeniedException",
            f"User: agent is not authorized to perform: iam:PassRole on resource: {ROLE}",
            "invoke deploy sets up the roles; if it was interrupted, run it again",
        ),
        ("ClientException", "Role is not valid", "invoke deploy creates the roles again"),
        (
            "ClientException",
            f"ECS was unable to assume the role '{ROLE}' that was provided for this task.",
            "invoke deploy creates the roles again",
        ),
        (
            "AccessDeniedException",
            "User: agent is not authorized to perform: ecs:RunTask",
            "invoke deploy sets up what the agent may do; after an update run invoke bootstrap-account first",
        ),
        ("ClusterNotFoundException", "Cluster not found.", "invoke deploy creates the cluster again"),
        (
            "InvalidParameterException",
            "Error retrieving subnet information for [subnet-1]: The subnet ID 'subnet-1' does not exist",
            "invoke deploy sets up the network and the project; check subnet_ids in the settings",
        ),
        (
            "InvalidParameterException",
            "Error retrieving security group information for [sg-1]",
            "invoke deploy sets up the network and the project",
        ),
        (
            "InvalidParameterException",
            "Container Overrides length must be at most 8192",
            "make command and env of the deployment shorter",
        ),
        (
            "InvalidParameterException",
            "Tags can not have more than 50 elements.",
            "make the deployment's labels fewer or shorter",
        ),
        (
            "InvalidParameterException",
            "Override for container named x is not a container in the TaskDefinition.",
            "correct what the message names, then run it again",
        ),
        (
            "ClientException",
            "Actual length: '70000'. Max allowed length is '65536' bytes.",
            "correct what the message names, then run it again",
        ),
    ],
)
def test_error_that_never_passes_ends_the_run_with_what_to_do(code: str, message: str, advice: str) -> None:
    meaning = refusals.of_error(_client_error(code, message))

    assert type(meaning) is NeverStartsError
    assert str(meaning) == f"AWS refuses to start it: {code}: {message}. To do: {advice}."


def test_request_that_the_client_itself_refuses_ends_the_run() -> None:
    meaning = refusals.of_error(ParamValidationError(report="Invalid type for parameter tags"))

    assert type(meaning) is NeverStartsError
    assert "Invalid type for parameter tags" in str(meaning)
    assert str(meaning).endswith("To do: make the deployment's labels fewer or shorter.")


@pytest.mark.parametrize("error", [ValueError("ours"), KeyError("ours"), RefusedError("is one already")])
def test_other_errors_stay_what_they_are(error: Exception) -> None:
    assert refusals.of_error(error) is error
