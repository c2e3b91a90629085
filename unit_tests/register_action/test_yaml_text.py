import pytest

from environments.errors import PlatformError
from register_action import yaml_text
from register_action.yaml_text import Problems, Reading


def _load(text: str | bytes) -> tuple[object, Problems]:
    return yaml_text.load(text.encode() if isinstance(text, str) else text, "a.yaml")


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
def test_file_that_does_not_parse_is_told_with_line_and_column(text: str | bytes, line: int, column: int) -> None:
    with pytest.raises(PlatformError) as caught:
        _load(text)

    assert caught.value.what == f"a.yaml line {line}, column {column} does not parse"
    assert (caught.value.file, caught.value.line) == ("a.yaml", line)
    assert caught.value.why
    assert caught.value.todo


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("", None),
        ("# only a comment", None),
        ("\ufeffa: 2026-01-31", {"a": "2026-01-31"}),
        ("1: [yes, 0x10, 1.5, ~, '5']", {"1": [True, 16, 1.5, None, "5"]}),
        ("base: &base {a: 1, b: 2}\nmore: {<<: *base, b: 3}", {"base": {"a": 1, "b": 2}, "more": {"a": 1, "b": 3}}),
        ("{a: {<<: [{x: 1}, {x: 2, y: 2}]}}", {"a": {"x": 1, "y": 2}}),
    ],
)
def test_values_are_plain_and_keys_stay_as_they_are_written(text: str, values: object) -> None:
    assert _load(text) == (values, {})


@pytest.mark.timeout(10)
def test_merges_of_merges_do_not_grow() -> None:
    levels = [f"a{n + 1}: &a{n + 1} {{<<: [{','.join([f'*a{n}'] * 10)}]}}" for n in range(30)]
    values, problems = _load("\n".join(["a0: &a0 {x: 1, y: 2}", *levels]))

    assert values == {f"a{n}": {"x": 1, "y": 2} for n in range(31)}
    assert problems == {}


@pytest.mark.timeout(10)
def test_aliases_of_aliases_are_refused() -> None:
    levels = [f"a{n + 1}: &a{n + 1} [{','.join([f'*a{n}'] * 10)}]" for n in range(30)]
    with pytest.raises(PlatformError, match="aliases"):
        _load("\n".join(["a0: &a0 {x: 1, y: 2}", *levels]))


@pytest.mark.parametrize(
    ("text", "problems"),
    [
        ("a: 1\nb: {a: 1}\na: 2", {(3, "'a'"): "is given twice"}),
        ("a:\n  b: !!int x", {(2, "'x'"): "can't be read: invalid literal for int() with base 10: 'x'"}),
        ("a: .nan", {(1, "'.nan'"): "can't be read: it is no number that Prefect takes"}),
        (
            "a: [1,\n 0x8000000000000000]",
            {(2, "'0x8000000000000000'"): "can't be read: it is no number that Prefect takes"},
        ),
        ('a: "\\ud800"', {(1, "'\\ud800'"): "can't be read: it has characters that Prefect does not take"}),
        ('"\\0": 1', {(1, "'\\x00'"): "has characters that Prefect does not take"}),
    ],
)
def test_value_that_prefect_does_not_take_is_a_problem_with_its_line(text: str, problems: Problems) -> None:
    assert _load(text)[1] == problems


TEXT = """deployments:
  - name: a
    schedules:
      - cron: x
  - b
pull: []
"""


@pytest.mark.parametrize(
    ("place", "found"),
    [
        ((), (1, "the file")),
        (("pull",), (6, "pull")),
        (("deployments",), (1, "deployments")),
        (("deployments", 1), (5, "deployments[1]")),
        (("deployments", 0, "name"), (2, "name")),
        (("deployments", 0, "schedules", 0, "cron"), (4, "schedules[0].cron")),
        (("deployments", 0, "schedules", 0, "missing", "inner"), (4, "schedules[0]")),
    ],
)
def test_place_is_found_as_its_author_would_name_it(place: yaml_text.Place, found: tuple[int, str]) -> None:
    assert Reading({}, *_load(TEXT)).find(place)[:2] == found


def test_what_is_noted_at_one_place_is_told_together() -> None:
    reading = Reading({}, *_load(TEXT))
    reading.problem(("deployments", 0, "name"), "is short")
    reading.problem(("deployments", 0, "name"), "is taken")
    reading.report(("pull",), "is not run")
    reading.report(("pull",), "is not run")

    assert reading.problems == {(2, "name"): "is short and is taken"}
    assert reading.otherwise == {"pull is not run": [6, 6]}
