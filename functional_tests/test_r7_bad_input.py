"""Bad input: thousands of made up cases for the components, and wrong command lines on a platform that is up."""

import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import hcl2
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings

from environments import settings
from functional_tests.faults import Faults
from functional_tests.platform import ROOT, Platform
from infra.terraform_process import program
from unit_tests.any_input.valid_settings import valid

pytestmark = pytest.mark.reliability

CASES = 5000
WRONG = (
    ("run", "sample_workflow\x1b[31m"),
    ("register", "--workflow-path", "examples/sample_workflow/workflow", "--flow", "nosuch\x1b[31m"),
    ("register", "--workflow-path", "x", "--git-url", "ext::sh -c 'touch it-ran'"),
    ("unlock", "${path.module}"),
    ("logs", "agent", "--lines", "0"),
    ("deploy", "--plan", "nosuch"),
    ("run", "sample_workflow", "--param", "=1"),
    ("run", "sample_workflow", "--cpu", "300"),
    ("run", "sample_workflow", "--param", "name=\x9b2J\udcff"),
    ("register", "--workflow-path", "functional_tests"),
    ("register", "--workflow-path", "examples/sample_workflow/workflow", "--name", "dataflow_automation_agent"),
    ("register", "--workflow-path", "examples/sample_workflow/workflow", "--branch-name", "a..b"),
    ("unregister", "--workflow-path", "\u202e", "--yes"),
    ("unregister", "--name", "nosuch", "--yes", "--env", "../local"),
    ("agent", "--up", "--down"),
    ("plan", "--out", "/proc/nosuch/plan"),
    ("destroy", "--yes", "--env", "prod"),
)
"""Command lines, each wrong in one way; the first ones get furthest before they fail."""


def _all_there_is(platform: Platform) -> dict[str, Any]:
    """What a command could have changed: at Prefect, in ECR, in ECS, and in the checkout."""
    deployments = platform.prefect("/deployments/filter")
    ecr, ecs = platform.aws("ecr"), platform.aws("ecs")
    repositories = [each["repositoryName"] for each in ecr.describe_repositories()["repositories"]]
    return {
        "deployments": sorted((each["id"], each["version"] or "", each["paused"]) for each in deployments),
        "images": {name: len(ecr.list_images(repositoryName=name)["imageIds"]) for name in repositories},
        "task definitions": sorted(ecs.list_task_definitions()["taskDefinitionArns"]),
        "files": sorted(str(file) for file in platform.folder.glob("*")),
    }


def test_wrong_command_lines_are_refused_in_words_and_change_nothing(
    sample_workflow: Platform, often: Callable[[int, int], int], faults: Faults
) -> None:
    before = _all_there_is(sample_workflow)
    typed = WRONG[: often(6, len(WRONG))]
    answers = {words: sample_workflow.invoke(*words, check=False) for words in typed}
    bad = [
        words
        for words, answer in answers.items()
        if answer.returncode != 1 or "Traceback" in answer.stdout or re.search("[\x1b\x9b\u202e]", answer.stdout)
    ]
    fault = faults.record("wrong command line on a platform that is up", injected=len(typed), lost=len(bad))

    assert fault.lost == 0, bad
    assert _all_there_is(sample_workflow) == before


def test_what_python_takes_for_settings_terraform_takes(tmp_path: Path, often: Callable[[int, int], int]) -> None:
    """By the rules of infra/variables.tf themselves, which Terraform's console judges all at once."""
    options = hcl2.SerializationOptions(with_comments=False, strip_string_quotes=True)
    blocks = hcl2.loads((ROOT / "infra" / "variables.tf").read_text(), serialization_options=options)["variable"]
    bodies = {name.strip('"'): body for block in blocks for name, body in block.items() if name != "__is_block__"}
    rules = [rule["condition"][2:-1] for body in bodies.values() for rule in body.get("validation", [])]
    defaults = {"environment": "dev", "agent_image_tag": "0" * 16}
    defaults |= {name: body.get("default") for name, body in bodies.items() if name in settings.fields()}
    cases: list[dict[str, Any]] = []

    @hypothesis_settings(max_examples=often(100, 2000), database=None)
    @given(valid())
    def collect(values: dict[str, Any]) -> None:
        cases.append({**defaults, **values})

    collect()
    (tmp_path / "cases.json").write_text(json.dumps(cases))
    judged = ", ".join(rule.replace("var.", "each.") for rule in rules).replace("\n", " ")
    question = f'jsonencode([for each in jsondecode(file("cases.json")) : [{judged}]])'
    answer = subprocess.run(
        [program(), "console"], cwd=tmp_path, input=question, capture_output=True, text=True, check=False
    )
    refused = [
        (case, rules[number])
        for case, verdicts in zip(cases, json.loads(json.loads(answer.stdout)), strict=True)
        for number, well in enumerate(verdicts)
        if not well
    ]

    assert len(rules) > 15, answer.stderr
    assert refused == []


def test_bad_input_to_the_components_is_refused_in_words(often: Callable[[int, int], int], faults: Faults) -> None:
    if not often(0, CASES):
        pytest.skip("the unit tests of the gate try fewer of the same cases")
    options = [
        "--hypothesis-profile=full",
        "--hypothesis-show-statistics",
        "--numprocesses=2",
        "--timeout=1800",
        "--tb=short",
    ]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "unit_tests/any_input", *options],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    told, _, statistics = done.stdout.partition("Hypothesis Statistics")
    cases = sum(map(int, re.findall(r"(\d+) passing, ", statistics)))
    properties = re.findall(r"^FAILED ", statistics, re.MULTILINE)
    fault = faults.record("bad input to the components", injected=cases, lost=len(properties))

    assert done.returncode == 0, told
    assert fault.injected >= CASES
    assert fault.lost == 0
