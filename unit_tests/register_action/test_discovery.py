from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from environments.errors import PlatformError
from environments.settings import ROOT
from register_action.discovery import FoundFlow, check_names, find_flows, select

FLOW = "from prefect import flow\n@flow\ndef f(): ...\n"


def _write(folder: Path, **files: str) -> Path:
    for name, text in files.items():
        (folder / f"{name}.py").write_text(text)
    return folder


def _entrypoints(folder: Path) -> list[str]:
    return [flow.entrypoint for flow in find_flows(folder)]


def _names(tmp_path: Path, text: str) -> dict[str, str | None]:
    """The flows of a module by what they are called in it, and what Prefect calls them."""
    _write(tmp_path, flow=f"import prefect\nfrom prefect import flow\n{text}\n")
    return {flow.function: flow.name for flow in find_flows(tmp_path)}


def _refused(folder: Path) -> PlatformError:
    with pytest.raises(PlatformError) as caught:
        find_flows(folder)
    assert caught.value.todo
    return caught.value


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
        ("from prefect import flows", "@flows.flow"),
        ("import prefect.flows", "@prefect.flows.flow(retries=1)"),
        ("import prefect.flows as f", "@f.flow"),
        ("from prefect import *", "@flow"),
        ("try:\n    from prefect import flow\nexcept ImportError:\n    raise", "@flow"),
        ("from prefect import flow\nother = lambda f: f", "@flow\n@other"),
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
        "from prefect import flow\n@flow\ndef test_f(): ...",
        "from prefect import flow\nif __name__ == '__main__':\n    @flow\n    def f(): ...",
        "from prefect import flow\n@flow\ndef f(): ...\nf = None",
        "from prefect import flow\ndef f(n): ...\nx = flow(f)(1)",
        "from prefect import flow\nmake = flow(retries=2)",
        "from prefect import task\n@task\ndef t(): ...\nx = t.with_options(name='y')",
        "from .prefect import flow\n@flow\ndef f(): ...",
        "from elsewhere import Flow\nwith Flow('x') as f:\n    pass",
        "from prefect import Flow\ndef f(flow: Flow): ...",
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


def test_modules_that_are_not_the_workflows_are_not_read(tmp_path: Path) -> None:
    (tmp_path / "tests").mkdir()
    _write(tmp_path / "tests", flow="this is not Python")
    _write(tmp_path, flow=FLOW)

    assert _entrypoints(tmp_path) == ["flow.py:f"]


def test_no_code_of_the_workflow_runs(tmp_path: Path) -> None:
    mark = tmp_path / "ran"
    _write(tmp_path, flow=f"from prefect import flow\nopen({str(mark)!r}, 'w')\n@flow\ndef f(): ...")
    find_flows(tmp_path)

    assert not mark.exists()


@pytest.mark.parametrize(
    "text",
    [
        'from prefect import Flow, task\n\nwith Flow("etl") as flow:\n    pass\n',
        "import prefect\n\nwith prefect.Flow(NAME) as flow:\n    pass\n",
        'from prefect import Flow\n\nflow = Flow("etl", tasks=[a])\n',
        'import prefect as p\ndef build():\n    with p.Flow(name="etl"):\n        pass\n',
    ],
)
@pytest.mark.parametrize("beside", ["", FLOW])
def test_workflow_of_prefect_1_is_told_how_it_looks_today(tmp_path: Path, text: str, beside: str) -> None:
    _write(tmp_path, old=text, new=beside)
    error = _refused(tmp_path)

    assert "Prefect 1" in error.what
    assert "old.py:3" in error.why
    assert "from prefect import flow" in error.todo
    assert (error.file, error.line) == ("old.py", 3)


def test_code_that_does_not_parse_is_named_with_its_place(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    _write(tmp_path / "sub", flow="x = 1\n\ndef f(:\n    pass\n")
    error = _refused(tmp_path)

    assert error.what == "sub/flow.py:3 is not valid Python"
    assert (error.file, error.line) == ("sub/flow.py", 3)
    assert error.why.splitlines()[1:] == ["    def f(:", "          ^"]


@pytest.mark.parametrize("text", ["(" * 300, "-" * 10**5 + "1", "a" + ".a" * 10**4, "a" + "+a" * 10**4, "[" * 10**4])
def test_code_that_is_nested_too_deeply_is_an_error_of_the_user(tmp_path: Path, text: str) -> None:
    _write(tmp_path, flow=text)

    assert "flow.py:1 is not valid Python" in _refused(tmp_path).what


@pytest.mark.parametrize("data", [b"x = '\xff'\n", b"\x00", b"# -*- coding: nonsense -*-\n"])
def test_file_that_is_no_text_is_an_error_of_the_user(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "flow.py").write_bytes(data)
    with pytest.raises(PlatformError, match=r"flow\.py:\d+ is not valid Python"):
        find_flows(tmp_path)


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("@flow\ndef my_sales(): ...", {"my_sales": "my-sales"}),
        ("@flow(name='Sales of today')\ndef f(): ...", {"f": "Sales of today"}),
        ("@flow(name=None)\ndef a_b(): ...", {"a_b": "a-b"}),
        ("@flow(name=f'x{1}')\ndef f(): ...", {"f": None}),
        ("@flow(name=NAME)\ndef f(): ...", {"f": None}),
        ("@flow(**OPTIONS)\ndef f(): ...", {"f": None}),
        ("@flow(name='\\ud800')\ndef f(): ...", {"f": None}),
        ("def a_b(): ...\nx = flow(a_b)", {"x": "a-b"}),
        ("def a_b(): ...\nx: object = prefect.flow(a_b, name='y')", {"x": "y"}),
        ("def a_b(): ...\nx = flow(retries=2)(a_b)", {"x": "a-b"}),
        ("def a_b(): ...\nx = flow(name='y')(a_b)", {"x": "y"}),
        ("from elsewhere import a_b\nx = flow(a_b)", {"x": None}),
        ("x = flow(lambda: 1)", {"x": None}),
        ("@flow\ndef f(): ...\ng = f.with_options(name='late')", {"f": "f", "g": "late"}),
        ("@flow\ndef f(): ...\nf = f.with_options(retries=2)", {"f": "f"}),
        ("@flow\ndef f(): ...\n@flow(name='last')\ndef f(): ...", {"f": "last"}),
        ("if 1:\n    @flow\n    def a(): ...\nelse:\n    @flow\n    def b(): ...", {"a": "a", "b": "b"}),
        ("try:\n    x = 1\nexcept OSError:\n    @flow\n    def a(): ...", {"a": "a"}),
        ("with open('x'):\n    @flow\n    def a(): ...", {"a": "a"}),
        ("if __name__ == '__main__':\n    pass\nelse:\n    @flow\n    def a(): ...", {"a": "a"}),
        ("class C:\n    @staticmethod\n    @flow\n    def a_b(): ...", {"C.a_b": "a-b"}),
        ("class C:\n    @flow(name='c')\n    @classmethod\n    def a(cls): ...", {"C.a": "c"}),
    ],
)
def test_name_at_prefect_is_known_where_the_code_tells(tmp_path: Path, text: str, names: dict[str, str | None]) -> None:
    assert _names(tmp_path, text) == names


def test_names_are_those_that_prefect_gives(tmp_path: Path) -> None:
    from prefect.flows import load_flow_from_entrypoint

    text = """
def plain_one(): ...
made = flow(plain_one)
late = made.with_options(name="late")
class C:
    @staticmethod
    @flow
    def of_class(): ...
@flow(name="")
def no_name(): ...
"""
    names = _names(tmp_path, text)
    loaded = {name: load_flow_from_entrypoint(f"{tmp_path}/flow.py:{name}").name for name in names}

    assert len(names) == 4
    assert loaded == names


def test_line_is_where_the_flow_is_made(tmp_path: Path) -> None:
    _write(tmp_path, flow="from prefect import flow\n\n@flow(\n    retries=2,\n)\ndef f(): ...\n")
    (found,) = find_flows(tmp_path)

    assert (found.line, found.place) == (6, "flow.py:6")


def test_two_flows_of_one_name_are_refused_with_both_places(tmp_path: Path) -> None:
    _write(tmp_path, a=FLOW, b=FLOW.replace("def f", "def other").replace("@flow", "@flow(name='f')"))
    error = _refused(tmp_path)

    assert error.why == "f: a.py:3 and b.py:3"
    assert (error.file, error.line) == ("b.py", 3)


def test_names_told_by_the_image_are_checked_in_the_same_way() -> None:
    check_names([("flow.py:a", "a"), ("flow.py:b", "b")])
    with pytest.raises(PlatformError, match="same name") as caught:
        check_names([("flow.py:a", "x"), ("flow.py:b", "x"), ("c.py:1", "y"), ("c.py:2", "y")])

    assert caught.value.why == "x: flow.py:a and flow.py:b\ny: c.py:1 and c.py:2"
    assert (caught.value.file, caught.value.line) == ("flow.py", 0)


SALES = FoundFlow("flow.py", "daily_sales", "Sales", 3)
RETURNS = FoundFlow("sub/more.py", "main", "returns", 5)
REFUNDS = FoundFlow("sub/refunds.py", "main", None, 7)
ALL = [SALES, RETURNS, REFUNDS]


@pytest.mark.parametrize(
    ("wanted", "chosen"),
    [
        ([], ALL),
        (["daily_sales"], [SALES]),
        (["daily-sales"], [SALES]),
        (["Sales"], [SALES]),
        (["flow.py:daily_sales"], [SALES]),
        (["returns", "Sales", "returns"], [SALES, RETURNS]),
        (["sub/refunds.py:main"], [REFUNDS]),
    ],
)
def test_flows_are_chosen_by_any_of_their_names(wanted: list[str], chosen: list[FoundFlow]) -> None:
    assert select(ALL, wanted) == chosen


@pytest.mark.parametrize(
    ("name", "what", "why"),
    [
        ("daily_sale", "no flow 'daily_sale'", "did you mean daily_sales? there are: Sales, returns, main"),
        ("", "no flow ''", "there are: Sales, returns, main"),
        ("main", "--flow main could be several", "sub/more.py:main or sub/refunds.py:main"),
    ],
)
def test_flow_that_is_not_there_gets_a_list(name: str, what: str, why: str) -> None:
    with pytest.raises(PlatformError) as caught:
        select(ALL, ["Sales", name])

    assert (caught.value.what, caught.value.why) == (what, why)


PIECES = [
    "@flow",
    "flow",
    "(",
    ")",
    "=",
    "\n",
    "    ",
    "def f(): ...",
    "class C:",
    "x",
    ".with_options",
    "name='a'",
    "**a",
]


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    code=st.one_of(
        st.binary(),
        st.text().map(str.encode),
        st.lists(st.sampled_from(PIECES)).map(lambda parts: "".join(parts).encode()),
    ),
)
def test_whatever_is_in_the_files_is_no_traceback(tmp_path: Path, code: bytes) -> None:
    (tmp_path / "flow.py").write_bytes(b"from prefect import flow\n" + code)
    told, flows = "", []
    try:
        flows = find_flows(tmp_path)
    except PlatformError as error:
        told = str(error)

    assert told.encode() or all(flow.file == "flow.py" for flow in flows)


def test_every_example_has_a_flow() -> None:
    for folder in (ROOT / "examples").iterdir():
        assert find_flows(folder)
