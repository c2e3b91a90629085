"""The schedules of a deployment: what `prefect.yaml` may say of them, and how Prefect's API wants to be told.

Cron, rrule and time zone are judged as the pinned Prefect does (`prefect.client.schemas.schedules`,
`prefect._internal.schemas.validators`). Source: https://docs.prefect.io/v3/concepts/schedules
"""

import dataclasses
import datetime
import difflib
import functools
import importlib.machinery
import importlib.metadata
import json
import re
import types
import zoneinfo
from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, ConfigDict, Field, with_config

from register_action.yaml_text import Place, Reading, number

MAXIMUM_RRULE = 6400  # Prefect's is 6500, with the start that it adds
RRULE_START = datetime.datetime(2020, 1, 1)
"""Where Prefect begins to count (`prefect._internal.schemas.validators`)."""


def _cron(text: str) -> str:
    try:
        # Prefect does without H and R, which croniter has.
        if {"h", "r"} & {*text.lower().split()}:
            raise ValueError("H and R are not supported")
        _croniter()(text).get_next()
    except Exception as error:  # also when it never comes due
        raise ValueError(f"should be a cron expression: {str(error).rstrip('.')}") from error
    return text


@functools.cache
def _croniter() -> Any:
    """The library by which Prefect reads cron: from its file, since importing a part of Prefect imports all of it."""
    file = importlib.metadata.distribution("prefect").locate_file("prefect/_vendor/croniter/croniter.py")
    loader = importlib.machinery.SourceFileLoader("croniter", str(file))
    module = types.ModuleType(loader.name)
    loader.exec_module(module)
    return module.croniter


def _rrule(text: str) -> str:
    """Check a recurrence rule and give it the start that Prefect gives one without, so that its answer is the same."""
    from dateutil.rrule import rrulestr

    upper = text.upper()
    try:
        if "DTSTART" not in upper and re.search(r"UNTIL=\w+Z", upper):
            raise ValueError("UNTIL with a Z needs a DTSTART with one")
        rrulestr(text, dtstart=RRULE_START)
        # Prefect would look for the next run for ever.
        if any(int(digits) < 1 for digits in re.findall(r"INTERVAL=([+-]?\d+)", upper)):
            raise ValueError("INTERVAL must be 1 or more")
        if len(text) > MAXIMUM_RRULE:
            raise ValueError(f"it is longer than {MAXIMUM_RRULE} characters")
    except Exception as error:  # dateutil's errors are of many kinds
        raise ValueError(f"should be a recurrence rule: {error}") from error
    # Prefect lets these start when they are registered, or counting from 2020 would take too long.
    frequent = re.search("FREQ=(SECONDLY|MINUTELY)", upper) and "COUNT" not in upper
    return text if frequent or "DTSTART" in upper else f"DTSTART:{RRULE_START:%Y%m%dT%H%M%S}\n{text}"


def _time_zone(text: str) -> str:
    if text not in _time_zones():
        close = difflib.get_close_matches(text, _time_zones(), n=1)
        raise ValueError("should be a time zone" + (f"; did you mean {close[0]}?" if close else ""))
    return text


@functools.cache
def _time_zones() -> list[str]:
    # Two that some machines have and Prefect refuses.
    return sorted(zoneinfo.available_timezones() - {"Factory", "localtime"})


def _json_rrule(schedule: Any) -> Any:
    """A schedule of which the rrule is JSON that holds rule and time zone, which Prefect takes too, as a plain one."""
    try:
        inner = json.loads(schedule["rrule"])
        return {**inner, **schedule, "rrule": inner["rrule"]}
    except (TypeError, LookupError, ValueError, RecursionError):
        return schedule


@with_config(ConfigDict(extra="forbid"))
@dataclasses.dataclass(frozen=True)
class Schedule:
    """One schedule of `prefect.yaml`, checked."""

    cron: Annotated[str, AfterValidator(_cron)] | None = None
    interval: Annotated[datetime.timedelta, Field(gt=datetime.timedelta()), BeforeValidator(number)] | None = None
    rrule: Annotated[str, AfterValidator(_rrule)] | None = None
    timezone: Annotated[str, AfterValidator(_time_zone)] | None = None
    anchor_date: datetime.datetime | None = None
    day_or: bool | None = None
    active: bool | None = None
    parameters: dict[str, Any] | None = None
    slug: str | None = None
    replaces: str | None = None

    def __post_init__(self) -> None:
        given = [kind for kind in ("cron", "interval", "rrule") if getattr(self, kind) is not None]
        if len(given) != 1:
            raise ValueError(f"should have one of cron, interval and rrule, has {' and '.join(given) or 'none'}")


Scheduled = Annotated[Schedule, BeforeValidator(_json_rrule)]
"""A schedule as an entry may have it."""


def for_api(reading: Reading, found: list[tuple[Place, Schedule]]) -> tuple[dict[str, Any], ...]:
    """The schedules of one deployment as Prefect's API wants them.

    Args:
        reading: where problems and what is not used are noted.
        found: the schedules with their places in the file.
    """
    for key in ("slug", "replaces"):
        names = set()
        for at, schedule in found:
            if (name := getattr(schedule, key)) in names:
                reading.problem((*at, key), f"is {name!r} in another schedule too")
            names |= {name} - {None}
    return tuple(_told(reading, at, schedule) for at, schedule in found)


def _told(reading: Reading, place: Place, schedule: Schedule) -> dict[str, Any]:
    """A schedule as Prefect's API wants it; `active` only if the file has it."""
    rule: dict[str, Any] = {"timezone": schedule.timezone} if schedule.timezone else {}
    for key, kind in (("day_or", "cron"), ("anchor_date", "interval")):
        if getattr(schedule, key) is not None and getattr(schedule, kind) is None:
            reading.report((*place, key), f"is not used; it goes with {kind}")
    if schedule.cron is not None:
        rule |= {"cron": schedule.cron, "day_or": schedule.day_or is not False}
    elif schedule.interval is not None:
        rule["interval"] = schedule.interval.total_seconds()
        if anchor := schedule.anchor_date:
            # Prefect takes a time without a zone for UTC, which it writes with a Z.
            text = anchor.replace(tzinfo=anchor.tzinfo or datetime.UTC).isoformat()
            rule["anchor_date"] = text.replace("+00:00", "Z")
    else:
        rule["rrule"] = schedule.rrule
    return {
        "schedule": rule,
        "parameters": schedule.parameters or {},
        **{key: said for key in ("active", "slug", "replaces") if (said := getattr(schedule, key)) is not None},
    }
