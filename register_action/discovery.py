"""Finds the Prefect flows of a folder by reading its modules; no code of the folder is run here."""

import ast
import dataclasses
import difflib
import traceback
from collections.abc import Iterable, Iterator
from pathlib import Path

from environments.errors import PlatformError
from register_action.workflow_files import LEFT_OUT, workflow_files

PREFECT_3_FLOW = {"prefect.flow", "prefect.flows.flow"}
PREFECT_1_FLOW = {"prefect.Flow", "prefect.core.Flow", "prefect.core.flow.Flow"}
PREFECT_1_HINT = """from prefect import flow

@flow
def my_workflow(): ...        # call the tasks in here; deployments and schedules are no longer part of the code"""
_FUNCTION = (ast.FunctionDef, ast.AsyncFunctionDef)
_BLOCKS = (ast.If, ast.With, ast.Try, ast.TryStar, ast.ExceptHandler)


@dataclasses.dataclass(frozen=True)
class FoundFlow:
    """A flow in a folder.

    Attributes:
        file: where it is, relative to the folder.
        function: the name it has in the module; `Class.method` for a static or class method.
        name: what Prefect calls it; None when only running the code tells.
        line: where it is made, from 1.
    """

    file: str
    function: str
    name: str | None = None
    line: int = 0

    @property
    def entrypoint(self) -> str:
        """Prefect's way to name it: `flow.py:my_flow`."""
        return f"{self.file}:{self.function}"

    @property
    def place(self) -> str:
        """Where its author finds it: `flow.py:12`."""
        return f"{self.file}:{self.line}"


def find_flows(folder: Path) -> list[FoundFlow]:
    """The flows of a folder: what carries Prefect's `@flow` in a module, or is made there with `flow(...)`.

    Found is what Prefect can load by its name, in `if`, `try` and `with` too; not what is inside functions or behind
    `if __name__ == "__main__"`, nor methods that need an object, nor what is called `test_...`. A folder that has
    workflows of Prefect 1 as well is refused as a whole: registered by half, the other half would be missed too late.

    Raises:
        PlatformError: what workflow_files raises, no flow, a file that is no Python, flows of the same name, or a
            workflow of Prefect 1.
    """
    flows: list[FoundFlow] = []
    old: list[tuple[str, int]] = []
    for file in workflow_files(folder):
        if file.suffix == ".py":
            name = file.relative_to(folder).as_posix()
            found, lines = _read_module(file, name)
            flows += found
            old += [(name, line) for line in lines]
    if old:
        raise PlatformError(
            f"{folder} holds a workflow of Prefect 1",
            f"`Flow(...)` in {', '.join(f'{name}:{line}' for name, line in old)}",
            f"Prefect 3 flows are functions:\n{PREFECT_1_HINT}",
            file=old[0][0],
            line=old[0][1],
        )
    if not flows:
        raise PlatformError(
            f"no flow in {folder}",
            "no function in its .py files carries Prefect's @flow",
            "decorate one with @flow (from prefect import flow), or correct --workflow-path",
        )
    check_names((flow.place, flow.name) for flow in flows if flow.name)
    return flows


def check_names(names: Iterable[tuple[str, str]]) -> None:
    """Refuse two flows of the same name: they would be one deployment.

    Args:
        names: of each flow its place (`file:line`, or its entry point) and what Prefect calls it.

    Raises:
        PlatformError: a name is there twice; it lists the places of all that are.
    """
    places: dict[str, list[str]] = {}
    for place, name in names:
        places.setdefault(name, []).append(place)
    twice = {name: where for name, where in places.items() if len(where) > 1}
    for where in twice.values():
        file, _, line = where[1].rpartition(":")
        raise PlatformError(
            "flows have the same name",
            "\n".join(f"{name}: {' and '.join(where)}" for name, where in twice.items()),
            'give each a name of its own: @flow(name="...")',
            file=file,
            line=int(line) if line.isdecimal() else 0,
        )


def select(flows: list[FoundFlow], wanted: list[str]) -> list[FoundFlow]:
    """The flows a user means, in the order they were found; all when none is named.

    Args:
        flows: what there is.
        wanted: names of functions or flows, or entry points; `-` and `_` are the same.

    Raises:
        PlatformError: there is no such flow, or a name could be several.
    """
    chosen: list[FoundFlow] = []
    known = sorted({name for flow in flows for name in (flow.function, flow.name, flow.entrypoint) if name})
    for name in wanted:
        alike = [flow for flow in flows if _plain(name) in map(_plain, (flow.function, flow.name, flow.entrypoint))]
        matches = (
            alike if len(alike) == 1 else [flow for flow in alike if name in (flow.name, flow.entrypoint)] or alike
        )
        if not matches:
            close = difflib.get_close_matches(name, known, n=1)
            hint = f"did you mean {close[0]}? " if close else ""
            there = ", ".join(flow.name or flow.function for flow in flows)
            raise PlatformError(f"no flow {name!r}", f"{hint}there are: {there}", "correct --flow")
        if len(matches) > 1:
            several = " or ".join(flow.entrypoint for flow in matches)
            raise PlatformError(f"--flow {name} could be several", several, "write it as it is here")
        chosen += matches
    return [flow for flow in flows if flow in chosen or not wanted]


def _plain(name: str | None) -> str | None:
    return name and name.replace("-", "_")


def _read_module(file: Path, name: str) -> tuple[list[FoundFlow], list[int]]:
    """The flows of a module, and the lines with flows of Prefect 1."""
    line, message = 1, ""
    try:
        tree = ast.parse(file.read_bytes(), filename=name)
        names = _prefect_names(tree)
        return list(_module_flows(tree, name, names)), sorted(set(_prefect_1_lines(tree, names)))
    except SyntaxError as error:
        line = error.lineno or 1
        # Python's own way to show the place; what is left out says again which file and what kind of error.
        message = "".join([f"{error.msg}\n", *traceback.format_exception_only(error)[1:-1]])
    except (RecursionError, MemoryError):
        message = "it is nested too deeply"
    except (ValueError, OSError) as error:
        message = str(error)
    todo = f"correct it and register again, {LEFT_OUT}"
    raise PlatformError(f"{name}:{line} is not valid Python", message, todo, file=name, line=line)


def _statements(body: Iterable[ast.AST]) -> Iterator[ast.AST]:
    """The statements that run on import, in order, with those in blocks."""
    for node in body:
        yield node
        if isinstance(node, _BLOCKS):
            for part in ("body", "handlers", "orelse", "finalbody")[_is_main(node) :]:
                yield from _statements(getattr(node, part, ()))


def _is_main(node: ast.AST) -> bool:
    """Whether it is `if __name__ == "__main__"`, which Prefect does not run."""
    if not isinstance(node, ast.If) or not isinstance(node.test, ast.Compare):
        return False
    left, operator = node.test.left, node.test.ops[0]
    return isinstance(left, ast.Name) and left.id == "__name__" and isinstance(operator, ast.Eq)


def _prefect_names(tree: ast.Module) -> dict[str, str]:
    """What the module calls things of Prefect: name by name, with where it is in Prefect."""
    names = {}
    for node in _statements(tree.body):
        if isinstance(node, ast.ImportFrom) and f"{node.module}.".startswith("prefect.") and not node.level:
            for alias in node.names:
                for imported in ("flow", "Flow") if alias.name == "*" else (alias.name,):
                    names[alias.asname or imported] = f"{node.module}.{imported}"
        elif isinstance(node, ast.Import):
            for alias in node.names:
                if f"{alias.name}.".startswith("prefect."):
                    names[alias.asname or "prefect"] = alias.name if alias.asname else "prefect"
    return names


def _in_prefect(node: ast.expr, names: dict[str, str]) -> str:
    """Where in Prefect an expression leads, such as prefect.flow; empty when elsewhere."""
    if isinstance(node, ast.Attribute):
        before = _in_prefect(node.value, names)
        return f"{before}.{node.attr}" if before else ""
    return names.get(node.id, "") if isinstance(node, ast.Name) else ""


def _module_flows(tree: ast.Module, file: str, names: dict[str, str]) -> Iterable[FoundFlow]:
    flows: dict[str, FoundFlow] = {}

    def bind(name: str, made: tuple[str | None] | None, line: int) -> None:
        flows.pop(name, None)  # the last one of a name is what Prefect loads
        if made and not name.rpartition(".")[2].startswith("test_"):
            flows[name] = FoundFlow(file, name, made[0], line)

    functions = {node.name for node in _statements(tree.body) if isinstance(node, _FUNCTION)}
    for node in _statements(tree.body):
        if isinstance(node, _FUNCTION):
            bind(node.name, _decorated(node, names), node.lineno)
        elif isinstance(node, ast.ClassDef):
            for method in node.body:
                if isinstance(method, _FUNCTION) and any(map(_needs_no_object, method.decorator_list)):
                    bind(f"{node.name}.{method.name}", _decorated(method, names), method.lineno)
        elif isinstance(node, ast.Assign | ast.AnnAssign) and node.value:
            target = node.targets[0] if isinstance(node, ast.Assign) else node.target
            if isinstance(target, ast.Name):
                bind(target.id, _made(node.value, names, flows, functions), node.lineno)
    return flows.values()


def _needs_no_object(decorator: ast.expr) -> bool:
    return isinstance(decorator, ast.Name) and decorator.id in ("staticmethod", "classmethod")


def _decorated(node: ast.FunctionDef | ast.AsyncFunctionDef, names: dict[str, str]) -> tuple[str | None] | None:
    """The name of the flow that a decorator makes of a function, None in it if unknown; None if none does."""
    default = node.name.replace("_", "-")
    for decorator in node.decorator_list:
        if isinstance(decorator, ast.Call) and _in_prefect(decorator.func, names) in PREFECT_3_FLOW:
            return (_given_name(decorator, default),)
        if _in_prefect(decorator, names) in PREFECT_3_FLOW:
            return (default,)
    return None


def _made(
    value: ast.expr, names: dict[str, str], flows: dict[str, FoundFlow], functions: set[str]
) -> tuple[str | None] | None:
    """The same for a value: `flow(function)`, `flow(...)(function)` or `known_flow.with_options(...)`."""
    if not isinstance(value, ast.Call):
        return None
    options = value.func if isinstance(value.func, ast.Call) and not value.func.args else value
    if _in_prefect(options.func, names) in PREFECT_3_FLOW and value.args:
        of = value.args[0]
        default = of.id.replace("_", "-") if isinstance(of, ast.Name) and of.id in functions else None
        return (_given_name(options, default),)
    called = value.func
    if isinstance(called, ast.Attribute) and called.attr == "with_options" and isinstance(called.value, ast.Name):
        changed = flows.get(called.value.id)
        return (_given_name(value, changed.name),) if changed else None
    return None


def _given_name(call: ast.Call, default: str | None) -> str | None:
    """The name= of a call; the default without one; None when it is an expression."""
    given = {keyword.arg: keyword.value for keyword in call.keywords}
    if "name" not in given:
        return None if None in given else default  # None stands for **options
    value = given["name"]
    if isinstance(value, ast.Constant) and isinstance(value.value, str | None):
        return (value.value or default) if (value.value or "").isprintable() else None
    return None


def _prefect_1_lines(tree: ast.Module, names: dict[str, str]) -> Iterator[int]:
    """Lines of `with Flow(...)` and `Flow("name")`; Prefect 3 has a class Flow as well, but it takes a function."""
    for node in ast.walk(tree):
        calls: list[ast.expr] = []
        if isinstance(node, ast.With):
            calls = [item.context_expr for item in node.items]
        elif isinstance(node, ast.Call) and node.args and isinstance(node.args[0], ast.Constant):
            calls = [node]
        for call in calls:
            if isinstance(call, ast.Call) and _in_prefect(call.func, names) in PREFECT_1_FLOW:
                yield call.lineno
