"""The OpenAPI document holds: whatever schemathesis makes of it, no 5xx, no answer that it does not announce."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from hypothesis.errors import Unsatisfiable
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)
from sqlalchemy import Engine, text
from starlette.testclient import TestClient

from whalefall_capacity.console.api.routes import CapacityRows
from whalefall_capacity.console.api.task_runs import TaskRunWithItems
from whalefall_capacity.console.app import console_of, create_app
from whalefall_capacity.settings import build_settings
from whalefall_capacity.store.access import Role, create_token
from whalefall_capacity.store.aggregations.growth import DatabaseGrowth, InstanceGrowth
from whalefall_capacity.store.postgres.embedded import EmbeddedPostgres
from whalefall_capacity_tests.console.conftest import Callers, FakeDagster, copied_store

CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
]
RUN = """
INSERT INTO task_runs (run_id, task_key, task_name, task_category, trigger_source, status, summary_json)
VALUES ('r-1', 'other', 'run', 'maintenance', 'manual', 'running', '{"version": 1}')
"""


@pytest.fixture(scope="module")
def tokens() -> dict[Role, str]:
    return {}


@pytest.fixture(scope="module")
def api(store_server: EmbeddedPostgres, past: str, tokens: dict[Role, str]) -> Iterator[Any]:
    """The document of an application that runs in this process."""
    with copied_store(store_server, past) as engine:
        with engine.begin() as connection:
            connection.execute(text(RUN))
        tokens |= {role: create_token(engine, role.value, role).get_secret_value() for role in Role}
        app = create_app(console_of(engine, build_settings(allowed_hosts=("testserver",)), FakeDagster()))
        yield schemathesis.openapi.from_asgi("/api/v1/openapi.json", app)


OPERATIONS = (
    ("GET", "/api/v1/session"),
    ("GET", "/api/v1/overview"),
    ("GET", "/api/v1/capacity/databases"),
    ("GET", "/api/v1/capacity/databases/summary"),
    ("GET", "/api/v1/capacity/instances"),
    ("GET", "/api/v1/capacity/instances/summary"),
    ("GET", "/api/v1/capacity/forecasts"),
    ("GET", "/api/v1/capacity/forecasts/accuracy"),
    ("POST", "/api/v1/capacity/aggregations/current"),
    ("POST", "/api/v1/capacity/collections"),
    ("GET", "/api/v1/instances"),
    ("GET", "/api/v1/instances/{instance_id}"),
    ("GET", "/api/v1/instances/{instance_id}/days"),
    ("GET", "/api/v1/instances/{instance_id}/visits"),
    ("GET", "/api/v1/instances/{instance_id}/forecast"),
    ("GET", "/api/v1/instances/{instance_id}/waterfall"),
    ("GET", "/api/v1/instances/{instance_id}/database"),
    ("GET", "/api/v1/instances/{instance_id}/database/days"),
    ("GET", "/api/v1/instances/{instance_id}/database/tables"),
    ("GET", "/api/v1/databases"),
    ("GET", "/api/v1/options/instances"),
    ("GET", "/api/v1/options/databases"),
    ("GET", "/api/v1/task-runs"),
    ("GET", "/api/v1/task-runs/{run_id}"),
    ("GET", "/api/v1/task-runs/{run_id}/errors"),
    ("GET", "/api/v1/options/task-runs"),
    ("POST", "/api/v1/task-runs/{run_id}/actions/cancel"),
    ("GET", "/api/v1/partitions"),
    ("GET", "/api/v1/partitions/status"),
    ("POST", "/api/v1/partitions"),
    ("POST", "/api/v1/partitions/actions/cleanup"),
)


@pytest.mark.slow
@pytest.mark.parametrize("mode", [GenerationMode.POSITIVE, GenerationMode.NEGATIVE], ids=["allowed", "not-allowed"])
@pytest.mark.parametrize("role", list(Role))
@pytest.mark.parametrize(("method", "path"), OPERATIONS, ids=[f"{method} {path}" for method, path in OPERATIONS])
def test_every_answer_is_one_that_the_document_announces(
    api: Any, tokens: dict[Role, str], method: str, path: str, role: Role, mode: GenerationMode
) -> None:
    operation = api[path][method]
    # What may only be read is answered alike to every role.
    examples = 20 if method == "POST" or role is Role.VIEW else 2

    @settings(max_examples=examples, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
    @given(case=operation.as_strategy(generation_mode=mode))
    def call(case: Any) -> None:
        case.call_and_validate(checks=CHECKS, headers={"Authorization": f"Bearer {tokens[role]}"})

    try:
        call()
    except Unsatisfiable:
        assert mode is GenerationMode.NEGATIVE  # Nothing about this operation can be wrong.


def test_every_operation_of_the_document_is_tried(reader: TestClient) -> None:
    paths = reader.get("/api/v1/openapi.json").json()["paths"]
    assert {(method.upper(), path) for path, found in paths.items() for method in found} == set(OPERATIONS)


def test_bad_parameters_are_announced_as_400_and_everything_needs_authentication(reader: TestClient) -> None:
    for operations in reader.get("/api/v1/openapi.json").json()["paths"].values():
        for operation in operations.values():
            assert {"400", "401"} <= set(operation["responses"])
            assert "422" not in operation["responses"]
            assert operation["security"]


def test_the_document_shows_numbers_statuses_and_no_field_of_the_store_alone(reader: TestClient) -> None:
    schemas = reader.get("/api/v1/openapi.json").json()["components"]["schemas"]
    growth, item, drop = (schemas[name]["properties"] for name in ("DatabaseGrowth", "TaskRunItem", "PlannedDrop"))
    assert growth["size_change_percent"]["anyOf"] == [{"type": "number"}, {"type": "null"}]
    assert growth["trend_direction"]["anyOf"][0]["enum"] == ["growing", "shrinking", "stable"]
    run_statuses = ["pending", "running", "completed", "completed_with_errors", "failed", "cancelled"]
    assert schemas["Status"]["enum"] == run_statuses
    assert item["status"]["enum"] == ["pending", "running", "completed", "failed", "cancelled"]
    assert list(drop) == ["table", "child", "lower", "upper", "rows", "bytes", "reason"]


def test_an_answer_fulfils_its_model(reader: TestClient, store: Engine, callers: Callers) -> None:
    rows = reader.get("/api/v1/capacity/databases").json()["data"]
    CapacityRows[DatabaseGrowth].model_validate(rows)
    rows = reader.get("/api/v1/capacity/instances").json()["data"]
    CapacityRows[InstanceGrowth].model_validate(rows)
    with store.begin() as connection:
        connection.execute(text(RUN))
    TaskRunWithItems.model_validate(callers.script(Role.VIEW).get("/api/v1/task-runs/r-1").json()["data"])
