"""Whatever is said on where a workflow comes from and what its runs get: names that AWS takes, or an error in words."""

import json
import re

from hypothesis import example, given
from hypothesis import strategies as st

from environments.settings import EXECUTION_ENVIRONMENTS, Environment
from register_action import git, parameters, source, workflow, workflow_image
from register_action.source import Wanted
from unit_tests.any_input.cases import TEXT, harmless

ECR_REPOSITORY = r"(?:[a-z0-9]+(?:[._-][a-z0-9]+)*/)*[a-z0-9]+(?:[._-][a-z0-9]+)*"
"""https://docs.aws.amazon.com/AmazonECR/latest/APIReference/API_CreateRepository.html"""
URLS = st.one_of(
    st.tuples(
        st.sampled_from(
            ["https://", "http://", "ssh://", "git://", "file://", "ext::", "-", "", "HTTPS://", "ftp://", "git@"]
        ),
        st.sampled_from(["", "user@", "user:secret@", "ghp_x@", "@", "a b@"]) | TEXT,
        st.sampled_from(
            ["github.com", "github.com:443", "[::1]", "-oProxyCommand=id", "", "host:99999999", "GITHUB.COM"]
        )
        | TEXT,
        st.sampled_from(["/acme/etl.git", ":acme/etl", "/", "//a///b.git/", "/..", ":-x", "/a@b", "/workflow?x=y#z"])
        | TEXT,
    ).map("".join),
    TEXT,
)
PATHS = st.one_of(st.sampled_from(["workflow", ".", "a/../b", "/", "..", "a//b/", "./-x"]), TEXT)
BRANCHES = st.one_of(
    st.sampled_from(
        ["main", "refs/heads/main", "feature/x", "-x", "a..b", "a@{1}", "HEAD", "a.lock", "/a", "a/", ".a", "@"]
    ),
    TEXT,
)
COMMITS = st.one_of(st.sampled_from(["c0ffee1", "C0FFEE1", "c0ffee", "HEAD", "a" * 41]), TEXT)


@given(st.builds(Wanted, PATHS, URLS, BRANCHES, COMMITS, TEXT))
@example(Wanted("workflow", "https://user:secret@github.com/acme/etl"))
def test_any_source_has_names_that_aws_takes_or_is_refused(environment: Environment, wanted: Wanted) -> None:
    wanted = wanted if wanted.git_url else Wanted(wanted.workflow_path, "-", wanted.branch_name)
    with harmless():
        name, origin, branch = source.identity(wanted)
        repository = workflow_image.repository_name(environment, name)

        assert re.fullmatch(ECR_REPOSITORY, repository)
        assert len(repository) <= 256
        assert (origin + branch).isprintable()
        assert not branch.startswith("-")
        assert not wanted.git_url.startswith("-")


@given(URLS)
def test_any_url_is_one_that_git_takes_as_such_or_none(url: str) -> None:
    with harmless():
        if git.normalised(url):
            assert not url.startswith("-")
            assert re.match("https?://|ssh://|git://|file://|/|[^:]*:[^:]", url)
            assert not git.normalised(url).startswith(("-", "ext"))


@given(st.lists(st.one_of(TEXT, st.tuples(TEXT, TEXT).map("=".join)), max_size=3))
@example(["limit=" + "[" * 100_000])
@example(["limit=" + "9" * 5000])
@example(["limit=" + "[" * 900 + "]" * 900])
@example(["limit=NaN"])
@example(['limit={"a": ["\\ud800"]}'])
@example(["limit=\ud800"])
def test_any_parameters_are_json_or_refused(pairs: list[str]) -> None:
    with harmless():
        values = parameters.parse_pairs(pairs)
        json.dumps(values, allow_nan=False, ensure_ascii=False).encode()


@given(TEXT, TEXT, TEXT, st.sampled_from([*EXECUTION_ENVIRONMENTS]) | TEXT)
def test_any_size_is_a_number_or_refused(
    environment: Environment, flow: str, cpu: str, memory: str, where: str
) -> None:
    with harmless():
        choice = workflow.choose([flow], where, cpu, memory)
        workflow.check_size(environment, choice.job_variables, "this run")
