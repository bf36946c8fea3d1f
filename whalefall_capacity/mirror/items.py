"""Items of a run that are known before its work begins."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import date

from sqlalchemy import Engine

from whalefall_capacity.mirror.run_plan import RunPlan
from whalefall_capacity.periods import today
from whalefall_capacity.settings import load_settings
from whalefall_capacity.store.aggregations.statements import Level
from whalefall_capacity.store.sizes.stats import InstanceDays, instances_in_range
from whalefall_capacity.store.task_runs.write import Item, ItemType

AGGREGATION_ITEMS = {
    Level.DATABASE: ItemType.DATABASE_AGGREGATION,
    Level.INSTANCE: ItemType.INSTANCE_AGGREGATION,
}


def expected_items(engine: Engine, plan: RunPlan) -> list[Item]:
    """Return the items that are known before the work begins, so that progress has its total from the start."""
    if plan.days is None:
        return []
    first, last = plan.days
    instances = instances_in_range(engine, first, last)
    items = _collection_items(first, last, plan.instance_ids, instances) if plan.collects else []
    for level in plan.levels:
        items += aggregation_items(level, instances)
    return items


def aggregation_items(level: Level, instances: Iterable[InstanceDays]) -> list[Item]:
    """Return one item per instance."""
    return [Item(AGGREGATION_ITEMS[level], str(i.id), i.name, i.id) for i in instances]


def _collection_items(
    first: date, last: date, instance_ids: Sequence[int] | None, instances: Sequence[InstanceDays]
) -> list[Item]:
    """Return an item for each instance that will be visited today or has past days to report."""
    this_day = today(load_settings().zone)
    visited = {i.id for i in instances if i.is_active} if last >= this_day else set[int]()
    if instance_ids is not None:
        visited &= set(instance_ids)
    reported = {i.id for i in instances if i.days} if first < this_day else set[int]()
    return [Item(ItemType.COLLECTION, str(i.id), i.name, i.id) for i in instances if i.id in visited | reported]
