"""The fleet of WhaleFall in the registry: credentials, instances, and the databases that each has or had."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from psycopg2 import sql
from pydantic import SecretStr
from sqlalchemy import Connection, Engine, text

from whalefall_capacity.credentials import encrypt
from whalefall_capacity.errors import MigrationError
from whalefall_capacity.store.moving_in.mapping import (
    CredentialMove,
    InstanceMove,
    OldKey,
    StoredInstance,
    decide_credentials,
    decide_instances,
)
from whalefall_capacity.store.moving_in.report import Account, Outcome
from whalefall_capacity.store.moving_in.source import Source
from whalefall_capacity.store.sizes.stats import LOCK_INSTANCES

STORED_CREDENTIALS = "SELECT name, username FROM credentials"
STORED_INSTANCES = """
SELECT i.id, i.name, i.db_type, i.host, i.port, c.name AS credential,
       EXISTS (SELECT FROM instance_size_stats AS s
               WHERE s.instance_id = i.id AND s.source = 'measured') AS is_visited
FROM instances AS i
LEFT JOIN credentials AS c ON c.id = i.credential_id
"""
INSERT_CREDENTIALS = """
INSERT INTO credentials (name, username, password, description)
SELECT * FROM unnest(CAST(:names AS text[]), CAST(:usernames AS text[]), CAST(:passwords AS text[]),
                     CAST(:descriptions AS text[]))
"""
# One that is there already is known from imported history alone.
UPSERT_INSTANCES = """
INSERT INTO instances (name, db_type, host, port, database_name, version, description, is_active, deleted_at,
                       last_connected_at, credential_id)
SELECT e.name, e.db_type, e.host, e.port, e.database_name, e.version, e.description, e.is_active, e.deleted_at,
       e.last_connected_at, c.id
FROM jsonb_to_recordset(CAST(:entries AS jsonb)) AS e(
         name text, db_type text, host text, port int, database_name text, version text, description text,
         is_active boolean, deleted_at timestamptz, last_connected_at timestamptz, credential text)
LEFT JOIN credentials AS c ON c.name = e.credential
ON CONFLICT (name) DO UPDATE
SET db_type = excluded.db_type, host = excluded.host, port = excluded.port, database_name = excluded.database_name,
    version = excluded.version, description = coalesce(excluded.description, instances.description),
    is_active = excluded.is_active, deleted_at = excluded.deleted_at,
    last_connected_at = excluded.last_connected_at, credential_id = excluded.credential_id, updated_at = now()
"""
# Databases that only the sizes know have neither been listed nor dropped: inactive, with the days that they have.
INVENTORY = sql.SQL("""
SELECT map.instance_id, found.database_name, found.is_active, found.first_seen_date, found.last_seen_date,
       found.deleted_at, found.is_listed
FROM (
    SELECT instance_id, CAST(database_name AS text) AS database_name, is_active, CAST(first_seen_date AS date),
           CAST(last_seen_date AS date), CAST(deleted_at AS timestamptz), true AS is_listed
    FROM instance_databases
    UNION ALL
    SELECT s.instance_id, CAST(s.database_name AS text), false, min(s.collected_date), max(s.collected_date), NULL,
           false
    FROM database_size_stats AS s
    WHERE s.collected_date BETWEEN {first} AND {last} AND btrim(s.database_name) <> ''
      AND NOT EXISTS (SELECT FROM instance_databases AS d
                      WHERE d.instance_id = s.instance_id AND d.database_name = s.database_name)
    GROUP BY s.instance_id, s.database_name) AS found
LEFT JOIN {map} ON map.source_id = found.instance_id
""")
LISTED_TABLE = """
CREATE TEMPORARY TABLE moved_databases (
    instance_id integer, database_name text COLLATE "C" NOT NULL, is_active boolean NOT NULL,
    first_seen_date date NOT NULL, last_seen_date date NOT NULL, deleted_at timestamptz, is_listed boolean NOT NULL
) ON COMMIT DROP
"""
# What visits of this program know of a database is newer than what WhaleFall knows; only the first day may be older.
# One that is inactive and was never dropped has never been listed: its days are those of its sizes.
DECIDED_TABLE = """
CREATE TEMPORARY TABLE decided_databases ON COMMIT DROP AS
SELECT next.*, known.instance_id IS NULL AS is_new,
       known.instance_id IS NOT NULL
       AND (next.first_seen_date, next.last_seen_date, next.is_active, next.deleted_at)
           IS DISTINCT FROM (known.first_seen_date, known.last_seen_date, known.is_active, known.deleted_at)
           AS is_changed
FROM moved_databases AS moved
LEFT JOIN instance_databases AS known USING (instance_id, database_name)
CROSS JOIN LATERAL (
    SELECT known.instance_id IS NOT NULL AND (moved.instance_id = ANY (:visited) OR NOT moved.is_listed)
) AS whose (ours)
CROSS JOIN LATERAL (
    SELECT moved.instance_id, moved.database_name, moved.is_listed,
           least(known.first_seen_date, moved.first_seen_date) AS first_seen_date,
           CASE WHEN ours AND (known.is_active OR known.deleted_at IS NOT NULL) THEN known.last_seen_date
                ELSE greatest(known.last_seen_date, moved.last_seen_date) END AS last_seen_date,
           CASE WHEN ours THEN known.is_active ELSE moved.is_active END AS is_active,
           CASE WHEN ours THEN known.deleted_at ELSE moved.deleted_at END AS deleted_at) AS next
WHERE moved.instance_id IS NOT NULL AND btrim(moved.database_name) <> ''
"""
DATABASE_OUTCOMES = """
SELECT instance_id, is_listed,
       CASE WHEN is_new THEN 'created' WHEN is_changed THEN 'changed' ELSE 'kept' END AS outcome, count(*) AS rows
FROM decided_databases GROUP BY 1, 2, 3 ORDER BY 1, 2, 3
"""
SKIPPED_DATABASES = """
SELECT instance_id, count(*) AS rows FROM moved_databases
WHERE is_listed AND (instance_id IS NULL OR btrim(database_name) = '')
GROUP BY instance_id
"""
WRITE_DATABASES = """
INSERT INTO instance_databases AS known (instance_id, database_name, is_active, first_seen_date, last_seen_date,
                                         deleted_at)
SELECT instance_id, database_name, is_active, first_seen_date, last_seen_date, deleted_at FROM decided_databases
WHERE is_new OR is_changed
ORDER BY instance_id, database_name
ON CONFLICT (instance_id, database_name) DO UPDATE
SET is_active = excluded.is_active, first_seen_date = excluded.first_seen_date,
    last_seen_date = excluded.last_seen_date, deleted_at = excluded.deleted_at, updated_at = now()
"""


@dataclass(frozen=True)
class Fleet:
    """The decisions on the fleet, and the names of its instances by the ids that their rows carry."""

    credentials: Sequence[CredentialMove]
    instances: Sequence[InstanceMove]

    @property
    def names(self) -> Mapping[int | None, str]:
        return {move.id_in_rows: move.source.name for move in self.instances}

    @property
    def ids(self) -> list[int]:
        """The ids of the store; none of those that are only planned."""
        return sorted(move.target_id for move in self.instances if move.target_id is not None)

    def as_table(self) -> sql.Composable:
        """Return the table `map` of the source's ids, for its queries to join."""
        moves = self.instances
        return sql.SQL(
            "unnest({sources}::integer[], {targets}::integer[], {placeholders}::boolean[]) "
            "AS map (source_id, instance_id, zero_is_placeholder)"
        ).format(
            sources=sql.Literal([move.source.id for move in moves]),
            targets=sql.Literal([move.id_in_rows for move in moves]),
            placeholders=sql.Literal([move.zero_is_placeholder for move in moves]),
        )


def move_fleet(
    engine: Engine, source: Source, old_key: OldKey | None, new_keys: SecretStr | None, apply: bool
) -> Fleet:
    """Bring credentials and instances into the registry in one transaction, or say what would come of them."""
    with engine.begin() as connection:
        if apply:
            # As whoever applies a fleet file does.
            connection.execute(text("LOCK TABLE instances IN SHARE ROW EXCLUSIVE MODE"))
        fleet = _decide(connection, source, old_key)
        if not apply:
            return fleet
        _insert_credentials(connection, fleet.credentials, new_keys)
        entries = [_entry(move) for move in fleet.instances if move.outcome in (Outcome.CREATED, Outcome.CHANGED)]
        connection.execute(text(UPSERT_INSTANCES), {"entries": json.dumps(entries)})
        ids = {row.name: row.id for row in connection.execute(text("SELECT id, name FROM instances"))}
        return replace(fleet, instances=[replace(move, target_id=ids[move.source.name]) for move in fleet.instances])


def move_inventory(
    engine: Engine, source: Source, fleet: Fleet, days: tuple[Any, Any], apply: bool, account: Account
) -> None:
    """Bring the databases of each instance into the inventory, with their days, in one transaction."""
    table, names = "instance_databases", fleet.names
    with engine.begin() as connection:
        connection.execute(text(LISTED_TABLE))
        query = INVENTORY.format(map=fleet.as_table(), first=sql.Literal(days[0]), last=sql.Literal(days[1]))
        source.copy_into(connection, query, "moved_databases")
        if apply:
            connection.execute(text(LOCK_INSTANCES), {"ids": fleet.ids})
        connection.execute(text("ANALYZE moved_databases"))
        visited = [move.target_id for move in fleet.instances if move.is_visited]
        connection.execute(text(DECIDED_TABLE), {"visited": visited})
        for row in connection.execute(text(DATABASE_OUTCOMES)):
            # Those without a row of the inventory are rows of none of its tables: they are told beside it.
            of = table if row.is_listed else "databases known from sizes alone"
            reason = "" if row.is_listed else "not in instance_databases: registered as inactive"
            account.add(of, names[row.instance_id], Outcome(row.outcome), row.rows, reason)
        for row in connection.execute(text(SKIPPED_DATABASES)):
            reason = "its instance is not there" if row.instance_id is None else "its name is blank"
            account.add(table, names.get(row.instance_id), Outcome.SKIPPED, row.rows, reason)
        if apply:
            connection.execute(text(WRITE_DATABASES))


def _decide(connection: Connection, source: Source, old_key: OldKey | None) -> Fleet:
    stored = {row.name: row.username for row in connection.execute(text(STORED_CREDENTIALS))}
    credentials = decide_credentials(source.credentials(), stored, old_key)
    rows = connection.execute(text(STORED_INSTANCES)).mappings()
    instances = decide_instances(source.instances(), {row["name"]: StoredInstance(**row) for row in rows}, credentials)
    return Fleet(credentials, instances)


def _insert_credentials(connection: Connection, moves: Sequence[CredentialMove], new_keys: SecretStr | None) -> None:
    new = [move for move in moves if move.outcome is Outcome.CREATED]
    if locked := [move.source.name for move in new if move.password is None]:
        raise MigrationError(
            f"the passwords of {', '.join(locked)} are encrypted: name with --key-env the environment variable that "
            "has WhaleFall's PASSWORD_ENCRYPTION_KEY"
        )
    values = {
        "names": [move.source.name for move in new],
        "usernames": [move.source.username for move in new],
        "passwords": [encrypt(move.password, new_keys) for move in new if move.password is not None],
        "descriptions": [move.source.description for move in new],
    }
    connection.execute(text(INSERT_CREDENTIALS), values)


def _entry(move: InstanceMove) -> dict[str, Any]:
    source = move.source
    return {
        "name": source.name,
        "db_type": move.db_type,
        "host": source.host,
        "port": source.port,
        "database_name": move.database_name,
        "version": source.version,
        "description": source.description,
        "is_active": move.is_active,
        "deleted_at": move.deleted_at.isoformat() if move.deleted_at else None,
        "last_connected_at": source.last_connected.isoformat() if source.last_connected else None,
        "credential": move.credential,
    }
