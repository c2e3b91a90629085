import hashlib
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from register_action.source import Wanted, locate
from unit_tests.register_action import repositories
from unit_tests.register_action.repositories import ORIGIN, Patch, Programs, checkout, commit, git, in_job, refused, url

# pytest finds fixtures by their names in the module.
etl, programs, scratch = repositories.etl, repositories.programs, repositories.scratch
no_git_variables = repositories.no_git_variables


# --- which commit


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


# --- its files


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


# --- the job's checkout


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
