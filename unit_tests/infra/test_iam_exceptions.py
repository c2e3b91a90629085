"""The list of findings that are correct."""

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from environments.errors import PlatformError
from infra import iam_exceptions
from infra.iam_exceptions import KINDS, Entry, Finding, read_dependents, read_exceptions, without_exceptions


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file that is read instead of the project's."""
    file = tmp_path / "exceptions.toml"
    monkeypatch.setattr(iam_exceptions, "FILE", file)
    return file


FOUND = Finding("not exercised", "deploy", "ecs:RunTask", "x")
EXCEPTION = Entry("not exercised", ("ecs:RunTask",), "why", "source")


@pytest.mark.parametrize(
    ("changes", "covered"),
    [
        ({}, True),
        ({"roles": ("deploy",)}, True),
        ({"details": ("x",)}, True),
        ({"roles": ("plan",)}, False),
        ({"details": ("y",)}, False),
        ({"actions": ("ecs:StopTask",)}, False),
        ({"finding": "not granted"}, False),
    ],
)
def test_exception_covers_what_it_names_and_is_a_finding_when_it_covers_nothing(
    changes: dict[str, Any], covered: bool
) -> None:
    exception = dataclasses.replace(EXCEPTION, **changes)
    remaining = without_exceptions({FOUND}, [exception], {*KINDS})

    assert [one.kind for one in remaining] == ([] if covered else ["needless exception", "not exercised"])


def test_every_part_of_an_exception_must_be_needed() -> None:
    exception = dataclasses.replace(EXCEPTION, actions=("ecs:RunTask", "ecs:StopTask"), roles=("deploy", "plan"))
    remaining = without_exceptions({FOUND}, [exception], {*KINDS})

    assert [(one.role, one.action) for one in remaining] == [
        ("deploy", "ecs:StopTask"),
        ("plan", "ecs:RunTask"),
        ("plan", "ecs:StopTask"),
    ]


def test_exceptions_for_findings_that_were_not_looked_for_are_no_findings() -> None:
    assert without_exceptions(set(), [EXCEPTION], {*KINDS} - {"not exercised"}) == []


@pytest.mark.parametrize(
    "entry",
    [
        'finding = "not exercised"\nactions = ["a:B"]\nwhy = "because"',
        'finding = "not exercised"\nactions = ["a:B"]\nwhy = ""\nsource = "https://docs.aws.amazon.com"',
        'finding = "not exercised"\nactions = []\nwhy = "because"\nsource = "https://docs.aws.amazon.com"',
        'finding = "never heard of"\nactions = ["a:B"]\nwhy = "because"\nsource = "https://docs.aws.amazon.com"',
        'finding = "not exercised"\nactions = ["a:B"]\nwhy = "because"\nsource = "x"\nrole = "deploy"',
    ],
    ids=["no-source", "no-reason", "no-action", "unknown-kind", "unknown-key"],
)
def test_exception_without_reason_or_source_is_refused(file: Path, entry: str) -> None:
    file.write_text(f"[[exception]]\n{entry}\n")

    with pytest.raises(PlatformError, match="exception"):
        read_exceptions()


@pytest.mark.parametrize("missing", ["action", "needs", "why", "source"])
def test_dependent_without_reason_or_source_is_refused(file: Path, missing: str) -> None:
    entry = {"action": '"a:B"', "needs": '["a:C"]', "why": '"because"', "source": '"x"'}
    file.write_text("[[dependent]]\n" + "\n".join(f"{key} = {value}" for key, value in entry.items()))
    complete = read_dependents()
    file.write_text("[[dependent]]\n" + "\n".join(f"{k} = {value}" for k, value in entry.items() if k != missing))

    assert complete == {"a:B": {"a:C"}}
    with pytest.raises(PlatformError, match="action, needs, why and source"):
        read_dependents()


def test_exceptions_of_the_project_name_their_sources() -> None:
    entries = read_exceptions()

    assert entries
    assert [entry for entry in entries if not entry.source.startswith(("https://", "functional_tests/"))] == []
