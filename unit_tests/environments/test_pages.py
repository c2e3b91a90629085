"""Where the pages of an environment are, and which of them is opened."""

import webbrowser
from types import SimpleNamespace
from typing import Any
from urllib.parse import urlsplit

import pytest

from environments import pages
from environments.errors import PlatformError
from environments.secrets import prefect_key
from environments.settings import Environment

REGION = "https://eu-west-1.console.aws.amazon.com"


def terminal(there: bool) -> Any:
    """A `sys` whose output goes to a terminal, or elsewhere."""
    return SimpleNamespace(stdout=SimpleNamespace(isatty=lambda: there))


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The addresses that the browser was told to open, with somebody at a terminal."""
    addresses: list[str] = []

    def browse(url: str) -> bool:
        addresses.append(url)
        return True

    monkeypatch.setattr(webbrowser, "open", browse)
    monkeypatch.setattr(pages, "sys", terminal(True))
    return addresses


def test_pages_of_aws_are_those_of_region_account_and_names(environment: Environment) -> None:
    found = pages.of(environment)
    agent, workflows = "dev_dataflow_automation_agent", "dev_dataflow_automation_workflows"

    assert found["agent"] == f"{REGION}/ecs/v2/clusters/{agent}/services/{agent}/health?region=eu-west-1"
    assert found["workflows"] == f"{REGION}/ecs/v2/clusters/{workflows}/tasks?region=eu-west-1"
    groups = f"{REGION}/cloudwatch/home?region=eu-west-1#logsV2:log-groups/log-group"
    assert (found["agent-logs"], found["workflow-logs"]) == (f"{groups}/{agent}", f"{groups}/{workflows}")
    assert found["agent-image"] == f"{REGION}/ecr/repositories/private/123456789012/{agent}?region=eu-west-1"


def test_project_on_prefect_cloud_is_in_its_workspace(environment: Environment) -> None:
    ids = "account/11111111-1111-4111-8111-111111111111/workspace/22222222-2222-4222-8222-222222222222"
    page = f"https://app.prefect.cloud/{ids}/work-pools/work-pool/dev_dataflow_automation"

    assert pages.of(environment)["prefect"] == page


def test_local_has_prefect_on_this_machine_and_no_console(
    local: Environment, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    key = prefect_key(local)
    pages.show(local, "prefect", True)
    printed = capsys.readouterr().out

    assert {urlsplit(url).hostname for url in pages.of(local).values()} == {"127.0.0.1"}
    assert "no console" in printed
    assert "cat .local/local/prefect_key" in printed
    assert key not in printed


@pytest.mark.parametrize("what", ["prefect", "agent-logs"])
def test_one_page_is_opened_and_all_are_printed(
    environment: Environment, opened: list[str], capsys: pytest.CaptureFixture[str], what: str
) -> None:
    pages.show(environment, what, True)
    printed = capsys.readouterr().out

    assert opened == [pages.of(environment)[what]]
    assert all(url in printed for url in pages.of(environment).values())
    assert "account 123456789012" in printed


def test_nothing_is_opened_without_a_terminal_or_when_no_browser_is_wanted(
    environment: Environment, opened: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    pages.show(environment, "prefect", False)
    monkeypatch.setattr(pages, "sys", terminal(False))
    pages.show(environment, "prefect", True)

    assert opened == []


def test_machine_without_a_browser_is_told(
    environment: Environment,
    opened: list[str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(webbrowser, "open", lambda _: False)
    pages.show(environment, "prefect", True)

    assert "no browser here" in capsys.readouterr().out


def test_unknown_page_gets_one_that_is_there_and_the_list(environment: Environment, local: Environment) -> None:
    with pytest.raises(PlatformError) as caught:
        pages.show(environment, "agent-log", True)

    assert "did you mean agent-logs? there are: prefect, " in caught.value.why
    with pytest.raises(PlatformError, match="environment local has no page 'agent'"):
        pages.show(local, "agent", True)
