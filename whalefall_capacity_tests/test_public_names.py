"""Names that others rely on: whoever changes one here changes what people have scheduled, scripted and charted.

`public_names.txt` lists them; a name that comes is added there by hand, one that goes breaks somebody.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from sqlalchemy import create_engine

from whalefall_capacity.console.app import console_of, create_app
from whalefall_capacity.console.monitoring.metrics import GAUGES
from whalefall_capacity.definitions import defs
from whalefall_capacity.settings import PREFIX, Settings, build_settings
from whalefall_capacity.store.postgres.tables import metadata
from whalefall_capacity_tests.commands.test_help import LEAVES
from whalefall_capacity_tests.console.conftest import FakeDagster

LIST = Path(__file__).with_name("public_names.txt")


def dagster_names() -> Iterator[str]:
    repository = defs.get_repository_def()
    graph = repository.asset_graph
    yield from (f"asset {key.to_user_string()}" for key in graph.get_all_asset_keys())
    yield from (f"check {key.asset_key.to_user_string()} {key.name}" for key in graph.asset_check_keys)
    yield from (f"job {job.name}" for job in repository.get_all_jobs() if not job.name.startswith("__"))
    yield from (f"schedule {schedule.name}" for schedule in repository.schedule_defs)
    yield from (f"sensor {sensor.name}" for sensor in repository.sensor_defs)
    for job in repository.get_all_jobs():
        if not job.name.startswith("__"):
            yield from (f"config {job.name} {path}" for path in _config_of(job))


def _config_of(job: dg.JobDefinition) -> Iterator[str]:
    """Yield what a person may set in the launchpad of a job, op by op."""
    for op in job.graph.node_defs:
        schema = getattr(op, "config_schema", None)
        fields = getattr(schema.config_type, "fields", None) or {} if schema else {}
        yield from (f"{op.name}.{name}" for name in fields)


def command_names() -> Iterator[str]:
    for path, command in LEAVES.items():
        words = " ".join(path)
        yield f"command {words}"
        for parameter in command.params:
            if parameter.name != "help":
                for spelling in (*parameter.opts, *parameter.secondary_opts):
                    yield f"command {words} {spelling}"


def api_names() -> Iterator[str]:
    settings = build_settings()
    document: dict[str, Any] = create_app(
        console_of(create_engine("postgresql+psycopg2://"), settings, FakeDagster())
    ).openapi()
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            yield f"api {method.upper()} {path}"
            for parameter in operation.get("parameters", []):
                yield f"api {method.upper()} {path} ?{parameter['name']}"
    for name, schema in document["components"]["schemas"].items():
        yield from (f"field {field}" for field in schema.get("properties", {}) if name != "HTTPValidationError")


def store_names() -> Iterator[str]:
    for table in metadata.tables.values():
        yield from (f"table {table.name}.{column.name}" for column in table.columns)


def settings_names() -> Iterator[str]:
    yield from (f"setting {PREFIX}{name.upper()}" for name in Settings.model_fields)


def metric_names() -> Iterator[str]:
    for gauge in GAUGES:
        yield f"metric {gauge.name}"
        yield from (f"metric {gauge.name} {label}" for label in gauge.labels)


@pytest.mark.parametrize("source", [dagster_names, command_names, api_names, store_names, settings_names, metric_names])
def test_every_public_name_is_on_the_list(source: Any) -> None:
    kinds = {name.split()[0] for name in source()}
    listed = [line for line in LIST.read_text().splitlines() if line.split()[0] in kinds]
    assert sorted(set(source())) == listed
