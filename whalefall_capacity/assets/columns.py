"""The columns of the assets' tables as the UI shows them: types, meanings, and from which column each comes."""

from __future__ import annotations

import re
from typing import Any

import dagster as dg
from sqlalchemy import Column, Table

from whalefall_capacity.asset_keys import DATABASE_SIZE_STATS, INSTANCE_SIZE_STATS
from whalefall_capacity.store.aggregations.statements import TABLES, Level, Tables

STATS = {Level.DATABASE: DATABASE_SIZE_STATS, Level.INSTANCE: INSTANCE_SIZE_STATS}

MEANING = {
    "instance_id": "the server, as in `whalefall-capacity fleet list`",
    "database_name": "name of the database, case-sensitive",
    "collected_date": "day in the configured time zone",
    "collected_at": "when the server was asked",
    "source": "measured or imported",
    "created_at": "when the row was first written",
    "updated_at": "when a figure of the row last changed",
    "total_size_bytes": "sum of its databases, in bytes",
    "database_count": "databases that were measured",
    "missing_count": "databases that were listed but not measured",
    "period_type": "daily, weekly, monthly or quarterly",
    "period_start": "first day of the window; the key of the partition",
    "period_end": "last day of the window, also of the one in progress",
    "data_count": "days with data",
    "partial_days": "days with databases that could not be measured; they count only where no day is complete",
    "sum_database_count": "sum of the databases per day",
    "max_database_count": "most databases on a day",
    "min_database_count": "fewest databases on a day",
    "calculated_at": "when the row was last calculated to something new",
    "forecast_date": "the last day that the forecast knows of; the key of the partition",
    "status": "dated, or why no date is given",
    "used_bytes": "last sizes of its databases, and its logs, in bytes",
    "limit_bytes": "size of the disk by the fleet file, in bytes",
    "rate_bytes_per_day": "pace: the sum of the paces of its databases, in bytes per day",
    "spread_bytes": "how differently its growth of 28 days turned out, in bytes",
    "swing_bytes": "room for the peaks of what grows and is purged, in bytes",
    "range_low": "spreads that the range reaches below the pace",
    "range_high": "spreads that the range reaches above the pace",
    "expected_date": "when it is full",
    "earliest_date": "when it is full at the earliest",
    "latest_date": "when it is full at the latest; none: open",
    "last_measured_date": "the last day with a size",
    "measured_days": "days of the history with a size",
    "databases": "databases that count",
    "reason": "largest growers, one-offs left out, databases without a pace",
    "day": "day in the configured time zone; the key of the partition",
    "kind": "jump, drop or stall",
    "change_bytes": "change beyond the usual, in bytes; of a stall, the growth of 14 days",
    "usual_bytes": "usual change, in bytes; of a stall, the least growth of 14 days before",
    "threshold_bytes": "what would still have been usual, in bytes",
}
MEASURES = {
    "": "in bytes",
    "sum_": "sum over the days, in bytes",
    "max_": "on the day with the most, in bytes",
    "min_": "on the day with the least, in bytes",
    "closing_": "on the last day with data, in bytes",
}
KINDS = {
    "size_bytes": "size",
    "data_size_bytes": "size of the data alone",
    "log_size_bytes": "size of the WAL, binary or transaction logs",
}
MEANING |= {
    f"{prefix}{column}": f"{what}, {when}" for prefix, when in MEASURES.items() for column, what in KINDS.items()
}
MEANING |= {f"{kind}_size_count": f"days on which the {kind} size is known" for kind in ("data", "log")}


def column_schema(table: Table) -> dg.TableSchema:
    """Return the columns of *table* with their types and meanings."""
    return dg.TableSchema(
        columns=[
            dg.TableColumn(
                column.name,
                _type(column),
                description=MEANING[column.name],
                constraints=dg.TableColumnConstraints(nullable=bool(column.nullable)),
            )
            for column in table.columns
        ]
    )


def _type(column: Column[Any]) -> str:
    """Return the type by PostgreSQL's name, without its collation."""
    name = str(column.type).partition(" ")[0].lower()
    return "timestamptz" if name == "datetime" else name


# Columns of the aggregations that are not named after the column of the stats that they come from.
SOURCES = {
    "period_start": "collected_date",
    "period_end": "collected_date",
    "data_count": "collected_date",
    "partial_days": "missing_count",
    "data_size_count": "data_size_bytes",
    "log_size_count": "log_size_bytes",
}


def column_lineage(level: Level) -> dg.TableColumnLineage:
    """Return from which columns of the stats each column of the aggregations of *level* comes."""
    tables = TABLES[level]
    return dg.TableColumnLineage(
        deps_by_column={
            column: [dg.TableColumnDep(asset_key=STATS[level], column_name=_source(column, tables))]
            for column in (*tables.key, "period_start", "period_end", *tables.measures)
        }
    )


def _source(column: str, tables: Tables) -> str:
    """Return the column of the stats behind a column of the aggregations. Raises KeyError when there is none."""
    measured = re.sub("^(sum|max|min|closing)_", "", column)
    source = tables.size if measured == "size_bytes" else SOURCES.get(measured, measured)
    return tables.stats.columns[source].name
