"""Aggregations: one asset per level and period type, downstream of the stats.

Annotations are not postponed here: Dagster reads the type of the resource from the function.
"""

from collections import Counter
from collections.abc import Sequence
from typing import Any

import dagster as dg

from whalefall_capacity.asset_keys import aggregation_key
from whalefall_capacity.assets.columns import STATS, column_lineage, column_schema
from whalefall_capacity.assets.freshness import DAILY_DATA
from whalefall_capacity.assets.metadata import metadata_table
from whalefall_capacity.byte_sizes import change_percent
from whalefall_capacity.partitions import DAYS_OF_PERIOD, PARTITIONS, partition_days
from whalefall_capacity.periods import PeriodType, Window, window_before, window_of
from whalefall_capacity.resources.item_watchers import AggregationItems, aggregation_metrics
from whalefall_capacity.resources.store import StoreResource
from whalefall_capacity.resources.task_runs import TaskRunsResource
from whalefall_capacity.settings import load_settings
from whalefall_capacity.store.aggregations.calculate import WindowResult, WindowState, aggregate, closing_size
from whalefall_capacity.store.aggregations.growth import top_growing_databases, top_growing_instances
from whalefall_capacity.store.aggregations.statements import TABLES, Level
from whalefall_capacity.store.sizes.stats import instances_in_range

SUBJECTS = {
    Level.DATABASE: "Size of every database",
    Level.INSTANCE: "Total size and number of databases of every server",
}


def aggregation_asset(level: Level, period_type: PeriodType) -> dg.AssetsDefinition:
    """Return the asset for the aggregations of one level and period type."""
    key = aggregation_key(level, period_type)

    @dg.asset(
        key=key,
        deps=[dg.AssetDep(STATS[level], partition_mapping=DAYS_OF_PERIOD)],
        partitions_def=PARTITIONS[period_type],
        # One run for a whole range: the statements read the days of many windows at once.
        backfill_policy=dg.BackfillPolicy.single_run(),
        group_name=f"{level.value}_aggregations",
        kinds={"postgres"},
        owners=["team:dba"],
        tags={"level": level.value, "period_type": period_type.value},
        description=f"{SUBJECTS[level]}, per {period_type.calendar.period}: count, sum, largest, smallest and closing "
        f"value of the days. Averages and growth against the period before are in the view `{level.value}_size_growth`."
        " A sealed period is final. docs/aggregations.md",
        freshness_policy=DAILY_DATA,
        metadata={
            "dagster/table_name": key.path[0],
            "dagster/column_schema": column_schema(TABLES[level].aggregations),
            "dagster/column_lineage": column_lineage(level),
        },
    )
    def aggregations(
        context: dg.AssetExecutionContext, store: StoreResource, task_runs: TaskRunsResource
    ) -> dg.MaterializeResult[Any]:
        windows = [window_of(day, period_type) for day in partition_days(context)]
        for window, metadata in calculate_windows(context.log, store, task_runs, level, windows).items():
            context.add_asset_metadata(metadata, partition_key=window.start.isoformat())
        return dg.MaterializeResult()

    return aggregations


def calculate_windows(
    log: dg.DagsterLogManager,
    store: StoreResource,
    task_runs: TaskRunsResource,
    level: Level,
    windows: Sequence[Window],
) -> dict[Window, dict[str, Any]]:
    """Bring *windows* up to date, report the items of the task run, and return the metadata of each window."""
    # A run that was cancelled in the queue may start all the same; from here on, the watcher looks between two chunks.
    task_runs.raise_if_cancelled()
    instances = instances_in_range(store.engine, windows[0].start, windows[-1].end)
    items = AggregationItems(task_runs, level, instances, len(windows))
    results = aggregate(store.engine, level, windows, items, load_settings().aggregation_concurrency)
    task_runs.add_metrics(*aggregation_metrics(level, results))
    if len(results) > 1:
        # Of one window its metadata say the same, and Dagster's log takes longer to write than many a window.
        log.info(f"{level.value}: {describe(results)}")
    before = closing_size(store.engine, level, window_before(windows[0]))
    found: dict[Window, dict[str, Any]] = {}
    for result in results:
        found[result.window] = window_metadata(result, before)
        # A sealed window was not read, so the next has nothing to compare with; one without stats is passed over.
        if result.state is not WindowState.SKIPPED:
            before = result.closing_size_bytes if result.state is WindowState.DONE else None
    # Of the newest window alone: the growers are a query for each window, and a range may have hundreds.
    latest = max((result.window for result in results if result.state is WindowState.DONE), default=None)
    if latest is not None:
        found[latest]["top_growers"] = top_growers(store, level, latest)
    return found


def describe(results: Sequence[WindowResult]) -> str:
    """Return the results as one line for the log."""
    states = Counter(result.state.value for result in results)
    counts = ", ".join(f"{count} {state}" for state, count in sorted(states.items()))
    written, removed = sum(r.rows_written for r in results), sum(r.rows_removed for r in results)
    return f"windows: {counts}; {written} rows written, {removed} removed"


def window_metadata(result: WindowResult, before: int | None) -> dict[str, Any]:
    """Return the metadata of one window; the UI plots numbers.

    *before* is the total closing size of the nearest window before, None if it is not known.
    """
    if result.state is WindowState.SEALED:
        return {"state": result.state.value}
    growth: dict[str, Any] = {}
    if result.state is WindowState.DONE and before is not None:
        growth["growth_bytes"] = result.closing_size_bytes - before
        if (percent := change_percent(growth["growth_bytes"], before)) is not None:
            growth["growth_percent"] = percent
    return growth | {
        "state": result.state.value,
        "skipped": result.state is WindowState.SKIPPED,
        "rows_written": result.rows_written,
        "rows_removed": result.rows_removed,
        "instances": result.instances,
        "days_of_stats": result.source_rows,
        "closing_size_bytes": result.closing_size_bytes,
        "dagster/partition_row_count": result.result_rows,
    }


def top_growers(store: StoreResource, level: Level, window: Window) -> dg.TableMetadataValue:
    """Return what grew most in *window*, compared with its previous window that has a row."""
    measures = ("average_bytes", "change_bytes", "change_percent")
    if level is Level.DATABASE:
        databases = [
            (g.instance, g.database_name, g.avg_size_bytes, g.size_change_bytes, g.size_change_percent)
            for g in top_growing_databases(store.engine, window)
        ]
        return metadata_table(("instance", "database", *measures), databases)
    instances = [
        (g.instance, g.total_size_bytes, g.total_size_change_bytes, g.total_size_change_percent)
        for g in top_growing_instances(store.engine, window)
    ]
    return metadata_table(("instance", *measures), instances)


AGGREGATIONS: Sequence[dg.AssetsDefinition] = [
    aggregation_asset(level, period_type) for period_type in PeriodType for level in Level
]
