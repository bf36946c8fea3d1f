"""Past children go when their windows are sealed, and not before; what cannot go is reported, and stays."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date, timedelta
from pathlib import Path
from typing import Any

from sqlalchemy import Engine

from whalefall_capacity.periods import PeriodType, days_to_windows
from whalefall_capacity.settings import build_settings
from whalefall_capacity.store.aggregation import aggregate
from whalefall_capacity.store.aggregation_statements import Level
from whalefall_capacity.store.locks import Patience
from whalefall_capacity.store.retention import ChildOutcome, Outcome
from whalefall_capacity.store.retirement import Maintenance, maintain, make_plan
from whalefall_capacity_tests.store.past import put_sizes
from whalefall_capacity_tests.store.records import rows

QUICK = Patience(lock_timeout_seconds=0.2, pauses_seconds=(0.05,))
TODAY = date(2026, 5, 20)
JANUARY, FEBRUARY = date(2025, 1, 1), date(2025, 2, 1)
OLD = ("database_size_stats_2025_01", "instance_size_stats_2025_01")


def settings_for(**overrides: Any) -> Any:
    return build_settings(**{"start_date": date(2020, 1, 1), **overrides})


def maintenance(store: Engine, day: date = TODAY, **overrides: Any) -> Maintenance:
    hooks = {name: overrides.pop(name) for name in ("on_outcome", "before_child", "max_drops") if name in overrides}
    return Maintenance(store, settings_for(**overrides), day, patience=QUICK, **hooks)


def run(store: Engine, day: date = TODAY, confirmed: bool = False, **overrides: Any) -> list[ChildOutcome]:
    """Plan and do a whole maintenance."""
    one = maintenance(store, day, **overrides)
    return maintain(one, make_plan(store, one.settings, day, one.max_drops), confirmed)


def ends(outcomes: Sequence[ChildOutcome]) -> dict[str, str]:
    """Return what each child ended as, without those that were merely there."""
    return {o.child: o.outcome.value for o in outcomes if o.outcome not in (Outcome.CREATED, Outcome.EXISTS)}


def put_month(store: Engine, month: date, size: int = 100) -> None:
    """Store two databases of one instance, every third day of a month."""
    days = [month + timedelta(days=offset) for offset in range(0, 28, 3)]
    put_sizes(store, [(1, name, day, size + day.day) for name in ("shop", "crm") for day in days])


def aggregations(store: Engine) -> list[tuple[Any, ...]]:
    """Return every aggregation row, without the times of writing."""
    measures = "period_type, period_start, instance_id, data_count, sum_size_bytes, max_size_bytes, closing_size_bytes"
    return rows(
        store,
        f"SELECT 'd', database_name, {measures} FROM database_size_aggregations "
        f"UNION ALL SELECT 'i', '', {measures} FROM instance_size_aggregations ORDER BY 1, 2, 3, 4",
    )


def aggregate_everything(store: Engine, days: Sequence[date]) -> None:
    for level in Level:
        for period_type in PeriodType:
            aggregate(store, level, days_to_windows(days, period_type))


def test_a_past_child_goes_and_its_aggregations_stay(store: Engine) -> None:
    put_month(store, JANUARY)
    put_month(store, FEBRUARY)
    outcomes = run(store, date(2026, 3, 1), retention_daily_months=24)
    assert ends(outcomes) == dict.fromkeys(OLD, "dropped") | {
        "database_size_stats_2025_01": "dropped",
        "instance_size_stats_2025_01": "dropped",
    } | ({})
    before = aggregations(store)
    assert {row[2] for row in before} == {"daily", "weekly", "monthly", "quarterly"}
    aggregate_everything(store, [JANUARY + timedelta(days=d) for d in range(31)])
    assert aggregations(store) == before


def test_archived(store: Engine, tmp_path: Path) -> None:
    put_month(store, JANUARY)
    outcomes = run(store, archive_dir=tmp_path / "archive")
    for o in outcomes:
        print(o)
    print(list((tmp_path / "archive").iterdir()))
    assert 0
