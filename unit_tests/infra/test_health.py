import json
import types
from collections.abc import Callable
from typing import Any

import pytest

from environments.errors import PlatformError
from environments.settings import Environment
from infra import health, state
from infra.alarms import expect_agent
from unit_tests.conftest import ACCOUNT, REGION

Aws = Callable[[str], Any]
Check = Callable[[Environment], str]
PREFIX = "dev_dataflow_automation"
REGISTRY = f"{ACCOUNT}.dkr.ecr.{REGION}.amazonaws.com"
LOCK = {"ID": "0c9f", "Who": "ann@laptop", "Created": "2026-01-01 09:00 UTC", "Operation": "OperationTypeApply"}


def _problem(check: Check, environment: Environment) -> PlatformError:
    with pytest.raises(PlatformError) as caught:
        check(environment)
    return caught.value


def _queue(aws_mocked: Aws, name: str, messages: int) -> None:
    sqs = aws_mocked("sqs")
    url = sqs.create_queue(QueueName=f"{PREFIX}_{name}")["QueueUrl"]
    for number in range(messages):
        sqs.send_message(QueueUrl=url, MessageBody=str(number))


def test_events_that_back_up_are_counted(
    environment: Environment, aws_mocked: Aws, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(health, "BACKLOG", 2)
    _queue(aws_mocked, "task_events", 2)
    assert health.task_events(environment) == "2 waiting"
    _queue(aws_mocked, "task_events", 1)
    problem = _problem(health.task_events, environment)

    assert problem.what.startswith("3 wait")
    assert "invoke logs agent --env dev" in problem.todo


def test_each_dead_letter_is_wrong_and_can_be_handed_over_again(environment: Environment, aws_mocked: Aws) -> None:
    _queue(aws_mocked, "task_events_dead_letters", 0)
    assert health.dead_letters(environment) == "none"
    _queue(aws_mocked, "task_events_dead_letters", 1)
    problem = _problem(health.dead_letters, environment)

    assert problem.what.startswith("1 that the agent")
    assert f"--source-arn arn:aws:sqs:{REGION}:{ACCOUNT}:{PREFIX}_task_events_dead_letters" in problem.todo


def _alarm(aws_mocked: Aws, name: str, value: str) -> None:
    cloudwatch = aws_mocked("cloudwatch")
    cloudwatch.put_metric_alarm(
        AlarmName=name,
        AlarmDescription=f"what {name} means",
        Namespace="AWS/SQS",
        MetricName="x",
        Statistic="Sum",
        Period=60,
        EvaluationPeriods=1,
        Threshold=1,
        ComparisonOperator="GreaterThanThreshold",
    )
    cloudwatch.set_alarm_state(AlarmName=name, StateValue=value, StateReason="threshold crossed")


def test_alarms_of_the_environment_that_ring_are_named(environment: Environment, aws_mocked: Aws) -> None:
    _alarm(aws_mocked, f"{PREFIX}_agent_down", "OK")
    _alarm(aws_mocked, "prod_dataflow_automation_agent_down", "ALARM")
    assert health.alarms(environment) == "1, none rings"
    _alarm(aws_mocked, f"{PREFIX}_dead_letters", "ALARM")
    problem = _problem(health.alarms, environment)

    assert problem.what == f"{PREFIX}_dead_letters ringing"
    assert f"what {PREFIX}_dead_letters means threshold crossed" in problem.why


def test_alarm_for_a_missing_agent_is_silent_while_none_is_expected(environment: Environment, aws_mocked: Aws) -> None:
    cloudwatch, name = aws_mocked("cloudwatch"), f"{PREFIX}_agent_down"
    _alarm(aws_mocked, name, "OK")

    for expected in (False, True):
        expect_agent(environment, expected)
        [alarm] = cloudwatch.describe_alarms(AlarmNames=[name])["MetricAlarms"]
        assert alarm["ActionsEnabled"] is expected


def test_held_lock_is_told_as_by_deploy(environment: Environment, aws_mocked: Aws) -> None:
    state.ensure_bucket(environment)
    s3, bucket = aws_mocked("s3"), state.bucket_name(environment)
    s3.delete_bucket_policy(Bucket=bucket)  # moto takes it without its condition
    assert health.terraform_lock(environment) == "free"
    s3.put_object(Bucket=bucket, Key="terraform.tfstate.tflock", Body=json.dumps(LOCK))
    problem = _problem(health.terraform_lock, environment)

    assert problem.why == "ann@laptop since 2026-01-01 09:00 UTC (OperationTypeApply)"
    assert "invoke unlock 0c9f --env dev" in problem.todo


@pytest.mark.parametrize("body", [b"", b"no json", b"[1]"])
def test_lock_that_says_nothing_is_held_all_the_same(environment: Environment, aws_mocked: Aws, body: bytes) -> None:
    state.ensure_bucket(environment)
    s3, bucket = aws_mocked("s3"), state.bucket_name(environment)
    s3.delete_bucket_policy(Bucket=bucket)
    s3.put_object(Bucket=bucket, Key="terraform.tfstate.tflock", Body=body)

    assert "holds the lock" in _problem(health.terraform_lock, environment).what


@pytest.fixture
def digest(aws_mocked: Aws) -> str:
    """Repository dev_etl with one image that has the tag `one`; gives its digest."""
    ecr = aws_mocked("ecr")
    ecr.create_repository(repositoryName="dev_etl")
    manifest = {"schemaVersion": 2, "mediaType": "application/vnd.docker.distribution.manifest.v2+json", "layers": []}
    put = ecr.put_image(repositoryName="dev_etl", imageManifest=json.dumps(manifest), imageTag="one")
    return str(put["image"]["imageId"]["imageDigest"])


def test_images_that_are_there_are_not_missing(environment: Environment, digest: str) -> None:
    there = [f"{REGISTRY}/dev_etl@{digest}", f"{REGISTRY}/dev_etl:one", "", "public.ecr.aws/other/image:1"]

    assert health.missing_images(environment, there) == []


@pytest.mark.parametrize("name", ["dev_etl@sha256:00", "dev_etl:two", "dev_gone:one", "dev_gone@sha256:00"])
def test_images_that_are_gone_are_named(environment: Environment, digest: str, name: str) -> None:
    assert health.missing_images(environment, [f"{REGISTRY}/dev_etl:one", f"{REGISTRY}/{name}"]) == [
        f"{REGISTRY}/{name}"
    ]


class Scanned:
    """ECR with the severities that its scan found, by repository and version; none where it has not scanned yet."""

    exceptions = types.SimpleNamespace(
        ScanNotFoundException=KeyError, ImageNotFoundException=IndexError, RepositoryNotFoundException=NameError
    )

    def __init__(self, found: dict[tuple[str, str], dict[str, int]]) -> None:
        self.found, self.asked = found, list[tuple[str, str]]()

    def describe_image_scan_findings(self, repositoryName: str, imageId: dict[str, str], maxResults: int) -> Any:
        [(kind, version)] = imageId.items()
        assert (kind == "imageDigest") == version.startswith("sha256:")
        self.asked.append((repositoryName, version))
        counts = self.found[repositoryName, version]
        return {"imageScanFindings": {"findingSeverityCounts": counts}} if counts else {}


def test_critical_findings_are_counted_for_each_image_of_our_registry(
    environment: Environment, monkeypatch: pytest.MonkeyPatch
) -> None:
    digest = "sha256:0"
    ecr = Scanned({("etl", digest): {"CRITICAL": 2, "HIGH": 9}, ("tax", "v1"): {"HIGH": 1}, ("stock", digest): {}})
    monkeypatch.setattr(health, "client", lambda *_: ecr)
    bad = f"{REGISTRY}/etl@{digest}"
    others = [f"{REGISTRY}/tax:v1", f"{REGISTRY}/stock@{digest}", f"{REGISTRY}/unscanned:v2", "elsewhere/etl:v1"]

    assert health.critical_findings(environment, [bad, *others, bad]) == {bad: 2}
    assert sorted(ecr.asked) == [("etl", digest), ("stock", digest), ("tax", "v1"), ("unscanned", "v2")]
