"""The schedules of a deployment at Prefect, and which schedules of prefect.yaml they are.

Prefect replaces all schedules of a deployment at once. So a schedule that stays is sent as it is: switched on or off as
it was at Prefect, unless prefect.yaml has `active`, and with the anchor from which its interval counts.
"""

import json
import re
from collections.abc import Iterator
from typing import Any

from register_action.overview import schedule_text
from register_action.registered import Registered

ADDED_START = re.compile(r"^DTSTART:\w+\n")
"""The moment of registration, which Prefect puts before a rule by the minute or second."""
Schedule = dict[str, Any]
Pair = tuple[Schedule | None, Schedule | None]
"""A schedule as prefect.yaml has it and as Prefect has it; None where there is none."""


def schedules_of(existing: Registered) -> list[Schedule]:
    """Return the schedules of a deployment as Prefect's API takes them."""
    return [
        {
            name: value
            for name, value in schedule.model_dump(mode="json").items()
            if name in ("schedule", "active", "max_scheduled_runs", "parameters", "slug") and value is not None
        }
        for schedule in existing.deployment.schedules
    ]


def in_order(schedule: Schedule) -> str:
    """Sort key by which equal sets of schedules are in the same order; their order means nothing to Prefect."""
    return json.dumps(schedule, sort_keys=True)


def paired(wanted: list[Schedule], there: list[Schedule]) -> list[Pair]:
    """Find the schedule at Prefect that each wanted one stands for, best matches first.

    Args:
        wanted: schedules of prefect.yaml; without `active` where the file has none.
        there: schedules at Prefect.
    """
    left = list(there)
    matches: dict[int, Schedule] = {}
    for are_same in (_are_alike, _have_same_slug, _have_same_rule):
        for position, one in enumerate(wanted):
            match = next((other for other in left if position not in matches and are_same(one, other)), None)
            if match is not None:
                matches[position] = match
                left.remove(match)
    unmatched = [position for position in range(len(wanted)) if position not in matches]
    if len(unmatched) == len(left) and len({other["active"] for other in left}) == 1:
        # All have changed, so which is which is not known; but all were on, or all were off.
        matches |= zip(unmatched, left, strict=True)
        left = []
    return [*((one, matches.get(position)) for position, one in enumerate(wanted)), *((None, other) for other in left)]


def merged(pairs: list[Pair]) -> list[Schedule]:
    """Return the schedules that a deployment shall have."""
    schedules = []
    for wanted, there in pairs:
        if wanted:
            active = wanted.get("active", there["active"] if there else True)
            schedules.append({**(there if there and _are_alike(wanted, there) else wanted), "active": active})
    return schedules


def choices(pairs: list[Pair], removed_because: str) -> Iterator[str]:
    """Say which schedules stay switched off although prefect.yaml has them, and which ones change.

    Args:
        pairs: of a deployment.
        removed_because: why those go that are not wanted.
    """
    for wanted, there in pairs:
        if not there:
            continue
        name = f"schedule {schedule_text({**(wanted or there), 'active': True})}"
        if not wanted:
            yield f"changed: {name} is removed; {removed_because}"
        elif "active" not in wanted and not there["active"]:
            yield f"kept: {name} is switched off at Prefect; `active: true` in prefect.yaml switches it on"
        elif wanted.get("active", there["active"]) != there["active"]:
            yield f"changed: {name} is switched {'on' if wanted['active'] else 'off'}, as prefect.yaml says"


def _are_alike(wanted: Schedule, there: Schedule) -> bool:
    return _have_same_rule(wanted, there) and all(wanted.get(key) == there.get(key) for key in ("parameters", "slug"))


def _have_same_slug(wanted: Schedule, there: Schedule) -> bool:
    return there.get("slug") is not None and there["slug"] in (wanted.get("replaces"), wanted.get("slug"))


def _have_same_rule(wanted: Schedule, there: Schedule) -> bool:
    """Compare when schedules are due; any start will do where none is wanted, and no time zone means UTC."""
    rule = there["schedule"]
    if "rrule" in rule and "DTSTART" not in wanted["schedule"].get("rrule", "").upper():
        rule = {**rule, "rrule": ADDED_START.sub("", rule["rrule"])}
    completed = {"timezone": "UTC", **{key: rule[key] for key in rule if key == "anchor_date"}, **wanted["schedule"]}
    return bool(completed == {**rule, "timezone": rule.get("timezone") or "UTC"})
