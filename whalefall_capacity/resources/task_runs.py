"""The task run of a Dagster run as a resource: declares and updates items, adds to the summary, stops if cancelled."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager

import dagster as dg
from pydantic import JsonValue, PrivateAttr

from whalefall_capacity.mirror.follow import is_local
from whalefall_capacity.mirror.items import expected_items
from whalefall_capacity.mirror.liveness import held_liveness
from whalefall_capacity.mirror.reporter import Reporter
from whalefall_capacity.mirror.run_plan import read_plan
from whalefall_capacity.periods import today, utc_now
from whalefall_capacity.resources.store import held_store
from whalefall_capacity.settings import load_settings
from whalefall_capacity.store.postgres.statuses import Status
from whalefall_capacity.store.task_runs.summary import Metric
from whalefall_capacity.store.task_runs.write import Item, ItemType, ItemUpdate


class TaskRunsResource(dg.ConfigurableResource):  # type: ignore[type-arg]
    """Mirrors its run into task_runs and task_run_items; used by every asset and op.

    It must never fail the work: everything is only noted here, and written by a thread of its own.
    """

    _reporter: Reporter | None = PrivateAttr(default=None)

    @contextmanager
    def yield_for_execution(self, context: dg.InitResourceContext) -> Iterator[TaskRunsResource]:
        run, instance = context.run, context.instance
        if run is None or instance is None:
            raise RuntimeError("the task runs resource needs a run")
        plan = read_plan(run)
        with ExitStack() as held:
            url = held.enter_context(held_store())
            # Dagster has given it an executor of its own, which holds no lock.
            if is_local(run):
                held.enter_context(held_liveness(url, run.run_id))
            self._reporter = Reporter(url, instance, run.run_id, expected_items(plan, today(load_settings().zone)))
            held.enter_context(self._reporter.reporting())
            yield self

    @property
    def reporter(self) -> Reporter:
        if self._reporter is None:
            raise RuntimeError("the task runs resource is only open during a run")
        return self._reporter

    def raise_if_cancelled(self) -> None:
        """Stop the work here if the run is cancelled."""
        self.reporter.raise_if_cancelled()

    @contextmanager
    def cancelled_for_good(self) -> Iterator[None]:
        """Let an interrupt of the block, which ends the run, fail the step.

        Dagster answers an interrupt by executing the step again, as often as its policy allows.
        """
        try:
            yield
        except dg.DagsterExecutionInterruptedError as interrupt:
            if not self.reporter.is_ending():
                raise
            raise dg.Failure("the run was interrupted", allow_retries=False) from interrupt

    def declare(self, items: Sequence[Item]) -> None:
        """Add items that were not known when the run began."""
        self.reporter.declare(items)

    def started(self, item_type: ItemType, keys: Iterable[str]) -> None:
        """Note that work on items has begun."""
        now = utc_now()
        self.reporter.update([ItemUpdate(item_type, key, Status.RUNNING, started_at=now) for key in keys])

    def completed(
        self,
        item_type: ItemType,
        key: str,
        metrics: Mapping[str, JsonValue] | None = None,
        details: Mapping[str, JsonValue] | None = None,
    ) -> None:
        """Note that an item is done."""
        now = utc_now()
        update = ItemUpdate(item_type, key, Status.COMPLETED, now, now, metrics or {}, details or {})
        self.reporter.update([update])

    def completed_all(self, item_type: ItemType, metrics: Mapping[str, Mapping[str, JsonValue]]) -> None:
        """Note that the items are done whose keys *metrics* has."""
        now = utc_now()
        self.reporter.update(
            [ItemUpdate(item_type, key, Status.COMPLETED, now, now, found) for key, found in metrics.items()]
        )

    def failed(self, item_type: ItemType, key: str, error: str, metrics: Mapping[str, JsonValue] | None = None) -> None:
        """Note that an item failed, and why."""
        now = utc_now()
        self.reporter.update([ItemUpdate(item_type, key, Status.FAILED, now, now, metrics or {}, error=error)])

    def add_metrics(self, *metrics: Metric) -> None:
        """Add figures to the summary, or replace those of the same key."""
        self.reporter.change_summary(lambda summary: summary.with_metrics(*metrics))

    def skipped(self, reason: str) -> None:
        """Note in the summary why there was nothing to do."""
        self.reporter.change_summary(lambda summary: summary.as_skipped(reason))
