"""What is wrong is found: each thing is broken for real, named with what to do about it, and well again afterwards."""

import contextlib
import json
import sqlite3
import time
import uuid
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from functional_tests.faults import Faults
from functional_tests.places import BUCKET
from functional_tests.platform import Platform, wait_for
from infra.health import BACKLOG

pytestmark = pytest.mark.reliability
PREFIX = "local_dataflow_automation"
LOCK_ID = "01234567-89ab-cdef-0123-456789abcdef"
LOCK = {"ID": LOCK_ID, "Operation": "OperationTypeApply", "Who": "ann@laptop", "Created": "2026-01-01T09:00:00Z"}
TOPIC = "arn:aws:sns:eu-west-1:000000000000:alarms"
FOUND_BY_STATUS = {
    "agent at ECS": ("crash loop", "does not accept the key", "invoke logs agent"),
    "agent at Prefect": ("none online", "", "invoke"),
    "agent image": ("not in ECR", f"{PREFIX}_agent:", "invoke deploy"),
    "Prefect keys": ("does not accept the key", "401", "invoke deploy"),
    "Prefect project": ("paused", "", f"/work-pools/work-pool/{PREFIX}"),
    "late runs": ("1 waiting for more than 1 min", "late-run", "invoke logs agent"),
    "stuck runs": ("2 stuck", "forgotten-run", "invoke run"),
    "task events": ("wait for the agent", "", "invoke logs agent"),
    "dead letters": ("1 that the agent could not process", "", "aws sqs start-message-move-task"),
    "alarms": (f"{PREFIX}_dead_letters ringing", "tried by hand", "invoke logs agent"),
    "Terraform lock": ("another run holds the lock", "ann@laptop since 2026-01-01", f"invoke unlock {LOCK_ID}"),
    "workflow images": ("1 not in ECR", "sample-workflow/local", "invoke register"),
}
"""Component, and what its state, its reason and its way out must say."""


def break_images(platform: Platform) -> None:
    """Delete the agent's image, and that of the registered workflow."""
    ecr = platform.aws("ecr")
    for repository in (f"{PREFIX}_agent", "local_sample_workflow"):
        images = ecr.list_images(repositoryName=repository)["imageIds"]
        ecr.batch_delete_image(repositoryName=repository, imageIds=images)


def break_queues(platform: Platform) -> None:
    """Let events wait, and one be a dead letter; nobody is there to take them."""
    sqs = platform.aws("sqs")
    for name, count in ((f"{PREFIX}_task_events", BACKLOG + 10), (f"{PREFIX}_task_events_dead_letters", 1)):
        url = sqs.get_queue_url(QueueName=name)["QueueUrl"]
        for start in range(0, count, 10):
            entries = [{"Id": str(number), "MessageBody": "{}"} for number in range(start, min(start + 10, count))]
            sqs.send_message_batch(QueueUrl=url, Entries=entries)


def break_runs(platform: Platform) -> list[str]:
    """Pause the project; make a run that nobody takes, one that stays PENDING, one whose task is unknown; their ids."""
    platform.prefect(f"/work_pools/{PREFIX}", {"is_paused": True}, "PATCH")
    [deployment] = platform.prefect("/deployments/filter", deployments={"name": {"any_": ["local"]}})[:1]

    def made(name: str, kind: str, **details: Any) -> str:
        state = {"type": kind, "state_details": details}
        run = platform.prefect(f"/deployments/{deployment['id']}/create_flow_run", {"name": name, "state": state})
        return str(run["id"])

    before = datetime.now(UTC) - timedelta(minutes=10)
    late = made("late-run", "SCHEDULED", scheduled_time=before.isoformat())
    pending, running = (made(name, "SCHEDULED") for name in ("forgotten-run", "abandoned-run"))
    for run, kind in ((pending, "PENDING"), (running, "RUNNING")):
        platform.prefect(f"/flow_runs/{run}/set_state", {"state": {"type": kind}, "force": True})
    task = f"arn:aws:ecs:eu-west-1:000000000000:task/{PREFIX}_workflows/{uuid.uuid4().hex}"
    platform.prefect(f"/flow_runs/{running}", {"infrastructure_pid": f"{PREFIX}_workflows::{task}"}, "PATCH")
    # Nobody can wait for minutes here: the time at which it became PENDING is set back.
    with sqlite3.connect(platform.folder / ".local/local/prefect/prefect.db", timeout=30) as database:
        moment = before.replace(tzinfo=None).isoformat(" ")
        change = "UPDATE flow_run_state SET timestamp = ? WHERE flow_run_id = ? AND type = 'PENDING'"
        database.execute(change, (moment, pending))
    return [late, pending, running]


def break_agent(platform: Platform) -> None:
    """Put a wrong key into the secret, and kill the agent until it has come back in vain a few times."""
    platform.aws("secretsmanager").put_secret_value(SecretId=f"{PREFIX}_prefect_key", SecretString="local:wrong")
    for container in platform.agent_containers:
        container.kill()
    wait_for("tasks that stop by themselves", lambda: crashes(platform) >= 2)


def crashes(platform: Platform) -> int:
    """How many ends of the agent's tasks the rule of the alarm has let through."""
    sqs = platform.aws("sqs")
    url = sqs.get_queue_url(QueueName=f"{PREFIX}_agent_crashes")["QueueUrl"]
    name = "ApproximateNumberOfMessages"
    return int(sqs.get_queue_attributes(QueueUrl=url, AttributeNames=[name])["Attributes"][name])


def break_the_rest(platform: Platform) -> None:
    """Leave a lock behind, let an alarm ring, change something that Terraform looks after."""
    platform.aws("s3").put_object(Bucket=BUCKET, Key="terraform.tfstate.tflock", Body=json.dumps(LOCK))
    cloudwatch = platform.aws("cloudwatch")
    cloudwatch.set_alarm_state(AlarmName=f"{PREFIX}_dead_letters", StateValue="ALARM", StateReason="tried by hand")
    sqs = platform.aws("sqs")
    url = sqs.get_queue_url(QueueName=f"{PREFIX}_agent_crashes")["QueueUrl"]
    sqs.set_queue_attributes(QueueUrl=url, Attributes={"MessageRetentionPeriod": "60"})


def repair(platform: Platform, runs: list[str]) -> None:
    """Do what status and doctor have said, as far as it is a command of the platform; the rest by hand."""
    platform.invoke("unlock", LOCK_ID)
    for run in runs:
        platform.prefect(f"/flow_runs/{run}", {}, "DELETE")
    platform.prefect(f"/work_pools/{PREFIX}", {"is_paused": False}, "PATCH")
    sqs = platform.aws("sqs")
    for name in ("task_events", "task_events_dead_letters", "agent_crashes"):
        sqs.purge_queue(QueueUrl=sqs.get_queue_url(QueueName=f"{PREFIX}_{name}")["QueueUrl"])
    platform.aws("cloudwatch").set_alarm_state(
        AlarmName=f"{PREFIX}_dead_letters", StateValue="OK", StateReason="tried by hand"
    )
    platform.invoke("deploy")
    platform.invoke("register", "--workflow-path", "examples/sample_workflow/workflow")


def test_whatever_is_wrong_is_found_with_what_to_do_and_is_well_again_when_it_was_done(
    sample_workflow: Platform, faults: Faults
) -> None:
    platform = sample_workflow
    before = platform.status()
    assert before["ok"] is True, before
    break_agent(platform)
    runs = break_runs(platform)
    break_images(platform)
    break_queues(platform)
    break_the_rest(platform)
    told = {part["name"]: part for part in platform.status()["components"]}
    doctor = platform.invoke("doctor", "--drift", check=False)
    begun = time.monotonic()
    repair(platform, runs)
    after = platform.status()
    recovered = time.monotonic() - begun

    lost = [name for name, words in FOUND_BY_STATUS.items() if not found(told[name], words)]
    fault = faults.record("parts that are wrong, found by status", len(FOUND_BY_STATUS), len(lost), [recovered])
    assert fault.lost == 0, {name: told[name] for name in lost}
    drift = ("resources differ from the settings", "update aws_sqs_queue.agent_crashes", "invoke deploy puts it right")
    missed = [] if doctor.returncode == 1 and all(words in doctor.stdout for words in drift) else [doctor.stdout]
    assert faults.record("drift, found by doctor", 1, len(missed)).lost == 0, missed
    assert after["ok"] is True, [part for part in after["components"] if not part["ok"]]


def found(part: dict[str, Any], words: tuple[str, str, str]) -> bool:
    """Whether a component is wrong, and says so with its reason and what to do."""
    told = (part["state"], part["why"], part["todo"])
    return part["ok"] is False and all(word in text for word, text in zip(words, told, strict=True))


Told = Callable[[], set[tuple[str, str]]]


@pytest.fixture
def topic(sample_workflow: Platform) -> Iterator[Told]:
    """A topic in the platform's settings; gives a function that tells of which alarms it was told which state."""
    settings = sample_workflow.folder / "environments" / "local.tfvars"
    text, heard = settings.read_text(), set[tuple[str, str]]()
    sns, sqs = sample_workflow.aws("sns"), sample_workflow.aws("sqs")
    assert sns.create_topic(Name=TOPIC.rpartition(":")[2])["TopicArn"] == TOPIC
    queue = sqs.create_queue(QueueName="told")["QueueUrl"]
    arn = sqs.get_queue_attributes(QueueUrl=queue, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]
    principal = {"Service": "sns.amazonaws.com"}
    sends = {"Effect": "Allow", "Principal": principal, "Action": "sqs:SendMessage", "Resource": arn}
    policy = json.dumps({"Version": "2012-10-17", "Statement": [sends]})
    sqs.set_queue_attributes(QueueUrl=queue, Attributes={"Policy": policy})
    sns.subscribe(TopicArn=TOPIC, Protocol="sqs", Endpoint=arn)

    def told() -> set[tuple[str, str]]:
        for message in sqs.receive_message(QueueUrl=queue, MaxNumberOfMessages=10).get("Messages", []):
            word = json.loads(json.loads(message["Body"])["Message"])
            heard.add((word["AlarmName"], word["NewStateValue"]))
        return heard

    settings.write_text(f'{text}\nalarm_topic_arn = "{TOPIC}"\n')
    sample_workflow.invoke("deploy")
    silence(sample_workflow)
    yield told
    settings.write_text(text)
    sample_workflow.invoke("deploy")
    silence(sample_workflow)
    sns.delete_topic(TopicArn=TOPIC)
    sqs.delete_queue(QueueUrl=queue)


def silence(platform: Platform) -> None:
    """Let no alarm ring; the emulated AWS looks at metrics when an alarm is changed, at those of a test too."""
    cloudwatch = platform.aws("cloudwatch")
    for alarm in cloudwatch.describe_alarms(AlarmNamePrefix=f"{PREFIX}_")["MetricAlarms"]:
        cloudwatch.set_alarm_state(AlarmName=alarm["AlarmName"], StateValue="OK", StateReason="tried by hand")


@pytest.mark.full
def test_topic_of_the_settings_is_told_when_an_alarm_rings_and_when_it_is_well_again(
    sample_workflow: Platform, topic: Told, faults: Faults
) -> None:
    """The metrics are put by hand: the emulated AWS has none of its own."""
    cloudwatch = sample_workflow.aws("cloudwatch")
    alarms = cloudwatch.describe_alarms(AlarmNamePrefix=f"{PREFIX}_")["MetricAlarms"]
    nobody = {"SampleCount": 0, "Sum": 0, "Minimum": 0, "Maximum": 0}
    bad: dict[str, dict[str, Any]] = {
        "agent_down": {"StatisticValues": nobody},
        "agent_crash_loop": {"Value": 3},
        "dead_letters": {"Value": 1},
    }
    assert {alarm["AlarmName"] for alarm in alarms} == {f"{PREFIX}_{name}" for name in bad}
    for alarm in alarms:
        values = bad[alarm["AlarmName"].removeprefix(f"{PREFIX}_")]
        datum = {"MetricName": alarm["MetricName"], "Dimensions": alarm["Dimensions"], **values}
        cloudwatch.put_metric_data(Namespace=alarm["Namespace"], MetricData=[datum])
    wanted = {(alarm["AlarmName"], state) for alarm in alarms for state in ("ALARM", "OK")}
    with contextlib.suppress(AssertionError):
        wait_for("word of all alarms", lambda: len(topic() & wanted) >= len(alarms), 20)
    silence(sample_workflow)
    with contextlib.suppress(AssertionError):
        wait_for("word that all is well", lambda: topic() >= wanted, 20)
    missed = wanted - topic()
    assert faults.record("alarms that ring and stop, told to the topic", len(wanted), len(missed)).lost == 0, missed


@pytest.mark.full
def test_alarm_for_a_missing_agent_is_silent_while_the_agent_is_down_on_purpose(sample_workflow: Platform) -> None:
    cloudwatch = sample_workflow.aws("cloudwatch")
    for command, rings in (("--down", False), ("--up", True)):
        sample_workflow.invoke("agent", command)
        [alarm] = cloudwatch.describe_alarms(AlarmNames=[f"{PREFIX}_agent_down"])["MetricAlarms"]
        assert alarm["ActionsEnabled"] is rings
