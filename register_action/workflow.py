"""A workflow as its folder and its user describe it: all that can be known, and refused, without running its code."""

import dataclasses
import re
from typing import Any

from environments import progress, task_limits
from environments.errors import PlatformError
from environments.fargate import size_problem
from environments.secrets import public_variables
from environments.settings import EXECUTION_ENVIRONMENTS, Environment
from infra import images
from register_action import discovery, packages, prefect_yaml
from register_action.discovery import FoundFlow
from register_action.packages import Packages
from register_action.prefect_yaml import Declared
from register_action.source import Source
from register_action.workflow_files import workflow_files


@dataclasses.dataclass(frozen=True)
class Choice:
    """What the user chose. Cpu in CPU units, memory in MiB; None and empty leave it to the environment."""

    flows: tuple[str, ...] = ()
    execution_environment: str = ""
    cpu: int | None = None
    memory: int | None = None
    preview: bool = False

    @property
    def job_variables(self) -> dict[str, Any]:
        """The choice in the words of the work pool."""
        sizes = {"cpu": self.cpu, "memory": self.memory}
        chosen = {name: value for name, value in sizes.items() if value is not None}
        return {**EXECUTION_ENVIRONMENTS.get(self.execution_environment, {}), **chosen}


@dataclasses.dataclass(frozen=True)
class Entry:
    """One deployment that is wanted: its name, its flow, and what prefect.yaml says of it."""

    name: str
    flow: FoundFlow
    declared: Declared | None = None


@dataclasses.dataclass(frozen=True)
class Workflow:
    """A workflow that may be registered.

    Attributes:
        source: its folder and where that comes from.
        choice: what the user chose.
        entries: the deployments that are wanted.
        packages: what its image must hold besides Prefect.
        files: everything that goes into its image, contents by path.
        notes: what the author should know.
    """

    source: Source
    choice: Choice
    entries: tuple[Entry, ...]
    packages: Packages
    files: dict[str, bytes] = dataclasses.field(repr=False)
    notes: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """Of its ECR repository, without the environment, and the tag of its deployments."""
        return self.source.name

    @property
    def preview(self) -> str:
        """The branch this is a preview of; empty for a real registration."""
        return self.source.branch if self.choice.preview else ""

    @property
    def flows(self) -> list[FoundFlow]:
        """The flows of the wanted deployments, each once."""
        return list({entry.flow.entrypoint: entry.flow for entry in self.entries}.values())


def choose(
    flows: list[str], execution_environment: str, cpu: str | None, memory: str | None, preview: bool = False
) -> Choice:
    """Read what the user chose on the command line.

    Raises:
        PlatformError: an unknown execution environment, or a size that is no number.
    """
    if execution_environment and execution_environment not in EXECUTION_ENVIRONMENTS:
        raise PlatformError(
            f"unknown execution environment {execution_environment!r}",
            f"there are: {', '.join(EXECUTION_ENVIRONMENTS)}",
            "choose one of them, or leave it out for the environment's own",
        )
    return Choice(tuple(flows), execution_environment, _number("cpu", cpu), _number("memory", memory), preview=preview)


def _number(name: str, text: str | None) -> int | None:
    if not text:
        return None
    if not re.fullmatch("[0-9]{1,6}", text):
        unit = "CPU units, 1024 is one vCPU" if name == "cpu" else "MiB"
        raise PlatformError(f"--{name} {text!r} is not a whole number", unit, f"write --{name} 1024, for example")
    return int(text)


def check_size(environment: Environment, job_variables: dict[str, Any], whose: str, line: int = 0) -> None:
    """Make sure that Fargate offers the size that these job variables ask for.

    Args:
        environment: its own size holds for what they don't say.
        job_variables: of a deployment or run; a value that Prefect fills in for each run can't be checked.
        whose: who asks, for the message.
        line: of prefect.yaml, when that does.

    Raises:
        PlatformError: it does not; the reason lists what it offers.
    """
    sizes = {"cpu": environment.workflow_cpu, "memory": environment.workflow_memory}
    sizes |= {name: job_variables[name] for name in sizes if job_variables.get(name) is not None}
    if not all(re.fullmatch("[0-9]+", str(size)) for size in sizes.values()):
        return
    cpu, memory = map(int, sizes.values())
    if problem := size_problem(cpu, memory):
        raise PlatformError(
            f"AWS Fargate has no size of cpu {cpu} with memory {memory}, which {whose} asks for",
            problem,
            "choose a pair that goes together, by --cpu and --memory or by job_variables in prefect.yaml",
            file=prefect_yaml.FILE if line else "",
            line=line,
        )


def check_limits(environment: Environment, job_variables: dict[str, Any], whose: str, line: int) -> None:
    """Check that AWS accepts the labels and environment variables of a deployment.

    Args:
        environment: its tags are on every task, too.
        job_variables: of the deployment.
        whose: the deployment, for the message.
        line: of the deployment in prefect.yaml; 0 if it is not there.

    Raises:
        PlatformError: AWS would not; the reason lists everything it would refuse.
    """
    labels, env = (_texts(job_variables, name) for name in ("labels", "env"))
    if problems := [*task_limits.label_problems(labels, environment.tags), *task_limits.env_problems(env)]:
        raise PlatformError(
            f"AWS does not accept the job variables of {whose}",
            "\n".join(problems),
            "correct work_pool.job_variables in prefect.yaml; large values belong in a file or in a block of Prefect",
            file=prefect_yaml.FILE if line else "",
            line=line,
        )


def _texts(job_variables: dict[str, Any], name: str) -> dict[str, str]:
    """A job variable that is a mapping of texts; Prefect reads `env.KEY` as the key KEY of env."""
    dotted = {key.partition(".")[2]: value for key, value in job_variables.items() if key.startswith(f"{name}.")}
    values = {**dotted, **(job_variables.get(name) or {})}
    return {key: str(value) for key, value in values.items() if value is not None}


def read(environment: Environment, source: Source, choice: Choice) -> Workflow:
    """Read a workflow's folder.

    Args:
        environment: where it is to run.
        source: the folder.
        choice: what the user chose.

    Raises:
        PlatformError: anything that is wrong with the folder or does not fit the choice.
    """
    if f"{environment.name}_{source.name}" == environment.agent_name:
        raise PlatformError(
            f"a workflow can't be called {source.name}",
            f"{environment.agent_name} is the platform's own image repository",
            "give it another name with --name",
        )
    if choice.preview and not source.branch:
        raise PlatformError(
            "a preview needs the name of its branch", "the folder is not on a branch of git", "add --branch-name"
        )
    found = discovery.find_flows(source.folder)
    declared = prefect_yaml.read(source.folder, public_variables())
    wanted = discovery.select(found, list(choice.flows)) if choice.flows else found
    wanted_packages = packages.read(source.folder)
    workflow = Workflow(
        source=source,
        choice=choice,
        entries=tuple(_entries(environment, source, choice, found, wanted, declared.deployments if declared else ())),
        packages=wanted_packages,
        files=images.content(source.folder, workflow_files(source.folder)),
        notes=(*(declared.ignored if declared else ()), *wanted_packages.notes),
    )
    for entry in workflow.entries:
        variables, declared_line = job_variables(workflow, entry), entry.declared.line if entry.declared else 0
        sized = entry.declared and {"cpu", "memory"} & entry.declared.job_variables.keys()
        check_size(environment, variables, entry.flow.entrypoint, declared_line if sized else 0)
        check_limits(environment, variables, entry.flow.entrypoint, declared_line)
    progress.note(f"{len(workflow.flows)} flow(s), {len(workflow.entries)} deployment(s)")
    return workflow


def job_variables(workflow: Workflow, entry: Entry) -> dict[str, Any]:
    """What a deployment asks of the work pool besides its image; prefect.yaml, the more exact one, wins."""
    return {**workflow.choice.job_variables, **(entry.declared.job_variables if entry.declared else {})}


def branch_slug(branch: str) -> str:
    """A branch's name as part of a deployment's; never empty, or a preview would have the name of the real one."""
    return re.sub(r"[^a-z0-9]+", "-", branch.lower()).strip("-")[:60].strip("-") or "preview"


def _entries(
    environment: Environment,
    source: Source,
    choice: Choice,
    found: list[FoundFlow],
    wanted: list[FoundFlow],
    declared: tuple[Declared, ...],
) -> list[Entry]:
    """One entry for each deployment in prefect.yaml, and one for each flow that has none there."""
    flows = {flow.entrypoint: flow for flow in found}
    if unknown := [entry for entry in declared if entry.entrypoint not in flows]:
        raise PlatformError(
            "prefect.yaml names flows that are not there",
            "\n".join(f"prefect.yaml:{entry.line}: {entry.name}: {entry.entrypoint}" for entry in unknown),
            f"correct the entrypoint; the folder's flows are {', '.join(flows)}",
            file="prefect.yaml",
            line=unknown[0].line,
        )
    plain = "-".join(filter(None, (environment.name, branch_slug(source.branch) if choice.preview else "")))
    entries = []
    for flow in wanted:
        of_flow = [entry for entry in declared if entry.entrypoint == flow.entrypoint]
        entries += [
            Entry(plain if entry.name == environment.name else f"{plain}-{entry.name}", flow, entry)
            for entry in of_flow
        ] or [Entry(plain, flow)]
    return entries
