"""Starts the agent inside its container: a Prefect worker of type `ecs` on the environment's project.

`start_agent.py` first makes sure that the Prefect API answers and takes the key, so that a bad key or an unreachable
API ends the container with one clear line instead of a worker that retries in silence. Then it becomes the worker
(worker.py), with its health endpoint on. `start_agent.py --check` asks that endpoint, and Prefect until it shows the
agent online: it is the container's health check. Everything comes from environment variables that the task definition
sets; this file imports nothing that is not in the image.
"""

import base64
import json
import os
import sys
import tempfile
import time
import urllib.error
import urllib.request

HEALTH_URL = "http://127.0.0.1:8080/health"
UNREACHABLE_FOR_SECONDS = 60
ANSWER_WITHIN_SECONDS = 10
CHECK_WITHIN_SECONDS = 2
"""ECS gives the health check 5 s in all."""
SEEN_ONLINE = os.path.join(tempfile.gettempdir(), "seen_online")


def main() -> int:
    """Start the worker, or with --check tell whether it is healthy; gives the exit code."""
    if sys.argv[1:] == ["--check"]:
        return check()
    missing = [name for name in ("PREFECT_API_URL", "PREFECT_PROJECT") if not os.environ.get(name)]
    if missing:
        return stop(f"not set: {', '.join(missing)}. The task definition in infra/agent.tf sets them.")
    problem = access_problem(os.environ["PREFECT_API_URL"], os.environ["PREFECT_PROJECT"])
    if problem:
        return stop(problem)
    os.environ["PREFECT_WORKER_WEBSERVER_HOST"] = "127.0.0.1"
    print(f"agent {agent_name()} starts on project {os.environ['PREFECT_PROJECT']}", flush=True)
    # The worker takes this process over, so that signals reach it directly. Its modules stand beside this one; -P keeps
    # those out that somebody may put into the working folder.
    os.environ["PYTHONPATH"] = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    os.execvp("python", ["python", "-P", "-m", "agent.worker"])


def stop(why: str) -> int:
    """Say why the agent can't run; the line is what the task's log ends with."""
    print(f"agent stopped: {why}", file=sys.stderr, flush=True)
    return 1


def check() -> int:
    """0 when the worker has been seen online at Prefect, and its health endpoint says that it polled for runs lately.

    ECS stops the tasks before this one once it is healthy: not a moment before this one takes runs. Seen online once
    is enough, so that a Prefect that is down for a while does not make ECS replace an agent that waits for it.
    """
    try:
        with urllib.request.urlopen(HEALTH_URL, timeout=CHECK_WITHIN_SECONDS) as answer:
            polls = answer.status == 200
        if not polls or os.path.exists(SEEN_ONLINE):
            return 0 if polls else 1
        if not is_online():
            return 1
        with open(SEEN_ONLINE, "w", encoding="utf-8"):
            return 0
    except (OSError, ValueError, KeyError):
        return 1


def is_online() -> bool:
    """Whether Prefect shows this agent online."""
    request = urllib.request.Request(
        f"{os.environ['PREFECT_API_URL'].rstrip('/')}/work_pools/{os.environ['PREFECT_PROJECT']}/workers/filter",
        data=json.dumps({"workers": {"status": {"any_": ["ONLINE"]}}}).encode(),
        headers={**authorization(), "Content-Type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=CHECK_WITHIN_SECONDS) as answer:
        return any(worker["name"] == agent_name() for worker in json.load(answer))


def agent_name() -> str:
    """The name Prefect shows: the project's, with the id of the ECS task, so that agent and task are easy to match."""
    return f"{os.environ['PREFECT_PROJECT']}_{task_id()}"


def task_id() -> str:
    """Id of the ECS task this container belongs to.

    Source: https://docs.aws.amazon.com/AmazonECS/latest/developerguide/task-metadata-endpoint-v4-fargate.html
    """
    address = os.environ.get("ECS_CONTAINER_METADATA_URI_V4")
    if not address:
        return os.uname().nodename
    try:
        with urllib.request.urlopen(f"{address}/task", timeout=5) as answer:
            return str(json.load(answer)["TaskARN"]).rsplit("/", 1)[-1]
    except (OSError, ValueError, KeyError):
        return os.uname().nodename


def access_problem(api_url: str, project: str) -> str | None:
    """Try to read the project; None when the Prefect API answers and takes the key, else what to do about it.

    An API that doesn't answer is waited for: it may be starting, as this task is.
    """
    request = urllib.request.Request(f"{api_url.rstrip('/')}/work_pools/{project}", headers=authorization())
    deadline = time.monotonic() + UNREACHABLE_FOR_SECONDS
    while True:
        try:
            with urllib.request.urlopen(request, timeout=ANSWER_WITHIN_SECONDS):
                return None
        except urllib.error.HTTPError as error:
            if error.code in (401, 403):
                return f"Prefect at {api_url} does not accept the key ({error.code}). Set a good one and deploy again."
            if error.code == 404:
                return f"Prefect at {api_url} has no project {project}. invoke deploy creates it."
            reason = f"it answered {error.code} {error.reason}"
        except (OSError, ValueError) as error:
            reason = str(error)
        if time.monotonic() > deadline:
            return f"Prefect at {api_url} is out of reach: {reason}. Check prefect_api_url and the network."
        time.sleep(2)


def authorization() -> dict[str, str]:
    """The header by which Prefect Cloud (API key) or an own server (auth string) knows us."""
    if key := os.environ.get("PREFECT_API_KEY"):
        return {"Authorization": f"Bearer {key}"}
    if auth := os.environ.get("PREFECT_API_AUTH_STRING"):
        return {"Authorization": "Basic " + base64.b64encode(auth.encode()).decode()}
    return {}


if __name__ == "__main__":
    sys.exit(main())
