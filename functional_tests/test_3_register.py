"""`invoke register`, `unregister` and `workflows`: what a folder becomes, and what is refused."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from functional_tests import runs
from functional_tests.platform import Platform, wait_for
from functional_tests.repository import Repository
from infra.images import SBOM

PREFIX = "local_dataflow_automation"


@pytest.fixture
def repository(tmp_path: Path, request: pytest.FixtureRequest) -> Repository:
    """A repository named after the test, so that each has its own workflow."""
    return Repository(tmp_path / request.node.name.removeprefix("test_")[:40].strip("_"))


def flow(name: str, says: str = "nothing") -> str:
    """A module with one flow that prints something."""
    return f"from prefect import flow\n\n@flow(log_prints=True)\ndef {name}():\n    print({says!r})\n"


def registered(platform: Platform, *arguments: str) -> dict[str, Any]:
    """Register, and what `--json` says of it."""
    told: dict[str, Any] = json.loads(platform.invoke("register", "--json", *arguments, stderr=False).stdout)
    return told


def actions(told: dict[str, Any]) -> dict[str, str]:
    """What happened to each deployment."""
    return {deployment["name"]: deployment["action"] for deployment in told["deployments"]}


def workflows(platform: Platform) -> dict[str, dict[str, Any]]:
    """What `invoke workflows` says, by deployment."""
    return {row["name"]: row for row in json.loads(platform.invoke("workflows", "--json").stdout)}


def tasks_of(platform: Platform, flow: str, name: str = "") -> list[dict[str, Any]]:
    """The ECS tasks that ran a deployment, newest last."""
    ecs, cluster, family = platform.aws("ecs"), f"{PREFIX}_workflows", runs.family(platform, flow, name)
    arns = [
        arn
        for state in ("STOPPED", "RUNNING")
        for arn in ecs.list_tasks(cluster=cluster, desiredStatus=state)["taskArns"]
    ]
    tasks = ecs.describe_tasks(cluster=cluster, tasks=arns)["tasks"] if arns else []
    mine = [task for task in tasks if f"/{family}:" in task["taskDefinitionArn"]]
    return sorted(mine, key=lambda task: str(task["createdAt"]))


def images_of(platform: Platform, name: str) -> set[str]:
    """Digests of the images that ECR has of a workflow, without their SBOMs."""
    ecr = platform.aws("ecr")
    try:
        return {
            image["imageDigest"]
            for image in ecr.describe_images(repositoryName=f"local_{name}")["imageDetails"]
            if not image["imageTags"][0].endswith(SBOM)
        }
    except ecr.exceptions.RepositoryNotFoundException:
        return set()


def test_every_flow_of_the_sales_report_runs_to_completed_spot_included(deployed: Platform) -> None:
    told = registered(deployed, "--workflow-path", "examples/sales_report/workflow")
    names = {"clean-orders/local", "best-sellers/local", "sales-report/local-daily", "sales-report/local-weekly"}
    assert set(actions(told)) == names
    assert {row["name"]: row["schedule"] for row in told["deployments"]}["sales-report/local-daily"] == (
        "30 6 * * 1-5 Europe/Madrid"
    )
    for name in sorted(names):
        deployed.invoke("run", name, "--no-wait")
    wait_for(
        "all four to be COMPLETED",
        lambda: all(workflows(deployed)[name]["last_run"].startswith("Completed") for name in names),
        seconds=120,
    )
    (weekly,) = tasks_of(deployed, "sales-report", "local-weekly")
    assert (weekly["capacityProviderName"], weekly["cpu"], weekly["memory"]) == ("FARGATE_SPOT", "1024", "2048")
    assert len(images_of(deployed, "sales_report")) == 1


def test_a_run_with_other_cpu_and_memory_has_them_in_its_ecs_task(sample_workflow: Platform) -> None:
    sample_workflow.invoke("run", "sample_workflow", "--cpu", "1024", "--memory", "3072")
    newest = tasks_of(sample_workflow, "sample-workflow")[-1]
    assert (newest["cpu"], newest["memory"]) == ("1024", "3072")


ANY_PARAMETERS = """
from prefect import flow

@flow(log_prints=True)
def fixed(days: int = 1, rows: list[str] = []):
    print(f"{days} days, {len(rows)} rows")

@flow(log_prints=True)
def open_ended(days: int = 1, **options: int):
    print(f"{days} days, {sorted(options.items())}")
"""
UNKNOWN_NAMES = """
deployments:
  - name: local
    entrypoint: flow.py:fixed
    parameters: {dayz: 7}
    schedules:
      - {cron: "0 4 * * *", parameters: {dais: 3}}
"""
ANY_NAMES = """
deployments:
  - name: local
    entrypoint: flow.py:open_ended
    parameters: {limit: 7}
"""


def test_parameters_that_a_flow_does_not_have_are_refused_before_anything_happens(
    deployed: Platform, tmp_path: Path
) -> None:
    folder, values = tmp_path / "parameters", tmp_path / "values.json"
    folder.mkdir()
    (folder / "flow.py").write_text(ANY_PARAMETERS)
    (folder / "prefect.yaml").write_text(UNKNOWN_NAMES)
    refused = deployed.invoke("register", "--workflow-path", str(folder), check=False)
    assert refused.returncode == 1
    assert "no parameter 'dayz'; did you mean days?" in refused.stdout
    assert "no parameter 'dais'; did you mean days?" in refused.stdout
    assert "parameters" not in {row["workflow"] for row in workflows(deployed).values()}
    assert images_of(deployed, "parameters") == set()

    (folder / "prefect.yaml").write_text(ANY_NAMES)
    deployed.invoke("register", "--workflow-path", str(folder))
    refused = deployed.invoke("run", "fixed", "--param", "dayz=7", check=False)
    assert refused.returncode == 1
    assert "no parameter 'dayz'; did you mean days?" in refused.stdout
    # Longer than an argument of a command can be.
    values.write_text(json.dumps({"days": 2, "rows": ["x" * 100] * 3000}))
    ran = deployed.invoke("run", "fixed", "--params-file", str(values), "--param", "days=3").stdout
    assert "3 days, 3000 rows" in ran
    ran = deployed.invoke("run", "open-ended", "--param", "other=8").stdout
    assert "1 days, [('limit', 7), ('other', 8)]" in ran
    refused = deployed.invoke("run", "open-ended", "--param", "other=many", check=False)
    assert refused.returncode == 1
    assert "'many' is not of type 'integer'" in refused.stdout


CHOSEN = """
deployments:
  - name: local
    entrypoint: flow.py:chosen
    description: {description}
    schedules:
      - cron: "0 4 * * *"
        timezone: Europe/Madrid
{more}
"""


def test_choices_made_at_prefect_stay_unless_prefect_yaml_says_otherwise(deployed: Platform, tmp_path: Path) -> None:
    folder = tmp_path / "chosen"
    folder.mkdir()
    (folder / "flow.py").write_text(flow("chosen"))

    def register(**parts: str) -> list[str]:
        (folder / "prefect.yaml").write_text(CHOSEN.format(**{"more": "", **parts}))
        return list(registered(deployed, "--workflow-path", str(folder))["notes"])

    register(description="first")
    made = runs.deployment(deployed, "chosen")
    (schedule,) = made["schedules"]
    deployment = f"/deployments/{made['id']}"
    deployed.prefect(f"{deployment}/schedules/{schedule['id']}", {"active": False}, method="PATCH")
    queue = {"work_pool_name": deployed.prefix, "work_queue_name": "slow"}
    deployed.prefect(deployment, queue, method="PATCH")
    deployed.prefect(f"{deployment}/pause_deployment", {})
    notes = register(description="second")
    kept = runs.deployment(deployed, "chosen")
    assert (kept["description"], kept["work_queue_name"], kept["paused"]) == ("second", "slow", True)
    assert [each["active"] for each in kept["schedules"]] == [False]
    assert [note.partition(": kept: ")[2].split(" at Prefect")[0].split(";")[0] for note in notes] == [
        "schedule 0 4 * * * Europe/Madrid is switched off",
        "its work queue is slow",
        "it is paused",
    ]

    said = "        active: true\n    paused: false\n    work_pool: {work_queue_name: default}"
    notes = register(description="second", more=said)
    changed = runs.deployment(deployed, "chosen")
    assert (changed["work_queue_name"], changed["paused"]) == ("default", False)
    assert [each["active"] for each in changed["schedules"]] == [True]
    assert [": changed: " in note for note in notes] == [True] * 3
    assert register(description="second", more=said) == []


def test_a_run_in_a_work_queue_of_its_own_is_taken_by_the_agent(deployed: Platform, tmp_path: Path) -> None:
    folder = tmp_path / "queued"
    folder.mkdir()
    (folder / "flow.py").write_text(flow("queued"))
    text = "deployments: [{name: local, entrypoint: 'flow.py:queued', work_pool: {work_queue_name: urgent}}]"
    (folder / "prefect.yaml").write_text(text)
    deployed.invoke("register", "--workflow-path", str(folder))
    assert runs.deployment(deployed, "queued")["work_queue_name"] == "urgent"
    assert "Completed" in deployed.invoke("run", "queued").stdout


def test_a_commit_that_is_not_the_head_gives_that_commits_code(deployed: Platform, repository: Repository) -> None:
    old = repository.commit(flow__py=flow("not_the_head", "the old code"))
    repository.commit(flow__py=flow("not_the_head", "the new code"))
    told = registered(
        deployed,
        "--git-url",
        repository.url,
        "--commit-sha",
        old,
        "--workflow-path",
        "workflow",
        "--execution-environment",
        "ecs_fargate_spot",
        "--cpu",
        "512",
        "--memory",
        "2048",
    )
    assert told["version"] == old
    ran = deployed.invoke("run", "not_the_head").stdout
    assert "the old code" in ran
    assert "the new code" not in ran
    (task,) = tasks_of(deployed, "not-the-head")
    assert (task["capacityProviderName"], task["cpu"], task["memory"]) == ("FARGATE_SPOT", "512", "2048")


def test_twenty_flows_take_one_image_and_an_unchanged_second_time_nothing(
    deployed: Platform, repository: Repository
) -> None:
    repository.commit(**{f"module_{number:02}__py": flow(f"twenty_{number:02}") for number in range(20)})
    path = str(repository.folder / "workflow")
    first = deployed.invoke("register", "--workflow-path", path).stdout
    assert len(re.findall(r"\bbuilt, ", first)) == len(re.findall(r"\bpushed ", first)) == 1
    assert len(re.findall(r"^twenty-\d\d/local +created ", first, re.MULTILINE)) == 20
    second = deployed.invoke("register", "--workflow-path", path).stdout
    assert not re.search(r"\b(built|pushed|imported)\b", second)
    assert "20 unchanged" in second
    assert len(images_of(deployed, repository.folder.name)) == 1


def test_a_flow_that_left_the_folder_is_paused_comes_back_and_is_pruned(
    deployed: Platform, repository: Repository
) -> None:
    both = {"stays__py": flow("stays"), "leaves__py": flow("leaves")}
    path = ("--workflow-path", str(repository.folder / "workflow"))
    repository.commit(**both)
    registered(deployed, *path)
    repository.commit(stays__py=flow("stays"))
    foreseen = registered(deployed, *path, "--dry-run")
    assert workflows(deployed)["leaves/local"]["state"] == "registered", "a dry run changes nothing"
    assert foreseen["build"] is True
    assert actions(registered(deployed, *path))["leaves/local"] == "paused"
    assert workflows(deployed)["leaves/local"]["state"] == "paused"
    repository.commit(**both)
    assert actions(registered(deployed, *path))["leaves/local"] == "updated"
    assert workflows(deployed)["leaves/local"]["state"] == "registered"
    repository.commit(stays__py=flow("stays"))
    assert actions(registered(deployed, *path, "--prune"))["leaves/local"] == "deleted"
    assert "leaves/local" not in workflows(deployed)


def test_a_preview_lives_beside_the_real_one_and_goes_with_its_images(
    deployed: Platform, repository: Repository
) -> None:
    scheduled = "deployments: [{name: local, entrypoint: 'flow.py:previewed', schedules: [{cron: '0 6 * * *'}]}]"
    name = repository.folder.name
    where = ("--git-url", repository.url, "--workflow-path", "workflow")
    repository.commit(flow__py=flow("previewed", "the real one"), prefect__yaml=scheduled)
    registered(deployed, *where)
    real = images_of(deployed, name)
    assert len(real) == 1
    repository.git("checkout", "--quiet", "-b", "feature/Blue")
    for says in ("a first try", "a second try"):
        repository.commit(flow__py=flow("previewed", says), prefect__yaml=scheduled)
        told = registered(deployed, *where, "--branch-name", "feature/Blue", "--preview")
        assert [(row["name"], row["schedule"]) for row in told["deployments"]] == [
            ("previewed/local-feature-blue", "-")
        ]
    assert len(images_of(deployed, name) - real) == 1, "a superseded image of a preview is deleted"
    assert "a second try" in deployed.invoke("run", "previewed/local-feature-blue").stdout
    assert workflows(deployed)["previewed/local"]["schedule"] == "0 6 * * *"
    deployed.invoke("unregister", *where, "--branch-name", "feature/Blue", "--preview", "--yes")
    assert [row for row in workflows(deployed) if row.startswith("previewed/")] == ["previewed/local"]
    assert images_of(deployed, name) == real
    deployed.invoke("unregister", "--name", name, "--yes")
    assert not [row for row in workflows(deployed) if row.startswith("previewed/")]
    assert images_of(deployed, name) == set()


def test_packages_and_an_own_dockerfile_are_in_the_image(deployed: Platform, repository: Repository) -> None:
    uses = "import iniconfig\n" + flow("with_packages", "package found")
    lock = {"_meta": {"sources": []}, "default": {"iniconfig": {"version": "==2.1.0"}}}
    path = ("--workflow-path", str(repository.folder / "workflow"))
    repository.commit(flow__py=uses, Pipfile__lock=json.dumps(lock))
    registered(deployed, *path)
    repository.commit(
        flow__py="import os\n" + flow("with_packages").replace("'nothing'", "os.environ['GREETING'], os.getcwd()"),
        Dockerfile="ARG BASE_IMAGE\nFROM ${BASE_IMAGE}\nENV GREETING=bonjour\nCOPY . /srv/app\nWORKDIR /srv/app\n",
    )
    registered(deployed, *path)
    assert "bonjour /srv/app" in deployed.invoke("run", "with_packages").stdout


@pytest.mark.parametrize(
    ("files", "words"),
    [
        ({"readme__md": "no code"}, ["no flow in"]),
        ({"flow__py": "def broken(:"}, ["flow.py:1", "not valid Python"]),
        ({"flow__py": "from prefect import Flow\nwith Flow('old') as f:\n    pass\n"}, ["Prefect 1", "flow.py:2"]),
        ({"a__py": flow("same_name"), "b__py": flow("same_name")}, ["same-name", "a.py:4", "b.py:4"]),
        ({"flow__py": flow("fine"), "prefect__yaml": "deployments:\n  - name: x\n   bad"}, ["prefect.yaml line 3"]),
        (
            {"flow__py": flow("fine"), "requirements__txt": "no-such-package-of-anyone==1.0\n"},
            ["packages don't install", "no-such-package-of-anyone", "correct requirements.txt"],
        ),
        (
            {"flow__py": flow("fine"), "Dockerfile": "ARG BASE_IMAGE\nFROM ${BASE_IMAGE}\nRUN echo first && false\n"},
            ["Step 3/3 : RUN echo first", "  first"],
        ),
        (
            {"flow__py": "import missing_module\n" + flow("fine")},
            ["No module named 'missing_module'", "/opt/workflow/flow.py"],
        ),
    ],
    ids=["no flow", "syntax error", "Prefect 1", "duplicate names", "prefect.yaml", "packages", "build step", "import"],
)
def test_a_bad_folder_gets_a_clear_error_and_nothing_is_pushed(
    deployed: Platform, tmp_path: Path, files: dict[str, str], words: list[str]
) -> None:
    repository = Repository(tmp_path / "bad_folder")
    repository.commit(**files)
    refused = deployed.invoke("register", "--workflow-path", str(repository.folder / "workflow"), check=False)
    assert refused.returncode == 1
    assert [word for word in words if word not in refused.stdout] == []
    assert "Traceback" not in refused.stdout.replace('Traceback (most recent call last):\n    File "/opt/workflow', "")
    assert images_of(deployed, "bad_folder") == set()
    assert not [name for name in workflows(deployed) if name.startswith(("fine/", "same-name/"))]
