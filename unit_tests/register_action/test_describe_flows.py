"""What Prefect is told of flows: from deployments of the same image, else from the import inside of it."""

import dataclasses
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from docker.errors import APIError, ContainerError

from environments.errors import PlatformError
from environments.settings import ROOT, Environment
from infra import images
from infra.images import Image
from register_action import workflow_image
from register_action.discovery import FoundFlow
from register_action.packages import Packages
from register_action.parameters import KIND, VAR_KEYWORD
from register_action.prefect_yaml import Declared
from register_action.registered import DESCRIBED, Project, Registered
from register_action.source import Source
from register_action.workflow import Choice, Entry, Workflow
from register_action.workflow_image import DescribedFlow, author_traceback, known

Answers = dict[str, dict[str, Any]]
MODULES = {
    "flow.py": """
import atexit, os, sys, threading, time
from prefect import flow

print("printed on import")
atexit.register(print, "bye")
threading.Thread(target=time.sleep, args=(600,)).start()
os.chdir("/")

@flow
def sales(day: str = "today", count: int | None = None):
    '''Counts what was sold.'''

@flow
def anything(first: int = 1, *rest: str, **options: float): ...

@flow
def some(first, **options): ...

class Reports:
    @flow(name="Monthly Report")
    @staticmethod
    def monthly(month: int): ...
""",
    "sub/more.py": """
import io, sys
from prefect import flow

sys.stdout = io.StringIO()
returns = flow(lambda: None, name="returns")
""",
    "broken.py": "from prefect import flow\nimport helper\n\n@flow\ndef broken(): ...\n",
    "helper.py": "\n\nimport nothing_of_that_name\n",
    "ends.py": "raise SystemExit(3)\n",
}
FINE = ("flow.py:sales", "flow.py:anything", "flow.py:some", "flow.py:Reports.monthly", "sub/more.py:returns")
FAILING = ("broken.py:broken", "ends.py:any", "flow.py:nothing")


@pytest.fixture(scope="module")
def answers(tmp_path_factory: pytest.TempPathFactory) -> Answers:
    """What the script says of each flow, run as in an image; all at once, for Prefect takes long to import."""
    folder = tmp_path_factory.mktemp("workflow")
    for name, text in MODULES.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(text)
    command = [sys.executable, "-c", workflow_image.DESCRIBE.read_text(encoding="utf-8"), *FINE, *FAILING]
    answer = subprocess.run(
        command,
        cwd=folder,
        env={**os.environ, "IMPORT_SECONDS": "60"},
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    told = json.loads(answer.stdout.splitlines()[-1])

    assert [each["entrypoint"] for each in told] == [*FINE, *FAILING]
    return {each["entrypoint"]: each for each in told}


def test_an_import_without_end_is_cut_off_and_says_where_it_was(tmp_path: Path) -> None:
    (tmp_path / "flow.py").write_text("import time\nwhile True:\n    time.sleep(1)\n")
    command = [sys.executable, "-c", workflow_image.DESCRIBE.read_text(encoding="utf-8"), "flow.py:any"]
    limited = {**os.environ, "IMPORT_SECONDS": "0.1"}
    answer = subprocess.run(command, cwd=tmp_path, env=limited, capture_output=True, check=False, timeout=60)

    assert answer.returncode == 1
    assert workflow_image.TIMED_OUT in answer.stderr
    assert b'flow.py", line 3' in answer.stderr


def test_flow_is_described_by_name_docstring_and_parameters(answers: dict[str, dict[str, Any]]) -> None:
    described = DescribedFlow(**answers["flow.py:sales"])

    assert (described.name, described.description) == ("sales", "Counts what was sold.")
    assert described.parameters["properties"]["day"]["default"] == "today"
    assert "required" not in described.parameters
    assert answers["flow.py:Reports.monthly"]["name"] == "Monthly Report"
    assert answers["flow.py:Reports.monthly"]["parameters"]["required"] == ["month"]


def test_parameters_that_take_any_number_of_values_are_described_as_such(answers: Answers) -> None:
    """Prefect itself calls them required, and each of the type that one of its values has."""
    anything, some = (DescribedFlow(**answers[f"flow.py:{name}"]).parameters for name in ("anything", "some"))
    rest, options = (anything["properties"][name] for name in ("rest", "options"))

    assert rest == {"title": "rest", "position": 1, "type": "array", "items": {"type": "string"}, "default": []}
    assert options == {
        "title": "options",
        "position": 2,
        "type": "object",
        "additionalProperties": {"type": "number"},
        "default": {},
        KIND: VAR_KEYWORD,
    }
    assert "required" not in anything
    assert (some["required"], some["properties"]["options"]["additionalProperties"]) == (["first"], {})


def test_modules_that_print_go_elsewhere_or_leave_threads_spoil_nothing(answers: Answers) -> None:
    """They did all of it, and yet the answer came, was the last line, and is right for those that came after."""
    [directory] = {each["directory"] for each in answers.values()}

    assert (Path(directory) / "flow.py").exists()
    assert answers["sub/more.py:returns"]["name"] == "returns"


def test_import_that_fails_is_an_answer_like_any_other(answers: dict[str, dict[str, Any]]) -> None:
    last = [answers[entrypoint]["error"].splitlines()[-1] for entrypoint in FAILING]

    assert last[:2] == ["ModuleNotFoundError: No module named 'nothing_of_that_name'", "SystemExit: 3"]
    assert "has no attribute 'nothing'" in last[2]  # newer versions of Python add what was probably meant


SALES = FoundFlow("flow.py", "sales", "sales", 10)
BROKEN = FoundFlow("broken.py", "broken", "broken", 5)
IMAGE = Image("dev_sales", "0" * 16, "registry/dev_sales:" + "0" * 16, "sha256:1")
DECLARED = Declared("dev", "flow.py:sales", None, (), {}, (), None, None, None, None, {}, None, 1)


def workflow(*flows: FoundFlow, declared: tuple[Declared | None, ...] = (None,)) -> Workflow:
    entries = tuple(Entry("dev", flow, each) for flow in flows for each in declared)
    return Workflow(Source(Path("/nowhere"), "sales", "", "", "", "."), Choice(), entries, Packages(), {})


class Containers:
    """A Docker engine of which only the run of the script is played."""

    def __init__(self) -> None:
        self.answer: bytes | Exception = b""
        self.runs: list[tuple[str, list[str], dict[str, Any]]] = []
        self.containers = self

    def run(self, image: str, command: list[str], **options: Any) -> bytes:
        self.runs.append((image, command, options))
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


@pytest.fixture
def engine(monkeypatch: pytest.MonkeyPatch) -> Containers:
    fake = Containers()
    monkeypatch.setattr(workflow_image, "docker_client", lambda: fake)
    monkeypatch.setattr(images, "fetch", lambda _, uri: uri)
    return fake


def describe(environment: Environment, *flows: FoundFlow, project: Project | None = None) -> list[DescribedFlow]:
    return workflow_image.describe(environment, workflow(*flows), project or there(), IMAGE)


def printed(*answers: dict[str, Any]) -> bytes:
    return b"printed by a module\n\n" + json.dumps(answers).encode() + b"\n"


def exited(code: int, stderr: bytes) -> ContainerError:
    """A container that failed; docker-py hands on stderr in bytes, whatever its stubs say of it."""
    container: Any = None
    output: Any = stderr
    return ContainerError(container, code, "python", "image", output)


def test_flows_are_imported_in_the_image_without_network_and_rights(
    environment: Environment, engine: Containers, answers: Answers
) -> None:
    engine.answer = printed(answers["flow.py:sales"])
    [described] = describe(environment, SALES)
    [(image, command, options)] = engine.runs

    assert described == DescribedFlow(**answers["flow.py:sales"])
    assert (image, command[0], command[3:]) == (IMAGE.uri, "python", ["flow.py:sales"])
    assert (options["network_disabled"], options["cap_drop"], options["remove"]) == (True, ["ALL"], True)
    # Docker would make a volume for each, and not take it away with the container.
    volumes = re.search("^VOLUME (.*)$", (ROOT / "agent" / "Dockerfile").read_text(), re.MULTILINE)
    assert volumes
    assert set(options["tmpfs"]) == set(json.loads(volumes[1]))


def test_import_error_shows_the_authors_lines_at_the_one_that_failed(
    environment: Environment, engine: Containers, answers: Answers
) -> None:
    engine.answer = printed(answers["flow.py:sales"], answers["broken.py:broken"])
    with pytest.raises(PlatformError) as caught:
        describe(environment, SALES, BROKEN)

    directory = answers["broken.py:broken"]["directory"]

    assert caught.value.what == "1 of 2 flows fail on import"
    assert caught.value.why.splitlines() == [
        "broken.py:broken:",
        "Traceback (most recent call last):",
        f'  File "{directory}/broken.py", line 2, in <module>',
        "    import helper",
        f'  File "{directory}/helper.py", line 3, in <module>',
        "    import nothing_of_that_name",
        "ModuleNotFoundError: No module named 'nothing_of_that_name'",
    ]
    assert "requirements.txt" in caught.value.todo
    assert (caught.value.file, caught.value.line) == ("helper.py", 3)


def test_error_without_a_line_of_the_author_is_told_at_the_flow(environment: Environment, engine: Containers) -> None:
    engine.answer = printed({"entrypoint": "flow.py:sales", "error": "MissingFlowError: no sales", "directory": "/w"})
    with pytest.raises(PlatformError) as caught:
        describe(environment, SALES)

    assert (caught.value.file, caught.value.line) == ("flow.py", 10)


@pytest.mark.parametrize(
    ("answer", "told"),
    [
        (exited(127, b"python: not found"), "python: not found"),
        (APIError("no such file: python"), "no such file: python"),
        (b"/entrypoint.sh: unknown command python\n", "/entrypoint.sh: unknown command python"),
        (b"", "it printed nothing"),
        (b'{"entrypoint": "flow.py:sales"}\n', '{"entrypoint": "flow.py:sales"}'),
        (b"\xff\xfe\n", "\ufffd\ufffd"),
    ],
    ids=["exits", "engine-refuses", "eats-the-command", "silent", "no-list", "no-text"],
)
def test_image_without_python_and_prefect_is_told_with_its_last_words(
    environment: Environment, engine: Containers, answer: bytes | Exception, told: str
) -> None:
    engine.answer = answer
    with pytest.raises(PlatformError, match="don't run in the workflow's image") as caught:
        describe(environment, SALES)

    assert caught.value.why == told
    assert "FROM ${BASE_IMAGE}" in caught.value.todo


def test_import_without_end_is_told_with_its_place(environment: Environment, engine: Containers) -> None:
    cut_off = b'noise\nTimeout (0:02:00)!\n  File "/opt/workflow/flow.py", line 3 in <module>'
    engine.answer = exited(1, cut_off)
    with pytest.raises(PlatformError, match="takes more than 120 s") as caught:
        describe(environment, SALES)

    assert caught.value.why == cut_off.decode().partition("\n")[2]


def test_names_that_only_the_import_tells_must_differ_too(environment: Environment, engine: Containers) -> None:
    flows = [FoundFlow("a.py", "one", None, 3), FoundFlow("b.py", "two", None, 7)]
    common = {"name": "same", "description": "", "parameters": {}, "directory": "/w"}
    engine.answer = printed(*({"entrypoint": flow.entrypoint, **common} for flow in flows))
    with pytest.raises(PlatformError, match="same name") as caught:
        describe(environment, *flows)

    assert (caught.value.file, caught.value.line) == ("b.py", 7)


def there(*changes: dict[str, Any]) -> Project:
    """A project with deployments of the flow `sales`: as register leaves them at Prefect, but for the changes."""
    from prefect.client.schemas.responses import DeploymentResponse

    told = {
        "name": "dev",
        "entrypoint": "flow.py:sales",
        "description": "of the flow",
        "job_variables": {"image": IMAGE.pinned},
        "parameter_openapi_schema": {"type": "object"},
        "pull_steps": [{workflow_image.SET_DIRECTORY: {"directory": "/opt/workflow"}}],
    }
    ids = {"id": UUID(int=1), "flow_id": UUID(int=2)}
    return Project(
        "base", tuple(Registered("sales", DeploymentResponse(**{**ids, **told, **each})) for each in changes)
    )


def test_flow_of_a_deployment_of_the_same_image_needs_no_container(environment: Environment) -> None:
    assert describe(environment, SALES, project=there({})) == [
        DescribedFlow("flow.py:sales", "sales", "of the flow", {"type": "object"}, "/opt/workflow")
    ]


ANOTHER_IMAGE = {"job_variables": {"image": "registry/dev_sales@sha256:2"}}


@pytest.mark.parametrize("change", [ANOTHER_IMAGE, {"job_variables": {}}, {"entrypoint": None}, {"entrypoint": "x:y"}])
def test_flow_that_no_deployment_of_the_image_tells_of_is_imported(
    environment: Environment, engine: Containers, answers: Answers, change: dict[str, Any]
) -> None:
    engine.answer = printed(answers["flow.py:sales"])

    assert describe(environment, SALES, project=there(change))[0].description == "Counts what was sold."


OVERRIDE = {"description": "of prefect.yaml", "labels": {DESCRIBED: "prefect.yaml"}}
OVERRIDING = dataclasses.replace(DECLARED, description="of prefect.yaml")


@pytest.mark.parametrize(("declared", "told"), [(OVERRIDING, True), (DECLARED, False), (None, False)])
def test_description_of_prefect_yaml_counts_as_long_as_the_file_has_one(declared: Declared | None, told: bool) -> None:
    found = known(workflow(SALES, declared=(declared,)), there(OVERRIDE), IMAGE)

    assert [flow.description for flow in found.values()] == (["of prefect.yaml"] if told else [])


@pytest.mark.parametrize("changes", [({}, OVERRIDE), (OVERRIDE, {})])
def test_description_that_prefect_yaml_gives_one_deployment_is_not_that_of_the_flow(
    changes: tuple[dict[str, Any], ...],
) -> None:
    found = known(workflow(SALES, declared=(OVERRIDING, DECLARED)), there(*changes), IMAGE)

    assert found["flow.py:sales"].description == "of the flow"


PREFECT = '  File "/opt/venv/lib/python3.11/site-packages/prefect/flows.py", line 9, in load\n    load()\n    ^^^^\n'
FROZEN = '  File "<frozen importlib._bootstrap>", line 241, in _call_with_frames_removed\n'
MINE = '  File "/opt/workflow/flow.py", line 3, in <module>\n    import pandas\n'
BEGIN, END = "Traceback (most recent call last):\n", "ModuleNotFoundError: No module named 'numpy'"
CAUSE = "\n\nThe above exception was the direct cause of the following exception:\n\n"
SYNTAX = '  File "/opt/workflow/flow.py", line 2\n    def f(:\n          ^\nSyntaxError: invalid syntax'
GROUP = '  + Exception Group Traceback (most recent call last):\n  |   File "/opt/workflow/flow.py", line 3\n  | x'


@pytest.mark.parametrize("directory", ["/opt/workflow", "/opt/workflow/"])
@pytest.mark.parametrize(
    ("text", "shown"),
    [
        (BEGIN + PREFECT + FROZEN + MINE + PREFECT + END, BEGIN + MINE + END),
        (BEGIN + PREFECT + MINE + END + CAUSE + BEGIN + PREFECT + END, BEGIN + MINE + END + CAUSE + BEGIN + END),
        (BEGIN + PREFECT + SYNTAX, BEGIN + SYNTAX),
        (BEGIN + MINE.replace("workflow/", "workflow_of_others/") + END, BEGIN + END),
        (GROUP, GROUP),
    ],
    ids=["frames", "chain", "syntax-error", "similar-folder", "group"],
)
def test_traceback_shows_the_authors_frames_and_the_error(text: str, shown: str, directory: str) -> None:
    assert author_traceback(text, directory) == shown
