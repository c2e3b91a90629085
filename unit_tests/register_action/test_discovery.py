from pathlib import Path

import pytest

from environments.errors import PlatformError
from environments.settings import ROOT
from register_action.discovery import find_flows, workflow_files


def _write(folder: Path, **files: str) -> Path:
    for name, text in files.items():
        (folder / f"{name}.py").write_text(text)
    return folder


def _entrypoints(folder: Path) -> list[str]:
    return [flow.entrypoint for flow in find_flows(folder)]


@pytest.mark.parametrize(
    ("imported", "decorator"),
    [
        ("from prefect import flow", "@flow"),
        ("from prefect import flow", "@flow()"),
        ("from prefect import flow", '@flow(name="Sales", log_prints=True)'),
        ("import prefect", "@prefect.flow"),
        ("import prefect", "@prefect.flow(retries=2)"),
        ("import prefect as p", "@p.flow"),
        ("from prefect import flow as workflow", "@workflow"),
        ("from prefect import flow as workflow, task", "@workflow(retries=1)"),
        ("from prefect.flows import flow", "@flow"),
        ("try:\n    from prefect import flow\nexcept ImportError:\n    raise", "@flow"),
        ("from prefect import flow\nother = lambda f: f", "@other\n@flow"),
    ],
)
@pytest.mark.parametrize("kind", ["def", "async def"])
def test_flow_is_found_however_it_is_decorated(tmp_path: Path, imported: str, decorator: str, kind: str) -> None:
    _write(tmp_path, flow=f"{imported}\n\n{decorator}\n{kind} sales(day: str) -> None:\n    pass\n")

    assert _entrypoints(tmp_path) == ["flow.py:sales"]


@pytest.mark.parametrize(
    "text",
    [
        "from prefect import task\n@task\ndef t(): ...",
        "from metaflow import flow\n@flow\ndef f(): ...",
        "import other as prefect\n@prefect.flow\ndef f(): ...",
        "@flow\ndef f(): ...",
        "from prefect import flow\ndef flow_without_decorator(): ...",
        "from prefect import flow\nclass C:\n    @flow\n    def method(self): ...",
        "from prefect import flow\ndef make():\n    @flow\n    def inner(): ...\n    return inner",
        '"""from prefect import flow\n@flow\ndef f(): ..."""',
        "",
    ],
)
def test_what_is_no_flow_of_the_module_is_not_found(tmp_path: Path, text: str) -> None:
    _write(tmp_path, flow=text)
    with pytest.raises(PlatformError, match="no flow in") as caught:
        find_flows(tmp_path)

    assert "@flow" in caught.value.todo


def test_all_flows_of_all_files_are_found_in_a_lasting_order(tmp_path: Path) -> None:
    flow = "from prefect import flow\n@flow\ndef {}(): ...\n"
    _write(tmp_path, b=flow.format("b1") + flow.format("b2"), a=flow.format("a1"))
    (tmp_path / "sub").mkdir()
    _write(tmp_path / "sub", c=flow.format("c1"))

    assert _entrypoints(tmp_path) == ["a.py:a1", "b.py:b1", "b.py:b2", "sub/c.py:c1"]


@pytest.mark.parametrize("folder", ["tests", ".venv", "venv", "__pycache__", "sub/node_modules", ".git", ".hidden"])
def test_folders_that_are_not_the_workflows_are_passed_over(tmp_path: Path, folder: str) -> None:
    (tmp_path / folder).mkdir(parents=True)
    _write(tmp_path / folder, flow="this is not Python")
    _write(tmp_path, flow="from prefect import flow\n@flow\ndef f(): ...")

    assert _entrypoints(tmp_path) == ["flow.py:f"]
    assert [file.name for file in workflow_files(tmp_path)] == ["flow.py"]


def test_folder_above_with_such_a_name_does_no_harm(tmp_path: Path) -> None:
    folder = tmp_path / ".hidden" / "tests"
    folder.mkdir(parents=True)
    _write(folder, flow="from prefect import flow\n@flow\ndef f(): ...")

    assert _entrypoints(folder) == ["flow.py:f"]


def test_secrets_in_hidden_files_stay_out_of_the_image(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("PASSWORD=x")
    (tmp_path / "data.csv").write_text("a,b")

    assert [file.name for file in workflow_files(tmp_path)] == ["data.csv"]


def test_no_code_of_the_workflow_runs(tmp_path: Path) -> None:
    mark = tmp_path / "ran"
    _write(tmp_path, flow=f"from prefect import flow\nopen({str(mark)!r}, 'w')\n@flow\ndef f(): ...")
    find_flows(tmp_path)

    assert not mark.exists()


def test_workflow_of_prefect_1_is_told_how_it_looks_today(tmp_path: Path) -> None:
    _write(tmp_path, flow='from prefect import Flow, task\n\nwith Flow("etl") as flow:\n    pass\n')
    with pytest.raises(PlatformError, match="Prefect 1") as caught:
        find_flows(tmp_path)

    assert "flow.py:3" in caught.value.why
    assert "from prefect import flow" in caught.value.todo


def test_code_that_does_not_parse_is_named_with_its_place(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    _write(tmp_path / "sub", flow="x = 1\n\ndef f(:\n    pass\n")
    with pytest.raises(PlatformError) as caught:
        find_flows(tmp_path)

    assert caught.value.what == "sub/flow.py:3 is not valid Python"


@pytest.mark.parametrize("data", [b"x = '\xff'\n", b"\x00", b"# -*- coding: nonsense -*-\n"])
def test_file_that_is_no_text_is_an_error_of_the_user(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "flow.py").write_bytes(data)
    with pytest.raises(PlatformError, match=r"flow\.py:\d+ is not valid Python"):
        find_flows(tmp_path)


@pytest.mark.parametrize("kind", ["missing", "file"])
def test_folder_that_is_not_there_names_the_option(tmp_path: Path, kind: str) -> None:
    folder = tmp_path / "flow.py"
    if kind == "file":
        folder.touch()
    with pytest.raises(PlatformError, match="no folder") as caught:
        find_flows(folder)

    assert str(folder) in caught.value.what
    assert "--workflow-path" in caught.value.todo


def test_every_example_has_a_flow() -> None:
    for folder in (ROOT / "examples").iterdir():
        assert find_flows(folder)
