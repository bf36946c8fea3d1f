"""Every summary that any test leaves in a store is checked against the exported JSON Schema."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from jsonschema import Draft202012Validator, FormatChecker
from sqlalchemy import Engine, text

from whalefall_capacity.settings import PROJECT_ROOT

SCHEMA_FILE = PROJECT_ROOT / "docs" / "task-run-summary.schema.json"
VALIDATOR = Draft202012Validator(json.loads(SCHEMA_FILE.read_text()), format_checker=FormatChecker())


def check_summaries(engine: Engine) -> None:
    """Fail when a task run in the store has a summary that readers of the schema would not understand."""
    with engine.connect() as connection:
        if connection.execute(text("SELECT to_regclass('task_runs')")).scalar() is None:
            return
        query = "SELECT run_id, task_key, summary_json FROM task_runs WHERE summary_json IS NOT NULL"
        found = connection.execute(text(query)).all()
    problems = [f"{row.run_id}: {p}" for row in found for p in problems_of(row.summary_json, row.task_key)]
    assert not problems, "\n".join(problems)


def problems_of(summary: Any, task_key: str) -> Iterator[str]:
    """Yield what is wrong with a summary."""
    for error in VALIDATOR.iter_errors(summary):
        yield f"{error.json_path}: {error.message}"
    if summary.get("ext", {}).get("type") != task_key:
        yield f"$.ext.type is not the task_key {task_key}: {summary.get('ext')}"
