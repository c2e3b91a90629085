"""What design.md says of the whole tree: floors, locks, and what stays out of git."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

from agent.image import RUNS_INSIDE, SHARED
from environments.settings import ROOT

FLOORS = {
    "environments": {"environments"},
    "infra": {"infra", "environments"},
    "agent": {"agent", "infra", "environments"},
    "register_action": {"register_action", "infra", "environments"},
}
OURS = {*FLOORS, "tasks"}
IN_AN_IMAGE = {
    "agent/start_agent.py": set[str](),
    **{
        f"agent/{module}.py": {
            *("agent", "environments"),
            *("aiobotocore", "anyio", "botocore", "httpx", "prefect", "prefect_aws", "pydantic"),
        }
        for module in RUNS_INSIDE
        if module not in ("__init__", "start_agent")
    },
    **{f"environments/{module}.py": {"environments"} for module in SHARED},
    "register_action/describe_flows.py": {"prefect"},
}
SUPPRESSION = re.compile(
    r"""\#\s*(?:
        (?:ruff:\s*)?noqa\b | (?:type|mypy|pyright):\s*(?:ignore|disable|allow) | nosec\b | fmt:\s*(?:off|skip)
        | isort:\s*skip | pragma:\s*no\s+cover | (?:checkov|trivy|tfsec):(?:skip|ignore) | tflint-ignore
        | zizmor:\s*ignore | shellcheck\s+disable | hadolint\s+(?:global\s+)?ignore | parliament:\s*ignore
    )(?:\[[^]]*\]|[=:\s]+[A-Z][A-Z0-9_]+(?:,\s*[A-Z][A-Z0-9_]+)*\b)?""",
    re.VERBOSE,
)
"""Each checker's words for "not here", in a comment; what follows is the reason."""
MOST_SUPPRESSIONS = 5
LOCKS = sorted((ROOT / "requirements").glob("*.txt"))


def _imports(file: Path) -> set[str]:
    """Top-level names of everything a file imports, inside functions too."""
    return {name.split(".")[0] for name in _modules(file)}


def _modules(file: Path) -> set[str]:
    names = set()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}:{node.lineno} imports relatively"
            names.add(node.module or "")
    return names


def _our_files(file: Path) -> set[str]:
    """Our files that a file imports, inside functions too; a package's own names are its modules."""
    names = _modules(file) - OURS
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module in OURS:
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return {name for name in names if name.split(".")[0] in OURS}


def _pins(lock: Path) -> dict[str, str]:
    found = re.findall(r"^([A-Za-z0-9._-]+)(?:\[[^]]*\])?==([^\s;\\]+)", lock.read_text(encoding="utf-8"), re.MULTILINE)
    return {name.lower(): version for name, version in found}


@pytest.mark.parametrize("floor", sorted(FLOORS))
def test_floor_stands_only_on_those_below(floor: str) -> None:
    files = sorted((ROOT / floor).rglob("*.py"))
    above = {str(file.relative_to(ROOT)): (_imports(file) & OURS) - FLOORS[floor] for file in files}

    assert files
    assert {file: names for file, names in above.items() if names} == {}


@pytest.mark.parametrize("name", sorted(IN_AN_IMAGE))
def test_what_runs_inside_an_image_imports_only_what_is_there(name: str) -> None:
    assert _imports(ROOT / name) - sys.stdlib_module_names <= IN_AN_IMAGE[name]


@pytest.mark.parametrize("module", sorted({*RUNS_INSIDE} - {"__init__"}))
def test_what_runs_inside_the_agents_image_imports_only_those_of_our_files_that_are_there(module: str) -> None:
    there = {f"agent.{name}" for name in RUNS_INSIDE} | {f"environments.{name}" for name in SHARED}

    assert _our_files(ROOT / "agent" / f"{module}.py") <= there


@pytest.mark.parametrize("module", RUNS_INSIDE)
def test_what_the_agents_image_runs_needs_no_module_of_the_agent_that_is_not_in_it(module: str) -> None:
    tree = ast.walk(ast.parse((ROOT / "agent" / f"{module}.py").read_text(encoding="utf-8")))
    froms = [node for node in tree if isinstance(node, ast.ImportFrom)]
    ours = {alias.name for node in froms if node.module == "agent" for alias in node.names}
    ours |= {node.module.split(".")[1] for node in froms if (node.module or "").startswith("agent.")}

    assert ours <= set(RUNS_INSIDE)


@pytest.mark.parametrize("floor", ["agent", "environments", "infra", "register_action"])
def test_no_part_of_the_docker_package_is_imported_before_the_package(floor: str) -> None:
    """Steps run side by side: one that imports a part and one that imports the package would wait for each other."""
    imported = {
        f"{file.name}: {module}"
        for file in (ROOT / floor).glob("*.py")
        if not file.name.startswith("emulated_")  # in a process of its own, which imports it when it starts
        for module in _modules(file)
    }

    assert [module for module in imported if ": docker." in module] == []


@pytest.mark.parametrize(
    ("lock", "wanted"), [("agent", {"prefect", "prefect-aws"}), ("register", {"prefect", "boto3"})]
)
def test_agent_workflows_and_action_run_the_versions_that_were_tested(lock: str, wanted: set[str]) -> None:
    pins, tools = (_pins(ROOT / "requirements" / f"{name}.txt") for name in (lock, "tools"))
    different = {name: (version, tools.get(name)) for name, version in pins.items() if tools.get(name) != version}

    assert len(pins) > 50
    assert wanted <= set(pins)
    assert different == {}


@pytest.mark.parametrize("lock", LOCKS, ids=lambda lock: lock.name)
def test_lock_names_no_index_and_nothing_without_a_hash(lock: Path) -> None:
    lines = lock.read_text(encoding="utf-8").splitlines()
    requirements = [line for line in lines if line and not line.startswith((" ", "#"))]

    assert not [line for line in lines if re.search(r"://|--(extra-)?index-url|--find-links|--trusted-host", line)]
    assert [line for line in requirements if "==" not in line or not line.endswith("\\")] == []
    assert sum("--hash=sha256:" in line for line in lines) >= len(requirements)


def test_every_lock_says_what_it_was_made_from() -> None:
    assert {lock.stem for lock in LOCKS} == {"tools", "agent", "register", "uv", "checkers", "checkov"}
    assert {file.stem for file in (ROOT / "requirements").glob("*.in")} == {lock.stem for lock in LOCKS}


@pytest.mark.parametrize("name", [lock.stem for lock in LOCKS])
def test_everything_asked_for_is_in_the_lock(name: str) -> None:
    text = (ROOT / "requirements" / f"{name}.in").read_text(encoding="utf-8")
    wanted = re.findall(r"^([A-Za-z0-9._-]+)(?:\[[^]]*\])?(?:==(\S+))?", text, re.MULTILINE)
    pins = _pins(ROOT / "requirements" / f"{name}.txt")
    asked = [(package.lower(), version) for package, version in wanted if not package.startswith("-")]

    assert asked
    assert [package for package, version in asked if pins.get(package) != (version or pins.get(package, "-"))] == []


def test_state_keys_and_data_never_get_into_git() -> None:
    ignored = (ROOT / ".gitignore").read_text(encoding="utf-8")

    assert re.search(r"^/?\.local/?$", ignored, re.MULTILINE)


def _suppressions() -> dict[str, str]:
    """The comments that switch a checker off in the project's files, by place, with their reasons."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.splitlines()
    found = {}
    for name in listed:
        file = ROOT / name
        if file.is_file() and file != Path(__file__).resolve():
            for number, line in enumerate(file.read_text(encoding="utf-8", errors="replace").splitlines(), 1):
                if match := SUPPRESSION.search(line):
                    found[f"{name}:{number}"] = line[match.end() :].strip(" :#-")
    return found


def test_there_are_at_most_five_exceptions_for_all_checkers_together_and_each_gives_its_reason() -> None:
    found = _suppressions()

    assert len(found) <= MOST_SUPPRESSIONS, found
    assert {place: reason for place, reason in found.items() if len(reason.split()) < 4} == {}


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("x = 1  # noqa: S105 - the name of a variable", "the name of a variable"),
        ("# ruff: noqa: PT012", ""),
        ("import yaml  # type: ignore[import-untyped]", ""),
        ("y()  # type: ignore - it has none", "it has none"),
        ("call()  # nosec B603", ""),
        ("  #checkov:skip=CKV_AWS_1:nobody asks", "nobody asks"),
        ("- uses: a/b@c # zizmor: ignore[unpinned-uses] ours", "ours"),
        ("# shellcheck disable=SC2016 # the format is apt's", "the format is apt's"),
        ("# hadolint ignore=DL3006", ""),
        ("# hadolint global ignore=DL3006,DL3008", ""),
        ("# parliament: ignore RESOURCE_STAR - a boundary", "a boundary"),
        ("a = [1,]  # fmt: skip", ""),
    ],
)
def test_words_of_every_checker_are_known(line: str, reason: str) -> None:
    match = SUPPRESSION.search(line)

    assert match
    assert line[match.end() :].strip(" :#-") == reason
