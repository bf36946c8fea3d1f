"""Metadata of a day in the Dagster UI, which plots its numbers."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import date
from decimal import Decimal
from typing import Any

import dagster as dg
from sqlalchemy import Engine

from whalefall_capacity.asset_keys import DATABASE_SIZE_STATS, INSTANCE_SIZE_STATS, STATS_KEYS
from whalefall_capacity.printable import printable
from whalefall_capacity.resources.fleet import Collection, MissingDatabase
from whalefall_capacity.store.sizes.stats import DayTotals, StoredSize, biggest_databases, day_totals

# How many stored rows a materialization of stats changed; 0 if it only reported stored rows.
ROWS_CHANGED = "rows_changed"

# When the newest total of the day was written, by the store's clock.
CHANGED_AT = "changed_at"

DayMetadata = Mapping[dg.AssetKey, dict[str, Any]]

# An empty fleet: nothing to measure is not a failure.
NO_INSTANCES: DayMetadata = {key: {"skipped": True, "instances": 0, ROWS_CHANGED: 0} for key in STATS_KEYS}


def stored_days(
    engine: Engine, days: Iterable[date], changed: Mapping[date, int] | None, collection: Collection | None = None
) -> dict[date, DayMetadata]:
    """Return the metadata per asset for each of *days* that is stored, oldest first.

    *changed* maps days to the number of rows that just changed, 0 for days that it does not name; None means that all
    of the days changed. *collection* is the one that just ended; it belongs to the latest of the days.
    """
    totals = {total.day: total for total in day_totals(engine, days)}
    biggest: dict[date, list[StoredSize]] = defaultdict(list)
    for database in biggest_databases(engine, totals):
        biggest[database.day].append(database)
    latest = max(totals, default=None)
    return {
        day: _day_metadata(
            total,
            biggest[day],
            None if changed is None else changed.get(day, 0),
            collection if day == latest else None,
        )
        for day, total in totals.items()
    }


def materializations(days: Mapping[date, DayMetadata]) -> Iterator[dg.AssetMaterialization]:
    """Yield the event of every day and asset."""
    for day, metadata in days.items():
        for key in STATS_KEYS:
            yield dg.AssetMaterialization(key, partition=day.isoformat(), metadata=metadata[key])


def failed_table(collection: Collection) -> dg.TableMetadataValue:
    """Return the first instances that could not be measured, each with its reason."""
    return metadata_table(
        ("instance", "error", "seconds"), [(f.name, f.error, round(f.seconds, 1)) for f in collection.first_failed]
    )


def _day_metadata(
    totals: DayTotals, biggest: Sequence[StoredSize], changed: int | None, collection: Collection | None
) -> DayMetadata:
    shared: dict[str, Any] = {
        "instances": totals.instances,
        "databases": totals.databases,
        "missing_databases": totals.missing_databases,
        "total_size_bytes": totals.total_size_bytes,
        "instances_without_log_size": totals.instances_without_log_size,
        "measured_now": collection is not None,
        CHANGED_AT: totals.changed_at.isoformat(),
    }
    if changed is not None:
        shared[ROWS_CHANGED] = changed
    if totals.log_size_bytes is not None:
        shared["log_size_bytes"] = totals.log_size_bytes
    if collection is not None:
        shared |= _collection_metadata(collection)
    rows = [(database.instance, database.database, database.size_bytes) for database in biggest]
    return {
        DATABASE_SIZE_STATS: shared
        | {
            "dagster/partition_row_count": totals.databases,
            "biggest_databases": metadata_table(("instance", "database", "size_bytes"), rows),
        },
        INSTANCE_SIZE_STATS: shared | {"dagster/partition_row_count": totals.instances},
    }


def _collection_metadata(collection: Collection) -> dict[str, Any]:
    metadata: dict[str, Any] = {
        "instances_ok": collection.measured,
        "instances_failed": collection.failed,
    }
    if collection.failed:
        metadata["failed_instances"] = failed_table(collection)
    if collection.first_missing:
        metadata["databases_not_measured"] = metadata_table(MissingDatabase._fields, collection.first_missing)
    return metadata


def metadata_table(columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> dg.TableMetadataValue:
    """Return rows as a metadata table; the explicit schema allows for an empty one."""
    rows = [[_cell(value) for value in row] for row in rows]
    schema = dg.TableSchema(columns=[dg.TableColumn(name) for name in columns])
    return dg.MetadataValue.table(
        records=[dg.TableRecord(dict(zip(columns, row, strict=True))) for row in rows], schema=schema
    )


def _cell(value: Any) -> Any:
    """Return *value* as a type that a cell of a metadata table can hold."""
    if isinstance(value, str):
        return printable(value)
    if isinstance(value, date):
        return value.isoformat()
    return float(value) if isinstance(value, Decimal) else value
