"""Writing of a calculated day, in one transaction: what did not change is not touched, what is gone goes.

Rows come by COPY into a temporary table, and one MERGE brings each table up to date. `calculated_at` moves with the
figures alone, so that a day that is calculated again from the same sizes leaves every row as it is.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import date
from typing import Any

from psycopg2 import sql
from sqlalchemy import Connection, Engine, text

from whalefall_capacity.store.insight.read import (
    NEWEST_DAY,
    Accuracy,
    CapacityForecast,
    DatabaseForecast,
    SizeAnomaly,
)
from whalefall_capacity.store.postgres.copying import copy_rows, name_list, raw_cursor
from whalefall_capacity.store.postgres.engine import again_if_connection_lost
from whalefall_capacity.store.table_partitions.create import CAPACITY_FORECASTS, SIZE_ANOMALIES, ensure_children


@dataclass(frozen=True)
class Target:
    """A table with the columns that tell a row from the others, those that hold its figures, and the texts."""

    table: str
    key: tuple[str, ...]
    figures: tuple[str, ...]
    texts: tuple[str, ...] = ()
    # The column of the day; None where only the newest day is kept.
    day: str | None = None

    @property
    def columns(self) -> tuple[str, ...]:
        return (*self.key, *self.figures)


def _figures(row_type: Any, *without: str) -> tuple[str, ...]:
    return tuple(name for name in row_type.__dataclass_fields__ if name not in without)


FORECASTS = Target(
    "capacity_forecasts",
    ("instance_id", "forecast_date"),
    _figures(CapacityForecast, "instance_id", "instance", "forecast_date"),
    day="forecast_date",
)
DATABASES = Target(
    "database_forecasts",
    ("instance_id", "database_name"),
    _figures(DatabaseForecast, "instance_id", "database_name"),
    texts=("database_name",),
)
ACCURACY = Target(
    "forecast_accuracy",
    ("forecast_date", "level", "horizon_days"),
    _figures(Accuracy, "forecast_date", "level", "horizon_days"),
    day="forecast_date",
)
ANOMALIES = Target(
    "size_anomalies",
    ("instance_id", "database_name", "day"),
    ("kind", "change_bytes", "usual_bytes", "threshold_bytes"),
    texts=("database_name",),
    day="day",
)
# Nothing else in the store waits for these tables: two calculations of the same day take turns.
LOCK = sql.SQL("LOCK TABLE {table} IN SHARE ROW EXCLUSIVE MODE")
STAGE = sql.SQL("CREATE TEMPORARY TABLE calculated (LIKE {table} INCLUDING DEFAULTS) ON COMMIT DROP")
CALCULATED_NOW = sql.SQL("ALTER TABLE calculated ALTER calculated_at SET DEFAULT now()")
UPDATE = sql.SQL(
    "UPDATE {table} AS stored SET ({figures}) = ROW({new}), calculated_at = now(), updated_at = now() "
    "FROM calculated AS new WHERE {same} AND ({old}) IS DISTINCT FROM ({new})"
)
INSERT = sql.SQL(
    "INSERT INTO {table} ({columns}, calculated_at) SELECT {columns}, now() FROM calculated ORDER BY {key} "
    "ON CONFLICT ({key}) DO NOTHING"
)
DELETE = sql.SQL(
    "DELETE FROM {table} AS stored WHERE {of_day} AND NOT EXISTS (SELECT FROM calculated AS new WHERE {same})"
)
# A few rows a day: no table partitions are worth it.
DELETE_OLD_ACCURACY = "DELETE FROM forecast_accuracy WHERE forecast_date < :before"


@again_if_connection_lost
def write_forecasts(
    engine: Engine,
    day: date,
    forecasts: Sequence[CapacityForecast],
    databases: Sequence[DatabaseForecast],
    accuracy: Sequence[Accuracy],
) -> int:
    """Make the stored forecasts of *day* these, and the paces of databases unless a later day's are stored.

    Returns how many rows changed.
    """
    with engine.begin() as connection:
        ensure_children(connection, [CAPACITY_FORECASTS], [day])
        changed = _replace(connection, FORECASTS, day, [_forecast_row(forecast) for forecast in forecasts])
        changed += _replace(connection, ACCURACY, day, [_row(ACCURACY, each) for each in accuracy])
        newest = connection.execute(text(NEWEST_DAY)).scalar()
        if newest is None or newest <= day:
            changed += _replace(connection, DATABASES, day, [_row(DATABASES, each) for each in databases])
    return changed


@again_if_connection_lost
def write_anomalies(engine: Engine, day: date, anomalies: Sequence[SizeAnomaly]) -> int:
    """Make the stored anomalies of *day* these; returns how many rows changed."""
    with engine.begin() as connection:
        ensure_children(connection, [SIZE_ANOMALIES], [day])
        rows = [
            (a.instance_id, a.database, a.day, a.kind.value, a.change_bytes, a.usual_bytes, a.threshold_bytes)
            for a in anomalies
        ]
        return _replace(connection, ANOMALIES, day, rows)


def delete_old_accuracy(engine: Engine, before: date) -> int:
    """Delete how good forecasts were as looked back at before that day; return how many rows went."""
    with engine.begin() as connection:
        return connection.execute(text(DELETE_OLD_ACCURACY), {"before": before}).rowcount


def _replace(connection: Connection, target: Target, day: date, rows: Sequence[Sequence[Any]]) -> int:
    """Make the rows of *day*, or all rows, of the table of *target* these; return how many changed."""
    names: dict[str, sql.Composable] = {
        "table": sql.Identifier(target.table),
        "columns": name_list(target.columns),
        "key": name_list(target.key),
        "figures": name_list(target.figures),
        "old": _of("stored", target.figures),
        "new": _of("new", target.figures),
        "same": sql.SQL(" AND ").join(
            sql.SQL("stored.{0} = new.{0}").format(sql.Identifier(column)) for column in target.key
        ),
        "of_day": sql.SQL("true")
        if target.day is None
        else sql.SQL("stored.{} = {}").format(sql.Identifier(target.day), sql.Literal(day)),
    }
    changed = 0
    with raw_cursor(connection) as cursor:
        cursor.execute(LOCK.format(**names))
        cursor.execute(STAGE.format(**names))
        cursor.execute(CALCULATED_NOW)
        copy_rows(connection, "calculated", target.columns, rows, target.texts)
        cursor.execute("ANALYZE calculated")
        for statement in (DELETE, UPDATE, INSERT):
            cursor.execute(statement.format(**names))
            changed += cursor.rowcount
        cursor.execute("DROP TABLE calculated")
    return changed


def _of(source: str, columns: Sequence[str]) -> sql.Composed:
    return sql.SQL(", ").join(sql.Identifier(source, column) for column in columns)


def _row(target: Target, of: Any) -> list[Any]:
    return [getattr(of, column) for column in target.columns]


def _forecast_row(forecast: CapacityForecast) -> list[Any]:
    values = {name: getattr(forecast, name) for name in FORECASTS.columns}
    values["status"] = forecast.status.value
    values["reason"] = json.dumps(asdict(forecast.reason), default=str, ensure_ascii=False)
    return list(values.values())
