"""Plans of what would change on AWS: shown, saved, told as markdown, and the one that is applied as it was shown."""

import dataclasses
import json
import re
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from environments import console, github_actions, leftovers, local_stack, progress
from environments.errors import PlatformError
from environments.settings import Environment, fields
from infra import checks, kept_plans, terraform

PRODUCTION = "prod"
COMMENT_LIMIT = 65_536
"""Characters of a comment on GitHub: https://docs.github.com/en/rest/issues/comments takes no more."""
TABLE_ROWS = 200
ACTIONS = {
    ("create",): "create",
    ("update",): "update",
    ("delete",): "**delete**",
    ("delete", "create"): "**replace**",
    ("create", "delete"): "**replace**",
    ("forget",): "forget",
}
"""https://developer.hashicorp.com/terraform/internals/json-format#change-representation"""


def show(
    environment: Environment,
    image_tag: str,
    out: str = "",
    markdown: str = "",
    *,
    keep: bool = False,
    drift: bool = False,
) -> int:
    """Show what deploy would change on AWS; under GitHub Actions also on the page that sums the job up.

    Args:
        environment: which one.
        image_tag: tag of the agent's image.
        out: file to save the plan in, for `to_apply`; an old one is replaced.
        markdown: file for the text of a comment.
        keep: store the plan in the state bucket, and give its name to the steps that follow as output `plan`.
        drift: whether changes are an error.

    Returns:
        0 when nothing would change, 2 when something would.

    Raises:
        PlatformError: Terraform failed, a file can't be written, or something would change although it must not.
    """
    with leftovers.scratch_folder() as scratch:
        told = bool(markdown) or github_actions.active()
        saved = Path(out).resolve() if out else scratch / "plan" if told or keep else None
        for file in filter(None, (out, markdown)):
            _make_room(Path(file))
        code = terraform.plan(environment, image_tag, saved)
        if told and saved:
            text = as_markdown(
                environment, terraform.described(environment, saved), terraform.words(environment, saved)
            )
            github_actions.summary(text)
            if markdown:
                Path(markdown).write_text(text, encoding="utf-8")
        if keep and saved:
            name = kept_plans.keep(environment, saved)
            console.say(f"invoke deploy --env {environment.name} --plan {name}", "bold")
            github_actions.output("plan", name)
    if code and drift:
        raise PlatformError(
            f"environment {environment.name} has drifted",
            "AWS is not as the last deploy left it; the plan shows what differs",
            f"invoke deploy --env {environment.name} makes it match its settings again",
        )
    return code


def _make_room(file: Path) -> None:
    """Take away an old file, so that a plan that fails leaves none that could be taken for its own."""
    try:
        file.unlink(missing_ok=True)
        file.touch()
        file.unlink()
    except OSError as error:
        raise PlatformError(f"{file} can't be written", str(error), "choose another file") from error


def to_apply(
    environment: Environment, image_tag: str, file: str, yes: bool, scratch: Path, silent: bool = False
) -> Path | None:
    """The plan that a deploy must apply exactly as it was shown; None when it need not be shown first.

    Args:
        environment: which one.
        image_tag: tag of the agent's image.
        file: a plan that was shown before: the file of `invoke plan --out`, or the name that `--keep` has printed.
        yes: prod's plan need not be shown.
        scratch: folder for the plan that is made and shown here.
        silent: no plan can be shown, the output is not for people.

    Raises:
        PlatformError: the file is not a plan of this environment, its settings and this image; or the user does not
            want what the plan shows, or would not see it. Nothing was changed.
    """
    if file:
        kept = kept_plans.is_name(file)
        saved = kept_plans.fetch(environment, file, scratch) if kept else Path(file).resolve()
        if not saved.is_file():
            raise PlatformError(f"there is no plan {file}", todo=_again(environment))
        checks.ready(environment)
        _require_own(environment, image_tag, saved)
        return saved
    if environment.name != PRODUCTION or yes:
        return None
    if silent:
        raise PlatformError(
            f"what will change in environment {environment.name} has to be shown first",
            "--quiet and --json show no plan",
            "add --yes to go on without, or --plan with one that invoke plan --out has shown and saved",
        )
    console.require_terminal()
    checks.require(environment)
    saved = scratch / "plan"
    if terraform.plan(environment, image_tag, saved):
        console.confirm(f"This is what will change in environment {environment.name}.")
    return saved


@dataclasses.dataclass(frozen=True)
class Ahead:
    """A plan that was made while the checks were still going on.

    Attributes:
        file: the plan.
        changes: what it would do, and to which resource.
        outputs: what Terraform tells the other components as long as nothing changes.
    """

    file: Path
    changes: list[str]
    outputs: terraform.Outputs

    @property
    def has_repository(self) -> bool:
        """Whether the repository of the agent's image stays as it is: the image can be pushed at once."""
        return not any(change.endswith(terraform.AGENT_REPOSITORY_ADDRESS) for change in self.changes)


def ahead(run: progress.Run, environment: Environment, image_tag: str, approved: Path | None, scratch: Path) -> Any:
    """Begin to plan at once, beside the checks, where this machine has deployed the environment before.

    Args:
        run: takes the step.
        environment: which one.
        image_tag: tag of the agent's image.
        approved: a plan that was shown already.
        scratch: folder for the plan.

    Returns:
        The step, whose result is an `Ahead`, or None when it could not be made yet; or None.
    """
    if approved or not terraform.is_ready(environment) or terraform.has_unsaved_state(environment):
        return None
    if environment.is_local and set(local_stack.state(environment).values()) != {"running"}:
        return None
    return run("Plan", _ahead, environment, image_tag, scratch / "ahead")


def _ahead(environment: Environment, image_tag: str, file: Path) -> Ahead | None:
    try:
        with ThreadPoolExecutor(1) as pool:
            outputs = pool.submit(terraform.outputs, environment)
            changes = terraform.drift(environment, image_tag, file)
        made = Ahead(file, changes, outputs.result())
    except PlatformError:
        progress.note("not yet")  # the checks may say why, or mend it; if not, apply meets it again
        return None
    progress.note(f"{len(changes)} changes" if changes else "no changes")
    return made


def _require_own(environment: Environment, image_tag: str, saved: Path) -> None:
    """Refuse a plan that was made for anything else than what is deployed now: Terraform would apply it."""
    try:
        described = terraform.described(environment, saved)
    except PlatformError as error:
        raise PlatformError(
            f"{saved.name} is not a plan that can be applied", error.why, _again(environment)
        ) from error
    planned = {name: told.get("value") for name, told in described.get("variables", {}).items()}
    if planned.get("environment") != environment.name:
        raise PlatformError(
            f"{saved.name} is a plan of another environment",
            f"it was made for {planned.get('environment')}, this is {environment.name}",
            _again(environment),
        )
    if planned.get("agent_image_tag") != image_tag:
        raise PlatformError(
            f"{saved.name} is a plan for another agent image",
            f"it was made for {planned.get('agent_image_tag')}, this checkout's agent is {image_tag}",
            f"deploy the commit that was planned, or {_again(environment)}",
        )
    now = {name: getattr(environment, name) for name in fields() if name in planned}
    other = [name for name, value in now.items() if _normal(value) != _normal(planned[name])]
    if other:
        raise PlatformError(
            f"{saved.name} is a plan for other settings",
            "\n".join(f"{name}: planned {_normal(planned[name])}, now {_normal(now[name])}" for name in other),
            f"deploy the commit that was planned, or {_again(environment)}",
        )


def _again(environment: Environment) -> str:
    return f"plan again: invoke plan --env {environment.name} --out FILE"


def _normal(value: Any) -> str:
    """A value as text, the same for Terraform's and for ours; the order of lists does not count, sets have none."""
    if isinstance(value, (list, tuple, set, frozenset)):
        return "[" + ", ".join(sorted(map(_normal, value))) + "]"
    if isinstance(value, dict):
        return "{" + ", ".join(sorted(f"{name}={_normal(part)}" for name, part in value.items())) + "}"
    return json.dumps(value)


def as_markdown(environment: Environment, described: dict[str, Any], words: str) -> str:
    """A plan as the text of a comment on GitHub: result, what happens to which resource, and the whole plan folded up.

    Args:
        environment: which one.
        described: the plan as Terraform's JSON.
        words: the plan in Terraform's words; cut where a comment would get too long.
    """
    changes = [
        (tuple(change["change"]["actions"]), change["address"])
        for change in described.get("resource_changes", [])
        if change["change"]["actions"] not in (["no-op"], ["read"])
    ]
    outputs = [
        name for name, change in described.get("output_changes", {}).items() if change["actions"] not in (["no-op"],)
    ]
    result = "changes" if changes or outputs else "no changes"
    lines = [f"## Plan for environment {environment.name}: {result}"]
    if changes:
        lines += ["", _counts([actions for actions, _ in changes]), "", "| action | resource |", "| --- | --- |"]
        for actions, name in changes[:TABLE_ROWS]:
            lines.append(f"| {ACTIONS.get(actions, '+'.join(actions))} | {_code(name)} |")
        if len(changes) > TABLE_ROWS:
            lines.append(f"| ... | and {len(changes) - TABLE_ROWS} more |")
    elif outputs:
        lines += ["", f"No resource changes, only outputs: {', '.join(map(_code, outputs))}."]
    head = "\n".join(lines) + "\n"
    return head + _folded(words.strip("\n"), COMMENT_LIMIT - len(head))


def _counts(changes: list[tuple[str, ...]]) -> str:
    """As Terraform counts: a replacement is one to add and one to destroy."""
    add, change, destroy = (sum(kind in actions for actions in changes) for kind in ("create", "update", "delete"))
    return f"**{add} to add, {change} to change, {destroy} to destroy**"


def _code(name: str) -> str:
    """A name as code in a cell of a table; what would end code or cell is left out."""
    return "`" + re.sub(r"[`|\r\n]", "?", name) + "`"


def _folded(words: str, room: int) -> str:
    """The whole plan, folded up, in a fence that is longer than any in it."""
    longest = max((len(run) for run in re.findall("`+", words)), default=0)
    fence = "`" * max(3, longest + 1)
    begin, end = f"\n<details><summary>The whole plan</summary>\n\n{fence}text\n", f"\n{fence}\n\n</details>\n"
    note = "\n... cut here: a comment can't be longer; the job's log has all of it"
    if len(begin) + len(words) + len(end) > room:
        words = words[: room - len(begin) - len(note) - len(end)] + note
    return begin + words + end
