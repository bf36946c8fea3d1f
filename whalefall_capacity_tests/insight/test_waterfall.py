"""The waterfall: parts of a change that sum to it, and shares that print 100.0 %."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from whalefall_capacity.insight.waterfall import Cause, DatabaseEnds, WaterfallRow, shares_in_tenths, waterfall

SIZES = st.none() | st.integers(min_value=0, max_value=2**50)
DATABASES = st.lists(
    st.builds(
        DatabaseEnds,
        database_name=st.text(min_size=1, max_size=5),
        start_bytes=SIZES,
        end_bytes=SIZES,
        one_off_bytes=st.integers(min_value=-(2**50), max_value=2**50),
        is_new=st.booleans(),
        is_gone=st.booleans(),
    ),
    max_size=30,
    unique_by=lambda one: one.database_name,
)


def shown(*databases: DatabaseEnds, limit: int = 20) -> list[tuple[str | None, str, int, float | None]]:
    """Return name, cause, change and share of each row."""
    return [
        (row.database_name, row.cause.value, row.change_bytes, row.share_percent) for row in waterfall(databases, limit)
    ]


def test_steady_one_off_and_new_databases_explain_the_growth() -> None:
    assert shown(
        DatabaseEnds("orders", 100, 130),
        DatabaseEnds("events", 50, 45, one_off_bytes=-5),
        DatabaseEnds("crm", None, 15, is_new=True),
    ) == [
        ("orders", "steady", 30, 75.0),
        ("crm", "new", 15, 37.5),
        ("events", "one_off", -5, -12.5),
    ]


def test_equal_changes_share_the_hundred_percent() -> None:
    assert shares_in_tenths([1, 1, 1]) == [334, 333, 333]
    assert shares_in_tenths([-1, -1, -1]) == [334, 333, 333]


def test_shares_beyond_a_hundred_and_below_nothing_are_right() -> None:
    assert shares_in_tenths([300, -200]) == [3000, -2000]
    assert shares_in_tenths([-30, 20]) == [3000, -2000]


def test_a_net_of_nothing_has_bytes_and_no_shares() -> None:
    assert shown(DatabaseEnds("a", 10, 15), DatabaseEnds("b", 15, 10)) == [
        ("a", "steady", 5, None),
        ("b", "steady", -5, None),
    ]
    assert shown() == []


def test_a_database_that_grew_both_ways_has_two_rows() -> None:
    assert shown(DatabaseEnds("orders", 100, 230, one_off_bytes=100)) == [
        ("orders", "one_off", 100, 76.9),
        ("orders", "steady", 30, 23.1),
    ]


def test_a_size_on_one_end_only_is_not_measured_unless_the_inventory_says_new_or_gone() -> None:
    assert shown(
        DatabaseEnds("came", None, 40, is_new=True),
        DatabaseEnds("appeared", None, 30),
        DatabaseEnds("went", 20, None, is_gone=True),
        DatabaseEnds("vanished", 10, None),
    ) == [
        ("came", "new", 40, 100.0),
        ("appeared", "not_measured", 30, 75.0),
        ("went", "gone", -20, -50.0),
        ("vanished", "not_measured", -10, -25.0),
    ]


def test_what_is_not_named_is_one_row_a_cause() -> None:
    rows = waterfall(
        [DatabaseEnds("big", 0, 100)]
        + [DatabaseEnds(f"small-{n}", 0, 10) for n in range(4)]
        + [DatabaseEnds("gone", 20, None, is_gone=True)],
        limit=1,
    )
    assert rows == [
        WaterfallRow("big", Cause.STEADY, 1, 100, 83.4),
        WaterfallRow(None, Cause.STEADY, 4, 40, 33.3),
        WaterfallRow(None, Cause.GONE, 1, -20, -16.7),
    ]


@given(DATABASES, st.integers(min_value=0, max_value=40))
def test_rows_sum_exactly_to_the_change(databases: list[DatabaseEnds], limit: int) -> None:
    change = sum((one.end_bytes or 0) - (one.start_bytes or 0) for one in databases)
    counted = [one for one in databases if one.start_bytes is not None or one.end_bytes is not None]
    rows = waterfall(databases, limit)
    assert sum(row.change_bytes for row in rows) == change
    if change:
        # As whole tenths: of a net of some bytes beside terabytes that moved, a float does not hold the last one.
        tenths = shares_in_tenths([row.change_bytes for row in rows])
        assert tenths is not None
        assert sum(tenths) == 1000
        assert [row.share_percent for row in rows] == [each / 10 for each in tenths]
    else:
        assert all(row.share_percent is None for row in rows)
    assert sum(row.databases for row in rows) <= 2 * len(counted)


@given(DATABASES, st.randoms())
def test_the_order_of_the_databases_does_not_matter(databases: list[DatabaseEnds], random: object) -> None:
    mixed = list(databases)
    random.shuffle(mixed)  # type: ignore[attr-defined]
    assert waterfall(mixed, 5) == waterfall(databases, 5)


@given(st.lists(st.integers(min_value=-(2**60), max_value=2**60), max_size=20))
def test_no_share_is_further_from_its_own_than_a_tenth(changes: list[int]) -> None:
    shares = shares_in_tenths(changes)
    net = sum(changes)
    if net == 0:
        assert shares is None
    else:
        assert shares is not None
        assert all(abs(share * net - 1000 * change) <= abs(net) for share, change in zip(shares, changes, strict=True))
