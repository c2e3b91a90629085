from dataclasses import replace
from typing import Any

import pytest

from environments.errors import PlatformError
from environments.settings import Environment
from register_action import changes, workflow_image
from register_action.changes import foresee, project_of
from register_action.workflow import Choice
from unit_tests.register_action.conftest import (
    IMAGE,
    ORIGIN,
    OTHER_IMAGE,
    PARAMETERS,
    FakePrefect,
    HandOver,
    Register,
    actions,
    described,
)

ANY_NAME = {
    **PARAMETERS,
    "properties": {**PARAMETERS["properties"], "more": {"type": "object", "x-python-kind": "VAR_KEYWORD"}},
}
ENTRY = """deployments:
  - name: dev
    entrypoint: flow.py:sales
"""
SAID = {
    "description": "description: Sales of the day",
    "tags": "tags: [shop]",
    "parameters": "parameters: {limit: 3}",
    "paused": "paused: true",
    "enforce": "enforce_parameter_schema: false",
    "concurrency": "concurrency_limit: {limit: 2, collision_strategy: CANCEL_NEW, grace_period_seconds: 60}",
    "size": "work_pool: {job_variables: {cpu: 1024, memory: 4096, env: {MODE: fast}}}",
    "schedules": "schedules: [{cron: '0 6 * * *', timezone: Asia/Tokyo, active: false, slug: a, parameters: {day: x}}]",
}
CRON = {"cron": "30 4 * * *", "timezone": None, "day_or": True}
BY_HAND = [{"schedule": CRON, "active": False, "parameters": {"day": "x"}, "slug": None, "max_scheduled_runs": 2}]
LIMIT = {"name": "limit", "limit": 7, "active_slots": 0, "slot_decay_per_second": 0}


def _yaml(*said: str) -> str:
    return ENTRY + "".join(f"    {line}\n" for line in said)


def _schedules(prefect: FakePrefect) -> list[Any]:
    return [each.model_dump(mode="json")["schedule"] for each in prefect.deployments["sales/dev"].schedules]


def test_what_only_the_page_says_stays(hand_over: HandOver, register: Register, prefect: FakePrefect) -> None:
    register(hand_over("sales"))
    prefect.edit("sales/dev", schedules=BY_HAND, parameters={"limit": 3}, global_concurrency_limit=LIMIT, paused=True)
    unchanged = register(hand_over("sales"))
    updated = register(hand_over("sales"), image=OTHER_IMAGE)
    after = prefect.deployments["sales/dev"]

    assert (actions(unchanged), actions(updated)) == ({"sales/dev": "keep"}, {"sales/dev": "update"})
    assert [(each.active, each.parameters) for each in after.schedules] == [(False, {"day": "x"})]
    assert _schedules(prefect) == [CRON]
    assert after.parameters == {"limit": 3}
    assert after.global_concurrency_limit.limit == 7
    assert after.paused is True


def test_what_prefect_yaml_said_goes_with_it(hand_over: HandOver, register: Register, prefect: FakePrefect) -> None:
    register(hand_over("sales", prefect_yaml=_yaml(SAID["schedules"], SAID["parameters"], SAID["concurrency"])))
    said = prefect.deployments["sales/dev"]
    gone = register(hand_over("sales"))
    after = prefect.deployments["sales/dev"]

    assert (len(said.schedules), said.parameters, said.global_concurrency_limit.limit) == (1, {"limit": 3}, 2)
    assert actions(gone) == {"sales/dev": "update"}
    assert (after.schedules, after.parameters, after.global_concurrency_limit) == ([], {}, None)
    assert after.concurrency_options is None
    prefect.edit("sales/dev", schedules=BY_HAND, parameters={"limit": 4})
    assert actions(register(hand_over("sales"))) == {"sales/dev": "keep"}


def test_prefect_yaml_goes_before_the_page(hand_over: HandOver, register: Register, prefect: FakePrefect) -> None:
    text = _yaml(SAID["parameters"], SAID["schedules"])
    register(hand_over("sales", prefect_yaml=text))
    prefect.edit("sales/dev", schedules=BY_HAND, parameters={"limit": 9}, global_concurrency_limit=LIMIT)
    register(hand_over("sales", prefect_yaml=text))
    after = prefect.deployments["sales/dev"]

    assert _schedules(prefect) == [{"cron": "0 6 * * *", "timezone": "Asia/Tokyo", "day_or": True}]
    assert (after.parameters, after.global_concurrency_limit) == ({"limit": 3}, None)


@pytest.mark.parametrize("paused", [True, False])
def test_deployment_paused_by_hand_stays_paused_unless_prefect_yaml_has_a_say(
    hand_over: HandOver, register: Register, prefect: FakePrefect, paused: bool
) -> None:
    register(hand_over("sales", prefect_yaml=_yaml()))
    prefect.edit("sales/dev", paused=True)
    register(hand_over("sales", prefect_yaml=_yaml()), image=OTHER_IMAGE)
    assert prefect.deployments["sales/dev"].paused is True

    register(hand_over("sales", prefect_yaml=_yaml(f"paused: {str(paused).lower()}")))
    assert prefect.deployments["sales/dev"].paused is paused


EDITS: dict[str, Any] = {
    "version": "f00",
    "description": "By hand",
    "tags": ["dev", "etl", "shop", "by-hand"],
    "labels": {"workflow": "etl", "origin": ORIGIN, "preview": "", "declared_in": "", "described_in": ""},
    "entrypoint": "flow.py:old",
    "pull_steps": [],
    "parameter_openapi_schema": {**PARAMETERS, "required": []},
    "enforce_parameter_schema": True,
    "schedules": [],
    "parameters": {"limit": 3, "day": "x"},
    "concurrency_options": {"collision_strategy": "CANCEL_NEW", "grace_period_seconds": 120},
    "global_concurrency_limit": LIMIT,
    "paused": False,
}


@pytest.mark.parametrize("field", list(EDITS))
def test_any_field_that_differs_is_put_right(
    hand_over: HandOver, register: Register, prefect: FakePrefect, field: str
) -> None:
    [created] = register(hand_over("sales", prefect_yaml=_yaml(*SAID.values())))
    known = {"global_concurrency_limit" if name == "concurrency_limit" else name for name in created.payload}
    before = prefect.deployments["sales/dev"]
    prefect.edit("sales/dev", **{field: EDITS[field]})
    [change] = register(hand_over("sales", prefect_yaml=_yaml(*SAID.values())))

    assert known == {*EDITS, "name", "work_pool_name", "job_variables"}
    assert change.action == "update"
    fresh = {"schedules": before.schedules, "global_concurrency_limit": before.global_concurrency_limit}
    assert prefect.deployments["sales/dev"].model_copy(update=fresh) == before
    assert [change.action for change in register(hand_over("sales", prefect_yaml=_yaml(*SAID.values())))] == ["keep"]


@pytest.mark.parametrize("edit", [{"cpu": 256}, {"cpu": None}, {"image": "latest"}, {"command": "sh"}, {"env": {}}])
def test_job_variables_changed_by_hand_are_put_right(
    hand_over: HandOver, register: Register, prefect: FakePrefect, edit: dict[str, Any]
) -> None:
    register(hand_over("sales", prefect_yaml=_yaml(SAID["size"])))
    right = prefect.deployments["sales/dev"].job_variables
    prefect.edit("sales/dev", job_variables={**right, **edit})

    assert actions(register(hand_over("sales", prefect_yaml=_yaml(SAID["size"])))) == {"sales/dev": "update"}
    assert prefect.deployments["sales/dev"].job_variables == right


@pytest.mark.parametrize("said", list(SAID))
def test_line_that_goes_from_prefect_yaml_is_a_change_unless_it_is_paused(
    hand_over: HandOver, register: Register, said: str
) -> None:
    register(hand_over("sales", prefect_yaml=_yaml(*SAID.values())))
    done = register(hand_over("sales", prefect_yaml=_yaml(*(SAID[name] for name in SAID if name != said))))

    assert actions(done) == {"sales/dev": "keep" if said == "paused" else "update"}


@pytest.mark.parametrize(
    "part",
    [
        "timezone: Asia/Tokyo, ",
        "slug: a, ",
        ", parameters: {day: x}",
        ", grace_period_seconds: 60",
        ", collision_strategy: CANCEL_NEW, grace_period_seconds: 60",
        "limit: 2, ",
        "env: {MODE: fast}",
    ],
)
def test_part_of_a_line_that_goes_is_a_change_too(hand_over: HandOver, register: Register, part: str) -> None:
    text = _yaml(SAID["schedules"], SAID["concurrency"], SAID["size"])
    register(hand_over("sales", prefect_yaml=text))
    assert part in text

    done = [register(hand_over("sales", prefect_yaml=text.replace(part, ""))) for _ in range(2)]
    assert list(map(actions, done)) == [{"sales/dev": "update"}, {"sales/dev": "keep"}]


DAILY = "cron: '0 6 * * *'"
HOURLY = "interval: 3600"


def _switch(prefect: FakePrefect, active: bool, *parts: str) -> None:
    """Switch schedules on or off by hand; all of them, or those that hold one of these parts."""
    there = [each.model_dump(mode="json") for each in prefect.deployments["sales/dev"].schedules]
    changed = [
        {**each, "active": active} if any(part in str(each) for part in parts or "{") else each for each in there
    ]
    prefect.edit("sales/dev", schedules=changed)


def _switches(prefect: FakePrefect) -> dict[str, bool]:
    """Which schedules are on, by their rule and parameter."""
    switches = {}
    for each in prefect.deployments["sales/dev"].schedules:
        rule = each.model_dump(mode="json")["schedule"]
        switches[f"{rule.get('cron') or rule['interval']} {each.parameters.get('day', '')}".strip()] = each.active
    return switches


OFF = "is switched off at Prefect; `active: true` in prefect.yaml switches it on"


@pytest.mark.parametrize(
    ("after", "rule", "shown"),
    [
        (f"{{{DAILY}}}", "0 6 * * *", "0 6 * * *"),
        (f"{{{DAILY}, parameters: {{day: x}}}}", "0 6 * * * x", "0 6 * * *"),
        (f"{{{DAILY}, slug: new}}", "0 6 * * *", "0 6 * * *"),
        ("{cron: '0 7 * * *', timezone: Asia/Tokyo}", "0 7 * * *", "0 7 * * * Asia/Tokyo"),
        (f"{{{HOURLY}}}", "3600.0", "every 3600 s"),
    ],
)
def test_schedule_that_was_switched_off_by_hand_stays_off_whatever_else_changes(
    hand_over: HandOver, register: Register, prefect: FakePrefect, after: str, rule: str, shown: str
) -> None:
    register(hand_over("sales", prefect_yaml=_yaml(f"schedules: [{{{DAILY}}}]")))
    _switch(prefect, False)
    for _ in range(2):
        [change] = register(hand_over("sales", prefect_yaml=_yaml(f"schedules: [{after}]")), image=OTHER_IMAGE)

        assert _switches(prefect) == {rule: False}
        assert change.notes == (f"kept: schedule {shown} {OFF}",)


def test_each_schedule_keeps_its_own_switch(hand_over: HandOver, register: Register, prefect: FakePrefect) -> None:
    same = f"{{{DAILY}, parameters: {{day: x}}}}, {{{DAILY}}}, {{{HOURLY}}}"
    before = f"{same}, {{cron: '0 9 * * *', slug: late}}"
    after = f"{{cron: '0 8 * * *'}}, {{cron: '0 10 * * *', slug: late}}, {same}"
    register(hand_over("sales", prefect_yaml=_yaml(f"schedules: [{before}]")))
    _switch(prefect, False, "'x'", "0 9 * * *")
    [change] = register(hand_over("sales", prefect_yaml=_yaml(f"schedules: [{after}]")))

    assert _switches(prefect) == {
        "0 6 * * * x": False,
        "0 6 * * *": True,
        "3600.0": True,
        "0 10 * * *": False,
        "0 8 * * *": True,
    }
    assert change.notes == (f"kept: schedule 0 10 * * * {OFF}", f"kept: schedule 0 6 * * * {OFF}")


@pytest.mark.parametrize("active", [True, False])
def test_prefect_yaml_that_says_so_switches_a_schedule_and_that_is_told(
    hand_over: HandOver, register: Register, prefect: FakePrefect, active: bool
) -> None:
    register(hand_over("sales", prefect_yaml=_yaml(f"schedules: [{{{DAILY}, timezone: Asia/Tokyo}}]")))
    _switch(prefect, not active)
    text = f"schedules: [{{{DAILY}, timezone: Asia/Tokyo, active: {str(active).lower()}}}]"
    [changed], [again] = (register(hand_over("sales", prefect_yaml=_yaml(text))) for _ in range(2))

    assert _switches(prefect) == {"0 6 * * *": active}
    switched = "on" if active else "off"
    assert changed.notes == (f"changed: schedule 0 6 * * * Asia/Tokyo is switched {switched}, as prefect.yaml says",)
    assert (changed.action, again.action, again.notes) == ("update", "keep", ())


def test_schedule_that_goes_is_told(hand_over: HandOver, register: Register, prefect: FakePrefect) -> None:
    register(hand_over("sales", prefect_yaml=_yaml(f"schedules: [{{{DAILY}}}, {{{HOURLY}}}]")))
    _switch(prefect, False, "3600")
    [fewer] = register(hand_over("sales", prefect_yaml=_yaml(f"schedules: [{{{DAILY}}}]")))
    [none] = register(hand_over("sales"))

    assert fewer.notes == ("changed: schedule every 3600 s is removed; prefect.yaml does not have it",)
    assert none.notes == ("changed: schedule 0 6 * * * is removed; prefect.yaml does not have it",)
    assert _switches(prefect) == {}


def test_schedules_made_by_hand_are_nobody_elses_business(
    hand_over: HandOver, register: Register, prefect: FakePrefect
) -> None:
    register(hand_over("sales"))
    prefect.edit("sales/dev", schedules=BY_HAND)
    [change] = register(hand_over("sales"))

    assert (change.action, change.notes) == ("keep", ())


QUEUE = "work_pool: {work_queue_name: urgent}"


def test_work_queue_that_was_chosen_by_hand_stays_unless_prefect_yaml_names_one(
    hand_over: HandOver, register: Register, prefect: FakePrefect
) -> None:
    """Prefect itself moves a deployment to the default queue when it is told of none."""
    [created] = register(hand_over("sales", prefect_yaml=_yaml()))
    prefect.edit("sales/dev", work_queue_name="slow")
    kept = [register(hand_over("sales", prefect_yaml=text), image=OTHER_IMAGE)[0] for text in (_yaml(), "")]
    after = prefect.deployments["sales/dev"].work_queue_name
    [changed], [again] = (register(hand_over("sales", prefect_yaml=_yaml(QUEUE))) for _ in range(2))

    assert "work_queue_name" not in created.payload
    assert after == "slow"
    assert {change.notes for change in kept} == {
        ("kept: its work queue is slow; `work_queue_name` in prefect.yaml changes it",)
    }
    assert prefect.deployments["sales/dev"].work_queue_name == "urgent"
    assert changed.notes == ("changed: its work queue is urgent, as prefect.yaml says; at Prefect it was slow",)
    assert (again.action, again.notes) == ("keep", ())


def test_deployment_that_is_paused_by_hand_is_told(
    hand_over: HandOver, register: Register, prefect: FakePrefect
) -> None:
    register(hand_over("sales", prefect_yaml=_yaml()))
    prefect.edit("sales/dev", paused=True)
    [kept] = register(hand_over("sales", prefect_yaml=_yaml()))
    [changed] = register(hand_over("sales", prefect_yaml=_yaml("paused: false")))

    assert kept.notes == ("kept: it is paused at Prefect; `paused: false` in prefect.yaml resumes it",)
    assert changed.notes == ("changed: it is no longer paused, as prefect.yaml says",)
    assert prefect.deployments["sales/dev"].paused is False


INTERVAL = "{interval: 3600, parameters: {day: x}}"


@pytest.mark.parametrize(
    "schedules",
    [
        INTERVAL,
        "{interval: PT1H, anchor_date: '2026-01-31T06:00:00+02:00'}",
        "{rrule: 'FREQ=DAILY'}",
        "{cron: '0 6 * * *', timezone: UTC, active: false}",
        "{cron: '0 6 * * *', slug: new, replaces: old}",
        f"{{cron: '0 6 * * *'}}, {INTERVAL}, {{rrule: 'FREQ=WEEKLY', timezone: Asia/Tokyo}}",
    ],
)
def test_schedule_stays_the_same_from_one_register_to_the_next(
    hand_over: HandOver, register: Register, prefect: FakePrefect, schedules: str
) -> None:
    text = _yaml(f"schedules: [{schedules}]")
    register(hand_over("sales", prefect_yaml=text))
    before = _schedules(prefect)

    assert actions(register(hand_over("sales", prefect_yaml=text))) == {"sales/dev": "keep"}
    assert actions(register(hand_over("sales", prefect_yaml=text), image=OTHER_IMAGE)) == {"sales/dev": "update"}
    assert sorted(_schedules(prefect), key=str) == sorted(before, key=str)


def test_interval_goes_on_from_its_anchor_whatever_else_changes(
    hand_over: HandOver, register: Register, prefect: FakePrefect
) -> None:
    register(hand_over("sales", prefect_yaml=_yaml(f"schedules: [{INTERVAL}, {{cron: '0 6 * * *'}}]")))
    anchor = next(each["anchor_date"] for each in _schedules(prefect) if "interval" in each)
    register(hand_over("sales", prefect_yaml=_yaml(f"schedules: [{{cron: '0 7 * * *'}}, {INTERVAL}]")))
    after = {each.get("cron") or each["anchor_date"] for each in _schedules(prefect)}
    register(hand_over("sales", prefect_yaml=_yaml(f"schedules: [{INTERVAL.replace('3600', '60')}]")))

    assert after == {"0 7 * * *", anchor}
    assert _schedules(prefect)[0]["anchor_date"] != anchor  # another rhythm begins now


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        (["parameters: {limit: three}"], "'limit'"),
        (["parameters: {limit: 3, day: 1}"], "'day'"),
        (["parameters: {limit: 3}", "schedules: [{cron: '* * * * *', parameters: {limit: x}}]"], "'limit'"),
    ],
)
def test_parameters_that_do_not_fit_are_told_with_their_line(
    hand_over: HandOver, register: Register, prefect: FakePrefect, said: list[str], reason: str
) -> None:
    with pytest.raises(PlatformError) as caught:
        register(hand_over("sales", prefect_yaml=_yaml(*said)))

    assert caught.value.why.startswith("prefect.yaml:2: dev: ")
    assert reason in caught.value.why
    assert (caught.value.file, caught.value.line) == ("prefect.yaml", 2)
    assert prefect.writes == []
    assert register(hand_over("sales", prefect_yaml=_yaml(*said, "enforce_parameter_schema: false")))


def test_all_parameters_that_do_not_fit_are_told_at_once(hand_over: HandOver, register: Register) -> None:
    second = "  - {name: all, entrypoint: 'flow.py:stock', parameters: {day: 2}}\n"
    with pytest.raises(PlatformError) as caught:
        register(hand_over("sales", "stock", prefect_yaml=_yaml("parameters: {limit: x}") + second))

    assert [line.split(":")[1] for line in caught.value.why.splitlines()] == ["2", "5"]


def test_parameters_of_the_page_that_no_longer_fit_are_told(
    hand_over: HandOver, register: Register, prefect: FakePrefect
) -> None:
    register(hand_over("sales"))
    prefect.edit("sales/dev", parameters={"limit": "three"})
    with pytest.raises(PlatformError) as caught:
        register(hand_over("sales"))

    assert caught.value.why.startswith("sales/dev at Prefect: ")
    assert (caught.value.file, caught.value.line) == ("", 0)


def test_parameters_may_leave_out_what_a_run_must_give(hand_over: HandOver, register: Register) -> None:
    assert register(hand_over("sales", prefect_yaml=_yaml("parameters: {day: x}")))


UNKNOWN_NAMES = """    parameters: {dayz: x, limit: 3}
    schedules:
      - {cron: '0 4 * * *', parameters: {day: x, limits: 4}}
      - {cron: '0 5 * * *', timezone: Asia/Tokyo, parameters: {region: eu}}
"""


@pytest.mark.parametrize("enforced", ["", "    enforce_parameter_schema: false\n"])
def test_parameters_that_a_flow_does_not_have_are_all_told_with_what_was_meant(
    hand_over: HandOver, register: Register, prefect: FakePrefect, enforced: str
) -> None:
    with pytest.raises(PlatformError) as caught:
        register(hand_over("sales", prefect_yaml=_yaml() + UNKNOWN_NAMES + enforced))

    assert caught.value.why.splitlines() == [
        "prefect.yaml:2: dev: the flow has no parameter 'dayz'; did you mean day?",
        "prefect.yaml:2: dev, schedule 0 4 * * *: the flow has no parameter 'limits'; did you mean limit?",
        "prefect.yaml:2: dev, schedule 0 5 * * * Asia/Tokyo: the flow has no parameter 'region'; it has day, limit",
    ]
    assert (caught.value.file, caught.value.line) == ("prefect.yaml", 2)
    assert prefect.writes == []


def test_flow_that_takes_any_name_gets_them_as_prefect_passes_them_on(
    hand_over: HandOver, register: Register, prefect: FakePrefect
) -> None:
    register(hand_over("sales", prefect_yaml=_yaml() + UNKNOWN_NAMES), parameters=ANY_NAME)
    after = prefect.deployments["sales/dev"]

    assert after.parameters == {"limit": 3, "more": {"dayz": "x"}}
    assert [each.parameters for each in reversed(after.schedules)] == [
        {"day": "x", "more": {"dayz": "x", "limits": 4}},
        {"more": {"dayz": "x", "region": "eu"}},
    ]
    again = register(hand_over("sales", prefect_yaml=_yaml() + UNKNOWN_NAMES), parameters=ANY_NAME)
    assert actions(again) == {"sales/dev": "keep"}


def test_parameter_of_the_page_that_the_flow_no_longer_has_is_told(
    hand_over: HandOver, register: Register, prefect: FakePrefect
) -> None:
    register(hand_over("sales"))
    prefect.edit("sales/dev", schedules=[{**BY_HAND[0], "parameters": {"days": "x"}}])
    with pytest.raises(PlatformError) as caught:
        register(hand_over("sales"))

    assert caught.value.why == (
        "sales/dev at Prefect, schedule 30 4 * * * (off): the flow has no parameter 'days'; did you mean day?"
    )


def test_what_cannot_be_registered_is_refused_before_the_image_is_pushed(
    environment: Environment, hand_over: HandOver, prefect: FakePrefect, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(workflow_image, "describe", lambda _, handed_over, *__: described(handed_over))
    handed_over, built = hand_over("sales", prefect_yaml=_yaml() + UNKNOWN_NAMES), replace(IMAGE, digest="")
    with pytest.raises(PlatformError, match="parameters don't fit their flow"):
        changes.describe(environment, handed_over, project_of(environment, handed_over), built)

    fine = hand_over("sales", prefect_yaml=_yaml("parameters: {limit: 3}"))
    assert changes.describe(environment, fine, project_of(environment, fine), built) == described(fine)
    assert prefect.writes == []


def test_broken_schema_is_no_traceback(hand_over: HandOver, register: Register) -> None:
    schema = {"type": "object", "properties": {"day": {"type": "string", "pattern": "("}}}
    with pytest.raises(PlatformError, match="don't fit"):
        register(hand_over("sales", prefect_yaml=_yaml("parameters: {day: x}")), parameters=schema)


def test_plan_is_foreseen_without_building_when_the_image_is_known(
    environment: Environment, hand_over: HandOver, register: Register, prefect: FakePrefect
) -> None:
    register(hand_over("sales", "stock", "tax"))
    prefect.edit("sales/dev", version="f00")
    prefect.writes.clear()
    handed_over = hand_over("sales", "stock")
    project = project_of(environment, handed_over)

    foreseen = foresee(environment, handed_over, project, IMAGE, prune=False)
    assert foreseen is not None
    assert actions(foreseen) == {"sales/dev": "update", "stock/dev": "keep", "tax/dev": "pause"}
    assert foresee(environment, handed_over, project, OTHER_IMAGE, prune=False) is None
    assert foresee(environment, hand_over("sales", "new"), project, IMAGE, prune=False) is None
    assert prefect.writes == []


def test_foreseeing_some_flows_asks_prefect_nothing_more(
    environment: Environment, hand_over: HandOver, register: Register, prefect: FakePrefect
) -> None:
    register(hand_over("sales", "stock"))
    handed_over = hand_over("sales", "stock", choice=Choice(flows=("sales",)))
    project = project_of(environment, handed_over)
    prefect.keys.clear()

    foreseen = foresee(environment, handed_over, project, IMAGE, prune=True)
    assert foreseen == changes.plan(environment, handed_over, project, IMAGE, described(handed_over), prune=True)
    assert actions(foreseen) == {"sales/dev": "keep"}
    assert prefect.keys == []
