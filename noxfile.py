"""The gates. `nox` runs lint, dev-unit and test-functional; `nox -s bench` measures.

    nox -s dev-unit                    what a deploy to dev must pass
    nox -s test-functional             what a deploy to test must pass
    nox -s test-functional -- -k name  only some of the functional tests

The sessions run in the environment that nox itself is in, the project's .venv, which bootstrap.sh makes from the lock:
what is tested is what is used, and nothing is installed twice.
"""

import os
import sys
from pathlib import Path

import nox

nox.options.default_venv_backend = "none"
nox.options.sessions = ["lint", "dev-unit", "test-functional"]

ROOT = Path(__file__).parent
TERRAFORM_CONFIGURATION = ROOT / ".local" / "terraform.rc"
unit_tests_passed = False


@nox.session
def lint(session: nox.Session) -> None:
    """Check style, types and the Terraform module; changes nothing."""
    run(session, "ruff", "check", "--quiet", ".")
    run(session, "ruff", "format", "--quiet", "--check", ".")
    run(session, "mypy")
    terraform(session, "fmt", "-check", "-recursive", "-diff")
    terraform(session, "init", "-backend=false", "-input=false", silent=True)
    terraform(session, "validate")


@nox.session(name="dev-unit")
def dev_unit(session: nox.Session) -> None:
    """Unit tests: AWS calls against moto, no network, no engine, seconds."""
    run_unit_tests(session)


@nox.session(name="test-functional")
def test_functional(session: nox.Session) -> None:
    """Unit tests, then functional tests: the whole platform on this machine, with real containers."""
    run_unit_tests(session)
    # They share one platform, in order: what fails after the first one says nothing of its own.
    run(session, "pytest", "functional_tests", "--maxfail=1", *session.posargs)


@nox.session
def bench(session: nox.Session) -> None:
    """Measure start-up and a deploy from nothing, each against what one would do instead."""
    run(session, "functional_tests.bench", *session.posargs)


def run(session: nox.Session, module: str, *arguments: str) -> None:
    """Run a Python tool of this environment, wherever PATH points."""
    session.run(sys.executable, "-m", module, *arguments, external=True)


def run_unit_tests(session: nox.Session) -> None:
    """Run the unit tests once, however many sessions of this run want them."""
    global unit_tests_passed
    if not unit_tests_passed:
        run(session, "pytest", "unit_tests")
        unit_tests_passed = True


def terraform(session: nox.Session, *arguments: str, silent: bool = False) -> None:
    """Run Terraform on the root module, apart from any environment."""
    sys.path.insert(0, str(ROOT))
    from infra.terraform import program

    variables = {"TF_DATA_DIR": str(ROOT / ".local" / "lint")}
    if TERRAFORM_CONFIGURATION.exists():
        variables["TF_CLI_CONFIG_FILE"] = str(TERRAFORM_CONFIGURATION)
    session.run(program(), "-chdir=infra", *arguments, env={**os.environ, **variables}, external=True, silent=silent)
