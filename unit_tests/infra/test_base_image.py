from pathlib import Path
from typing import Any

import pytest

from environments.errors import PlatformError
from environments.settings import Environment
from infra import base_image, checks
from infra.base_image import BaseImage, Local

DIGEST, OLDER = "sha256:" + "a" * 64, "sha256:" + "b" * 64
BASE = BaseImage("python:3.11-slim-bookworm", DIGEST)


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file of the test's own that names `BASE`."""
    written = tmp_path / "Dockerfile"
    written.write_text(f"# FROM is explained here\nFROM {BASE.pinned}\n")
    monkeypatch.setattr(base_image, "FILE", written)
    monkeypatch.setattr(base_image, "ROOT", tmp_path)
    return written


class Engine:
    """A Docker engine that has images by name with their labels, and a registry that has what it is given."""

    def __init__(self, has: dict[str, dict[str, str]], registry: set[str]) -> None:
        from docker.errors import APIError, ImageNotFound

        self.has, self.pulled = has, list[str]()
        engine = self

        class Image:
            def __init__(self, name: str) -> None:
                self.name, self.labels = name, engine.has[name]

            def tag(self, repository: str, tag: str) -> None:
                engine.has[f"{repository}:{tag}"] = self.labels

        class Images:
            def get(self, name: str) -> Image:
                if name not in engine.has:
                    raise ImageNotFound(name)
                return Image(name)

            def pull(self, name: str) -> Image:
                engine.pulled.append(name)
                if name not in registry:
                    raise APIError(f"no such host: {name}")
                engine.has[name] = {}
                return Image(name)

        self.images = Images()


@pytest.fixture
def engine(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Put an engine with these images in place of this machine's."""

    def put(*has: str, registry: str = "", built: bool = False) -> Engine:
        labels = {base_image.BUILT_LOCALLY: "by bootstrap.sh"} if built else {}
        made = Engine({name: labels for name in has}, {registry})
        monkeypatch.setattr(base_image, "docker_client", lambda: made)
        return made

    return put


def test_committed_file_pins_a_python_image_by_digest() -> None:
    base = base_image.pinned()

    assert base.name.startswith("python:3.")
    assert len(base.digest) == len("sha256:") + 64
    assert base.pinned == f"{base.name}@{base.digest}"


def test_name_and_digest_are_read_from_the_file(file: Path) -> None:
    assert base_image.pinned() == BASE


@pytest.mark.parametrize(
    "text",
    [
        "",
        "FROM python:3.11\n",
        f"FROM {BASE.name}@sha256:abc\n",
        f"FROM {BASE.pinned} AS base\n",
        f"FROM {BASE.pinned}\nFROM {BASE.name}@{OLDER}\n",
    ],
    ids=["empty", "without-digest", "short-digest", "stage", "two"],
)
def test_file_that_does_not_pin_one_image_is_refused(file: Path, text: str) -> None:
    file.write_text(text)
    with pytest.raises(PlatformError) as caught:
        base_image.pinned()

    assert "Dockerfile" in caught.value.what
    assert "FROM NAME:TAG@sha256:DIGEST" in caught.value.why


@pytest.mark.usefixtures("file")
def test_pinned_image_that_the_engine_has_is_used_without_a_registry(engine: Any) -> None:
    used = engine(BASE.pinned, BASE.name)

    assert base_image.provide() == base_image.local() == Local(BASE.pinned)
    assert used.pulled == []


@pytest.mark.usefixtures("file")
@pytest.mark.parametrize("has", [(), (BASE.name,), (BASE.name, f"{BASE.name}@{OLDER}")], ids=["none", "name", "older"])
def test_pinned_image_is_pulled_by_digest_and_has_the_name_from_then_on(engine: Any, has: tuple[str, ...]) -> None:
    used = engine(*has, registry=BASE.pinned)

    assert base_image.provide() == Local(BASE.pinned)
    assert used.pulled == [BASE.pinned]
    assert {BASE.pinned, BASE.name} <= set(used.has)


@pytest.mark.usefixtures("file")
@pytest.mark.parametrize(("built", "origin"), [(True, "built locally from Debian packages"), (False, "an older one")])
def test_without_a_registry_the_image_of_that_name_is_used_and_named_as_what_it_is(
    engine: Any, built: bool, origin: str
) -> None:
    engine(BASE.name, built=built)
    used = base_image.provide()

    assert used.reference == BASE.name
    assert origin in used.deviation
    assert DIGEST[:19] in used.deviation
    assert "no registry" in used.deviation


@pytest.mark.usefixtures("file")
def test_without_a_registry_and_an_image_bootstrap_is_named(engine: Any) -> None:
    engine()
    with pytest.raises(PlatformError) as caught:
        base_image.provide()

    assert BASE.pinned in caught.value.what
    assert "./bootstrap.sh" in caught.value.todo


@pytest.mark.usefixtures("file")
def test_check_of_this_machine_tells_which_base_image_it_has(environment: Environment, engine: Any) -> None:
    look = dict(checks.checks(environment))["Base image"]
    engine(BASE.pinned)
    assert look(environment) == BASE.pinned

    engine(BASE.name, built=True)
    assert "built locally" in look(environment)

    engine()
    with pytest.raises(PlatformError, match="is missing"):
        look(environment)
