"""Which branches of a repository on GitHub have an open pull request, read from GitHub's REST API.

Sources: https://docs.github.com/en/rest/pulls/pulls#list-pull-requests (needs the permission "Pull requests", read),
https://docs.github.com/en/rest/using-the-rest-api/using-pagination-in-the-rest-api,
https://docs.github.com/en/rest/using-the-rest-api/troubleshooting-the-rest-api (status codes, User-Agent).
"""

import functools
import http.client
import json
import re
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from typing import Any

from environments import github_actions, outages
from environments.errors import PlatformError

PAGE = 100
"""Pull requests in one answer; GitHub gives no more."""
TIMEOUT_SECONDS = 20
HEADERS = {
    "Accept": "application/vnd.github+json",
    "User-Agent": "dataflow-automation",
    "X-GitHub-Api-Version": "2022-11-28",
}
NEXT = re.compile(r'<([^<>]*)>;[^<>]*\brel="next"')
"""The URL of the next page in the header Link."""
PERMISSION = (
    "give the job the permission `pull-requests: read`, or set GITHUB_TOKEN (input github_token of the action) to a "
    "token that may read the repository's pull requests"
)
LATER = "run the same command again later"
NO_LIST = "its answer is not a list of pull requests"


class AwayError(PlatformError):
    """GitHub did not answer, or answered that it has a problem of its own."""


def open_branches(repository: str) -> set[str]:
    """Read the names of the repository's own branches that have an open pull request.

    Branches of forks are left out, even those of the same name.

    Args:
        repository: `<host>/<owner>/<name>`, as `git.normalised` gives it.

    Raises:
        PlatformError: the repository is not on the job's GitHub, or GitHub did not give the complete list.
    """
    host, _, name = repository.partition("/")
    server, api = github_actions.server_host(), github_actions.api_url()
    if host != server or name.count("/") != 1:
        raise PlatformError(
            f"{repository or 'a folder without a remote repository'} is no repository on {server}",
            "only GitHub knows which branches have an open pull request",
            "add --git-url, for example https://github.com/<owner>/<repository>",
        )
    if not api.startswith(("https://", "http://")):
        raise _unreadable("this is no URL of an API", "set GITHUB_API_URL to https://api.github.com, or unset it")
    url = f"{api}/repos/{urllib.parse.quote(name)}/pulls?state=open&per_page={PAGE}"
    pages = list(_pages(url))
    if len(pages) > 1:
        # Pages are numbered: when a pull request closes between two requests, the later ones move up by one, and the
        # first of the next page is skipped. A second reading has it.
        pages += _pages(url)
    try:
        return {pull["head"]["ref"] for page in pages for pull in page if _is_own(pull)}
    except (KeyError, TypeError) as error:
        raise _unreadable(NO_LIST, LATER) from error


def _is_own(pull: dict[str, Any]) -> bool:
    """Whether the branch is in the repository that the pull request is for; a fork that was deleted is null."""
    head = pull["head"]["repo"]
    return bool(head and head["id"] == pull["base"]["repo"]["id"])


def _pages(url: str) -> Iterator[list[dict[str, Any]]]:
    while url:
        page, link = outages.repeated(functools.partial(_get, url), lambda error: isinstance(error, AwayError))
        if not isinstance(page, list):
            raise _unreadable(NO_LIST, LATER)
        yield page
        following = NEXT.search(link)
        url = following[1] if following else ""
        if url and not url.startswith(f"{github_actions.api_url()}/"):
            raise _unreadable(f"its next page is at {url}, where the token does not belong", LATER)


def _get(url: str) -> tuple[Any, str]:
    """Send one request; gives the answer and its header Link."""
    request = urllib.request.Request(url, headers=HEADERS)
    if token := github_actions.git_token():
        if not (token.isascii() and token.isprintable()):
            # The error of http.client would show it.
            raise _unreadable("GITHUB_TOKEN holds a character that no token has", PERMISSION)
        # Not sent on to where an answer redirects.
        request.add_unredirected_header("Authorization", f"Bearer {token}")
    try:
        with urllib.request.urlopen(request, timeout=TIMEOUT_SECONDS) as answer:
            return json.load(answer), answer.headers.get("Link", "")
    except urllib.error.HTTPError as error:
        raise _refused(error) from error
    except (OSError, ValueError, http.client.HTTPException) as error:
        raise _unreadable(f"{type(error).__name__}: {error}", LATER, AwayError) from error


def _refused(error: urllib.error.HTTPError) -> PlatformError:
    reason = f"it answered {error.code}{_message(error)}"
    limited = error.headers.get("Retry-After") or error.headers.get("X-RateLimit-Remaining") == "0"
    if error.code == outages.RATE_LIMITED or (error.code == 403 and limited):
        return _unreadable(f"{reason}: it limits the rate of requests", LATER)
    if error.code in (401, 403, 404):
        return _unreadable(reason, PERMISSION)
    return _unreadable(reason, LATER, AwayError if error.code >= 500 else PlatformError)


def _message(error: urllib.error.HTTPError) -> str:
    """What GitHub says about an error, in its own words."""
    try:
        return f" ({str(json.load(error)['message'])[:200]})"
    except (OSError, ValueError, KeyError, TypeError, http.client.HTTPException):
        return ""


def _unreadable(reason: str, todo: str, kind: type[PlatformError] = PlatformError) -> PlatformError:
    what = "cannot read the open pull requests, so no preview was removed"
    return kind(what, f"GitHub's API at {github_actions.api_url()}: {reason}", todo)
