"""Totals of table partitions, with what is not known left out and counted."""

from __future__ import annotations

from datetime import date

from whalefall_capacity.store.maintenance.health import PartitionState, TablePartition
from whalefall_capacity.store.maintenance.totals import PartitionTotals, totals


def partition(month: int, rows: int | None, size_bytes: int) -> TablePartition:
    return TablePartition(
        table="database_size_stats",
        child=f"database_size_stats_2026_{month:02}",
        lower=date(2026, month, 1),
        upper=date(2026, month + 1, 1),
        state=PartitionState.PAST,
        rows=rows,
        rows_exact=False,
        bytes=size_bytes,
        note="",
    )


def test_rows_and_bytes_are_added_and_the_span_is_that_of_all() -> None:
    assert totals([partition(2, 300, 8192), partition(1, 100, 4096)]) == PartitionTotals(
        partitions=2, rows=400, not_estimated=0, bytes=12288, lower=date(2026, 1, 1), upper=date(2026, 3, 1)
    )


def test_rows_that_are_not_known_are_no_zero() -> None:
    some = totals([partition(1, 100, 4096), partition(2, None, 4096)])
    assert (some.rows, some.not_estimated) == (100, 1)
    none = totals([partition(1, None, 4096), partition(2, None, 4096)])
    assert (none.rows, none.not_estimated, none.bytes) == (None, 2, 8192)


def test_no_table_partition_has_no_rows_and_no_span() -> None:
    assert totals([]) == PartitionTotals(partitions=0, rows=0, not_estimated=0, bytes=0, lower=None, upper=None)
