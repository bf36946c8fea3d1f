"""Database and instance sizes, one partition per day; one visit to each server yields both.

Annotations are not postponed here: Dagster reads the type of `config` from the function.
"""

import logging
import time
from collections.abc import Callable, Iterator
from datetime import date
from typing import Any

import dagster as dg
from pydantic import Field

from whalefall_capacity.asset_keys import DATABASE_SIZE_STATS, INSTANCE_SIZE_STATS, STATS_KEYS
from whalefall_capacity.assets.checks import FLEET_COVERAGE, coverage_result
from whalefall_capacity.assets.columns import STATS, column_schema
from whalefall_capacity.assets.external import SERVERS
from whalefall_capacity.assets.freshness import DAILY_DATA
from whalefall_capacity.assets.metadata import NO_INSTANCES, failed_table, materializations, stored_days
from whalefall_capacity.assets.stats_checks import SECRETS_READABLE, secrets_result
from whalefall_capacity.collection.sizes import FailedVisit, Visit
from whalefall_capacity.partitions import DAILY, partition_days
from whalefall_capacity.periods import today
from whalefall_capacity.printable import first_of
from whalefall_capacity.resources.fleet import MOST_NAMED, Collection, FleetResource
from whalefall_capacity.resources.item_watchers import CollectionItems, collection_metrics, report_days
from whalefall_capacity.resources.store import StoreResource
from whalefall_capacity.resources.task_runs import TaskRunsResource
from whalefall_capacity.settings import load_settings
from whalefall_capacity.store.aggregations.statements import TABLES, Level
from whalefall_capacity.store.sizes.stats import coverage, instances_in_range, rows_changed, store_time
from whalefall_capacity.tasks import STATS_STEP

# One run at a time (dagster.yaml): a second collection waits in the queue.
COLLECTION_POOL = "collection"
DAYS_SHOWN = 10
PROGRESS_SECONDS = 1.0


class SizeStatsConfig(dg.Config):
    """The servers to collect from; the whole fleet by default."""

    instance_ids: list[int] | None = Field(
        default=None,
        description="Measure only these instances (ids as in `fleet list`); rows of the others are left as they are.",
    )
    accept_empty: bool = Field(
        default=False,
        description="Accept that the servers in instance_ids no longer list any database, and store a total of 0.",
    )


class LoggedItems(CollectionItems):
    """The items of the visits; the log of the run names the first that failed, and says now and then how far they are.

    A line of the log costs more than a visit: Dagster writes each into its own storage.
    """

    def __init__(
        self, task_runs: TaskRunsResource, log: logging.Logger, monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        super().__init__(task_runs)
        self._log = log
        self._monotonic = monotonic
        self._told_at = monotonic()
        self._told = 0
        self._failed = 0

    def progressed(self, done: int, total: int) -> None:
        super().progressed(done, total)
        now = self._monotonic()
        if done > self._told and now - self._told_at >= PROGRESS_SECONDS:
            self._told, self._told_at = done, now
            self._log.info(f"{done:,} of {total:,} servers visited")

    def ended(self, outcome: Visit | FailedVisit) -> None:
        super().ended(outcome)
        if isinstance(outcome, FailedVisit):
            self._failed += 1
            if self._failed <= MOST_NAMED:
                self._log.error(outcome.error)
            elif self._failed == MOST_NAMED + 1:
                self._log.error("of further servers that cannot be measured only the task run holds the reasons")


def _spec(level: Level, description: str) -> dg.AssetSpec:
    return dg.AssetSpec(
        STATS[level],
        deps=SERVERS,
        group_name="stats",
        kinds={"postgres"},
        owners=["team:dba"],
        tags={"level": level.value},
        description=description,
        freshness_policy=DAILY_DATA,
        metadata={
            "dagster/table_name": TABLES[level].stats.name,
            "dagster/column_schema": column_schema(TABLES[level].stats),
        },
    )


SPECS = [
    _spec(
        Level.DATABASE,
        "Size in bytes of every database of the fleet, per day. Only today can be measured; materializing a past day "
        "reports what is stored for it and changes nothing. docs/servers.md",
    ),
    _spec(
        Level.INSTANCE,
        "Total size in bytes of every server of the fleet, per day: the sum of its databases, how many there are, how "
        "many could not be measured, and the size of its WAL or binary logs where it may be read. docs/servers.md",
    ),
]


@dg.multi_asset(
    name=STATS_STEP,
    specs=SPECS,
    check_specs=[FLEET_COVERAGE, SECRETS_READABLE],
    partitions_def=DAILY,
    backfill_policy=dg.BackfillPolicy.single_run(),
    pool=COLLECTION_POOL,
)
def size_stats(
    context: dg.AssetExecutionContext,
    config: SizeStatsConfig,
    store: StoreResource,
    fleet: FleetResource,
    task_runs: TaskRunsResource,
) -> Iterator[dg.MaterializeResult[Any] | dg.AssetCheckResult]:
    """Measure today, report the stored sizes of past days, and fail for days without any."""
    task_runs.raise_if_cancelled()
    yield secrets_result(store)
    days = partition_days(context)
    this_day = today(load_settings().zone)
    started = store_time(store.engine)
    collection = collect(context, config, store, fleet, task_runs, this_day) if this_day in days else None
    changed = {this_day: rows_changed(store.engine, this_day, started)} if collection else {}
    # Today's partition is the last, so what was measured now belongs to the latest of the days.
    stored = stored_days(store.engine, days, changed, collection)
    if collection is not None and not collection.visited:
        stored.setdefault(this_day, NO_INSTANCES)
    if days[0] < this_day:
        report_days(task_runs, instances_in_range(store.engine, days[0], days[-1]))
    unknown = [day for day in days if day not in stored]
    if unknown:
        # Dagster does not record the outputs of a failing step, but it does record these events.
        for event in materializations(stored):
            context.log_event(event)
        days_without = first_of([str(day) for day in unknown], DAYS_SHOWN)
        raise dg.Failure(
            f"nothing is stored for {days_without}, and a past day cannot be measured; "
            "`whalefall-capacity history import FILE` imports sizes from other sources",
            allow_retries=False,
        )
    for day, metadata in stored.items():
        for key in STATS_KEYS:
            context.add_asset_metadata(metadata[key], asset_key=key, partition_key=day.isoformat())
    yield dg.MaterializeResult(DATABASE_SIZE_STATS)
    yield dg.MaterializeResult(INSTANCE_SIZE_STATS)
    yield fleet_coverage(store, max(days), collection or Collection())


def fleet_coverage(store: StoreResource, day: date, collection: Collection) -> dg.AssetCheckResult:
    """Report which servers have no sizes of *day*, the latest of the run, nor any of the *collection* of it."""
    found = coverage(store.engine, day, MOST_NAMED, collection.started_at, collection.instance_ids)
    return coverage_result(day, found, collection)


def collect(
    context: dg.AssetExecutionContext,
    config: SizeStatsConfig,
    store: StoreResource,
    fleet: FleetResource,
    task_runs: TaskRunsResource,
    day: date,
) -> Collection:
    """Visit the fleet and store its sizes under *day*; fails if no server of those to visit could be measured."""
    if config.accept_empty and config.instance_ids is None:
        raise dg.Failure("accept_empty needs instance_ids: it confirms one server, not the fleet", allow_retries=False)

    collection = fleet.collect(
        store.engine, day, config.instance_ids, config.accept_empty, LoggedItems(task_runs, context.log)
    )
    context.log.info(f"{collection.visited:,} servers visited, {collection.failed:,} of them not measured")
    task_runs.add_metrics(*collection_metrics(collection))
    if collection.visited and not collection.measured:
        first = collection.first_failed[0].error
        raise dg.Failure(
            f"none of {collection.visited} instances could be measured; the first: {first}"
            if collection.visited > 1
            else f"the instance could not be measured: {first}",
            metadata={"failed_instances": failed_table(collection)},
            allow_retries=False,
        )
    return collection
