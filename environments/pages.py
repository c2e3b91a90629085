"""The pages of an environment: where a browser finds its Prefect project, its agent, its logs and its images.

Addresses of the AWS console hold region and names and no key; who opens them signs in to the account.
"""

import difflib
import os
import sys

from environments import console, settings
from environments.errors import PlatformError
from environments.secrets import key_file
from environments.settings import Environment

PROJECT = "prefect"


def project(environment: Environment) -> str:
    """The page of the Prefect project: its runs, its agents, its limit."""
    return f"{environment.prefect_page_url}/work-pools/work-pool/{environment.prefix}"


def of(environment: Environment) -> dict[str, str]:
    """All pages there are, by the name that `--what` takes; in local AWS has none."""
    prefect = {
        PROJECT: project(environment),
        "runs": f"{environment.prefect_page_url}/runs",
        "deployments": f"{environment.prefect_page_url}/deployments",
    }
    if environment.is_local:
        return prefect
    region, agent, workflows = environment.aws_region, environment.agent_name, f"{environment.prefix}_workflows"
    aws = f"https://{region}.console.aws.amazon.com"
    clusters, groups = f"{aws}/ecs/v2/clusters", f"{aws}/cloudwatch/home?region={region}#logsV2:log-groups/log-group"
    return {
        **prefect,
        "agent": f"{clusters}/{agent}/services/{agent}/health?region={region}",
        "workflows": f"{clusters}/{workflows}/tasks?region={region}",
        "agent-logs": f"{groups}/{agent}",
        "workflow-logs": f"{groups}/{workflows}",
        "agent-image": f"{aws}/ecr/repositories/private/{environment.aws_account_id}/{agent}?region={region}",
        "images": f"{aws}/ecr/private-registry/repositories?region={region}",
    }


def show(environment: Environment, what: str, browser: bool) -> None:
    """Print the pages, and open one of them in the browser of whoever sits at the terminal.

    Args:
        environment: whose pages.
        what: the name of the one to open.
        browser: open it; without, or where the output goes elsewhere, they are only printed.

    Raises:
        PlatformError: there is no page of that name.
    """
    pages = of(environment)
    if what not in pages:
        close = difflib.get_close_matches(what, pages, n=1)
        raise PlatformError(
            f"environment {environment.name} has no page {what!r}",
            (f"did you mean {close[0]}? " if close else "") + f"there are: {', '.join(pages)}",
            f"invoke open --env {environment.name} opens that of the Prefect project",
        )
    console.table(list(pages.items()))
    if environment.is_local:
        console.say("AWS is emulated on this machine: it has no console; invoke outputs and invoke logs tell of it")
        console.say(f"key for the page: cat {os.path.relpath(key_file(environment), settings.ROOT)}")
    else:
        console.say(f"the console is that of account {environment.aws_account_id}: sign in to it first")
    if browser and sys.stdout.isatty():
        _open(what, pages[what])


def _open(what: str, url: str) -> None:
    import webbrowser

    console.say(f"opening {what}" if webbrowser.open(url) else "no browser here; open one of these yourself", "bold")
