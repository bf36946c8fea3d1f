"""Forecasts and anomalies of a day: one look at the histories of all databases gives both.

Annotations are not postponed here: Dagster reads the type of the resource from the function.
"""

import time
from collections import Counter
from collections.abc import Iterator, Sequence
from datetime import date
from typing import Any

import dagster as dg

from whalefall_capacity.asset_keys import CAPACITY_FORECASTS, SIZE_ANOMALIES, STATS_KEYS
from whalefall_capacity.assets.columns import column_schema
from whalefall_capacity.assets.freshness import DAILY_DATA
from whalefall_capacity.assets.metadata import ROWS_CHANGED, metadata_table
from whalefall_capacity.insight.statuses import AnomalyKind, ForecastStatus
from whalefall_capacity.partitions import DAILY, partition_days
from whalefall_capacity.resources.store import StoreResource
from whalefall_capacity.resources.task_runs import TaskRunsResource
from whalefall_capacity.settings import load_settings
from whalefall_capacity.store.insight.final_days import final_days
from whalefall_capacity.store.insight.read import (
    Accuracy,
    CapacityForecast,
    SizeAnomaly,
    accuracy_of_days,
    anomalies_of_days,
    forecasts_of_day,
)
from whalefall_capacity.store.postgres.tables import capacity_forecasts, size_anomalies
from whalefall_capacity.tasks import INSIGHT_STEP

SHOWN = 10
# What the accuracy of a fleet is told by.
HORIZON_DAYS = 90


def _spec(key: dg.AssetKey, table: Any, description: str) -> dg.AssetSpec:
    return dg.AssetSpec(
        key,
        deps=STATS_KEYS,
        group_name="insight",
        kinds={"postgres", "numpy"},
        owners=["team:dba"],
        description=description,
        freshness_policy=DAILY_DATA,
        metadata={"dagster/table_name": table.name, "dagster/column_schema": column_schema(table)},
    )


SPECS = [
    _spec(
        CAPACITY_FORECASTS,
        capacity_forecasts,
        "When every instance with a limit is full, as a range of dates, or why that cannot be said; and how good such "
        "forecasts were in this fleet. A partition knows nothing later than its own day. docs/forecasts.md",
    ),
    _spec(
        SIZE_ANOMALIES,
        size_anomalies,
        "Databases that jumped, dropped or stalled on a day, against the way in which each of them grows. "
        "docs/forecasts.md",
    ),
]


@dg.multi_asset(
    name=INSIGHT_STEP,
    specs=SPECS,
    can_subset=True,
    partitions_def=DAILY,
    backfill_policy=dg.BackfillPolicy.single_run(),
    # Of the steps that are ready the one with the highest goes first: the aggregations have 0, for Celery 5.
    op_tags={"dagster/priority": "-1", "dagster-celery/priority": "4"},
)
def insight(
    context: dg.AssetExecutionContext, store: StoreResource, task_runs: TaskRunsResource
) -> Iterator[dg.MaterializeResult[Any]]:
    """Calculate each day of the partitions, oldest first, and write what was selected; days that are final stay."""
    # Imported here: numpy takes a while to load, and only this function needs it.
    from whalefall_capacity.store.insight.calculate import calculate
    from whalefall_capacity.store.insight.write import write_anomalies, write_forecasts

    def progressed(_done: int, _total: int) -> None:
        task_runs.raise_if_cancelled()

    task_runs.raise_if_cancelled()
    selected = context.selected_asset_keys
    days, zone = partition_days(context), load_settings().timezone
    final = final_days(store.engine, days, zone)
    for day in final:
        _report_final(context, store, day)
    began = time.monotonic()
    # Day by day and not at the end: what a run that is stopped has written of earlier days is whole, and stays.
    for found in calculate(store.engine, [day for day in days if day not in final], zone, progressed):
        seconds = {"seconds": round(time.monotonic() - began, 1)}
        if CAPACITY_FORECASTS in selected:
            changed = write_forecasts(store.engine, found.day, found.forecasts, found.databases, found.accuracy)
            metadata = forecast_metadata(store, found.day) | {"anomalies": len(found.anomalies)} | seconds
            _report(context, CAPACITY_FORECASTS, found.day, metadata, changed)
        if SIZE_ANOMALIES in selected:
            changed = write_anomalies(store.engine, found.day, found.anomalies)
            _report(context, SIZE_ANOMALIES, found.day, anomaly_metadata(store, found.day) | seconds, changed)
        began = time.monotonic()
    for key in selected:
        yield dg.MaterializeResult(key)


def _report_final(context: dg.AssetExecutionContext, store: StoreResource, day: date) -> None:
    """Report what is stored of a day whose sizes were retired since: fewer would give another answer."""
    for key, metadata_of in ((CAPACITY_FORECASTS, forecast_metadata), (SIZE_ANOMALIES, anomaly_metadata)):
        if key in context.selected_asset_keys:
            _report(context, key, day, metadata_of(store, day) | {"sealed": True}, changed=0)


def _report(
    context: dg.AssetExecutionContext, key: dg.AssetKey, day: date, metadata: dict[str, Any], changed: int
) -> None:
    context.log.info(f"{key.to_user_string()} of {day}: {changed} rows changed")
    context.add_asset_metadata(metadata | {ROWS_CHANGED: changed}, asset_key=key, partition_key=day.isoformat())


def forecast_metadata(store: StoreResource, day: date) -> dict[str, Any]:
    """Return what an operator sees of the stored forecasts of *day*; numbers are plotted by the UI."""
    forecasts = forecasts_of_day(store.engine, day)
    counts = Counter(forecast.status for forecast in forecasts)
    accuracy = [
        found
        for found in accuracy_of_days(store.engine, day, day)
        if found.level == "instance" and found.horizon_days == HORIZON_DAYS
    ]
    return {
        "dagster/partition_row_count": len(forecasts),
        **{f"instances_{status.value}": counts[status] for status in ForecastStatus},
        "soonest": _soonest(forecasts),
        **{name: value for found in accuracy for name, value in _accuracy(found).items() if value is not None},
    }


def _soonest(forecasts: Sequence[CapacityForecast]) -> dg.TableMetadataValue:
    """Return those that are full first; *forecasts* are in this order."""
    full = [f for f in forecasts if f.status in (ForecastStatus.FULL, ForecastStatus.DATED, ForecastStatus.NOT_BEFORE)]
    return metadata_table(
        ("instance", "status", "expected", "earliest", "latest", "used_bytes", "limit_bytes", "bytes_per_day"),
        [
            (
                f.instance,
                f.status.value,
                f.shown_expected_date,
                f.earliest_date,
                f.latest_date,
                f.used_bytes,
                f.limit_bytes,
                f.rate_bytes_per_day,
            )
            for f in full[:SHOWN]
        ],
    )


def _accuracy(found: Accuracy) -> dict[str, Any]:
    figures = {
        "coverage_percent": found.coverage_percent,
        "error_percent": found.mean_error_percent,
        "error_of_no_growth_percent": found.no_growth_mean_error_percent,
        "error_of_least_squares_percent": found.least_squares_mean_error_percent,
    }
    return {"forecasts_looked_back_at": found.forecasts} | {
        name: None if value is None else float(value) for name, value in figures.items()
    }


def anomaly_metadata(store: StoreResource, day: date) -> dict[str, Any]:
    """Return what an operator sees of the stored anomalies of *day*."""
    found = anomalies_of_days(store.engine, day, day)
    counts = Counter(anomaly.kind for anomaly in found)
    return {
        "dagster/partition_row_count": len(found),
        **{f"{kind.value}s": counts[kind] for kind in AnomalyKind},
        "largest": anomaly_table(found[:SHOWN]),
    }


def anomaly_table(found: Sequence[SizeAnomaly]) -> dg.TableMetadataValue:
    """Return anomalies as a table."""
    return metadata_table(
        ("instance", "database", "kind", "change_bytes", "usual_bytes", "threshold_bytes"),
        [(a.instance, a.database, a.kind.value, a.change_bytes, a.usual_bytes, a.threshold_bytes) for a in found],
    )
