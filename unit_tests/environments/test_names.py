import re
from itertools import combinations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from environments.names import slug, task_family

LONGEST_PREFIX = "e" * 16 + "_dataflow_automation_workflow_"
"""Of an environment with the longest name that settings may have."""
NAMES = st.tuples(st.text(), st.text())


@given(st.text())
def test_slug_fits_ecr(name: str) -> None:
    assert re.fullmatch(r"[a-z0-9]+(?:_[a-z0-9]+)*_?", slug(name))
    assert len(slug(name)) <= 100


@given(NAMES)
def test_family_is_one_that_ecs_accepts(name: tuple[str, str]) -> None:
    assert re.fullmatch("[A-Za-z0-9_-]{1,255}", LONGEST_PREFIX + task_family("dev", *name))


@pytest.mark.parametrize(
    ("flow", "deployment", "label"),
    [
        ("sales", "dev", "sales"),
        ("sales-report", "dev-daily", "sales_report_daily"),
        ("日次", "dev", "workflow"),
        ("x" * 300, "dev", "x" * 80),
        ("a" * 79 + "-b", "dev", "a" * 79),
    ],
)
def test_family_begins_with_what_a_reader_knows(flow: str, deployment: str, label: str) -> None:
    assert re.fullmatch(f"{label}_[0-9a-f]{{10}}", task_family("dev", flow, deployment))


ALIKE = [
    ("日次", "dev"),
    ("週次", "dev"),
    ("sales", "dev"),
    ("Sales", "dev"),
    ("sales", "dev-daily"),
    ("sales-daily", "dev"),
    ("sales_daily", "dev"),
    ("sales", "dev-Daily"),
    ("x" * 300 + "a", "dev"),
    ("x" * 300 + "b", "dev"),
    ("dev", "dev"),
]


@pytest.mark.parametrize(("one", "other"), list(combinations(ALIKE, 2)))
def test_deployments_with_similar_names_share_no_family(one: tuple[str, str], other: tuple[str, str]) -> None:
    assert task_family("dev", *one) != task_family("dev", *other)


def test_family_is_known_from_one_release_to_the_next() -> None:
    """A changed rule would give every deployment another family, and part it from its log."""
    assert task_family("dev", "sales", "dev-daily") == "sales_daily_71c639c179"
