"""Shards: how a fleet is divided, and that what came of each adds up to what one collection would have found."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import UTC, datetime

import pytest

from whalefall_capacity.collection.sizes import FailedVisit
from whalefall_capacity.resources.fleet import Collection, MissingDatabase
from whalefall_capacity.resources.shards import collection_of, divide, outcome_of, sum_of


@pytest.mark.parametrize(
    ("ids", "instances_each", "ranges"),
    [
        # One shard unless it is asked for more.
        ([1, 2, 3, 40], None, [(1, 40)]),
        ([1, 2, 3, 40], 2, [(1, 2), (3, 40)]),
        ([1, 2, 3, 40], 3, [(1, 3), (40, 40)]),
        ([1, 2, 3, 40], 4, [(1, 40)]),
        ([1, 2, 3, 40], 1000, [(1, 40)]),
        ([1, 2, 3], 1, [(1, 1), (2, 2), (3, 3)]),
        # The fleet comes in the order of its names.
        ([7, 3, 9, 1], 2, [(1, 3), (7, 9)]),
        ([], None, [(0, 0)]),
        ([], 5, [(0, 0)]),
    ],
)
def test_a_fleet_is_divided_by_ids(
    ids: Sequence[int], instances_each: int | None, ranges: list[tuple[int, int]]
) -> None:
    assert divide(ids, instances_each) == ranges


@pytest.mark.parametrize(
    ("instances", "instances_each", "count"), [(200, 1, 200), (201, 1, 101), (100_000, 1, 200), (100_000, 1000, 100)]
)
def test_there_are_two_hundred_shards_at_most(instances: int, instances_each: int, count: int) -> None:
    ids = range(1, instances + 1)
    found = divide(ids, instances_each)
    assert len(found) == count
    assert [i for first, last in found for i in range(first, last + 1)] == list(ids)


def failed(number: int) -> FailedVisit:
    return FailedVisit(number, f"pg-{number}", f"pg-{number}: refused \x00 \udce9", 0.5)


SHARD = Collection(
    started_at=datetime(2026, 5, 20, 3, tzinfo=UTC),
    measured=3,
    failed=2,
    databases=40,
    databases_missing=2,
    total_size_bytes=10**13,
    first_failed=[failed(1), failed(2)],
    first_missing=[MissingDatabase("pg-3", "caf\udce9", "no CONNECT"), MissingDatabase("pg-4", "shop", "")],
)


def test_an_outcome_that_was_kept_is_the_same_again() -> None:
    assert collection_of(json.loads(json.dumps(outcome_of(SHARD)))) == SHARD
    assert collection_of(json.loads(json.dumps(outcome_of(Collection())))) == Collection()


def test_shards_add_up_and_name_no_more_failures_than_one_collection() -> None:
    many = [failed(number) for number in range(10, 90)]
    earlier = datetime(2026, 5, 20, 2, tzinfo=UTC)
    other = Collection(earlier, measured=5, failed=80, databases=2, total_size_bytes=1, first_failed=many)
    found = sum_of([SHARD, other, SHARD, other])
    assert (found.measured, found.failed, found.databases, found.databases_missing) == (16, 164, 84, 4)
    assert found.started_at == earlier
    assert found.total_size_bytes == 2 * 10**13 + 2
    assert found.first_failed == [*SHARD.first_failed, *many, *SHARD.first_failed, *many[:16]]
    assert found.first_missing == [*SHARD.first_missing, *SHARD.first_missing]


def test_no_shard_at_all_is_an_empty_collection() -> None:
    assert sum_of([]) == Collection()
