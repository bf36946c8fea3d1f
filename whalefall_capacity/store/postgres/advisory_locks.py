"""Every advisory lock of the store: its key, and the statements that take it, give it back and look it up.

A key is the hash of a name, and each name is made by one function here; whoever waits for a lock and whoever holds it
call the same one. The hashes are part of what programs of different versions agree on: another key is another lock.

The order in which locks are taken; nobody waits for one while it holds one from further down:

1. the maintenance, in a session of its own: at most one maintenance or restore is under way;
2. calculations, by period type in the order of PeriodType, then by chunk;
3. rows of `aggregation_windows`, by period type and start;
4. the creation of table partitions;
5. tables whose other users have to wait: SHARE on children of the stats, ACCESS EXCLUSIVE on a detached child.

A calculation takes 2 for its chunk, 3 shared, and 4 when a child of the aggregations is missing; what records it takes
3 alone. A seal takes 1, all of 2 at its level, 3, 4 and 5; a restore 1, 3 and 4; what drops a detached child or puts it
back 1, 4 and 5. A collection and an import take 4, when a child of the stats is missing, before they write any stats:
a seal that has 4 waits for those who write.

The others stand alone: nothing above is waited for in a session that holds the migration, the launch of a run, the
visit of a server or the liveness of a run. That of the daemon is in the database of Dagster's storage.
"""

from __future__ import annotations

from collections.abc import Iterable

from sqlalchemy import Connection, text

from whalefall_capacity.periods import PeriodType

# Until the end of the transaction.
IN_TRANSACTION = "SELECT pg_advisory_xact_lock(hashtextextended(:name, 0))"
# These two keys were made of the short hash from the first version on.
IN_TRANSACTION_BY_SHORT_HASH = "SELECT pg_advisory_xact_lock(hashtext(:name))"
# Until the end of the session.
IN_SESSION = "SELECT pg_advisory_lock(hashtextextended(:name, 0))"
IN_SESSION_SHARED = "SELECT pg_advisory_lock_shared(hashtextextended(:name, 0))"
# Taken in the select list: a condition may be evaluated for rows that another one leaves out.
TRY_IN_SESSION = """
SELECT id FROM (SELECT id, pg_try_advisory_lock(hashtextextended(name, 0)) AS taken
                FROM unnest(CAST(:ids AS integer[]), CAST(:names AS text[])) AS asked (id, name)) AS tried
WHERE taken
"""
RELEASE = "SELECT pg_advisory_unlock(hashtextextended(name, 0)) FROM unnest(CAST(:names AS text[])) AS name"
# A key of 64 bits is shown as two of 32, with objsubid 1 (PostgreSQL's documentation of pg_locks).
NOT_HELD = """
SELECT id FROM (SELECT id, hashtextextended(name, 0) AS key
                FROM unnest(CAST(:ids AS text[]), CAST(:names AS text[])) AS asked (id, name)) AS asked
WHERE NOT EXISTS (
    SELECT FROM pg_locks
    WHERE locktype = 'advisory' AND granted AND objsubid = 1
      AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
      AND classid = CAST(key >> 32 & 4294967295 AS oid) AND objid = CAST(key & 4294967295 AS oid))
"""
DAEMON = "whalefall_capacity.daemon"


def lock_migration(connection: Connection) -> None:
    """Let nobody else migrate the store until the end of the transaction."""
    connection.execute(text(IN_TRANSACTION_BY_SHORT_HASH), {"name": "whalefall_capacity.migrate"})


def lock_child_creation(connection: Connection) -> None:
    """Let nobody else create or rename table partitions until the end of the transaction."""
    connection.execute(text(IN_TRANSACTION_BY_SHORT_HASH), {"name": "whalefall_capacity.table_partitions"})


def lock_launch(connection: Connection, task_key: str) -> None:
    """Let nobody else decide whether to launch a run of *task_key* until the end of the transaction."""
    connection.execute(text(IN_TRANSACTION), {"name": f"whalefall_capacity.launch.{task_key}"})


def lock_maintenance(connection: Connection) -> None:
    """Let nobody else maintain or restore table partitions until the end of the session."""
    connection.execute(text(IN_SESSION), {"name": "whalefall_capacity.partition_maintenance"})


def lock_calculation(connection: Connection, level: str, period_type: PeriodType, chunk: range) -> None:
    """Let nobody else calculate or seal windows of the instances in *chunk* until the end of the transaction."""
    connection.execute(text(IN_TRANSACTION), {"name": f"aggregation {level} {period_type.value} {chunk.start}"})


def lock_all_calculations(connection: Connection, level: str, chunks: Iterable[range]) -> None:
    """Let nobody calculate windows of *level* until the end of the transaction."""
    chunks = list(chunks)
    for period_type in PeriodType:
        for chunk in chunks:
            lock_calculation(connection, level, period_type, chunk)


def try_lock_visits(connection: Connection, instance_ids: Iterable[int]) -> set[int]:
    """Lock, until the end of the session, those visits of *instance_ids* that nobody has locked; return their ids."""
    ids = list(instance_ids)
    names = [_visit(instance_id) for instance_id in ids]
    return set(connection.execute(text(TRY_IN_SESSION), {"ids": ids, "names": names}).scalars())


def unlock_visits(connection: Connection, instance_ids: Iterable[int]) -> None:
    """Release the visits of *instance_ids*."""
    connection.execute(text(RELEASE), {"names": [_visit(instance_id) for instance_id in instance_ids]})


def hold_liveness(connection: Connection, run_id: str) -> None:
    """Hold the liveness lock of the run until the end of the session; several sessions may hold it at once."""
    connection.execute(text(IN_SESSION_SHARED), {"name": _liveness(run_id)})


def confirm_liveness(connection: Connection) -> None:
    """Raise an error if the session is lost, and with it the liveness lock that it held."""
    connection.execute(text("SELECT"))


def without_worker(connection: Connection, run_ids: Iterable[str]) -> set[str]:
    """Return those of *run_ids* whose liveness lock no session holds."""
    ids = list(run_ids)
    names = [_liveness(run_id) for run_id in ids]
    return set(connection.execute(text(NOT_HELD), {"ids": ids, "names": names}).scalars())


def hold_daemon_liveness(connection: Connection) -> None:
    """Hold the liveness lock of Dagster's daemon until the end of the session; several sessions may hold it at once."""
    connection.execute(text(IN_SESSION_SHARED), {"name": DAEMON})


def is_daemon_alive(connection: Connection) -> bool:
    """Tell whether a session holds the liveness lock of Dagster's daemon."""
    return not connection.execute(text(NOT_HELD), {"ids": [DAEMON], "names": [DAEMON]}).all()


def _visit(instance_id: int) -> str:
    return f"visit {instance_id}"


def _liveness(run_id: str) -> str:
    return f"task run {run_id}"
