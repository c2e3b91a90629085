"""The packages a workflow asks for: found in its folder, checked, and written as pip wants them.

They get a layer of the image to themselves, made before the code is there, without git and without secrets. So only
what pip can download by name or by the URL of an archive goes; anything else is refused here, before a build.

Sources: https://pip.pypa.io/en/stable/reference/requirements-file-format/,
https://packaging.python.org/en/latest/specifications/dependency-specifiers/,
https://packaging.python.org/en/latest/specifications/pyproject-toml/, https://pipenv.pypa.io/en/latest/pipfile.html
"""

import argparse
import contextlib
import dataclasses
import functools
import json
import os
import re
import shlex
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from packaging.markers import UndefinedComparison, UndefinedEnvironmentName
from packaging.requirements import InvalidRequirement, Requirement
from packaging.specifiers import InvalidSpecifier, SpecifierSet
from packaging.utils import canonicalize_name

from environments.errors import PlatformError

PYTHON = "3.11"
"""The Python of the agent's image, which workflows run on."""
PREFECT = "3"
"""The major version of Prefect in it."""
OTHER_FILES = {
    "uv.lock": "uv export --no-dev --no-emit-project --format requirements-txt -o requirements.txt",
    "poetry.lock": "poetry export --format requirements.txt --output requirements.txt",
    "pdm.lock": "pdm export --prod --format requirements --output requirements.txt",
    "pylock.toml": "uv pip sync pylock.toml && uv pip freeze > requirements.txt",
    "Pipfile": "pipenv lock",
    "environment.yml": "conda run --name <environment> python -m pip list --format=freeze > requirements.txt",
}
"""Files that say what a workflow needs and are not read, and the command that makes one of each that is."""
MARKERS = {"python_version": PYTHON, "python_full_version": f"{PYTHON}.0", "sys_platform": "linux"}
COMMENT = re.compile(r"(^|\s+)#.*$")
HASH = re.compile(r"sha(256|384|512):[0-9a-f]+")
VERSION_CONTROL = re.compile(r"(git|hg|svn|bzr)(\+|@|://)", re.IGNORECASE)
CREDENTIALS = re.compile(r"://(?!git@)[^/?#\s\"']*@")
ARCHIVE = re.compile(r"\.(whl|zip|tar|tar\.gz|tgz|tar\.bz2|tbz|tar\.xz)$", re.IGNORECASE)
DOCKERFILE = "or add a Dockerfile of your own to the folder"


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


@dataclasses.dataclass(frozen=True)
class _Place:
    """A line of a file in the author's folder; 0 when the file as a whole is meant."""

    file: str
    line: int = 0

    def error(self, what: str, why: str, todo: str) -> PlatformError:
        where = f"{self.file}:{self.line}" if self.line else self.file
        # JSON may hold halves of characters, which no terminal takes.
        what, why = (text.encode("utf-8", "backslashreplace").decode() for text in (f"{where} {what}", why))
        return PlatformError(what, why, todo, file=self.file, line=self.line)

    def local(self, text: str) -> PlatformError:
        return self.error(
            f"asks for a package on your machine: {text}",
            "packages are installed before the folder is there; its own modules need no installation to be imported",
            f"leave it out, or name a published package or the URL of its archive, {DOCKERFILE}",
        )

    def version_control(self) -> PlatformError:
        return self.error(
            "asks for a package from version control",
            "the image has no git and no keys",
            f"write the URL of an archive: name @ https://<host>/<repository>/archive/<commit>.zip, {DOCKERFILE}",
        )

    def refuse_credentials(self, text: str) -> None:
        if CREDENTIALS.search(text):
            raise self.error(
                "has a URL with credentials",
                "whoever has the image could read them, and it is built without variables that could stand for them",
                f"use a package index or an archive that asks for none, {DOCKERFILE}",
            )


def _content(folder: Path, name: str) -> bytes:
    try:
        return (folder / name).read_bytes()
    except OSError as error:
        raise _Place(name).error("can't be read", error.strerror or str(error), "correct its permissions") from error


def _text(folder: Path, name: str, credentials_allowed: bool = False) -> str:
    data = _content(folder, name)
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        place = _Place(name, data.count(b"\n", 0, error.start) + 1)
        raise place.error("is not UTF-8", str(error), "save the file in the encoding UTF-8") from error
    for number, line in enumerate(text.splitlines(), 1):
        if not credentials_allowed:
            # Also in comments: the file goes into the image as it is.
            _Place(name, number).refuse_credentials(line)
    return text


def _place(name: str, text: str, part: str) -> _Place:
    """The first line of a file that holds `part`."""
    return _Place(name, next((number for number, line in enumerate(text.splitlines(), 1) if part in line), 0))


def _from_requirements(folder: Path) -> Packages:
    texts: dict[str, str] = {}
    waiting = ["requirements.txt"]
    asked = False
    while waiting:
        if (name := waiting.pop()) not in texts:
            texts[name] = _text(folder, name)
            for number, line in _logical_lines(texts[name]):
                asked, place = True, _Place(name, number)
                waiting += [_referred(folder, place, other) for other in _check_line(place, line)]
    files = {name: text.encode() for name, text in texts.items()}
    first = files.pop("requirements.txt")
    return Packages("requirements.txt", first if asked else b"", (), files)


def _logical_lines(text: str) -> Iterator[tuple[int, str]]:
    """The lines as pip sees them, with their numbers: continued ones joined, without comments and empty ones."""
    parts: list[str] = []
    start = 0
    for number, line in enumerate([*text.splitlines(), ""], 1):
        start = start if parts else number
        # A comment ends what goes on, even if it ends in a backslash itself.
        if line.endswith("\\") and not COMMENT.match(line):
            parts.append(line.strip("\\"))
            continue
        parts.append(f" {line}" if COMMENT.match(line) else line)
        if joined := COMMENT.sub("", "".join(parts)).strip():
            yield start, joined
        parts = []


@functools.cache
def _options() -> argparse.ArgumentParser:
    """What pip takes in a requirements file; values that matter here go to files, editable, urls and hashes."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    for goes_to, names in {
        "files": "-r --requirement -c --constraint",
        "editable": "-e --editable",
        "urls": "-i --index-url --extra-index-url -f --find-links",
        "hashes": "--hash",
        "rest": "--trusted-host --no-binary --only-binary --use-feature --global-option --config-settings",
    }.items():
        parser.add_argument(*names.split(), dest=goes_to, action="append", default=[])
    parser.add_argument("--no-index", "--prefer-binary", "--require-hashes", "--pre", action="store_true")
    return parser


def _check_line(place: _Place, line: str) -> list[str]:
    """Check a line of a requirements file; gives the files it refers to."""
    place.refuse_credentials(line)
    requirement, *options = re.split(r"(?:^|\s+)(?=-)", line, maxsplit=1)
    try:
        known, unknown = _options().parse_known_args(shlex.split("".join(options)))
    except (argparse.ArgumentError, ValueError) as error:
        raise place.error("is not understood", f"{line}\n{error}", "correct the line") from error
    for problem in [f"{word} is no option that pip takes there" for word in unknown] + [
        f"{value} is not sha256:<digits>" for value in known.hashes if not HASH.fullmatch(value)
    ]:
        raise place.error("is not understood", f"{line}\n{problem}", "correct the line")
    for target in known.editable:
        raise place.version_control() if VERSION_CONTROL.match(target) else place.local(f"-e {target}")
    for url in known.urls:
        _check_url(place, url)
    if re.match(r"[a-z][a-z0-9+.-]*://|git@", requirement, re.IGNORECASE):
        _check_url(place, requirement)
    elif requirement:
        _check_requirement(place, requirement)
    return list(known.files)


def _referred(folder: Path, place: _Place, name: str) -> str:
    """The path, relative to the folder, of a file that a line refers to by -r or -c."""
    path = os.path.normpath(os.path.join(os.path.dirname(place.file), name))
    root = os.path.realpath(folder)
    if "\0" in name or os.path.isabs(path) or os.path.commonpath([root, os.path.realpath(folder / path)]) != root:
        raise place.error(f"refers to {name!r}", "it is not in the workflow's folder", "copy it into the folder")
    if not os.path.isfile(folder / path):
        raise place.error(f"refers to {name!r}", "there is no such file", "add the file, or leave the line out")
    return Path(path).as_posix()


def _check_url(place: _Place, url: str) -> None:
    if VERSION_CONTROL.match(url):
        raise place.version_control()
    if not re.match("https?://", url, re.IGNORECASE):
        raise place.local(url)


def _check_requirement(place: _Place, text: str) -> Requirement:
    """Parse one requirement; check that it can be had, and that it leaves the image its Prefect."""
    place.refuse_credentials(text)
    try:
        requirement = Requirement(text)
    except InvalidRequirement as error:
        if text.startswith(".") or "/" in text.partition(";")[0]:
            raise place.local(text) from error
        raise place.error("is not a requirement", str(error), "correct it: name, or name==version") from error
    if requirement.url:
        _check_url(place, requirement.url)
    elif ARCHIVE.search(requirement.name):
        raise place.local(text)
    if canonicalize_name(requirement.name) == "prefect" and _excludes(requirement.specifier, PREFECT):
        with contextlib.suppress(UndefinedComparison, UndefinedEnvironmentName):
            if requirement.marker and not requirement.marker.evaluate(MARKERS):
                return requirement
        raise place.error(
            f"excludes Prefect {PREFECT}: {requirement}",
            f"workflows run on the Prefect {PREFECT} of the agent's image",
            f"leave Prefect out of it, or allow Prefect {PREFECT}, and adapt the workflow to it",
        )
    return requirement


def _excludes(specifier: SpecifierSet, series: str) -> bool:
    """Whether no version of a series, such as 3 for all 3.x, fits."""
    return (specifier & SpecifierSet(f"=={series}.*")).is_unsatisfiable()


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
        raise _Place(name, error.lineno).error(what, error.msg, "make it again: pipenv lock") from error
    except (ValueError, TypeError, AttributeError, LookupError, RecursionError) as error:
        why = f"{type(error).__name__}: {error}"
        raise _Place(name).error("is not as pipenv writes it", why, "make it again: pipenv lock") from error
    return Packages(name, "".join(lines).encode("utf-8", "backslashreplace"), notes)


def _locked(place: _Place, name: str, entry: dict[str, Any]) -> str:
    if entry.keys() & {"git", "hg", "svn", "bzr"}:
        raise place.version_control()
    if entry.keys() & {"path", "editable"}:
        raise place.local(name)
    extras = f"[{','.join(entry['extras'])}]" if entry.get("extras") else ""
    version = f" @ {entry['file']}" if "file" in entry else entry.get("version", "*").removeprefix("*")
    markers = f" ; {entry['markers']}" if entry.get("markers") else ""
    requirement = _check_requirement(place, f"{name}{extras}{version}{markers}")
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
        place = _Place(name, int(at[1]) if at else len(text.splitlines()))
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
        if _excludes(SpecifierSet(python), PYTHON):
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
        requirement = _check_requirement(place, line)
        if canonicalize_name(requirement.name) in elsewhere:
            why = "[tool.uv.sources] says where from, and pip does not know that"
            raise place.error(f"asks for {line}", why, f"write name @ URL of an archive, {DOCKERFILE}")
        yield f"{requirement}\n"
