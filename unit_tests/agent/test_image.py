import re
from pathlib import Path

import pytest

from agent import image
from environments.settings import ROOT, Environment
from infra import images


def test_tag_is_known_before_anything_is_built_and_stays(environment: Environment) -> None:
    first = image.name(environment)

    assert first == image.name(environment)
    assert first.repository == "dev_dataflow_automation_agent"
    assert re.fullmatch(r"[0-9a-f]{16}", first.tag)


def test_all_environments_run_the_same_image(environment: Environment, local: Environment) -> None:
    assert image.name(environment).tag == image.name(local).tag


def test_everything_the_dockerfile_copies_counts_for_the_tag() -> None:
    copied = re.findall(r"^COPY (?!--from)(\S+) ", (ROOT / "agent" / "Dockerfile").read_text(), re.MULTILINE)

    assert set(copied) <= set(image.FILES)
    assert "agent/Dockerfile" in image.FILES


@pytest.mark.parametrize("changed", image.FILES)
def test_change_of_any_part_changes_the_tag(
    environment: Environment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, changed: str
) -> None:
    before = image.name(environment).tag
    for file in image.FILES:
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / file).write_bytes((ROOT / file).read_bytes())
    monkeypatch.setattr(image, "ROOT", tmp_path)
    copied = image.name(environment).tag
    (tmp_path / changed).write_bytes((tmp_path / changed).read_bytes() + b"\n")

    assert copied == before
    assert image.name(environment).tag != before


def test_base_image_is_the_one_that_bootstrap_brings() -> None:
    assert f"BASE_IMAGE={images.BASE_IMAGE}\n" in (ROOT / "bootstrap.sh").read_text()
    assert f"ARG BASE_IMAGE={images.BASE_IMAGE}\n" in (ROOT / "agent" / "Dockerfile").read_text()
