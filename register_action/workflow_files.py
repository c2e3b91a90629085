"""The files of a workflow: what of its folder belongs into its image.

Everything does but what is never a workflow's and what its `.dockerignore` names, read as Docker reads it. The image
is made of contents by path, so links are taken only where they stand for copies.

Source: https://docs.docker.com/build/concepts/context/#dockerignore-files
"""

import collections
import itertools
import os
import posixpath
import re
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from environments.errors import PlatformError

IGNORED = ("**/.*", "**/*.pyc", "**/node_modules", "**/site-packages", "**/venv", "**/tests")
"""What is not the workflow's unless its .dockerignore says so (`!tests`); patterns as they stand in that file."""
NEVER = ("**/.git", "**/.env*", "**/__pycache__")
"""What never goes into an image: secrets, and what differs from machine to machine."""
ALWAYS = "!Dockerfile"
"""Docker wants it even if .dockerignore lists it."""
MAXIMUM_FILES = 20_000
MAXIMUM_MEGABYTES = 500
LEFT_OUT = "or list it in the folder's .dockerignore"
_GLOB = re.compile(r"(?:\*\*/)+|\*\*|\*|\?|\[[!^]?[^]]+\]|\\?.", re.DOTALL)
_WILDCARDS = {"": "", "*": "[^/]*?", "**": ".*?", "**/": "(?:.*?/)??"}
_NO_NAME = re.compile("[\0-\x1f\x7f-\x9f\ud800-\udfff]")  # the last ones are how Python reads what is no UTF-8
_Ignores = Callable[[str], bool]


def workflow_files(folder: Path) -> list[Path]:
    """All files of a workflow that belong into its image: all but those of IGNORED, .dockerignore and NEVER.

    A link to a file or folder within the folder counts as a copy of it.

    Raises:
        PlatformError: no folder, far too much in it, files that can't be read, or links that lead out of it, nowhere,
            or in a circle.
    """
    if not os.path.isdir(folder):
        raise PlatformError(f"no folder {folder}", "the workflow's folder does not exist", "correct --workflow-path")
    sizes: dict[str, int] = {}
    total = 0
    try:
        for path, size in _walk(folder, *_ignore_rules(folder)):
            sizes[path], total = size, total + size
            if len(sizes) > MAXIMUM_FILES or total > MAXIMUM_MEGABYTES * 1e6:
                raise _too_large(folder, sizes)
    except OSError as error:
        raise PlatformError(f"{folder} can't be read", str(error), f"correct its permissions, {LEFT_OUT}") from error
    return sorted(folder / path for path in sizes)


def _walk(folder: Path, ignored: _Ignores, closed: _Ignores) -> Iterator[tuple[str, int]]:
    """Path and size of each file that is not ignored; into an ignored folder only if it is not closed."""
    root = os.path.realpath(folder)
    waiting = [("", False)]
    while waiting:
        inside, linked = waiting.pop()
        for entry in sorted(os.scandir(os.path.join(root, inside)), key=lambda entry: entry.name):
            path = inside + entry.name
            link = entry.is_symlink()
            if ignored(path):
                if not closed(path) and entry.is_dir(follow_symlinks=False):
                    waiting.append((f"{path}/", linked))
                continue
            if link:
                _check_link(root, path, linked and entry.is_dir())
            if entry.is_dir():
                waiting.append((f"{path}/", linked or link))
            elif entry.is_file():
                if _NO_NAME.search(path) or not os.access(entry.path, os.R_OK):
                    raise PlatformError(
                        f"{path!r} can't be read",
                        "its permissions, or its name is not UTF-8 or has control characters",
                        f"correct it, {LEFT_OUT}",
                    )
                yield path, entry.stat().st_size


def _check_link(root: str, path: str, again: bool) -> None:
    """Refuse a link that is no copy of something in the folder; `again` for a link to a folder behind another one."""
    why = "it leads in a circle, or is behind another link to a folder" if again else ""
    try:
        target = os.path.realpath(f"{root}/{path}", strict=True)
        if os.path.commonpath([root, target]) != root:
            why = f"it leads out of the folder, to {target}"
        elif _matcher(map(_rule, NEVER))(os.path.relpath(target, root)):
            why = "it leads to what never goes into an image"
    except OSError as error:
        why = f"it leads nowhere: {error.strerror}"
    if why:
        todo = f"put what it leads to in its place, {LEFT_OUT}"
        raise PlatformError(f"{path!r} is a link that can't be in an image", why, todo, file=path)


def _too_large(folder: Path, sizes: dict[str, int]) -> PlatformError:
    parts: collections.Counter[str] = collections.Counter()
    by_number = len(sizes) > MAXIMUM_FILES
    for path, size in sizes.items():
        parts[path.rpartition("/")[0].partition("/")[0] or "."] += 1 if by_number else size
    name, much = parts.most_common(1)[0]
    return PlatformError(
        f"{folder} is too large for a workflow",
        f"it has more than {MAXIMUM_FILES:,} files or {MAXIMUM_MEGABYTES} MB; "
        f"most are in {name}: {f'{much:,} files' if by_number else f'{much / 1e6:.0f} MB'} or more",
        "correct --workflow-path, or list what is not needed in the folder's .dockerignore",
    )


def _ignore_rules(folder: Path) -> tuple[_Ignores, _Ignores]:
    """Tell what is ignored, and into which ignored folders there is no need to look."""
    own: list[tuple[bool, re.Pattern[str]]] = []
    if os.path.isfile(folder / ".dockerignore"):
        lines = (folder / ".dockerignore").read_bytes().decode("utf-8-sig", "surrogateescape").splitlines()
        for number, line in enumerate(lines, 1):
            try:
                own += [_rule(line)] if line.strip().strip("!./") and not line.startswith("#") else []
            except re.error as error:
                what = f".dockerignore:{number} is no pattern"
                raise PlatformError(
                    what, f"{line!r}: {error}", "correct it", file=".dockerignore", line=number
                ) from error
    never = [_rule(pattern) for pattern in NEVER]
    ignored = _matcher([*map(_rule, IGNORED), *own, _rule(ALWAYS), *never])
    return ignored, _matcher(never) if any(back for back, _ in own) else ignored


def _matcher(rules: Iterable[tuple[bool, re.Pattern[str]]]) -> _Ignores:
    last_first = [*rules][::-1]
    return lambda path: next((not back for back, regex in last_first if regex.fullmatch(path)), False)


def _rule(line: str) -> tuple[bool, re.Pattern[str]]:
    """A line of .dockerignore: whether it brings back, and what it matches; the last line that matches a path decides.

    docker-py's own matcher takes 0.2 s to import and lets files in the folders that `**/tests` names pass.
    """
    back = line.strip().startswith("!")
    pattern = posixpath.normpath(line.strip().removeprefix("!").strip()).lstrip("/")
    parts = [["", ""]]  # a wildcard each, and what stands behind it
    for token in _GLOB.findall(pattern):
        if token.endswith("**/"):
            parts.append(["**/", ""])
        elif token in ("*", "**"):
            joined = bool(parts[-1][0]) and not parts[-1][1] and (parts[-1][0], token) != ("**/", "*")
            parts = [*parts[:-1], ["**", ""]] if joined else [*parts, [token, ""]]
        elif token.startswith("[") and len(token) > 1:
            negated = token[1] in "!^"
            inside = re.escape(token[1 + negated : -1]).replace(r"\-", "-")
            parts[-1][1] += f"[{'^' * negated}{inside}]"
        else:
            parts[-1][1] += {"?": "[^/]"}.get(token) or re.escape(token[-1])
    regex = ""
    for (wildcard, rest), (following, _) in itertools.zip_longest(parts, parts[1:], fillvalue=("", "")):
        # Where what follows takes up all that is skipped, the first place that fits will do; trying all takes for ever.
        first = following == "**" or (following == "**/" and rest.endswith("/"))
        first |= following == "*" and wildcard in ("", "*") and "[" not in rest.replace("[^/]", "")
        regex += ("(?>" if first else "(?:") + _WILDCARDS[wildcard] + rest + ")"
    return back, re.compile(f"(?:{regex})(?:/.*)?", re.DOTALL)
