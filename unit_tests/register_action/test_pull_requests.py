"""The open pull requests of GitHub, read from real HTTP servers."""

import json
from collections.abc import Iterator

import pytest

from environments import outages
from environments.errors import PlatformError
from functional_tests.github_api import FORK, GitHubApi, github_api, pull_request
from register_action.pull_requests import open_branches
from unit_tests.conftest import Server

TOKEN = "ghs_0123456789"
REPOSITORY = "github.com/acme/etl"
PULLS = "/repos/acme/etl/pulls?state=open&per_page=100"


@pytest.fixture(autouse=True)
def no_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outages, "PAUSE_SECONDS", 0.0)


@pytest.fixture(autouse=True)
def job(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GITHUB_TOKEN", TOKEN)


@pytest.fixture
def github(monkeypatch: pytest.MonkeyPatch) -> Iterator[GitHubApi]:
    with github_api("acme/etl", TOKEN) as api:
        monkeypatch.setenv("GITHUB_API_URL", api.url)
        yield api


@pytest.fixture
def server(http_server: Server, monkeypatch: pytest.MonkeyPatch) -> Server:
    """A server that answers whatever a test has prepared."""
    monkeypatch.setenv("GITHUB_API_URL", f"{http_server.url}/api/v3/")
    return http_server


def refused(repository: str = REPOSITORY) -> PlatformError:
    with pytest.raises(PlatformError) as caught:
        open_branches(repository)
    assert TOKEN not in str(caught.value)
    return caught.value


def test_branches_are_those_of_open_pull_requests(github: GitHubApi) -> None:
    github.pulls = [pull_request("fix/Typo"), pull_request("fix/Typo"), pull_request("ünï")]

    assert open_branches(REPOSITORY) == {"fix/Typo", "ünï"}
    assert github.requests == [PULLS]


def test_without_pull_requests_there_are_no_branches(github: GitHubApi) -> None:
    assert open_branches(REPOSITORY) == set()


def test_branches_of_forks_do_not_count(github: GitHubApi) -> None:
    github.pulls = [pull_request("main", FORK), pull_request("fix", FORK), pull_request("gone", None)]
    assert open_branches(REPOSITORY) == set()

    github.pulls += [pull_request("fix")]
    assert open_branches(REPOSITORY) == {"fix"}


@pytest.mark.parametrize(("count", "pages"), [(100, 1), (101, 2), (250, 3)])
def test_all_pages_are_read(github: GitHubApi, count: int, pages: int) -> None:
    github.pulls = [pull_request(f"branch-{number}") for number in range(count)]

    assert open_branches(REPOSITORY) == {f"branch-{number}" for number in range(count)}
    asked = [PULLS, *(f"{PULLS}&page={number}" for number in range(2, pages + 1))]
    assert github.requests == asked * (1 if pages == 1 else 2)


def test_pull_request_that_closes_between_two_pages_hides_no_other(github: GitHubApi) -> None:
    github.pulls = [pull_request(f"branch-{number}") for number in range(150)]

    def close_first() -> None:
        if len(github.requests) == 1:
            del github.pulls[0]

    github.answered = close_first
    branches = open_branches(REPOSITORY)

    assert len(github.pulls) == 149
    assert branches >= {pull["head"]["ref"] for pull in github.pulls}


@pytest.mark.parametrize("code", [401, 403, 404])
def test_refusal_names_the_permission(server: Server, code: int) -> None:
    server.answer(code, body=b'{"message": "Resource not accessible by integration"}')
    error = refused()

    assert error.what == "cannot read the open pull requests, so no preview was removed"
    assert error.why.endswith(f"/api/v3: it answered {code} (Resource not accessible by integration)")
    assert "`pull-requests: read`" in error.todo
    assert len(server.requests) == 1


def test_wrong_token_is_a_refusal(github: GitHubApi, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GITHUB_TOKEN", "ghs_other")

    assert "404 (Not Found)" in refused().why


@pytest.mark.parametrize(
    ("code", "header"),
    [(403, {"X-RateLimit-Remaining": "0"}), (403, {"Retry-After": "60"}), (429, dict[str, str]())],
)
def test_rate_limit_is_no_missing_permission(server: Server, code: int, header: dict[str, str]) -> None:
    server.answer(code)
    server.headers = {code: header}
    error = refused()

    assert error.why.endswith(f"it answered {code}: it limits the rate of requests")
    assert error.todo == "run the same command again later"


def test_trouble_that_passes_is_waited_for(server: Server) -> None:
    pulls = json.dumps([pull_request("fix")]).encode()
    server.answers = [(502, b"<html>"), (503, b"{}"), (200, b"[{"), (200, pulls)]

    assert open_branches(REPOSITORY) == {"fix"}
    assert len(server.requests) == 4


@pytest.mark.parametrize("code", [500, 502, 503])
def test_trouble_that_stays_is_an_error(server: Server, code: int) -> None:
    server.answer(code, body=b"<html>")
    error = refused()

    assert error.why.endswith(f"it answered {code}")
    assert error.todo == "run the same command again later"
    assert len(server.requests) == outages.ATTEMPTS


def test_server_that_is_away_is_an_error(server: Server) -> None:
    server.stop()

    assert "Connection refused" in refused().why


@pytest.mark.parametrize(
    "body", ["{}", "null", '"[]"', '{"message": "fine"}', "[1]", '[{"head": {"ref": "fix"}}]', '[{"head": null}]']
)
def test_answer_that_is_no_list_of_pull_requests_is_no_empty_list(server: Server, body: str) -> None:
    server.answer(200, body=body.encode())

    assert refused().why.endswith("its answer is not a list of pull requests")


def test_second_page_that_is_refused_spoils_the_first(server: Server) -> None:
    server.headers = {200: {"Link": f'<{server.url}/api/v3/repositories/1/pulls?page=2>; rel="next"'}}
    server.answers = [(200, json.dumps([pull_request("fix")]).encode()), (403, b"{}")]

    assert "it answered 403" in refused().why
    assert [path for _, path, _ in server.requests] == [f"/api/v3{PULLS}", "/api/v3/repositories/1/pulls?page=2"]


def test_token_goes_to_the_api_and_nowhere_else(server: Server, http_server: Server) -> None:
    elsewhere = Server()
    elsewhere.start()
    try:
        server.answer(200, body=b"[]")
        server.headers = {200: {"Link": f'<{elsewhere.url}/pulls>; rel="next"'}}
        assert elsewhere.url in refused().why
        assert elsewhere.requests == []

        server.answer(301)
        server.headers = {301: {"Location": f"{elsewhere.url}/repositories/1/pulls"}}
        elsewhere.answer(200, body=b"[]")
        assert open_branches(REPOSITORY) == set()
        assert "Authorization" not in elsewhere.requests[0][2]
    finally:
        elsewhere.httpd.shutdown()
        elsewhere.httpd.server_close()
    assert {headers["Authorization"] for _, _, headers in server.requests} == {f"Bearer {TOKEN}"}
    assert not [path for _, path, _ in server.requests if TOKEN in path]


def test_public_repository_needs_no_token(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("GITHUB_TOKEN")
    server.answer(200, body=b"[]")

    assert open_branches(REPOSITORY) == set()
    ((_, _, headers),) = server.requests
    assert "Authorization" not in headers
    assert headers["User-Agent"] == "dataflow-automation"


@pytest.mark.parametrize("token", [f"{TOKEN}\n{TOKEN}", f"{TOKEN}é"])
def test_token_that_is_none_is_neither_sent_nor_shown(
    server: Server, monkeypatch: pytest.MonkeyPatch, token: str
) -> None:
    monkeypatch.setenv("GITHUB_TOKEN", token)

    assert refused().why.endswith("GITHUB_TOKEN holds a character that no token has")
    assert server.requests == []


@pytest.mark.parametrize("url", ["file:///etc/passwd", "api.github.com", "ftp://127.0.0.1"])
def test_api_is_asked_by_http_only(monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    monkeypatch.setenv("GITHUB_API_URL", url)

    assert "GITHUB_API_URL" in refused().todo


@pytest.mark.parametrize(
    "repository", ["", "/srv/git/etl", "gitlab.com/acme/etl", "github.com/etl", "github.com/acme/team/etl"]
)
def test_repository_that_is_not_on_github_is_an_error(server: Server, repository: str) -> None:
    error = refused(repository)

    assert error.what.endswith("is no repository on github.com")
    assert "--git-url" in error.todo
    assert server.requests == []


def test_own_github_of_a_company_is_asked(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GITHUB_SERVER_URL", "https://GitHub.Acme.example:8443")
    server.answer(200, body=json.dumps([pull_request("fix")]).encode())

    assert open_branches("github.acme.example:8443/acme/etl") == {"fix"}
    assert refused().what == "github.com/acme/etl is no repository on github.acme.example:8443"
