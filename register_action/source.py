"""Where a workflow's folder comes from: as it is on this machine, or exactly one commit of a git repository.

Of a repository as little as possible is fetched: one commit, and nothing where the job's checkout has it already. Its
files are those of the commit, byte by byte: no hook, filter or setting of the repository has a say in it. Submodules
stay empty folders, and what is kept in Git LFS stays a pointer.

Sources: https://git-scm.com/docs/git#_environment_variables, https://git-scm.com/docs/gitattributes,
https://git-scm.com/docs/gitrepository-layout (objects/info/alternates), https://git-scm.com/docs/git-config (http.*).
"""

import base64
import contextlib
import dataclasses
import difflib
import os
import posixpath
import re
import signal
import subprocess
from pathlib import Path

from environments import console, github_actions
from environments.errors import PlatformError
from environments.secrets import process_environment

Answer = subprocess.CompletedProcess[str]
GIT_SECONDS = 300
FULL_COMMIT = 40
GENERAL_NAMES = {"workflow", "workflows", "flow", "flows", "src"}
"""Folder names that don't say which workflow it is."""
SAFE = ("core.hooksPath=/dev/null", "core.fsmonitor=false", "submodule.recurse=false", "maintenance.auto=false")
"""Without these, git may run programs that a repository names, or go on in the background."""
INHERITED = ("GIT_SSH", "GIT_SSL", "GIT_HTTP", "GIT_PROXY", "GIT_ASKPASS", "GIT_CONFIG_", "GIT_EXEC_PATH")
"""How git reaches servers is the user's; the other GIT_* variables, a hook's for example, lead it astray."""
AS_COMMITTED = "* -filter -ident -text !working-tree-encoding\n"
PROTOCOLS = "https:http:ssh:git:file"
"""Others, ext:: above all, run programs that the URL names."""
HOST = r"(?:[A-Za-z0-9_][A-Za-z0-9_.-]*|\[[0-9A-Fa-f:.]+\])"
URL = re.compile(rf"(?:https?|ssh|git)://(?:(?P<user>[^/]*)@)?(?P<host>{HOST}(?::[0-9]+)?)/(?P<path>.+)")
SCP_URL = re.compile(rf"(?!.*://)(?:(?P<user>[A-Za-z0-9_][^/@:]*)@)?(?P<host>{HOST}):(?!:)(?P<path>[^@]+)")
FILE_URL = re.compile(r"(?:file://)?(?P<user>)(?P<host>)(?P<path>/.+)")
SECRET_USER = re.compile(r".*:|gh[a-z]_|github_pat_|glpat-")


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


@dataclasses.dataclass(frozen=True)
class _Repository:
    """A repository at a URL, and the folder of the one in which we gather what we need of it."""

    url: str
    folder: Path

    @property
    def origin(self) -> str:
        return normalised(self.url)

    def git(self, *arguments: str, typed: str = "", url: str = "") -> Answer:
        return _git(f"--git-dir={self.folder}", *arguments, typed=typed, url=url)


def slug(name: str) -> str:
    """A name that ECR, ECS and log streams all take."""
    return re.sub(r"[^a-z0-9]+", "_", name.lower()).strip("_")[:100] or "workflow"


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
    path, origin = _inside(wanted.workflow_path), normalised(wanted.git_url)
    return _name(wanted, origin.rpartition("/")[2], path), f"{origin}//{path}", wanted.branch_name


def normalised(url: str) -> str:
    """A repository as host/owner/name, the same for all its URLs; empty for what is no URL of a git repository."""
    found = URL.fullmatch(url) or SCP_URL.fullmatch(url) or FILE_URL.fullmatch(url)
    path = re.sub("/+", "/", found["path"]).strip("/").removesuffix(".git").rstrip("/") if found else ""
    return f"{found['host'].lower()}/{path}" if found and path else ""


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
    if commit and not re.fullmatch(f"[0-9a-f]{{7,{FULL_COMMIT}}}", commit):
        raise PlatformError(
            f"{commit!r} can't be a commit", "commits are 7 to 40 hexadecimal digits", "correct --commit-sha"
        )
    if (found := URL.fullmatch(url)) and SECRET_USER.match(found["user"] or ""):
        raise PlatformError(
            "--git-url holds a password",
            "no secret belongs into an argument: logs and other programs see it",
            "leave it out, and use a credential helper of git, an SSH key, or the variable GITHUB_TOKEN",
        )
    if url and not normalised(url):
        raise PlatformError(
            "--git-url is no URL of a git repository",
            "allowed are https, http, ssh, git and file URLs, user@host:path, and absolute paths",
            "correct it, https://<host>/<owner>/<repository> for example",
        )
    return dataclasses.replace(wanted, branch_name=branch, commit_sha=commit)


def _outside(path: str) -> PlatformError:
    return PlatformError(
        f"folder {path} is outside the repository",
        "a job registers folders of its own repository, and a commit holds no other ones",
        "correct --workflow-path",
    )


def _inside(path: str) -> str:
    """A path from a repository's root, as git spells it."""
    normal = posixpath.normpath(path)
    if normal.startswith("/") or normal.split("/")[0] == "..":
        raise _outside(path)
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
        raise _outside(wanted.workflow_path)
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
    path, origin = folder.relative_to(top).as_posix(), _origin(top)
    branch = wanted.branch_name or _git(*_checkout(top), "symbolic-ref", "--short", "--quiet", "HEAD").stdout.strip()
    name = _name(wanted, origin.rpartition("/")[2] or top.name, path)
    return name, origin and f"{origin}//{path}", branch, path


def _head(folder: Path) -> str:
    """The commit that a folder holds, marked when the folder differs from it; empty outside git."""
    top = _top(folder)
    if not top:
        return ""
    place = ("-C", str(folder), *_checkout(top))
    changes = _git(*place, "status", "--porcelain", "--untracked-files=all", "--", ".")
    if changes.returncode:
        raise PlatformError(f"git can't read the repository of {folder}", _told(changes), "git status shows the same")
    head = _git(*place, "rev-parse", "--verify", "--quiet", "HEAD^{commit}").stdout.strip()
    return f"{head}-modified" if head and changes.stdout else head


def _top(folder: Path) -> Path | None:
    """The checkout that a folder lies in."""
    for candidate in (folder, *folder.parents):
        if os.path.isfile(candidate / ".git") or os.path.lexists(candidate / ".git" / "HEAD"):
            return candidate
    return None


def _checkout(top: Path) -> tuple[str, str]:
    # Named like this its owner does not matter: in a job's container it is often another user.
    return f"--git-dir={top / '.git'}", f"--work-tree={top}"


def _origin(top: Path | None) -> str:
    return normalised(_git(*_checkout(top), "config", "--get", "remote.origin.url").stdout.strip()) if top else ""


def _at_commit(wanted: Wanted, scratch: Path) -> Source:
    name, origin, branch = identity(wanted)
    repository = _Repository(wanted.git_url, scratch / "git")
    path, asked = _inside(wanted.workflow_path), wanted.commit_sha
    made = _git("init", "--quiet", "--bare", "--template=", str(repository.folder))
    if made.returncode:
        raise PlatformError("git can't make a repository", _told(made), "see that the disk has room")
    (repository.folder / "info").mkdir()
    (repository.folder / "info" / "attributes").write_text(AS_COMMITTED, encoding="utf-8")
    commit = _borrowed(repository, asked)
    if not commit and (branch or not asked):
        branch, head = _branch(repository, branch)
        asked = asked or head
    commit = commit or _borrowed(repository, asked) or _fetched(repository, asked, branch)
    return Source(_written(repository, commit, path, scratch / "files"), name, origin, commit, branch, path)


def _known(repository: _Repository, commit: str) -> str:
    """The full id of a commit that is here, else empty."""
    return repository.git("rev-parse", "--verify", "--quiet", f"{commit}^{{commit}}").stdout.strip()


def _borrowed(repository: _Repository, commit: str) -> str:
    """The full id of a commit that the job's checkout has, whose objects are then used from there; else empty."""
    workspace = github_actions.workspace()
    if not commit or not workspace or _origin(workspace) != repository.origin:
        return ""
    if _git(*_checkout(workspace), "config", "--get", "remote.origin.promisor").stdout:
        return ""  # a partial clone: it has the commit, but perhaps not its files
    objects = _git(*_checkout(workspace), "rev-parse", "--path-format=absolute", "--git-path", "objects").stdout
    alternates = repository.folder / "objects" / "info" / "alternates"
    alternates.write_text(objects, encoding="utf-8")
    found = _known(repository, commit)
    if not found:
        alternates.unlink()  # a checkout without history would be taken for one that has it
    return found


def _branch(repository: _Repository, name: str) -> tuple[str, str]:
    """A branch and its newest commit; the default branch when no name is given."""
    answer = repository.git("ls-remote", "--symref", "--", repository.url, "HEAD", "refs/heads/*", url=repository.url)
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
        depth = ["--depth=1"] if refspec == commit else []
        answer = repository.git(
            "fetch", "--quiet", "--no-tags", *depth, "--", repository.url, refspec, url=repository.url
        )
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
    kind, _, tree = repository.git(*batch, typed=f"{asked}\n").stdout.partition(" ")
    if kind == "symlink":
        raise _outside(path)
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
    answer = repository.git(f"--work-tree={folder}", "read-tree", "--reset", "-u", tree.strip())
    if answer.returncode:
        what = f"commit {commit} can't be written to the disk"
        raise PlatformError(what, _told(answer), "correct what git names, commit it, and register that")
    for link in filter(Path.is_symlink, sorted(folder.rglob("*"))):
        if not _resolved(str(link)).is_relative_to(folder.resolve()):
            place = os.fsencode(link.relative_to(folder)).decode(errors="replace")
            what, why = f"link {place} leads out of the workflow's folder", "only what is in the folder is registered"
            raise PlatformError(what, why, "put a copy of what it leads to in its place", file=place)
    return folder


def _unreadable(repository: _Repository, answer: Answer) -> PlatformError:
    return PlatformError(
        f"repository {repository.origin} can't be read",
        _told(answer),
        "correct --git-url, or give access: a credential helper of git, an SSH key, or the variable GITHUB_TOKEN",
    )


def _git(*arguments: str, typed: str = "", url: str = "") -> Answer:
    """Run git, without a terminal to ask on; `url` is that of the server it will talk to."""
    settings = [part for setting in SAFE for part in ("-c", setting)]
    try:
        process = subprocess.Popen(
            ["git", *settings, *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=_variables(url),
            encoding="utf-8",
            errors="replace",
            start_new_session=True,
        )
    except OSError as error:
        raise PlatformError("git does not run", str(error), "install git, and see that it is on PATH") from error
    with process, console.on_interrupt(lambda: _stop(process)):
        try:
            output, errors = process.communicate(typed, GIT_SECONDS)
        except subprocess.TimeoutExpired as error:
            why = f"{normalised(url)} is slow or does not answer" if url else ""
            raise PlatformError(f"git took longer than {GIT_SECONDS} s", why, "try again") from error
        finally:
            _stop(process)
    if process.returncode == -signal.SIGKILL:
        raise PlatformError("git was stopped before its end", todo="try again")
    return subprocess.CompletedProcess(arguments, process.returncode, output, errors)


def _stop(process: subprocess.Popen[str]) -> None:
    """End git and the programs it has started."""
    if process.poll() is None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)


def _variables(url: str) -> dict[str, str]:
    """The environment for git: how the user reaches servers, and the job's token if the URL is on GitHub."""
    variables = {
        name: value
        for name, value in process_environment({}).items()
        if not name.startswith("GIT_") or name.startswith(INHERITED)
    }
    variables |= {"GIT_TERMINAL_PROMPT": "0", "GIT_OPTIONAL_LOCKS": "0", "GIT_ALLOW_PROTOCOL": PROTOCOLS}
    host, token = normalised(url).partition("/")[0], github_actions.git_token()
    if token and url.startswith("https://") and host in _github_hosts():
        given = variables.get("GIT_CONFIG_COUNT", "")
        first = int(given) if given.isdecimal() else 0
        # The empty one takes away what the user's configuration says: two logins are refused.
        for number, header in enumerate(("", f"AUTHORIZATION: basic {_login(token)}"), first):
            variables[f"GIT_CONFIG_KEY_{number}"] = f"http.https://{host}/.extraheader"
            variables[f"GIT_CONFIG_VALUE_{number}"] = header
        variables["GIT_CONFIG_COUNT"] = str(first + 2)
    return variables


def _github_hosts() -> tuple[str, str]:
    # A company's own GitHub is where the job's checkout comes from.
    return "github.com", _origin(github_actions.workspace()).partition("/")[0]


def _login(token: str) -> str:
    return base64.b64encode(f"x-access-token:{token}".encode()).decode()


def _told(answer: Answer) -> str:
    """Git's last words, without secrets."""
    token, text = github_actions.git_token(), re.sub(r"://[^/@\s]*@", "://", answer.stderr)
    for secret in (token, _login(token)) if token else ():
        text = text.replace(secret, "***")
    return "\n".join([line for line in text.splitlines() if line.strip() and not line.startswith("hint:")][-5:])
