"""Samples of what AWS answers and sends, each with its source, and what reads them.

Each JSON file holds samples by name. `source` says where the fields and the words of a sample are from; accounts, names
and ids in it are ours. `response` is the body as it comes over the wire, so that it passes through botocore's parsers
before our code sees it.
"""

import copy
import functools
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent


def samples(name: str) -> dict[str, dict[str, Any]]:
    """The samples of a file, by name."""
    content: dict[str, dict[str, Any]] = json.loads((FOLDER / f"{name}.json").read_text(encoding="utf-8"))
    return content


def body(name: str, case: str) -> Any:
    """The body of a sample as AWS sends it."""
    return samples(name)[case]["response"]


def stopped_tasks() -> dict[str, dict[str, Any]]:
    """Stopped tasks by what became of them, as DescribeTasks sends them.

    The file holds one whole task, and for each case what differs.
    """
    content = samples("ecs_stopped_tasks")
    tasks = {}
    for name, case in content["cases"].items():
        task = {**copy.deepcopy(content["like"]["task"]), **case["task"]}
        task["containers"][0] |= case.get("container", {})
        for field in case.get("without", []):
            del task[field]
        for field in case.get("without_in_container", []):
            del task["containers"][0][field]
        tasks[name] = task
    return tasks


@functools.cache
def model(service: str) -> Any:
    """What botocore knows of a service: its operations with their fields and errors."""
    import botocore.loaders
    from botocore.model import ServiceModel

    return ServiceModel(botocore.loaders.create_loader().load_service_model(service, "service-2"), service)


def parsed(service: str, operation: str, response: Mapping[str, Any]) -> dict[str, Any]:
    """The body of an answer as boto3 returns it: moments are datetimes, null and unknown fields are gone."""
    from botocore.parsers import create_parser

    described = model(service)
    raw = {"body": json.dumps(response).encode(), "headers": {}, "status_code": 200}
    answer: dict[str, Any] = create_parser(described.metadata["protocol"]).parse(
        raw, described.operation_model(operation).output_shape
    )
    return answer


def stopped_task(case: str) -> dict[str, Any]:
    """A stopped task as boto3 returns it."""
    answer = parsed("ecs", "DescribeTasks", {"tasks": [stopped_tasks()[case]], "failures": []})
    task: dict[str, Any] = answer["tasks"][0]
    return task


def client(service: str, *answers: Mapping[str, Any]) -> Any:
    """A boto3 client whose requests are answered by these samples, one after the other.

    Args:
        service: name of the AWS service.
        answers: samples with `status` and `response`; with `operation`, the request has to be that one.
    """
    from botocore.awsrequest import AWSResponse

    answered, left = _client(service), list(answers)

    def answer(request: Any, **_: Any) -> Any:
        sample = left.pop(0)
        operation = request.headers["X-Amz-Target"].decode().rpartition(".")[2]
        assert sample.get("operation", operation) == operation
        content = json.dumps(sample["response"]).encode()
        headers = {"x-amzn-requestid": "0", **sample.get("headers", {})}
        return AWSResponse(request.url, sample.get("status", 200), headers, _Raw(content))

    answered.meta.events.register("before-send", answer)
    return answered


class _Raw:
    """The content of an answer as urllib3 hands it over."""

    def __init__(self, content: bytes) -> None:
        self._content = content

    def stream(self, **_: Any) -> Any:
        yield self._content


def _client(service: str) -> Any:
    import boto3
    from botocore.config import Config

    session: Any = boto3.session.Session(aws_access_key_id="key", aws_secret_access_key="secret")
    return session.client(service, region_name="eu-west-1", config=Config(retries={"total_max_attempts": 1}))
