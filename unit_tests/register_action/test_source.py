import dataclasses
import os
import shutil
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from environments.errors import PlatformError
from environments.names import slug
from register_action.source import Source, Wanted, identity, locate
from unit_tests.register_action import repositories
from unit_tests.register_action.repositories import ORIGIN, Patch, Programs, commit, git, in_job, refused, url

# pytest finds fixtures by their names in the module.
etl, programs, scratch = repositories.etl, repositories.programs, repositories.scratch
no_git_variables = repositories.no_git_variables


# --- names and origins


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

    assert found == Source(etl / "workflow", "etl_workflows", "", git(etl, "rev-parse", "HEAD"), "main", "workflow")
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

    assert locate(Wanted(path), scratch) == Source(tmp_path / path, name, "", "", "", path)
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


# --- values that can't be right


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
