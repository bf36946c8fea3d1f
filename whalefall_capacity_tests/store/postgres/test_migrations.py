"""Migrations make the schema that the metadata describes, on PostgreSQL 18 and 16, and keep what is stored.

Up on an empty store and on a filled one; down one step, which loses what the step had brought and nothing
else; and up again.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import date
from typing import Any

import psycopg2
import pytest
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from psycopg2 import sql
from sqlalchemy import Engine, text
from sqlalchemy.exc import IntegrityError

from whalefall_capacity.settings import build_settings
from whalefall_capacity.store.postgres.embedded import EmbeddedPostgres
from whalefall_capacity.store.postgres.engine import create_store_engine
from whalefall_capacity.store.postgres.schema import MIGRATIONS, migrate
from whalefall_capacity.store.postgres.tables import metadata
from whalefall_capacity.store.table_partitions.create import create_ahead
from whalefall_capacity_tests.store.postgres.downgrade import downgrade
from whalefall_capacity_tests.store.records import rows

_numbers = itertools.count(1)
REVISIONS = [script.revision for script in ScriptDirectory(str(MIGRATIONS)).walk_revisions()][::-1]
# What a store may hold once it is at a revision: one row at least in every table that the revision brought.
CONTENT = {
    "0009": """
        INSERT INTO credentials (name, username, secret_reference) VALUES ('shop', 'whalefall', 'env:SHOP_PASSWORD');
        INSERT INTO instances (name, db_type, host, port, credential_id, tls, capacity_limit_bytes)
        SELECT 'shop', 'postgresql', 'shop.example', 5432, id, '{"mode": "require"}', 1099511627776 FROM credentials;
        INSERT INTO instance_databases (instance_id, database_name, first_seen_date, last_seen_date)
        SELECT id, 'orders', '2026-05-01', '2026-05-20' FROM instances;
        CREATE TABLE database_size_stats_2026_05 PARTITION OF database_size_stats
            FOR VALUES FROM ('2026-05-01') TO ('2026-06-01');
        CREATE TABLE instance_size_stats_2026_05 PARTITION OF instance_size_stats
            FOR VALUES FROM ('2026-05-01') TO ('2026-06-01');
        INSERT INTO database_size_stats (instance_id, database_name, collected_date, size_bytes, source, collected_at)
        SELECT id, 'orders', '2026-05-20', 7654321, 'measured', '2026-05-20 03:00+08' FROM instances;
        INSERT INTO instance_size_stats (instance_id, collected_date, total_size_bytes, database_count, missing_count,
                                         source, collected_at)
        SELECT id, '2026-05-20', 7654321, 1, 0, 'measured', '2026-05-20 03:00+08' FROM instances;
        CREATE TABLE database_size_aggregations_daily_2026_05 PARTITION OF database_size_aggregations_daily
            FOR VALUES FROM ('2026-05-01') TO ('2026-06-01');
        CREATE TABLE instance_size_aggregations_quarterly_2026 PARTITION OF instance_size_aggregations_quarterly
            FOR VALUES FROM ('2026-01-01') TO ('2027-01-01');
        INSERT INTO database_size_aggregations (instance_id, database_name, period_type, period_start, period_end,
            data_count, sum_size_bytes, max_size_bytes, min_size_bytes, closing_size_bytes, calculated_at)
        SELECT id, 'orders', 'daily', '2026-05-20', '2026-05-20', 1, 7654321, 7654321, 7654321, 7654321, now()
        FROM instances;
        INSERT INTO instance_size_aggregations (instance_id, period_type, period_start, period_end, data_count,
            partial_days, sum_size_bytes, max_size_bytes, min_size_bytes, closing_size_bytes, sum_database_count,
            max_database_count, min_database_count, calculated_at)
        SELECT id, 'quarterly', '2026-04-01', '2026-06-30', 1, 0, 7654321, 7654321, 7654321, 7654321, 1, 1, 1, now()
        FROM instances;
        INSERT INTO aggregation_windows (level, period_type, period_start, calculated_at, source_rows,
            source_sum_bytes, result_rows, instances)
        VALUES ('database', 'daily', '2026-05-20', now(), 1, 7654321, 1, 1);
        INSERT INTO task_runs (run_id, task_key, task_name, task_category, trigger_source, status, summary_json)
        VALUES ('r', 'sync_databases', 'Sync databases', 'capacity', 'scheduled', 'completed', '{"version": 1}');
        INSERT INTO task_run_items (run_id, item_type, item_key, item_name, status, metrics_json)
        VALUES ('r', 'collection', '1', 'shop', 'completed', '{"databases": 1}');
        UPDATE task_runs SET closed_at = now();
        INSERT INTO retired_children (table_name, child_name, child_oid, lower_bound, upper_bound, retired_on, rows,
                                      bytes, dropped_at)
        VALUES ('database_size_stats', 'database_size_stats_2025_04', 16999, '2025-04-01', '2025-05-01', '2026-06-01',
                30, 8192, now());
        INSERT INTO alerts (cause, day, channel, message_json) VALUES ('run failed', '2026-06-01', 'webhook', '{}');
        INSERT INTO console_users (name, role, password_hash) VALUES ('admin', 'admin', '$argon2id$');
        INSERT INTO console_tokens (name, role, token_hash) VALUES ('script', 'view', 'ab12');
    """,
    "0010": """
        INSERT INTO console_sessions (cookie_hash, user_name, session_key)
        SELECT 'ab12', name, session_key FROM console_users
    """,
    "0011": "INSERT INTO alerts (cause, day, channel, message_json) VALUES ('run failed', '2026-06-01', 'slack', '{}')",
    "0012": """
        INSERT INTO console_users (name, role, password_hash) VALUES ('ops', 'operator', 'x');
        INSERT INTO console_tokens (name, role, token_hash) VALUES ('ops', 'operator', 'y');
    """,
    "0013": """
        CREATE TABLE capacity_forecasts_2026_05 PARTITION OF capacity_forecasts
            FOR VALUES FROM ('2026-05-01') TO ('2026-06-01');
        CREATE TABLE size_anomalies_2026_05 PARTITION OF size_anomalies
            FOR VALUES FROM ('2026-05-01') TO ('2026-06-01');
        INSERT INTO capacity_forecasts (instance_id, forecast_date, status, used_bytes, rate_bytes_per_day,
            spread_bytes, swing_bytes, range_low, range_high, measured_days, databases, reason, calculated_at)
        SELECT id, '2026-05-20', 'no_limit', 7654321, 1, 1, 0, 1.2, 1.35, 1, 1, '{}', now() FROM instances;
        INSERT INTO database_forecasts (instance_id, database_name, forecast_date, size_bytes, last_measured_date,
            measured_days, one_offs, one_off_bytes, calculated_at)
        SELECT id, 'orders', '2026-05-20', 7654321, '2026-05-20', 1, 0, 0, now() FROM instances;
        INSERT INTO forecast_accuracy (forecast_date, level, horizon_days, forecasts, range_low, range_high,
            one_off_bytes, new_database_bytes, calculated_at)
        VALUES ('2026-05-20', 'instance', 90, 0, 1.2, 1.35, 0, 0, now());
        INSERT INTO size_anomalies (instance_id, database_name, day, kind, change_bytes, usual_bytes, threshold_bytes,
            calculated_at)
        SELECT id, 'orders', '2026-05-20', 'jump', 3, 1, 2, now() FROM instances;
    """,
    "0014": "UPDATE instances SET replica_of_id = id",
    "0015": """
        INSERT INTO collection_shards (root_run_id, first_instance_id, last_instance_id, collected_date, planned_by,
                                       visited_by, outcome_json)
        VALUES ('r', 1, 500, '2026-05-20', 'r', 'r', '{"measured": 500}');
    """,
    # It brings no row; below is what becomes of one that only it allows.
    "0016": "SELECT",
}
# Tables of ours: without the children of the partitioned ones and without Alembic's own.
TABLES = """
SELECT * FROM pg_class
WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'p') AND NOT relispartition
  AND relname <> 'alembic_version'
"""
CATALOG = {
    "tables": """
        SELECT relname, relkind, reloptions, pg_get_partkeydef(oid), obj_description(oid, 'pg_class') FROM tables
    """,
    "columns": """
        SELECT relname, attname, format_type(atttypid, atttypmod), collname, attnotnull,
               pg_get_expr(adbin, adrelid), attidentity, attgenerated, attstorage, col_description(tables.oid, attnum)
        FROM tables
        JOIN pg_attribute ON attrelid = tables.oid AND attnum > 0 AND NOT attisdropped
        LEFT JOIN pg_attrdef ON adrelid = attrelid AND adnum = attnum
        LEFT JOIN pg_collation ON pg_collation.oid = attcollation
    """,
    "constraints": """
        SELECT relname, conname, contype, pg_get_constraintdef(pg_constraint.oid), convalidated
        FROM tables JOIN pg_constraint ON conrelid = tables.oid
    """,
    "indexes": """
        SELECT relname, pg_get_indexdef(indexrelid), indisunique, indisvalid
        FROM tables JOIN pg_index ON indrelid = tables.oid
    """,
}


@pytest.fixture(params=["store_server", "postgresql"], ids=["PostgreSQL 18", "PostgreSQL 16"])
def server(request: pytest.FixtureRequest) -> EmbeddedPostgres:
    running = request.getfixturevalue(request.param)
    return running if isinstance(running, EmbeddedPostgres) else running.embedded


@pytest.fixture
def empty(server: EmbeddedPostgres) -> Iterator[Engine]:
    with _empty_database(server) as engine:
        yield engine


def test_the_server_is_what_its_name_says(empty: Engine, request: pytest.FixtureRequest) -> None:
    (version,) = rows(empty, "SELECT current_setting('server_version_num')::int / 10000")[0]
    assert f"PostgreSQL {version}" in request.node.name


def test_alembic_sees_no_difference_between_the_migrated_schema_and_the_metadata(empty: Engine) -> None:
    migrate(empty)
    children = {name for (name,) in rows(empty, "SELECT relname FROM pg_class WHERE relispartition")}
    options = {
        "compare_type": True,
        "compare_server_default": True,
        "include_name": lambda name, kind, _parents: kind != "table" or name not in children,
    }
    with empty.connect() as connection:
        differences = compare_metadata(MigrationContext.configure(connection, opts=options), metadata)
    assert differences == []


def test_a_migrated_database_and_one_made_from_the_metadata_have_the_same_catalog(
    empty: Engine, server: EmbeddedPostgres
) -> None:
    migrate(empty)
    with _empty_database(server) as created:
        metadata.create_all(created)
        expected = _catalog(created)
    assert {name for name, *_ in expected["columns"]} == set(metadata.tables)
    assert {name for name, *_ in expected["constraints"]} == set(metadata.tables)
    assert _catalog(empty) == expected


def test_a_store_that_is_filled_at_every_revision_keeps_its_rows_on_the_way_up(empty: Engine) -> None:
    for revision in REVISIONS:
        before = _contents(empty)
        migrate(empty, revision)
        after = _contents(empty)
        assert [table for table in before if not _still_there(before[table], after[table])] == []
        _fill(empty, revision)


def test_a_step_down_takes_what_the_step_had_brought_and_nothing_else(empty: Engine) -> None:
    contents = {"base": _contents(empty)}
    for revision in REVISIONS:
        migrate(empty, revision)
        _fill(empty, revision)
        contents[revision] = _contents(empty)
    assert [table for table in metadata.tables if not contents[REVISIONS[-1]][table]] == []
    for older in [*REVISIONS[-2::-1], "base"]:
        downgrade(empty, older)
        assert _contents(empty) == contents[older]


def test_a_server_of_an_engine_that_an_older_version_does_not_know_is_kept_there_and_not_visited(empty: Engine) -> None:
    for revision in REVISIONS[: REVISIONS.index("0016") + 1]:
        migrate(empty, revision)
    _execute(empty, "INSERT INTO instances (name, db_type) VALUES ('birds', 'firebird'), ('shop', 'postgresql')")
    downgrade(empty, "0015")
    assert rows(empty, "SELECT name, db_type, is_active FROM instances ORDER BY name") == [
        ("birds", "unknown", False),
        ("shop", "postgresql", True),
    ]


@pytest.mark.parametrize("db_type", ["", "Firebird", "fire bird", "9i", "f" * 33, "firebird\n"])
def test_an_engine_that_is_no_word_is_refused_by_the_store(store: Engine, db_type: str) -> None:
    with pytest.raises(IntegrityError, match="instances_db_type_check"), store.begin() as connection:
        connection.execute(
            text("INSERT INTO instances (name, db_type) VALUES ('birds', :db_type)"), {"db_type": db_type}
        )


def test_the_schema_of_a_revision_is_the_same_on_the_way_up_down_and_up_again(empty: Engine) -> None:
    catalogs = {"base": _catalog(empty)}
    for revision in REVISIONS:
        migrate(empty, revision)
        catalogs[revision] = _catalog(empty)
    for older in [*REVISIONS[-2::-1], "base"]:
        downgrade(empty, older)
        assert _catalog(empty) == catalogs[older]
    for revision in REVISIONS:
        migrate(empty, revision)
        assert _catalog(empty) == catalogs[revision]


def test_children_of_every_table_are_made_on_either_server(empty: Engine) -> None:
    migrate(empty)
    assert len(create_ahead(empty, build_settings(), date(2026, 5, 20))) == 8 * 5 + 4
    assert create_ahead(empty, build_settings(), date(2026, 5, 20)) == []


def _fill(engine: Engine, revision: str) -> None:
    _execute(engine, CONTENT[revision])


def _execute(engine: Engine, statement: str) -> None:
    with engine.begin() as connection:
        connection.execute(text(statement))


def _contents(engine: Engine) -> dict[str, list[dict[str, Any]]]:
    """Return all rows of every table."""
    tables = [name for (name,) in rows(engine, f"SELECT relname FROM ({TABLES}) AS tables")]
    return {
        table: [row for (row,) in rows(engine, f"SELECT to_jsonb(t) FROM {table} AS t ORDER BY CAST(t AS text)")]
        for table in tables
    }


def _still_there(before: list[dict[str, Any]], after: list[dict[str, Any]]) -> bool:
    """Are the rows the same, apart from columns that came?"""
    return before == [{column: new[column] for column in old} for old, new in zip(before, after, strict=True)]


def _catalog(engine: Engine) -> dict[str, list[tuple[Any, ...]]]:
    """Return what the catalog says of every table."""
    return {
        kind: sorted(rows(engine, f"WITH tables AS ({TABLES}) {statement}"), key=repr)
        for kind, statement in CATALOG.items()
    }


@contextmanager
def _empty_database(server: EmbeddedPostgres) -> Iterator[Engine]:
    name = f"migrations_{next(_numbers)}"
    server.create_databases(name)
    engine = create_store_engine(server.url(name))
    try:
        yield engine
    finally:
        engine.dispose()
        connection = psycopg2.connect(host=str(server.socket_dir), user="postgres", dbname="postgres")
        connection.autocommit = True
        with closing(connection), connection.cursor() as cursor:
            cursor.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))
