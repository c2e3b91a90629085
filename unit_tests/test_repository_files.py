"""Files that GitHub and visitors of the repository read: license, owners, rulesets, changelog, and links of pages."""

import fnmatch
import hashlib
import json
import re
from pathlib import Path
from typing import Any

import pytest

from environments.settings import ROOT
from unit_tests.test_pipelines import CALLERS

APACHE_2 = "cfc7749b96f63bd31c3c42b5c471bf756814053e847c10f3eb003417bc523d30"
"""SHA-256 of https://www.apache.org/licenses/LICENSE-2.0.txt."""
PAGES = [
    *(ROOT / name for name in ("README.md", "CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md")),
    *sorted((ROOT / "docs").glob("*.md")),
    ROOT / "register_action" / "README.md",
]
LINK = re.compile(r"\]\(([^)\s]+)\)")
DECIDES_WHO_MAY = (
    *(
        "account",
        "github_setup",
        "iam.tf",
        "iam_contract",
        "kept_plans",
        "permissions",
        "policy_documents",
        "preflight",
    ),
    *("roles", "state", "trust"),
)


def ruleset(name: str) -> dict[str, Any]:
    found = json.loads((ROOT / ".github" / "rulesets" / f"{name}.json").read_text(encoding="utf-8"))
    assert isinstance(found, dict)
    return found


def owned() -> list[str]:
    """The patterns of CODEOWNERS, relative to the root of the repository."""
    lines = (ROOT / ".github" / "CODEOWNERS").read_text(encoding="utf-8").splitlines()
    entries = [line.split() for line in lines if line and not line.startswith("#")]
    assert {tuple(owners) for _, *owners in entries} == {("@your-org/platform-maintainers",)}
    return [pattern.removeprefix("/") for pattern, *_ in entries]


def anchors(page: Path) -> set[str]:
    """What a link can point to in a page: https://docs.github.com/en/get-started/writing-on-github, section links."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_the_license_is_the_official_text() -> None:
    assert hashlib.sha256((ROOT / "LICENSE").read_bytes()).hexdigest() == APACHE_2


def test_every_owner_owns_something() -> None:
    assert [pattern for pattern in owned() if not list(ROOT.glob(pattern.rstrip("/")))] == []


@pytest.mark.parametrize("name", [*(f"infra/{module}" for module in DECIDES_WHO_MAY), ".github/workflows"])
def test_what_decides_who_may_do_what_has_an_owner(name: str) -> None:
    assert [pattern for pattern in owned() if fnmatch.fnmatch(name, pattern.rstrip("/") + "*")]


@pytest.mark.parametrize(("_", "environment", "tag"), CALLERS.values(), ids=CALLERS)
def test_the_ruleset_covers_each_deployed_tag(_: list[str], environment: str, tag: str) -> None:
    rules = ruleset("deployed_tags")
    (pattern,) = rules["conditions"]["ref_name"]["include"]
    assert rules["target"] == "tag"
    assert fnmatch.fnmatch(f"refs/tags/{tag}", pattern)


def test_tags_stay_movable() -> None:
    """The pipeline moves them with GitHub's own token, which no ruleset can except."""
    assert ruleset("deployed_tags")["rules"] == [{"type": "deletion"}]


def test_the_ruleset_of_branches_covers_those_that_deploy_test_and_prod() -> None:
    rules = ruleset("deploying_branches")
    deploying = {branch for branches, environment, _ in CALLERS.values() if environment != "dev" for branch in branches}
    assert rules["target"] == "branch"
    assert set(rules["conditions"]["ref_name"]["include"]) == {f"refs/heads/{branch}" for branch in deploying}
    (review,) = (rule["parameters"] for rule in rules["rules"] if rule["type"] == "pull_request")
    assert review["require_code_owner_review"] is True


def test_every_section_of_the_changelog_starts_with_upgrade_notes() -> None:
    sections = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8").split("\n## ")[1:]
    titles = [section.partition("\n")[0] for section in sections]
    kinds = {"Upgrade notes", "Added", "Changed", "Deprecated", "Removed", "Fixed", "Security"}

    assert titles[0] == "Unreleased"
    assert titles[1:] == sorted(titles[1:], reverse=True)
    assert [title for title in titles[1:] if not re.fullmatch(r"\d{4}-\d\d-\d\d", title)] == []
    for section in sections:
        found = re.findall(r"^### (.+)$", section, re.MULTILINE)
        assert found[0] == "Upgrade notes"
        assert set(found) <= kinds


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_between_pages_lead_somewhere(page: Path) -> None:
    broken = []
    for link in LINK.findall(page.read_text(encoding="utf-8")):
        if re.match(r"[a-z]+:", link):
            continue
        name, _, anchor = link.partition("#")
        target = page.parent / name if name else page
        if not target.exists() or (anchor and anchor not in anchors(target)):
            broken.append(link)
    assert broken == []
