"""The packages a workflow asks for: found in its folder, checked, and written as pip wants them.

They get a layer of the image to themselves, made before the code is there, without git and without secrets. What can't
be had there is refused here, before a build.

Sources: https://packaging.python.org/en/latest/specifications/pyproject-toml/,
https://pipenv.pypa.io/en/latest/pipfile.html
"""

import dataclasses
import json
import os
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from packaging.specifiers import InvalidSpecifier, SpecifierSet
from packaging.utils import canonicalize_name

from register_action.requirement import (
    CREDENTIALS,
    DOCKERFILE,
    HASH,
    PYTHON,
    Place,
    check_line,
    check_requirement,
    excludes,
    logical_lines,
)

OTHER_FILES = {
    "uv.lock": "uv export --no-dev --no-emit-project --format requirements-txt -o requirements.txt",
    "poetry.lock": "poetry export --format requirements.txt --output requirements.txt",
    "pdm.lock": "pdm export --prod --format requirements --output requirements.txt",
    "pylock.toml": "uv pip sync pylock.toml && uv pip freeze > requirements.txt",
    "Pipfile": "pipenv lock",
    "environment.yml": "conda run --name <environment> python -m pip list --format=freeze > requirements.txt",
}
"""Files that say what a workflow needs and are not read, and the command that makes one of each that is."""


@dataclasses.dataclass(frozen=True)
class Packages:
    """What a folder asks pip for.

    Attributes:
        file: where it says so: requirements.txt, Pipfile.lock or pyproject.toml; empty when nothing does.
        requirements: in the format of a requirements.txt, complete; empty when nothing is asked for.
        notes: what the author should know, for example of files that were not used.
        extra: files that the requirements refer to by -r and -c, by path relative to the folder; they belong beside it.
    """

    file: str = ""
    requirements: bytes = b""
    notes: tuple[str, ...] = ()
    extra: dict[str, bytes] = dataclasses.field(default_factory=dict)


def read(folder: Path) -> Packages:
    """Find and check what a workflow asks for; no code runs and nothing is downloaded.

    The first of requirements.txt, Pipfile.lock and pyproject.toml counts; a note tells of the others.

    Args:
        folder: the workflow's.

    Raises:
        PlatformError: a file does not parse, asks for what only the author's machine has (local paths, version control,
            credentials), or for a Python or Prefect that is not the image's. It carries file and line.
    """
    readers = {
        "requirements.txt": _from_requirements,
        "Pipfile.lock": _from_pipfile_lock,
        "pyproject.toml": _from_pyproject,
    }
    there = [name for name in readers if os.path.isfile(folder / name)]
    packages = readers[there[0]](folder) if there else Packages()
    return dataclasses.replace(packages, notes=(*packages.notes, *_unused(folder, packages.file, there[1:])))


def _unused(folder: Path, used: str, others: list[str]) -> Iterator[str]:
    for name in others:
        # Most pyproject.toml hold settings of tools only.
        if name != "pyproject.toml" or re.search(rb"(?m)^\s*dependencies\s*=", _content(folder, name)):
            yield f"{name} is not used: {used} is"
    for name, command in OTHER_FILES.items():
        if os.path.isfile(folder / name) and not (name == "Pipfile" and "Pipfile.lock" in (used, *others)):
            because = f": {used} is" if used else ""
            yield f"{name} is not used{because}" + ("" if used == "requirements.txt" else f"; to use it: {command}")


def _from_requirements(folder: Path) -> Packages:
    texts: dict[str, str] = {}
    waiting = ["requirements.txt"]
    asked = False
    while waiting:
        if (name := waiting.pop()) not in texts:
            texts[name] = _text(folder, name)
            for number, line in logical_lines(texts[name]):
                asked, place = True, Place(name, number)
                waiting += [_referred(folder, place, other) for other in check_line(place, line)]
    files = {name: text.encode() for name, text in texts.items()}
    first = files.pop("requirements.txt")
    return Packages("requirements.txt", first if asked else b"", (), files)


def _referred(folder: Path, place: Place, name: str) -> str:
    """The path, relative to the folder, of a file that a line refers to by -r or -c."""
    path = os.path.normpath(os.path.join(os.path.dirname(place.file), name))
    root = os.path.realpath(folder)
    if "\0" in name or os.path.isabs(path) or os.path.commonpath([root, os.path.realpath(folder / path)]) != root:
        raise place.error(f"refers to {name!r}", "it is not in the workflow's folder", "copy it into the folder")
    if not os.path.isfile(folder / path):
        raise place.error(f"refers to {name!r}", "there is no such file", "add the file, or leave the line out")
    return Path(path).as_posix()


def _from_pipfile_lock(folder: Path) -> Packages:
    name = "Pipfile.lock"
    text = _text(folder, name, credentials_allowed=True)
    try:
        lock = json.loads(text)
        lines = [
            _locked(_place(name, text, f'"{package}"'), package, entry)
            for package, entry in sorted(lock["default"].items())
        ]
        notes = tuple(_lock_notes(lock))
    except json.JSONDecodeError as error:
        what = f"is not valid JSON, column {error.colno}"
        raise Place(name, error.lineno).error(what, error.msg, "make it again: pipenv lock") from error
    except (ValueError, TypeError, AttributeError, LookupError, RecursionError) as error:
        why = f"{type(error).__name__}: {error}"
        raise Place(name).error("is not as pipenv writes it", why, "make it again: pipenv lock") from error
    return Packages(name, "".join(lines).encode("utf-8", "backslashreplace"), notes)


def _locked(place: Place, name: str, entry: dict[str, Any]) -> str:
    if entry.keys() & {"git", "hg", "svn", "bzr"}:
        raise place.version_control()
    if entry.keys() & {"path", "editable"}:
        raise place.local(name)
    extras = f"[{','.join(entry['extras'])}]" if entry.get("extras") else ""
    version = f" @ {entry['file']}" if "file" in entry else entry.get("version", "*").removeprefix("*")
    markers = f" ; {entry['markers']}" if entry.get("markers") else ""
    requirement = check_requirement(place, f"{name}{extras}{version}{markers}")
    hashes = sorted(entry.get("hashes", []))
    for value in hashes:
        if not HASH.fullmatch(value):
            raise place.error("has a hash that is none", value, "make it again: pipenv lock")
    return " \\\n    --hash=".join([str(requirement), *hashes]) + "\n"


def _lock_notes(lock: dict[str, Any]) -> Iterator[str]:
    meta = lock.get("_meta", {})
    sources = meta.get("sources", [])
    if any(CREDENTIALS.search(source["url"]) for source in sources):
        yield "Pipfile.lock names a source with credentials: not used; write them as variables, the image has the file"
    first = sources[0].get("name") if sources else None
    other = [name for name, entry in lock["default"].items() if entry.get("index", first) != first]
    if other:
        yield f"Pipfile.lock takes {', '.join(sorted(other))} from another source; pip here asks its own index only"
    elif len(sources) > 1:
        yield "Pipfile.lock names several sources; pip here asks its own index only"
    requires = meta.get("requires", {})
    python = requires.get("python_full_version") or requires.get("python_version")
    if python and not f"{python}.".startswith(f"{PYTHON}."):
        yield f"Pipfile.lock was made for Python {python!a}; workflows run on Python {PYTHON}"


def _from_pyproject(folder: Path) -> Packages:
    name = "pyproject.toml"
    text = _text(folder, name)
    try:
        tables = tomllib.loads(text)
    except (ValueError, RecursionError) as error:
        at = re.search(r"at line (\d+)", str(error))
        place = Place(name, int(at[1]) if at else len(text.splitlines()))
        raise place.error("is not valid TOML", str(error), "correct it and register again") from error
    try:
        lines = list(_project_lines(name, text, tables))
    except (TypeError, AttributeError) as error:
        place = _place(name, text, "[project]")
        raise place.error(
            "has a table that is none of a project", str(error), "correct it and register again"
        ) from error
    return Packages(name if "project" in tables else "", "".join(lines).encode())


def _project_lines(name: str, text: str, tables: dict[str, Any]) -> Iterator[str]:
    project, tool = tables.get("project", {}), tables.get("tool", {})
    poetry = tool.get("poetry", {}).get("dependencies", {}).keys() - {"python"}
    if "dependencies" in project.get("dynamic", []) or (poetry and "dependencies" not in project):
        place = _place(name, text, "[tool.poetry.dependencies]" if poetry else "dynamic")
        todo = OTHER_FILES["poetry.lock"] if poetry else "list them there, or write a requirements.txt"
        raise place.error("does not list its packages as [project] dependencies", "pip can't read them", todo)
    python = project.get("requires-python", "")
    try:
        if excludes(SpecifierSet(python), PYTHON):
            raise InvalidSpecifier(f"workflows run on Python {PYTHON}")
    except InvalidSpecifier as error:
        place = _place(name, text, "requires-python")
        raise place.error(f"requires Python {python}", str(error), f"allow Python {PYTHON}") from error
    dependencies = project.get("dependencies", [])
    if not isinstance(dependencies, list) or not all(isinstance(line, str) for line in dependencies):
        raise TypeError("dependencies is not a list of texts")
    elsewhere = {canonicalize_name(package) for package in tool.get("uv", {}).get("sources", {})}
    for line in dependencies:
        place = _place(name, text, line)
        requirement = check_requirement(place, line)
        if canonicalize_name(requirement.name) in elsewhere:
            why = "[tool.uv.sources] says where from, and pip does not know that"
            raise place.error(f"asks for {line}", why, f"write name @ URL of an archive, {DOCKERFILE}")
        yield f"{requirement}\n"


def _content(folder: Path, name: str) -> bytes:
    try:
        return (folder / name).read_bytes()
    except OSError as error:
        raise Place(name).error("can't be read", error.strerror or str(error), "correct its permissions") from error


def _text(folder: Path, name: str, credentials_allowed: bool = False) -> str:
    data = _content(folder, name)
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        place = Place(name, data.count(b"\n", 0, error.start) + 1)
        raise place.error("is not UTF-8", str(error), "save the file in the encoding UTF-8") from error
    for number, line in enumerate(text.splitlines(), 1):
        if not credentials_allowed:
            # Also in comments: the file goes into the image as it is.
            Place(name, number).refuse_credentials(line)
    return text


def _place(name: str, text: str, part: str) -> Place:
    """The first line of a file that holds `part`."""
    return Place(name, next((number for number, line in enumerate(text.splitlines(), 1) if part in line), 0))
