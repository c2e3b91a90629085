"""Runs git so that neither a repository nor the surroundings have a say in it, and names repositories by their URLs.

How git reaches servers is the user's own choice, except that the job's token goes to GitHub, in the environment only.

Sources: https://git-scm.com/docs/git#_environment_variables, https://git-scm.com/docs/git-config (http.*).
"""

import base64
import contextlib
import os
import re
import signal
import subprocess
from pathlib import Path

from environments import github_actions, leftovers, progress
from environments.errors import PlatformError
from environments.secrets import process_environment

Answer = subprocess.CompletedProcess[str]
SECONDS = 300
SAFE = ("core.hooksPath=/dev/null", "core.fsmonitor=false", "submodule.recurse=false", "maintenance.auto=false")
"""Without these, git may run programs that a repository names, or go on in the background."""
INHERITED = ("GIT_SSH", "GIT_SSL", "GIT_HTTP", "GIT_PROXY", "GIT_ASKPASS", "GIT_CONFIG_", "GIT_EXEC_PATH")
"""How git reaches servers is the user's; the other GIT_* variables, a hook's for example, lead it astray."""
PROTOCOLS = "https:http:ssh:git:file"
"""Others, ext:: above all, run programs that the URL names."""
HOST = r"(?:[A-Za-z0-9_][A-Za-z0-9_.-]*|\[[0-9A-Fa-f:.]+\])"
URL = re.compile(rf"(?:https?|ssh|git)://(?:(?P<user>[^/]*)@)?(?P<host>{HOST}(?::[0-9]+)?)/(?P<path>.+)")
SCP_URL = re.compile(rf"(?!.*://)(?:(?P<user>[A-Za-z0-9_][^/@:]*)@)?(?P<host>{HOST}):(?!:)(?P<path>[^@]+)")
FILE_URL = re.compile(r"(?:file://)?(?P<user>)(?P<host>)(?P<path>/.+)")
SECRET_USER = re.compile(r".*:|gh[a-z]_|github_pat_|glpat-")


def normalised(url: str) -> str:
    """A repository as host/owner/name, the same for all its URLs; empty for what is no URL of a git repository."""
    found = URL.fullmatch(url) or SCP_URL.fullmatch(url) or FILE_URL.fullmatch(url)
    path = re.sub("/+", "/", found["path"]).strip("/").removesuffix(".git").rstrip("/") if found else ""
    return f"{found['host'].lower()}/{path}" if found and path else ""


def holds_secret(url: str) -> bool:
    """Whether a URL has a password or a token in it."""
    found = URL.fullmatch(url)
    return bool(found and SECRET_USER.match(found["user"] or ""))


def checkout(top: Path) -> tuple[str, str]:
    """The options by which `run` works on a checkout, given by its top folder."""
    # Named like this its owner does not matter: in a job's container it is often another user.
    return f"--git-dir={top / '.git'}", f"--work-tree={top}"


def origin(top: Path | None) -> str:
    """Where a checkout comes from, as `normalised` gives it; empty without one, or without a remote `origin`."""
    return normalised(run(*checkout(top), "config", "--get", "remote.origin.url").stdout.strip()) if top else ""


def default_branch(top: Path | None) -> str:
    """The default branch of a checkout's remote `origin`, as the clone recorded it; empty where nothing records it."""
    found = run(*checkout(top), "symbolic-ref", "--short", "refs/remotes/origin/HEAD").stdout.strip() if top else ""
    return found.removeprefix("origin/")


def run(*arguments: str, typed: str = "", url: str = "") -> Answer:
    """Run git, without a terminal to ask on.

    Args:
        arguments: git's own; no secret, and nothing of the user's that could be taken for an option.
        typed: what git reads from its standard input.
        url: that of the server it will talk to.

    Returns:
        What it printed and its exit code, whatever that is.

    Raises:
        PlatformError: git is missing, takes too long or was stopped.
    """
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
    with process, progress.on_interrupt(lambda: _stop(process)):
        try:
            output, errors = process.communicate(typed, SECONDS)
        except subprocess.TimeoutExpired as error:
            why = f"{normalised(url)} is slow or does not answer" if url else ""
            raise PlatformError(f"git took longer than {SECONDS} s", why, "try again") from error
        finally:
            _stop(process)
    if process.returncode == -signal.SIGKILL:
        raise PlatformError("git was stopped before its end", todo="try again")
    return subprocess.CompletedProcess(arguments, process.returncode, output, errors)


def told(answer: Answer) -> str:
    """Git's last words, without secrets."""
    token, text = github_actions.git_token(), re.sub(r"://[^/@\s]*@", "://", answer.stderr)
    for secret in (token, _login(token)) if token else ():
        text = text.replace(secret, "***")
    return "\n".join([line for line in text.splitlines() if line.strip() and not line.startswith("hint:")][-5:])


def _stop(process: subprocess.Popen[str]) -> None:
    """End git and the programs it has started."""
    if process.poll() is None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)


def _variables(url: str) -> dict[str, str]:
    """The environment for git: how the user reaches servers, and the job's token if the URL is on GitHub."""
    variables = {
        name: value
        for name, value in process_environment(leftovers.label()).items()
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
    return "github.com", origin(github_actions.workspace()).partition("/")[0]


def _login(token: str) -> str:
    return base64.b64encode(f"x-access-token:{token}".encode()).decode()
