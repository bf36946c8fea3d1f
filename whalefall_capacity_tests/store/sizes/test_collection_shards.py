"""The ledger of a collection: one for all runs that go on with each other, and gone when nobody can go on with it."""

from __future__ import annotations

from datetime import date, datetime, timedelta, timezone

import pytest
from sqlalchemy import Engine

from whalefall_capacity.store.sizes.collection_shards import (
    Shard,
    finish_shard,
    forget_outcomes,
    plan_shards,
    read_shards,
)
from whalefall_capacity_tests.store.records import rows

DAY = date(2026, 6, 22)


def states(store: Engine, root: str) -> dict[str, object]:
    """Return the outcome of each shard by its key."""
    return {shard.key: shard.outcome for shard in read_shards(store, root)}


def test_planned_shards_have_no_outcome_until_each_is_finished(store: Engine) -> None:
    planned = plan_shards(store, "root", "root", DAY, [(1, 500), (501, 1000)])
    assert [(shard.key, shard.day, shard.planned_by, shard.visited_by) for shard in planned] == [
        ("1_500", DAY, "root", None),
        ("501_1000", DAY, "root", None),
    ]
    finish_shard(store, "root", planned[1], "again", {"measured": 3})
    assert states(store, "root") == {"1_500": None, "501_1000": {"measured": 3}}
    assert [shard.visited_by for shard in read_shards(store, "root")] == [None, "again"]


def test_a_shard_keeps_the_range_of_its_plan(store: Engine) -> None:
    plan_shards(store, "root", "root", DAY, [(5, 7)])
    assert [shard.id_range for shard in read_shards(store, "root")] == [(5, 7)]


def test_the_time_of_the_plan_is_the_stores(store: Engine) -> None:
    before = rows(store, "SELECT clock_timestamp()")[0][0]
    (shard,) = plan_shards(store, "root", "root", DAY, [(1, 1)])
    assert before <= shard.planned_at <= rows(store, "SELECT clock_timestamp()")[0][0]


def test_another_plan_replaces_the_ledger_of_its_own_runs_only(store: Engine) -> None:
    plan_shards(store, "root", "root", DAY, [(1, 500), (501, 1000)])
    plan_shards(store, "other", "other", DAY, [(1, 9)])
    finish_shard(store, "root", read_shards(store, "root")[0], "root", {"measured": 3})
    plan_shards(store, "root", "again", DAY, [(1, 700)])
    assert states(store, "root") == {"1_700": None}
    assert states(store, "other") == {"1_9": None}
    assert plan_shards(store, "root", "again", DAY, []) == []
    assert states(store, "root") == {}


def test_ledgers_of_days_long_over_go_with_the_next_plan(store: Engine) -> None:
    for age in (0, 1, 7, 8, 400):
        plan_shards(store, f"root-{age}", "r", DAY - timedelta(days=age), [(1, 500)])
    plan_shards(store, "root", "r", DAY, [])
    assert rows(store, "SELECT root_run_id FROM collection_shards ORDER BY collected_date DESC") == [
        ("root-0",),
        ("root-1",),
        ("root-7",),
    ]


def test_outcomes_that_are_forgotten_leave_the_plan(store: Engine) -> None:
    (shard,) = plan_shards(store, "root", "root", DAY, [(1, 500)])
    finish_shard(store, "root", shard, "root", {"measured": 0})
    forget_outcomes(store, "root")
    assert read_shards(store, "root") == [shard]


@pytest.mark.parametrize("poison", ["a NUL \x00 in a message", "half of a character \udce9", "'; DROP TABLE x; --"])
def test_an_outcome_may_quote_whatever_a_server_says(store: Engine, poison: str) -> None:
    (shard,) = plan_shards(store, "root", "root", DAY, [(1, 1)])
    finish_shard(store, "root", shard, "root", {"first_failed": [poison]})
    assert states(store, "root") == {"1_1": {"first_failed": [poison]}}


def test_the_outcome_of_a_shard_that_is_not_planned_any_more_is_dropped(store: Engine) -> None:
    stale = Shard(1, 500, DAY, "root", datetime(2026, 6, 22, 3, tzinfo=timezone.utc), None, None)
    finish_shard(store, "root", stale, "root", {"measured": 1})
    assert states(store, "root") == {}
