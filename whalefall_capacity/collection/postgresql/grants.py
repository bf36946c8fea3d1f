"""What lets an account see the sizes that it does not see."""

from __future__ import annotations

from whalefall_capacity.collection.postgresql.server import Server

SIZE_FUNCTION = "pg_database_size(oid)"
WAL_FUNCTION = "pg_ls_waldir()"
# NULL where there is no such function.
MAY_CALL = "SELECT has_function_privilege(CAST(to_regprocedure({function}) AS oid), 'EXECUTE')"
# 2: the account has the use of the role, 1: it is a member that does not inherit. No row: there is no such role.
MEMBERSHIP = """
SELECT CASE WHEN pg_has_role(role, 'USAGE') THEN 2 WHEN pg_has_role(role, 'MEMBER') THEN 1 ELSE 0 END
FROM CAST(to_regrole({role}) AS oid) AS role WHERE role IS NOT NULL
"""


def sizes_grant(server: Server, wal_grant: str | None, *, lacks_connect: bool) -> str | None:
    """Return what gives databases without a size one; None when no privilege would.

    *lacks_connect*: of some of them the account has neither CONNECT nor pg_read_all_stats.
    """
    if grant := _function_grant(server, SIZE_FUNCTION):
        return grant
    if not lacks_connect:
        return None
    # Whoever gets the one for the WAL needs no other.
    return wal_grant if wal_grant and "pg_monitor" in wal_grant else _role_grant(server, "pg_read_all_stats")


def wal_grant(server: Server) -> str | None:
    """Return what lets the account list the WAL; None when it already may, and the refusal was another's."""
    return _role_grant(server, "pg_monitor") or _function_grant(server, WAL_FUNCTION)


def _function_grant(server: Server, function: str) -> str | None:
    """Return what lets the account call *function*; None when it already may, or there is no such function."""
    ((is_allowed,),) = server.rows(MAY_CALL, function=function)
    if is_allowed is not False:
        return None
    return f"GRANT EXECUTE ON FUNCTION pg_catalog.{function} TO {server.account()};"


def _role_grant(server: Server, role: str) -> str | None:
    """Return what gives the account the use of *role*; None when it has it, or there is no such role."""
    rows = server.rows(MEMBERSHIP, role=role)
    if not rows or rows[0][0] == 2:
        return None
    if rows[0][0] == 0:
        return f"GRANT {role} TO {server.account()};"
    if server.version_number >= 160_000:
        return f"GRANT {role} TO {server.account()} WITH INHERIT TRUE;"
    return f"ALTER ROLE {server.account()} INHERIT;"
