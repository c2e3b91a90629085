import re
import subprocess
from pathlib import Path
from typing import Any

import pytest

from agent import image
from environments import progress
from environments.errors import PlatformError
from environments.settings import ROOT, Environment
from infra import base_image, images


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


def test_another_digest_of_the_base_image_makes_another_image(
    environment: Environment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before, base = image.name(environment).tag, base_image.pinned()
    updated = tmp_path / "Dockerfile"
    updated.write_text(base_image.FILE.read_text().replace(base.digest, "sha256:" + "0" * 64))
    monkeypatch.setattr(base_image, "FILE", updated)

    assert image.name(environment).tag != before


def test_base_image_is_named_in_one_file_only() -> None:
    name, digest = base_image.pinned().name, base_image.pinned().digest
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True, text=True).stdout
    files = {file: ROOT / file for file in listed.split("\0") if file and (ROOT / file).is_file()}
    naming = {
        file for file, path in files.items() if path.stat().st_size < 10**6 and digest.encode() in path.read_bytes()
    }

    assert naming == {base_image.FILE.relative_to(ROOT).as_posix()}
    assert [
        file for file in ("bootstrap.sh", "agent/Dockerfile", "infra/images.py") if name in files[file].read_text()
    ] == []


class Engine:
    """A Docker engine that has only the base image, and notes what is built."""

    def __init__(self) -> None:
        from docker.errors import ImageNotFound

        self.arguments: list[dict[str, str]] = []
        engine = self

        class Images:
            def get(self, name: str) -> Any:
                if engine.arguments:
                    return type("Image", (), {"attrs": {"Size": 1_000_000}})()
                raise ImageNotFound(name)

        self.images, self.api = Images(), self

    def build(self, buildargs: dict[str, str], **_: Any) -> list[dict[str, Any]]:
        self.arguments.append(buildargs)
        return []


@pytest.mark.parametrize(
    ("base", "note"),
    [
        (base_image.Local("python:3@sha256:0"), "built, 1 MB with its base"),
        (base_image.Local("python:3", "python:3 is built locally"), "built; python:3 is built locally"),
    ],
)
def test_image_is_built_on_the_base_that_there_is_and_the_output_says_which(
    local: Environment, monkeypatch: pytest.MonkeyPatch, base: base_image.Local, note: str
) -> None:
    engine, notes = Engine(), list[str]()
    monkeypatch.setattr(images, "docker_client", lambda: engine)
    monkeypatch.setattr(base_image, "provide", lambda: base)
    monkeypatch.setattr(progress, "note", notes.append)

    assert image.build(local) == image.build(local) == image.name(local)
    assert engine.arguments == [{"BASE_IMAGE": base.reference}]
    assert notes[-2:] == [note, "unchanged"]


def test_image_for_aws_is_built_on_the_pinned_base_only(
    environment: Environment, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = Engine()
    monkeypatch.setattr(images, "docker_client", lambda: engine)
    monkeypatch.setattr(images, "find", lambda *_: None)
    monkeypatch.setattr(base_image, "provide", lambda: base_image.Local("python:3", "python:3 is built locally"))
    with pytest.raises(PlatformError, match="pinned base image only") as caught:
        image.build(environment)

    assert caught.value.why == "python:3 is built locally"
    assert engine.arguments == []
