"""Alarms in the query protocol, as Terraform speaks it; boto3 speaks JSON."""

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import urlencode

import botocore.session
import pytest
from botocore.parsers import QueryParser
from ministack.services import cloudwatch

from environments.emulated_cloudwatch import as_data, as_xml, describe_alarms_in_full

ALARM = {
    "AlarmName": "down",
    "AlarmDescription": "nobody <works> & waits",
    "Namespace": "AWS/SQS",
    "MetricName": "Sent",
    "Statistic": "Sum",
    "Period": "60",
    "EvaluationPeriods": "5",
    "Threshold": "1",
    "ComparisonOperator": "LessThanThreshold",
    "TreatMissingData": "breaching",
    "Dimensions.member.1.Name": "QueueName",
    "Dimensions.member.1.Value": "events",
    "AlarmActions.member.1": "arn:aws:sns:eu-west-1:123456789012:alarms",
}
SERVICE = botocore.session.get_session().get_service_model("cloudwatch")
Ask = Callable[..., dict[str, Any]]


@pytest.fixture
def ask(monkeypatch: pytest.MonkeyPatch) -> Ask:
    """Put an alarm into an adapted CloudWatch; gives what asks it in the query protocol, and reads as clients do."""
    monkeypatch.setattr(cloudwatch, "_alarms", type(cloudwatch._alarms)())
    monkeypatch.setattr(cloudwatch, "_describe_alarms", cloudwatch._describe_alarms)
    describe_alarms_in_full(cloudwatch)

    def asked(action: str, **parameters: Any) -> dict[str, Any]:
        body = urlencode({"Action": action, **parameters}).encode()
        headers = {"content-type": "application/x-www-form-urlencoded"}
        status, _, answer = asyncio.run(cloudwatch.handle_request("POST", "/", headers, body, {}))
        shape = SERVICE.operation_model(action).output_shape
        read: dict[str, Any] = QueryParser().parse({"status_code": status, "headers": {}, "body": answer}, shape)
        return read

    asked("PutMetricAlarm", **ALARM)
    return asked


def test_all_of_an_alarm_is_told(ask: Ask) -> None:
    [alarm] = ask("DescribeAlarms", **{"AlarmNames.member.1": "down"})["MetricAlarms"]

    for name, given in ALARM.items():
        if "." not in name:
            assert str(alarm[name]).removesuffix(".0") == given
    assert alarm["ActionsEnabled"] is True
    assert alarm["Dimensions"] == [{"Name": "QueueName", "Value": "events"}]
    assert alarm["AlarmActions"] == [ALARM["AlarmActions.member.1"]]
    assert datetime.now(UTC) - alarm["StateUpdatedTimestamp"] < timedelta(minutes=10)


@pytest.mark.parametrize(
    ("asked", "count"),
    [({}, 1), ({"AlarmNames.member.1": "other"}, 0), ({"AlarmNamePrefix": "do"}, 1), ({"StateValue": "ALARM"}, 0)],
)
def test_only_alarms_that_were_asked_for_are_told(ask: Ask, asked: dict[str, str], count: int) -> None:
    assert len(ask("DescribeAlarms", **asked)["MetricAlarms"]) == count


def test_what_is_refused_is_refused_in_the_same_protocol(ask: Ask) -> None:
    assert "maxRecords" in ask("DescribeAlarms", MaxRecords="1000")["Error"]["Message"]


def test_parameters_and_answers_keep_their_form() -> None:
    assert as_data({"A": ["x"], "B.member.1": ["y"], "B.member.2": "z"}) == {"A": "x", "B": ["y", "z"]}
    assert as_xml({"A": [{"B": True}, {"B": None}], "C": 1.5}) == (
        "<A><member><B>true</B></member><member></member></A><C>1.5</C>"
    )
