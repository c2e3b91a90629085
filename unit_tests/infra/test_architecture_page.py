import json
from pathlib import Path

import pytest

from infra import architecture_page as page

STEPS = [
    {"name": "Checks", "needs": []},
    {"name": "Agent image", "needs": ["Checks"]},
    {"name": "Agent", "needs": ["Agent image", "Checks"]},
]
DOT = """digraph G {
  "aws_ecs_service.agent" [label="aws_ecs_service.agent"];
  "aws_ecs_service.agent" -> "aws_ecs_task_definition.agent";
  "aws_ecs_service.agent" -> "aws_security_group.tasks";
  "data.aws_iam_policy_document.agent_task" -> "aws_sqs_queue.task_events";
}
"""


def test_process_has_an_arrow_for_each_need() -> None:
    assert page.edges(page.process(STEPS)) == [
        {("Checks", "Agent image"), ("Agent image", "Agent"), ("Checks", "Agent")}
    ]


def test_resources_are_drawn_by_their_files_with_what_one_file_needs_of_another() -> None:
    drawn = page.resources(DOT)

    assert page.edges(drawn) == [{("agent.tf", "network.tf"), ("iam.tf", "events.tf")}]
    assert "<b>clusters.tf</b><br/>cloudwatch_log_group<br/>ecs_cluster<br/>ecs_cluster_capacity_providers" in drawn


def test_both_pictures_are_put_into_the_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written, deploy = tmp_path / "page.md", tmp_path / "deploy.json"
    written.write_text("before\n<!-- table: begin -->\nold\n<!-- table: end -->\nafter\n")
    deploy.write_text(json.dumps({"steps": STEPS}))
    monkeypatch.setattr(page, "PAGE", written)
    monkeypatch.setattr(page, "graph", lambda _: DOT)

    assert page.main([str(deploy)]) == 0
    text = written.read_text()

    assert len(page.edges(text)) == 2
    assert text.startswith("before\n")
    assert text.endswith("after\n")
    assert "old" not in text
