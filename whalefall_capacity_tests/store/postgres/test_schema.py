"""The store is brought to the revision that the program needs, or it is refused; and what the schema guarantees."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from datetime import date

import psycopg2
import pytest
from pydantic import SecretStr
from sqlalchemy import Engine, text
from sqlalchemy.exc import IntegrityError, ProgrammingError

from whalefall_capacity.errors import StoreError
from whalefall_capacity.store.postgres import schema
from whalefall_capacity.store.postgres.advisory_locks import lock_migration
from whalefall_capacity.store.postgres.engine import create_store_engine
from whalefall_capacity.store.postgres.schema import (
    current_revision,
    latest_revision,
    migrate,
    require_current,
)
from whalefall_capacity.store.postgres.statuses import Status
from whalefall_capacity.store.postgres.tables import metadata
from whalefall_capacity.store.table_partitions.create import DATABASE_SIZE_STATS, PARTITIONED_TABLES, ensure_children
from whalefall_capacity_tests.processes import wait_for
from whalefall_capacity_tests.store.postgres.downgrade import downgrade
from whalefall_capacity_tests.store.records import WAITING_FOR_ADVISORY_LOCKS, rows

MIGRATE = """
import sys
from pydantic import SecretStr
from whalefall_capacity.store.postgres.engine import create_store_engine
from whalefall_capacity.store.postgres.schema import migrate
print(*migrate(create_store_engine(SecretStr(sys.argv[1]))))
"""
OWN_TABLES = "SELECT count(*) FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'p')"
QUOTED_WORDS = """
SELECT array(SELECT found[1] FROM regexp_matches(pg_get_constraintdef(oid), '''([a-z_]+)''', 'g') AS found)
FROM pg_constraint WHERE conname = :name
"""
NONSENSE = {
    "credentials_one_secret_check": "INSERT INTO credentials (name, username) VALUES ('a', 'u')",
    "credentials_name_key": "INSERT INTO credentials (name, username, password) VALUES ('a', '', 'x'), ('a', '', 'x')",
    "instances_db_type_check": "INSERT INTO instances (name, db_type) VALUES ('a', 'Oracle')",
    "instances_name_key": "INSERT INTO instances (name, db_type) VALUES ('a', 'mysql'), ('a', 'mariadb')",
    "instances_credential_id_fkey": "INSERT INTO instances (name, db_type, credential_id) VALUES ('a', 'mysql', 7)",
    "instance_databases_instance_id_fkey": """
        INSERT INTO instance_databases (instance_id, database_name, first_seen_date, last_seen_date)
        VALUES (7, 'd', '2026-05-20', '2026-05-20')
    """,
    "database_size_stats_size_bytes_check": """
        INSERT INTO database_size_stats (instance_id, database_name, collected_date, size_bytes, source, collected_at)
        VALUES (1, 'd', '2026-05-20', -1, 'measured', now())
    """,
    "database_size_stats_source_check": """
        INSERT INTO database_size_stats (instance_id, database_name, collected_date, size_bytes, source, collected_at)
        VALUES (1, 'd', '2026-05-20', 1, 'guessed', now())
    """,
    "aggregation_windows_level_check": """
        INSERT INTO aggregation_windows (level, period_type, period_start, calculated_at, source_rows,
                                         source_sum_bytes, result_rows, instances)
        VALUES ('table', 'daily', '2026-05-20', now(), 1, 1, 1, 1)
    """,
    "task_runs_status_check": """
        INSERT INTO task_runs (run_id, task_key, task_name, task_category, trigger_source, status)
        VALUES ('r', 'k', 'n', 'c', 'manual', 'done')
    """,
    "task_run_items_run_id_fkey": """
        INSERT INTO task_run_items (run_id, item_type, item_key, item_name, status)
        VALUES ('r', 't', 'k', 'n', 'pending')
    """,
}


@pytest.fixture
def empty(empty_database: str) -> Iterator[Engine]:
    engine = create_store_engine(SecretStr(empty_database))
    yield engine
    engine.dispose()


def test_an_empty_database_becomes_a_store_of_the_latest_revision(empty: Engine) -> None:
    assert migrate(empty) == (None, latest_revision())
    assert _revision(empty) == latest_revision()
    require_current(empty)


def test_a_store_of_the_latest_revision_is_left_as_it_is(store: Engine) -> None:
    assert migrate(store) == (latest_revision(), latest_revision())


def test_a_migrated_store_has_no_rows(store: Engine) -> None:
    assert [table for table in metadata.tables if rows(store, f"SELECT 1 FROM {table} LIMIT 1")] == []


@pytest.mark.parametrize(
    ("check", "statuses"),
    [
        ("task_runs_status_check", list(Status)),
        ("task_run_items_status_check", [status for status in Status if status is not Status.COMPLETED_WITH_ERRORS]),
    ],
)
def test_a_migrated_store_takes_the_statuses_that_the_program_knows(
    store: Engine, check: str, statuses: list[Status]
) -> None:
    with store.connect() as connection:
        assert connection.execute(text(QUOTED_WORDS), {"name": check}).scalar_one() == statuses


def test_a_store_may_be_brought_to_an_older_revision_and_on(empty: Engine) -> None:
    assert migrate(empty, "0009") == (None, "0009")
    assert migrate(empty) == ("0009", latest_revision())


def test_of_two_programs_that_start_together_one_migrates_and_the_other_finds_it_done(
    empty: Engine, empty_database: str
) -> None:
    with empty.begin() as holder:
        lock_migration(holder)
        programs = [
            subprocess.Popen([sys.executable, "-c", MIGRATE, empty_database], stdout=subprocess.PIPE, text=True)
            for _ in range(2)
        ]
        try:
            wait_for(lambda: rows(empty, WAITING_FOR_ADVISORY_LOCKS) == [(2,)], "two migrators at the lock")
            holder.commit()
            outcomes = sorted(program.communicate(timeout=60)[0].strip() for program in programs)
        finally:
            for program in programs:
                program.kill()
    latest = latest_revision()
    assert outcomes == [f"{latest} {latest}", f"None {latest}"]


def test_a_migration_that_fails_leaves_the_database_as_it_was(empty: Engine) -> None:
    with empty.begin() as connection:
        connection.execute(text("CREATE TABLE task_runs (somebody_elses integer)"))
    with pytest.raises(ProgrammingError, match='relation "task_runs" already exists'):
        migrate(empty)
    assert _revision(empty) is None
    assert rows(empty, OWN_TABLES) == [(1,)]


def test_a_server_that_is_too_old_is_refused_before_anything_is_made(
    empty: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The server at hand is PostgreSQL 18; to a program that needs 19 it is what 14 is to this one.
    monkeypatch.setattr(schema, "OLDEST_SERVER", 19)
    with pytest.raises(StoreError) as raised:
        migrate(empty)
    assert str(raised.value) == "the store runs on PostgreSQL 18; it needs 19 or newer"
    assert rows(empty, OWN_TABLES) == [(0,)]


def test_the_oldest_server_is_postgresql_15() -> None:
    assert schema.OLDEST_SERVER == 15


def test_a_store_of_a_newer_program_or_of_another_one_is_refused(store: Engine) -> None:
    with store.begin() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    for use in (migrate, require_current):
        with pytest.raises(StoreError) as raised:
            use(store)
        assert str(raised.value) == (
            "the store is at revision 9999, which this program does not know: another version of it made the store "
            "(install that one), or the database belongs to another program, such as Dagster"
        )
    assert _revision(store) == "9999"


def test_a_store_of_another_revision_is_not_worked_with(store: Engine) -> None:
    downgrade(store, "0009")
    with pytest.raises(StoreError) as raised:
        require_current(store)
    assert str(raised.value) == (
        f"the store is at revision 0009, this program needs {latest_revision()}: run `whalefall-capacity store migrate`"
    )


def test_an_empty_database_is_not_worked_with(empty: Engine) -> None:
    with pytest.raises(StoreError, match="the store is at revision none, this program needs"):
        require_current(empty)
    assert _revision(empty) is None


def test_rows_that_make_no_sense_are_refused_by_the_store(store: Engine) -> None:
    with store.begin() as connection:
        ensure_children(connection, [DATABASE_SIZE_STATS], [date(2026, 5, 20)])
    refused = {}
    for constraint, statement in NONSENSE.items():
        with pytest.raises(IntegrityError) as raised, store.begin() as connection:
            connection.execute(text(statement))
        assert isinstance(raised.value.orig, psycopg2.IntegrityError)
        refused[constraint] = raised.value.orig.diag.constraint_name
    assert refused == {constraint: constraint for constraint in NONSENSE}


def test_names_that_differ_in_case_are_different_and_sort_by_code_point(store: Engine) -> None:
    with store.begin() as connection:
        connection.execute(
            text("INSERT INTO instances (name, db_type) SELECT unnest(:names), 'mysql'"),
            {"names": ["b", "A", "a", "é", "日志", "_"]},
        )
    assert [name for (name,) in rows(store, "SELECT name FROM instances ORDER BY name")] == [
        "A",
        "_",
        "a",
        "b",
        "é",
        "日志",
    ]


def test_the_items_of_a_task_run_go_with_it(store: Engine) -> None:
    with store.begin() as connection:
        connection.execute(
            text(
                "INSERT INTO task_runs (run_id, task_key, task_name, task_category, trigger_source, "
                "status) VALUES ('r', 'k', 'n', 'c', 'manual', 'pending')"
            )
        )
        connection.execute(
            text(
                "INSERT INTO task_run_items (run_id, item_type, item_key, item_name, status) "
                "VALUES ('r', 't', 'k', 'n', 'pending')"
            )
        )
        connection.execute(text("DELETE FROM task_runs"))
    assert rows(store, "SELECT count(*) FROM task_run_items") == [(0,)]


def test_partitioned_tables_have_no_foreign_keys_and_no_default_partition(store: Engine) -> None:
    parents = "SELECT oid FROM pg_class WHERE relkind = 'p'"
    assert rows(store, f"SELECT count(*) > 0 FROM ({parents}) AS parents") == [(True,)]
    assert rows(store, f"SELECT conname FROM pg_constraint WHERE contype = 'f' AND conrelid IN ({parents})") == []
    assert rows(store, "SELECT partrelid FROM pg_partitioned_table WHERE partdefid <> 0") == []


def test_every_table_that_is_partitioned_by_range_is_one_whose_children_are_looked_after(store: Engine) -> None:
    found = rows(
        store,
        "SELECT partrelid::regclass::text, attname::text FROM pg_partitioned_table "
        "JOIN pg_attribute ON attrelid = partrelid AND attnum = partattrs[0] WHERE partstrat = 'r'",
    )
    assert sorted(found) == sorted((table.name, table.column) for table in PARTITIONED_TABLES)


def test_aggregations_are_divided_by_period_type_first(store: Engine) -> None:
    found = rows(
        store,
        "SELECT child.relname, pg_get_expr(child.relpartbound, child.oid) FROM pg_inherits "
        "JOIN pg_class AS child ON child.oid = inhrelid JOIN pg_partitioned_table AS parent ON partrelid = inhparent "
        "WHERE partstrat = 'l' ORDER BY 1",
    )
    assert found == [
        (f"{level}_size_aggregations_{period_type}", f"FOR VALUES IN ('{period_type}')")
        for level in ("database", "instance")
        for period_type in ("daily", "monthly", "quarterly", "weekly")
    ]


def _revision(engine: Engine) -> str | None:
    with engine.connect() as connection:
        return current_revision(connection)
