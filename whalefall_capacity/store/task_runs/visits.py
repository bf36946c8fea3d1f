"""The visits to one server, as the items of the runs that made them tell."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Any

from pydantic import Field
from sqlalchemy import Engine

from whalefall_capacity.store.postgres.one_statement import read_rows, typed
from whalefall_capacity.store.postgres.statuses import ItemStatus, Status
from whalefall_capacity.store.task_runs.visit_details import VisitDetails
from whalefall_capacity.store.task_runs.write import ItemType

# The runs by the index of their times, newest first, and of each the item by the unique index (run_id, item_type,
# item_key): it ends with the last visit that is asked for.
VISITS = """
SELECT run.run_id, run.trigger_source, run.created_by, run.created_at, item.status, item.started_at, item.completed_at,
       item.error_message, item.metrics_json, item.details_json
FROM task_runs AS run
JOIN task_run_items AS item ON item.run_id = run.run_id
WHERE item.item_type = :item_type AND item.item_key = :item_key
ORDER BY run.created_at DESC
LIMIT :limit
"""


@dataclass(frozen=True)
class ServerVisit(VisitDetails):
    """One visit to one server."""

    run_id: Annotated[str, Field(description="The task run that made it.")]
    trigger_source: str
    created_by: str | None
    created_at: datetime
    status: ItemStatus
    started_at: datetime | None
    completed_at: datetime | None
    error_message: str | None
    metrics_json: Mapping[str, Any] | None
    details_json: Annotated[
        Mapping[str, Any] | None,
        Field(description="Databases that were listed and not measured, with the reasons, and caveats about sizes."),
    ]


def last_visits(engine: Engine, instance_id: int, limit: int) -> list[ServerVisit]:
    """Return the last visits to a server, newest first, those that are waiting or under way too."""
    key = {"item_type": ItemType.COLLECTION.value, "item_key": str(instance_id)}
    return read_rows(engine, typed(ServerVisit, status=Status), VISITS, **key, limit=limit)
