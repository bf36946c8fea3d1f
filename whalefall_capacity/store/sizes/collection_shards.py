"""The ledger of a collection: the shards of the fleet that its steps visit, and what came of each.

Steps of one run may be executed by different processes and machines, which share nothing but the store. The ledger
belongs to the first of the runs that execute one another again, so that such a run goes on where the one before it
ended.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import Any

from sqlalchemy import Engine, text

from whalefall_capacity.store.postgres.engine import again_if_connection_lost
from whalefall_capacity.store.postgres.one_statement import read_rows, write

# Nobody executes a collection again after so long: its day is over.
KEPT = timedelta(days=7)

CLEAR = "DELETE FROM collection_shards WHERE root_run_id = :root_run_id OR collected_date < :oldest"
PLAN = """
INSERT INTO collection_shards (root_run_id, first_instance_id, last_instance_id, collected_date, planned_by)
SELECT :root_run_id, shard.first_id, shard.last_id, :day, :run_id
FROM unnest(CAST(:first_ids AS integer[]), CAST(:last_ids AS integer[])) AS shard (first_id, last_id)
"""
SHARDS = """
SELECT first_instance_id, last_instance_id, collected_date AS day, planned_by, created_at AS planned_at, visited_by,
       outcome_json AS outcome
FROM collection_shards
WHERE root_run_id = :root_run_id
ORDER BY first_instance_id
"""
FINISH = """
UPDATE collection_shards SET visited_by = :run_id, outcome_json = CAST(:outcome AS json), updated_at = now()
WHERE root_run_id = :root_run_id AND first_instance_id = :first_id
"""
FORGET = """
UPDATE collection_shards SET visited_by = NULL, outcome_json = NULL, updated_at = now()
WHERE root_run_id = :root_run_id
"""


@dataclass(frozen=True)
class Shard:
    """Instances of the fleet whose ids lie in one range, and what came of their visits, None before it is known.

    *planned_at* is by the store's clock.
    """

    first_instance_id: int
    last_instance_id: int
    day: date
    planned_by: str
    planned_at: datetime
    visited_by: str | None
    outcome: Mapping[str, Any] | None

    @property
    def key(self) -> str:
        """The range as Dagster names a step by it."""
        return f"{self.first_instance_id}_{self.last_instance_id}"

    @property
    def id_range(self) -> tuple[int, int]:
        """The first and the last id; the range stays whoever joins or leaves the fleet meanwhile."""
        return self.first_instance_id, self.last_instance_id


@again_if_connection_lost
def plan_shards(
    engine: Engine, root_run_id: str, run_id: str, day: date, ranges: Sequence[tuple[int, int]]
) -> list[Shard]:
    """Replace the ledger of *root_run_id* by one shard for each of *ranges*, and return them; old ledgers go."""
    values = {
        "root_run_id": root_run_id,
        "run_id": run_id,
        "day": day,
        "first_ids": [first for first, _ in ranges],
        "last_ids": [last for _, last in ranges],
    }
    with engine.begin() as connection:
        connection.execute(text(CLEAR), {"root_run_id": root_run_id, "oldest": day - KEPT})
        connection.execute(text(PLAN), values)
    return read_shards(engine, root_run_id)


def read_shards(engine: Engine, root_run_id: str) -> list[Shard]:
    """Return the shards of a ledger, by their ids."""
    return read_rows(engine, Shard, SHARDS, root_run_id=root_run_id)


@again_if_connection_lost
def finish_shard(engine: Engine, root_run_id: str, shard: Shard, run_id: str, outcome: Mapping[str, Any]) -> None:
    """Note what came of the visits of a shard."""
    # JSON in ASCII, kept as it comes: errors quote servers, which may say NULs and halves of characters.
    values = {"root_run_id": root_run_id, "first_id": shard.first_instance_id, "run_id": run_id}
    write(engine, FINISH, **values, outcome=json.dumps(outcome))


@again_if_connection_lost
def forget_outcomes(engine: Engine, root_run_id: str) -> None:
    """Let a run that goes on from here visit all shards anew."""
    write(engine, FORGET, root_run_id=root_run_id)
