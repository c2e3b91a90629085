"""One requirement at a time: what pip takes, and whether it can be had where a workflow's image is built.

There is no git there, there are no secrets, and the workflow's code is not there yet. So only what pip can download by
name or by the URL of an archive goes, and it must leave the image its Python and its Prefect.

Sources: https://pip.pypa.io/en/stable/reference/requirements-file-format/,
https://packaging.python.org/en/latest/specifications/dependency-specifiers/
"""

import argparse
import contextlib
import dataclasses
import functools
import re
import shlex
from collections.abc import Iterator

from packaging.markers import UndefinedComparison, UndefinedEnvironmentName
from packaging.requirements import InvalidRequirement, Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

from environments.errors import PlatformError

PYTHON = "3.11"
"""The Python of the agent's image, which workflows run on."""
PREFECT = "3"
"""The major version of Prefect in it."""
MARKERS = {"python_version": PYTHON, "python_full_version": f"{PYTHON}.0", "sys_platform": "linux"}
COMMENT = re.compile(r"(^|\s+)#.*$")
HASH = re.compile(r"sha(256|384|512):[0-9a-f]+")
VERSION_CONTROL = re.compile(r"(git|hg|svn|bzr)(\+|@|://)", re.IGNORECASE)
CREDENTIALS = re.compile(r"://(?!git@)[^/?#\s\"']*@")
ARCHIVE = re.compile(r"\.(whl|zip|tar|tar\.gz|tgz|tar\.bz2|tbz|tar\.xz)$", re.IGNORECASE)
DOCKERFILE = "or add a Dockerfile of your own to the folder"


@dataclasses.dataclass(frozen=True)
class Place:
    """A line of a file in the author's folder; 0 when the file as a whole is meant."""

    file: str
    line: int = 0

    def error(self, what: str, why: str, todo: str) -> PlatformError:
        """The error for what is wrong there."""
        where = f"{self.file}:{self.line}" if self.line else self.file
        # JSON may hold halves of characters, which no terminal takes.
        what, why = (text.encode("utf-8", "backslashreplace").decode() for text in (f"{where} {what}", why))
        return PlatformError(what, why, todo, file=self.file, line=self.line)

    def local(self, text: str) -> PlatformError:
        """The error for a package that only the author's machine has."""
        return self.error(
            f"asks for a package on your machine: {text}",
            "packages are installed before the folder is there; its own modules need no installation to be imported",
            f"leave it out, or name a published package or the URL of its archive, {DOCKERFILE}",
        )

    def version_control(self) -> PlatformError:
        """The error for a package from version control."""
        return self.error(
            "asks for a package from version control",
            "the image has no git and no keys",
            f"write the URL of an archive: name @ https://<host>/<repository>/archive/<commit>.zip, {DOCKERFILE}",
        )

    def refuse_credentials(self, text: str) -> None:
        """Raise the error for a URL with a user or password in it, which is not repeated."""
        if CREDENTIALS.search(text):
            raise self.error(
                "has a URL with credentials",
                "whoever has the image could read them, and it is built without variables that could stand for them",
                f"use a package index or an archive that asks for none, {DOCKERFILE}",
            )


def logical_lines(text: str) -> Iterator[tuple[int, str]]:
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


def check_line(place: Place, line: str) -> list[str]:
    """Check a line of a requirements file, as `logical_lines` gives it.

    Returns:
        The files that it refers to by -r and -c, as they stand there.

    Raises:
        PlatformError: pip would not understand it, or could not get what it asks for.
    """
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
        check_requirement(place, requirement)
    return list(known.files)


def check_requirement(place: Place, text: str) -> Requirement:
    """Parse one requirement; check that it can be had, and that it leaves the image its Prefect.

    Raises:
        PlatformError: it is none, can't be had, has credentials, or excludes the image's Prefect.
    """
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
    if canonicalize_name(requirement.name) == "prefect" and excludes(requirement.specifier, PREFECT):
        with contextlib.suppress(UndefinedComparison, UndefinedEnvironmentName):
            if requirement.marker and not requirement.marker.evaluate(MARKERS):
                return requirement
        raise place.error(
            f"excludes Prefect {PREFECT}: {requirement}",
            f"workflows run on the Prefect {PREFECT} of the agent's image",
            f"leave Prefect out of it, or allow Prefect {PREFECT}, and adapt the workflow to it",
        )
    return requirement


def excludes(specifier: SpecifierSet, series: str) -> bool:
    """Whether no version of a series, such as 3 for all 3.x, fits."""
    return (specifier & SpecifierSet(f"=={series}.*")).is_unsatisfiable()


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


def _check_url(place: Place, url: str) -> None:
    if VERSION_CONTROL.match(url):
        raise place.version_control()
    if not re.match("https?://", url, re.IGNORECASE):
        raise place.local(url)
