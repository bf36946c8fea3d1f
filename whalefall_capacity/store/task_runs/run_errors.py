"""Errors of one task run in one list: items that failed, and databases that were not measured."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

from pydantic import Field
from sqlalchemy import Engine

from whalefall_capacity.store.postgres.one_statement import read_rows, read_value
from whalefall_capacity.store.task_runs.read import MOST_ROWS


@dataclass(frozen=True)
class RunError:
    """One error of a run."""

    item_type: str
    item_key: str
    item_name: str
    instance_id: int | None
    database_name: Annotated[str | None, Field(description="Null: the item as a whole.")]
    message: str


@dataclass(frozen=True)
class RunErrors:
    """A page of the errors of a run; *total* counts no further than MOST_ROWS."""

    errors: Sequence[RunError]
    total: int


# The items of a run come by their unique index (run_id, item_type, item_key). Of an item whose visit completed, the
# databases that were listed and not measured stand in its details: the first of very many by name, the rest as a
# number.
OF_RUN = """
WITH of_run AS (
    SELECT item.item_type, item.item_key, item.item_name, item.instance_id, found.database_name, found.message,
           found.rank
    FROM task_run_items AS item
    CROSS JOIN LATERAL (
        SELECT 1 AS rank, NULL AS database_name, item.error_message AS message WHERE item.error_message IS NOT NULL
        UNION ALL
        SELECT 2, missing.key, missing.value FROM jsonb_each_text(item.details_json -> 'missing') AS missing
        UNION ALL
        SELECT 3, NULL, (item.details_json ->> 'missing_not_named') || ' more databases were not measured'
        WHERE item.details_json ->> 'missing_not_named' IS NOT NULL
    ) AS found
    WHERE item.run_id = :run_id
)
"""
PAGE = """
SELECT item_type, item_key, item_name, instance_id, database_name, message FROM of_run
ORDER BY item_name, item_type, item_key, rank, database_name LIMIT :limit OFFSET :offset
"""
COUNT = "SELECT count(*) FROM (SELECT FROM of_run LIMIT :most) AS counted"


def run_errors(engine: Engine, run_id: str, limit: int, offset: int = 0) -> RunErrors:
    """Return errors of a run, by the name of the item and of the database."""
    errors = read_rows(engine, RunError, OF_RUN + PAGE, run_id=run_id, limit=limit, offset=offset)
    return RunErrors(errors, read_value(engine, OF_RUN + COUNT, run_id=run_id, most=MOST_ROWS))
