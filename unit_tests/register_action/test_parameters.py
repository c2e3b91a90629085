"""Parameters of runs: what a command line and a file give, and whether the flow has them."""

import io
import json
import sys
import types
from pathlib import Path
from typing import Any

import pytest
from prefect.utilities.callables import parameters_to_args_kwargs

from environments.errors import PlatformError
from register_action.parameters import KIND, UNKNOWN_SCHEMA, VAR_KEYWORD, fitted, parse_pairs, read, unknown

SCHEMA = {"title": "Parameters", "type": "object", "properties": {"days": {"type": "integer"}, "region": {}}}
ANY_NAME = {**SCHEMA, "properties": {**SCHEMA["properties"], "options": {"type": "object", KIND: VAR_KEYWORD}}}


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("dayz", "did you mean days?"),
        ("Region", "did you mean region?"),
        ("limit", "it has days, region"),
        ("", "it has days, region"),
    ],
)
def test_name_that_the_flow_does_not_have_is_told_with_the_nearest(name: str, hint: str) -> None:
    assert unknown(SCHEMA, {"days": 1, name: 2}) == [f"the flow has no parameter {name!r}; {hint}"]


def test_every_name_that_the_flow_does_not_have_is_told() -> None:
    assert len(unknown(SCHEMA, {"a": 1, "days": 2, "b": 3})) == 2
    assert unknown({**SCHEMA, "properties": {}}, {"a": 1}) == ["the flow has no parameter 'a'; it has none"]


@pytest.mark.parametrize("schema", [SCHEMA, ANY_NAME, UNKNOWN_SCHEMA, {}, {"type": "object"}])
def test_names_that_the_flow_has_or_takes_or_may_have_are_no_problem(schema: dict[str, Any]) -> None:
    assert unknown(schema, {"days": 1, "region": "eu"}) == []
    assert (unknown(schema, {"dayz": 1}) == []) is (schema != SCHEMA)


def a_flow(days: int = 1, region: str = "", **options: Any) -> Any:
    return days, region, options


@pytest.mark.parametrize(
    ("parameters", "defaults", "called"),
    [
        ({"days": 2}, {}, (2, "", {})),
        ({"days": 2, "limit": 3}, {}, (2, "", {"limit": 3})),
        ({"limit": 3, "options": {"limit": 1, "a": 2}}, {}, (1, "", {"a": 2, "limit": 3})),
        ({"limit": 3}, {"days": 5, "options": {"a": 2, "limit": 1}}, (1, "", {"a": 2, "limit": 3})),
        ({"options": {"b": 1}}, {"options": {"a": 2}}, (1, "", {"b": 1})),
        ({"limit": 3, "options": None}, {}, (1, "", {"limit": 3})),
    ],
)
def test_any_name_reaches_a_flow_that_takes_it(
    parameters: dict[str, Any], defaults: dict[str, Any], called: tuple[Any, ...]
) -> None:
    """As Prefect's own engine calls a flow."""
    args, kwargs = parameters_to_args_kwargs(a_flow, fitted(ANY_NAME, parameters, defaults))

    assert a_flow(*args, **kwargs) == called


def test_names_of_a_flow_that_takes_no_others_stay_as_they_are() -> None:
    assert fitted(SCHEMA, {"days": 1, "dayz": 2}, {"options": {}}) == {"days": 1, "dayz": 2}


@pytest.fixture
def write(tmp_path: Path) -> Any:
    """Write a file; gives its path."""

    def written(content: str | bytes) -> str:
        file = tmp_path / "parameters.json"
        file.write_bytes(content if isinstance(content, bytes) else content.encode())
        return str(file)

    return written


def test_file_gives_parameters_and_single_ones_override_it(write: Any) -> None:
    file = write('{"days": 7, "region": "eu", "rows": [1, 2.5, null, {"a": "日"}]}')

    assert read(file, ["days=8", "more=x"]) == {
        "days": 8,
        "region": "eu",
        "rows": [1, 2.5, None, {"a": "日"}],
        "more": "x",
    }
    assert read("", ["days=8"]) == {"days": 8}


def test_file_may_be_larger_than_a_command_line_and_begin_with_a_byte_order_mark(write: Any) -> None:
    rows = ["row " * 10] * 100_000

    assert read(write("\ufeff" + json.dumps({"rows": rows})), []) == {"rows": rows}


def test_standard_input_is_a_file_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", types.SimpleNamespace(buffer=io.BytesIO(b'{"days": 7}')))

    assert read("-", []) == {"days": 7}


@pytest.mark.parametrize(
    ("content", "what", "why"),
    [
        ('{"days": 7,\n "a" 1}', "is not JSON", "line 2, column 6: "),
        ("", "is not JSON", "line 1, column 1: "),
        (b'{"a": "\xff"}', "is not JSON", "not UTF-8"),
        ("[1, 2]", "is not a JSON object", "it holds a list"),
        ('"days"', "is not a JSON object", "it holds a single value"),
        ('{"a": NaN}', "has a value that Prefect does not take", "'NaN'"),
        ('{"a": [9223372036854775808]}', "has a value that Prefect does not take", "9223372036854775808"),
        ('{"a": ' + "9" * 5000 + "}", "has a value that Prefect does not take", ""),
        ('{"a": ' + "[" * 100_000 + "}", "has a value that Prefect does not take", "nested too deeply"),
        ('{"a": "\\u0000"}', "has characters that Prefect does not take", ""),
        ('{"a": {"\\ud800": 1}}', "has characters that Prefect does not take", ""),
    ],
)
def test_file_that_holds_no_parameters_is_told(write: Any, content: str | bytes, what: str, why: str) -> None:
    file = write(content)
    with pytest.raises(PlatformError) as caught:
        read(file, [])

    assert caught.value.what == f"--params-file {file} {what}"
    assert why in caught.value.why
    assert caught.value.todo
    assert len(str(caught.value)) < 1000


@pytest.mark.parametrize(("name", "why"), [("nosuch.json", "No such file"), (".", "Is a directory")])
def test_file_that_cannot_be_read_is_told(tmp_path: Path, name: str, why: str) -> None:
    with pytest.raises(PlatformError, match="cannot be read") as caught:
        read(str(tmp_path / name), [])

    assert why in caught.value.why


@pytest.mark.parametrize(
    ("pair", "expected"),
    [
        ("day=2026-01-01", {"day": "2026-01-01"}),
        ("count=3", {"count": 3}),
        ('text="3"', {"text": "3"}),
        ('options={"a": 1}', {"options": {"a": 1}}),
        ("url=http://x?a=b", {"url": "http://x?a=b"}),
        ("broken=[1", {"broken": "[1"}),
    ],
)
def test_value_that_is_json_is_taken_as_such_and_anything_else_as_text(pair: str, expected: dict[str, Any]) -> None:
    assert parse_pairs([pair]) == expected


def test_parameters_are_put_together_and_the_last_one_wins() -> None:
    assert parse_pairs(["a=1", "b=2", "a=3"]) == {"a": 3, "b": 2}
    assert parse_pairs([]) == {}


@pytest.mark.parametrize("pair", ["day", "=3", ""])
def test_pair_without_name_or_value_is_shown(pair: str) -> None:
    with pytest.raises(PlatformError) as caught:
        parse_pairs(["a=1", pair])

    assert repr(pair) in caught.value.what
    assert "--param name=value" in caught.value.todo


@pytest.mark.parametrize("value", ["NaN", "-Infinity", "1e999", "9223372036854775808", "9" * 5000, "[" * 5000])
def test_parameter_that_prefect_takes_for_no_json_is_text(value: str) -> None:
    assert parse_pairs([f"limit={value}"]) == {"limit": value}


@pytest.mark.parametrize("pair", ["day=\ud800", "\ud800=1", 'day="\\u0000"', 'day={"a": ["\\ud800"]}'])
def test_parameter_with_characters_that_prefect_does_not_take_is_refused(pair: str) -> None:
    with pytest.raises(PlatformError, match="characters that Prefect does not take"):
        parse_pairs([pair])
