"""One folder of one commit of a git repository, given by its URL.

As little as possible is fetched: one commit, and nothing where the job's checkout has it already. The files are those
of the commit, byte by byte: no hook, filter or setting of the repository has a say in it. Submodules stay empty
folders, and what is kept in Git LFS stays a pointer.

Sources: https://git-scm.com/docs/gitattributes,
https://git-scm.com/docs/gitrepository-layout (objects/info/alternates).
"""

import dataclasses
import difflib
import os
from pathlib import Path

from environments import github_actions
from environments.errors import PlatformError
from register_action import git
from register_action.git import Answer

FULL_COMMIT = 40
AS_COMMITTED = "* -filter -ident -text !working-tree-encoding\n"


@dataclasses.dataclass(frozen=True)
class _Repository:
    """A repository at a URL, and the folder of the one in which we gather what we need of it."""

    url: str
    folder: Path

    @property
    def origin(self) -> str:
        return git.normalised(self.url)

    def run(self, *arguments: str, typed: str = "", url: str = "") -> Answer:
        return git.run(f"--git-dir={self.folder}", *arguments, typed=typed, url=url)


def take(url: str, branch: str, commit: str, path: str, scratch: Path) -> tuple[Path, str, str]:
    """Get a folder of a commit.

    Args:
        url: of the repository.
        branch: its name; empty for the default branch.
        commit: its id, or the first seven or more digits; empty for the newest of the branch.
        path: the folder, as git spells it; `.` for the root.
        scratch: an empty folder, which what is fetched goes into.

    Returns:
        The folder on this machine, the commit's full id, and the branch; that is empty when a commit is given without.

    Raises:
        PlatformError: the repository can't be read, has no such branch, commit or folder, or the folder can't be
            written; or git is missing or takes too long.
    """
    repository = _made(url, scratch / "git")
    found = _borrowed(repository, commit)
    if not found and (branch or not commit):
        branch, head = _branch(repository, branch)
        commit = commit or head
    found = found or _borrowed(repository, commit) or _fetched(repository, commit, branch)
    return _written(repository, found, path, scratch / "files"), found, branch


def outside(path: str) -> PlatformError:
    """The error for a folder that is not one of the repository's."""
    return PlatformError(
        f"folder {path} is outside the repository",
        "a job registers folders of its own repository, and a commit holds no other ones",
        "correct --workflow-path",
    )


def _made(url: str, folder: Path) -> _Repository:
    made = git.run("init", "--quiet", "--bare", "--template=", str(folder))
    if made.returncode:
        raise PlatformError("git can't make a repository", git.told(made), "see that the disk has room")
    (folder / "info").mkdir()
    (folder / "info" / "attributes").write_text(AS_COMMITTED, encoding="utf-8")
    return _Repository(url, folder)


def _known(repository: _Repository, commit: str) -> str:
    """The full id of a commit that is here, else empty."""
    return repository.run("rev-parse", "--verify", "--quiet", f"{commit}^{{commit}}").stdout.strip()


def _borrowed(repository: _Repository, commit: str) -> str:
    """The full id of a commit that the job's checkout has, whose objects are then used from there; else empty."""
    workspace = github_actions.workspace()
    if not commit or not workspace or git.origin(workspace) != repository.origin:
        return ""
    if git.run(*git.checkout(workspace), "config", "--get", "remote.origin.promisor").stdout:
        return ""  # a partial clone: it has the commit, but perhaps not its files
    objects = git.run(*git.checkout(workspace), "rev-parse", "--path-format=absolute", "--git-path", "objects").stdout
    alternates = repository.folder / "objects" / "info" / "alternates"
    alternates.write_text(objects, encoding="utf-8")
    found = _known(repository, commit)
    if not found:
        alternates.unlink()  # a checkout without history would be taken for one that has it
    return found


def _branch(repository: _Repository, name: str) -> tuple[str, str]:
    """A branch and its newest commit; the default branch when no name is given."""
    answer = repository.run("ls-remote", "--symref", "--", repository.url, "HEAD", "refs/heads/*", url=repository.url)
    if answer.returncode:
        raise _unreadable(repository, answer)
    heads = {}
    for value, _, ref in (line.partition("\t") for line in answer.stdout.splitlines()):
        if ref.startswith("refs/heads/"):
            heads[ref.removeprefix("refs/heads/")] = value
        elif ref == "HEAD" and value.startswith("ref: "):
            name = name or value.removeprefix("ref: refs/heads/")
        elif ref == "HEAD":
            heads[""] = value  # the only way to name it when it is on no branch
    if name in heads:
        return name, heads[name]
    known = sorted(filter(None, heads))
    close = difflib.get_close_matches(name, known, n=1)
    raise PlatformError(
        f"no {f'branch {name}' if name else 'default branch'} in {repository.origin}",
        f"did you mean {close[0]}?" if close else f"its branches: {', '.join(known[:20]) or 'none'}",
        "correct --branch-name, or push the branch",
    )


def _fetched(repository: _Repository, commit: str, branch: str) -> str:
    """Fetch a commit, alone if possible; a short id, or a server that gives out heads only, takes the history."""
    wanted = [commit] if len(commit) == FULL_COMMIT else []
    wanted += [f"+refs/heads/{heads}:refs/remotes/origin/{heads}" for heads in (branch, "*") if heads]
    for refspec in wanted:
        options = ("--quiet", "--no-tags", *(["--depth=1"] if refspec == commit else []))
        answer = repository.run("fetch", *options, "--", repository.url, refspec, url=repository.url)
        if found := _known(repository, commit):
            return found
    if answer.returncode:
        raise _unreadable(repository, answer)
    raise PlatformError(
        f"no commit {commit} in {repository.origin}",
        "none of its branches has it" if len(commit) == FULL_COMMIT else "no commit, or several, begin like this",
        "correct --commit-sha, or push the commit",
    )


def _written(repository: _Repository, commit: str, path: str, files: Path) -> Path:
    """A commit's folder, written below `files`."""
    asked = f"{commit}^{{tree}}" if path == "." else f"{commit}:{path}"
    batch = ("cat-file", "--batch-check=%(objecttype) %(objectname)", "--follow-symlinks")
    kind, _, tree = repository.run(*batch, typed=f"{asked}\n").stdout.partition(" ")
    if kind == "symlink":
        raise outside(path)
    if kind != "tree":
        why = "it is a file" if kind == "blob" else "the commit has no such folder"
        raise PlatformError(f"no folder {path} in commit {commit}", why, "correct --workflow-path")
    folder = files / path
    try:
        folder.mkdir(parents=True)
    except OSError as error:
        raise PlatformError(
            f"folder {path} can't be written to the disk", str(error), "choose shorter names"
        ) from error
    answer = repository.run(f"--work-tree={folder}", "read-tree", "--reset", "-u", tree.strip())
    if answer.returncode:
        what = f"commit {commit} can't be written to the disk"
        raise PlatformError(what, git.told(answer), "correct what git names, commit it, and register that")
    for link in filter(Path.is_symlink, sorted(folder.rglob("*"))):
        if not Path(os.path.realpath(link)).is_relative_to(folder.resolve()):
            place = os.fsencode(link.relative_to(folder)).decode(errors="replace")
            what, why = f"link {place} leads out of the workflow's folder", "only what is in the folder is registered"
            raise PlatformError(what, why, "put a copy of what it leads to in its place", file=place)
    return folder


def _unreadable(repository: _Repository, answer: Answer) -> PlatformError:
    return PlatformError(
        f"repository {repository.origin} can't be read",
        git.told(answer),
        "correct --git-url, or give access: a credential helper of git, an SSH key, or the variable GITHUB_TOKEN",
    )
