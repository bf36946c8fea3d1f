"""Database and instance sizes, one partition per day; one visit to each server yields both.

Annotations are not postponed here: Dagster reads the type of `config` from the function.
"""

import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
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
from whalefall_capacity.resources.shards import collection_of, divide, outcome_of, sum_of
from whalefall_capacity.resources.store import StoreResource
from whalefall_capacity.resources.task_runs import TaskRunsResource
from whalefall_capacity.settings import load_settings
from whalefall_capacity.store.aggregations.statements import TABLES, Level
from whalefall_capacity.store.fleet import fleet_ids
from whalefall_capacity.store.sizes.collection_shards import (
    Shard,
    finish_shard,
    forget_outcomes,
    plan_shards,
    read_shards,
)
from whalefall_capacity.store.sizes.stats import coverage, instances_in_range, rows_changed
from whalefall_capacity.tasks import STATS_STEP

# One run at a time (dagster.yaml): a second collection waits in the queue.
COLLECTION_POOL = "collection"
DAYS_SHOWN = 10
# What the last step is called; another job has an op of that name, and names of ops are unique.
REPORT = "report"
# The outputs of the graph of steps, by their names.
ASSET_OUTPUTS: Mapping[str, dg.AssetKey] = {key.path[0]: key for key in STATS_KEYS}
CHECK_OUTPUTS: Mapping[str, dg.AssetCheckSpec] = {check.name: check for check in (FLEET_COVERAGE, SECRETS_READABLE)}
# None rather than a policy of no retries, which would not be the same: see `visits`.
RETRIES = dg.RetryPolicy(max_retries=retries) if (retries := load_settings().shard_retries) else None
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
        partitions_def=DAILY,
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


@dataclass(frozen=True)
class CollectionRun:
    """A run that collects, in one of its steps, or one that goes on where an earlier run ended."""

    context: dg.AssetExecutionContext
    config: SizeStatsConfig
    store: StoreResource
    fleet: FleetResource
    task_runs: TaskRunsResource

    def ledger(self) -> list[Shard]:
        """Return the shards of the fleet, and what came of each."""
        return read_shards(self.store.engine, root_run_id(self.context))

    def complete_ledger(self) -> list[Shard]:
        """Visit the shards of which the ledger knows nothing, and return all; none if their day is over.

        Each was visited by a step of its own, unless an earlier run gave up what it had.
        """
        ledger = self.ledger()
        if lacking := [shard for shard in ledger if shard.outcome is None]:
            for shard in lacking:
                self.visit(shard)
            ledger = self.ledger()
        return ledger if all(shard.outcome for shard in ledger) else []

    def visit(self, shard: Shard) -> None:
        """Visit the servers of *shard*, store their sizes, and note in the ledger what came of it.

        Not when its day is over, unless it ended while this run was at work.
        """
        if shard.planned_by != self.context.run.run_id and shard.day != today(load_settings().zone):
            self.context.log.warning(f"{shard.day} is over and cannot be measured any more")
            return
        engine = self.store.engine
        ids = fleet_ids(engine, self.config.instance_ids, shard.id_range)
        items = LoggedItems(self.task_runs, self.context.log)
        collection = self.fleet.collect(engine, shard.day, ids, self.config.accept_empty, items)
        finish_shard(engine, root_run_id(self.context), shard, self.context.run.run_id, outcome_of(collection))

    def report(self, collection: Collection) -> str | None:
        """Report the figures of the whole collection; if no server of those to visit could be measured, return so."""
        self.context.log.info(f"{collection.visited:,} servers visited, {collection.failed:,} of them not measured")
        self.task_runs.add_metrics(*collection_metrics(collection))
        if collection.measured or not collection.visited:
            return None
        # A run that goes on from here is to visit all of them once more.
        forget_outcomes(self.store.engine, root_run_id(self.context))
        first = collection.first_failed[0].error
        if collection.visited == 1:
            return f"the instance could not be measured: {first}"
        return f"none of {collection.visited} instances could be measured; the first: {first}"

    def report_unvisited(self, days: Sequence[date], ledger: Sequence[Shard]) -> None:
        """Report the items of servers that this run did not visit: visits of an earlier run, and sizes of *days*."""
        earlier = [shard for shard in ledger if shard.visited_by != self.context.run.run_id]
        for shard in earlier:
            for failed in collection_of(shard.outcome or {}).first_failed:
                CollectionItems(self.task_runs).ended(failed)
        if days and (earlier or list(days) != [shard.day for shard in ledger[:1]]):
            report_days(self.task_runs, instances_in_range(self.store.engine, days[0], days[-1]))


@dg.op(out={"shard": dg.DynamicOut(dg.Nothing), SECRETS_READABLE.name: dg.Out(dg.Nothing)}, pool=COLLECTION_POOL)
def shards(
    context: dg.AssetExecutionContext, config: SizeStatsConfig, store: StoreResource, task_runs: TaskRunsResource
) -> Iterator[dg.DynamicOutput[None] | dg.AssetCheckResult]:
    """Decide whether today is measured, and divide the fleet into shards; each is visited by a step of its own."""
    task_runs.raise_if_cancelled()
    yield secrets_result(store)
    settings = load_settings()
    this_day = today(settings.zone)
    ranges = []
    if this_day in partition_days(context):
        if config.accept_empty and config.instance_ids is None:
            reason = "accept_empty needs instance_ids: it confirms one server, not the fleet"
            raise dg.Failure(reason, allow_retries=False)
        ranges = divide(fleet_ids(store.engine, config.instance_ids), settings.collection_shard_instances)
    for shard in plan_shards(store.engine, root_run_id(context), context.run.run_id, this_day, ranges):
        yield dg.DynamicOutput(None, shard.key, output_name="shard")


@dg.op(ins={"shard": dg.In(dg.Nothing)}, out=dg.Out(dg.Nothing), retry_policy=RETRIES)
def visits(
    context: dg.AssetExecutionContext,
    config: SizeStatsConfig,
    store: StoreResource,
    fleet: FleetResource,
    task_runs: TaskRunsResource,
) -> None:
    """Visit the servers of one shard, and note in the ledger what came of it."""
    run = CollectionRun(context, config, store, fleet, task_runs)
    key = context.op_execution_context.get_mapping_key()
    # Without a policy Dagster takes an interrupt for what it is: the end of the run.
    with task_runs.cancelled_for_good() if RETRIES else nullcontext():
        task_runs.raise_if_cancelled()
        shard = {shard.key: shard for shard in run.ledger()}.get(key or "")
        if shard is None:
            raise dg.Failure(f"the store has forgotten shard {key}; materialize the day again", allow_retries=False)
        run.visit(shard)


@dg.op(
    name="report_stats",
    ins={"visited": dg.In(dg.Nothing)},
    out={name: dg.Out(dg.Nothing) for name in (*ASSET_OUTPUTS, FLEET_COVERAGE.name)},
)
def report(
    context: dg.AssetExecutionContext,
    config: SizeStatsConfig,
    store: StoreResource,
    fleet: FleetResource,
    task_runs: TaskRunsResource,
) -> Iterator[dg.MaterializeResult[Any] | dg.AssetCheckResult]:
    """Report what was measured and the stored sizes of past days; then fail for days that have neither."""
    run = CollectionRun(context, config, store, fleet, task_runs)
    task_runs.raise_if_cancelled()
    days = partition_days(context)
    ledger = run.complete_ledger()
    collection = sum_of(collection_of(shard.outcome) for shard in ledger if shard.outcome) if ledger else None
    failure = run.report(collection) if collection is not None else None
    changed = {shard.day: rows_changed(store.engine, shard.day, shard.planned_at) for shard in ledger[:1]}
    # Today's partition is the last, so what was measured now belongs to the latest of the days.
    reported = days[:-1] if failure else days
    stored = stored_days(store.engine, reported, changed, None if failure else collection)
    if collection is not None and not collection.visited:
        stored.setdefault(ledger[0].day, NO_INSTANCES)
    run.report_unvisited(reported, ledger)
    unknown = unknown_days([day for day in reported if day not in stored])
    if reasons := [reason for reason in (failure, unknown) if reason]:
        # Dagster does not record the outputs of a failing step, but it does record these events.
        for event in materializations(stored):
            context.log_event(event)
        failed = {"failed_instances": failed_table(collection)} if failure and collection else None
        raise dg.Failure("; ".join(reasons), metadata=failed, allow_retries=False)
    for day, metadata in stored.items():
        for key in STATS_KEYS:
            context.add_asset_metadata(metadata[key], asset_key=key, partition_key=day.isoformat())
    yield dg.MaterializeResult(DATABASE_SIZE_STATS)
    yield dg.MaterializeResult(INSTANCE_SIZE_STATS)
    yield fleet_coverage(store, max(days), collection or Collection(), config.instance_ids)


def fleet_coverage(
    store: StoreResource, day: date, collection: Collection, instance_ids: Sequence[int] | None
) -> dg.AssetCheckResult:
    """Report which servers have no sizes of *day*, the latest of the run.

    Those of *instance_ids*, None for the whole fleet, must have them from the *collection*, if there was one.
    """
    found = coverage(store.engine, day, MOST_NAMED, collection.started_at, instance_ids)
    return coverage_result(day, found, collection)


def root_run_id(context: dg.AssetExecutionContext) -> str:
    """Return the id of the run whose ledger this run writes: its own, or that of the first run that it repeats."""
    return context.run.root_run_id or context.run.run_id


def unknown_days(days: Sequence[date]) -> str | None:
    """Say of *days*, for which nothing is stored, what can be done; None when there are none."""
    if not days:
        return None
    return (
        f"nothing is stored for {first_of([str(day) for day in days], DAYS_SHOWN)}, and a past day cannot be measured; "
        "`whalefall-capacity history import FILE` imports sizes from other sources"
    )


@dg.config_mapping
def for_each_step(config: SizeStatsConfig) -> dict[str, Any]:
    """Give each step the config of the collection."""
    return {step: {"config": config.model_dump()} for step in (shards.name, visits.name, REPORT)}


@dg.graph(name=STATS_STEP, config=for_each_step, out={name: dg.GraphOut() for name in (*ASSET_OUTPUTS, *CHECK_OUTPUTS)})
def collection_graph() -> dict[str, Any]:
    """Visit the fleet in as many steps as it has shards, and report what they brought.

    The steps hand nothing to each other, so that they need no disk in common: they read and write the ledger.
    """
    divided = shards()
    reported = report.alias(REPORT)(divided.shard.map(visits).collect())
    outputs = {name: getattr(reported, name) for name in (*ASSET_OUTPUTS, FLEET_COVERAGE.name)}
    return outputs | {SECRETS_READABLE.name: getattr(divided, SECRETS_READABLE.name)}


size_stats = dg.AssetsDefinition(
    node_def=collection_graph,
    keys_by_output_name=ASSET_OUTPUTS,
    check_specs_by_output_name=CHECK_OUTPUTS,
    specs=SPECS,
    backfill_policy=dg.BackfillPolicy.single_run(),
)
