"""One visit to one server, whole: connect, list, measure, leave."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace

from whalefall_capacity.collection.answers import LONGEST_REASON, LONGEST_VERSION, credible, words_of
from whalefall_capacity.collection.database_tables import DatabaseTable, DatabaseTables
from whalefall_capacity.collection.sizes import (
    LONGEST_NAME,
    Capability,
    Cutoff,
    FailedVisit,
    Findings,
    Limits,
    NameFilter,
    ServerEngine,
    Session,
    Target,
    Visit,
)
from whalefall_capacity.errors import CollectionError
from whalefall_capacity.periods import utc_now
from whalefall_capacity.printable import printable

# By engine; of one that is not there, the engine file alone says what is left out.
Filters = Mapping[str, NameFilter]


@dataclass(frozen=True)
class Checkup:
    """Findings of the privilege doctor on one server; *error* when it could not connect, or not stay connected."""

    name: str
    version: str | None
    capabilities: tuple[Capability, ...]
    error: str | None

    @property
    def healthy(self) -> bool:
        return self.error is None and all(c.available for c in self.capabilities if c.required)


def visit(target: Target, limits: Limits, filters: Filters, cutoff: Cutoff, findings: Findings) -> Visit:
    """Measure one server. Raises CollectionError, which names the server and never a secret.

    What was measured before an error or a limit is kept; the databases that were not come to are missing.
    """
    started = time.monotonic()
    session = _open(target, limits, cutoff)
    reason_for_the_rest = "the server returned no size"
    try:
        session.measure(_filter_of(target, filters), findings)
    except Exception as error:
        if not findings.has_sizes:
            raise CollectionError(_describe(target, "measuring on", _cause(error, cutoff))) from None
        reason_for_the_rest = f"the visit ended before it was measured: {_reason(target, _cause(error, cutoff))}"
    finally:
        session.close()
        cutoff.release()
    return visit_of(target, findings, reason_for_the_rest, time.monotonic() - started)


def visit_of(target: Target, findings: Findings, reason_for_the_rest: str, seconds: float) -> Visit:
    """Return what a visit has found so far; what it has not come to is missing with *reason_for_the_rest*.

    Raises CollectionError when that cannot be true, and when databases are listed of which none has a size: their
    total would be a 0 that nobody measured.
    """
    try:
        measurement = credible(findings.measurement(reason_for_the_rest), lambda text: _without_secret(target, text))
    except CollectionError as error:
        raise CollectionError(_describe(target, "measuring on", error)) from None
    listed = measurement.databases
    if listed and all(database.size_bytes is None for database in listed):
        ((reason, _),) = Counter(database.reason for database in listed).most_common(1)
        raise CollectionError(
            f"{target.name}: none of its {len(listed)} databases could be measured: {reason}; "
            "`whalefall-capacity fleet check` prints the GRANT that is missing"
        )
    return Visit(target, measurement, utc_now(), seconds)


def check(target: Target, limits: Limits, filters: Filters, cutoff: Cutoff) -> Checkup:
    """Say what can be measured on one server; a server that cannot be reached is a finding, not an error."""
    try:
        session = _open(target, limits, cutoff)
    except CollectionError as error:
        return Checkup(target.name, None, (), str(error))
    try:
        version = _shown(target, session.version, LONGEST_VERSION)
        found = [*session.capabilities(_filter_of(target, filters)), _identity(target)]
        return Checkup(target.name, version, tuple(_printable(target, capability) for capability in found), None)
    except Exception as error:
        return Checkup(target.name, None, (), _describe(target, "checking on", _cause(error, cutoff)))
    finally:
        session.close()
        cutoff.release()


def read_tables(target: Target, database: str, limits: Limits, cutoff: Cutoff) -> DatabaseTables:
    """Read the tables of one database. Raises CollectionError, which names the server and never a secret."""
    if target.engine == ServerEngine.POSTGRESQL or target.engine_file is not None:
        target = replace(target, database=database)
    session = _open(target, limits, cutoff)
    try:
        found = session.tables(database)
    except Exception as error:
        doing = f"reading the tables of {printable(database, LONGEST_NAME)}"
        raise CollectionError(_describe(target, doing, _cause(error, cutoff))) from None
    finally:
        session.close()
        cutoff.release()
    return replace(found, tables=[_printable_table(target, table) for table in found.tables])


def failed(target: Target, error: str, seconds: float) -> FailedVisit:
    """Return a failed visit with the server's password, should a driver have quoted it, blotted out."""
    return FailedVisit(target.instance_id, target.name, printable(_without_secret(target, error)), seconds)


def _open(target: Target, limits: Limits, cutoff: Cutoff) -> Session:
    # Imported here: a fleet of one engine needs only that engine's driver.
    try:
        if target.engine_file is not None:
            from whalefall_capacity.collection import sql

            return sql.connect(target, target.engine_file, limits, cutoff)
        if target.engine == ServerEngine.POSTGRESQL:
            from whalefall_capacity.collection import postgresql

            return postgresql.connect(target, limits, cutoff)
        from whalefall_capacity.collection import mysql

        return mysql.connect(target, limits, cutoff)
    except Exception as error:
        cutoff.cut()
        cutoff.release()
        raise CollectionError(_describe(target, "connecting to", _cause(error, cutoff))) from None


def _filter_of(target: Target, filters: Filters) -> NameFilter:
    return filters.get(target.engine, NameFilter())


def _cause(error: Exception, cutoff: Cutoff) -> Exception:
    """Return what ended the connection: the driver knows only that it has ended."""
    return error if cutoff.reason is None else CollectionError(cutoff.reason)


def _describe(target: Target, doing: str, error: Exception) -> str:
    text = f"{target.name}: {doing} {target.address} as {target.username} failed: {_reason(target, error)}"
    return _without_secret(target, text)


def _reason(target: Target, error: Exception) -> str:
    # PyMySQL's errors would show their text quoted, and a password in it escaped beyond recognition.
    reason = str(error) if isinstance(error, OSError) else words_of(error)
    # Before the blanks, of which a password may hold several.
    return printable(" ".join(_without_secret(target, reason).split()), LONGEST_REASON) or type(error).__name__


def _identity(target: Target) -> Capability:
    """Say whether it is known who answered: without, somebody on the way may be asked instead. docs/servers.md"""
    if target.is_local:
        detail = "whoever may listen at that path"
    elif target.verifies_server:
        detail = f"its certificate is verified ({target.tls.mode})"
    else:
        detail = f"tls.mode is {target.tls.mode}; set verify-full, and ca_file, in the fleet file to have it verified"
    return Capability("who answers", target.is_local or target.verifies_server, required=False, detail=detail)


def _shown(target: Target, text: str, longest: int) -> str:
    return printable(_without_secret(target, text), longest)


def _printable(target: Target, capability: Capability) -> Capability:
    grant = None if capability.grant is None else printable(capability.grant, LONGEST_REASON)
    return replace(capability, detail=_shown(target, capability.detail, LONGEST_REASON), grant=grant)


def _printable_table(target: Target, table: DatabaseTable) -> DatabaseTable:
    """Return *table* with every text of the server bounded and printable."""
    return replace(
        table,
        schema_name=None if table.schema_name is None else printable(table.schema_name, LONGEST_NAME),
        name=printable(table.name, LONGEST_NAME),
        engine=None if table.engine is None else printable(table.engine, LONGEST_NAME),
        reason=None if table.reason is None else _shown(target, table.reason, LONGEST_REASON),
    )


def _without_secret(target: Target, text: str) -> str:
    password = target.password.get_secret_value()
    return text.replace(password, "********") if password else text
