"""Items of a task run: watchers that note the progress of work on servers, windows and table partitions."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

from pydantic import JsonValue

from whalefall_capacity.collection.sizes import FailedVisit, Target, Visit
from whalefall_capacity.mirror.items import AGGREGATION_ITEMS, aggregation_items
from whalefall_capacity.resources.fleet import MOST_NAMED, Collection
from whalefall_capacity.resources.task_runs import TaskRunsResource
from whalefall_capacity.store.aggregations.calculate import WindowResult, WindowState
from whalefall_capacity.store.aggregations.statements import Level
from whalefall_capacity.store.maintenance.plan import ChildOutcome, Outcome
from whalefall_capacity.store.sizes.stats import InstanceDays
from whalefall_capacity.store.task_runs.summary import Metric
from whalefall_capacity.store.task_runs.write import Item, ItemType
from whalefall_capacity.watching import Result, Unit, Watcher, terminal


class _Items(Watcher[Unit, Result]):
    """Items of one task run; a cancelled run stops between two units of work."""

    def __init__(self, task_runs: TaskRunsResource) -> None:
        self._task_runs = task_runs

    def progressed(self, done: int, total: int) -> None:
        terminal().progressed(done, total)
        self._task_runs.raise_if_cancelled()


class CollectionItems(_Items[Target, Visit | FailedVisit]):
    """Visits: one item per server."""

    def began(self, target: Target) -> None:
        self._task_runs.started(ItemType.COLLECTION, [str(target.instance_id)])

    def ended(self, outcome: Visit | FailedVisit) -> None:
        if isinstance(outcome, FailedVisit):
            metrics: dict[str, JsonValue] = {"seconds": round(outcome.seconds, 3)}
            self._task_runs.failed(ItemType.COLLECTION, str(outcome.instance_id), outcome.error, metrics)
            return
        measurement = outcome.measurement
        missing = {d.name: d.reason for d in measurement.databases if d.size_bytes is None}
        sizes = [d.size_bytes for d in measurement.databases if d.size_bytes is not None]
        metrics = {
            "databases": len(sizes),
            "databases_missing": len(missing),
            "total_size_bytes": sum(sizes),
            "log_size_bytes": measurement.log_size_bytes,
            "seconds": round(outcome.seconds, 3),
        }
        details: dict[str, JsonValue] = {"version": measurement.version}
        if missing:
            details["missing"] = dict(list(missing.items())[:MOST_NAMED])
        if len(missing) > MOST_NAMED:
            details["missing_not_named"] = len(missing) - MOST_NAMED
        if measurement.caveats:
            details["caveats"] = list(measurement.caveats)
        self._task_runs.completed(ItemType.COLLECTION, str(outcome.target.instance_id), metrics, details)


def report_days(task_runs: TaskRunsResource, instances: Iterable[InstanceDays]) -> None:
    """Note that the stored days of *instances* were reported; items of this run's visits are left as they are."""
    for instance in instances:
        if instance.days:
            task_runs.completed(ItemType.COLLECTION, str(instance.id), {"days_reported": instance.days})


class AggregationItems(_Items[range, range]):
    """Aggregated windows: one item per instance; the instances of a chunk change state together."""

    def __init__(
        self, task_runs: TaskRunsResource, level: Level, instances: Sequence[InstanceDays], windows: int
    ) -> None:
        super().__init__(task_runs)
        self._item_type = AGGREGATION_ITEMS[level]
        self._days = {instance.id: instance.days for instance in instances}
        self._windows = windows
        task_runs.declare(aggregation_items(level, instances))

    def began(self, instance_ids: range) -> None:
        self._task_runs.started(self._item_type, [str(i) for i in instance_ids if i in self._days])

    def ended(self, instance_ids: range) -> None:
        self._task_runs.completed_all(
            self._item_type, {str(i): self._metrics(self._days[i]) for i in instance_ids if i in self._days}
        )

    def _metrics(self, days: int) -> dict[str, JsonValue]:
        metrics: dict[str, JsonValue] = {"days_with_stats": days, "windows": self._windows}
        return metrics if days else metrics | {"skipped": True}


def collection_metrics(collection: Collection) -> list[Metric]:
    """Return the figures of a collection."""
    failed, missing = collection.failed, collection.databases_missing
    return [
        Metric(key="instances_visited", label="Instances visited", value=collection.visited),
        Metric(key="instances_failed", label="Not measured", value=failed, tone="danger" if failed else ""),
        Metric(key="databases", label="Databases measured", value=collection.databases),
        Metric(key="databases_missing", label="Databases missing", value=missing, tone="warning" if missing else ""),
        Metric(key="total_size_bytes", label="Total size", value=collection.total_size_bytes, unit="bytes"),
    ]


# Intermediate outcomes of a table partition; each of the others may be its final one.
INTERMEDIATE_OUTCOMES = (Outcome.ARCHIVED, Outcome.DETACHED, Outcome.FINALIZED)


class TablePartitionItems(_Items[str, ChildOutcome]):
    """Table partitions: one item each, completed by the final outcome."""

    def began(self, child: str) -> None:  # noqa: ARG002 - an item starts with its first intermediate outcome
        self._task_runs.raise_if_cancelled()

    def ended(self, outcome: ChildOutcome) -> None:
        self._task_runs.declare([Item(ItemType.TABLE_PARTITION, outcome.child, outcome.child)])
        if outcome.outcome in INTERMEDIATE_OUTCOMES:
            self._task_runs.started(ItemType.TABLE_PARTITION, [outcome.child])
        else:
            complete_table_partition(self._task_runs, outcome)
        terminal().ended(outcome)


def complete_table_partition(task_runs: TaskRunsResource, outcome: ChildOutcome) -> None:
    """Note the final outcome of a table partition."""
    if outcome.outcome is Outcome.FAILED:
        task_runs.failed(ItemType.TABLE_PARTITION, outcome.child, outcome.reason)
        return
    metrics: dict[str, JsonValue] = {"outcome": outcome.outcome.value}
    metrics |= {name: value for name, value in (("rows", outcome.rows), ("bytes", outcome.bytes)) if value is not None}
    details: dict[str, JsonValue] = {"table": outcome.table}
    if outcome.reason:
        details["reason"] = outcome.reason
    task_runs.completed(ItemType.TABLE_PARTITION, outcome.child, metrics, details)


def maintenance_metrics(outcomes: Sequence[ChildOutcome]) -> list[Metric]:
    """Return the number of table partitions per final outcome; stored summaries have the same keys."""
    counts = Counter(outcome.outcome for outcome in outcomes)
    return [
        Metric(
            key=f"children_{outcome.value}",
            label=f"Table partitions {outcome.value}",
            value=counts[outcome],
            tone="danger" if outcome is Outcome.FAILED else "",
        )
        for outcome in Outcome
        if counts[outcome]
    ]


def aggregation_metrics(level: Level, results: Sequence[WindowResult]) -> list[Metric]:
    """Return the figures of a calculation on one level."""
    counts = {
        "windows": len(results),
        "windows_sealed": sum(result.state is WindowState.SEALED for result in results),
        "windows_skipped": sum(result.state is WindowState.SKIPPED for result in results),
        "rows_written": sum(result.rows_written for result in results),
        "rows_removed": sum(result.rows_removed for result in results),
    }
    return [
        Metric(key=f"{level.value}_{name}", label=f"{level.value.capitalize()} {name.replace('_', ' ')}", value=count)
        for name, count in counts.items()
    ]
