"""The platform that the functional tests share, and what they are run with.

`nox -s test-functional` runs them in three workers of pytest-xdist, each with a platform of its own: the files in
FIRST_PLATFORM on one, those that inject faults on another, the rest on the third. NETWORKS needs the emulated AWS
alone, and goes to whichever worker is done first. Without workers they run one after the other on one platform.
`--env dev` runs those that hold for any environment against a real one, and leaves the others out.
"""

import shutil
import tempfile
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import Any

import pytest

from environments import github_actions
from functional_tests import canary
from functional_tests.faults import Faults
from functional_tests.platform import Platform, RealPlatform, take_away, unmet_preconditions

FIRST_PLATFORM = (
    "test_0_lint",
    "test_1_deploy",
    "test_1_tour",
    "test_2_workflows",
    "test_5_failures",
    "test_7_destroy",
    "test_8_guards",
    "test_8_kms",
)
"""Most need a platform that was never up, break it, change its settings and key, or take it away."""
FAULTS = "test_r"
"""What the names of files that inject faults begin with."""
NETWORKS = "test_networks"
"""Takes environments of its own beside the platform's through everything."""
LAST = "test_7_destroy"
SHARED = pytest.StashKey[Path]()
"""Folder of all workers: a file STOPPED when one has had its share of failures, a link to each platform there is."""
STOPPED, PLATFORM = "stopped", "platform-"


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--env", default="local", help="environment under test; not local: deployed on AWS already")
    parser.addoption("--full", action="store_true", help="inject faults as often as docs/reliability.md says")
    parser.addoption("--faults", type=Path, help="append to this file what became of each fault, as lines of JSON")


def pytest_configure(config: pytest.Config) -> None:
    """Prepare for workers, and refuse them where there is one environment only.

    In a job of GitHub Actions, commands that tests start would take the checkouts of the tests for the job's own.
    """
    github_actions.leave_job()
    if shared := getattr(config, "workerinput", {}).get("shared"):
        config.stash[SHARED] = Path(shared)
    elif config.getoption("numprocesses", None):
        if config.getoption("env") != "local":
            raise pytest.UsageError("--env and workers don't go together: there is only one such environment")
        config.stash[SHARED] = Path(tempfile.mkdtemp())
        config.add_cleanup(lambda: clean_up(config.stash[SHARED]))


def clean_up(shared: Path) -> None:
    """Take away the platforms of workers that were cut off: after Ctrl-C xdist leaves them but seconds."""
    for link in shared.glob(f"{PLATFORM}*"):
        take_away(link.resolve())
    shutil.rmtree(shared)


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: Any) -> None:
    """Tell a worker of xdist the folder that it shares with the others."""
    node.workerinput["shared"] = str(node.config.stash[SHARED])


def pytest_sessionstart(session: pytest.Session) -> None:
    """Refuse to begin when the environment under test is not ready."""
    name = session.config.getoption("env")
    listing = session.config.getoption("collectonly")
    if name != "local" and not listing and (problems := unmet_preconditions(name)):
        raise pytest.UsageError(f"environment {name} can't be tested:\n{problems}")


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Give each worker the tests of one platform, in their order.

    Groups of --dist=loadgroup are silently ignored by xdist 3.8 with pytest 9.2, which made ids of tests read-only:
    https://github.com/pytest-dev/pytest-xdist/issues/1386
    """
    from xdist.scheduler import LoadScopeScheduling

    class OnePlatformEach(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            name = Path(nodeid.partition("::")[0]).stem
            if name == NETWORKS:
                return NETWORKS
            return "first" if name in FIRST_PLATFORM else "faults" if name.startswith(FAULTS) else "rest"

    return OnePlatformEach(config, log)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Put the test that takes the platform away last; leave out what does not hold for the environment under test."""
    items.sort(key=lambda item: item.path.stem == LAST)
    kept = items if config.getoption("full") else [item for item in items if not item.get_closest_marker("full")]
    if config.getoption("env") != "local":
        kept = [item for item in kept if item.get_closest_marker("any_environment")]
    if left_out := [item for item in items if item not in kept]:
        config.hook.pytest_deselected(items=left_out)
        items[:] = kept


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    """With workers, let --maxfail stop the other one too, as soon as the test that it is at has ended."""
    done = yield
    if shared := item.config.stash.get(SHARED, None):
        if item.session.shouldfail:
            (shared / STOPPED).touch()
        elif (shared / STOPPED).exists():
            item.session.shouldstop = "a test on the other platform has failed"
    return done


@pytest.fixture(scope="session")
def platform(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    """A platform with nothing deployed yet; whatever tests leave of it is destroyed at the end.

    With --env it is that environment, which is deployed and stays so. In both, what processes are called with and what
    commands print is remembered for those who look for secrets there.
    """
    name = request.config.getoption("env")
    with canary.watched_processes() as arguments:
        if name != "local":
            yield RealPlatform(name, arguments)
            return
        platform = Platform(Path(tmp_path_factory.mktemp("platform")).resolve(), arguments)
        link = request.config.stash.get(SHARED, tmp_path_factory.getbasetemp()) / f"{PLATFORM}{platform.aws_port}"
        link.symlink_to(platform.folder)
        yield platform
        take_away(platform.folder)
        link.unlink()


@pytest.fixture(scope="session")
def first_deploy(platform: Platform) -> str:
    """What the first deploy printed; the platform is up after it."""
    return "" if isinstance(platform, RealPlatform) else platform.invoke("deploy").stdout


@pytest.fixture
def deployed(platform: Platform, first_deploy: str) -> Platform:
    """A platform that is up."""
    return platform


@pytest.fixture(scope="session")
def sample_workflow(platform: Platform, first_deploy: str) -> Platform:
    """A platform that is up and has the sample workflow registered."""
    platform.invoke("register", "--workflow-path", "examples/sample_workflow/workflow")
    return platform


@pytest.fixture(scope="session")
def faults(request: pytest.FixtureRequest) -> Faults:
    """Takes down what became of the faults that a test injects."""
    return Faults(request.config.getoption("faults"))


@pytest.fixture(scope="session")
def often(request: pytest.FixtureRequest) -> Callable[[int, int], int]:
    """How often to do something: the first number in the gate, the second with --full."""
    full = request.config.getoption("full")
    return lambda quick, thorough: thorough if full else quick


@pytest.fixture(scope="session")
def runners_machine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of the machine that GitHub Actions' jobs run on; the tools that the action installs stay there."""
    return tmp_path_factory.mktemp("machine")
