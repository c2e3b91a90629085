"""The tasks of the platform. Each is a table of contents; the work is in the components.

invoke deploy                  everything, on this machine
invoke deploy --env dev        everything, on AWS
"""

from invoke.context import Context
from invoke.tasks import task

from environments.console import Step, command, confirm, say, steps, table
from environments.settings import load

ENV = "environment: local (this machine), dev, test, prod, or any other environments/<env>.tfvars"
WORKFLOW = {
    "workflow-path": "folder with the workflow; with --git-url its path in that repository",
    "git-url": "take the folder from this repository, and exactly one commit of it",
    "branch-name": "branch of the repository, for its newest commit and for the names of previews",
    "name": "name of the workflow, if not that of its folder or repository",
}
SIZE = {
    "execution-environment": "ecs_fargate, or ecs_fargate_spot (cheap, interruptible)",
    "cpu": "CPU units, 1024 is one vCPU",
    "memory": "MiB",
}


@task(help={"env": ENV})
@command
def deploy(_: Context, env: str = "local") -> None:
    """Bring an environment up, or to what its settings say; run twice, the second run changes nothing."""
    from agent import image, key, project, rollout, summary
    from environments import local_stack
    from infra import checks, images, state, terraform

    environment = load(env)
    tag = image.name(environment).tag
    repository = Step("ECR repository")
    with steps() as run:
        checked = run("Checks", checks.require, environment)
        ready = (
            run("Local servers", local_stack.start, environment, after=(checked,)) if environment.is_local else checked
        )
        built = run("Agent image", image.build, environment, after=(checked,))
        bucket = run("State bucket", state.ensure_bucket, environment, after=(ready,))
        applied = run(
            "AWS infrastructure",
            terraform.apply,
            environment,
            tag,
            repository.done.set,
            after=(bucket,),
            milestone=repository,
        )
        pushed = run("Agent image to ECR", images.push, environment, built, after=(repository,))
        stored = run("Prefect key", key.store, environment, applied)
        made = run("Prefect project", project.ensure, environment, applied, pushed)
        run("Agent", rollout.roll_out, environment, applied, stored, after=(pushed, made))
    summary.show(environment, image.name(environment), run.steps)


@task(help={"env": ENV})
@command
def plan(_: Context, env: str = "local") -> int:
    """Show what deploy would change on AWS; exit code 0 for nothing, 2 for something."""
    from agent import image
    from environments import local_stack
    from infra import checks, terraform

    environment = load(env)
    checks.require(environment)
    if environment.is_local:
        local_stack.start(environment)
    return terraform.plan(environment, image.name(environment).tag)


@task(help={"env": ENV, "yes": "don't ask"})
@command
def destroy(_: Context, env: str = "local", yes: bool = False) -> None:
    """Remove an environment: agent, project, images, logs, network, state; in local its servers and data too."""
    from agent import teardown
    from environments import local_stack

    environment = load(env)
    confirm(f"Everything of environment {env} goes, its workflows' images and logs included.", yes)
    with steps() as run:
        gone = run("Agent, project and AWS infrastructure", teardown.destroy, environment)
        if environment.is_local:
            run("Local servers and data", local_stack.remove, environment, after=(gone,))
    say(f"environment {env} is gone; invoke deploy --env {env} makes it again", "bold")


@task(
    help={
        "env": ENV,
        **WORKFLOW,
        **SIZE,
        "commit-sha": "commit of the repository",
        "flow": "register only this flow of the folder; may be repeated",
        "preview": "beside the real ones: unscheduled deployments <flow>/<env>-<branch>",
        "prune": "delete the deployments of flows that are gone from the folder; without, they are paused",
        "dry-run": "check everything and show what would be done",
        "json": "for scripts",
    },
    iterable=["flow"],
    positional=[],
)
@command
def register(
    _: Context,
    workflow_path: str = "",
    env: str = "local",
    git_url: str = "",
    branch_name: str = "",
    commit_sha: str = "",
    name: str = "",
    execution_environment: str = "",
    cpu: str = "",
    memory: str = "",
    flow: list[str] | None = None,
    preview: bool = False,
    prune: bool = False,
    dry_run: bool = False,
    json: bool = False,
) -> None:
    """Hand over a workflow: build its image, push it, and create a deployment for each of its flows."""
    from environments import local_stack
    from environments.console import scratch_folder
    from register_action import changes, deployments, removal, report, source, workflow, workflow_image

    choice = workflow.choose(flow or [], execution_environment, cpu, memory, preview)
    wanted = source.Wanted(workflow_path, git_url, branch_name, commit_sha, name)
    environment = local_stack.require_running(load(env))
    with scratch_folder() as scratch, steps(stderr=json) as run:
        located = run("Source", source.locate, wanted, scratch)
        read = run("Flows", workflow.read, environment, located, choice)
        project = run("Prefect project", changes.project_of, environment, read)
        content = run("Image content", workflow_image.content, environment, read, project)
        if not dry_run:
            built = run("Workflow image", workflow_image.build, environment, read, project, content)
            flows = run("Parameters", workflow_image.describe, environment, read, project, built)
            pushed = run("Workflow image to ECR", workflow_image.push, environment, built, after=(flows,))
            done = run("Deployments", deployments.register, environment, read, project, pushed, flows, prune)
            if preview:
                run("Superseded images", removal.superseded, environment, read, done)
    if dry_run:
        foreseen = changes.foresee(environment, read.result, project.result, content.result.image, prune)
        report.show_plan(environment, read.result, content.result.image, foreseen, json)
    else:
        report.show(environment, read.result, pushed.result, done.result, json)


@task(
    help={
        "env": ENV,
        **WORKFLOW,
        "preview": "only the previews of a branch, with their images",
        "yes": "don't ask",
        "dry-run": "show what would go",
    }
)
@command
def unregister(
    _: Context,
    workflow_path: str = "",
    env: str = "local",
    git_url: str = "",
    branch_name: str = "",
    name: str = "",
    preview: bool = False,
    yes: bool = False,
    dry_run: bool = False,
) -> None:
    """Take a workflow back: its deployments, its images; or only the previews of a branch."""
    from environments import local_stack
    from register_action import removal, source

    environment = local_stack.require_running(load(env))
    wanted = source.Wanted(workflow_path, git_url, branch_name, "", name)
    whose, origin, branch = source.identity(wanted) if workflow_path else (name, "", branch_name)
    going = removal.find(environment, whose, origin, branch, preview)
    table([(each.name, each.deployment.version or "") for each in going], ("deployment", "version"))
    if not going or dry_run:
        say("dry run: nothing was changed" if going else "nothing to remove", "bold")
        return
    confirm(f"These deployments of environment {env} go, with the images that nothing else runs.", yes)
    with steps() as run:
        run("Removal", removal.remove, environment, whose, going, not preview)


@task(help={"env": ENV, "json": "for scripts"})
@command
def workflows(_: Context, env: str = "local", json: bool = False) -> None:
    """Show what is registered: version, image, schedule, last run."""
    from environments import local_stack
    from register_action import runs

    runs.show_overview(runs.overview(local_stack.require_running(load(env))), json)


@task(
    help={
        "env": ENV,
        **SIZE,
        "name": "flow of a registered workflow, or <flow>/<deployment>",
        "param": "parameter as key=value; may be repeated",
        "wait": "follow the run until it ends",
    },
    iterable=["param"],
)
@command
def run(
    _: Context,
    name: str,
    env: str = "local",
    param: list[str] | None = None,
    wait: bool = True,
    execution_environment: str = "",
    cpu: str = "",
    memory: str = "",
) -> int:
    """Run a workflow now, show its logs, and exit 0 when it is COMPLETED."""
    from environments import local_stack
    from register_action import runs, workflow

    parameters = runs.parse_parameters(param or [])
    choice = workflow.choose([], execution_environment, cpu, memory)
    environment = local_stack.require_running(load(env))
    run_id = runs.start(environment, runs.resolve(environment, name), parameters, choice)
    return 0 if not wait or runs.follow(environment, run_id) else 1


@task(help={"env": ENV, "json": "for scripts"})
@command
def status(_: Context, env: str = "local", json: bool = False) -> int:
    """Show every component at a glance; exit code 0 when all are well, 1 otherwise."""
    from agent import summary
    from agent.status import components
    from register_action import runs

    environment = load(env)
    parts = components(environment)
    return summary.show_status(environment, parts, runs.overview_if_reachable(environment), json)


@task(help={"env": ENV, "json": "for scripts"})
@command
def outputs(_: Context, env: str = "local", json: bool = False) -> None:
    """Show what Terraform made: names, ARNs, ids."""
    from dataclasses import asdict
    from json import dumps

    from environments import local_stack
    from infra import terraform

    values = asdict(terraform.outputs(local_stack.require_running(load(env))))
    if json:
        print(dumps(values, indent=2))
    else:
        table([(name, ", ".join(value) if isinstance(value, tuple) else value) for name, value in values.items()])


@task(help={"env": ENV})
@command
def doctor(_: Context, env: str = "local") -> int:
    """Check tools, Docker engine, credentials and Prefect, and say what to do about each that is wrong."""
    from infra import checks

    return checks.show(load(env))


@task(
    help={
        "env": ENV,
        "name": "agent, or the flow of a registered workflow",
        "follow": "go on as lines come",
        "lines": "how many lines",
    }
)
@command
def logs(_: Context, name: str, env: str = "local", follow: bool = False, lines: int = 100) -> None:
    """Show what the agent, or the last run of a workflow, wrote."""
    from environments import local_stack
    from infra import logs as cloudwatch
    from register_action import runs

    environment = local_stack.require_running(load(env))
    of_agent = name == "agent"
    group = environment.agent_name if of_agent else f"{environment.prefix}_workflows"
    prefix = "" if of_agent else runs.log_prefix(environment, name)
    source = (
        cloudwatch.follow(environment, group, prefix)
        if follow
        else cloudwatch.last_lines(environment, group, prefix, lines)
    )
    for line in source:
        say(line)


@task(
    help={
        "env": ENV,
        "up": "start it, as many as the settings say",
        "down": "stop it; runs wait until it is up again",
    }
)
@command
def agent(_: Context, env: str = "local", up: bool = False, down: bool = False) -> None:
    """Start or stop the agent of a deployed environment."""
    from agent import rollout
    from environments import local_stack
    from environments.errors import PlatformError
    from infra import terraform

    if up == down:
        raise PlatformError("say either --up or --down", todo="invoke agent --up")
    environment = local_stack.require_running(load(env))
    with steps() as run:
        made = run("Outputs", terraform.outputs, environment)
        run("Agent", rollout.roll_out, environment, made, False, environment.agent_count if up else 0)


@task(help={"env": ENV, "lock": "ID of the lock, from the message that names it"}, positional=["lock"])
@command
def unlock(_: Context, lock: str, env: str = "local") -> None:
    """Release Terraform's lock that a dead run left behind."""
    from environments import local_stack
    from infra import terraform

    terraform.unlock(local_stack.require_running(load(env)), lock)
    say("released; invoke deploy goes on")
