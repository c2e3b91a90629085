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


def _copied() -> dict[str, list[str]]:
    """What the Dockerfile copies from this checkout, by where to."""
    text = (ROOT / "agent" / "Dockerfile").read_text().replace("\\\n", " ")
    copies: dict[str, list[str]] = {}
    for line in re.findall(r"^COPY (?!--from)(.+)$", text, re.MULTILINE):
        *files, target = line.split()
        copies.setdefault(target, []).extend(files)
    return copies


def test_everything_the_dockerfile_copies_counts_for_the_tag_and_nothing_else() -> None:
    copied = [file for files in _copied().values() for file in files]

    assert sorted(["agent/Dockerfile", *copied]) == sorted(image.FILES)


def test_modules_are_where_others_import_them_from() -> None:
    copied = _copied()
    agent = [f"agent/{module}.py" for module in image.RUNS_INSIDE if module != "run_workflow"]

    assert copied["/opt/platform/agent/"] == sorted(agent)
    assert copied["/opt/platform/environments/"] == [f"environments/{module}.py" for module in image.SHARED]
    assert copied["/opt/platform/bin/prefect"] == ["agent/run_workflow.py"]


def test_modules_are_listed_once_and_are_there() -> None:
    assert len(set(image.FILES)) == len(image.FILES)
    assert [file for file in image.FILES if not (ROOT / file).is_file()] == []


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
