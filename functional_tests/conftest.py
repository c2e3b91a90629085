"""The platform that the functional tests share."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from functional_tests.platform import Platform


@pytest.fixture(scope="session")
def platform(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    """A platform with nothing deployed yet; whatever tests leave of it is destroyed at the end."""
    platform = Platform(Path(tmp_path_factory.mktemp("platform")).resolve())
    yield platform
    platform.invoke("destroy", "--yes")


@pytest.fixture(scope="session")
def first_deploy(platform: Platform) -> str:
    """What the first deploy printed; the platform is up after it."""
    return platform.invoke("deploy").stdout


@pytest.fixture
def deployed(platform: Platform, first_deploy: str) -> Platform:
    """A platform that is up."""
    return platform


@pytest.fixture(scope="session")
def sample_workflow(platform: Platform, first_deploy: str) -> Platform:
    """A platform that is up and has the sample workflow registered."""
    platform.invoke("register", "--workflow-path", "examples/sample_workflow/workflow")
    return platform
