"""The gates. `nox` runs lint, dev-unit and test-functional; `nox -s bench` and `nox -s reliability` measure.

    nox -s lint                           style, types, and what other people's checkers find
    nox -s lint -- zizmor mypy            only some of the checkers
    nox -s dev-unit                       what a deploy to dev must pass
    nox -s test-functional                what a deploy to test must pass
    nox -s test-functional -- -k name     only some of the functional tests
    nox -s reliability                    faults of all kinds, at full size, and the table of docs/reliability.md
    nox -s test-functional -- --env test  those that hold anywhere, on an environment that is deployed on AWS

The sessions run in the environment that nox itself is in, the project's .venv, which bootstrap.sh makes from the lock:
what is tested is what is used, and nothing is installed twice. Only checkers that have nothing to do with the project's
own Python have environments beside it, which lint makes below .local/lint when their locks have changed.
"""

import hashlib
import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import nox

nox.options.default_venv_backend = "none"
nox.options.sessions = ["lint", "dev-unit", "test-functional"]

ROOT = Path(__file__).parent
LINT = ROOT / ".local" / "lint"
POLICIES = LINT / "policies"
IAM_RECORD = ROOT / ".local" / "iam_record.jsonl"
TERRAFORM_CONFIGURATION = ROOT / ".local" / "terraform.rc"
ON_THREE_PLATFORMS = ("--numprocesses=3", "--verbose", "--durations=20")
TEARDOWN_SECONDS = 240.0
Command = list[str]
sys.path.insert(0, str(ROOT))
unit_tests_passed = False


@nox.session
def lint(session: nox.Session) -> None:
    """Run the checkers, side by side; changes nothing."""
    from environments.errors import PlatformError

    try:
        known = checkers()
    except (OSError, subprocess.CalledProcessError, PlatformError) as error:
        session.error(str(error))
    # Other arguments are for the other sessions of this run.
    chosen = {name: known[name] for name in session.posargs if name in known} or known
    # Once for both, and before them, because Terraform does not lock its folder of providers.
    if {"terraform", "policies"} & chosen.keys() and not passes("init", terraform("init", "-backend=false")):
        session.error("Terraform has no provider to check with")
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        good = list(pool.map(passes, chosen, chosen.values()))
    if not all(good):
        session.error(f"findings of {', '.join(name for name, well in zip(chosen, good, strict=True) if not well)}")


@nox.session(name="dev-unit")
def dev_unit(session: nox.Session) -> None:
    """Unit tests: AWS calls against moto, no network, no engine, seconds."""
    run_unit_tests(session)


@nox.session(name="test-functional")
def test_functional(session: nox.Session) -> None:
    """Unit tests, then functional tests: the whole platform on this machine, with real containers.

    When all of them have run, what each role called is checked against the reference of AWS (infra/iam_contract.py).
    """
    from environments.emulated_record import FILE_VARIABLE

    run_unit_tests(session)
    # Tests share a platform, in order: what fails after the first one says nothing of its own.
    arguments = ["functional_tests", "--maxfail=1", *(session.posargs or ON_THREE_PLATFORMS)]
    IAM_RECORD.unlink(missing_ok=True)
    session.run(
        sys.executable,
        "-m",
        "pytest",
        *arguments,
        external=True,
        env={FILE_VARIABLE: str(IAM_RECORD)},
        interrupt_timeout=TEARDOWN_SECONDS,  # after Ctrl-C they take their platforms away
    )
    if session.posargs or os.environ.get("PYTEST_ADDOPTS"):
        session.log("the IAM contract is not checked: with options for pytest, not every test may have run")
    elif not passes_iam_contract():
        session.error("findings of the IAM contract")


@nox.session
def reliability(session: nox.Session) -> None:
    """Inject every fault as often as docs/reliability.md says, and write its table; `-- -k name` only some of them."""
    records = ROOT / ".local" / "reliability.jsonl"
    records.parent.mkdir(exist_ok=True)
    records.unlink(missing_ok=True)
    options = ["-m", "reliability", "--full", f"--faults={records}", "--timeout=3600", "--verbose", *session.posargs]
    command = [sys.executable, "-m", "pytest", "functional_tests", *options]
    session.run(*command, external=True, interrupt_timeout=TEARDOWN_SECONDS)
    # Only some of the tests: the rows of the others stay as they are.
    run(
        session,
        "functional_tests.faults",
        str(records),
        "docs/reliability.md",
        *(["--keep"] if session.posargs else []),
    )


@nox.session
def bench(session: nox.Session) -> None:
    """Measure how fast all that is, against what one would do instead, and write docs/performance.md."""
    run(session, "functional_tests.bench", *session.posargs)


def passes_iam_contract() -> bool:
    """Check the policies and the record of the functional tests; prints one line, and the findings."""
    check = iam_contract(environment("checkers").parent, str(IAM_RECORD))
    return passes("init", terraform("init", "-backend=false")) and passes("IAM contract", check, report=True)


def iam_contract(checkers_environment: Path, *record: str) -> list[Command]:
    """The commands that check the policies of the platform, and a record if there is one."""
    python = [sys.executable, "-m"]
    return [
        [*python, "infra.policy_documents", str(POLICIES)],
        [*python, "infra.iam_contract", str(POLICIES), str(checkers_environment), *record],
    ]


def checkers() -> dict[str, list[Command]]:
    """The checkers there are, each with its commands; those that take longest first, so that they begin first."""
    python = [sys.executable, "-m"]
    bin_folder, checkov = environment("checkers"), environment("checkov") / "checkov"
    documents, contract = iam_contract(bin_folder.parent)
    module = [str(checkov), "--directory=infra", "--quiet", "--compact", "--skip-download"]
    scripts = scripts_of_actions(LINT / "scripts")
    workflows = files(".github/workflows/*.y*ml", "examples/*/.github/workflows/*.y*ml")
    actions = files("*/action.yml")
    forms = ".github/ISSUE_TEMPLATE"
    schema = [str(bin_folder / "check-jsonschema"), "--builtin-schema"]
    zizmor = [str(bin_folder / "zizmor"), "--offline", "--no-progress", "--quiet", "--persona=pedantic"]
    shellcheck = str(bin_folder / "shellcheck")
    return {
        "mypy": [[*python, "mypy"]],
        # parliament and the reference of AWS, over the documents that the module and bootstrap-account make
        "policies": [
            documents,
            [str(bin_folder / "python"), "-P", "-W", "ignore", "infra/policy_findings.py", str(POLICIES)],
            contract,
        ],
        "checkov": [module, [*module, "--var-file=environments/prod.tfvars"]],
        "terraform": [*terraform("fmt", "-check", "-recursive", "-diff"), *terraform("validate")],
        "ruff": [[*python, "ruff", "check", "--quiet", "."], [*python, "ruff", "format", "--quiet", "--check", "."]],
        "actionlint": [[str(bin_folder / "actionlint"), f"-shellcheck={shellcheck}", "-pyflakes=", *workflows]],
        "schemas": [
            [*schema, "vendor.github-workflows", *workflows],
            [*schema, "vendor.github-actions", *actions],
            [*schema, "vendor.github-issue-forms", *files(f"{forms}/bug.yml", f"{forms}/feature.yml")],
            [*schema, "vendor.github-issue-config", *files(f"{forms}/config.yml")],
            [*schema, "vendor.renovate", *files(".github/renovate.json")],
        ],
        "zizmor": [[*zizmor, "--config=.github/zizmor.yml", *workflows, *actions]],
        "shellcheck": [
            [shellcheck, "bootstrap.sh", ".ci/run", ".github/tag.sh", "environments/completion.bash", *scripts]
        ],
        "hadolint": [[str(bin_folder / "hadolint"), *files("*/Dockerfile")]],
    }


def passes(name: str, commands: list[Command], report: bool = False) -> bool:
    """Run a checker's commands up to the first that fails, and print one line; with what it printed if one did.

    Args:
        name: of the checker.
        commands: that it consists of.
        report: print what the last command printed in any case.
    """
    begin, words, code = time.monotonic(), "", 0
    variables = {name: value for name, value in os.environ.items() if not name.startswith("TF_")}
    variables["TF_DATA_DIR"] = str(LINT / "terraform")
    if TERRAFORM_CONFIGURATION.exists():
        variables["TF_CLI_CONFIG_FILE"] = str(TERRAFORM_CONFIGURATION)
    for command in commands:
        done = subprocess.run(
            command,
            cwd=ROOT,
            env=variables,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        words = done.stdout.strip() if report else ""
        if code := done.returncode:
            words = done.stdout.strip() or f"{command[0]} ended with exit code {code} and said nothing"
            break
    line = f"{'failed' if code else 'ok':<7} {name:<11} {time.monotonic() - begin:5.1f} s"
    print("\n".join(filter(None, (line, words))), flush=True)
    return not code


def files(*patterns: str) -> list[str]:
    """The project's files of some patterns, for a command line; a pattern that matches none is out of date."""
    found = {pattern: sorted(str(file.relative_to(ROOT)) for file in ROOT.glob(pattern)) for pattern in patterns}
    if missing := [pattern for pattern, names in found.items() if not names]:
        raise FileNotFoundError(f"nothing to check: {', '.join(missing)}")
    return [name for names in found.values() for name in names]


def scripts_of_actions(folder: Path) -> list[str]:
    """The steps of the project's actions as scripts: shellcheck reads no YAML, and actionlint no actions."""
    import yaml

    folder.mkdir(parents=True, exist_ok=True)
    made = []
    for name in files("*/action.yml"):
        steps = yaml.safe_load((ROOT / name).read_text(encoding="utf-8"))["runs"]["steps"]
        for number, step in enumerate(steps, 1):
            if "run" in step:
                script = folder / f"{Path(name).parent}_{number}.sh"
                script.write_text(f"#!/usr/bin/env {step['shell']}\n{step['run']}", encoding="utf-8")
                made.append(str(script))
    return made


def environment(name: str) -> Path:
    """The programs of the virtual environment of a lock, which is made when there is none, or the lock has changed."""
    lock, folder = ROOT / "requirements" / f"{name}.txt", (LINT / name).resolve()
    stamp = folder / "made-from"
    origin = f"{hashlib.sha256(lock.read_bytes()).hexdigest()} {sys.version} {folder}"
    if not stamp.exists() or stamp.read_text(encoding="utf-8") != origin:
        print(f"installing requirements/{name}.txt", flush=True)
        uv = [sys.executable, "-m", "uv"]
        subprocess.run([*uv, "venv", "--quiet", "--clear", f"--python={sys.executable}", folder], check=True)
        # The system's certificates, as in bootstrap.sh.
        sync = ["pip", "sync", "--quiet", "--system-certs", "--require-hashes", f"--python={folder / 'bin' / 'python'}"]
        subprocess.run([*uv, *sync, lock], check=True)
        stamp.write_text(origin, encoding="utf-8")
    return folder / "bin"


def terraform(*arguments: str) -> list[Command]:
    """A command of the Terraform that the project uses, on its module."""
    from infra.terraform_process import program

    return [[program(), "-chdir=infra", *arguments]]


def run(session: nox.Session, module: str, *arguments: str) -> None:
    """Run a Python tool of this environment, wherever PATH points."""
    session.run(sys.executable, "-m", module, *arguments, external=True)


def run_unit_tests(session: nox.Session) -> None:
    """Run the unit tests once, however many sessions of this run want them."""
    global unit_tests_passed
    if not unit_tests_passed:
        run(session, "pytest", "unit_tests", "--numprocesses=2")
        unit_tests_passed = True
