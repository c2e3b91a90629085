import base64
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from environments.secrets import AGENT_TOKEN, REGISTER_TOKEN
from register_action.git import default_branch, normalised
from register_action.source import Wanted, locate
from unit_tests.register_action import repositories
from unit_tests.register_action.repositories import ORIGIN, Patch, Programs, checkout, git, in_job, refused, url

# pytest finds fixtures by their names in the module.
etl, programs, scratch = repositories.etl, repositories.programs, repositories.scratch
no_git_variables = repositories.no_git_variables
TOKEN = "ghs_TheTokenOfTheJob"
ENCODED = base64.b64encode(f"x-access-token:{TOKEN}".encode()).decode()


# --- names of repositories


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


# --- what has no say


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


def test_url_that_the_users_configuration_turns_into_a_program_is_not_followed(
    tmp_path: Path, scratch: Path, monkeypatch: Patch
) -> None:
    (tmp_path / "gitconfig").write_text(f'[url "ext::touch {tmp_path}/pwned "]\n\tinsteadOf = {ORIGIN}\n')
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", str(tmp_path / "gitconfig"))

    assert "'ext' not allowed" in refused(Wanted("workflow", ORIGIN), scratch).why
    assert not (tmp_path / "pwned").exists()


def test_default_branch_is_that_of_the_remote_as_the_clone_recorded_it(tmp_path: Path, etl: Path) -> None:
    git(etl, "branch", "--move", "trunk")
    workspace = checkout(tmp_path, etl)
    git(workspace, "checkout", "--quiet", "-b", "feature/x")

    assert default_branch(workspace) == "trunk"
    git(workspace, "remote", "set-head", "origin", "--delete")
    assert default_branch(workspace) == ""
    assert default_branch(tmp_path) == ""
    assert default_branch(None) == ""


# --- secrets


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
    monkeypatch.setattr("register_action.git.SECONDS", 0.5)
    programs.server = "sleep 60 & sleep 60"
    begin = time.monotonic()
    error = refused(Wanted("workflow", ORIGIN), scratch)

    assert "longer than 0.5 s" in error.what
    assert "github.com/acme/etl" in error.why
    assert time.monotonic() - begin < 10
