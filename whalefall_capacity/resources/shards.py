"""Shards of a collection: how the fleet is divided into them, and how what came of each adds up."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from datetime import datetime
from typing import Any

from whalefall_capacity.collection.sizes import FailedVisit
from whalefall_capacity.resources.fleet import MOST_NAMED, Collection, MissingDatabase

# Dagster slows down with thousands of steps in a run, and draws each of them.
MOST_SHARDS = 200
# The fleet of nobody, which is visited all the same.
NOBODY = (0, 0)


def divide(instance_ids: Sequence[int], instances_each: int | None) -> list[tuple[int, int]]:
    """Return the first and the last id of each shard: one for all, or so many that each has *instances_each*.

    At most `MOST_SHARDS`, then of more instances each.
    """
    if not instance_ids:
        return [NOBODY]
    ids = sorted(instance_ids)
    fewest = -(-len(ids) // MOST_SHARDS)
    size = max(instances_each or len(ids), fewest)
    parts = [ids[start : start + size] for start in range(0, len(ids), size)]
    return [(part[0], part[-1]) for part in parts]


def outcome_of(collection: Collection) -> dict[str, Any]:
    """Return *collection* as the ledger keeps it."""
    started_at = collection.started_at
    return asdict(collection) | {"started_at": started_at and started_at.isoformat()}


def collection_of(outcome: Mapping[str, Any]) -> Collection:
    """Return the collection that `outcome_of` was given."""
    started_at = outcome["started_at"]
    return Collection(
        **{
            **outcome,
            "started_at": started_at and datetime.fromisoformat(started_at),
            "first_failed": [FailedVisit(**visit) for visit in outcome["first_failed"]],
            "first_missing": [MissingDatabase(*database) for database in outcome["first_missing"]],
        }
    )


def sum_of(collections: Iterable[Collection]) -> Collection:
    """Return several collections as one, which names as many failures as each of them may."""
    parts = list(collections)
    total = Collection(min((part.started_at for part in parts if part.started_at), default=None))
    for part in parts:
        total.measured += part.measured
        total.failed += part.failed
        total.databases += part.databases
        total.databases_missing += part.databases_missing
        total.total_size_bytes += part.total_size_bytes
        total.first_failed += part.first_failed[: MOST_NAMED - len(total.first_failed)]
        total.first_missing += part.first_missing[: MOST_NAMED - len(total.first_missing)]
    return total
