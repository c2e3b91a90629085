"""GitHub's REST API for tests, as far as this project asks it: open pull requests and environments of one repository.

Sources: https://docs.github.com/en/rest/pulls/pulls#list-pull-requests,
https://docs.github.com/en/rest/deployments/environments#get-an-environment
"""

import json
import threading
import urllib.parse
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

LARGEST_PAGE = 100
SMALL_PAGE = 30
"""Entries of a page when the request does not say how many."""
REVIEWED = [{"id": 3515, "type": "required_reviewers", "reviewers": [{"type": "User"}]}, {"type": "branch_policy"}]
"""Protection rules of an environment that is set up."""
OWN, FORK = 1, 2
"""Ids of the repository and of a fork of it."""


def pull_request(branch: str, head: int | None = OWN) -> dict[str, Any]:
    """An open pull request of a branch in the repository with that id; None for a fork that was deleted."""
    return {"head": {"ref": branch, "repo": head and {"id": head}}, "base": {"ref": "main", "repo": {"id": OWN}}}


class GitHubApi:
    """A private repository's environments and, page by page, open pull requests, for whoever has the token.

    Attributes:
        url: of the API.
        environments: protection rules by environment.
        pulls: the open pull requests.
        requests: the paths that were asked for, with their queries.
        answered: called after each page.
    """

    def __init__(self, repository: str, token: str) -> None:
        self.environments: dict[str, list[dict[str, Any]]] = {}
        self.pulls: list[dict[str, Any]] = []
        self.requests: list[str] = []
        self.answered: Callable[[], None] = lambda: None
        api = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                api.requests.append(self.path)
                path, _, query = self.path.partition("?")
                known = self.headers["Authorization"] == f"Bearer {token}" and path.startswith(f"/repos/{repository}/")
                body, link = api.found(path.removeprefix(f"/repos/{repository}/"), query) if known else (None, "")
                self.send_response(404 if body is None else 200)
                if link:
                    self.send_header("Link", f"<{api.url}{path}?{link}")
                self.end_headers()
                self.wfile.write(json.dumps({"message": "Not Found"} if body is None else body).encode())
                api.answered()

            def log_message(self, *_: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"

    def found(self, path: str, query: str) -> tuple[Any, str]:
        """What is at a path of the repository, None for nothing, and where the next page of it is."""
        if path == "pulls":
            return self.page(query)
        folder, _, name = path.partition("/")
        if folder == "environments" and name in self.environments:
            return {"name": name, "protection_rules": self.environments[name]}, ""
        return None, ""

    def page(self, query: str) -> tuple[list[dict[str, Any]], str]:
        """The pull requests of a page, and where the next one is."""
        asked = dict(urllib.parse.parse_qsl(query))
        if asked.get("state", "open") != "open":
            raise ValueError(f"not played here: {query}")
        size, number = min(int(asked.get("per_page", SMALL_PAGE)), LARGEST_PAGE), int(asked.get("page", 1))
        end = number * size
        following = urllib.parse.urlencode({**asked, "page": number + 1})
        link = f'{following}>; rel="next"' if end < len(self.pulls) else ""
        return self.pulls[end - size : end], link


@contextmanager
def github_api(repository: str, token: str) -> Iterator[GitHubApi]:
    """Serve `<owner>/<name>` at a free port of 127.0.0.1."""
    api = GitHubApi(repository, token)
    serving = threading.Thread(target=api.server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    serving.start()
    try:
        yield api
    finally:
        api.server.shutdown()
        api.server.server_close()
