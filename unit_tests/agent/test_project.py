import asyncio
import contextlib
import dataclasses
import json
import re
import types
from collections.abc import Iterator
from typing import Any
from uuid import uuid4

import jsonschema
import pytest

from agent import project
from agent.project import base_job_template
from environments.errors import PlatformError
from environments.prefect_rest import NotThereError
from environments.settings import EXECUTION_ENVIRONMENTS, MOST_RESTARTS, ROOT, Environment
from infra.images import Image
from infra.terraform import Outputs
from unit_tests.conftest import PREFECT_CLOUD

DIGEST = "sha256:" + "0" * 64
IMAGE = Image(repository="dev_dataflow_automation_agent", tag="0" * 16, uri="registry/agent:" + "0" * 16, digest=DIGEST)
KEY = "a-very-secret-key"
ROOTS = [{"user": user} for user in ("0", "root", "0:0", "00", "10001:0", "0:10001", "")]


@pytest.fixture
def template(environment: Environment, outputs: Outputs, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    monkeypatch.setenv("PREFECT_AGENT_TOKEN", KEY)
    monkeypatch.setenv("PREFECT_WORKFLOW_REGISTER_TOKEN", KEY)
    return base_job_template(environment, outputs, IMAGE)


def _render(template: dict[str, Any], **values: Any) -> Any:
    """Fill the template as the worker does."""
    from prefect.client.orchestration import PrefectClient

    from agent.worker import JobConfiguration

    async def render() -> Any:
        client = PrefectClient("http://127.0.0.1:9/api")  # is there to be handed over; nothing is asked
        return await JobConfiguration.from_template_and_values(template, values, client=client)

    return asyncio.run(render())


def test_variables_are_a_json_schema_with_defaults_that_fit(template: dict[str, Any]) -> None:
    schema = template["variables"]
    jsonschema.Draft202012Validator.check_schema(schema)
    defaults = {name: body["default"] for name, body in schema["properties"].items() if "default" in body}

    jsonschema.validate(defaults, schema)


def test_every_placeholder_is_a_variable_and_every_variable_is_used(template: dict[str, Any]) -> None:
    used = set(re.findall(r"{{ (\w+) }}", json.dumps(template["job_configuration"])))

    assert used == set(template["variables"]["properties"])


@pytest.mark.parametrize(
    "wrong",
    [
        {"cpu": "big"},
        {"memory": 1.5},
        {"capacity_provider": "EC2"},
        {"env": {"A": 1}},
        {"image": 3},
        {"restarts": -1},
        *ROOTS,
    ],
)
def test_wrong_choice_of_a_deployment_is_refused(template: dict[str, Any], wrong: dict[str, Any]) -> None:
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(wrong, template["variables"])


def test_template_holds_no_secret(template: dict[str, Any]) -> None:
    assert KEY not in json.dumps(template)


@pytest.mark.parametrize(
    ("url", "kind", "other"),
    [
        (
            PREFECT_CLOUD,
            "prefect_api_key_secret_arn",
            "prefect_api_auth_string_secret_arn",
        ),
        ("http://prefect.internal/api", "prefect_api_auth_string_secret_arn", "prefect_api_key_secret_arn"),
    ],
    ids=["cloud", "own-server"],
)
def test_runs_get_the_kind_of_key_that_their_prefect_takes(
    environment: Environment, outputs: Outputs, url: str, kind: str, other: str
) -> None:
    changed = dataclasses.replace(environment, prefect_api_url=url)
    configuration = base_job_template(changed, outputs, IMAGE)["job_configuration"]

    assert configuration[kind] == outputs.workflow_prefect_key_secret_arn
    assert other not in configuration


@pytest.mark.parametrize("execution_environment", list(EXECUTION_ENVIRONMENTS))
def test_execution_environment_of_the_settings_is_the_default(
    environment: Environment, outputs: Outputs, execution_environment: str
) -> None:
    changed = dataclasses.replace(environment, execution_environment=execution_environment)
    rendered = _render(base_job_template(changed, outputs, IMAGE))

    assert rendered.task_run_request["capacityProviderStrategy"] == [
        {"capacityProvider": EXECUTION_ENVIRONMENTS[execution_environment]["capacity_provider"], "weight": 1}
    ]


def test_worker_takes_the_template_with_its_defaults(
    template: dict[str, Any], environment: Environment, outputs: Outputs
) -> None:
    rendered = _render(template)
    task, [container] = rendered.task_definition, rendered.task_definition["containerDefinitions"]

    assert rendered.cluster == rendered.task_run_request["cluster"] == outputs.workflows_cluster_arn
    size = (str(environment.workflow_cpu), str(environment.workflow_memory))
    assert (task["cpu"], task["memory"]) == size
    overrides = rendered.task_run_request["overrides"]
    assert (str(overrides["cpu"]), str(overrides["memory"])) == size
    assert rendered.restarts == 0
    assert (task["executionRoleArn"], task["taskRoleArn"]) == (
        outputs.workflow_execution_role_arn,
        outputs.workflow_task_role_arn,
    )
    assert container["image"] == f"registry/agent@{DIGEST}"
    assert container["name"] == rendered.container_name
    assert container["logConfiguration"]["options"]["awslogs-group"] == outputs.workflows_log_group
    network = rendered.task_run_request["networkConfiguration"]["awsvpcConfiguration"]
    assert network["subnets"] == list(outputs.subnet_ids)
    assert network["securityGroups"] == [outputs.security_group_id]
    assert "{{" not in rendered.model_dump_json()


def test_what_a_deployment_chooses_arrives_in_the_task(template: dict[str, Any]) -> None:
    rendered = _render(
        template,
        image="registry/sales@sha256:1",
        family="sales",
        cpu=1024,
        memory=4096,
        capacity_provider="FARGATE_SPOT",
        env={"A": "b"},
        command="python -m prefect.engine",
    )
    task, [container] = rendered.task_definition, rendered.task_definition["containerDefinitions"]
    [override] = rendered.task_run_request["overrides"]["containerOverrides"]

    assert container["image"] == "registry/sales@sha256:1"
    assert task["family"] == "dev_dataflow_automation_workflow_sales"
    assert container["logConfiguration"]["options"]["awslogs-stream-prefix"] == "sales"
    assert rendered.task_run_request["capacityProviderStrategy"][0]["capacityProvider"] == "FARGATE_SPOT"
    assert rendered.env["A"] == "b"
    assert override["environment"] == {"A": "b"}
    assert override["command"] == "python -m prefect.engine"


def test_runs_of_any_size_and_command_and_with_any_variables_share_one_task_definition(
    template: dict[str, Any], environment: Environment
) -> None:
    usual, other = _render(template), _render(template, cpu=1024, memory=4096, command="other", env={"A": "b"})
    overrides = other.task_run_request["overrides"]

    assert usual.task_definition == other.task_definition
    assert (usual.task_definition["cpu"], usual.task_definition["memory"]) == (
        str(environment.workflow_cpu),
        str(environment.workflow_memory),
    )
    assert (overrides["cpu"], overrides["memory"]) == (1024, 4096)


def test_flow_has_the_longest_time_that_fargate_allows_to_end_after_it_is_asked_to(template: dict[str, Any]) -> None:
    [container] = _render(template).task_definition["containerDefinitions"]

    assert container["stopTimeout"] == 120


def test_restarts_of_a_deployment_reach_the_agent(template: dict[str, Any]) -> None:
    assert _render(template, restarts=3).restarts == 3


@pytest.mark.parametrize("restarts", [0, MOST_RESTARTS])
def test_restarts_are_limited(template: dict[str, Any], restarts: int) -> None:
    jsonschema.validate({"restarts": restarts}, template["variables"])
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({"restarts": MOST_RESTARTS + 1}, template["variables"])


@pytest.mark.parametrize(("network", "address"), [("public", "ENABLED"), ("private_nat", "DISABLED")])
def test_workflows_have_public_addresses_only_in_public_subnets(
    environment: Environment, outputs: Outputs, network: str, address: str
) -> None:
    rendered = _render(base_job_template(dataclasses.replace(environment, network=network), outputs, IMAGE))

    assert rendered.task_run_request["networkConfiguration"]["awsvpcConfiguration"]["assignPublicIp"] == address


@pytest.mark.parametrize("architecture", ["X86_64", "ARM64"])
def test_workflows_run_on_the_processor_of_the_settings(
    environment: Environment, outputs: Outputs, architecture: str
) -> None:
    changed = dataclasses.replace(environment, cpu_architecture=architecture)
    task = _render(base_job_template(changed, outputs, IMAGE)).task_definition

    assert task["runtimePlatform"] == {"operatingSystemFamily": "LINUX", "cpuArchitecture": architecture}


def test_local_workflows_run_on_the_processor_of_this_machine(local: Environment, outputs: Outputs) -> None:
    assert "runtimePlatform" not in _render(base_job_template(local, outputs, IMAGE)).task_definition


def test_tasks_carry_the_tags_of_the_settings_beside_their_labels(environment: Environment, outputs: Outputs) -> None:
    from prefect_aws.workers.ecs_worker import ECSWorker

    changed = dataclasses.replace(environment, extra_tags={"cost_center": "data"})
    template = base_job_template(changed, outputs, IMAGE)
    configuration = _render(template, labels={"project": "of-the-deployment"})
    request = ECSWorker(work_pool_name="any")._prepare_task_run_request(
        configuration, configuration.task_definition, "arn:definition", False
    )
    tags = {tag["key"]: tag["value"] for tag in request["tags"]}

    assert tags == {"cost_center": "data", "environment": "dev", "project": "of-the-deployment"}


def test_workflows_run_without_privileges(template: dict[str, Any]) -> None:
    [container] = template["job_configuration"]["task_definition"]["containerDefinitions"]

    assert container["linuxParameters"]["capabilities"] == {"drop": ["ALL"]}
    assert "privileged" not in container


def test_workflows_are_not_root_and_can_write_to_scratch_space_only(template: dict[str, Any]) -> None:
    rendered = _render(template).task_definition
    [container] = rendered["containerDefinitions"]

    assert container["user"] == "10001:10001"
    assert container["readonlyRootFilesystem"] is True
    assert container["mountPoints"] == [{"sourceVolume": "tmp", "containerPath": "/tmp", "readOnly": False}]
    assert rendered["volumes"] == [{"name": "tmp"}]


def test_no_choice_is_filled_in_from_the_agents_environment(
    environment: Environment, outputs: Outputs, monkeypatch: pytest.MonkeyPatch
) -> None:
    from prefect.client.schemas.objects import Flow, FlowRun

    monkeypatch.setenv("PREFECT_API_AUTH_STRING", KEY)
    own_server = dataclasses.replace(environment, prefect_api_url="http://prefect.internal/api")
    template = base_job_template(own_server, outputs, IMAGE)
    texts = [name for name, body in template["variables"]["properties"].items() if body["type"] == "string"]
    asked = dict.fromkeys([*texts, "name", "cluster"], "{{ $PREFECT_API_AUTH_STRING }}")
    rendered = _render(template, **asked, env={"STOLEN": asked["name"]}, labels={"stolen": asked["name"]})
    rendered.prepare_for_flow_run(FlowRun(flow_id=uuid4(), name="{{ $PREFECT_API_AUTH_STRING }}"), flow=Flow(name="x"))

    assert KEY not in rendered.model_dump_json()


def test_a_workflow_may_have_another_user_and_write_elsewhere(template: dict[str, Any]) -> None:
    choice = {"user": "1000", "readonly_root_filesystem": False}
    jsonschema.validate(choice, template["variables"])
    [container] = _render(template, **choice).task_definition["containerDefinitions"]

    assert container["user"] == "1000"
    assert container["readonlyRootFilesystem"] is False


def test_agent_and_workflows_have_the_same_user(template: dict[str, Any]) -> None:
    dockerfile = (ROOT / "agent" / "Dockerfile").read_text(encoding="utf-8")

    assert f"USER {template['variables']['properties']['user']['default']}\n" in dockerfile


def test_names_begin_with_the_environment_so_that_roles_can_be_confined(template: dict[str, Any]) -> None:
    assert template["job_configuration"]["task_definition"]["family"].startswith("dev_dataflow_automation_")


class Prefect:
    """Prefect's API as far as work pools go: what is written is what is read."""

    def __init__(self) -> None:
        self.pools: dict[str, Any] = {}
        self.writes = 0

    def ask(self, _: Environment, path: str, patient: bool) -> dict[str, Any]:
        """What the API answers to a plain request that waits for it."""
        assert patient
        [name] = re.fullmatch(r"/work_pools/(\w+)", path).groups()
        if name not in self.pools:
            raise NotThereError("404")
        return vars(self.pools[name])

    def read_work_pool(self, name: str) -> Any:
        from prefect.exceptions import ObjectNotFound

        if name not in self.pools:
            raise ObjectNotFound(Exception("404"))
        return self.pools[name]

    def create_work_pool(self, pool: Any) -> None:
        self.writes += 1
        self.pools[pool.name] = types.SimpleNamespace(**json.loads(pool.model_dump_json()))

    def update_work_pool(self, name: str, pool: Any) -> None:
        self.writes += 1
        vars(self.read_work_pool(name)).update(json.loads(pool.model_dump_json(exclude_unset=True)))

    def delete_work_pool(self, name: str) -> None:
        self.read_work_pool(name)
        del self.pools[name]


@pytest.fixture
def prefect(monkeypatch: pytest.MonkeyPatch) -> Prefect:
    fake = Prefect()

    @contextlib.contextmanager
    def client(*_: Any) -> Iterator[Prefect]:
        yield fake

    monkeypatch.setattr(project, "prefect_client", client)
    monkeypatch.setattr(project.prefect_rest, "ask", fake.ask)
    return fake


def test_project_is_created_once_and_then_left_alone(
    environment: Environment, outputs: Outputs, prefect: Prefect
) -> None:
    done = [project.ensure(environment, outputs, IMAGE) for _ in range(3)]

    assert done == ["created", "unchanged", "unchanged"]
    assert prefect.writes == 1
    assert prefect.pools[environment.prefix].type == "ecs"
    assert prefect.pools[environment.prefix].base_job_template == base_job_template(environment, outputs, IMAGE)


OTHER = dataclasses.replace(IMAGE, digest="sha256:" + "1" * 64)


def test_project_follows_terraform_at_once_and_keeps_its_image_until_the_agent_is_out(
    environment: Environment, outputs: Outputs, prefect: Prefect
) -> None:
    project.ensure(environment, outputs, IMAGE)
    moved = dataclasses.replace(outputs, subnet_ids=("subnet-2",))

    assert project.ensure(environment, moved, OTHER) == "corrected"
    assert project.ensure(environment, moved, OTHER) == "unchanged"
    assert prefect.pools[environment.prefix].base_job_template == base_job_template(environment, moved, IMAGE)


def test_image_of_the_agent_that_is_out_becomes_that_of_the_project(
    environment: Environment, outputs: Outputs, prefect: Prefect
) -> None:
    project.ensure(environment, outputs, IMAGE)
    project.use_image(environment, OTHER)
    project.use_image(environment, OTHER)

    assert project.image_in_use(environment) == OTHER.pinned
    assert prefect.pools[environment.prefix].base_job_template == base_job_template(environment, outputs, OTHER)
    assert prefect.writes == 2


def test_project_whose_template_somebody_emptied_gets_the_new_image(
    environment: Environment, outputs: Outputs, prefect: Prefect
) -> None:
    project.ensure(environment, outputs, IMAGE)
    prefect.pools[environment.prefix].base_job_template = {}

    assert project.image_in_use(environment) == ""
    assert project.ensure(environment, outputs, OTHER) == "corrected"
    assert project.image_in_use(environment) == OTHER.pinned


def test_image_of_a_project_that_is_gone_says_deploy(environment: Environment, prefect: Prefect) -> None:
    with pytest.raises(PlatformError, match="has no project dev_dataflow_automation") as caught:
        project.image_in_use(environment)

    assert "invoke deploy --env dev" in caught.value.todo


def test_project_whose_creation_was_answered_but_not_heard_is_a_good_one(
    environment: Environment, outputs: Outputs, prefect: Prefect, monkeypatch: pytest.MonkeyPatch
) -> None:
    from prefect.exceptions import ObjectAlreadyExists

    make = prefect.create_work_pool

    def make_twice(pool: Any) -> None:
        make(pool)
        raise ObjectAlreadyExists(Exception("409"))

    monkeypatch.setattr(prefect, "create_work_pool", make_twice)

    assert [project.ensure(environment, outputs, IMAGE) for _ in range(2)] == ["created", "unchanged"]


def test_deleting_a_project_that_is_gone_is_fine(environment: Environment, outputs: Outputs, prefect: Prefect) -> None:
    project.ensure(environment, outputs, IMAGE)
    project.delete(environment)
    project.delete(environment)

    assert prefect.pools == {}


def test_concurrency_limit_of_the_settings_holds_whatever_the_page_says(
    environment: Environment, outputs: Outputs, prefect: Prefect
) -> None:
    limited = dataclasses.replace(environment, concurrency_limit=20)

    assert project.ensure(limited, outputs, IMAGE) == "created"
    assert prefect.pools[environment.prefix].concurrency_limit == 20
    prefect.pools[environment.prefix].concurrency_limit = 3
    assert project.ensure(limited, outputs, IMAGE) == "corrected"
    assert prefect.pools[environment.prefix].concurrency_limit == 20


def test_concurrency_limit_of_the_page_stays_where_the_settings_have_none(
    environment: Environment, outputs: Outputs, prefect: Prefect
) -> None:
    project.ensure(environment, outputs, IMAGE)
    prefect.pools[environment.prefix].concurrency_limit = 3

    assert project.ensure(environment, outputs, IMAGE) == "unchanged"
    other = dataclasses.replace(outputs, subnet_ids=("subnet-2",))
    assert project.ensure(environment, other, IMAGE) == "corrected"
    assert prefect.pools[environment.prefix].concurrency_limit == 3
