import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from environments.settings import Environment
from register_action.workflow_image import author_traceback, repository_name, slug

ECR_NAME = r"[a-z0-9]+(?:[._-][a-z0-9]+)*"  # of the API reference of CreateRepository


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("sales", "sales"),
        ("sample-workflow", "sample_workflow"),
        ("Sample Workflow!", "sample_workflow"),
        ("__a--b__", "a_b"),
        ("9lives", "9lives"),
        ("Größe", "gr_e"),
        ("", "workflow"),
        ("!!!", "workflow"),
    ],
)
def test_slug_is_what_one_would_expect(name: str, expected: str) -> None:
    assert slug(name) == expected


@hypothesis_settings(max_examples=200, deadline=None, database=None)
@given(name=st.text(max_size=150))
def test_any_name_becomes_one_that_ecr_ecs_and_log_streams_take(name: str) -> None:
    made = slug(name)

    assert re.fullmatch(ECR_NAME, f"dev_{made}")
    assert len(made) <= 100
    assert slug(made) == made


def test_repository_is_named_after_environment_and_folder(environment: Environment, tmp_path: Path) -> None:
    assert repository_name(environment, tmp_path / "Sales-Report") == "dev_sales_report"


def test_folder_given_as_a_dot_has_its_real_name(
    environment: Environment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "sales"
    folder.mkdir()
    monkeypatch.chdir(folder)

    assert repository_name(environment, Path()) == "dev_sales"
    assert repository_name(environment, Path("../sales/")) == "dev_sales"


TRACEBACK = """Traceback (most recent call last):
  File "/opt/venv/lib/python3.11/site-packages/prefect/flows.py", line 2437, in load_flow_from_entrypoint
    flow = import_object(entrypoint)
           ^^^^^^^^^^^^^^^^^^^^^^^^^
  File "<frozen importlib._bootstrap>", line 241, in _call_with_frames_removed
  File "/opt/workflow/flow.py", line 3, in <module>
    import pandas
  File "/opt/venv/lib/python3.11/site-packages/pandas/__init__.py", line 1, in <module>
    inside_of_pandas()
ModuleNotFoundError: No module named 'numpy'
"""


def test_traceback_shows_the_authors_frames_and_the_error() -> None:
    assert author_traceback(TRACEBACK).splitlines() == [
        "Traceback (most recent call last):",
        '  File "/opt/workflow/flow.py", line 3, in <module>',
        "    import pandas",
        "ModuleNotFoundError: No module named 'numpy'",
    ]


def test_traceback_of_a_chain_keeps_both_errors() -> None:
    chained = f"{TRACEBACK}\nThe above exception was the direct cause of the following exception:\n\n{TRACEBACK}"

    assert author_traceback(chained).count("ModuleNotFoundError") == 2
    assert author_traceback(chained).count("/opt/workflow/flow.py") == 2
    assert "site-packages" not in author_traceback(chained)


def test_place_of_a_syntax_error_is_kept() -> None:
    text = """Traceback (most recent call last):
  File "/opt/venv/lib/python3.11/site-packages/prefect/flows.py", line 1, in load
    load()
  File "/opt/workflow/flow.py", line 2
    def f(:
          ^
SyntaxError: invalid syntax
"""
    shown = author_traceback(text)

    assert "    def f(:\n          ^\nSyntaxError: invalid syntax" in shown
