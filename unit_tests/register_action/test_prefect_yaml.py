import contextlib
import dataclasses
import json
import tempfile
from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from environments.errors import PlatformError
from register_action import prefect_yaml
from register_action.prefect_yaml import Declared, Project
from unit_tests.register_action.prefect_files import VARIABLES, declared_by, error_of, problems_of, read_yaml, yaml_of


def test_whole_entry_is_read_with_its_line(tmp_path: Path) -> None:
    read = read_yaml(
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
      work_queue_name: urgent
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
            schedules=({"schedule": schedule, "parameters": {"limit": 1}, "slug": "morning"},),
            paused=True,
            concurrency_limit=2,
            collision_strategy="CANCEL_NEW",
            grace_period_seconds=60,
            job_variables={"cpu": 2048, "memory": 4096, "env": {"MODE": "fast", "OLD": None}, "env.REGION": "eu"},
            enforce_parameter_schema=False,
            line=4,
            work_queue_name="urgent",
        ),
    )


def test_what_the_file_does_not_say_stays_open(tmp_path: Path) -> None:
    declared = dataclasses.asdict(declared_by(tmp_path))
    said = {"name", "entrypoint", "line"}

    assert {key for key, value in declared.items() if value} == said


def test_folder_without_the_file_has_none(tmp_path: Path) -> None:
    assert prefect_yaml.read(tmp_path, {}) is None


@pytest.mark.parametrize("beside", [True, False])
def test_file_of_a_name_that_prefect_does_not_read_is_reported(tmp_path: Path, beside: bool) -> None:
    (tmp_path / "prefect.yml").write_text(yaml_of())
    read = read_yaml(tmp_path, "") if beside else prefect_yaml.read(tmp_path, {})

    assert read == Project((), ("prefect.yml is not read; Prefect's name for it is prefect.yaml",))


@pytest.mark.parametrize("text", ["", "# only a comment", "deployments:", "deployments: []", "---\nname: shop", "{}"])
def test_file_without_deployments_is_fine(tmp_path: Path, text: str) -> None:
    assert read_yaml(tmp_path, text) == Project((), ())


def test_file_that_is_a_folder_is_an_error_of_the_user(tmp_path: Path) -> None:
    (tmp_path / "prefect.yaml").mkdir()
    with pytest.raises(PlatformError, match="can't be read"):
        prefect_yaml.read(tmp_path, {})


def test_aliases_and_merge_keys_are_filled_in(tmp_path: Path) -> None:
    text = """definitions:
  pool: &pool {job_variables: {cpu: 512}}
  base: &base {tags: [a], description: base, work_pool: *pool}
deployments:
  - {<<: *base, name: one, entrypoint: flow.py:f, description: own}
  - {<<: [{tags: [b]}, *base], name: two, entrypoint: flow.py:f, work_pool: *pool}
"""
    one, two = read_yaml(tmp_path, text).deployments

    assert (one.tags, one.description, one.job_variables) == (("a",), "own", {"cpu": 512})
    assert (two.tags, two.description, two.job_variables) == (("b",), "base", {"cpu": 512})


@pytest.mark.parametrize(
    ("text", "problems"),
    [
        ("5", ["1: the file should hold a mapping with `deployments:`"]),
        ("deployments: {a: b}", ["1: deployments is {'a': 'b'}, should be a list"]),
        ("\ndeployment: []", ["2: deployment is no key of Prefect's; did you mean deployments?"]),
        ("deployments:\n\n  - x", ["3: deployments[0] is 'x', should be a mapping"]),
        ("deployments: []\ndeployments: []", ["2: 'deployments' is given twice"]),
        ("deployments: [{tags: [a]}]", ["1: deployments[0] has no name and has no entrypoint"]),
    ],
)
def test_what_is_no_project_is_told_with_its_line(tmp_path: Path, text: str, problems: list[str]) -> None:
    assert problems_of(tmp_path, text) == [f"prefect.yaml:{problem}" for problem in problems]


def test_all_problems_of_the_file_are_told_at_once_in_order(tmp_path: Path) -> None:
    error = error_of(
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
    assert "2048" not in str(error_of(tmp_path, yaml_of(parameters="{{ $CPU }}")))


def test_what_register_does_otherwise_is_reported_once_with_its_lines(tmp_path: Path) -> None:
    entry = """
    work_pool:
      name: mine
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
    read = read_yaml(tmp_path, text)

    assert [sentence.split(" ")[1] for sentence in read.ignored] == [
        "build",
        "work_pool.name",
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
    assert read.ignored[1].endswith("work_pool.name is not used; runs go to the environment's project (lines 8, 18)")
    assert all(declared.job_variables == {} for declared in read.deployments)


@pytest.mark.parametrize("recipe", ["local", "git", "docker", "docker-git", "docker-s3", "s3"])
def test_what_prefect_init_writes_needs_at_most_a_sentence_each(tmp_path: Path, recipe: str) -> None:
    from prefect.deployments import base

    read = read_yaml(tmp_path, (Path(base.__file__).parent / "recipes" / recipe / "prefect.yaml").read_bytes())
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
            "job_variables": {"env": {"KEPT": later, "OUT": "{{ push.url }}", "FLOW": "{{ ctx.flow.name }}"}}
        },
    }
    read = read_yaml(tmp_path, yaml_of(**entry))
    [declared] = read.deployments

    assert (declared.description, declared.tags) == (None, ("a",))
    assert declared.parameters == {"list": [1], "$ref": "{{ other }"}
    assert declared.schedules[0]["parameters"] == {"day": 1}
    assert declared.job_variables == {"env": {"KEPT": later, "FLOW": "{{ ctx.flow.name }}"}}
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
