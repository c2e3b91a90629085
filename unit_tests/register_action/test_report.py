"""What is seen of a registration: on the terminal, as JSON, and on the page of a GitHub Actions job."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest

from environments.settings import Environment
from register_action import report
from register_action.changes import Change
from register_action.overview import schedule_text
from register_action.workflow import Choice, Workflow
from unit_tests.register_action.conftest import COMMIT, IMAGE, HandOver, Register

PAGE = "https://app.prefect.cloud/account/11111111-1111-4111-8111-111111111111"
DECLARED = """
deployments:
- name: dev
  entrypoint: flow.py:sales
  schedules:
  - cron: "*/5 * * * *"
    timezone: Europe/Berlin
  - interval: 3600
    active: false
  work_pool:
    job_variables: {cpu: 1024, memory: 4096}
"""


class Page:
    """The files of a GitHub Actions job."""

    def __init__(self, folder: Path) -> None:
        self.output, self.markdown = folder / "output", folder / "summary.md"

    @property
    def outputs(self) -> dict[str, str]:
        """The outputs, each of one line here, as a runner reads them."""
        lines = self.output.read_text().splitlines() if self.output.exists() else []
        found = {}
        for begin, value, end in zip(lines[::3], lines[1::3], lines[2::3], strict=True):
            name, delimiter = begin.split("<<")
            assert delimiter == end
            found[name] = value
        return found

    @property
    def summary(self) -> str:
        return self.markdown.read_text() if self.markdown.exists() else ""


@pytest.fixture
def page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Page:
    made = Page(tmp_path)
    monkeypatch.setenv("GITHUB_ACTIONS", "true")
    monkeypatch.setenv("GITHUB_OUTPUT", str(made.output))
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(made.markdown))
    return made


@pytest.fixture
def sales(hand_over: HandOver) -> Workflow:
    return hand_over("sales", "stock", prefect_yaml=DECLARED)


@pytest.fixture
def done(register: Register, sales: Workflow) -> list[Change]:
    return register(sales)


def show(environment: Environment, workflow: Workflow, done: list[Change], as_json: bool = False) -> None:
    report.show(environment, workflow, IMAGE, done, as_json)


def test_table_has_every_deployment_and_what_became_of_it(
    environment: Environment, sales: Workflow, done: list[Change], capsys: pytest.CaptureFixture[str]
) -> None:
    show(environment, sales, done)
    printed = capsys.readouterr().out
    cells = [line.split() for line in printed.splitlines()]

    assert cells[1] == ["deployment", "schedule", "cpu", "/", "memory"]
    assert cells[2][:9] == ["sales/dev", "created", "*/5", "*", "*", "*", "*", "Europe/Berlin,", "every"]
    assert cells[2][-3:] == ["1024", "/", "4096"]
    assert cells[3] == ["stock/dev", "created", "-", "512", "/", "1024"]
    assert ["version", COMMIT] in cells
    assert ["image", IMAGE.pinned] in cells
    assert printed.splitlines()[-1] == "next: .venv/bin/invoke run sales/dev --env dev"


def test_next_command_can_be_typed_as_it_is(
    environment: Environment, sales: Workflow, done: list[Change], capsys: pytest.CaptureFixture[str]
) -> None:
    show(environment, sales, [dataclasses.replace(done[0], flow="Sales; Report")])

    assert capsys.readouterr().out.splitlines()[-1].endswith("invoke run 'Sales; Report/dev' --env dev")


def test_folder_outside_git_has_the_tag_of_its_image_as_version(
    environment: Environment, hand_over: HandOver, register: Register, capsys: pytest.CaptureFixture[str]
) -> None:
    workflow = hand_over("sales", commit="", origin="")
    show(environment, workflow, register(workflow), as_json=True)

    assert json.loads(capsys.readouterr().out)["version"] == IMAGE.tag


def test_choices_made_at_prefect_are_notes_of_their_deployment(
    environment: Environment, sales: Workflow, done: list[Change], page: Page, capsys: pytest.CaptureFixture[str]
) -> None:
    noted = [dataclasses.replace(done[0], notes=("kept: its work queue is slow",)), done[1]]
    note = "sales/dev: kept: its work queue is slow"
    show(environment, sales, noted)
    shown = capsys.readouterr()
    report.show_plan(environment, sales, IMAGE, noted, as_json=True)

    assert f"note: {note}" in shown.out.splitlines()
    assert shown.err == f"::warning::{note}\n"
    assert f"- {note}" in page.summary.splitlines()
    assert json.loads(capsys.readouterr().out)["notes"] == [note]


def test_json_is_all_there_is_on_standard_output(
    environment: Environment, sales: Workflow, done: list[Change], page: Page, capsys: pytest.CaptureFixture[str]
) -> None:
    noted = dataclasses.replace(sales, notes=("prefect.yaml: build is not used",))
    show(environment, noted, done, as_json=True)
    printed = capsys.readouterr()
    told = json.loads(printed.out)
    first, second = told["deployments"]

    assert printed.err == "::warning::prefect.yaml: build is not used\n"
    assert (told["environment"], told["workflow"], told["version"]) == ("dev", "etl", COMMIT)
    assert told["image"] == IMAGE.pinned
    assert told["notes"] == ["prefect.yaml: build is not used"]
    assert (first["name"], first["action"], first["size"]) == ("sales/dev", "created", "1024 / 4096")
    assert first["schedule"] == "*/5 * * * * Europe/Berlin, every 3600 s (off)"
    assert (second["name"], second["schedule"], second["capacity_provider"]) == ("stock/dev", "-", None)
    assert second["url"].startswith(f"{PAGE}/")
    assert second["url"].endswith(f"/deployments/deployment/{done[1].identifier}")


def test_outputs_are_the_inputs_of_later_steps(
    environment: Environment, sales: Workflow, done: list[Change], page: Page
) -> None:
    show(environment, sales, done)

    assert set(page.outputs) == {"deployments", "deployment_urls", "image"}
    assert json.loads(page.outputs["deployments"]) == ["sales/dev", "stock/dev"]
    assert [url.rpartition("/")[2] for url in json.loads(page.outputs["deployment_urls"])] == [
        change.identifier for change in done
    ]
    assert page.outputs["image"] == IMAGE.pinned


def test_summary_is_a_table_whose_cells_are_shown_as_they_are(
    environment: Environment, sales: Workflow, done: list[Change], page: Page
) -> None:
    strange = dataclasses.replace(done[1], flow="a|b [x](y) `c`\n| d <img>")
    show(environment, dataclasses.replace(sales, notes=("a note of <environment>\n# and more",)), [done[0], strange])
    lines = page.summary.splitlines()
    rows = [line for line in lines if line.startswith("| ")]

    assert lines[0] == "### Workflow `etl` in environment `dev`"
    assert rows[0] == "| deployment | | schedule | cpu / memory | version |"
    assert f"| [sales/dev]({PAGE}" in rows[2]
    assert rows[2].endswith(
        f" | created | \\*/5 \\* \\* \\* \\* Europe/Berlin, every 3600 s (off) | 1024 / 4096 | {COMMIT[:12]} |"
    )
    assert rows[3].startswith("| [a\\|b \\[x\\](y) \\`c\\` \\| d \\<img>/dev](")
    assert len(rows) == 4
    assert f"Image `{IMAGE.pinned}`" in lines
    assert lines[-1] == "- a note of \\<environment> # and more"


def test_nothing_is_handed_on_outside_of_a_job(
    environment: Environment,
    sales: Workflow,
    done: list[Change],
    page: Page,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.delenv("GITHUB_ACTIONS")
    show(environment, dataclasses.replace(sales, notes=("a note",)), done)
    printed = capsys.readouterr()

    assert (page.outputs, page.summary) == ({}, "")
    assert "::" not in printed.out + printed.err
    assert "note: a note" in printed.out.splitlines()


@pytest.mark.parametrize("prune", [False, True])
def test_deployment_of_a_flow_that_is_gone_is_told_and_not_handed_on(
    environment: Environment,
    hand_over: HandOver,
    register: Register,
    page: Page,
    capsys: pytest.CaptureFixture[str],
    prune: bool,
) -> None:
    register(hand_over("sales", "stock"))
    fewer = hand_over("sales")
    show(environment, fewer, register(fewer, prune=prune))
    told = "stock/dev: its flow is no longer in the folder, so it is paused; --prune deletes it"
    printed = capsys.readouterr()

    assert (f"note: {told}" in printed.out) is not prune
    assert (f"::warning::{told}" in printed.err) is not prune
    assert ["stock/dev", "deleted" if prune else "paused", "-", "-"] in [
        line.split() for line in printed.out.splitlines()
    ]
    assert json.loads(page.outputs["deployments"]) == ["sales/dev"]


def test_deployment_that_was_paused_before_is_not_handed_on_either(
    environment: Environment, hand_over: HandOver, register: Register, page: Page
) -> None:
    register(hand_over("sales", "stock"))
    register(hand_over("sales"))
    fewer = hand_over("sales")
    again = register(fewer)
    show(environment, fewer, again)

    assert [change.action for change in again] == ["keep", "keep"]
    assert json.loads(page.outputs["deployments"]) == ["sales/dev"]


@pytest.mark.parametrize("foreseen", [True, False], ids=["image-known", "image-new"])
def test_dry_run_tells_the_plan_and_hands_nothing_on(
    environment: Environment,
    sales: Workflow,
    done: list[Change],
    page: Page,
    capsys: pytest.CaptureFixture[str],
    foreseen: bool,
) -> None:
    image = IMAGE if foreseen else dataclasses.replace(IMAGE, digest="")
    noted = dataclasses.replace(sales, notes=("a note",))
    report.show_plan(environment, noted, image, done if foreseen else None, as_json=False)
    lines = capsys.readouterr().out.splitlines()
    report.show_plan(environment, noted, image, done if foreseen else None, as_json=True)
    told = json.loads(capsys.readouterr().out)
    action = "create" if foreseen else "create or update"

    assert lines[0] == "dry run: nothing was built or changed"
    assert lines[1].endswith("already in ECR" if foreseen else "to be built and pushed")
    assert [line.split(maxsplit=1) for line in lines[2:4]] == [["sales/dev", action], ["stock/dev", action]]
    assert lines[4] == "note: a note"
    assert (told["dry_run"], told["build"], told["notes"]) == (True, not foreseen, ["a note"])
    assert told["deployments"] == [{"name": name, "action": action} for name in ("sales/dev", "stock/dev")]
    assert (page.outputs, page.summary) == ({}, "")


def test_spot_and_sizes_that_were_chosen_are_shown(
    environment: Environment, hand_over: HandOver, register: Register, capsys: pytest.CaptureFixture[str]
) -> None:
    workflow = hand_over("sales", choice=Choice((), "ecs_fargate_spot", 256, 512))
    show(environment, workflow, register(workflow), as_json=True)
    [row] = json.loads(capsys.readouterr().out)["deployments"]

    assert (row["size"], row["capacity_provider"]) == ("256 / 512", "FARGATE_SPOT")


@pytest.mark.parametrize(
    ("schedule", "told"),
    [
        ({"schedule": {"cron": "@daily", "timezone": "UTC"}, "active": True}, "@daily"),
        ({"schedule": {"cron": "0 6 * * *", "timezone": "Asia/Tokyo"}}, "0 6 * * * Asia/Tokyo"),
        ({"schedule": {"interval": 90.0, "timezone": None}}, "every 90 s"),
        ({"schedule": {"interval": 0.5}, "active": False}, "every 0.5 s (off)"),
        ({"schedule": {"rrule": "FREQ=DAILY", "timezone": "UTC"}}, "FREQ=DAILY"),
        ({"schedule": None}, "?"),
        ({}, "?"),
    ],
)
def test_schedule_is_told_in_a_few_words(schedule: dict[str, Any], told: str) -> None:
    assert schedule_text(schedule) == told
