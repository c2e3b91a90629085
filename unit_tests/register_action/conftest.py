"""What the tests of register stand on: a Prefect server in memory, and workflows to hand over to it."""

import dataclasses
import threading
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from uuid import UUID, uuid4

import httpx
import pytest
from pydantic import ValidationError

from agent.project import base_job_template
from environments.secrets import AGENT_TOKEN, REGISTER_TOKEN
from environments.settings import Environment
from infra.images import Image
from infra.terraform import Outputs
from register_action import changes, deployments, workflow
from register_action.changes import Change
from register_action.source import Source
from register_action.workflow import Choice, Workflow
from register_action.workflow_image import DescribedFlow

POOL = "dev_dataflow_automation"
ORIGIN = "github.com/acme/etl//workflow"
COMMIT = "c0ffee" * 6 + "beef"
REGISTRY = "123456789012.dkr.ecr.eu-west-1.amazonaws.com"
TAG = "0123456789abcdef"
IMAGE = Image("dev_etl", TAG, f"{REGISTRY}/dev_etl:{TAG}", "sha256:" + "1" * 64)
OTHER_IMAGE = dataclasses.replace(IMAGE, digest="sha256:" + "2" * 64)
BASE_IMAGE = Image("dev_dataflow_automation_agent", TAG, f"{REGISTRY}/agent:{TAG}", "sha256:" + "b" * 64)
PARAMETERS = {
    "title": "Parameters",
    "type": "object",
    "properties": {"day": {"type": "string", "default": ""}, "limit": {"type": "integer"}},
    "required": ["limit"],
}

HandOver = Callable[..., Workflow]
Register = Callable[..., list[Change]]


def http_error(code: int, detail: str = "no") -> Exception:
    """What Prefect's client raises for an answer of the server."""
    from prefect.exceptions import PrefectHTTPStatusError

    request = httpx.Request("POST", "https://prefect.example/api")
    answer = httpx.Response(code, json={"detail": detail}, request=request)
    try:
        answer.raise_for_status()
    except httpx.HTTPStatusError as error:
        return PrefectHTTPStatusError.from_httpx_error(error)
    raise AssertionError(f"{code} is no error")


def not_found() -> Exception:
    from prefect.exceptions import ObjectNotFound

    return ObjectNotFound(http_exc=http_error(404))


class FakePrefect:
    """A Prefect server in memory, behind the methods of its client that register uses.

    What goes in is checked, and what comes out is made, by Prefect's own models. Like the real one (3.8.8) it makes
    schedules anew and gives the newest first, adds a label of its own, takes parameters it is not told for none, and
    moves a deployment that it is told no work queue of to the default one.

    Attributes:
        pools: base job template by name.
        writes: what was changed, as method and full name; `bodies` has what was told with POST.
        refused: status codes by full name; what is written to these deployments fails. Or an error to raise.
        right: what a request to create a deployment without a name is answered.
        keys: with which keys clients were made.
    """

    def __init__(self) -> None:
        self.pools: dict[str, dict[str, Any]] = {}
        self.flows: dict[UUID, str] = {}
        self.stored: dict[UUID, dict[str, Any]] = {}
        self.writes: list[tuple[str, str]] = []
        self.bodies: list[dict[str, Any]] = []
        self.pages: list[int] = []
        self.refused: dict[str, int | Exception] = {}
        self.right = 422
        self.keys: list[str] = []
        self.lock = threading.Lock()
        self._client = SimpleNamespace(send=None)

    def __enter__(self) -> "FakePrefect":
        return self

    def __exit__(self, *_: object) -> None:
        pass

    # For tests.

    def add(self, full_name: str, **fields: Any) -> UUID:
        """Have a deployment that somebody made, in the words of Prefect's REST API."""
        flow, _, name = full_name.partition("/")
        body = {"name": name, "flow_id": str(self.create_flow_from_name(flow)), "work_pool_name": POOL, **fields}
        return self._upsert(body)

    def edit(self, full_name: str, **fields: Any) -> None:
        """Change a deployment by hand, as on Prefect's page."""
        identifier = self.deployments[full_name].id
        self.stored[identifier] |= fields

    @property
    def deployments(self) -> dict[str, Any]:
        """What is there, as Prefect's `DeploymentResponse`, by full name."""
        made = {identifier: self._response(identifier) for identifier in self.stored}
        return {self._full_name(identifier): response for identifier, response in made.items()}

    def _full_name(self, identifier: UUID) -> str:
        fields = self.stored[identifier]
        return f"{self.flows.get(UUID(fields['flow_id']))}/{fields['name']}"

    def _response(self, identifier: UUID) -> Any:
        from prefect.client.schemas.responses import DeploymentResponse

        return DeploymentResponse.model_validate({"id": identifier, **self.stored[identifier]})

    def _writes(self, method: str, full_name: str) -> None:
        if refusal := self.refused.get(full_name):
            raise refusal if isinstance(refusal, Exception) else http_error(refusal, f"{full_name} is refused")
        self.writes.append((method, full_name))

    # What register uses.

    def read_work_pool(self, name: str) -> Any:
        from prefect.client.schemas.objects import WorkPool

        if name not in self.pools:
            raise not_found()
        return WorkPool(name=name, type="ecs", base_job_template=self.pools[name], default_queue_id=uuid4())

    def read_deployments(
        self,
        *,
        flow_filter: Any = None,
        deployment_filter: Any = None,
        work_pool_filter: Any = None,
        limit: int = 200,
        offset: int = 0,
    ) -> list[Any]:
        if limit > 200:
            raise http_error(422, "limit must be less than or equal to 200")
        self.pages.append(limit)
        tags = set(deployment_filter.tags.all_) if deployment_filter and deployment_filter.tags else set()
        ids = deployment_filter.id.any_ if deployment_filter and deployment_filter.id else None
        found = [
            each
            for each in map(self._response, self.stored)
            if not work_pool_filter or each.work_pool_name in work_pool_filter.name.any_
            if not flow_filter or self.flows.get(each.flow_id) in flow_filter.name.any_
            if tags <= set(each.tags) and (ids is None or each.id in ids)
        ]
        return found[offset : offset + limit]

    def read_flows(self, *, flow_filter: Any, limit: int = 200, offset: int = 0) -> list[Any]:
        from prefect.client.schemas.objects import Flow

        if limit > 200:
            raise http_error(422, "limit must be less than or equal to 200")
        wanted = [identifier for identifier in flow_filter.id.any_ if identifier in self.flows]
        return [Flow(id=each, name=self.flows[each], labels={}) for each in wanted][offset : offset + limit]

    def create_flow_from_name(self, name: str) -> UUID:
        with self.lock:
            known = {known: identifier for identifier, known in self.flows.items()}
            identifier = known.get(name) or uuid4()
            self.flows[identifier] = name
            return identifier

    def request(self, method: str, path: str, json: dict[str, Any]) -> httpx.Response:
        assert (method, path) == ("POST", "/deployments/")
        if not json:
            raise http_error(self.right, "name: Field required")
        self._writes("POST", f"{self.flows[UUID(json['flow_id'])]}/{json['name']}")
        self.bodies.append(json)
        return httpx.Response(200, json={"id": str(self._upsert(json))})

    def update_deployment(self, deployment_id: UUID, deployment: Any) -> None:
        if deployment_id not in self.stored:
            raise http_error(404)
        self._writes("PATCH", self._full_name(deployment_id))
        self.stored[deployment_id] |= deployment.model_dump(mode="json", exclude_unset=True)

    def delete_deployment(self, deployment_id: UUID) -> None:
        if deployment_id not in self.stored:
            raise not_found()
        self._writes("DELETE", self._full_name(deployment_id))
        del self.stored[deployment_id]

    def _upsert(self, body: dict[str, Any]) -> UUID:
        from prefect.client.schemas.actions import DeploymentCreate

        try:
            told = DeploymentCreate.model_validate(body)
        except ValidationError as error:
            raise http_error(422, str(error)) from error
        fields = told.model_dump(mode="json", exclude_unset=True)
        rules = ("schedule", "active", "parameters", "slug")
        schedules = [each.model_dump(mode="json", include=set(rules)) for each in reversed(told.schedules or [])]
        fields["schedules"] = [{"id": str(uuid4()), **each} for each in schedules]
        fields["labels"] = {"prefect.flow.id": str(told.flow_id), **(told.labels or {})}
        fields["parameters"] = told.parameters
        fields["work_queue_name"] = told.work_queue_name or "default"
        with self.lock:
            same = ("flow_id", "name")
            there = [key for key, each in self.stored.items() if all(each[part] == fields[part] for part in same)]
            identifier = there[0] if there else uuid4()
            if "concurrency_limit" in fields:
                limit = fields.pop("concurrency_limit")
                named = {"name": f"deployment:{identifier}", "limit": limit, "active_slots": 0}
                fields["global_concurrency_limit"] = limit and {**named, "slot_decay_per_second": 0}
            self.stored[identifier] = {**self.stored.get(identifier, {}), **fields}
        return identifier


@pytest.fixture
def prefect(environment: Environment, outputs: Outputs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakePrefect:
    """Prefect with the project of environment dev, in place of every server there is; both its keys are set."""
    from prefect.client import orchestration

    fake = FakePrefect()
    fake.pools[POOL] = base_job_template(environment, outputs, BASE_IMAGE)

    def client(_: str, **options: Any) -> FakePrefect:
        fake.keys.append(options["api_key"] or options["auth_string"])
        return fake

    monkeypatch.setattr(orchestration, "SyncPrefectClient", client)
    monkeypatch.setenv(AGENT_TOKEN, "key-of-the-agent")
    monkeypatch.setenv(REGISTER_TOKEN, "key-to-register")
    return fake


def a_source(folder: Path, **changed: Any) -> Source:
    """A folder of the repository acme/etl, checked out by a team."""
    source = Source(folder, name="etl", origin=ORIGIN, commit=COMMIT, branch="main", path="workflow")
    return dataclasses.replace(source, **changed)


@pytest.fixture
def hand_over(environment: Environment, tmp_path: Path) -> HandOver:
    """Read a workflow: functions that are its flows, the text of its prefect.yaml, a choice, fields of its source."""

    def read(*flows: str, prefect_yaml: str = "", choice: Choice | None = None, **source: Any) -> Workflow:
        folder = tmp_path / "workflow"
        folder.mkdir(exist_ok=True)
        functions = "".join(f"\n\n@flow\ndef {name}(limit: int, day: str = ''): ...\n" for name in flows)
        (folder / "flow.py").write_text(f"from prefect import flow\n{functions}")
        (folder / "prefect.yaml").write_text(prefect_yaml)
        return workflow.read(environment, a_source(folder, **source), choice or Choice())

    return read


def described(handed_over: Workflow, **changed: Any) -> list[DescribedFlow]:
    """What the image tells of a workflow's flows."""
    return [
        DescribedFlow(
            **{
                "entrypoint": flow.entrypoint,
                "name": flow.name or flow.function,
                "description": f"About {flow.function}",
                "parameters": PARAMETERS,
                "directory": "/opt/workflow",
                **changed,
            }
        )
        for flow in handed_over.flows
    ]


@pytest.fixture
def register(environment: Environment, prefect: FakePrefect) -> Register:
    """Register a workflow that was handed over, as the task does once its image is in ECR."""

    def run(handed_over: Workflow, image: Image = IMAGE, prune: bool = False, **flow: Any) -> list[Change]:
        project = changes.project_of(environment, handed_over)
        flows = described(handed_over, **flow)
        return deployments.register(environment, handed_over, project, image, flows, prune)

    return run


def actions(done: list[Change]) -> dict[str, str]:
    """What happened, by full name."""
    return {change.full_name: change.action for change in done}
