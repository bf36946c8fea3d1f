"""Items of a run that are known before its work begins."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import date

from whalefall_capacity.mirror.run_plan import RunPlan
from whalefall_capacity.store.aggregations.statements import Level
from whalefall_capacity.store.sizes.stats import InstanceDays
from whalefall_capacity.store.task_runs.write import InstanceItems, Item, ItemType

AGGREGATION_ITEMS = {
    Level.DATABASE: ItemType.DATABASE_AGGREGATION,
    Level.INSTANCE: ItemType.INSTANCE_AGGREGATION,
}


def expected_items(plan: RunPlan, this_day: date) -> list[InstanceItems]:
    """Return the items that are known before the work begins, so that progress has its total from the start."""
    if plan.days is None:
        return []
    first, last = plan.days
    aggregated = [InstanceItems(AGGREGATION_ITEMS[level], first, last) for level in plan.levels]
    if not plan.collects:
        return aggregated
    # Those that will be visited today, and those of which past days will be reported.
    collected = InstanceItems(
        ItemType.COLLECTION,
        first,
        last,
        of_fleet=last >= this_day,
        with_stats=first < this_day,
        instance_ids=plan.instance_ids,
    )
    return [collected, *aggregated]


def aggregation_items(level: Level, instances: Iterable[InstanceDays]) -> list[Item]:
    """Return one item per instance."""
    return [Item(AGGREGATION_ITEMS[level], str(i.id), i.name, i.id) for i in instances]
