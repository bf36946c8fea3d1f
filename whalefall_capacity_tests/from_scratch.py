"""The aggregations as they are, beside those that a calculation of everything from scratch gives."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Engine, text

from whalefall_capacity.periods import PeriodType, windows_between
from whalefall_capacity.store.aggregations.calculate import aggregate
from whalefall_capacity.store.aggregations.statements import Level

TABLES = ("database_size_aggregations", "instance_size_aggregations")


def aggregation_rows(store: Engine) -> list[list[dict[str, Any]]]:
    """Return the rows of both tables in the order of their keys, without their timestamps."""
    with store.connect() as connection:
        return [
            [
                {key: value for key, value in row.items() if not key.endswith("_at")}
                for row in connection.execute(text(f"SELECT * FROM {table} ORDER BY 1, 2, 3, 4")).mappings()
            ]
            for table in TABLES
        ]


def assert_as_from_scratch(store: Engine) -> None:
    """Compare the rows with those of a calculation of everything, which takes their place."""
    found = aggregation_rows(store)
    with store.begin() as connection:
        for table in TABLES:
            connection.execute(text(f"DELETE FROM {table}"))
        days = list(connection.execute(text("SELECT DISTINCT collected_date FROM instance_size_stats")).scalars())
    for period_type in PeriodType:
        for level in Level:
            aggregate(store, level, windows_between(min(days), max(days), period_type))
    assert found == aggregation_rows(store)
    assert found[0]
