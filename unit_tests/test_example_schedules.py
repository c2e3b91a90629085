"""When the pipelines of the example repositories register again without a push."""

import re
from pathlib import Path

import pytest
import yaml

from environments.settings import ROOT

PROD = sorted((ROOT / "examples").glob("*/.github/workflows/prod.yaml"))


@pytest.mark.parametrize("file", PROD, ids=lambda file: file.parts[-4])
def test_prod_is_registered_again_once_a_week_as_after_a_push(file: Path) -> None:
    workflow = yaml.safe_load(file.read_text(encoding="utf-8"))
    triggers = workflow[True]  # YAML takes the key `on` for a truth value
    (schedule,) = triggers["schedule"]

    assert triggers.keys() == {"push", "schedule"}
    assert re.fullmatch(r"[1-5]?\d \d+ \* \* [0-6]", schedule["cron"])
    assert [job for job in workflow["jobs"].values() if "if" in job] == []


def test_every_example_has_a_pipeline_for_prod() -> None:
    assert len(PROD) == len([folder for folder in (ROOT / "examples").iterdir() if folder.is_dir()]) > 0
