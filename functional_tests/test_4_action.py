"""The GitHub Action: jobs of another repository run its steps against the platform; first the runner they run on."""

import base64
import contextlib
import json
import re
import subprocess
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from functional_tests.expressions import evaluate, interpolate
from functional_tests.github_api import FORK, github_api, pull_request
from functional_tests.platform import Platform
from functional_tests.runner import Job, Result, run_action
from infra.images import SBOM

REPOSITORY = "acme/action-etl"
IMAGES = "local_action_etl"
FLOW = """from prefect import flow

@flow(log_prints=True)
def action_flow(rows: int = 3) -> int:
    print(f"moved {rows} rows")
    return rows
"""
EXECUTED = "pwned"


@pytest.mark.parametrize(
    ("expression", "value"),
    [
        ("github.head_ref || github.ref_name", "main"),
        ("'it''s' == 'IT''S' && github.ref_name", "main"),
        ("!github.head_ref != true", False),
        ("null == 0 && '' == false", True),
        ("'x' == 0 || (true && '')", ""),
        ("'2' == 2", True),
        ("success() || failure() != always()", False),
        ("steps.cache.outputs.cache-hit != 'true'", True),
    ],
)
def test_expressions_mean_what_they_mean_on_github(expression: str, value: object) -> None:
    contexts = {"github": {"head_ref": "", "ref_name": "main"}, "steps": {"cache": {"outputs": {"cache-hit": ""}}}}

    assert evaluate(expression, contexts, failed=True) == value
    assert interpolate("<${{ " + expression + " }}>", contexts).startswith("<")


@pytest.mark.parametrize("expression", ["github", "github.rev", "secrets.X", "toJSON(true)", "a b", "'a", "1 < 2", ""])
def test_what_the_runner_does_not_play_is_an_error(expression: str) -> None:
    with pytest.raises(ValueError, match=r".+"):
        evaluate(expression, {"github": {"ref_name": "main"}})


@given(st.text(alphabet="a.'()!=&|09 \n") | st.text())
@settings(max_examples=300, deadline=None, database=None)
def test_text_that_is_no_expression_is_an_error_and_no_crash(text: str) -> None:
    with contextlib.suppress(ValueError):
        assert isinstance(evaluate(text, {"a": "x"}), str | bool | float | None)


def test_a_mask_hides_what_comes_after_it_and_commands_stay_out_of_the_log(tmp_path: Path) -> None:
    job = Job(tmp_path, tmp_path / "machine", {}, {"KEY": "k3y"})
    code, outputs = job.run(
        'echo "$KEY s3cret"; echo ::add-mask::s3cret; echo s3cret\n'
        'echo "::error file=a%2Cb.py,line=3,title=bad%3A s3cret::one%0Atwo 100%25"\n'
        'printf "text<<END\\na\\nb=c\\nEND\\nplain=1=2\\n" >>"$GITHUB_OUTPUT"\n'
        'echo "LATER=yes" >>"$GITHUB_ENV"; echo "$PWD/bin" >>"$GITHUB_PATH"; false | true; echo not reached',
        {},
    )

    assert (code, outputs) == (1, {"text": "a\nb=c", "plain": "1=2"})
    assert job.log == ["*** s3cret", "***", "##[error]one\ntwo 100%"]
    assert job.annotations == [
        {"level": "error", "message": "one\ntwo 100%", "file": "a,b.py", "line": "3", "title": "bad: ***"}
    ]

    job.run('echo "$LATER ${PATH%%:*}"', {})

    assert job.log[-1] == f"yes {tmp_path}/bin"


class Author:
    """A team with a repository and a runner, whose jobs hand workflows to the platform."""

    def __init__(self, platform: Platform, machine: Path, folder: Path) -> None:
        self.platform, self.machine, self.workspace = platform, machine, folder / "workspace"
        (self.workspace / "workflow").mkdir(parents=True)
        self.git("init", "--quiet", "--initial-branch=main")
        self.git("remote", "add", "origin", f"https://github.com/{REPOSITORY}")

    def git(self, *arguments: str) -> str:
        """Run git in the workspace, whatever the settings of this machine's user."""
        who = ["-c", "user.name=author", "-c", "user.email=author@example.com", "-c", "commit.gpgsign=false"]
        done = subprocess.run(["git", *who, *arguments], cwd=self.workspace, capture_output=True, text=True, check=True)
        return done.stdout.strip()

    def commit(self, code: str) -> None:
        """Commit another flow.py."""
        (self.workspace / "workflow" / "flow.py").write_text(code, encoding="utf-8")
        self.git("add", "--all")
        self.git("commit", "--quiet", "--allow-empty", "--message", "change")

    def run(self, inputs: dict[str, str] | None = None, **github: str) -> Result:
        """Run the action as a job at the newest commit would; prints its log."""
        given = {"env": "local", "workflow_path": "workflow", "prefect_workflow_register_token": self.platform.key}
        event = {"repository": REPOSITORY, "sha": self.git("rev-parse", "HEAD"), **github}
        done = run_action(
            self.platform.folder / "register_action", {**given, **(inputs or {})}, self.workspace, self.machine, event
        )
        print(f"{done.log}\n[{done.code}]")
        return done

    def deployments(self) -> set[str]:
        """Names of the deployments that Prefect has of the flow."""
        login = "Basic " + base64.b64encode(self.platform.key.encode()).decode()
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.platform.prefect_port}/api/deployments/filter",
            data=json.dumps({"flows": {"name": {"any_": ["action-flow"]}}}).encode(),
            headers={"Authorization": login, "Content-Type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=10) as answer:
            return {deployment["name"] for deployment in json.load(answer)}

    def digests(self) -> set[str]:
        """Digests of the images that ECR has of the workflow, without their SBOMs."""
        images = self.platform.aws("ecr").describe_images(repositoryName=IMAGES)["imageDetails"]
        return {image["imageDigest"] for image in images if not image["imageTags"][0].endswith(SBOM)}


@pytest.fixture(scope="module")
def author(
    platform: Platform, first_deploy: str, runners_machine: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Author]:
    """A team with one flow at its newest commit; what it registered goes at the end."""
    author = Author(platform, runners_machine, tmp_path_factory.mktemp("author"))
    author.commit(FLOW)
    yield author
    author.run({"remove": "true"})


@pytest.fixture(scope="module")
def first_run(author: Author) -> Result:
    """What the first job of all left: nothing was in the runner's cache, nothing registered."""
    return author.run()


def test_a_job_registers_its_flows(author: Author, first_run: Result) -> None:
    assert first_run.code == 0
    assert first_run.annotations == []
    assert author.deployments() == {"local"}
    assert len(author.digests()) == 1


def test_later_steps_and_the_jobs_page_know_what_was_registered(author: Author, first_run: Result) -> None:
    (digest,) = author.digests()

    assert json.loads(first_run.outputs["deployments"]) == ["action-flow/local"]
    assert first_run.outputs["image"].endswith(f"/{IMAGES}@{digest}")
    (url,) = json.loads(first_run.outputs["deployment_urls"])
    assert url.startswith(f"http://127.0.0.1:{author.platform.prefect_port}/")
    assert re.search(r"^\|.*action-flow/local.*\|", first_run.summary, re.MULTILINE)
    assert author.git("rev-parse", "HEAD")[:7] in first_run.summary


def test_the_token_shows_nowhere(author: Author, first_run: Result) -> None:
    secret = author.platform.key.partition(":")[2]
    written = [first_run.log, first_run.summary, *first_run.outputs.values()]

    assert len(secret) > 20
    assert not [text for text in written if secret in text]


def test_the_second_job_takes_its_tools_from_the_cache_and_builds_nothing(author: Author, first_run: Result) -> None:
    (cached,) = (author.machine / "cache").iterdir()
    made, before = cached.stat().st_mtime_ns, author.digests()
    second = author.run()

    assert second.code == 0
    assert second.outputs == first_run.outputs
    assert [entry.stat().st_mtime_ns for entry in (author.machine / "cache").iterdir()] == [made]
    assert author.digests() == before
    assert "already in ECR" in second.log
    assert not re.search(r"\bbuilt, |\bpushed ", second.log)


def test_the_registered_flow_runs(author: Author, first_run: Result) -> None:
    assert "moved 5 rows" in author.platform.invoke("run", "action-flow", "--param", "rows=5").stdout


def test_a_syntax_error_is_shown_beside_its_line(author: Author, first_run: Result) -> None:
    author.commit(FLOW.replace("def action_flow(rows", "def action_flow(rows ="))
    failed = author.run()
    author.git("reset", "--quiet", "--hard", "HEAD~1")

    assert failed.code == 1
    (annotation,) = failed.annotations
    assert (annotation["level"], annotation["file"], annotation["line"]) == ("error", "workflow/flow.py", "4")
    assert "not valid Python" in annotation["title"]
    assert "Traceback" not in failed.log


def test_a_wrong_token_is_told_and_not_shown(author: Author, first_run: Result) -> None:
    refused = author.run({"prefect_workflow_register_token": "local:not-the-key"})

    assert refused.code == 1
    assert [
        annotation["title"] for annotation in refused.annotations if "does not accept the key" in annotation["title"]
    ]
    assert "not-the-key" not in refused.log
    assert refused.outputs["deployments"] == ""


def test_a_pull_request_gets_previews_that_go_when_it_closes(author: Author, first_run: Result) -> None:
    real = author.digests()
    author.commit(FLOW.replace("moved", "moves"))
    request = {"event_name": "pull_request", "ref_name": "7/merge", "head_ref": "fix/Typo"}
    opened = author.run({"preview": "true"}, **request)

    assert json.loads(opened.outputs["deployments"]) == ["action-flow/local-fix-typo"]
    assert author.deployments() == {"local", "local-fix-typo"}
    assert len(author.digests() - real) == 1

    closed = author.run({"remove": "true"}, **request)
    author.git("reset", "--quiet", "--hard", "HEAD~1")

    assert closed.code == 0
    assert author.deployments() == {"local"}
    assert author.digests() == real


def test_a_sweep_removes_the_previews_whose_branch_has_no_open_pull_request(
    author: Author, first_run: Result, tmp_path: Path
) -> None:
    real = author.digests()
    for branch in ("fix/open", "fix/closed"):
        author.commit(FLOW.replace("moved", branch))
        opened = author.run({"preview": "true"}, event_name="pull_request", ref_name="8/merge", head_ref=branch)
        assert opened.code == 0
    author.git("reset", "--quiet", "--hard", "HEAD~2")
    everything = {"local", "local-fix-open", "local-fix-closed"}
    assert author.deployments() == everything

    token = "ghs_0123456789abcdef"
    with github_api(REPOSITORY, token) as github:
        github.pulls = [pull_request("fix/closed", FORK) for _ in range(100)] + [pull_request("fix/open")]
        job = {"event_name": "schedule", "api_url": github.url, "token": token}
        refused = author.run({"sweep": "true"}, **{**job, "token": "ghs_expired"})

        assert refused.code == 1
        (annotation,) = refused.annotations
        assert annotation["title"] == "cannot read the open pull requests, so no preview was removed"
        assert "pull-requests: read" in annotation["message"]
        assert author.deployments() == everything

        swept = author.run({"sweep": "true"}, **job)

        assert swept.code == 0
        assert author.deployments() == {"local", "local-fix-open"}
        assert len(author.digests() - real) == 1
        assert token not in swept.log

        github.pulls = []
        # In a job that has checked nothing out.
        inputs = {"env": "local", "workflow_path": "workflow", "prefect_workflow_register_token": author.platform.key}
        action = author.platform.folder / "register_action"
        event = {"repository": REPOSITORY, **job}
        last = run_action(action, {**inputs, "sweep": "true"}, tmp_path, author.machine, event)

        assert last.code == 0, last.log
        assert author.deployments() == {"local"}
        assert author.digests() == real


@pytest.mark.parametrize(
    "inputs",
    [
        {"workflow_path": f"$(touch {EXECUTED})"},
        {"workflow_path": f"`touch {EXECUTED}`", "branch_name": f"`touch {EXECUTED}`"},
        {"workflow_path": f"workflow'; touch {EXECUTED}; '"},
        {"workflow_path": f'workflow"; touch {EXECUTED}; "'},
        {"workflow_path": f"workflow\ntouch {EXECUTED}"},
        {"workflow_path": "../.."},
        {"branch_name": f"main; touch {EXECUTED}"},
        {"branch_name": "main\n::add-mask::a"},
        {"commit_sha": f"$(touch {EXECUTED})"},
        {"git_url": f"ext::sh -c 'touch {EXECUTED}'"},
        {"git_url": f"--upload-pack=touch {EXECUTED}"},
        {"env": "../../local"},
        {"flows": f"action_flow $(touch {EXECUTED})"},
        {"workflow_cpu_configuration": f"$(touch {EXECUTED})"},
    ],
)
def test_a_hostile_input_is_an_error_and_nothing_else(
    author: Author, first_run: Result, inputs: dict[str, str]
) -> None:
    before = author.deployments()
    refused = author.run(inputs)

    assert refused.code == 1
    assert refused.annotations
    assert "Traceback" not in refused.log
    assert not list(author.workspace.parent.rglob(EXECUTED))
    assert not list(author.platform.folder.glob(f"*/{EXECUTED}"))
    assert author.git("status", "--porcelain") == ""
    assert author.deployments() == before
