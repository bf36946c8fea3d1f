"""Growth of one instance as the console reads it, for tests of what is calculated."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date

from sqlalchemy import Engine

from whalefall_capacity.periods import PeriodType
from whalefall_capacity.store.aggregations.console_series import MOST_ROWS, Selection, database_page, instance_page
from whalefall_capacity.store.aggregations.growth import DatabaseGrowth, InstanceGrowth


def database_growth(
    store: Engine, period_type: PeriodType, first: date, last: date, instance_id: int, name: str | None = None
) -> list[DatabaseGrowth]:
    """Return the windows that start in first..last of the databases of an instance, or of one of them."""
    rows = database_page(store, Selection(period_type, first, last, [instance_id]), MOST_ROWS, 0).rows
    return [row for row in rows if name in (None, row.database_name)]


def instance_growth(
    store: Engine, period_type: PeriodType, first: date, last: date, instance_id: int
) -> Sequence[InstanceGrowth]:
    """Return the windows of an instance that start in first..last."""
    return instance_page(store, Selection(period_type, first, last, [instance_id]), MOST_ROWS, 0).rows
