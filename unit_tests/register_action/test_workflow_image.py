import json
import re
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from docker.errors import ContainerError, ImageNotFound
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from environments.errors import PlatformError
from environments.settings import Environment
from infra import images
from infra.images import Image
from register_action import workflow_image
from register_action.discovery import FoundFlow
from register_action.workflow_image import DescribedFlow, author_traceback, repository_name, slug

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


Aws = Callable[[str], Any]
BASE = "123456789012.dkr.ecr.eu-west-1.amazonaws.com/dev_dataflow_automation_agent@sha256:" + "0" * 64
MANIFEST = json.dumps(
    {
        "schemaVersion": 2,
        "mediaType": "application/vnd.docker.distribution.manifest.v2+json",
        "config": {"digest": "sha256:" + "1" * 64},
        "layers": [],
    }
)


class Engine:
    """A Docker engine that knows images by name only, and whose pushes arrive in the ECR that moto plays."""

    def __init__(self, ecr: Any) -> None:
        self.ecr = ecr
        self.has = {BASE}
        self.builds: list[dict[str, Any]] = []
        self.runs: list[tuple[str, list[str], dict[str, Any]]] = []
        self.pulls: list[str] = []
        self.answer: bytes | Exception = b"[]"
        self.api, self.containers = self, types.SimpleNamespace(run=self.run)
        self.images = types.SimpleNamespace(get=self.get, pull=self.pull)

    def get(self, name: str) -> Any:
        if name not in self.has:
            raise ImageNotFound(name)
        return types.SimpleNamespace(attrs={"Size": 1_000_000}, tag=self.has.add)

    def pull(self, name: str, auth_config: Any) -> None:
        self.pulls.append(name)
        self.has.add(name)

    def build(self, **request: Any) -> list[dict[str, str]]:
        self.builds.append(request)
        self.has.add(request["tag"])
        return [{"stream": "Step 1/1 : FROM x\n"}]

    def push(self, target: str, **_: Any) -> list[dict[str, str]]:
        assert target in self.has
        repository, _, tag = target.partition("/")[2].rpartition(":")
        self.ecr.put_image(repositoryName=repository, imageManifest=MANIFEST, imageTag=tag)
        return [{"status": "Pushed"}]

    def run(self, image: str, command: list[str], **options: Any) -> bytes:
        assert image in self.has
        self.runs.append((image, command, options))
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


@pytest.fixture
def engine(aws_mocked: Aws, monkeypatch: pytest.MonkeyPatch) -> Engine:
    fake = Engine(aws_mocked("ecr"))
    for module in (images, workflow_image):
        monkeypatch.setattr(module, "docker_client", lambda: fake)
    monkeypatch.setattr(workflow_image, "base_image", lambda _: BASE)
    return fake


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "sales"
    made.mkdir()
    (made / "flow.py").write_text("from prefect import flow\n")
    return made


def test_image_is_built_on_the_agents_and_not_pushed_yet(
    environment: Environment, engine: Engine, folder: Path
) -> None:
    image = workflow_image.build(environment, folder)
    [build] = engine.builds

    assert build["tag"] == image.uri
    assert build["buildargs"] == {"BASE_IMAGE": BASE}
    assert image.repository == "dev_sales"
    assert image.digest == ""
    assert engine.ecr.describe_repositories()["repositories"] == []


def test_image_of_the_same_content_is_built_once(environment: Environment, engine: Engine, folder: Path) -> None:
    assert workflow_image.build(environment, folder) == workflow_image.build(environment, folder)
    assert len(engine.builds) == 1


@pytest.mark.parametrize("change", ["code", "requirements", "base"])
def test_image_has_another_name_when_anything_in_it_changed(
    environment: Environment, engine: Engine, folder: Path, monkeypatch: pytest.MonkeyPatch, change: str
) -> None:
    before = workflow_image.build(environment, folder)
    if change == "base":
        monkeypatch.setattr(workflow_image, "base_image", lambda _: BASE[:-1] + "1")
    else:
        (folder / {"code": "flow.py", "requirements": "requirements.txt"}[change]).write_text("pandas\n")

    assert workflow_image.build(environment, folder).tag != before.tag
    assert len(engine.builds) == 2


def test_base_that_the_engine_has_not_is_fetched(environment: Environment, engine: Engine, folder: Path) -> None:
    engine.has.clear()
    workflow_image.build(environment, folder)

    assert engine.pulls == [BASE]


def test_pushed_image_has_its_repository_and_its_digest(environment: Environment, engine: Engine, folder: Path) -> None:
    pushed = workflow_image.push(environment, workflow_image.build(environment, folder))
    [repository] = engine.ecr.describe_repositories()["repositories"]
    [there] = engine.ecr.describe_images(repositoryName="dev_sales")["imageDetails"]

    assert repository["repositoryName"] == "dev_sales"
    assert there["imageTags"] == [pushed.tag]
    assert pushed.digest == there["imageDigest"]
    assert pushed.digest


def test_image_that_ecr_has_is_neither_built_nor_pushed(
    environment: Environment, engine: Engine, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = workflow_image.push(environment, workflow_image.build(environment, folder))
    monkeypatch.setattr(images, "docker_client", lambda: pytest.fail("no engine is needed"))
    again = workflow_image.build(environment, folder)

    assert again.digest == first.digest
    assert workflow_image.push(environment, again) == again


FLOWS = [FoundFlow("flow.py", "sales"), FoundFlow("sub/more.py", "returns")]
URI = "123456789012.dkr.ecr.eu-west-1.amazonaws.com/dev_sales:0123456789abcdef"


def _image(digest: str = "") -> Image:
    return Image(repository="dev_sales", tag="0123456789abcdef", uri=URI, digest=digest)


def _answer(**change: Any) -> dict[str, Any]:
    return {"entrypoint": "flow.py:sales", "name": "sales", "description": "d", "parameters": {}, **change}


def test_flows_are_described_in_the_image_that_was_just_built(environment: Environment, engine: Engine) -> None:
    engine.has.add(URI)
    engine.answer = (
        b"printed by the flow's module\n" + json.dumps([_answer(), _answer(name="returns")]).encode() + b"\n"
    )
    described = workflow_image.describe(environment, _image(), FLOWS)
    [(image, command, options)] = engine.runs

    assert described == [DescribedFlow(**_answer()), DescribedFlow(**_answer(name="returns"))]
    assert engine.pulls == []
    assert image == URI
    assert command[-2:] == ["flow.py:sales", "sub/more.py:returns"]
    assert options["network_disabled"] is True
    assert options["cap_drop"] == ["ALL"]
    assert options["remove"] is True


def test_image_that_only_ecr_has_is_fetched_to_describe_its_flows(environment: Environment, engine: Engine) -> None:
    workflow_image.describe(environment, _image("sha256:0"), [])

    assert engine.pulls == [URI]


def test_flow_that_fails_on_import_is_named_with_the_authors_traceback(
    environment: Environment, engine: Engine
) -> None:
    engine.has.add(URI)
    broken = {"entrypoint": "sub/more.py:returns", "error": TRACEBACK}
    engine.answer = json.dumps([_answer(), broken]).encode()
    with pytest.raises(PlatformError) as caught:
        workflow_image.describe(environment, _image(), FLOWS)

    assert caught.value.what == "1 of 2 flows fail on import"
    assert caught.value.why == f"sub/more.py:returns:\n{author_traceback(TRACEBACK)}"
    assert "requirements.txt" in caught.value.todo


def test_image_that_does_not_run_shows_what_it_wrote(environment: Environment, engine: Engine) -> None:
    engine.has.add(URI)
    engine.answer = ContainerError(None, 127, "python", URI, "exec: python: not found")
    with pytest.raises(PlatformError, match="does not run") as caught:
        workflow_image.describe(environment, _image(), FLOWS)

    assert "exec: python: not found" in caught.value.why
