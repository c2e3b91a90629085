"""CloudWatch of the emulated AWS: whoever asks in the query protocol, as Terraform does, is told all of an alarm.

The emulator leaves out most of it there, and Terraform would find a change in every plan.
"""

import json
import re
from datetime import UTC, datetime
from typing import Any
from xml.sax.saxutils import escape


def describe_alarms_in_full(cloudwatch: Any) -> None:
    """Answer DescribeAlarms in the query protocol with what the JSON protocol tells.

    Args:
        cloudwatch: the emulator's CloudWatch module; the function replaced is a private one of a pinned version.
    """
    describe = cloudwatch._describe_alarms

    def describe_in_full(parameters: dict[str, Any], data: Any, is_cbor: bool, is_json: bool = False) -> Any:
        if is_cbor or is_json:
            return describe(parameters, data, is_cbor, is_json)
        status, _, body = describe(parameters, as_data(parameters), False, True)
        if status != 200:
            return describe(parameters, data, is_cbor, is_json)
        answer = f"<DescribeAlarmsResult>{as_xml(json.loads(body))}</DescribeAlarmsResult>"
        return cloudwatch._xml(status, "DescribeAlarmsResponse", answer)

    cloudwatch._describe_alarms = describe_in_full


def as_data(parameters: dict[str, Any]) -> dict[str, Any]:
    """Parameters of the query protocol as those of the JSON protocol: `Name.member.1` and so on become a list."""
    data: dict[str, Any] = {}
    for name, given in parameters.items():
        value = given[0] if isinstance(given, list) else given
        if member := re.fullmatch(r"(\w+)\.member\.\d+", name):
            data.setdefault(member[1], []).append(value)
        else:
            data[name] = value
    return data


def as_xml(value: Any) -> str:
    """An answer of the JSON protocol in that of the query protocol."""
    if isinstance(value, dict):
        parts = {name: _moment(part) if name.endswith("Timestamp") else part for name, part in value.items()}
        return "".join(f"<{name}>{as_xml(part)}</{name}>" for name, part in parts.items() if part is not None)
    if isinstance(value, list):
        return "".join(f"<member>{as_xml(part)}</member>" for part in value)
    return str(value).lower() if isinstance(value, bool) else escape(str(value))


def _moment(epoch: float) -> str:
    """A time as the query protocol has it: JSON has seconds since 1970."""
    return f"{datetime.fromtimestamp(epoch, UTC):%Y-%m-%dT%H:%M:%SZ}"
