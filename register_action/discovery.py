"""Finds the Prefect flows of a folder by reading its source; no code of the folder is run here."""

import ast
import dataclasses
from collections.abc import Iterator
from pathlib import Path

from environments.errors import PlatformError

SKIPPED_FOLDERS = {"__pycache__", "node_modules", "site-packages", "venv", "tests"}
PREFECT_1_HINT = """from prefect import flow

@flow
def my_workflow(): ...        # call the tasks in here; deployments and schedules are no longer part of the code"""


@dataclasses.dataclass(frozen=True)
class FoundFlow:
    """A flow in a folder: the file it is in, relative to the folder, and the name of its function."""

    file: str
    function: str

    @property
    def entrypoint(self) -> str:
        """Prefect's way to name it: `flow.py:my_flow`."""
        return f"{self.file}:{self.function}"


def workflow_files(folder: Path) -> list[Path]:
    """All files of a workflow that belong into its image; hidden ones and caches do not.

    Raises:
        PlatformError: the folder is missing or not a folder.
    """
    if not folder.is_dir():
        raise PlatformError(f"no folder {folder}", "the workflow's folder does not exist", "correct --workflow-path")
    return sorted(
        file
        for file in folder.rglob("*")
        if file.is_file()
        and not any(part.startswith(".") or part in SKIPPED_FOLDERS for part in file.relative_to(folder).parts)
    )


def find_flows(folder: Path) -> list[FoundFlow]:
    """The flows of a folder: functions of a module that carry Prefect's `@flow`.

    Raises:
        PlatformError: no folder, no flow in it, a file that is no Python, or a workflow of Prefect 1.
    """
    flows: list[FoundFlow] = []
    old: list[str] = []
    for file in workflow_files(folder):
        if file.suffix != ".py":
            continue
        name = file.relative_to(folder).as_posix()
        tree = _parse(file, name)
        flows += [FoundFlow(name, function) for function in _flow_functions(tree)]
        old += [f"{name}:{line}" for line in _prefect_1_flows(tree)]
    if old and not flows:
        raise PlatformError(
            f"{folder} holds a workflow of Prefect 1",
            f"`with Flow(...)` in {', '.join(old)}",
            f"Prefect 3 flows are functions:\n{PREFECT_1_HINT}",
        )
    if not flows:
        raise PlatformError(
            f"no flow in {folder}",
            "no function in its .py files carries Prefect's @flow",
            "decorate one with @flow (from prefect import flow), or correct --workflow-path",
        )
    return flows


def _parse(file: Path, name: str) -> ast.Module:
    try:
        return ast.parse(file.read_bytes(), filename=name)
    except (SyntaxError, ValueError) as error:
        place = f"{name}:{getattr(error, 'lineno', None) or 1}"
        raise PlatformError(f"{place} is not valid Python", str(error), "correct it and register again") from error


def _flow_functions(tree: ast.Module) -> Iterator[str]:
    """Names of the module's functions decorated with flow, prefect.flow, or either under another name."""
    direct, modules = set(), set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module in ("prefect", "prefect.flows"):
            direct |= {alias.asname or alias.name for alias in node.names if alias.name == "flow"}
        elif isinstance(node, ast.Import):
            modules |= {alias.asname or alias.name for alias in node.names if alias.name == "prefect"}
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            for decorator in node.decorator_list:
                called = decorator.func if isinstance(decorator, ast.Call) else decorator
                if (isinstance(called, ast.Name) and called.id in direct) or (
                    isinstance(called, ast.Attribute)
                    and called.attr == "flow"
                    and isinstance(called.value, ast.Name)
                    and called.value.id in modules
                ):
                    yield node.name


def _prefect_1_flows(tree: ast.Module) -> Iterator[int]:
    for node in ast.walk(tree):
        if isinstance(node, ast.With):
            for item in node.items:
                call = item.context_expr
                if isinstance(call, ast.Call) and isinstance(call.func, ast.Name) and call.func.id == "Flow":
                    yield node.lineno
