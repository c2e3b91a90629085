import contextlib
import dataclasses
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import pytest
import yaml  # type: ignore[import-untyped]
from hypothesis import given, settings
from hypothesis import strategies as st

from agent import project
from environments.errors import PlatformError
from environments.settings import ROOT, Environment
from infra.images import Image
from infra.terraform import Outputs
from register_action import prefect_yaml
from register_action.prefect_yaml import Declared, Project

VARIABLES = {"BRANCH": "main", "CPU": "2048", "CRON": "0 6 * * *"}


def _read(folder: Path, text: str | bytes) -> Project:
    (folder / "prefect.yaml").write_bytes(text.encode() if isinstance(text, str) else text)
    read = prefect_yaml.read(folder, VARIABLES)
    assert read is not None
    return read


def _yaml(**entry: Any) -> str:
    return str(yaml.safe_dump({"deployments": [{"name": "daily", "entrypoint": "flow.py:sales", **entry}]}))


def _declared(folder: Path, **entry: Any) -> Declared:
    [declared] = _read(folder, _yaml(**entry)).deployments
    return declared


def _error(folder: Path, text: str | bytes) -> PlatformError:
    with pytest.raises(PlatformError) as caught:
        _read(folder, text)
    assert caught.value.file == "prefect.yaml"
    assert caught.value.todo
    return caught.value


def _problems(folder: Path, text: str | bytes) -> list[str]:
    return _error(folder, text).why.splitlines()


def test_whole_entry_is_read_with_its_line(tmp_path: Path) -> None:
    read = _read(
        tmp_path,
        """name: shop
prefect-version: 3.8.8
deployments:
  - name: daily
    entrypoint: ./etl/flow.py:sales
    description: Sales of the day
    tags: [shop, "{{ $BRANCH }}"]
    parameters: {day: 2026-01-31, limit: null, nested: {1: [a, 2.5]}}
    enforce_parameter_schema: false
    paused: true
    concurrency_limit: {limit: 2, collision_strategy: CANCEL_NEW, grace_period_seconds: 60}
    work_pool:
      job_variables: {cpu: "{{ $CPU }}", memory: 4096, env: {MODE: fast, OLD: null}, env.REGION: eu}
    schedules:
      - {cron: "{{ $CRON }}", timezone: Europe/Berlin, slug: morning, parameters: {limit: 1}}
""",
    )
    schedule = {"cron": "0 6 * * *", "day_or": True, "timezone": "Europe/Berlin"}

    assert read.ignored == ()
    assert read.deployments == (
        Declared(
            name="daily",
            entrypoint="etl/flow.py:sales",
            description="Sales of the day",
            tags=("shop", "main"),
            parameters={"day": "2026-01-31", "limit": None, "nested": {"1": ["a", 2.5]}},
            schedules=({"schedule": schedule, "active": True, "parameters": {"limit": 1}, "slug": "morning"},),
            paused=True,
            concurrency_limit=2,
            collision_strategy="CANCEL_NEW",
            grace_period_seconds=60,
            job_variables={"cpu": 2048, "memory": 4096, "env": {"MODE": "fast", "OLD": None}, "env.REGION": "eu"},
            enforce_parameter_schema=False,
            line=4,
        ),
    )


def test_what_the_file_does_not_say_stays_open(tmp_path: Path) -> None:
    declared = dataclasses.asdict(_declared(tmp_path))
    said = {"name", "entrypoint", "line"}

    assert {key for key, value in declared.items() if value} == said


def test_folder_without_the_file_has_none(tmp_path: Path) -> None:
    assert prefect_yaml.read(tmp_path, {}) is None


@pytest.mark.parametrize("beside", [True, False])
def test_file_of_a_name_that_prefect_does_not_read_is_reported(tmp_path: Path, beside: bool) -> None:
    (tmp_path / "prefect.yml").write_text(_yaml())
    read = _read(tmp_path, "") if beside else prefect_yaml.read(tmp_path, {})

    assert read == Project((), ("prefect.yml is not read; Prefect's name for it is prefect.yaml",))


@pytest.mark.parametrize("text", ["", "# only a comment", "deployments:", "deployments: []", "---\nname: shop", "{}"])
def test_file_without_deployments_is_fine(tmp_path: Path, text: str) -> None:
    assert _read(tmp_path, text) == Project((), ())


def test_file_that_is_a_folder_is_an_error_of_the_user(tmp_path: Path) -> None:
    (tmp_path / "prefect.yaml").mkdir()
    with pytest.raises(PlatformError, match="can't be read"):
        prefect_yaml.read(tmp_path, {})


@pytest.mark.parametrize(
    ("text", "line", "column"),
    [
        ("deployments:\n  - name: a: b\n", 2, 12),
        ("deployments:\n\t- name", 2, 1),
        ("deployments: [1,\n  2", 2, 4),
        ("a: *nowhere", 1, 4),
        ("a: 1\n---\nb: 2\n", 2, 1),
        ("a: 1\nb: !secret x\n", 2, 4),
        ("a: 1\nb: !!set {x}\n", 2, 4),
        ("? [a]\n: b\n", 1, 3),
        ("a:\n  <<: 5\n", 2, 7),
        ("ä: 1\nä: ä\x01", 2, 5),
        ("ä: 1\nä: ä".encode() + b"\xff", 2, 5),
        ('a: "\\UFFFFFFFF"', 1, 7),
        ("[" * 2000, 1, 1),
        ("[" * 60 + "]" * 60, 1, 1),
        ("a: &a [*a]", 1, 1),
    ],
)
def test_file_that_does_not_parse_is_told_with_line_and_column(
    tmp_path: Path, text: str | bytes, line: int, column: int
) -> None:
    error = _error(tmp_path, text)

    assert error.what == f"prefect.yaml line {line}, column {column} does not parse"
    assert error.line == line
    assert error.why


def test_aliases_and_merge_keys_are_filled_in(tmp_path: Path) -> None:
    text = """definitions:
  pool: &pool {job_variables: {cpu: 512}}
  base: &base {tags: [a], description: base, work_pool: *pool}
deployments:
  - {<<: *base, name: one, entrypoint: flow.py:f, description: own}
  - {<<: [{tags: [b]}, *base], name: two, entrypoint: flow.py:f, work_pool: *pool}
"""
    one, two = _read(tmp_path, text).deployments

    assert (one.tags, one.description, one.job_variables) == (("a",), "own", {"cpu": 512})
    assert (two.tags, two.description, two.job_variables) == (("b",), "base", {"cpu": 512})


@pytest.mark.timeout(10)
@pytest.mark.parametrize("inner", ["[{}]", "{{<<: [{}]}}"])
def test_aliases_of_aliases_do_no_harm(tmp_path: Path, inner: str) -> None:
    levels = [f"a{n + 1}: &a{n + 1} " + inner.format(",".join([f"*a{n}"] * 10)) for n in range(30)]
    text = "\n".join(["a0: &a0 {x: 1, y: 2}", *levels, "deployments: []"])
    if "<<" in inner:
        assert _read(tmp_path, text) == Project((), ())
    else:
        assert "aliases" in _error(tmp_path, text).why


@pytest.mark.parametrize(
    ("text", "problems"),
    [
        ("5", ["1: the file should hold a mapping with `deployments:`"]),
        ("deployments: {a: b}", ["1: deployments is {'a': 'b'}, should be a list"]),
        ("\ndeployment: []", ["2: deployment is no key of Prefect's; did you mean deployments?"]),
        ("deployments:\n\n  - x", ["3: deployments[0] is 'x', should be a mapping"]),
        ("deployments: []\ndeployments: []", ["2: 'deployments' is given twice"]),
        ("a:\n  b: !!int x", ["2: 'x' can't be read: invalid literal for int() with base 10: 'x'"]),
        ("a: .nan\nb: 0x8000000000000000", ["1: '.nan' can't", "2: '0x8000000000000000' can't"]),
        ('a: "\\ud800"\n"\\0": 1', ["1: '\\ud800' can't be read", "2: '\\x00' has characters"]),
        ("deployments: [{tags: [a]}]", ["1: deployments[0] has no name and has no entrypoint"]),
    ],
)
def test_what_is_no_project_is_told_with_its_line(tmp_path: Path, text: str, problems: list[str]) -> None:
    told = _problems(tmp_path, text)

    assert [line[: len(f"prefect.yaml:{start}")] for line, start in zip(told, problems, strict=True)] == [
        f"prefect.yaml:{start}" for start in problems
    ]


@pytest.mark.parametrize(
    ("entry", "problem"),
    [
        ({"name": None}, "deployments[0] has no name"),
        ({"name": 5}, "name is 5, should be text"),
        ({"name": "a/b"}, "name is 'a/b', should be without / % & < and >"),
        ({"entrypoint": ""}, "deployments[0] has no entrypoint"),
        ({"entrypoint": "flow.py"}, "entrypoint is 'flow.py', should be <file>.py:<function>"),
        ({"entrypoint": "package.module:f"}, "entrypoint is 'package.module:f', should be <file>.py:<function>"),
        ({"entrypoint": "flow.py:not a name"}, "entrypoint is 'flow.py:not a name', should be <file>.py:<function>"),
        ({"entrypoint": "../a.py:f"}, "entrypoint is '../a.py:f', should be in a file of the workflow's folder"),
        ({"entrypoint": "/a.py:f"}, "entrypoint is '/a.py:f', should be in a file of the workflow's folder"),
        ({"parameter": {}}, "parameter is no key of Prefect's; did you mean parameters?"),
        ({"builds": []}, "builds is no key of Prefect's; did you mean build?"),
        ({"parameters": [1]}, "parameters is [1], should be a mapping"),
        ({"tags": "a"}, "tags is 'a', should be a list"),
        ({"tags": ["a", 1]}, "tags[1] is 1, should be text"),
        ({"description": ["a"]}, "description is ['a'], should be text"),
        ({"paused": "maybe"}, "paused is 'maybe', should be true or false"),
        ({"concurrency_limit": -1}, "concurrency_limit is -1, should be greater than or equal to 1"),
        ({"concurrency_limit": 0}, "concurrency_limit is 0, should be greater than or equal to 1"),
        ({"concurrency_limit": True}, "concurrency_limit is True, should be a number"),
        ({"concurrency_limit": "many"}, "concurrency_limit is 'many', should be a whole number"),
        ({"concurrency_limit": {"limits": 1}}, "concurrency_limit.limits is no key of Prefect's; did you mean limit?"),
        (
            {"concurrency_limit": {"limit": 1, "collision_strategy": "WAIT"}},
            "concurrency_limit.collision_strategy is 'WAIT', should be 'ENQUEUE' or 'CANCEL_NEW'",
        ),
        (
            {"concurrency_limit": {"grace_period_seconds": 5}},
            "concurrency_limit.grace_period_seconds is 5, should be greater than or equal to 60",
        ),
        ({"work_pool": "mine"}, "work_pool is 'mine', should be a mapping"),
        ({"work_pool": {"nam": "x"}}, "work_pool.nam is no key of Prefect's; did you mean name?"),
        ({"work_pool": {"job_variables": [1]}}, "work_pool.job_variables is [1], should be a mapping"),
        ({"work_pool": {"job_variables": {"cpu": "big"}}}, "work_pool.job_variables.cpu is 'big', should be a whole"),
        (
            {"work_pool": {"job_variables": {"capacity_provider": "SPOT"}}},
            "work_pool.job_variables.capacity_provider is 'SPOT', should be one of FARGATE, FARGATE_SPOT",
        ),
        ({"work_pool": {"job_variables": {"memory": 0.5}}}, "work_pool.job_variables.memory is 0.5, should be a whole"),
        ({"work_pool": {"job_variables": {"env": {"A": 1}}}}, "work_pool.job_variables.env.A is 1, should be text"),
        ({"schedules": {"cron": "* * * * *"}}, "schedules is {'cron': '* * * * *'}, should be a list"),
        ({"schedule": "@daily"}, "schedule is '@daily', should be a mapping"),
        (
            {"schedule": {"interval": 1}, "schedules": [{"interval": 2}]},
            "deployments[0] should have schedule or schedules, has both",
        ),
        ({"description": "{{ $NOPE }}"}, "description names {{ $NOPE }}, an environment variable that is not set"),
        ({"name": "{{ build.tag }}"}, "name can't have {{ build.tag }}; register fills in {{ $NAME }}"),
    ],
)
def test_wrong_value_of_an_entry_is_a_problem(tmp_path: Path, entry: dict[str, Any], problem: str) -> None:
    [told] = _problems(tmp_path, _yaml(**entry))

    assert told.partition(": ")[2].startswith(problem)


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
    [told] = _problems(tmp_path, _yaml(schedules=[first, schedule]))

    assert told.partition(": ")[2].startswith(f"schedules[1]{problem}")


def test_all_problems_of_the_file_are_told_at_once_in_order(tmp_path: Path) -> None:
    error = _error(
        tmp_path,
        """deployments:
  - name: a
    entrypoint: flow
    entrypoint: flow
    schedules:
      - cron: never
        timezone: Mars
      - {interval: -1}
  - {name: b, entrypoint: flow.py:f}
  - {name: b, entrypoint: ./flow.py:f}
  - {name: b, entrypoint: flow.py:g}
""",
    )
    places = [line.partition(" ")[0] + line.split(" ")[1] for line in error.why.splitlines()]

    assert error.what == "6 problem(s) in prefect.yaml"
    assert error.line == 4
    assert places == [
        "prefect.yaml:4:'entrypoint'",
        "prefect.yaml:4:entrypoint",
        "prefect.yaml:6:schedules[0].cron",
        "prefect.yaml:7:schedules[0].timezone",
        "prefect.yaml:8:schedules[1].interval",
        "prefect.yaml:10:name",
    ]
    assert error.why.endswith("name and entrypoint are those of the deployment in line 9")


def test_value_of_a_variable_is_not_in_the_message(tmp_path: Path) -> None:
    assert "2048" not in str(_error(tmp_path, _yaml(parameters="{{ $CPU }}")))


@pytest.mark.parametrize(
    ("written", "read"),
    [
        ("./flow.py:f", "flow.py:f"),
        ("etl/../flow.py:f", "flow.py:f"),
        ("etl\\sub\\flow.py:f", "etl/sub/flow.py:f"),
        ("flow.py:Shop.sales", "flow.py:Shop.sales"),
    ],
)
def test_entrypoint_becomes_the_one_that_discovery_has(tmp_path: Path, written: str, read: str) -> None:
    assert _declared(tmp_path, entrypoint=written).entrypoint == read


@pytest.mark.parametrize(
    ("written", "read"),
    [
        (3, (3, None, None)),
        ("3", (3, None, None)),
        ({}, (None, None, None)),
        ({"limit": 3}, (3, None, None)),
        ({"limit": 3, "collision_strategy": "ENQUEUE"}, (3, "ENQUEUE", None)),
        ({"limit": 3, "grace_period_seconds": 600}, (3, "ENQUEUE", 600)),
    ],
)
def test_concurrency_limit_is_a_number_or_a_mapping(tmp_path: Path, written: Any, read: tuple[Any, ...]) -> None:
    declared = _declared(tmp_path, concurrency_limit=written)

    assert (declared.concurrency_limit, declared.collision_strategy, declared.grace_period_seconds) == read


@pytest.mark.parametrize("entry", [{"schedule": {}}, {"schedule": None}, {"schedules": []}, {"schedules": None}])
def test_empty_schedule_is_none(tmp_path: Path, entry: dict[str, Any]) -> None:
    assert _declared(tmp_path, **entry).schedules == ()


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
    [schedule] = _declared(tmp_path, **{key: written if key == "schedule" else [written]}).schedules
    taken = DeploymentScheduleCreate.model_validate(json.loads(json.dumps(schedule))).model_dump(mode="json")
    if read == {"rrule": "FREQ=MINUTELY"}:  # Prefect makes up where this one starts, anew each time
        taken["schedule"]["rrule"] = taken["schedule"]["rrule"].partition("\n")[2]

    assert schedule == {"schedule": read, **more, "active": False}
    assert {key: taken["schedule"][key] for key in read} == read
    assert {key: taken[key] for key in more} == {**more, "active": False}


def test_keys_and_time_zones_are_those_of_prefect() -> None:
    from prefect.cli.deploy._models import ConcurrencyLimitSpec, DeploymentConfig, RawScheduleConfig, WorkPoolConfig
    from prefect.client.schemas.schedules import RRuleSchedule

    def names(schema: Any, *parts: str) -> set[str]:
        own = {key.rpartition(".")[2] for key in prefect_yaml.OTHERWISE if key.rpartition(".")[0] in parts}
        return own | {field.name for field in dataclasses.fields(schema)}

    assert names(prefect_yaml._Entry, "") - {"path"} == set(DeploymentConfig.model_fields)
    assert names(prefect_yaml._Schedule) == set(RawScheduleConfig.model_fields)
    assert names(prefect_yaml._Limits) == set(ConcurrencyLimitSpec.model_fields)
    assert names(prefect_yaml._WorkPool, "work_pool") == set(WorkPoolConfig.model_fields)
    for zone in prefect_yaml._time_zones():
        RRuleSchedule(rrule="FREQ=DAILY", timezone=zone)


@pytest.mark.parametrize("text", ["* * * *", "* * * * * *", "@hourly", "0 0 * * 7", "60 * * * *", "R * * * *", "a b c"])
def test_cron_expressions_are_judged_as_prefect_does(tmp_path: Path, text: str) -> None:
    from prefect.client.schemas.schedules import CronSchedule

    verdicts = []
    for judge in (lambda: CronSchedule(cron=text), lambda: _declared(tmp_path, schedule={"cron": text})):
        try:
            judge()
            verdicts.append(True)
        except (ValueError, PlatformError):
            verdicts.append(False)

    assert verdicts[0] == verdicts[1]


def test_job_variables_are_those_of_the_project(environment: Environment, outputs: Outputs) -> None:
    image = Image("repository", "tag", "registry/repository", digest="sha256:0")
    template = project.base_job_template(environment, outputs, image)["variables"]["properties"]
    owned = {key.rpartition(".")[2] for key in prefect_yaml.OTHERWISE if key.startswith("work_pool.job_variables.")}

    assert set(prefect_yaml.JOB_VARIABLES) | owned == set(template)


def test_what_register_does_otherwise_is_reported_once_with_its_lines(tmp_path: Path) -> None:
    entry = """
    work_pool:
      name: mine
      work_queue_name: fast
      job_variables: {image: "{{ build.image }}", family: x, command: y, vpc_id: z}
    version: 1
    pull: null
    triggers: [{enabled: "{{ event.x }}"}]
    sla: [{name: x}]
    schedule: {interval: 5, day_or: true}
"""
    text = "build: [{a: {b: c}}]\npush: null\npull: []\ndeployments:\n" + "".join(
        f"  - name: {name}\n    entrypoint: flow.py:f{entry}" for name in "ab"
    )
    read = _read(tmp_path, text)

    assert [sentence.split(" ")[1] for sentence in read.ignored] == [
        "build",
        "work_pool.name",
        "work_pool.work_queue_name",
        "work_pool.job_variables.image",
        "work_pool.job_variables.family",
        "work_pool.job_variables.command",
        "work_pool.job_variables.vpc_id",
        "version",
        "triggers",
        "sla",
        "schedule.day_or",
    ]
    assert read.ignored[0] == "prefect.yaml: build is not run; register builds the image (line 1)"
    assert read.ignored[1].endswith("work_pool.name is not used; runs go to the environment's project (lines 8, 19)")
    assert all(declared.job_variables == {} for declared in read.deployments)


@pytest.mark.parametrize("recipe", ["local", "git", "docker", "docker-git", "docker-s3", "s3"])
def test_what_prefect_init_writes_needs_at_most_a_sentence_each(tmp_path: Path, recipe: str) -> None:
    from prefect.deployments import base

    read = _read(tmp_path, (Path(base.__file__).parent / "recipes" / recipe / "prefect.yaml").read_bytes())
    subjects = [sentence.split(" ")[1] for sentence in read.ignored]

    assert read.deployments == ()
    assert set(subjects) <= {"build", "push", "pull", "work_pool.job_variables.image"}
    assert len(subjects) == len(set(subjects))


def test_placeholders_that_only_prefect_deploy_fills_in_are_left_out_and_reported(tmp_path: Path) -> None:
    later = "{{ prefect.variables.region }}"
    entry = {
        "description": "of {{ build.tag }}",
        "tags": ["a", "{{build.tag}}"],
        "parameters": {"region": later, "list": [1, "x{{ prefect.blocks.secret.key }}"], "$ref": "{{ other }"},
        "schedule": {"interval": 5, "parameters": {"region": later, "day": 1}},
        "work_pool": {
            "job_variables": {"env": {"KEPT": later, "OUT": "{{ push.url }}"}, "name": "{{ ctx.flow.name }}"}
        },
    }
    read = _read(tmp_path, _yaml(**entry))
    [declared] = read.deployments

    assert (declared.description, declared.tags) == (None, ("a",))
    assert declared.parameters == {"list": [1], "$ref": "{{ other }"}
    assert declared.schedules[0]["parameters"] == {"day": 1}
    assert declared.job_variables == {"env": {"KEPT": later}, "name": "{{ ctx.flow.name }}"}
    assert sorted(sentence.partition(": ")[2].partition(" (")[0] for sentence in read.ignored) == [
        "description is left out; register does not fill in {{ build.tag }}",
        "parameters.list[1] is left out; register does not fill in {{ prefect.blocks.secret.key }}",
        "parameters.region is left out; register does not fill in {{ prefect.variables.region }}",
        "schedule.parameters.region is left out; register does not fill in {{ prefect.variables.region }}",
        "tags[1] is left out; register does not fill in {{ build.tag }}",
        "work_pool.job_variables.env.OUT is left out; register does not fill in {{ push.url }}",
    ]


KEYS = st.sampled_from(
    [
        *("name", "entrypoint", "tags", "parameters", "work_pool", "job_variables", "cpu", "env", "image", "x"),
        *("schedules", "schedule", "cron", "interval", "rrule", "timezone", "anchor_date", "active", "slug"),
        *("concurrency_limit", "limit", "collision_strategy", "build", "deployments", "triggers"),
    ]
)
LEAVES = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8)
LEAVES |= st.sampled_from(
    ["{{ $CPU }}", "{{ $B }}", "{{ x.y }}", "@daily", "PT1H", "FREQ=DAILY", "UTC", '{"rrule": 3}']
)
VALUES = st.recursive(LEAVES, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=5))
ENTRIES = st.dictionaries(KEYS, VALUES).map(lambda entry: {"name": "a", "entrypoint": "flow.py:f", **entry})
FILES = st.fixed_dictionaries({"deployments": st.lists(ENTRIES | VALUES, max_size=3)}) | VALUES
CHARACTERS = "ab:-?!&*<>|[]{}%#@,\"'\\\n \t01.~U=_\0\x85\ufeff\u2028"
TEXTS = st.text(CHARACTERS, max_size=60).map(str.encode) | st.binary(max_size=40)


@given(TEXTS | FILES.map(lambda file: yaml.safe_dump(file).encode()))
@settings(max_examples=300, deadline=None)
def test_any_file_is_read_into_json_or_is_an_error_of_the_user(data: bytes) -> None:
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "prefect.yaml").write_bytes(data)
        with contextlib.suppress(PlatformError):
            read = prefect_yaml.read(Path(folder), VARIABLES)
            assert read is not None
            json.dumps(dataclasses.asdict(read), allow_nan=False, ensure_ascii=False).encode()


def test_prefect_is_not_imported(tmp_path: Path) -> None:
    (tmp_path / "prefect.yaml").write_text(_yaml(schedules=[schedule for schedule, _ in SCHEDULES]))
    script = (
        "import sys, pathlib; from register_action.prefect_yaml import read; "
        f"print(len(read(pathlib.Path({str(tmp_path)!r}), {{}}).deployments), 'prefect' in sys.modules)"
    )
    run = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)

    assert run.stdout.split() == ["1", "False"]
