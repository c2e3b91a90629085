"""The samples themselves: each has a source, and AWS's own service models know every field in it."""

from collections.abc import Iterator
from typing import Any

import pytest

from unit_tests import aws_responses
from unit_tests.aws_responses import FOLDER, body, model, samples, stopped_tasks

OPERATIONS = {
    "ecs_describe_task_definition": "DescribeTaskDefinition",
    "ecs_describe_tasks": "DescribeTasks",
    "ecs_run_task": "RunTask",
    "ecs_run_task_failures": "RunTask",
}
OF_SERVICES = ("ecr", "sqs")
EVENT_FIELDS = {"version", "id", "detail-type", "source", "account", "time", "region", "resources", "detail"}
"""https://docs.aws.amazon.com/eventbridge/latest/ref/events-structure.html"""


def _unknown(shape: Any, value: Any, path: str = "") -> Iterator[str]:
    """Fields of a value that a shape does not have, or that are of another type in it."""
    if shape.type_name == "structure":
        for name, part in value.items():
            if name in shape.members:
                yield from _unknown(shape.members[name], part, f"{path}.{name}")
            else:
                yield f"{path}.{name}"
    elif shape.type_name == "list":
        for part in value:
            yield from _unknown(shape.member, part, f"{path}[]")
    elif shape.type_name == "map":
        for part in value.values():
            yield from _unknown(shape.value, part, f"{path}{{}}")
    else:
        types = {"string": str, "boolean": bool, "integer": int, "long": int, "timestamp": (int, float)}
        if not isinstance(value, types[shape.type_name]):
            yield f"{path}: {value!r} is no {shape.type_name}"


def _answers() -> Iterator[tuple[str, str, str, Any]]:
    for name, operation in OPERATIONS.items():
        yield from (("ecs", operation, f"{name}/{case}", sample["response"]) for case, sample in samples(name).items())
    for service in OF_SERVICES:
        for case, sample in samples(service).items():
            if sample["status"] == 200:
                yield service, sample["operation"], f"{service}/{case}", sample["response"]
    for case, task in stopped_tasks().items():
        yield "ecs", "DescribeTasks", f"ecs_stopped_tasks/{case}", {"tasks": [task]}


@pytest.mark.parametrize("answer", list(_answers()), ids=lambda answer: answer[2])
def test_every_field_of_an_answer_is_one_of_aws(answer: tuple[str, str, str, Any]) -> None:
    service, operation, _, response = answer
    assert list(_unknown(model(service).operation_model(operation).output_shape, response)) == []


@pytest.mark.parametrize("case", samples("ecs_task_state_change_events"))
def test_every_field_of_an_event_is_one_of_aws(case: str) -> None:
    event = body("ecs_task_state_change_events", case)
    detail = {name: value for name, value in event["detail"].items() if name != "updatedAt"}
    problems = _unknown(model("ecs").shape_for("Task"), detail)

    assert set(event) == EVENT_FIELDS
    # Moments are text in events, and numbers in answers.
    assert [problem for problem in problems if not problem.endswith("is no timestamp")] == []


@pytest.mark.parametrize(
    ("name", "case"),
    [
        (name, case)
        for name in ("ecs_errors", *OF_SERVICES)
        for case, sample in samples(name).items()
        if sample["status"] != 200
    ],
)
def test_every_error_is_one_that_the_operation_has(name: str, case: str) -> None:
    sample = samples(name)[case]
    code = sample["response"]["__type"].rpartition("#")[2]
    operation = model(name.partition("_")[0]).operation_model(sample["operation"])

    # Throttling is common to all operations and in no model.
    assert code in {*(shape.name for shape in operation.error_shapes), "ThrottlingException"}


def test_there_is_a_stopped_task_for_every_stop_code_of_aws() -> None:
    codes = {task["stopCode"] for task in stopped_tasks().values()}
    assert codes == set(model("ecs").shape_for("TaskStopCode").enum)


def test_every_sample_names_its_sources() -> None:
    sources = {}
    for file in FOLDER.glob("*.json"):
        content = samples(file.stem)
        cases = content["cases"] | {"like": content["like"]} if "cases" in content else content
        sources |= {f"{file.stem}/{case}": sample["source"] for case, sample in cases.items()}

    assert len(sources) > 60
    assert [name for name, source in sources.items() if not source or isinstance(source, str)] == []
    assert [one for source in sources.values() for one in source if not one.startswith("https://")] == []


def test_a_client_is_answered_by_samples_in_their_order() -> None:
    sqs = aws_responses.client("sqs", samples("sqs")["received_nothing"], samples("sqs")["unknown_queue"])

    assert sqs.receive_message(QueueUrl="https://sqs/queue").get("Messages") is None
    with pytest.raises(sqs.exceptions.QueueDoesNotExist) as caught:
        sqs.get_queue_url(QueueName="gone")
    assert caught.value.response["Error"]["Code"] == "AWS.SimpleQueueService.NonExistentQueue"
