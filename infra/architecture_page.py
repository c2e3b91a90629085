"""Draws the pictures of docs/architecture.md: what Terraform makes, from its own graph, and the steps of a deploy.

    invoke deploy --json > deploy.json && python -m infra.architecture_page deploy.json

https://developer.hashicorp.com/terraform/cli/commands/graph, https://mermaid.js.org/syntax/flowchart.html
"""

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from environments import markdown
from environments.settings import ROOT
from infra.terraform_process import MODULE, program

PAGE = ROOT / "docs" / "architecture.md"
EDGE = re.compile(r'^\s*"([^"]+)" -> "([^"]+)";$', re.MULTILINE)
BLOCK = re.compile(r'^(resource|data) "(\w+)" "(\w+)"', re.MULTILINE)
LOCAL_BACKEND = 'terraform {\n  backend "local" {}\n}\n'
"""Without a backend there is no graph, and the module's own wants a bucket."""
Edges = set[tuple[str, str]]


def main(arguments: Sequence[str]) -> int:
    """Write both pictures into the page; the argument is a file with what `invoke deploy --json` printed."""
    (deploy,) = arguments
    with tempfile.TemporaryDirectory() as folder:
        parts = [resources(graph(Path(folder))), process(json.loads(Path(deploy).read_text(encoding="utf-8"))["steps"])]
    page = PAGE.read_text(encoding="utf-8")
    PAGE.write_text(markdown.fill(page, "\n\n".join(parts)), encoding="utf-8")
    return 0


def graph(folder: Path) -> str:
    """What `terraform graph` says of the module, in the language of Graphviz.

    Args:
        folder: an empty one, for a copy of the module.
    """
    for file in (*MODULE.glob("*.tf"), MODULE / ".terraform.lock.hcl"):
        shutil.copy(file, folder)
    (folder / "backend_override.tf").write_text(LOCAL_BACKEND, encoding="utf-8")
    variables = {name: value for name, value in os.environ.items() if not name.startswith("TF_")}
    if (configuration := ROOT / ".local" / "terraform.rc").exists():
        variables["TF_CLI_CONFIG_FILE"] = str(configuration)
    terraform = [program(), f"-chdir={folder}"]
    subprocess.run([*terraform, "init", "-input=false"], env=variables, check=True, capture_output=True)
    done = subprocess.run([*terraform, "graph"], env=variables, check=True, capture_output=True, text=True)
    return done.stdout


def resources(dot: str) -> str:
    """A picture of the module's files, with the types of resources in each, and which needs which."""
    files = {address: file for file, address in _blocks()}
    edges = {(files[one], files[other]) for one, other in EDGE.findall(dot) if files[one] != files[other]}
    types: dict[str, set[str]] = {file: set() for file in sorted(files.values())}
    for file, address in _blocks():
        if not address.startswith("data."):
            types[file].add(address.partition(".")[0].removeprefix("aws_"))
    nodes = {file: "<br/>".join([f"<b>{file}</b>", *sorted(types[file])]) for file in types}
    return _flowchart("What Terraform makes, by the file of `infra/`; an arrow is what needs what", nodes, edges)


def process(steps: list[dict[str, Any]]) -> str:
    """A picture of a deploy's steps, each with an arrow to those that wait for it."""
    nodes = {step["name"]: step["name"] for step in steps}
    edges = {(need, step["name"]) for step in steps for need in step["needs"]}
    return _flowchart("Steps of `invoke deploy` in `local`; an arrow is what waits for what", nodes, edges)


def edges(page: str) -> list[Edges]:
    """The arrows of each picture of a page, by what stands in its boxes first."""
    found = []
    for picture in re.findall(r"```mermaid\n(.*?)```", page, re.DOTALL):
        nodes = dict(re.findall(r'(\w+)\["(?:<b>)?([^"<]+)', picture))
        found.append({(nodes[one], nodes[other]) for one, other in re.findall(r"(\w+) --> (\w+)", picture)})
    return found


def _blocks() -> Iterator[tuple[str, str]]:
    """File and address of each resource and data source of the module."""
    for path in sorted(MODULE.glob("*.tf")):
        for kind, of_type, name in BLOCK.findall(path.read_text(encoding="utf-8")):
            yield path.name, f"{'data.' if kind == 'data' else ''}{of_type}.{name}"


def _flowchart(title: str, nodes: dict[str, str], edges: Edges) -> str:
    ids = {name: f"n{number}" for number, name in enumerate(nodes)}
    boxes = [f'    {ids[name]}["{text}"]' for name, text in nodes.items()]
    arrows = [f"    {ids[one]} --> {ids[other]}" for one, other in sorted(edges)]
    return "\n".join([f"{title}:", "", "```mermaid", "flowchart LR", *boxes, *arrows, "```"])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
