"""Prints docs/task-run-summary.schema.json, the JSON Schema of task_runs.summary_json, from the model itself."""

from __future__ import annotations

import json
import sys
from typing import Any

from pydantic.json_schema import GenerateJsonSchema, JsonSchemaValue

from whalefall_capacity.store.task_runs.summary import TaskSummary

HEAD = {
    "$schema": "https://json-schema.org/draft/2020-12/schema",
    "title": "task_runs.summary_json",
    "description": "What a task run says of itself. `ext.type` is the task_key of the run.",
}


class AsWritten(GenerateJsonSchema):
    """Describes what is written: every key is there, only texts that are empty by default are left out when empty."""

    def ser_schema(self, schema: Any) -> JsonSchemaValue | None:  # noqa: ARG002 - the fields say it all
        return None

    def field_is_required(self, field: Any, total: bool) -> bool:  # noqa: ARG002 - of typed dicts
        return field["schema"].get("default") != ""

    def default_schema(self, schema: Any) -> JsonSchemaValue:
        content = self.generate_inner(schema["schema"])
        if schema.get("default") != "":
            return content
        if "enum" in content:
            return content | {"enum": [choice for choice in content["enum"] if choice]}
        return content | {"minLength": 1}


def task_run_schema() -> str:
    """Return the schema as JSON."""
    schema = TaskSummary.model_json_schema(mode="serialization", schema_generator=AsWritten)
    return json.dumps(schema | HEAD, indent=2, sort_keys=True) + "\n"


if __name__ == "__main__":
    sys.stdout.write(task_run_schema())
