import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from environments.errors import PlatformError
from environments.settings import ROOT
from register_action import schedules
from unit_tests.register_action.prefect_files import declared_by, problems_of, yaml_of


@pytest.mark.parametrize(
    ("schedule", "problem"),
    [
        ({}, " should have one of cron, interval and rrule, has none"),
        ({"cron": "@daily", "interval": 5}, " should have one of cron, interval and rrule, has cron and interval"),
        ("@daily", " is '@daily', should be a mapping"),
        ({"cron": "* * *"}, ".cron is '* * *', should be a cron expression: Exactly 5"),
        ({"cron": "H * * * *"}, ".cron is 'H * * * *', should be a cron expression: H and R are not supported"),
        ({"cron": "0 0 30 2 *"}, ".cron is '0 0 30 2 *', should be a cron expression: failed to find next date"),
        ({"cron": 5}, ".cron is 5, should be text"),
        ({"cron": "{{ prefect.variables.cron }}"}, ".cron can't have {{ prefect.variables.cron }}; register fills in"),
        ({"interval": 0}, ".interval is 0, should be greater than 0 seconds"),
        ({"interval": -60}, ".interval is -60, should be greater than 0 seconds"),
        ({"interval": "often"}, ".interval is 'often', should be a number of seconds, or a time such as PT1H"),
        ({"interval": True}, ".interval is True, should be a number"),
        ({"interval": 60, "anchor_date": "soon"}, ".anchor_date is 'soon', should be a date and time such as"),
        ({"rrule": "FREQ=NEVER"}, ".rrule is 'FREQ=NEVER', should be a recurrence rule: invalid 'FREQ': NEVER"),
        ({"rrule": "FREQ=DAILY;UNTIL=20300101T000000Z"}, ".rrule is 'FREQ=DAILY;"),
        ({"rrule": "BYDAY=MO"}, ".rrule is 'BYDAY=MO', should be a recurrence rule"),
        (
            {"rrule": "FREQ=DAILY;INTERVAL=0"},
            ".rrule is 'FREQ=DAILY;INTERVAL=0', should be a recurrence rule: INTERVAL",
        ),
        (
            {"interval": 5, "timezone": "Europe/Berln"},
            ".timezone is 'Europe/Berln', should be a time zone; did you mean Eu",
        ),
        ({"cron": "@daily", "intervall": 5}, ".intervall is no key of Prefect's; did you mean interval?"),
        ({"cron": "@daily", "active": "perhaps"}, ".active is 'perhaps', should be true or false"),
        ({"cron": "@daily", "parameters": []}, ".parameters is [], should be a mapping"),
        ({"cron": "@daily", "slug": "first"}, ".slug is 'first' in another schedule too"),
        ({"cron": "@daily", "replaces": "old"}, ".replaces is 'old' in another schedule too"),
    ],
)
def test_wrong_schedule_is_a_problem(tmp_path: Path, schedule: Any, problem: str) -> None:
    first = {"interval": "PT1H", "slug": "first", "replaces": "old"}
    [told] = problems_of(tmp_path, yaml_of(schedules=[first, schedule]))

    assert told.partition(": ")[2].startswith(f"schedules[1]{problem}")


@pytest.mark.parametrize("entry", [{"schedule": {}}, {"schedule": None}, {"schedules": []}, {"schedules": None}])
def test_empty_schedule_is_none(tmp_path: Path, entry: dict[str, Any]) -> None:
    assert declared_by(tmp_path, **entry).schedules == ()


SCHEDULES = [
    ({"cron": "0 6 * * mon#1", "day_or": False}, {"cron": "0 6 * * mon#1", "day_or": False}),
    ({"cron": "@daily", "timezone": "Asia/Tokyo"}, {"cron": "@daily", "day_or": True, "timezone": "Asia/Tokyo"}),
    ({"interval": 0.5}, {"interval": 0.5}),
    ({"interval": "PT1H"}, {"interval": 3600.0}),
    ({"interval": "01:00:00", "timezone": "UTC"}, {"interval": 3600.0, "timezone": "UTC"}),
    (
        {"interval": 60, "anchor_date": "2026-01-31 06:00"},
        {"interval": 60.0, "anchor_date": "2026-01-31T06:00:00Z"},
    ),
    (
        {"interval": 60, "anchor_date": "2026-01-31T06:00:00+02:00"},
        {"interval": 60.0, "anchor_date": "2026-01-31T06:00:00+02:00"},
    ),
    ({"rrule": "FREQ=DAILY;BYHOUR=6"}, {"rrule": "DTSTART:20200101T000000\nFREQ=DAILY;BYHOUR=6"}),
    ({"rrule": "FREQ=MINUTELY;COUNT=9"}, {"rrule": "DTSTART:20200101T000000\nFREQ=MINUTELY;COUNT=9"}),
    ({"rrule": "FREQ=MINUTELY"}, {"rrule": "FREQ=MINUTELY"}),
    (
        {"rrule": "DTSTART:20260101T060000\nRRULE:FREQ=WEEKLY", "timezone": "Europe/Berlin"},
        {"rrule": "DTSTART:20260101T060000\nRRULE:FREQ=WEEKLY", "timezone": "Europe/Berlin"},
    ),
    (
        {"rrule": '{"rrule": "RRULE:FREQ=DAILY", "timezone": "UTC"}'},
        {"rrule": "DTSTART:20200101T000000\nRRULE:FREQ=DAILY", "timezone": "UTC"},
    ),
]


@pytest.mark.parametrize(("written", "read"), SCHEDULES)
@pytest.mark.parametrize("key", ["schedule", "schedules"])
def test_schedule_is_as_prefect_wants_it(tmp_path: Path, key: str, written: Any, read: Any) -> None:
    from prefect.client.schemas.actions import DeploymentScheduleCreate

    more = {"active": "off", "parameters": {"day": 1}, "slug": "first", "replaces": "old"}
    written = {**written, **more}
    [schedule] = declared_by(tmp_path, **{key: written if key == "schedule" else [written]}).schedules
    taken = DeploymentScheduleCreate.model_validate(json.loads(json.dumps(schedule))).model_dump(mode="json")
    if read == {"rrule": "FREQ=MINUTELY"}:  # Prefect makes up where this one starts, anew each time
        taken["schedule"]["rrule"] = taken["schedule"]["rrule"].partition("\n")[2]

    assert schedule == {"schedule": read, **more, "active": False}
    assert {key: taken["schedule"][key] for key in read} == read
    assert {key: taken[key] for key in more} == {**more, "active": False}


@pytest.mark.parametrize("text", ["* * * *", "* * * * * *", "@hourly", "0 0 * * 7", "60 * * * *", "R * * * *", "a b c"])
def test_cron_expressions_are_judged_as_prefect_does(tmp_path: Path, text: str) -> None:
    from prefect.client.schemas.schedules import CronSchedule

    verdicts = []
    for judge in (lambda: CronSchedule(cron=text), lambda: declared_by(tmp_path, schedule={"cron": text})):
        try:
            judge()
            verdicts.append(True)
        except (ValueError, PlatformError):
            verdicts.append(False)

    assert verdicts[0] == verdicts[1]


def test_prefect_is_not_imported(tmp_path: Path) -> None:
    (tmp_path / "prefect.yaml").write_text(yaml_of(schedules=[schedule for schedule, _ in SCHEDULES]))
    script = (
        "import sys, pathlib; from register_action.prefect_yaml import read; "
        f"print(len(read(pathlib.Path({str(tmp_path)!r}), {{}}).deployments), 'prefect' in sys.modules)"
    )
    run = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)

    assert run.stdout.split() == ["1", "False"]


def test_time_zones_are_those_that_prefect_takes() -> None:
    from prefect.client.schemas.schedules import RRuleSchedule

    zones = schedules._time_zones()
    for zone in zones:
        RRuleSchedule(rrule="FREQ=DAILY", timezone=zone)

    assert {"UTC", "Europe/Berlin"} <= set(zones)
