"""Days whose forecasts stay, because the sizes that they were calculated from are not all there any more."""

from __future__ import annotations

from datetime import date, timedelta

import pytest
from sqlalchemy import Engine, text

from whalefall_capacity.store.insight.final_days import final_days
from whalefall_capacity_tests.store.insight.golden import TODAY, ZONE, forecast, line, put_history

RETIRED = """
INSERT INTO retired_children (table_name, child_name, lower_bound, upper_bound, retired_on, rows, dropped_at,
                              restored_at)
VALUES ('database_size_stats', 'database_size_stats_2026_01', '2026-01-01', '2026-02-01', '2026-08-20', :rows, now(),
        :restored)
"""
CALCULATED = "UPDATE capacity_forecasts SET calculated_at = :at"
# The last day that looks back at January, and the one after it.
LAST_OF_JANUARY, FIRST_WITHOUT = date(2026, 11, 6), date(2026, 11, 7)


def retire_january(
    store: Engine, *days: date, calculated_at: str, rows: int = 31, restored: date | None = None
) -> None:
    """Forecast *days* as of that moment; January went on 2026-08-20."""
    put_history(store, 1, {"orders": line(280)}, 600)
    forecast(store, *days)
    with store.begin() as connection:
        connection.execute(text(CALCULATED), {"at": calculated_at})
        connection.execute(text(RETIRED), {"rows": rows, "restored": restored})


@pytest.mark.parametrize(
    ("calculated_at", "is_final"),
    [
        ("2026-08-19 23:59+08", True),
        ("2026-08-20 00:01+08", False),
        ("2026-08-21 03:00+08", False),
    ],
)
def test_a_day_is_final_when_its_sizes_went_on_a_later_day_than_it_was_calculated(
    store: Engine, calculated_at: str, is_final: bool
) -> None:
    retire_january(store, TODAY, calculated_at=calculated_at)
    assert final_days(store, [TODAY], ZONE) == ([TODAY] if is_final else [])


def test_a_day_that_looks_back_at_none_of_them_is_not_final(store: Engine) -> None:
    retire_january(store, LAST_OF_JANUARY, FIRST_WITHOUT, calculated_at="2026-07-01 03:00+08")
    assert final_days(store, [FIRST_WITHOUT, LAST_OF_JANUARY], ZONE) == [LAST_OF_JANUARY]


def test_a_day_of_which_nothing_is_stored_is_not_final(store: Engine) -> None:
    retire_january(store, TODAY, calculated_at="2026-07-01 03:00+08")
    assert final_days(store, [TODAY - timedelta(days=1), TODAY], ZONE) == [TODAY]


@pytest.mark.parametrize(("rows", "restored"), [(0, None), (31, date(2026, 9, 1))])
def test_an_empty_or_restored_month_makes_no_day_final(store: Engine, rows: int, restored: date | None) -> None:
    retire_january(store, TODAY, calculated_at="2026-07-01 03:00+08", rows=rows, restored=restored)
    assert final_days(store, [TODAY], ZONE) == []
