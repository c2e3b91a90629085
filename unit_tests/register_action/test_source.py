import base64
import dataclasses
import hashlib
import os
import re
import shutil
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from environments.errors import PlatformError
from environments.secrets import AGENT_TOKEN, REGISTER_TOKEN
from register_action import source
from register_action.source import Wanted, identity, locate, normalised, slug

TOKEN = "ghs_TheTokenOfTheJob"
ENCODED = base64.b64encode(f"x-access-token:{TOKEN}".encode()).decode()
Patch = pytest.MonkeyPatch
AUTHOR = ("-c", "user.name=a", "-c", "user.email=a@example.org", "-c", "init.defaultBranch=main")
ORIGIN = "https://github.com/acme/etl.git"


def git(folder: Path, *arguments: str, typed: str = "") -> str:
    command = ["git", "-C", str(folder), *AUTHOR, *arguments]
    return subprocess.run(command, input=typed, capture_output=True, text=True, check=True).stdout.strip()


def commit(folder: Path, files: dict[str, str]) -> str:
    """Write files and commit them; gives the commit."""
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    git(folder, "add", "--all")
    git(folder, "commit", "--quiet", "--allow-empty", "-m", "change")
    return git(folder, "rev-parse", "HEAD")


@pytest.fixture(autouse=True)
def _outside_github(monkeypatch: Patch) -> None:
    for name in os.environ:
        if name.startswith(("GITHUB_", "GIT_")):
            monkeypatch.delenv(name)


@pytest.fixture
def scratch(tmp_path: Path) -> Path:
    folder = tmp_path / "scratch"
    folder.mkdir()
    return folder


@pytest.fixture
def etl(tmp_path: Path) -> Path:
    """A repository as a team has it: two commits, the folder `workflow` and a second branch."""
    folder = tmp_path / "etl-workflows"
    folder.mkdir()
    git(folder, "init", "--quiet")
    commit(folder, {"workflow/flow.py": "first", "README.md": "", "workflow/data/a.csv": "1"})
    git(folder, "branch", "feature/x")
    commit(folder, {"workflow/flow.py": "second"})
    return folder


def url(repository: Path) -> str:
    return f"file://{repository}"


def in_job(monkeypatch: Patch, workspace: Path) -> None:
    """Be a step of a job that has checked out there."""
    monkeypatch.setenv("GITHUB_ACTIONS", "true")
    monkeypatch.setenv("GITHUB_WORKSPACE", str(workspace))


def refused(wanted: Wanted, scratch: Path) -> PlatformError:
    with pytest.raises(PlatformError) as caught:
        locate(wanted, scratch)
    return caught.value


class Programs:
    """What was started, with arguments and environment; the network's part may be played."""

    def __init__(self) -> None:
        self.real = subprocess.Popen
        self.calls: list[tuple[list[str], dict[str, str]]] = []
        self.server = ""

    def __call__(self, command: list[str], **options: Any) -> Any:
        if options.get("env"):
            self.calls.append((command, options["env"]))
            if self.server and {"ls-remote", "fetch"} & set(command):
                command = ["sh", "-c", self.server]
        return self.real(command, **options)

    @property
    def talked(self) -> list[str]:
        """The commands that go over the network."""
        return [word for command, _ in self.calls for word in command if word in ("fetch", "ls-remote", "clone")]


@pytest.fixture
def programs(monkeypatch: Patch) -> Programs:
    """All programs that are started from here on."""
    started = Programs()
    monkeypatch.setattr(subprocess, "Popen", started)
    return started


# --- names and origins


@pytest.mark.parametrize(
    ("given_url", "expected"),
    [
        ("https://github.com/acme/etl", "github.com/acme/etl"),
        ("https://GitHub.com/Acme/etl.git/", "github.com/Acme/etl"),
        ("https://user:secret@github.com/acme/etl.git", "github.com/acme/etl"),
        ("https://user:se@cret@github.com//acme//etl.git", "github.com/acme/etl"),
        ("git@github.com:acme/etl.git", "github.com/acme/etl"),
        ("github.com:/acme/etl", "github.com/acme/etl"),
        ("ssh://git@Git.Example.org:2222/acme/etl", "git.example.org:2222/acme/etl"),
        ("git@[::1]:acme/etl", "[::1]/acme/etl"),
        ("https://acme@dev.azure.com/acme/data/_git/etl", "dev.azure.com/acme/data/_git/etl"),
        ("file:///srv/git/etl.git", "/srv/git/etl"),
        ("/srv/git/etl/.git", "/srv/git/etl"),
        ("../etl", ""),
        ("acme/etl", ""),
        ("https://github.com/", ""),
        ("ext::sh -c touch% pwned", ""),
        ("file://host/etl", ""),
        ("ssh://-oProxyCommand=x/etl", ""),
        ("-oProxyCommand=x:etl", ""),
        ("--upload-pack=touch pwned", ""),
        ("", ""),
    ],
)
def test_a_repository_has_one_name_for_all_its_urls(given_url: str, expected: str) -> None:
    assert normalised(given_url) == expected


@given(st.text() | st.from_regex(r"[a-z]{1,5}(://|:|::)[a-z:@/\[\]. -]*"))
def test_any_text_has_a_normal_form_without_scheme_and_user(text: str) -> None:
    found = normalised(text)

    assert "//" not in found
    assert not found.endswith("/")
    assert "@" not in found.partition("/")[0]


@given(st.text())
def test_slug_fits_ecr(name: str) -> None:
    assert re.fullmatch(r"[a-z0-9]+(?:_[a-z0-9]+)*_?", slug(name))
    assert len(slug(name)) <= 100


@pytest.mark.parametrize(
    ("git_url", "path", "expected"),
    [
        ("https://github.com/acme/etl-workflows.git", "workflow", "etl_workflows"),
        ("https://github.com/acme/etl", ".", "etl"),
        ("git@github.com:acme/etl", "./", "etl"),
        ("https://github.com/acme/etl", "examples/sample_workflow/workflow", "sample_workflow"),
        ("https://github.com/acme/etl", "src/Flows", "etl"),
        ("https://github.com/acme/flows", "src/workflow", "flows"),
        ("https://github.com/acme/etl", "a/../b", "b"),
    ],
)
def test_name_is_the_last_folder_that_tells_something(git_url: str, path: str, expected: str) -> None:
    assert identity(Wanted(path, git_url))[0] == expected


def test_given_name_wins(etl: Path) -> None:
    assert identity(Wanted(str(etl), name="Sales Report"))[0] == "sales_report"
    assert identity(Wanted("workflow", ORIGIN, name="Sales Report"))[0] == "sales_report"


def test_identity_of_a_url_needs_no_program(programs: Programs) -> None:
    assert identity(Wanted("./workflow/", ORIGIN, "feature/x", "0123456")) == (
        "etl",
        "github.com/acme/etl//workflow",
        "feature/x",
    )
    assert programs.calls == []


def test_identity_of_a_removed_folder_is_what_it_was(etl: Path, scratch: Path) -> None:
    git(etl, "remote", "add", "origin", ORIGIN)
    before = locate(Wanted(str(etl / "workflow")), scratch)
    shutil.rmtree(etl / "workflow")

    assert identity(Wanted(str(etl / "workflow"))) == (before.name, before.origin, before.branch)
    assert before.origin == "github.com/acme/etl//workflow"


def test_both_ways_to_a_folder_give_the_same_name_and_origin(etl: Path, scratch: Path) -> None:
    git(etl, "remote", "add", "origin", url(etl))
    here, there = locate(Wanted(str(etl / "workflow")), scratch), locate(Wanted("workflow", url(etl)), scratch)

    assert dataclasses.replace(here, folder=there.folder) == there


# --- the folder as it is


def test_folder_in_a_repository_without_remote(etl: Path, scratch: Path, monkeypatch: Patch) -> None:
    monkeypatch.chdir(etl / "workflow")
    found = locate(Wanted("."), scratch)

    assert found == source.Source(
        etl / "workflow", "etl_workflows", "", git(etl, "rev-parse", "HEAD"), "main", "workflow"
    )
    assert list(scratch.iterdir()) == []


@pytest.mark.parametrize(
    ("path", "name"), [("sales/workflow", "sales"), ("etl/sales", "sales"), ("flows/src", "flows")]
)
def test_folder_outside_git_needs_no_git(
    tmp_path: Path, scratch: Path, monkeypatch: Patch, path: str, name: str
) -> None:
    (tmp_path / path).mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", "")

    assert locate(Wanted(path), scratch) == source.Source(tmp_path / path, name, "", "", "", path)
    assert locate(Wanted(path, branch_name="b"), scratch).branch == "b"


def test_root_of_a_repository(etl: Path, scratch: Path) -> None:
    git(etl, "remote", "add", "origin", "git@github.com:acme/etl.git")
    found = locate(Wanted(str(etl)), scratch)

    assert (found.path, found.name, found.origin) == (".", "etl", "github.com/acme/etl//.")


def test_modified_untracked_and_deleted_files_mark_the_commit(etl: Path, scratch: Path) -> None:
    head = git(etl, "rev-parse", "HEAD")
    flow, new = etl / "workflow/flow.py", etl / "workflow/data/new.py"

    (etl / "README.md").write_text("not in the folder")
    assert locate(Wanted(str(etl / "workflow")), scratch).commit == head
    flow.write_text("third!")
    assert locate(Wanted(str(etl / "workflow")), scratch).commit == f"{head}-modified"
    git(etl, "add", "--all")
    assert locate(Wanted(str(etl / "workflow")), scratch).commit == f"{head}-modified"
    flow.write_text("second")
    new.write_text("untracked")
    git(etl, "reset", "--quiet")
    assert locate(Wanted(str(etl / "workflow")), scratch).commit == f"{head}-modified"
    new.unlink()
    assert locate(Wanted(str(etl / "workflow")), scratch).commit == head
    flow.unlink()
    assert locate(Wanted(str(etl / "workflow")), scratch).commit == f"{head}-modified"


def test_ignored_files_do_not_mark_the_commit(etl: Path, scratch: Path) -> None:
    head = commit(etl, {".gitignore": "*.pyc\n"})
    (etl / "workflow/flow.pyc").write_text("")

    assert locate(Wanted(str(etl / "workflow")), scratch).commit == head


def test_index_is_not_written(etl: Path, scratch: Path) -> None:
    os.utime(etl / "workflow/flow.py", (1, 1))  # git status would note this
    before = (etl / ".git/index").read_bytes()
    locate(Wanted(str(etl / "workflow")), scratch)

    assert (etl / ".git/index").read_bytes() == before


def test_detached_head_has_no_branch_unless_given(etl: Path, scratch: Path) -> None:
    git(etl, "checkout", "--quiet", "--detach")

    assert locate(Wanted(str(etl)), scratch).branch == ""
    assert locate(Wanted(str(etl), branch_name="refs/heads/main"), scratch).branch == "main"


def test_commit_that_is_not_checked_out_needs_a_url(etl: Path, scratch: Path, tmp_path: Path) -> None:
    head, first = git(etl, "rev-parse", "HEAD", "HEAD~").split()

    assert locate(Wanted(str(etl), commit_sha=head[:7].upper()), scratch).commit == head
    error = refused(Wanted(str(etl), commit_sha=first), scratch)
    assert first in error.what
    assert head in error.why
    assert "--git-url" in error.todo
    assert "no git repository" in refused(Wanted(str(tmp_path), commit_sha=first), scratch).why


def test_linked_worktree_and_repository_without_commits(etl: Path, scratch: Path, tmp_path: Path) -> None:
    git(etl, "remote", "add", "origin", ORIGIN)
    git(etl, "worktree", "add", "--quiet", str(tmp_path / "tree"), "feature/x")
    found = locate(Wanted(str(tmp_path / "tree/workflow")), scratch)
    (tmp_path / "new").mkdir()
    git(tmp_path / "new", "init", "--quiet")
    (tmp_path / "new/flow.py").write_text("")

    assert (found.name, found.branch, found.commit) == ("etl", "feature/x", git(etl, "rev-parse", "feature/x"))
    assert locate(Wanted(str(tmp_path / "new")), scratch).commit == ""


def test_missing_folder_and_file_are_told_apart(etl: Path, scratch: Path) -> None:
    assert "does not exist" in refused(Wanted(str(etl / "flows")), scratch).why
    assert "file" in refused(Wanted(str(etl / "README.md")), scratch).why
    assert "does not exist" in refused(Wanted("x" * 5000), scratch).why


def test_folder_outside_the_jobs_checkout_is_refused(
    etl: Path, scratch: Path, tmp_path: Path, monkeypatch: Patch
) -> None:
    (etl / "link").symlink_to(tmp_path)
    in_job(monkeypatch, etl)
    monkeypatch.chdir(etl)

    assert locate(Wanted("workflow"), scratch).folder == etl / "workflow"
    for path in (str(tmp_path), "..", "workflow/../../scratch", "link", f"{etl}2"):
        assert "outside the repository" in refused(Wanted(path), scratch).what


def test_symbolic_links_in_a_circle_are_no_folder(tmp_path: Path, scratch: Path) -> None:
    (tmp_path / "a").symlink_to(tmp_path / "b")
    (tmp_path / "b").symlink_to(tmp_path / "a")

    assert "no folder" in refused(Wanted(str(tmp_path / "a")), scratch).what
    assert identity(Wanted(str(tmp_path / "a")))[1:] == ("", "")


def test_current_directory_that_is_gone_is_said(tmp_path: Path, scratch: Path, monkeypatch: Patch) -> None:
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()

    assert "current directory" in refused(Wanted("workflow"), scratch).what


def test_broken_repository_is_said(etl: Path, scratch: Path) -> None:
    (etl / ".git/HEAD").write_text("nonsense")

    assert "can't read the repository" in refused(Wanted(str(etl)), scratch).what


# --- a commit of a repository


def test_commit_that_is_not_the_head_gives_that_commits_code(etl: Path, scratch: Path) -> None:
    first = git(etl, "rev-parse", "HEAD~")
    found = locate(Wanted("workflow", url(etl), commit_sha=first), scratch)

    assert (found.folder / "flow.py").read_text() == "first"
    assert (found.commit, found.path, found.branch) == (first, "workflow", "")
    assert sorted(file.name for file in found.folder.rglob("*")) == ["a.csv", "data", "flow.py"]
    assert found.folder.is_relative_to(scratch)
    assert found.origin == f"{etl}//workflow"


def test_without_commit_and_branch_it_is_the_default_branch(etl: Path, scratch: Path) -> None:
    found = locate(Wanted("workflow", url(etl)), scratch)

    assert (found.branch, found.commit) == ("main", git(etl, "rev-parse", "main"))
    assert (found.folder / "flow.py").read_text() == "second"


def test_head_on_no_branch_is_taken_too(etl: Path, scratch: Path) -> None:
    git(etl, "checkout", "--quiet", "--detach", "HEAD~")
    found = locate(Wanted("workflow", url(etl)), scratch)

    assert (found.branch, found.commit) == ("", git(etl, "rev-parse", "HEAD"))


@pytest.mark.parametrize("name", ["feature/x", "refs/heads/feature/x"])
def test_branch_gives_its_head(etl: Path, scratch: Path, name: str) -> None:
    found = locate(Wanted("workflow", url(etl), name), scratch)

    assert (found.branch, found.commit) == ("feature/x", git(etl, "rev-parse", "feature/x"))
    assert (found.folder / "flow.py").read_text() == "first"


def test_only_one_commit_is_fetched(etl: Path, scratch: Path) -> None:
    found = locate(Wanted("workflow", url(etl)), scratch)

    assert git(scratch, "--git-dir=git", "rev-list", found.commit).split() == [found.commit]


@pytest.mark.parametrize("branch", ["", "main"])
def test_short_commit_is_found_in_the_history(etl: Path, scratch: Path, branch: str) -> None:
    first = git(etl, "rev-parse", "HEAD~")
    found = locate(Wanted("workflow", url(etl), branch, first[:7]), scratch)

    assert (found.commit, found.branch) == (first, branch)
    assert (found.folder / "flow.py").read_text() == "first"


def test_short_commit_of_another_branch_is_found(etl: Path, scratch: Path) -> None:
    git(etl, "checkout", "--quiet", "feature/x")
    other = commit(etl, {"workflow/flow.py": "other"})

    assert locate(Wanted("workflow", url(etl), "main", other[:9]), scratch).commit == other


def test_short_commit_that_fits_two_is_refused(etl: Path, scratch: Path) -> None:
    tree, seen = git(etl, "rev-parse", "HEAD^{tree}"), dict[str, str]()
    for number in range(1_000_000):
        text = f"tree {tree}\nauthor a <a@a> {number} +0000\ncommitter a <a@a> {number} +0000\n\nx\n"
        short = hashlib.sha1(f"commit {len(text)}\0{text}".encode(), usedforsecurity=False).hexdigest()[:7]
        if short in seen:
            break
        seen[short] = text
    for name, content in (("one", seen[short]), ("two", text)):
        git(etl, "branch", name, git(etl, "hash-object", "-t", "commit", "-w", "--stdin", typed=content))

    assert "several" in refused(Wanted(".", url(etl), commit_sha=short), scratch).why


def test_server_that_gives_out_heads_only_is_asked_for_history(
    etl: Path, scratch: Path, programs: Programs, monkeypatch: Patch
) -> None:
    monkeypatch.setenv("GIT_CONFIG_COUNT", "1")
    monkeypatch.setenv("GIT_CONFIG_KEY_0", "protocol.version")
    monkeypatch.setenv("GIT_CONFIG_VALUE_0", "0")  # in the newer protocols git gives out everything
    second = git(etl, "rev-parse", "HEAD")
    commit(etl, {"workflow/flow.py": "third"})
    found = locate(Wanted("workflow", url(etl), commit_sha=second), scratch)

    assert (found.folder / "flow.py").read_text() == "second"
    assert programs.talked == ["fetch", "fetch"]


def test_unknown_branch_names_close_ones(etl: Path, scratch: Path) -> None:
    error = refused(Wanted("workflow", url(etl), "feature/y"), scratch)

    assert "no branch feature/y" in error.what
    assert "did you mean feature/x?" in error.why
    assert "feature/x, main" in refused(Wanted("workflow", url(etl), "zzz"), scratch / "b").why


def test_unknown_commit_is_said(etl: Path, scratch: Path) -> None:
    for number, sha in enumerate(("0123456", "f" * 40)):
        error = refused(Wanted("workflow", url(etl), "main", sha), scratch / str(number))
        assert f"no commit {sha}" in error.what
        assert "--commit-sha" in error.todo


@pytest.mark.parametrize("wanted", [{}, {"branch_name": "main"}, {"commit_sha": "f" * 40}, {"commit_sha": "f" * 8}])
def test_unknown_repository_is_said(tmp_path: Path, scratch: Path, wanted: dict[str, str]) -> None:
    error = refused(Wanted("workflow", url(tmp_path / "nothing"), **wanted), scratch)

    assert "can't be read" in error.what
    assert "does not appear to be a git repository" in error.why
    assert "GITHUB_TOKEN" in error.todo


def test_repository_without_commits_is_said(tmp_path: Path, scratch: Path) -> None:
    git(tmp_path, "init", "--quiet", "--bare", "empty")

    assert "no default branch" in refused(Wanted(".", url(tmp_path / "empty")), scratch).what


def test_folder_that_the_commit_lacks_is_said(etl: Path, scratch: Path) -> None:
    (etl / "later").mkdir()
    commit(etl, {"later/flow.py": ""})
    first = git(etl, "rev-parse", "HEAD~2")

    for number, (path, why) in enumerate(
        [("later", "no such folder"), ("README.md", "file"), ("README.md/x", "no such"), ("x tree 5", "no such")]
    ):
        error = refused(Wanted(path, url(etl), commit_sha=first), scratch / str(number))
        assert error.what == f"no folder {path} in commit {first}"
        assert why in error.why


def test_files_are_those_of_the_commit_whatever_attributes_say(etl: Path, scratch: Path, tmp_path: Path) -> None:
    attributes = "*.py export-ignore filter=evil\n*.csv text eol=crlf ident\n*.txt working-tree-encoding=UTF-16\n"
    commit(etl, {".gitattributes": attributes, "workflow/.gitattributes": attributes, "workflow/b.csv": "$Id$\n"})
    blob = git(etl, "hash-object", "-w", "--stdin", typed="plain")
    git(etl, "update-index", "--add", "--cacheinfo", f"100644,{blob},workflow/c.txt")
    git(etl, "commit", "--quiet", "-m", "more")
    config = tmp_path / "gitconfig"
    config.write_text(f'[filter "evil"]\n\tsmudge = touch {tmp_path}/pwned\n')
    with Patch.context() as patch:
        patch.setenv("GIT_CONFIG_GLOBAL", str(config))
        found = locate(Wanted("workflow", url(etl)), scratch)

    assert (found.folder / "flow.py").read_text() == "second"
    assert (found.folder / "b.csv").read_bytes() == b"$Id$\n"
    assert (found.folder / "c.txt").read_bytes() == b"plain"
    assert not (tmp_path / "pwned").exists()


def test_hooks_and_git_variables_of_the_surroundings_have_no_effect(
    etl: Path, scratch: Path, tmp_path: Path, monkeypatch: Patch
) -> None:
    head, hook = git(etl, "rev-parse", "HEAD"), tmp_path / "hooks/reference-transaction"
    hook.parent.mkdir()
    hook.write_text(f"#!/bin/sh\ntouch {tmp_path}/pwned\n")
    hook.chmod(0o755)
    (tmp_path / "gitconfig").write_text(f"[core]\n\thooksPath = {hook.parent}\n\tfsmonitor = {hook}\n")
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", str(tmp_path / "gitconfig"))
    monkeypatch.setenv("GIT_DIR", "/nonexistent")  # as in a hook that calls invoke register
    monkeypatch.setenv("GIT_INDEX_FILE", str(tmp_path / "index"))

    assert locate(Wanted("workflow", url(etl), commit_sha=head[:8]), scratch).commit == head
    assert locate(Wanted(str(etl / "workflow")), scratch).commit == head
    assert not (tmp_path / "pwned").exists()
    assert not (tmp_path / "index").exists()


def test_executable_files_and_links_inside_the_folder_stay(etl: Path, scratch: Path) -> None:
    (etl / "workflow/run.sh").write_text("")
    (etl / "workflow/run.sh").chmod(0o755)
    (etl / "workflow/link.py").symlink_to("flow.py")
    (etl / "current").symlink_to("workflow/data")
    commit(etl, {})
    found = locate(Wanted("workflow", url(etl)), scratch)

    assert os.access(found.folder / "run.sh", os.X_OK)
    assert (found.folder / "link.py").read_text() == "second"
    linked = locate(Wanted("current", url(etl)), scratch / "2")
    assert [file.name for file in linked.folder.iterdir()] == ["a.csv"]


# --- the job's checkout


def checkout(tmp_path: Path, etl: Path, *options: str, origin: str = ORIGIN) -> Path:
    workspace = tmp_path / "workspace"
    subprocess.run(["git", "clone", "--quiet", *options, url(etl), str(workspace)], check=True)
    git(workspace, "remote", "set-url", "origin", origin)
    return workspace


@pytest.mark.parametrize("options", [(), ("--depth=1",)])
@pytest.mark.parametrize("length", [40, 8])
def test_jobs_checkout_is_used_without_the_network(
    tmp_path: Path,
    etl: Path,
    scratch: Path,
    monkeypatch: Patch,
    programs: Programs,
    options: tuple[str, ...],
    length: int,
) -> None:
    workspace, head = checkout(tmp_path, etl, *options), git(etl, "rev-parse", "HEAD")
    shutil.rmtree(etl)
    (workspace / "workflow/flow.py").write_text("not committed")
    before = sorted((file, file.stat().st_mtime_ns) for file in workspace.rglob("*"))
    in_job(monkeypatch, workspace)
    found = locate(Wanted("workflow", "git@github.com:acme/etl", "deleted-branch", head[:length]), scratch)

    assert (found.folder / "flow.py").read_text() == "second"
    assert (found.commit, found.branch) == (head, "deleted-branch")
    assert found.folder.is_relative_to(scratch)
    assert programs.talked == []
    assert sorted((file, file.stat().st_mtime_ns) for file in workspace.rglob("*")) == before


def test_head_of_a_branch_that_the_checkout_has_is_not_fetched(
    tmp_path: Path, etl: Path, scratch: Path, monkeypatch: Patch, programs: Programs
) -> None:
    in_job(monkeypatch, checkout(tmp_path, etl, origin=url(etl)))

    assert locate(Wanted("workflow", url(etl)), scratch).branch == "main"
    assert programs.talked == ["ls-remote"]


@pytest.mark.parametrize("options", [("--depth=1",), ("--filter=blob:none", "--no-checkout")])
def test_checkout_that_lacks_the_files_is_no_hindrance(
    tmp_path: Path, etl: Path, scratch: Path, monkeypatch: Patch, options: tuple[str, ...]
) -> None:
    git(etl, "config", "uploadpack.allowFilter", "true")
    first = git(etl, "rev-parse", "HEAD~")
    in_job(monkeypatch, checkout(tmp_path, etl, *options, origin=url(etl)))
    for length in (40, 8):
        found = locate(Wanted("workflow", url(etl), commit_sha=first[:length]), scratch / str(length))
        assert (found.folder / "flow.py").read_text() == "first"


def test_checkout_of_another_repository_is_not_used(
    tmp_path: Path, etl: Path, scratch: Path, monkeypatch: Patch, programs: Programs
) -> None:
    in_job(monkeypatch, checkout(tmp_path, etl))
    locate(Wanted("workflow", url(etl), commit_sha=git(etl, "rev-parse", "HEAD")), scratch)

    assert programs.talked == ["fetch"]


def test_deleted_branch_is_an_error_where_there_is_no_checkout(etl: Path, scratch: Path) -> None:
    error = refused(Wanted("workflow", url(etl), "deleted", git(etl, "rev-parse", "HEAD")), scratch)

    assert "no branch deleted" in error.what


def test_checkout_of_another_user_works(tmp_path: Path, etl: Path, scratch: Path, monkeypatch: Patch) -> None:
    real, fake = shutil.which("git"), tmp_path / "bin/git"
    fake.parent.mkdir()
    fake.write_text(f'#!/bin/sh\nGIT_TEST_ASSUME_DIFFERENT_OWNER=1 exec {real} "$@"\n')
    fake.chmod(0o755)
    workspace, head = checkout(tmp_path, etl), git(etl, "rev-parse", "HEAD")
    in_job(monkeypatch, workspace)
    monkeypatch.setenv("PATH", f"{fake.parent}:{os.environ['PATH']}")
    distrusted = subprocess.run(["git", "-C", str(workspace), "status"], capture_output=True, text=True, check=False)

    assert "dubious ownership" in distrusted.stderr
    assert locate(Wanted(str(workspace / "workflow")), scratch).commit == head
    assert locate(Wanted("workflow", ORIGIN, commit_sha=head), scratch).commit == head


# --- hostile input


@pytest.mark.parametrize(
    "hostile",
    [
        "ext::sh -c touch% pwned",
        "--upload-pack=touch pwned",
        "-oProxyCommand=touch:x",
        "ssh://-oProxyCommand=touch/x",
        "fd::17",
        "ftp://example.org/x",
        "https:///x",
        "https://[::1/x",
        "https://example.org:port/x",
        "acme/etl",
        "\0",
        "https://example.org/x\n",
        "https://example.org/\udc80",
    ],
)
def test_hostile_url_reaches_no_program(hostile: str, scratch: Path, programs: Programs) -> None:
    for ask in (lambda wanted: locate(wanted, scratch), identity):
        with pytest.raises(PlatformError):
            ask(Wanted("workflow", hostile))
    assert programs.calls == []


def test_url_that_the_users_configuration_turns_into_a_program_is_not_followed(
    tmp_path: Path, scratch: Path, monkeypatch: Patch
) -> None:
    (tmp_path / "gitconfig").write_text(f'[url "ext::touch {tmp_path}/pwned "]\n\tinsteadOf = {ORIGIN}\n')
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", str(tmp_path / "gitconfig"))

    assert "'ext' not allowed" in refused(Wanted("workflow", ORIGIN), scratch).why
    assert not (tmp_path / "pwned").exists()


@pytest.mark.parametrize(
    "branch", ["-x", "--upload-pack=x", "a:b", "*", "a b", "a..b", "+a:refs/heads/b", "@{-1}", "\0"]
)
def test_hostile_branch_reaches_no_program(etl: Path, scratch: Path, programs: Programs, branch: str) -> None:
    for wanted in (Wanted("workflow", url(etl), branch), Wanted(str(etl), branch_name=branch)):
        refused(wanted, scratch)
    assert programs.calls == []


@pytest.mark.parametrize("sha", ["-x", "HEAD", "main", "abc", "g" * 40, "a" * 41, "abcdef1^", "\0" * 7, "٣" * 8])
def test_what_is_no_commit_reaches_no_program(etl: Path, scratch: Path, programs: Programs, sha: str) -> None:
    refused(Wanted("workflow", url(etl), commit_sha=sha), scratch)
    assert programs.calls == []


@pytest.mark.parametrize("path", ["..", "../..", "workflow/../../x", "/", "/etc", "//etc"])
def test_path_out_of_the_repository_is_refused(etl: Path, scratch: Path, path: str) -> None:
    assert "outside the repository" in refused(Wanted(path, url(etl)), scratch).what
    with pytest.raises(PlatformError, match="outside the repository"):
        identity(Wanted(path, url(etl)))


def test_link_out_of_the_repository_is_refused(etl: Path, scratch: Path) -> None:
    (etl / "up").symlink_to("..")
    (etl / "etc").symlink_to("/etc")
    (etl / "circle").symlink_to("circle")
    commit(etl, {})

    for path in ("up", "etc", "up/etl-workflows"):
        assert "outside the repository" in refused(Wanted(path, url(etl)), scratch / path).what
    assert "no such folder" in refused(Wanted("circle", url(etl)), scratch / "circle").why


@pytest.mark.parametrize("target", ["/etc/passwd", "../../README.md", "../../../../../../etc"])
def test_link_out_of_the_folder_is_refused_with_its_place(etl: Path, scratch: Path, target: str) -> None:
    (etl / "workflow/data/link").symlink_to(target)
    commit(etl, {})
    error = refused(Wanted("workflow", url(etl)), scratch)

    assert "leads out" in error.what
    assert error.file == "data/link"


@pytest.mark.parametrize("name", ["..", ".git", ".GIT"])
def test_commit_can_not_write_elsewhere(etl: Path, scratch: Path, tmp_path: Path, name: str) -> None:
    blob = git(etl, "hash-object", "-w", "--stdin", typed="pwned")
    inner = git(etl, "mktree", typed=f"100644 blob {blob}\tpwned\n")
    outer = git(etl, "mktree", typed=f"040000 tree {inner}\t{name}\n")
    git(etl, "branch", "evil", git(etl, "commit-tree", outer, "-m", "evil"))
    error = refused(Wanted(".", url(etl), "evil"), scratch)

    assert "can't be written" in error.what
    assert "invalid path" in error.why
    assert list(tmp_path.rglob("pwned")) == []


@given(st.lists(st.text(max_size=12), min_size=5, max_size=5))
def test_no_text_makes_a_traceback(values: list[str]) -> None:
    wanted = Wanted(values[0], values[1] and f"file:///nonexistent/{values[1]}", *values[2:])
    try:
        name, origin, branch = identity(wanted)
    except PlatformError:
        return
    assert slug(name) == name
    assert origin.startswith("/nonexistent") or not wanted.git_url
    assert not branch.startswith("-")


# --- secrets


@pytest.mark.parametrize(
    "secret",
    [
        "https://user:hunter2@github.com/acme/etl",
        "https://user:hun/ter2@github.com/acme/etl",
        "https://ghp_hunter2@github.com/acme/etl",
        "ssh://git:hunter2@github.com/acme/etl",
        "git:hunter2@github.com/acme/etl",
    ],
)
def test_password_in_the_url_is_refused_and_not_repeated(scratch: Path, programs: Programs, secret: str) -> None:
    error = refused(Wanted("workflow", secret), scratch)

    assert "--git-url" in error.what
    assert "ter2" not in str(error)
    assert programs.calls == []


def test_token_goes_to_github_in_the_environment_only(
    tmp_path: Path, etl: Path, scratch: Path, monkeypatch: Patch, programs: Programs
) -> None:
    monkeypatch.setenv("GITHUB_TOKEN", TOKEN)
    monkeypatch.setenv("GIT_CONFIG_COUNT", "1")
    monkeypatch.setenv("GIT_CONFIG_KEY_0", "http.lowSpeedTime")
    monkeypatch.setenv("GIT_CONFIG_VALUE_0", "9")
    monkeypatch.setenv("GIT_TRACE_CURL", "1")
    in_job(monkeypatch, checkout(tmp_path, etl, origin="https://git.acme.org:8443/team/etl"))
    programs.server = f"echo fatal: {TOKEN} {ENCODED} https://me:hunter2@x is wrong >&2; exit 128"
    error = refused(Wanted("workflow", "https://git.acme.org:8443/team/other"), scratch)
    (environment,) = (environment for command, environment in programs.calls if "ls-remote" in command)

    assert error.why == "fatal: *** *** https://x is wrong"
    assert not [word for command, _ in programs.calls for word in command if TOKEN in word or ENCODED in word]
    assert environment["GIT_CONFIG_COUNT"] == "3"
    assert environment["GIT_CONFIG_KEY_0"] == "http.lowSpeedTime"
    assert environment["GIT_CONFIG_KEY_1"] == "http.https://git.acme.org:8443/.extraheader"
    assert environment["GIT_CONFIG_KEY_2"] == environment["GIT_CONFIG_KEY_1"]
    assert environment["GIT_CONFIG_VALUE_1"] == ""
    assert environment["GIT_CONFIG_VALUE_2"] == f"AUTHORIZATION: basic {ENCODED}"
    assert environment["GIT_TERMINAL_PROMPT"] == "0"
    assert "--" in next(command for command, _ in programs.calls if "ls-remote" in command)
    assert "GIT_TRACE_CURL" not in environment


@pytest.mark.parametrize(
    ("git_url", "sent"),
    [
        ("https://github.com/acme/etl", True),
        ("https://GitHub.com/acme/etl", True),
        ("http://github.com/acme/etl", False),
        ("https://github.com.evil.org/acme/etl", False),
        ("https://github.com@evil.org/acme/etl", False),
        ("https://github.com:8443/acme/etl", False),
        ("git@github.com:acme/etl", False),
    ],
)
def test_only_github_over_https_gets_the_token(
    scratch: Path, monkeypatch: Patch, programs: Programs, git_url: str, sent: bool
) -> None:
    monkeypatch.setenv("GITHUB_TOKEN", TOKEN)
    programs.server = "exit 128"
    refused(Wanted("workflow", git_url), scratch)

    assert any(ENCODED in value for _, environment in programs.calls for value in environment.values()) is sent
    assert [command for command, environment in programs.calls if "GIT_CONFIG_COUNT" in environment] == [
        command for command, _ in programs.calls if sent and "ls-remote" in command
    ]


def test_git_does_not_get_the_prefect_keys(etl: Path, scratch: Path, monkeypatch: Patch, programs: Programs) -> None:
    for name in (AGENT_TOKEN, REGISTER_TOKEN):
        monkeypatch.setenv(name, "hunter2")
    locate(Wanted("workflow", url(etl)), scratch)

    assert programs.talked == ["ls-remote", "fetch"]
    assert not [1 for _, environment in programs.calls if "hunter2" in environment.values()]


# --- git itself


def test_git_that_was_stopped_is_not_started_again(scratch: Path, programs: Programs) -> None:
    programs.server = "kill -9 $$"

    assert "stopped" in refused(Wanted("workflow", ORIGIN, commit_sha="f" * 40), scratch).what
    assert programs.talked == ["fetch"]


def test_missing_git_is_said(etl: Path, scratch: Path, monkeypatch: Patch) -> None:
    monkeypatch.setenv("PATH", "")

    for wanted in (Wanted(str(etl)), Wanted("workflow", url(etl))):
        error = refused(wanted, scratch)
        assert error.what == "git does not run"
        assert "install git" in error.todo


def test_server_that_does_not_answer_is_said(scratch: Path, monkeypatch: Patch, programs: Programs) -> None:
    monkeypatch.setattr(source, "GIT_SECONDS", 0.5)
    programs.server = "sleep 60 & sleep 60"
    begin = time.monotonic()
    error = refused(Wanted("workflow", ORIGIN), scratch)

    assert "longer than 0.5 s" in error.what
    assert "github.com/acme/etl" in error.why
    assert time.monotonic() - begin < 10
