import types
from typing import Any

import pytest

from environments.errors import PlatformError
from environments.settings import Environment
from register_action import runs
from register_action.runs import parse_parameters


@pytest.mark.parametrize(
    ("pair", "expected"),
    [
        ("day=2026-01-01", {"day": "2026-01-01"}),
        ("count=3", {"count": 3}),
        ("ratio=0.5", {"ratio": 0.5}),
        ("dry=true", {"dry": True}),
        ("nothing=null", {"nothing": None}),
        ('text="3"', {"text": "3"}),
        ("names=[1, 2]", {"names": [1, 2]}),
        ('options={"a": 1}', {"options": {"a": 1}}),
        ("empty=", {"empty": ""}),
        ("url=http://x?a=b", {"url": "http://x?a=b"}),
        ("broken=[1", {"broken": "[1"}),
        ("big=12345678901234567890123", {"big": 12345678901234567890123}),
    ],
)
def test_value_that_is_json_is_taken_as_such_and_anything_else_as_text(pair: str, expected: dict[str, Any]) -> None:
    assert parse_parameters([pair]) == expected


def test_parameters_are_put_together_and_the_last_one_wins() -> None:
    assert parse_parameters(["a=1", "b=2", "a=3"]) == {"a": 3, "b": 2}
    assert parse_parameters([]) == {}


@pytest.mark.parametrize("pair", ["day", "=3", ""])
def test_pair_without_name_or_value_is_shown(pair: str) -> None:
    with pytest.raises(PlatformError) as caught:
        parse_parameters(["a=1", pair])

    assert repr(pair) in caught.value.what
    assert "--param name=value" in caught.value.todo


@pytest.fixture
def registered(monkeypatch: pytest.MonkeyPatch) -> None:
    names = ("sample-workflow", "sales_report", "Sales Report")
    known = {name: types.SimpleNamespace(name="dev") for name in names}
    monkeypatch.setattr(runs, "deployments", lambda _: known)


@pytest.mark.parametrize("name", ["sample-workflow", "sample_workflow", "sample-workflow/dev", "Sample Workflow"])
@pytest.mark.usefixtures("registered")
def test_workflow_is_found_however_its_name_is_written(environment: Environment, name: str) -> None:
    assert runs.resolve(environment, name)[0] == "sample-workflow"


@pytest.mark.usefixtures("registered")
def test_unknown_workflow_gets_a_suggestion_and_the_list(environment: Environment) -> None:
    with pytest.raises(PlatformError) as caught:
        runs.resolve(environment, "sample_workflo")

    assert "no workflow 'sample_workflo'" in caught.value.what
    assert "did you mean sample_workflow?" in caught.value.why
    assert "sample-workflow" in caught.value.why
    assert "invoke register" in caught.value.todo


@pytest.mark.usefixtures("registered")
def test_name_that_could_be_several_lists_them(environment: Environment) -> None:
    with pytest.raises(PlatformError) as caught:
        runs.resolve(environment, "sales-report")

    assert caught.value.what == "'sales-report' could be Sales Report or sales_report"
    assert caught.value.todo == "write the flow's name exactly"


@pytest.mark.parametrize("name", ["sales_report", "Sales Report", "sales_report/dev"])
@pytest.mark.usefixtures("registered")
def test_name_written_exactly_is_never_several(environment: Environment, name: str) -> None:
    assert runs.resolve(environment, name)[0] == name.removesuffix("/dev")


def test_nothing_registered_says_so(environment: Environment, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runs, "deployments", lambda _: {})
    with pytest.raises(PlatformError) as caught:
        runs.resolve(environment, "sales")

    assert "registered: none" in caught.value.why
