"""The daily sizes of WhaleFall, a month at a time: one COPY out, one COPY and merge in, one transaction a level.

A month that was moved and is moved again compares equal and writes nothing; so a migration that was killed goes on
where it was. A day of an instance that was measured here belongs to that visit, as a whole: nothing is added to it. A
month that the maintenance has dropped stays dropped.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import date, timedelta
from enum import IntEnum

from psycopg2 import sql
from sqlalchemy import Connection, Engine, text

from whalefall_capacity.byte_sizes import LARGEST_CREDIBLE_SIZE
from whalefall_capacity.periods import add_months, month_starts
from whalefall_capacity.store.moving_in.fleet import Fleet
from whalefall_capacity.store.moving_in.report import Account, DifferingDays, Outcome
from whalefall_capacity.store.moving_in.source import Source
from whalefall_capacity.store.sizes.stats import LOCK_INSTANCES
from whalefall_capacity.store.table_partitions.create import STATS_TABLES, ensure_children
from whalefall_capacity.store.table_partitions.retired import LostDays, absent_days

DATABASES = "database_size_stats"
INSTANCES = "instance_size_stats"
MIB = 1 << 20
LARGEST_MIB = LARGEST_CREDIBLE_SIZE // MIB


class Skip(IntEnum):
    """Reason why a row stays behind; its number travels with the row."""

    NO_INSTANCE = 1
    PLACEHOLDER = 2
    IMPOSSIBLE = 3
    BLANK_NAME = 4
    DELETED = 5
    RETIRED = 6
    IMPOSSIBLE_DAY = 7

    @property
    def reason(self) -> str:
        return REASONS[self]


REASONS = {
    Skip.NO_INSTANCE: "its instance is not there",
    Skip.PLACEHOLDER: "0 of MySQL: WhaleFall saw no InnoDB file, so the size is not known",
    Skip.IMPOSSIBLE: f"a size that no database has: not from 0 to {LARGEST_MIB} MiB",
    Skip.IMPOSSIBLE_DAY: "the sizes of its day add up to more than a server can hold",
    Skip.BLANK_NAME: "the name of its database is blank",
    Skip.DELETED: "deleted there",
    Skip.RETIRED: "its month was dropped here by its retention, or is on its way out; "
    "`partitions restore` brings it back",
}
MEASURED_DAY = "the instance was measured here on that day"
AS_STORED = "stored already"
FROM_DATABASES = "the total is computed from the databases of that day"

DATABASE_ROWS = sql.SQL("""
SELECT map.instance_id, CAST(s.database_name AS text), s.collected_date,
       CASE WHEN s.size_mb BETWEEN 0 AND {largest} THEN s.size_mb::bigint * {mib} END, s.collected_at,
       CAST(CASE WHEN map.instance_id IS NULL THEN {no_instance}
                 WHEN {is_retired} THEN {retired}
                 WHEN map.zero_is_placeholder AND s.size_mb = 0 THEN {placeholder}
                 WHEN s.size_mb NOT BETWEEN 0 AND {largest} THEN {impossible}
                 WHEN btrim(s.database_name) = '' THEN {blank_name} END AS smallint)
FROM database_size_stats AS s
LEFT JOIN {map} ON map.source_id = s.instance_id
WHERE s.collected_date BETWEEN {first} AND {last}
""")
# Beside each total that of its databases: WhaleFall's counted only those that were active then.
INSTANCE_ROWS = sql.SQL("""
SELECT map.instance_id, s.collected_date,
       CASE WHEN s.total_size_mb >= 0 THEN s.total_size_mb::bigint * {mib} END, s.database_count, s.collected_at,
       d.instance_id IS NOT NULL AS has_databases,
       CASE WHEN d.total_mb <> s.total_size_mb THEN abs(d.total_mb - s.total_size_mb)::bigint * {mib} END,
       CAST(CASE WHEN map.instance_id IS NULL THEN {no_instance}
                 WHEN s.is_deleted THEN {deleted}
                 WHEN {is_retired} THEN {retired}
                 WHEN d.instance_id IS NOT NULL THEN NULL
                 WHEN map.zero_is_placeholder AND s.total_size_mb = 0 AND s.database_count > 0 THEN {placeholder}
                 WHEN s.total_size_mb < 0 OR s.database_count < 0 THEN {impossible} END AS smallint)
FROM instance_size_stats AS s
LEFT JOIN {map} ON map.source_id = s.instance_id
LEFT JOIN (
    SELECT sizes.instance_id, sizes.collected_date, sum(sizes.size_mb) AS total_mb
    FROM database_size_stats AS sizes
    JOIN {map} ON map.source_id = sizes.instance_id
    WHERE sizes.collected_date BETWEEN {first} AND {last} AND sizes.size_mb BETWEEN 0 AND {largest}
      AND NOT (map.zero_is_placeholder AND sizes.size_mb = 0) AND btrim(sizes.database_name) <> ''
    GROUP BY sizes.instance_id, sizes.collected_date) AS d
    ON d.instance_id = s.instance_id AND d.collected_date = s.collected_date
WHERE s.collected_date BETWEEN {first} AND {last}
""")
OUTSIDE = sql.SQL("""
SELECT map.instance_id, s.collected_date < {first} AS is_early, count(*) AS rows
FROM {table} AS s
LEFT JOIN {map} ON map.source_id = s.instance_id
WHERE s.collected_date < {first} OR s.collected_date > {last}
GROUP BY 1, 2 ORDER BY 1, 2
""")

MOVED_SIZES_TABLE = """
CREATE TEMPORARY TABLE moved_sizes (
    instance_id integer, database_name text COLLATE "C" NOT NULL, day date NOT NULL, size_bytes bigint,
    collected_at timestamptz NOT NULL, skip smallint
) ON COMMIT DROP
"""
MOVED_TOTALS_TABLE = """
CREATE TEMPORARY TABLE moved_totals (
    instance_id integer, day date NOT NULL, total_size_bytes bigint, database_count integer NOT NULL,
    collected_at timestamptz NOT NULL, has_databases boolean NOT NULL, difference_bytes bigint, skip smallint
) ON COMMIT DROP
"""
# Rows of the same minute have no statistics that a planner could trust: hashes and merges hold whatever comes.
FOR_THIS_TRANSACTION = "SET LOCAL jit = off; SET LOCAL enable_nestloop = off; SET LOCAL work_mem = '128MB'"
SKIPPED = "SELECT instance_id, skip, count(*) AS rows FROM {table} WHERE skip IS NOT NULL GROUP BY 1, 2 ORDER BY 1, 2"
# One pass says of every day of an instance how its rows compare with what is stored, and what its total then is.
DAYS_TABLE = """
CREATE TEMPORARY TABLE moved_days ON COMMIT DROP AS
SELECT days.*, days.has_measured OR total.instance_id IS NOT NULL AS is_measured
FROM (
    SELECT instance_id, day, count(moved.size_bytes) AS moved,
           count(*) FILTER (WHERE stored.size_bytes IS NULL) AS created,
           count(*) FILTER (WHERE stored.source = 'imported' AND moved.size_bytes IS NOT NULL
                              AND (stored.size_bytes, stored.collected_at, stored.has_parts)
                                  IS DISTINCT FROM (moved.size_bytes, moved.collected_at, false)) AS changed,
           bool_or(stored.source = 'measured') IS TRUE AS has_measured,
           sum(coalesce(moved.size_bytes, stored.size_bytes)) AS total_size_bytes, count(*) AS database_count,
           max(moved.collected_at) AS collected_at
    FROM (SELECT instance_id, database_name, day, size_bytes, collected_at FROM moved_sizes WHERE skip IS NULL) AS moved
    FULL JOIN (SELECT instance_id, database_name, collected_date AS day, size_bytes, collected_at, source,
                      num_nonnulls(data_size_bytes, log_size_bytes) > 0 AS has_parts
               FROM database_size_stats
               WHERE collected_date BETWEEN :first AND :last AND instance_id = ANY (:ids)) AS stored
         USING (instance_id, database_name, day)
    GROUP BY instance_id, day
    HAVING count(moved.size_bytes) > 0) AS days
LEFT JOIN instance_size_stats AS total
  ON total.instance_id = days.instance_id AND total.collected_date = days.day AND total.source = 'measured'
 AND total.collected_date BETWEEN :first AND :last
"""
SKIP_IMPOSSIBLE_DAYS = """
WITH impossible AS (
    DELETE FROM moved_days WHERE total_size_bytes > :largest AND NOT is_measured RETURNING instance_id, day
)
UPDATE moved_sizes AS moved SET skip = :skip
FROM impossible
WHERE moved.instance_id = impossible.instance_id AND moved.day = impossible.day AND moved.skip IS NULL
"""
DAYS = """
SELECT instance_id, sum(moved) AS moved,
       sum(created) FILTER (WHERE NOT is_measured) AS created, sum(changed) FILTER (WHERE NOT is_measured) AS changed,
       sum(moved) FILTER (WHERE is_measured) AS measured
FROM moved_days GROUP BY instance_id ORDER BY instance_id
"""
# In the order of the key: sorted input loads twice as fast.
MERGE_SIZES = """
INSERT INTO database_size_stats AS stored (instance_id, database_name, collected_date, size_bytes, source, collected_at)
SELECT instance_id, database_name, day, size_bytes, 'imported', collected_at
FROM moved_sizes AS moved
WHERE skip IS NULL AND (instance_id, day) NOT IN (SELECT instance_id, day FROM moved_days WHERE is_measured)
ORDER BY instance_id, database_name, day
ON CONFLICT (instance_id, database_name, collected_date) DO UPDATE
SET size_bytes = excluded.size_bytes, data_size_bytes = NULL, log_size_bytes = NULL,
    collected_at = excluded.collected_at, updated_at = now()
WHERE stored.source = 'imported'
  AND (stored.size_bytes, stored.collected_at, stored.data_size_bytes, stored.log_size_bytes)
      IS DISTINCT FROM (excluded.size_bytes, excluded.collected_at, NULL, NULL)
"""
COMPUTED_TOTALS = "moved_days WHERE created + changed > 0 AND NOT is_measured"
DECIDED_TOTALS = "decided_totals WHERE outcome IN ('created', 'changed')"
MERGE_TOTALS = """
INSERT INTO instance_size_stats AS stored (instance_id, collected_date, total_size_bytes, database_count,
                                           missing_count, source, collected_at)
SELECT instance_id, day, total_size_bytes, database_count, 0, 'imported', collected_at
FROM {totals}
ORDER BY instance_id, day
ON CONFLICT (instance_id, collected_date) DO UPDATE
SET total_size_bytes = excluded.total_size_bytes, database_count = excluded.database_count, missing_count = 0,
    log_size_bytes = NULL, collected_at = excluded.collected_at, updated_at = now()
WHERE stored.source = 'imported'
"""
DECIDED_TOTALS_TABLE = """
CREATE TEMPORARY TABLE decided_totals ON COMMIT DROP AS
SELECT moved.instance_id, moved.day, moved.total_size_bytes, moved.database_count, moved.collected_at,
       CASE WHEN stored.source = 'measured' THEN 'measured'
            WHEN moved.has_databases THEN 'computed'
            WHEN EXISTS (SELECT FROM database_size_stats AS sizes
                         WHERE sizes.instance_id = moved.instance_id AND sizes.collected_date = moved.day
                           AND sizes.collected_date BETWEEN :first AND :last) THEN 'computed'
            WHEN stored.instance_id IS NULL THEN 'created'
            WHEN (stored.total_size_bytes, stored.database_count, stored.collected_at)
                 IS DISTINCT FROM (moved.total_size_bytes, moved.database_count, moved.collected_at) THEN 'changed'
            ELSE 'stored' END AS outcome
FROM moved_totals AS moved
LEFT JOIN instance_size_stats AS stored
  ON stored.instance_id = moved.instance_id AND stored.collected_date = moved.day
 AND stored.collected_date BETWEEN :first AND :last
WHERE moved.skip IS NULL
"""
TOTAL_OUTCOMES = "SELECT instance_id, outcome, count(*) AS rows FROM decided_totals GROUP BY 1, 2 ORDER BY 1, 2"
# Days in a row are one line.
DIFFERING = """
SELECT instance_id, min(day) AS first, max(day) AS last, count(*) AS days, max(difference_bytes) AS largest
FROM (SELECT instance_id, day, difference_bytes,
             day - CAST(row_number() OVER (PARTITION BY instance_id ORDER BY day) AS integer) AS run
      FROM moved_totals WHERE skip IS NULL AND difference_bytes IS NOT NULL) AS differing
GROUP BY instance_id, run ORDER BY instance_id, first
"""


@dataclass(frozen=True)
class Month:
    """The days of a calendar month that are moved."""

    first: date
    last: date


@dataclass
class SizesMove:
    """A migration of daily sizes under way: both sides, what is decided, and the account that it keeps."""

    engine: Engine
    source: Source
    fleet: Fleet
    apply: bool
    account: Account
    differing: list[DifferingDays] = field(default_factory=list)
    retired: list[LostDays] = field(default_factory=list)

    def months(self, first: date, last: date) -> None:
        """Move the days from *first* to *last*, oldest month first, each level in a transaction of its own."""
        self._count_outside(first, last)
        with self.engine.connect() as connection:
            self.retired = [lost for table in (DATABASES, INSTANCES) for lost in absent_days(connection, table)]
        for month in months_between(first, last, self.source.days()):
            self._databases(month)
            self._instances(month)

    def _databases(self, month: Month) -> None:
        values = {"first": month.first, "last": month.last, "ids": self.fleet.ids}
        with self.engine.begin() as connection:
            self._load(connection, MOVED_SIZES_TABLE, "moved_sizes", DATABASE_ROWS, month)
            connection.execute(text(DAYS_TABLE), values)
            impossible = {"largest": LARGEST_CREDIBLE_SIZE, "skip": Skip.IMPOSSIBLE_DAY.value}
            connection.execute(text(SKIP_IMPOSSIBLE_DAYS), impossible)
            self._count_skipped(connection, DATABASES, "moved_sizes")
            written = self._count_days(connection)
            if self.apply and written:
                ensure_children(connection, STATS_TABLES, [month.first])
                connection.execute(text(MERGE_SIZES))
                connection.execute(text(MERGE_TOTALS.format(totals=COMPUTED_TOTALS)))

    def _instances(self, month: Month) -> None:
        values = {"first": month.first, "last": month.last}
        with self.engine.begin() as connection:
            self._load(connection, MOVED_TOTALS_TABLE, "moved_totals", INSTANCE_ROWS, month)
            self._count_skipped(connection, INSTANCES, "moved_totals")
            connection.execute(text(DECIDED_TOTALS_TABLE), values)
            written = self._count_totals(connection)
            self._note_differing(connection)
            if self.apply and written:
                ensure_children(connection, STATS_TABLES, [month.first])
                connection.execute(text(MERGE_TOTALS.format(totals=DECIDED_TOTALS)))

    def _load(self, connection: Connection, create: str, table: str, query: sql.SQL, month: Month) -> None:
        connection.execute(text(FOR_THIS_TRANSACTION))
        connection.execute(text(create))
        if self.apply:
            connection.execute(text(LOCK_INSTANCES), {"ids": self.fleet.ids})
        numbers = {skip.name.lower(): sql.Literal(skip.value) for skip in Skip}
        bounds = {"first": sql.Literal(month.first), "last": sql.Literal(month.last)}
        is_retired = sql.Literal(any(lost.overlap(month.first, month.last) for lost in self.retired))
        sizes = {"mib": sql.Literal(MIB), "largest": sql.Literal(LARGEST_MIB)}
        composed = query.format(map=self.fleet.as_table(), is_retired=is_retired, **numbers, **bounds, **sizes)
        self.source.copy_into(connection, composed, table)

    def _count_days(self, connection: Connection) -> int:
        """Account for the sizes of databases, and return how many rows are new or other than stored."""
        written = 0
        for row in connection.execute(text(DAYS)):
            created, changed, measured = int(row.created or 0), int(row.changed or 0), int(row.measured or 0)
            name = self.fleet.names[row.instance_id]
            self.account.add(DATABASES, name, Outcome.CREATED, created)
            self.account.add(DATABASES, name, Outcome.CHANGED, changed)
            self.account.add(DATABASES, name, Outcome.KEPT, measured, MEASURED_DAY)
            self.account.add(DATABASES, name, Outcome.KEPT, int(row.moved) - created - changed - measured, AS_STORED)
            written += created + changed
        return written

    def _count_totals(self, connection: Connection) -> int:
        """Account for the totals of instances, and return how many rows are new or other than stored."""
        kept = {"measured": MEASURED_DAY, "computed": FROM_DATABASES, "stored": AS_STORED}
        written = 0
        for row in connection.execute(text(TOTAL_OUTCOMES)):
            outcome = Outcome.KEPT if row.outcome in kept else Outcome(row.outcome)
            name = self.fleet.names[row.instance_id]
            self.account.add(INSTANCES, name, outcome, row.rows, kept.get(row.outcome, ""))
            written += 0 if outcome is Outcome.KEPT else row.rows
        return written

    def _count_skipped(self, connection: Connection, table: str, moved: str) -> None:
        for row in connection.execute(text(SKIPPED.format(table=moved))):
            name = self.fleet.names.get(row.instance_id)
            self.account.add(table, name, Outcome.SKIPPED, row.rows, Skip(row.skip).reason)

    def _count_outside(self, first: date, last: date) -> None:
        """Account for the days that cannot be stored."""
        for table in (DATABASES, INSTANCES):
            query = OUTSIDE.format(
                table=sql.Identifier(table),
                map=self.fleet.as_table(),
                first=sql.Literal(first),
                last=sql.Literal(last),
            )
            for row in self.source.rows(query):
                reason = f"before WHALEFALL_START_DATE ({first})" if row["is_early"] else f"after today ({last})"
                name = self.fleet.names.get(row["instance_id"])
                self.account.add(table, name, Outcome.SKIPPED, row["rows"], reason)

    def _note_differing(self, connection: Connection) -> None:
        for row in connection.execute(text(DIFFERING)):
            name = self.fleet.names[row.instance_id]
            self.differing.append(DifferingDays(name, row.first, row.last, row.days, row.largest))


def months_between(first: date, last: date, present: tuple[date, date] | None) -> Iterator[Month]:
    """Yield the months of first..last that may have rows, given the days that are *present*, oldest first."""
    if present is None:
        return
    first, last = max(first, present[0]), min(last, present[1])
    for start in month_starts(first, last):
        yield Month(max(start, first), min(add_months(start, 1) - timedelta(days=1), last))


def joined(differing: Sequence[DifferingDays]) -> list[DifferingDays]:
    """Return *differing*, by instance, with runs of days that go on in the next month as one."""
    found: list[DifferingDays] = []
    for days in sorted(differing, key=lambda days: (days.instance, days.first)):
        before = found[-1] if found else None
        if before and before.instance == days.instance and (days.first - before.last).days == 1:
            largest = max(before.largest_difference_bytes, days.largest_difference_bytes)
            found[-1] = DifferingDays(days.instance, before.first, days.last, before.days + days.days, largest)
        else:
            found.append(days)
    return found
