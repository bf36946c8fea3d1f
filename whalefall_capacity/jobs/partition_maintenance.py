"""The maintenance of the table partitions as a graph of ops: a failure in one step does not stop the others.

Annotations are not postponed here: Dagster reads the types of config and resources from the functions.
"""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import date
from typing import Any

import dagster as dg
from pydantic import Field

from whalefall_capacity.assets.checks import table_partition_evaluations
from whalefall_capacity.assets.metadata import metadata_table
from whalefall_capacity.execution_choices import LauncherName
from whalefall_capacity.jobs.run_retention import forget_old_runs
from whalefall_capacity.periods import today, utc_now
from whalefall_capacity.resources.item_watchers import (
    TablePartitionItems,
    complete_table_partition,
    maintenance_metrics,
)
from whalefall_capacity.resources.run_process import KeptAlive
from whalefall_capacity.resources.store import MaintenanceStore
from whalefall_capacity.resources.task_runs import TaskRunsResource
from whalefall_capacity.run_tags import RETRY_STRATEGY_TAG
from whalefall_capacity.settings import Settings, build_settings, load_settings
from whalefall_capacity.store.maintenance.health import read_status
from whalefall_capacity.store.maintenance.plan import MAX_DROPS, ChildOutcome, Outcome, Plan, PlannedDrop
from whalefall_capacity.store.maintenance.retire import (
    Maintenance,
    allowed_drops,
    archive_children,
    create,
    detach_and_drop,
    finish_leftovers,
    make_plan,
    seal_children,
)
from whalefall_capacity.store.task_runs.summary import Metric
from whalefall_capacity.store.task_runs.write import Item, ItemType


def _instead_of(setting: str) -> Any:
    """Return a field that overrides a setting for this run alone."""
    description = f"{Settings.model_fields[setting].description} Default: WHALEFALL_{setting.upper()}."
    return Field(default=None, description=description)


class MaintenanceConfig(dg.Config):
    """Options of a maintenance run; with the defaults it only prints what it would do."""

    dry_run: bool = Field(default=True, description="Print what would be done without changing anything.")
    plan_id: str | None = Field(
        default=None, description="Do exactly the plan with this id, printed before; fail if it no longer holds."
    )
    confirm: bool = Field(
        default=False, description="Confirm that far more table partitions are to be dropped than last time."
    )
    max_drops: int = Field(
        default=MAX_DROPS, ge=0, le=1000, description="How many table partitions may be dropped, oldest first."
    )
    archive_dir: str | None = _instead_of("archive_dir")
    create_ahead_months: int | None = _instead_of("create_ahead_months")
    retention_stats_months: int | None = _instead_of("retention_stats_months")
    retention_daily_months: int | None = _instead_of("retention_daily_months")
    retention_weekly_months: int | None = _instead_of("retention_weekly_months")
    retention_monthly_months: int | None = _instead_of("retention_monthly_months")
    retention_quarterly_months: int | None = _instead_of("retention_quarterly_months")
    retention_forecasts_months: int | None = _instead_of("retention_forecasts_months")

    def overrides(self) -> dict[str, Any]:
        """Return the settings that are overridden here, by name."""
        names = [name for name in type(self).model_fields if name in Settings.model_fields]
        return {name: getattr(self, name) for name in names if getattr(self, name) is not None}


@dataclass(frozen=True)
class Progress:
    """State that one op passes to the next. Dagster writes it to disk: no settings, which hold passwords."""

    day: date
    config: MaintenanceConfig
    plan: Plan
    drops: tuple[PlannedDrop, ...] = ()
    archives: Mapping[int, str] = field(default_factory=dict)
    outcomes: tuple[ChildOutcome, ...] = ()

    @property
    def settings(self) -> Settings:
        """The settings with the overrides of the launchpad, checked in the same way."""
        return build_settings(**self.config.overrides())


@dg.op(description="Decide what to drop, print it with the plan's id, and fail if another plan was requested.")
def plan(
    context: dg.OpExecutionContext,
    config: MaintenanceConfig,
    maintenance_store: MaintenanceStore,
    task_runs: TaskRunsResource,
) -> Progress:
    task_runs.raise_if_cancelled()
    settings = build_settings(**config.overrides())
    day = today(settings.zone)
    made = make_plan(maintenance_store.engine, settings, day, config.max_drops)
    made.require(config.plan_id)
    context.log.info(
        f"plan {made.id}{', dry run' if config.dry_run else ''}: {len(made.drops)} table partitions to drop, "
        f"{len(made.kept)} kept, {len(made.waiting)} waiting for the next run"
    )
    if made.question is not None:
        context.log.warning(
            f"{'confirmed' if config.confirm else 'not confirmed, nothing is dropped'}: {made.question}"
        )
    context.add_output_metadata({"plan_id": made.id, "dry_run": config.dry_run, "would_go": plan_table(made)})
    if config.dry_run:
        task_runs.skipped(f"a dry run changes nothing; {len(made.drops)} table partitions would be dropped")
    else:
        task_runs.declare([Item(ItemType.TABLE_PARTITION, drop.child, drop.child) for drop in made.drops])
    return Progress(day, config, made)


class LoggedPartitions(TablePartitionItems):
    """The items of table partitions; each outcome is also logged."""

    def __init__(self, task_runs: TaskRunsResource, log: dg.DagsterLogManager) -> None:
        super().__init__(task_runs)
        self._log = log

    def ended(self, outcome: ChildOutcome) -> None:
        bad = outcome.outcome in (Outcome.FAILED, Outcome.CONTENDED, Outcome.KEPT)
        if outcome.outcome is not Outcome.EXISTS:
            reason = f": {outcome.reason}" if outcome.reason else ""
            (self._log.warning if bad else self._log.info)(f"{outcome.child}: {outcome.outcome.value}{reason}")
        super().ended(outcome)


Work = Callable[[Maintenance, Progress], Progress | None]


def _step(name: str, description: str) -> Callable[[Work], dg.OpDefinition]:
    """Make an op of a function, which a dry run skips. If it returns None, the progress is passed on unchanged.

    Outcomes are logged and reported as they happen.
    """

    def decorate(work: Work) -> dg.OpDefinition:
        @dg.op(name=name, description=description)
        def step(
            context: dg.OpExecutionContext,
            progress: Progress,
            maintenance_store: MaintenanceStore,
            task_runs: TaskRunsResource,
        ) -> Progress:
            if progress.config.dry_run:
                return progress
            maintenance = Maintenance(
                maintenance_store.engine,
                progress.settings,
                progress.day,
                watcher=LoggedPartitions(task_runs, context.log),
            )
            after = work(maintenance, progress) or progress
            context.add_output_metadata({"table_partitions": outcome_table(maintenance.outcomes)})
            return replace(after, outcomes=(*progress.outcomes, *maintenance.outcomes))

        return step

    return decorate


@_step("finish_leftovers", "Complete what an earlier maintenance, or somebody by hand, left unfinished.")
def leftovers(maintenance: Maintenance, _: Progress) -> None:
    finish_leftovers(maintenance)


@_step("create", "Create table partitions ahead, each table in its own transaction.")
def create_children(maintenance: Maintenance, _: Progress) -> None:
    create(maintenance)


@_step("seal", "Calculate windows that are behind, and seal those of the table partitions to be dropped.")
def seal(maintenance: Maintenance, progress: Progress) -> Progress:
    drops = seal_children(maintenance, allowed_drops(maintenance, progress.plan, progress.config.confirm))
    return replace(progress, drops=tuple(drops))


@_step("archive", "Write the table partitions as Parquet, read them back and compare; skipped without a folder.")
def archive(maintenance: Maintenance, progress: Progress) -> Progress:
    drops, archives = archive_children(maintenance, progress.drops)
    return replace(progress, drops=tuple(drops), archives=archives)


@_step("detach_and_drop", "Detach the table partitions one after the other, check each a last time, and drop it.")
def detach(maintenance: Maintenance, progress: Progress) -> None:
    detach_and_drop(maintenance, progress.drops, progress.archives)


@dg.op(description="Delete task runs, and Dagster's own runs with their events, that are beyond their retention.")
def forget_runs(
    context: dg.OpExecutionContext, progress: Progress, maintenance_store: MaintenanceStore, task_runs: TaskRunsResource
) -> Progress:
    if progress.config.dry_run:
        return progress
    forgotten = forget_old_runs(
        maintenance_store.engine, context.instance, progress.settings, utc_now(), task_runs.raise_if_cancelled
    )
    context.log.info(f"{forgotten.task_runs} task runs and {forgotten.dagster_runs} runs of Dagster deleted")
    context.add_output_metadata(asdict(forgotten))
    task_runs.add_metrics(
        Metric(key="task_runs_deleted", label="Task runs deleted", value=forgotten.task_runs),
        Metric(key="dagster_runs_deleted", label="Dagster runs deleted", value=forgotten.dagster_runs),
    )
    return progress


@dg.op(description="Report the outcome of every table partition, check the tables, and fail if one failed.")
def report(
    context: dg.OpExecutionContext, progress: Progress, maintenance_store: MaintenanceStore, task_runs: TaskRunsResource
) -> list[ChildOutcome]:
    status = read_status(maintenance_store.engine, progress.settings, progress.day)
    for evaluation in table_partition_evaluations(status):
        context.instance.report_runless_asset_event(evaluation)
    outcomes = final_outcomes(progress.outcomes)
    for outcome in outcomes:
        complete_table_partition(task_runs, outcome)
    task_runs.add_metrics(*maintenance_metrics(outcomes))
    counts = Counter(outcome.outcome.value for outcome in outcomes)
    context.add_output_metadata(
        {
            "plan_id": progress.plan.id,
            "table_partitions": outcome_table(outcomes),
            **{f"{k}_count": v for k, v in counts.items()},
        }
    )
    failed = [outcome for outcome in outcomes if outcome.outcome is Outcome.FAILED]
    if failed:
        raise dg.Failure(
            f"{len(failed)} table partitions failed; the first: {failed[0].child}: {failed[0].reason}",
            metadata={"table_partitions": outcome_table(outcomes)},
            allow_retries=False,
        )
    return outcomes


@dg.job(
    description="Create table partitions ahead and retire those beyond retention: seal, archive, detach, drop. A dry "
    "run unless dry_run is set to false.",
    # The launchpad opens with this.
    config={"ops": {"plan": {"config": MaintenanceConfig().model_dump(exclude_none=True)}}},
    # Its steps hand their progress on in a file, and hold one lock after the other: whatever the executor, one process.
    executor_def=KeptAlive(dg.in_process_executor),
    # The file goes with the container or the pod of the run.
    tags={} if load_settings().run_launcher is LauncherName.DEFAULT else {RETRY_STRATEGY_TAG: "ALL_STEPS"},
)
def partition_maintenance() -> None:
    report(forget_runs(detach(archive(seal(create_children(leftovers(plan())))))))


def final_outcomes(outcomes: Sequence[ChildOutcome]) -> list[ChildOutcome]:
    """Return the final outcome of each table partition, in the order in which they were first reported."""
    return list({(outcome.table, outcome.child): outcome for outcome in outcomes}.values())


def outcome_table(outcomes: Sequence[ChildOutcome]) -> dg.TableMetadataValue:
    """Return the outcomes as a table, without the table partitions that already existed."""
    rows = [
        (o.table, o.child, o.outcome.value, o.reason, o.rows, o.bytes)
        for o in outcomes
        if o.outcome is not Outcome.EXISTS
    ]
    return metadata_table(("table", "table partition", "outcome", "reason", "rows", "bytes"), rows)


def plan_table(made: Plan) -> dg.TableMetadataValue:
    """Return the drops of a plan as a table."""
    rows = [(d.table, d.child, str(d.lower), str(d.upper), d.rows, d.bytes, d.reason) for d in made.drops]
    return metadata_table(("table", "table partition", "from", "to", "rows", "bytes", "reason"), rows)
