"""Which schedule at Prefect a schedule of prefect.yaml stands for; test_changes.py shows what becomes of them."""

from typing import Any

import pytest

from register_action.deployed_schedules import choices, merged, paired

NIGHT = {"cron": "0 4 * * *", "timezone": "UTC", "day_or": True}
NOON = {"cron": "0 12 * * *", "timezone": "UTC", "day_or": True}


def wanted(rule: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"schedule": rule, "parameters": {}, **more}


def there(rule: dict[str, Any], active: bool = True, **more: Any) -> dict[str, Any]:
    return {"schedule": rule, "active": active, "parameters": {}, **more}


def _is_kept(rule: dict[str, Any], existing: dict[str, Any]) -> bool:
    """Whether a schedule at Prefect stays as it is, its start included."""
    return merged(paired([wanted(rule)], [there(existing)])) == [there(existing)]


def test_rule_by_the_minute_goes_on_from_the_start_that_prefect_gave_it() -> None:
    rule = {"rrule": "FREQ=MINUTELY;INTERVAL=15", "timezone": "UTC"}
    there = {**rule, "rrule": f"DTSTART:20261123T100000\n{rule['rrule']}"}
    other = {**rule, "rrule": "DTSTART:20261123T100000\nFREQ=MINUTELY"}

    assert _is_kept(rule, there)
    assert not _is_kept(rule, other)
    assert not _is_kept(there, rule)


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize(
    ("one", "other"),
    [
        (there(NIGHT), there(NOON)),
        (there(NIGHT, parameters={"day": "x"}), there(NIGHT)),
        (there(NIGHT, slug="a"), there(NIGHT, slug="b")),
        (there(NIGHT), there(NIGHT)),
    ],
)
def test_each_schedule_is_paired_with_the_one_that_is_like_it(
    one: dict[str, Any], other: dict[str, Any], reverse: bool
) -> None:
    asked = [{name: value for name, value in each.items() if name != "active"} for each in (one, other)]
    at_prefect = [other, one] if reverse else [one, other]

    assert paired(asked, at_prefect) == [(asked[0], one), (asked[1], other)]


def test_name_of_a_schedule_counts_more_than_its_rule() -> None:
    asked = [wanted(NIGHT, slug="b"), wanted(NOON, slug="c", replaces="a")]
    at_prefect = [there(NIGHT, slug="a"), there(NOON, slug="b")]

    assert paired(asked, at_prefect) == [(asked[0], at_prefect[1]), (asked[1], at_prefect[0])]


def test_schedules_that_cannot_be_told_apart_are_new_and_gone() -> None:
    asked, at_prefect = [wanted(NIGHT), wanted(NOON)], [there({"interval": 60.0}, False), there({"interval": 90.0})]
    pairs = paired(asked, at_prefect)

    assert merged(pairs) == [there(NIGHT), there(NOON)]
    assert list(choices(pairs, "the file does not have it")) == [
        "changed: schedule every 60 s is removed; the file does not have it",
        "changed: schedule every 90 s is removed; the file does not have it",
    ]


@pytest.mark.parametrize("active", [True, False])
def test_schedules_that_have_all_changed_are_on_or_off_as_all_were(active: bool) -> None:
    asked = [wanted(NIGHT), wanted(NOON)]
    pairs = paired(asked, [there({"interval": 60.0}, active), there({"interval": 90.0}, active)])

    assert merged(pairs) == [there(NIGHT, active), there(NOON, active)]
    assert [note.partition(" is ")[0] for note in choices(pairs, "")] == (
        [] if active else ["kept: schedule 0 4 * * *", "kept: schedule 0 12 * * *"]
    )


def test_schedule_that_stays_has_all_that_it_had() -> None:
    existing = there({"interval": 60.0, "anchor_date": "2026-11-30T10:00:00Z", "timezone": "UTC"}, False)
    existing["max_scheduled_runs"] = 3

    assert merged(paired([wanted({"interval": 60.0})], [existing])) == [existing]
    assert merged(paired([wanted({"interval": 60.0}, active=True)], [existing])) == [{**existing, "active": True}]
