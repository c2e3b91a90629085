"""The tasks of the platform. Each is a table of contents; the work is in the components.

invoke deploy                  everything, on this machine
invoke deploy --env dev        everything, on AWS
"""

from invoke.context import Context
from invoke.tasks import task

from environments import command_line, load
from environments.console import be_quiet, command, confirm, say, table
from environments.progress import Step, steps

ENV = "environment: local (this machine), dev, test, prod, or any other environments/<env>.tfvars"
WORKFLOW = {
    "workflow-path": "folder with the workflow; with --git-url its path in that repository",
    "git-url": "take the folder from this repository, and exactly one commit of it",
    "branch-name": "branch of the repository, for its newest commit and for the names of previews",
    "name": "name of the workflow, if not that of its folder or repository",
}
QUIET = "say nothing but errors"
SIZE = {
    "execution-environment": "ecs_fargate, or ecs_fargate_spot (cheap, interruptible)",
    "cpu": "CPU units, 1024 is one vCPU",
    "memory": "MiB",
}


@task(
    help={
        "env": ENV,
        "plan": "apply exactly this plan, from invoke plan --out or --keep; a stale plan or a wrong one is refused",
        "yes": "don't show what will change in prod and ask",
        "quiet": QUIET,
        "json": "for scripts: what was made, and each step with its seconds; what happens goes to standard error",
    }
)
@command
def deploy(
    _: Context, env: str = "local", plan: str = "", yes: bool = False, quiet: bool = False, json: bool = False
) -> None:
    """Bring an environment up, or to what its settings say; run twice, the second run changes nothing.

    For prod it shows the plan and asks. Exit codes: 0 done, 1 an error that is explained, 130 stopped by Ctrl-C.

    invoke deploy
    invoke deploy --env dev
    invoke deploy --env prod --plan approved.plan
    """
    from agent import image, key, project, releases, rollout, summary
    from environments import local_stack
    from environments.leftovers import scratch_folder
    from infra import account, adoption, checks, images, plans, sbom

    be_quiet(quiet)
    environment = load(env)
    tag = image.name(environment).tag
    repository = Step("ECR repository")
    with scratch_folder() as scratch:
        approved = plans.to_apply(environment, tag, plan, yes, scratch, silent=quiet or json)
        with steps(stderr=json) as run:
            planned = plans.ahead(run, environment, tag, approved, scratch)
            checked = run("Checks", checks.require, environment)
            built = run("Agent image", image.build, environment, after=(checked,))
            if environment.is_local:
                servers = run("Local servers", local_stack.start, environment, after=(checked,))
                ready = run("AWS account", account.bootstrap, environment, after=(servers,))
            else:
                ready = checked
            infra = (environment, tag, repository.done.set, approved, planned)
            applied = run("AWS infrastructure", adoption.apply, *infra, after=(ready,), milestone=repository)
            pushed = run("Agent image to ECR", images.push, environment, built, after=(repository,))
            run("SBOM to ECR", sbom.keep, environment, pushed)
            stored = run("Prefect key", key.store, environment, applied)
            made = run("Prefect project", project.ensure, environment, applied, pushed)
            rolled = run("Agent", rollout.roll_out, environment, applied, stored, after=(pushed, made))
            released = run("Release", releases.accept, environment, rolled, pushed)
            run("Older images", releases.retire, environment, after=(released,))
    summary.show(environment, image.name(environment), run.steps, json)


@task(
    help={
        "env": ENV,
        "to": "number of a revision that came up once; without, the one before the running one",
        "yes": "don't ask in prod",
        "dry-run": "show the revisions that there are, and which it would be",
    }
)
@command
def rollback(_: Context, env: str = "local", to: str = "", yes: bool = False, dry_run: bool = False) -> None:
    """Let the agent be the one before again, and its image that of the project; nothing else changes.

    invoke rollback --env dev --dry-run
    invoke rollback --env dev --to 7
    """
    from agent import releases
    from infra import checks

    environment = checks.ready(load(env))
    running, target = releases.choose(environment, to)
    releases.show_choice(environment, running, target)
    if dry_run:
        say("dry run: nothing was changed", "bold")
        return
    releases.confirm(environment, target, yes)
    with steps() as run:
        run("Agent", releases.roll_back, environment, running, target)
    releases.show_next(environment, running, target)


@task(
    help={
        "env": ENV,
        "out": "save the plan in this file, for invoke deploy --plan",
        "markdown": "write the plan to this file as the text of a comment on GitHub",
        "keep": "store the plan in the state bucket and print its name, for invoke deploy --plan on another machine",
        "exit-zero": "exit with 0 also when something would change",
        "drift": "report changes as an error",
    }
)
@command
def plan(
    _: Context,
    env: str = "local",
    out: str = "",
    markdown: str = "",
    keep: bool = False,
    exit_zero: bool = False,
    drift: bool = False,
) -> int:
    """Show what deploy would change on AWS; exit code 0 for nothing, 2 for something, 1 for an error.

    Needs Terraform, the settings and read access to AWS, nothing else, and locks nothing.

    invoke plan --env dev
    invoke plan --env prod --out approved.plan
    invoke plan --env prod --keep
    """
    from agent import image
    from environments import local_stack
    from infra import account, checks, plans

    environment = load(env, role="plan")
    checks.account(environment)
    if environment.is_local:
        local_stack.ensure_running(environment)
        account.bootstrap(environment)
    code = plans.show(environment, image.name(environment).tag, out, markdown, keep=keep, drift=drift)
    return 0 if exit_zero else code


@task(
    help={
        "env": ENV,
        "yes": "don't ask; not enough for prod",
        "name": "the environment's name once more: don't ask, not even for prod",
        "quiet": QUIET,
    },
    positional=[],
)
@command
def destroy(_: Context, env: str = "local", yes: bool = False, name: str = "", quiet: bool = False) -> None:
    """Remove an environment: agent, project, images, logs, network; in local its servers and data too.

    For prod the name must be typed. What invoke bootstrap-account made stays. Exit codes as of deploy.

    invoke destroy --yes
    invoke destroy --env prod --name prod
    """
    from agent import teardown
    from environments import local_stack

    environment = load(env)
    teardown.confirm(environment, yes, name)
    be_quiet(quiet)
    with steps() as run:
        gone = run("Agent, project and AWS infrastructure", teardown.destroy, environment)
        if environment.is_local:
            run("Local servers and data", local_stack.remove, environment, after=(gone,))
    say(f"environment {env} is gone; invoke deploy --env {env} makes it again", "bold")


@task(
    help={
        "env": ENV,
        "repository": "GitHub repository of this platform, OWNER/NAME; the checkout's own if not given",
        "default-branch": "default branch of that repository, where scheduled workflows run (default: the checkout's)",
        "workflow-repository": "trust a repository to register workflows: OWNER/NAME, 'OWNER/*' or its id; repeatable, "
        "names them all",
        "trust-users": "allow IAM users of the account to assume the roles, for pipelines with access keys (yes or no)",
        "github": "set up the platform's GitHub environment with gh: branch rules, reviewers, secrets",
        "reviewer": "with --github, require this user's approval for deploys: LOGIN; repeatable, names them all",
        "remove": "remove everything that this command creates on AWS, after invoke destroy",
        "yes": "skip the confirmation before removing or before changing GitHub",
    },
    iterable=["workflow_repository", "reviewer"],
    positional=[],
)
@command
def bootstrap_account(
    _: Context,
    env: str = "local",
    repository: str = "",
    default_branch: str = "",
    workflow_repository: list[str] | None = None,
    trust_users: str = "",
    github: bool = False,
    reviewer: list[str] | None = None,
    remove: bool = False,
    yes: bool = False,
) -> None:
    """Set up an AWS account for an environment, once: state bucket, roles, trust in GitHub; wants an administrator.

    Says what to set up on GitHub, or does it with --github: it shows what will change, and asks. The secrets come from
    the environment variables PREFECT_AGENT_TOKEN, PREFECT_WORKFLOW_REGISTER_TOKEN and PREFECT_WORKFLOW_TOKEN.
    Run it again to change whom the roles trust, or after an update of this platform.

    invoke bootstrap-account --env dev --workflow-repository acme/etl
    invoke bootstrap-account --env prod --github --reviewer octocat
    """
    from environments.settings import ROOT
    from infra import account, checks, github_setup
    from register_action import git

    environment = checks.ready(load(env))
    if remove:
        confirm(f"The state bucket, the roles and the trust in GitHub of environment {env} go.", yes)
        account.remove(environment)
        say(f"account {environment.aws_account_id} has nothing left of environment {env}", "bold")
        return
    here = (git.origin(ROOT), default_branch, git.default_branch(ROOT))
    trust = account.choose(environment, repository, workflow_repository or [], trust_users, *here)
    setup = github_setup.prepare(environment, trust, github, reviewer or [], yes)
    table(list(account.bootstrap(environment, trust).items()))
    if setup:
        github_setup.apply(environment, setup)
    for line in ("", *github_setup.next_steps(environment, trust, done=bool(setup))):
        say(line)


@task(help={"env": ENV, "json": "for scripts"})
@command
def settings(_: Context, env: str = "local", json: bool = False) -> None:
    """Show all settings of an environment, defaults included, and the roles of its pipelines; asks nobody.

    Under GitHub Actions also gives to the steps that follow: aws_region, deploy_role, register_role, plan_role,
    own_account (false for the account of the template), and runner, the label of one that builds for cpu_architecture.

    invoke settings --env dev
    invoke settings --env dev --json
    """
    from agent import summary

    summary.show_settings(load(env), json)


@task(
    help={
        "env": ENV,
        "role-outcome": "outcome of the step that assumes the plan role: success, failure or skipped",
        "deploys": "a deploy follows, which needs a GitHub environment",
    }
)
@command
def preflight(_: Context, env: str = "local", role_outcome: str = "success", deploys: bool = False) -> None:
    """Check, in a job of GitHub Actions, whether an environment is set up for the pipelines; a fork's are not at first.

    Gives ready, true or false, to the steps that follow. Exit code 1 when it was set up and something is missing.

    invoke preflight --env dev --role-outcome failure --deploys
    """
    from infra import preflight as checked

    checked.look(load(env), role_outcome == "success", deploys)


@task(help={"env": ENV, "json": "for scripts"})
@command
def cost(_: Context, env: str = "local", json: bool = False) -> None:
    """Show what an idle environment costs a month on AWS, what other settings would, and what use adds; asks nobody.

    invoke cost --env prod
    invoke cost --env dev --json
    """
    from infra import cost as billed

    billed.show(load(env), json)


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
        "quiet": QUIET,
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
    quiet: bool = False,
    json: bool = False,
) -> None:
    """Hand over a workflow: build its image, push it, and create a deployment for each of its flows.

    invoke register --workflow-path examples/sample_workflow/workflow
    invoke register --workflow-path workflow --git-url https://github.com/acme/etl --env dev
    """
    from environments.leftovers import scratch_folder
    from infra import checks, sbom
    from register_action import changes, deployments, removal, report, source, workflow, workflow_image

    be_quiet(quiet)
    choice = workflow.choose(flow or [], execution_environment, cpu, memory, preview)
    wanted = source.Wanted(workflow_path, git_url, branch_name, commit_sha, name)
    environment = checks.ready(load(env, role="register"))
    with scratch_folder() as scratch, steps(stderr=json) as run:
        located = run("Source", source.locate, wanted, scratch)
        read = run("Flows", workflow.read, environment, located, choice)
        project = run("Prefect project", changes.project_of, environment, read)
        content = run("Image content", workflow_image.content, environment, read, project)
        if not dry_run:
            built = run("Workflow image", workflow_image.build, environment, read, project, content)
            flows = run("Parameters", changes.describe, environment, read, project, built)
            listed = run("Packages", sbom.inventory, environment, built)
            pushed = run("Workflow image to ECR", workflow_image.push, environment, built, after=(flows,))
            run("SBOM to ECR", sbom.push, environment, pushed, listed)
            done = run("Deployments", deployments.register, environment, read, project, pushed, flows, prune)
            if preview:
                run("Superseded images", removal.superseded, environment, read, done)
            run("Older images", removal.retire, environment, read, content, after=(done,))
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
        "sweep": "only the previews of the folder's repository whose branch has no open pull request on GitHub",
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
    sweep: bool = False,
    yes: bool = False,
    dry_run: bool = False,
) -> None:
    """Take a workflow back: its deployments, its images; or only the previews of a branch.

    --sweep reads the pull requests with the token in GITHUB_TOKEN. When GitHub cannot be asked, it removes nothing.

    invoke unregister --name etl --dry-run
    invoke unregister --name etl --preview --branch-name fix --env dev
    invoke unregister --workflow-path workflow --sweep --env dev --dry-run
    """
    from environments.errors import PlatformError
    from infra import checks
    from register_action import removal, source

    if sweep and (name or branch_name or not workflow_path):
        raise PlatformError(
            "--sweep takes --workflow-path, and neither --name nor --branch-name",
            "it removes previews of all branches and workflows of the folder's repository",
            "invoke unregister --sweep --workflow-path workflow",
        )
    environment = checks.ready(load(env, role="register"))
    wanted = source.Wanted(workflow_path, git_url, branch_name, "", name)
    whose, origin, branch = source.identity(wanted) if workflow_path else (name, "", branch_name)
    if sweep:
        going = removal.find_abandoned(environment, origin)
    else:
        going = removal.find(environment, whose, origin, branch, preview)
    table([(each.name, each.deployment.version or "") for each in going], ("deployment", "version"))
    if not going or dry_run:
        say("dry run: nothing was changed" if going else "nothing to remove", "bold")
        return
    confirm(f"These deployments of environment {env} go, with the images that nothing else runs.", yes)
    with steps() as run:
        run("Removal", removal.remove, environment, whose, going, not (preview or sweep))


@task(help={"env": ENV, "json": "for scripts"})
@command
def workflows(_: Context, env: str = "local", json: bool = False) -> None:
    """Show what is registered: version, image, schedule, last run.

    invoke workflows --env dev
    """
    from environments import local_stack
    from register_action import overview

    overview.show(overview.read(local_stack.require_running(load(env)))[0], json)


@task(
    help={
        "env": ENV,
        **SIZE,
        "name": "flow of a registered workflow, or <flow>/<deployment>",
        "param": "parameter as key=value; may be repeated, and overrides --params-file",
        "params-file": "file with the parameters as a JSON object; - reads standard input",
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
    params_file: str = "",
    wait: bool = True,
    execution_environment: str = "",
    cpu: str = "",
    memory: str = "",
) -> int:
    """Run a workflow now, show its logs, and exit 0 when it is COMPLETED.

    invoke run sample_workflow
    invoke run sales_report --param days=7 --memory 2048 --env dev
    invoke run sales_report --params-file orders.json
    """
    from environments import local_stack
    from register_action import parameters, runs, workflow

    values = parameters.read(params_file, param or [])
    choice = workflow.choose([], execution_environment, cpu, memory)
    environment = local_stack.require_running(load(env))
    run_id = runs.start(environment, runs.resolve(environment, name), values, choice)
    return 0 if not wait or runs.follow(environment, run_id) else 1


@task(help={"env": ENV, "json": "for scripts", "watch": "look again every few seconds, until Ctrl-C"})
@command
def status(_: Context, env: str = "local", json: bool = False, watch: bool = False) -> int:
    """Show every component at a glance, and what to do about what is wrong; exit code 0 when all are well, else 1.

    With --watch the page stays up to date; where no terminal is, it is printed again when something has changed.

    invoke status
    invoke status --env dev --watch
    """
    from functools import partial

    from agent import status, summary
    from environments import watching
    from environments.errors import PlatformError
    from register_action import overview

    if watch and json:
        raise PlatformError("say either --watch or --json", todo="invoke status --watch")
    environment = load(env)
    look = partial(status.look, environment, overview.read)
    show = partial(summary.show_status, environment, as_json=json)
    return watching.watch(look, show) if watch else show(look())


@task(
    help={
        "env": ENV,
        "what": "the page to open, by the name that this prints",
        "browser": "open it; --no-browser only prints the addresses",
    }
)
@command
def open(_: Context, env: str = "local", what: str = "prefect", browser: bool = True) -> None:
    """Open an environment's page at Prefect or in the AWS console, and print where they all are.

    In a pipeline, or with the output elsewhere, it only prints.

    invoke open
    invoke open --env dev --what agent-logs
    """
    from environments import pages

    pages.show(load(env), what, browser)


@task(help={"env": ENV, "json": "for scripts"})
@command
def outputs(_: Context, env: str = "local", json: bool = False) -> None:
    """Show what Terraform made: names, ARNs, ids.

    invoke outputs --env dev
    invoke outputs --json
    """
    from dataclasses import asdict
    from json import dumps

    from infra import checks, terraform

    values = asdict(terraform.outputs(checks.ready(load(env))))
    if json:
        print(dumps(values, indent=2))
    else:
        table([(name, ", ".join(value) if isinstance(value, tuple) else value) for name, value in values.items()])


@task(help={"env": ENV, "drift": "compare AWS with the settings, too, as invoke plan does; takes a while"})
@command
def doctor(_: Context, env: str = "local", drift: bool = False) -> int:
    """Check tools, Docker engine, credentials and Prefect, and say what to do about each that is wrong.

    invoke doctor
    invoke doctor --env dev --drift
    """
    from agent import image
    from infra import checks

    environment = load(env)
    return checks.show(environment, image.name(environment).tag if drift else "")


@task(
    help={
        "env": ENV,
        "name": "agent, or the flow of a registered workflow",
        "follow": "go on as lines come",
        "lines": "how many lines",
    }
)
@command
def logs(_: Context, name: str, env: str = "local", follow: bool = False, lines: str = "100") -> None:
    """Show what the agent, or the last run of a workflow, wrote.

    invoke logs agent --follow
    invoke logs sample_workflow --env dev --lines 500
    """
    from infra import checks
    from infra import logs as cloudwatch
    from register_action import runs

    limit = cloudwatch.line_count(lines)
    environment = checks.ready(load(env))
    of_agent = name == "agent"
    group = environment.agent_name if of_agent else f"{environment.prefix}_workflows"
    prefix = "" if of_agent else runs.log_prefix(environment, name)
    source = (
        cloudwatch.follow(environment, group, prefix)
        if follow
        else cloudwatch.last_lines(environment, group, prefix, limit)
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
    """Start or stop the agent of a deployed environment.

    invoke agent --down --env dev
    invoke agent --up --env dev
    """
    from agent import rollout
    from environments.errors import PlatformError
    from infra import checks

    if up == down:
        raise PlatformError("say either --up or --down", todo="invoke agent --up")
    environment = checks.ready(load(env))
    with steps() as run:
        run("Agent", rollout.scale, environment, environment.agent_count if up else 0)


@task(help={"env": ENV})
@command
def rotate_key(_: Context, env: str = "local") -> None:
    """Give agent and workflows the Prefect key of PREFECT_AGENT_TOKEN; local makes one. Nothing stands still.

    A key that Prefect does not take changes nothing. At the end it says when the earlier key may be revoked.

    invoke rotate-key --env dev
    """
    from agent import rollout, rotation
    from infra import checks, terraform

    environment = checks.ready(load(env))
    with steps() as run:
        made = run("Outputs", terraform.outputs, environment)
        stored = run("Prefect key", rotation.renew, environment, made)
        replaced = run("Agent", rollout.replace_older, environment, stored)
        runs = run("Earlier keys", rotation.retire_earlier, environment, stored, after=(replaced,))
    rotation.show(environment, runs.result)


@task(
    help={
        "env": ENV,
        "lock": "ID of the lock, from the message that names it; own: that of a killed command of this machine",
    },
    positional=["lock"],
)
@command
def unlock(_: Context, lock: str, env: str = "local") -> None:
    """Release Terraform's lock that a dead run left behind, and import what that run created but did not record.

    invoke unlock 01234567-89ab-cdef-0123-456789abcdef --env dev
    invoke unlock own --env dev
    """
    from agent import image
    from infra import adoption, checks, terraform

    environment = checks.ready(load(env))
    if lock == "own" and not (lock := terraform.own_lock(environment)):
        say("no killed command of this machine holds the lock", "bold")
        return
    with steps() as run:
        free = run("Lock", terraform.unlock, environment, lock)
        run("What the dead run made", adoption.adopt, environment, image.name(environment).tag, after=(free,))
    say(f"done; invoke deploy --env {env} goes on")


command_line.check(globals())
