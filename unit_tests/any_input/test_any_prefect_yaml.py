"""Whatever stands in a prefect.yaml: deployments that Prefect's API takes, or one error that lists what is wrong."""

import dataclasses
import json
from importlib import import_module
from typing import Any
from uuid import uuid4

import pytest
import yaml
from hypothesis import example, given
from hypothesis import strategies as st

from environments.settings import EXECUTION_ENVIRONMENTS
from register_action import prefect_yaml, schedules
from register_action.changes import _said
from unit_tests.any_input.cases import TEXT, folder, harmless

schedules._croniter()  # which asks the system about itself when it is loaded
VARIABLES = {"HOME": "/home/\x1b[31m", "EMPTY": "", "NESTED": "{{ $HOME }}"}
SCALARS = st.one_of(
    *(st.none(), st.booleans(), st.integers(), st.floats(), st.dates(), st.datetimes(), st.binary(max_size=4), TEXT),
    st.sampled_from(
        ["{{ $HOME }}", "{{ $NESTED }}", "{{ build.image }}", "{{ ctx.flow_run.id }}", "2024-13-45", "0o9"]
    ),
)
ANYTHING = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(SCALARS, inner, max_size=3), max_leaves=6
)


def _mapping(known: dict[str, st.SearchStrategy[Any]]) -> st.SearchStrategy[dict[Any, Any]]:
    """A mapping with keys that are known, mostly with values that fit, and sometimes with one that is not."""
    fitting = st.fixed_dictionaries({}, optional=known)
    other = st.dictionaries(st.sampled_from([*known]) | TEXT, ANYTHING, max_size=1)
    return st.builds(lambda one, two: {**one, **two}, fitting, other | st.just({}))


CRON = st.one_of(
    st.lists(
        st.sampled_from(["*", "0", "*/5", "1-9", "MON", "L", "31", "60", "?", "#", "@daily", "H"]), max_size=7
    ).map(" ".join),
    st.text("0123456789*/,-LW#@ ", max_size=20),
)
RRULE = st.one_of(
    st.lists(
        st.sampled_from(
            [
                "FREQ=DAILY",
                "FREQ=SECONDLY",
                "INTERVAL=0",
                "INTERVAL=-1",
                "COUNT=9",
                "UNTIL=20300101T000000Z",
                "BYDAY=MO",
                *("DTSTART:20200101T000000\n", "BYMONTHDAY=31", "BYMONTH=2", "FREQ=NEVER", "BYSETPOS=-1", "BYHOUR=25"),
            ]
        ),
        max_size=5,
    ).map(";".join),
    st.sampled_from(
        [
            '{"rrule": "FREQ=DAILY", "timezone": "UTC"}',
            '{"rrule": 1}',
            "RRULE:",
            "EXDATE:20200101",
            "FREQ=DAILY\nFREQ=DAILY",
        ]
    ),
)
SCHEDULE = _mapping(
    {
        "cron": CRON,
        "interval": st.sampled_from([60, 0, -1, 0.1, 1e300, "PT1H", "P1000000000D", "1 day", True, "NaN"]),
        "rrule": RRULE,
        "timezone": st.sampled_from(["UTC", "Europe/Paris", "Local", "../UTC", "localtime", "europe/paris"]),
        "anchor_date": st.sampled_from(
            ["2024-01-01", "0001-01-01T00:00:00+23:59", "9999-12-31T23:59:59-23:59", "now", 0, 1e18]
        ),
        "parameters": st.dictionaries(TEXT, ANYTHING, max_size=1),
        "slug": TEXT,
        "active": st.booleans(),
    }
)
JOB = _mapping(
    {
        "cpu": st.sampled_from([256, "512", "٣", "1_000", 1.0, "{{ prefect.variables.cpu }}"]),
        "memory": st.sampled_from([512, "1024", -1, True, 2**63]),
        "env": st.dictionaries(TEXT, TEXT | st.none(), max_size=2),
        "labels": st.dictionaries(TEXT, TEXT, max_size=2),
        "capacity_provider": st.sampled_from([each["capacity_provider"] for each in EXECUTION_ENVIRONMENTS.values()]),
        **{name: TEXT for name in ("image", "command", "family", "env.A", "name")},
    }
)
ENTRY = _mapping(
    {
        "name": st.sampled_from(["daily", "dev", "a/b"]) | TEXT,
        "entrypoint": st.sampled_from(
            ["flow.py:sales", "./flow.py:sales", "../flow.py:sales", "flow.py:a b", "C:\\f.py:x"]
        )
        | TEXT,
        "schedule": SCHEDULE,
        "schedules": st.lists(SCHEDULE, max_size=3),
        "work_pool": _mapping({"name": TEXT, "work_queue_name": TEXT, "job_variables": JOB}),
        "concurrency_limit": st.sampled_from([1, 0, True, "1", {"limit": 2, "collision_strategy": "ENQUEUE"}]),
        "tags": st.lists(TEXT, max_size=2),
        "parameters": st.dictionaries(TEXT, ANYTHING, max_size=2),
        "description": TEXT,
        "paused": st.sampled_from([True, "yes", None, 2]),
        **{key: ANYTHING for key in ("version", "triggers", "sla", "pull")},
    }
)
FILES = st.one_of(
    _mapping({"deployments": st.lists(ENTRY, max_size=3), "pull": ANYTHING, "name": TEXT}),
    st.just(None),
    ANYTHING,
)
FRAGMENTS = st.sampled_from(
    [
        "deployments:\n",
        "- name: a\n",
        "  entrypoint: f.py:a\n",
        "&a ",
        "*a",
        "<<: *a\n",
        "!!python/object/apply:os.system [id]\n",
        "!!binary x",
        "!!timestamp x",
        "!!set {a}",
        "? [a]\n: b\n",
        "--- \n",
        "...\n",
        "%YAML 9.9\n",
        "|\n",
        ">-\n x\n",
        "{a: 1}",
        "[",
        "]",
        "{",
        "}",
        "\t",
        "'",
        '"\\UFFFFFFFF"',
        '"\\ud800"',
        "# x\n",
        "~",
        ".inf",
        "0x_",
        "1:60",
        "é: \x85",
        "\x07",
        "\ufeff",
    ]
)
TEXTS = st.one_of(
    FILES.map(lambda file: yaml.safe_dump(file, allow_unicode=True).encode("utf-8", "surrogatepass")),
    st.lists(st.one_of(FRAGMENTS, TEXT), max_size=12).map(
        lambda parts: "".join(parts).encode("utf-8", "surrogatepass")
    ),
    st.binary(max_size=40),
)
BILLION = b"a: &a [x, x]\n" + b"".join(b"%c: &%c [*%c, *%c]\n" % (n, n, n - 1, n - 1) for n in range(98, 123))


@pytest.fixture(scope="module", autouse=True)
def _prefect_loaded() -> None:
    """Loading Prefect's server takes longer than any case may."""
    import_module("prefect.server.schemas.actions")


def would_be_taken(declared: prefect_yaml.Declared) -> None:
    """Have Prefect's own models judge what it would be told."""
    from prefect.server.schemas.actions import DeploymentCreate

    told = {name: value for name, value in _said(declared).items() if value is not None}
    DeploymentCreate.model_validate(
        {**told, "name": declared.name, "flow_id": uuid4(), "schedules": declared.schedules, "tags": declared.tags}
    )


@given(TEXTS)
@example(BILLION)
@example(b"deployments:\n- " + b"[" * 20_000)
@example(b"deployments: &a [*a]")
def test_any_text_is_what_prefect_takes_or_an_error_with_its_places(data: bytes) -> None:
    with folder() as made:
        (made / "prefect.yaml").write_bytes(data)
        read = None
        with harmless():
            read = prefect_yaml.read(made, VARIABLES)
    if read:
        json.dumps(dataclasses.asdict(read), allow_nan=False, ensure_ascii=False).encode()
        for each in read.deployments:
            would_be_taken(each)
