"""`nox -s lint` fails for what each of its checkers is there to find: a fault for each, all in one copy."""

import contextlib
import re
import shutil
import subprocess
import sys
from pathlib import Path

from functional_tests.platform import ROOT, copy_checkout

WORKFLOW = """name: planted
on: push
permissions: {{}}
jobs:
  planted:
    runs-on: ubuntu-24.04
    timeout-minutes: 1
    steps:
      - {step}
"""
POLICY = """
resource "aws_iam_role_policy" "planted" {
  name   = "planted"
  role   = aws_iam_role.this["agent_task"].id
  policy = jsonencode({ Statement = [{ Effect = "Allow", Action = "ecs:RunTusk", Resource = "*" }] })
}
"""
OPEN_PORT = """
resource "aws_vpc_security_group_ingress_rule" "planted" {
  security_group_id = aws_security_group.tasks.id
  cidr_ipv4         = "0.0.0.0/0"
  ip_protocol       = "tcp"
  from_port         = 22
  to_port           = 22
}
"""
FAULTS = {
    "mypy": ("infra/roles.py", '\nPLANTED: int = "text"\n', "Incompatible types in assignment"),
    "ruff": ("environments/fargate.py", "\nimport json\n", "F401"),
    "terraform": ("infra/outputs.tf", "\nlocals {\nplanted=1\n}\n", "planted = 1"),
    "policies": ("infra/iam.tf", POLICY, "Unknown action ecs:RunTusk"),
    "checkov": ("infra/network.tf", OPEN_PORT, "CKV_AWS_24"),
    "actionlint": (
        ".github/workflows/planted_1.yaml",
        WORKFLOW.format(step='run: echo "${{ github.event_nam }}"'),
        'property "event_nam" is not defined',
    ),
    "zizmor": (
        ".github/workflows/planted_2.yaml",
        WORKFLOW.format(step="uses: actions/checkout@main"),
        "unpinned-uses",
    ),
    "schemas": ("register_action/action.yml", "\nplanted: true\n", "'planted' was unexpected"),
    "shellcheck": (".ci/run", "echo $1\n", "SC2086"),
    "hadolint": ("agent/Dockerfile", "RUN sudo true\n", "DL3004"),
}
"""By checker: a file, what is added at its end, and what the checker says of it."""


def test_every_checker_fails_lint(tmp_path: Path) -> None:
    copy_checkout(tmp_path)
    for made in ("checkers", "checkov"):
        (tmp_path / ".local" / "lint").mkdir(exist_ok=True)
        (tmp_path / ".local" / "lint" / made).symlink_to(ROOT / ".local" / "lint" / made)
    with contextlib.suppress(FileNotFoundError):  # it only saves time
        shutil.copytree(ROOT / ".mypy_cache", tmp_path / ".mypy_cache")
    for name, text, _ in FAULTS.values():
        with (tmp_path / name).open("a", encoding="utf-8") as file:
            file.write(text)
    command = [sys.executable, "-m", "nox", "-s", "lint"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    parts = re.split(r"^(ok|failed) +(\S+) .*\n", done.stdout, flags=re.MULTILINE)[1:]
    said = {name: (state, words) for state, name, words in zip(parts[::3], parts[1::3], parts[2::3], strict=True)}

    assert done.returncode == 1
    assert said.pop("init")[0] == "ok"
    assert {name: state for name, (state, _) in said.items()} == dict.fromkeys(FAULTS, "failed")
    assert {name: said[name][1] for name, (_, _, told) in FAULTS.items() if told not in said[name][1]} == {}
