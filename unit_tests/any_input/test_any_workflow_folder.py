"""Whatever lies in a workflow's folder: a workflow that can be registered, or an error in words; no code of it runs."""

import json
import os
import re
from pathlib import Path

from hypothesis import example, given
from hypothesis import strategies as st

from environments.settings import Environment
from infra import images
from register_action import workflow
from register_action.workflow import Choice
from unit_tests.any_input.cases import OF_THE_AUTHOR, TEXT, folder, harmless
from unit_tests.register_action.conftest import a_source

IMPORTS = st.sampled_from(
    [
        "from prefect import flow",
        "import prefect",
        "import prefect as p",
        "from prefect import *",
        "from prefect import flow as f",
        "from prefect import Flow",
        "from prefect.flows import flow",
        "from . import flow",
        "from prefect import task",
        "",
    ]
)
DECORATORS = st.one_of(
    st.sampled_from(
        [
            "@flow",
            "@p.flow",
            "@prefect.flow",
            "@f()",
            "@flow()",
            "@flow(**x)",
            "@flow(name=x)",
            "@staticmethod",
            "@flow(1)(2)",
        ]
    ),
    TEXT.map(lambda text: f"@flow(name={text!r})"),
    TEXT.map(lambda text: f'@flow(name="{text}")'),
)
NAMES = st.sampled_from(["sales", "test_sales", "größe", "ﬁ", "__x", "x" * 300, "class", "1x"]) | TEXT
STATEMENTS = st.one_of(
    st.tuples(DECORATORS, st.sampled_from(["def", "async def", "class"]), NAMES).map(
        lambda t: f"{t[0]}\n{t[1]} {t[2]}(): ..."
    ),
    NAMES.map(lambda name: f"{name} = flow({name})"),
    NAMES.map(lambda name: f"{name} = {name}.with_options(name={name!r})"),
    st.sampled_from(
        [
            "import os; os.system('touch /tmp/it-ran')",
            "open('it-ran', 'w')",
            "raise SystemExit(1)",
            "while True: pass",
            "with Flow('old'): ...",
            "Flow('old')",
            "if __name__ == '__main__':\n  @flow\n  def main(): ...",
            "x: int = flow(x)",
            "class A:\n  @staticmethod\n  @flow\n  def sales(): ...",
            "try: ...\nexcept* E:\n  @flow\n  def a(): ...",
            "match x:\n  case 1: ...",
            "x" + ".a" * 5000,
            "(" * 300,
            "-" * 5000 + "1",
            "9" * 5000,
            "'\\ud800'",
            "'\\d'",
            "\t  x",
            "\f",
            "\\",
            "'''",
            "f'{x!r:{y}}'",
            "# -*- coding: latin-1 -*-",
            "# coding: rot13",
            "# coding: utf-7",
            "# coding: nosuch",
            "\0",
            "\x1a",
            "x = 1" * 50,
            "if a:\n  pass\n" + "elif a:\n  pass\n" * 2000,
            "a = " + "b if c else " * 2000 + "d",
            "a" + "[0]" * 3000,
            "a + " * 3000 + "b",
        ]
    ),
    TEXT,
)
MODULES = st.tuples(IMPORTS, st.lists(STATEMENTS, max_size=4)).map(lambda parts: "\n".join([parts[0], *parts[1]]))
GOOD = "from prefect import flow\n@flow\ndef sales(): ...\n"
LINES = st.one_of(
    st.sampled_from(
        [
            "pandas",
            "pandas==2.*",
            "prefect<3",
            "prefect @ https://x/p.whl",
            "-r more.txt",
            "-c ../x",
            "-e .",
            "git+https://x/y",
            "--hash=sha256:0",
            "--index-url https://u:p@x/",
            "a; python_version < '3'",
            "a; x == 'y'",
            "a[b]>=1,<2",
            "./a.whl",
            "\\",
            "prefect===3",
            "prefect!=3.*",
            "a>=1.0.dev",
            "a; extra == 'x' and (",
            "-r requirements.txt",
            "--pre",
            "--requirement",
            "-r\0",
        ]
    ),
    TEXT,
)
TOML = st.sampled_from(
    [
        "[project]",
        "dependencies = ['pandas']",
        "dependencies = 'x'",
        "dynamic = ['dependencies']",
        "requires-python = '<3'",
        "[tool.poetry.dependencies]",
        "python = 1",
        "[tool]",
        "tool = 1",
        "project = []",
        "requires-python = 3",
        "[tool.uv.sources]",
        "pandas = {path = '.'}",
        "a.b.c = 1",
        "x = " + "[" * 2000,
        "x = " + "9" * 5000,
        "dependencies = [1]",
        "[project]",
        "name = '\\ud800'",
    ]
)
ANY_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | TEXT,
    lambda inner: st.lists(inner) | st.dictionaries(TEXT, inner),
    max_leaves=4,
)
LOCKED = st.fixed_dictionaries(
    {},
    optional={
        "version": st.just("==1") | ANY_JSON,
        "hashes": st.just(["sha256:0"]) | ANY_JSON,
        "extras": ANY_JSON,
        "markers": ANY_JSON,
        "file": ANY_JSON,
        "index": ANY_JSON,
    },
)
LOCK = st.one_of(
    st.fixed_dictionaries(
        {"default": st.dictionaries(st.just("pandas") | TEXT, LOCKED | ANY_JSON)}, optional={"_meta": ANY_JSON}
    ),
    ANY_JSON,
).map(json.dumps)
KNOWN = {
    "requirements.txt": st.lists(LINES, max_size=4).map("\n".join),
    "more.txt": st.lists(LINES, max_size=2).map("\n".join),
    "pyproject.toml": st.lists(TOML | TEXT, max_size=5).map("\n".join),
    "Pipfile.lock": LOCK,
    ".dockerignore": st.lists(
        st.sampled_from(["*", "!*.py", "**/x", "[", "[]]", "[z-a]", "\\", "**" * 20 + "x", "!", "#", "/", ".."]) | TEXT
    ).map("\n".join),
    "Dockerfile": st.sampled_from(["FROM x", "ARG BASE_IMAGE", ""]) | TEXT,
    "prefect.yaml": st.sampled_from(["deployments: [{name: dev, entrypoint: 'flow_by_author.py:sales'}]"]) | TEXT,
    f"flow{OF_THE_AUTHOR}": st.just(GOOD) | MODULES,
    f"other{OF_THE_AUTHOR}": MODULES,
}
PARTS = st.one_of(
    TEXT,
    st.sampled_from(["a", "tests", ".env", "__pycache__", "-rf", "a:b", "$(id)", "é"]),
    st.binary(min_size=1, max_size=4).map(os.fsdecode),
)
PATHS = st.tuples(
    st.lists(PARTS, min_size=1, max_size=3).map("/".join), st.sampled_from(["", ".py", OF_THE_AUTHOR])
).map("".join)
LINKS = st.sampled_from(
    [".", "..", "/etc/passwd", "nowhere", "self", f"flow{OF_THE_AUTHOR}", ".git", "sub", "/proc/self/mem", "x" * 5000]
)


@st.composite
def contents(draw: st.DrawFn) -> dict[str, str]:
    """A folder: texts by path; a path that ends in `@` is that of a link to what its text names."""
    files = draw(st.fixed_dictionaries({}, optional=KNOWN))
    files |= draw(st.dictionaries(PATHS, MODULES | TEXT, max_size=2))
    return files | {
        f"{path}@": target for path, target in draw(st.dictionaries(PATHS | st.just("self"), LINKS, max_size=2)).items()
    }


def _put(made: Path, path: str, text: str) -> None:
    """Write a file or link; what the file system does not take is left out, and so is what would not be inside."""
    place = os.path.normpath(os.path.join(made, path.lstrip("/").removesuffix("@")))
    if not place.startswith(f"{made}/") or "\0" in place + text * path.endswith("@"):
        return
    try:
        os.makedirs(os.path.dirname(place), exist_ok=True)
        if path.endswith("@"):
            os.symlink(text, place)
        else:
            Path(place).write_bytes(text.encode("utf-8", "surrogatepass"))
    except (OSError, UnicodeEncodeError):
        return


@given(contents())
@example({f"flow{OF_THE_AUTHOR}": GOOD})
@example({f"flow{OF_THE_AUTHOR}": GOOD, ".dockerignore": "**" * 20 + "x\n" + "*l*" * 20 + "x"})
@example({f"flow\n\x1b[31m{OF_THE_AUTHOR}": GOOD})
def test_any_folder_is_a_workflow_or_an_error(environment: Environment, files: dict[str, str]) -> None:
    with folder() as made:
        for path, text in files.items():
            _put(made, path, text)
        with harmless():
            read = workflow.read(environment, a_source(made), Choice())

            assert read.flows
            assert {entry.flow.file for entry in read.entries} <= read.files.keys()
            assert not any(re.search("[\0-\x1f\x7f-\x9f\ud800-\udfff]", path) for path in read.files)
            assert all(not entry.flow.name or entry.flow.name.isprintable() for entry in read.entries)
            read.packages.requirements.decode()
            assert images.tag_of(read.files)
            images._tar(read.files)
