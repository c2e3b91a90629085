"""Where a workflow's folder comes from: as it is on this machine, or exactly one commit of a git repository."""

import dataclasses
import os
import posixpath
import re
from pathlib import Path

from environments import github_actions
from environments.errors import PlatformError
from environments.names import slug
from register_action import commits, git

GENERAL_NAMES = {"workflow", "workflows", "flow", "flows", "src"}
"""Folder names that don't say which workflow it is."""


@dataclasses.dataclass(frozen=True)
class Wanted:
    """What the user asked to register; empty is what they left open."""

    workflow_path: str
    git_url: str = ""
    branch_name: str = ""
    commit_sha: str = ""
    name: str = ""


@dataclasses.dataclass(frozen=True)
class Source:
    """A workflow's folder, ready to read, and where it comes from.

    Attributes:
        folder: the files.
        name: the workflow's name, fit for ECR, ECS and Prefect.
        origin: `github.com/acme/etl//workflow`; empty outside git and for a repository without a remote `origin`.
        commit: the full id, with `-modified` when the folder differs from it; empty outside git.
        branch: its name where it is known, else empty.
        path: the folder in its repository, `.` for the root; outside git as the user gave it.
    """

    folder: Path
    name: str
    origin: str
    commit: str
    branch: str
    path: str


def locate(wanted: Wanted, scratch: Path) -> Source:
    """Get the folder that the user asked to register.

    Args:
        wanted: with a `git_url` that commit of that folder, else the folder as it is.
        scratch: an empty folder for what has to be fetched; the caller removes it.

    Raises:
        PlatformError: a value can't be right, the folder is missing or outside the repository, the repository can't be
            read or has no such branch or commit, or git is missing, fails or takes too long.
    """
    wanted = _checked(wanted)
    return _at_commit(wanted, scratch) if wanted.git_url else _as_it_is(wanted)


def identity(wanted: Wanted) -> tuple[str, str, str]:
    """Name, origin and branch as `locate` gives them, without fetching; the folder need not exist any more.

    The branch is empty for a `git_url` without `branch_name`: only the server knows its default branch.

    Raises:
        PlatformError: a value can't be right, or git is missing.
    """
    wanted = _checked(wanted)
    if not wanted.git_url:
        return _described(wanted, _resolved(wanted.workflow_path))[:3]
    path, origin = _inside(wanted.workflow_path), git.normalised(wanted.git_url)
    return _name(wanted, origin.rpartition("/")[2], path), f"{origin}//{path}", wanted.branch_name


def _checked(wanted: Wanted) -> Wanted:
    """What the user asked for, in git's spelling, when each value is one that can be right."""
    branch, commit, url = wanted.branch_name.removeprefix("refs/heads/"), wanted.commit_sha.lower(), wanted.git_url
    # A URL that is refused is not repeated: it may hold a secret.
    if not all(value.isprintable() for value in dataclasses.astuple(wanted)):
        raise PlatformError("an option holds a character that can't be shown", todo="correct it, and register again")
    if not wanted.workflow_path:
        raise PlatformError("--workflow-path is empty", todo='name the workflow\'s folder; "." is the current one')
    if branch and not re.fullmatch(r"(?!-)(?!.*(\.\.|@\{|//))[^\s~^:?*\[\\]+", branch):
        raise PlatformError(f"{branch!r} can't be a branch", "git does not allow such a name", "correct --branch-name")
    if commit and not re.fullmatch("[0-9a-f]{7,40}", commit):
        raise PlatformError(
            f"{commit!r} can't be a commit", "commits are 7 to 40 hexadecimal digits", "correct --commit-sha"
        )
    if git.holds_secret(url):
        raise PlatformError(
            "--git-url holds a password",
            "no secret belongs into an argument: logs and other programs see it",
            "leave it out, and use a credential helper of git, an SSH key, or the variable GITHUB_TOKEN",
        )
    if url and not git.normalised(url):
        raise PlatformError(
            "--git-url is no URL of a git repository",
            "allowed are https, http, ssh, git and file URLs, user@host:path, and absolute paths",
            "correct it, https://<host>/<owner>/<repository> for example",
        )
    return dataclasses.replace(wanted, branch_name=branch, commit_sha=commit)


def _inside(path: str) -> str:
    """A path from a repository's root, as git spells it."""
    normal = posixpath.normpath(path)
    if normal.startswith("/") or normal.split("/")[0] == "..":
        raise commits.outside(path)
    return normal


def _resolved(path: str) -> Path:
    try:
        return Path(os.path.realpath(path))
    except OSError as error:
        raise PlatformError("the current directory is gone", str(error), "change into one that exists") from error


def _name(wanted: Wanted, repository: str, path: str) -> str:
    telling = [part for part in (repository, *path.split("/")) if part.lower() not in {*GENERAL_NAMES, "."}]
    return slug(wanted.name or (telling or [repository])[-1])


def _as_it_is(wanted: Wanted) -> Source:
    folder, workspace = _resolved(wanted.workflow_path), github_actions.workspace()
    if workspace and not folder.is_relative_to(workspace.resolve()):
        raise commits.outside(wanted.workflow_path)
    if not os.path.isdir(folder):
        kind = "it is a file" if os.path.exists(folder) else "the workflow's folder does not exist"
        raise PlatformError(f"no folder {wanted.workflow_path}", kind, "correct --workflow-path")
    commit = _head(folder)
    if wanted.commit_sha and not commit.startswith(wanted.commit_sha):
        raise PlatformError(
            f"folder {wanted.workflow_path} is not at commit {wanted.commit_sha}",
            f"it is at {commit}" if commit else "it is in no git repository, or in one without commits",
            "give --git-url too, which takes the folder from that commit",
        )
    name, origin, branch, path = _described(wanted, folder)
    return Source(folder, name, origin, commit, branch, path)


def _described(wanted: Wanted, folder: Path) -> tuple[str, str, str, str]:
    """Name, origin, branch and path of a folder on this machine."""
    top = _top(folder)
    if not top:
        return _name(wanted, folder.parent.name, folder.name), "", wanted.branch_name, wanted.workflow_path
    path, origin = folder.relative_to(top).as_posix(), git.origin(top)
    branch = (
        wanted.branch_name or git.run(*git.checkout(top), "symbolic-ref", "--short", "--quiet", "HEAD").stdout.strip()
    )
    name = _name(wanted, origin.rpartition("/")[2] or top.name, path)
    return name, origin and f"{origin}//{path}", branch, path


def _head(folder: Path) -> str:
    """The commit that a folder holds, marked when the folder differs from it; empty outside git."""
    top = _top(folder)
    if not top:
        return ""
    place = ("-C", str(folder), *git.checkout(top))
    changes = git.run(*place, "status", "--porcelain", "--untracked-files=all", "--", ".")
    if changes.returncode:
        raise PlatformError(
            f"git can't read the repository of {folder}", git.told(changes), "git status shows the same"
        )
    head = git.run(*place, "rev-parse", "--verify", "--quiet", "HEAD^{commit}").stdout.strip()
    return f"{head}-modified" if head and changes.stdout else head


def _top(folder: Path) -> Path | None:
    """The checkout that a folder lies in."""
    for candidate in (folder, *folder.parents):
        if os.path.isfile(candidate / ".git") or os.path.lexists(candidate / ".git" / "HEAD"):
            return candidate
    return None


def _at_commit(wanted: Wanted, scratch: Path) -> Source:
    name, origin, branch = identity(wanted)
    path = _inside(wanted.workflow_path)
    folder, commit, branch = commits.take(wanted.git_url, branch, wanted.commit_sha, path, scratch)
    return Source(folder, name, origin, commit, branch, path)
