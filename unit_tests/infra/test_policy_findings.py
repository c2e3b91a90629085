"""What becomes of the linter's findings; the linter is a fake."""

import sys
import types
from pathlib import Path
from typing import Any

import pytest

from infra import policy_findings


@pytest.mark.parametrize(
    ("files", "code"),
    [
        ({}, 1),
        ({"deploy": ""}, 0),
        ({"deploy": "", "plan": "RESOURCE_STAR"}, 1),
        ({"boundary": "RESOURCE_STAR"}, 0),
        ({"boundary": "UNKNOWN_ACTION"}, 1),
        ({"key": "RESOURCE_STAR"}, 0),
        ({"one_aws_sqs_queue_policy_this_policy": "RESOURCE_STAR"}, 1),
        ({"deploy": "RESOURCE_STAR ecs:ListTasks"}, 0),
        ({"deploy": "RESOURCE_STAR ecs:ListTasks ecs:StopTask"}, 1),
        ({"deploy": "UNKNOWN_ACTION ecs:ListTasks"}, 1),
    ],
)
def test_a_finding_fails_unless_it_is_one_that_is_left_out(
    files: dict[str, str],
    code: int,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def analyze(text: str) -> Any:
        issue, *actions = text.split() or [""]
        detail = actions or ["ecs:RunTask"]
        told = types.SimpleNamespace(issue=issue, severity="LOW", title=issue, detail=detail, location={"line": 7})
        return types.SimpleNamespace(findings=[told] if text else [])

    parliament = types.SimpleNamespace(analyze_policy_string=analyze, enhance_finding=lambda finding: finding)
    monkeypatch.setitem(sys.modules, "parliament", parliament)
    monkeypatch.setattr(sys, "argv", ["policy_findings", str(tmp_path)])
    for name, issue in files.items():
        (tmp_path / f"{name}.json").write_text(issue)

    assert policy_findings.main() == code
    printed = capsys.readouterr().out.splitlines()
    assert len(printed) == 1 + (code if files else 0)
    assert all(":7: LOW " in line for line in printed[:-1])
