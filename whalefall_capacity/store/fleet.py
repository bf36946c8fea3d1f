"""The fleet registry: instances and their credentials."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from datetime import datetime
from typing import Any

from pydantic import SecretStr
from sqlalchemy import Connection, Engine, text

from whalefall_capacity.collection.sizes import FailedVisit, Target, Tls
from whalefall_capacity.engine_catalog import default_port, engine_file
from whalefall_capacity.errors import CredentialError, EngineFileError, FleetError, FleetFileError
from whalefall_capacity.fleet_file import FleetFile, InstanceEntry
from whalefall_capacity.store.fleet_credentials import credential_name, find_secret
from whalefall_capacity.store.postgres.engine import again_if_connection_lost
from whalefall_capacity.store.postgres.one_statement import read_rows, read_value

REGISTERED = """
SELECT i.name, i.db_type, i.host, i.port, i.database_name, i.tls, i.description, i.capacity_limit_bytes,
       i.is_active AND i.deleted_at IS NULL AS is_active, c.name AS credential, primary_one.name AS replica_of
FROM instances AS i
LEFT JOIN credentials AS c ON c.id = i.credential_id
LEFT JOIN instances AS primary_one ON primary_one.id = i.replica_of_id
"""
UPSERT_CREDENTIAL = """
INSERT INTO credentials (name, username, secret_reference)
VALUES (:name, :username, :reference)
ON CONFLICT (name) DO NOTHING
"""
UPSERT_INSTANCES = """
INSERT INTO instances (name, db_type, host, port, database_name, tls, description, capacity_limit_bytes, is_active,
                       credential_id)
SELECT e.name, e.db_type, e.host, e.port, e.database_name, e.tls, e.description, e.capacity_limit_bytes, e.is_active,
       c.id
FROM jsonb_to_recordset(CAST(:entries AS jsonb)) AS e(
         name text, db_type text, host text, port int, database_name text, tls jsonb, description text,
         capacity_limit_bytes bigint, is_active boolean, credential text)
JOIN credentials AS c ON c.name = e.credential
ON CONFLICT (name) DO UPDATE
SET db_type = excluded.db_type, host = excluded.host, port = excluded.port, database_name = excluded.database_name,
    tls = excluded.tls, description = excluded.description, capacity_limit_bytes = excluded.capacity_limit_bytes,
    is_active = excluded.is_active, credential_id = excluded.credential_id, deleted_at = NULL, updated_at = now()
"""
# After the instances: a replica and its primary may come with the same file.
SET_PRIMARIES = """
UPDATE instances AS i SET replica_of_id = primary_one.id
FROM jsonb_to_recordset(CAST(:entries AS jsonb)) AS e(name text, replica_of text)
LEFT JOIN instances AS primary_one ON primary_one.name = e.replica_of
WHERE i.name = e.name AND i.replica_of_id IS DISTINCT FROM primary_one.id
"""
DISABLE = """
UPDATE instances SET is_active = false, deleted_at = now(), updated_at = now()
WHERE is_active AND deleted_at IS NULL AND name = ANY (:names)
"""
# The primary key gives the range: a shard reads its own rows alone.
FLEET = """
SELECT i.id FROM instances AS i
WHERE i.is_active AND i.deleted_at IS NULL AND i.id BETWEEN :first_id AND :last_id
  AND (CAST(:ids AS bigint[]) IS NULL OR i.id = ANY (CAST(:ids AS bigint[])))
ORDER BY i.name
"""
TARGETS = """
SELECT i.id, i.name, i.db_type, i.host, i.port, i.database_name, i.tls,
       i.is_active AND i.deleted_at IS NULL AS in_fleet,
       c.name AS credential, c.username, c.password, c.secret_reference
FROM instances AS i
LEFT JOIN credentials AS c ON c.id = i.credential_id
WHERE i.id = ANY (CAST(:ids AS integer[]))
ORDER BY i.name
"""
# The column is an integer that counts from 1.
ALL_IDS = (1, 2**31 - 1)
IN_FLEET = "SELECT EXISTS (SELECT FROM instances WHERE id = :id AND is_active AND deleted_at IS NULL)"
ID_IN_FLEET = "SELECT (SELECT id FROM instances WHERE name = :name AND is_active AND deleted_at IS NULL)"
REPLICAS = "SELECT count(*) FROM instances WHERE is_active AND deleted_at IS NULL AND replica_of_id IS NOT NULL"
INSTANCES = """
SELECT i.id, i.name, i.db_type, i.host, i.port, i.version, i.is_active AND i.deleted_at IS NULL AS is_active,
       i.last_connected_at, i.description, i.capacity_limit_bytes, primary_one.name AS replica_of,
       (SELECT count(*) FROM instance_databases AS d WHERE d.instance_id = i.id AND d.is_active) AS databases
FROM instances AS i
LEFT JOIN instances AS primary_one ON primary_one.id = i.replica_of_id
ORDER BY i.name
"""


@dataclass(frozen=True)
class Change:
    """The change that a fleet file makes to one instance."""

    name: str
    action: str
    fields: tuple[str, ...] = ()


@dataclass(frozen=True)
class RegisteredInstance:
    """One row of `fleet list`."""

    id: int
    name: str
    db_type: str
    host: str | None
    port: int | None
    version: str | None
    is_active: bool
    last_connected_at: datetime | None
    description: str | None
    capacity_limit_bytes: int | None
    replica_of: str | None
    databases: int


@dataclass(frozen=True)
class Roster:
    """The servers to visit: *targets*, and those whose password could not be found, as failed visits."""

    targets: list[Target] = field(default_factory=list)
    unresolved: list[FailedVisit] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.targets) + len(self.unresolved)


def apply_fleet(engine: Engine, fleet: FleetFile, dry_run: bool = False) -> list[Change]:
    """Make the registry equal to *fleet* in one transaction and say what changed, instance by instance.

    Instances that the file does not name are disabled, never removed. Raises FleetFileError when a stored
    credential is not there; then nothing is changed.
    """
    with engine.begin() as connection:
        # Two appliers take turns, so that each sees what the other did.
        connection.execute(text("LOCK TABLE instances IN SHARE ROW EXCLUSIVE MODE"))
        changes = _changes(connection, fleet)
        _require_stored(connection, fleet)
        if dry_run:
            return changes
        touched = {change.name for change in changes if change.action in {"created", "changed"}}
        _upsert(connection, [entry for entry in fleet.instances if entry.name in touched])
        gone = [change.name for change in changes if change.action == "disabled"]
        connection.execute(text(DISABLE), {"names": gone})
    return changes


def list_instances(engine: Engine) -> list[RegisteredInstance]:
    """Return every registered instance, disabled ones too, by name."""
    return read_rows(engine, RegisteredInstance, INSTANCES)


def is_in_fleet(engine: Engine, instance_id: int) -> bool:
    """Tell whether an instance is one of those that are visited."""
    return bool(read_value(engine, IN_FLEET, id=instance_id))


def id_in_fleet(engine: Engine, name: str) -> int | None:
    """Return the id of an instance, None when it is not one of those that are visited."""
    found = read_value(engine, ID_IN_FLEET, name=name)
    return None if found is None else int(found)


def count_replicas(engine: Engine) -> int:
    """Return how many servers of the fleet are replicas of another one."""
    return int(read_value(engine, REPLICAS))


@again_if_connection_lost
def fleet_ids(
    engine: Engine, instance_ids: Sequence[int] | None = None, id_range: tuple[int, int] | None = None
) -> list[int]:
    """Return the ids of the fleet, or *instance_ids*, in the order of the names; with *id_range* those in it alone.

    Raises FleetError when one of these *instance_ids* is not in the fleet.
    """
    first_id, last_id = id_range or ALL_IDS
    with engine.connect() as connection:
        ids = None if instance_ids is None else list(instance_ids)
        values = {"ids": ids, "first_id": first_id, "last_id": last_id}
        found = list(connection.execute(text(FLEET), values).scalars())
    asked_for = {one for one in instance_ids or () if id_range is None or first_id <= one <= last_id}
    unknown = sorted(asked_for.difference(found))
    if unknown:
        raise FleetError(
            f"instance ids {', '.join(map(str, unknown))} are not in the fleet; "
            "`whalefall-capacity fleet list` shows it"
        )
    return found


@again_if_connection_lost
def load_roster(engine: Engine, secret_key: SecretStr | None, instance_ids: Sequence[int]) -> Roster:
    """Return the servers of *instance_ids*, by name, with passwords resolved."""
    with engine.connect() as connection:
        rows = list(connection.execute(text(TARGETS), {"ids": list(instance_ids)}).mappings())
    roster = Roster()
    for row in rows:
        try:
            roster.targets.append(_target(row, secret_key))
        except (CredentialError, EngineFileError) as error:
            roster.unresolved.append(FailedVisit(row["id"], row["name"], f"{row['name']}: {error}", 0.0))
    return roster


def _changes(connection: Connection, fleet: FleetFile) -> list[Change]:
    registered = {row["name"]: dict(row) for row in connection.execute(text(REGISTERED)).mappings()}
    changes = []
    for entry in fleet.instances:
        wanted = _columns(entry)
        present = registered.get(entry.name)
        if present is None:
            changes.append(Change(entry.name, "created"))
        else:
            different = tuple(name for name, value in wanted.items() if present[name] != value)
            changes.append(Change(entry.name, "changed" if different else "unchanged", different))
    named = {entry.name for entry in fleet.instances}
    changes += [
        Change(name, "disabled") for name, row in sorted(registered.items()) if row["is_active"] and name not in named
    ]
    return changes


def _columns(entry: InstanceEntry) -> dict[str, Any]:
    return {
        "name": entry.name,
        "db_type": entry.engine,
        "host": entry.host,
        "port": entry.port or default_port(entry.engine),
        "database_name": entry.database,
        "tls": {name: value for name, value in asdict(entry.tls).items() if value is not None} if entry.tls else None,
        "description": entry.description,
        "capacity_limit_bytes": entry.capacity_limit,
        "replica_of": entry.replica_of,
        "is_active": entry.active,
        "credential": credential_name(entry.credential),
    }


def _require_stored(connection: Connection, fleet: FleetFile) -> None:
    wanted = {entry.credential.stored for entry in fleet.instances if entry.credential.stored}
    known = connection.execute(
        text("SELECT name FROM credentials WHERE name = ANY (:names)"), {"names": sorted(wanted)}
    ).scalars()
    absent = sorted(wanted - set(known))
    if absent:
        raise FleetFileError(
            f"stored credentials {', '.join(absent)} do not exist: store them with "
            "`whalefall-capacity credential set NAME --username USER`"
        )


def _upsert(connection: Connection, entries: list[InstanceEntry]) -> None:
    references = [
        {
            "name": credential_name(entry.credential),
            "username": entry.credential.username,
            "reference": entry.credential.reference,
        }
        for entry in entries
        if entry.credential.reference
    ]
    if references:
        connection.execute(text(UPSERT_CREDENTIAL), references)
    values = {"entries": json.dumps([_columns(entry) for entry in entries])}
    connection.execute(text(UPSERT_INSTANCES), values)
    connection.execute(text(SET_PRIMARIES), values)


def _target(row: Any, secret_key: SecretStr | None) -> Target:
    if not row["in_fleet"]:
        raise CredentialError("it left the fleet before its turn came")
    if row["credential"] is None or row["host"] is None:
        raise CredentialError("has no host or no credential; describe it in fleet.yaml and apply that")
    return Target(
        instance_id=row["id"],
        name=row["name"],
        engine=row["db_type"],
        engine_file=engine_file(row["db_type"]),
        host=row["host"],
        port=row["port"],
        database=row["database_name"],
        username=row["username"],
        password=find_secret(row["credential"], row["password"], row["secret_reference"], secret_key),
        tls=Tls(**(row["tls"] or {})),
    )
