"""The store's tables as SQLAlchemy Core metadata; migrations create them, a test compares the two.

Sizes are bytes (BIGINT), sums of sizes NUMERIC. NULL means "not known". Names of databases and
instances sort by code point (COLLATE "C"): the same order on every machine, and no index that a new
version of the C library could silently break. Partitioned tables carry no foreign keys.
"""

from __future__ import annotations

from collections.abc import Iterable

from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    Date,
    DateTime,
    ForeignKey,
    Identity,
    Index,
    Integer,
    MetaData,
    Numeric,
    String,
    Table,
    Text,
    UniqueConstraint,
    Uuid,
    text,
)
from sqlalchemy.dialects.postgresql import JSON, JSONB

from whalefall_capacity.collection.sizes import ENGINE_NAME
from whalefall_capacity.insight.statuses import AnomalyKind, ForecastStatus
from whalefall_capacity.periods import PeriodType
from whalefall_capacity.store.postgres.statuses import ITEM_STATUSES, Status

LARGEST_ID = 2**31 - 1  # of an INTEGER, as the ids of instances are

metadata = MetaData(
    naming_convention={
        "pk": "%(table_name)s_pkey",
        "uq": "%(table_name)s_%(column_0_N_name)s_key",
        "ck": "%(table_name)s_%(constraint_name)s_check",
        "fk": "%(table_name)s_%(column_0_name)s_fkey",
    }
)


def _name(column: str, **options: object) -> Column[str]:
    return Column(column, Text(collation="C"), nullable=False, **options)  # type: ignore[arg-type]


def _timestamp(column: str, nullable: bool = True) -> Column[object]:
    return Column(column, DateTime(timezone=True), nullable=nullable)


def _row_times() -> tuple[Column[object], Column[object]]:
    return (
        Column("created_at", DateTime(timezone=True), nullable=False, server_default=text("now()")),
        Column("updated_at", DateTime(timezone=True), nullable=False, server_default=text("now()")),
    )


def _one_of(column: str, values: Iterable[str]) -> str:
    """Return the check that *column* holds one of *values*."""
    quoted = ", ".join(f"'{value}'" for value in values)
    return f"{column} IN ({quoted})"


def _measures(kind: str) -> tuple[Column[object], ...]:
    """Nullable count, sum, max, min and closing value of *kind* ('data' or 'log') over a window."""
    return (
        Column(f"{kind}_size_count", Integer),
        Column(f"sum_{kind}_size_bytes", Numeric),
        Column(f"max_{kind}_size_bytes", BigInteger),
        Column(f"min_{kind}_size_bytes", BigInteger),
        Column(f"closing_{kind}_size_bytes", BigInteger),
    )


_PERIOD_TYPES = _one_of("period_type", PeriodType)
_LEVELS = _one_of("level", ("database", "instance"))
_RUN_STATUSES = _one_of("status", Status)
_ROLES = "role IN ('view', 'operator', 'admin')"
_ITEM_STATUSES = _one_of("status", ITEM_STATUSES)

credentials = Table(
    "credentials",
    metadata,
    Column("id", Integer, Identity(), primary_key=True),
    _name("name", unique=True),
    Column("username", Text, nullable=False),
    Column("password", Text, comment="Fernet ciphertext"),
    Column("secret_reference", Text, comment="env:VARIABLE or file:/path"),
    Column("description", Text),
    *_row_times(),
    CheckConstraint("num_nonnulls(password, secret_reference) = 1", name="one_secret"),
)

instances = Table(
    "instances",
    metadata,
    Column("id", Integer, Identity(), primary_key=True),
    _name("name", unique=True),
    Column("db_type", Text, nullable=False),
    Column("host", Text),
    Column("port", Integer),
    Column("database_name", Text, comment="what to connect to first"),
    Column("credential_id", Integer, ForeignKey("credentials.id")),
    Column("tls", JSONB),
    Column("version", Text, comment="as the server reported at the last visit"),
    Column("description", Text),
    Column("is_active", Boolean, nullable=False, server_default=text("true")),
    _timestamp("deleted_at"),
    _timestamp("last_connected_at"),
    Column("capacity_limit_bytes", BigInteger, comment="size of the disk it lives on"),
    Column("replica_of_id", Integer, ForeignKey("instances.id"), comment="the primary, where its data counts"),
    *_row_times(),
    CheckConstraint(f"db_type ~ '{ENGINE_NAME}'", name="db_type"),
)

instance_databases = Table(
    "instance_databases",
    metadata,
    Column("instance_id", Integer, ForeignKey("instances.id"), primary_key=True),
    _name("database_name", primary_key=True),
    Column("is_active", Boolean, nullable=False, server_default=text("true")),
    Column("first_seen_date", Date, nullable=False),
    Column("last_seen_date", Date, nullable=False),
    _timestamp("deleted_at"),
    *_row_times(),
    postgresql_with={"fillfactor": 80},
)

database_size_stats = Table(
    "database_size_stats",
    metadata,
    Column("instance_id", Integer, primary_key=True, autoincrement=False),
    _name("database_name", primary_key=True),
    Column("collected_date", Date, primary_key=True),
    Column("size_bytes", BigInteger, nullable=False),
    Column("data_size_bytes", BigInteger),
    Column("log_size_bytes", BigInteger),
    Column("source", Text, nullable=False),
    _timestamp("collected_at", nullable=False),
    *_row_times(),
    CheckConstraint("source IN ('measured', 'imported')", name="source"),
    CheckConstraint("size_bytes >= 0", name="size_bytes"),
    Index("database_size_stats_collected_date_idx", "collected_date", postgresql_using="brin"),
    postgresql_partition_by="RANGE (collected_date)",
)

instance_size_stats = Table(
    "instance_size_stats",
    metadata,
    Column("instance_id", Integer, primary_key=True, autoincrement=False),
    Column("collected_date", Date, primary_key=True),
    Column("total_size_bytes", BigInteger, nullable=False, comment="sum of its databases"),
    Column("database_count", Integer, nullable=False),
    Column("missing_count", Integer, nullable=False, comment="listed but not measured"),
    Column("log_size_bytes", BigInteger, comment="WAL or binary logs"),
    Column("source", Text, nullable=False),
    _timestamp("collected_at", nullable=False),
    *_row_times(),
    CheckConstraint("source IN ('measured', 'imported')", name="source"),
    Index("instance_size_stats_collected_date_idx", "collected_date", postgresql_using="brin"),
    postgresql_partition_by="RANGE (collected_date)",
)

database_size_aggregations = Table(
    "database_size_aggregations",
    metadata,
    Column("instance_id", Integer, primary_key=True, autoincrement=False),
    _name("database_name", primary_key=True),
    Column("period_type", Text, primary_key=True),
    Column("period_start", Date, primary_key=True),
    Column("period_end", Date, nullable=False, comment="last day of the window"),
    Column("data_count", Integer, nullable=False, comment="days with data"),
    Column("sum_size_bytes", Numeric, nullable=False),
    Column("max_size_bytes", BigInteger, nullable=False),
    Column("min_size_bytes", BigInteger, nullable=False),
    Column("closing_size_bytes", BigInteger, nullable=False, comment="last day with data"),
    *_measures("data"),
    *_measures("log"),
    _timestamp("calculated_at", nullable=False),
    *_row_times(),
    Index("database_size_aggregations_period_start_idx", "period_start", postgresql_using="brin"),
    postgresql_partition_by="LIST (period_type)",
)

instance_size_aggregations = Table(
    "instance_size_aggregations",
    metadata,
    Column("instance_id", Integer, primary_key=True, autoincrement=False),
    Column("period_type", Text, primary_key=True),
    Column("period_start", Date, primary_key=True),
    Column("period_end", Date, nullable=False, comment="last day of the window"),
    Column("data_count", Integer, nullable=False, comment="days with data"),
    Column("partial_days", Integer, nullable=False, comment="days with missing databases"),
    Column("sum_size_bytes", Numeric, nullable=False, comment="of the daily totals"),
    Column("max_size_bytes", BigInteger, nullable=False),
    Column("min_size_bytes", BigInteger, nullable=False),
    Column("closing_size_bytes", BigInteger, nullable=False, comment="last day with data"),
    Column("sum_database_count", BigInteger, nullable=False),
    Column("max_database_count", Integer, nullable=False),
    Column("min_database_count", Integer, nullable=False),
    *_measures("log"),
    _timestamp("calculated_at", nullable=False),
    *_row_times(),
    Index("instance_size_aggregations_period_start_idx", "period_start", postgresql_using="brin"),
    postgresql_partition_by="LIST (period_type)",
)

aggregation_windows = Table(
    "aggregation_windows",
    metadata,
    Column("level", Text, primary_key=True),
    Column("period_type", Text, primary_key=True),
    Column("period_start", Date, primary_key=True),
    _timestamp("calculated_at", nullable=False),
    Column("source_rows", BigInteger, nullable=False),
    Column("source_sum_bytes", Numeric, nullable=False),
    _timestamp("source_max_updated_at"),
    Column("result_rows", BigInteger, nullable=False),
    Column("instances", Integer, nullable=False),
    _timestamp("sealed_at"),
    *_row_times(),
    CheckConstraint(_LEVELS, name="level"),
    CheckConstraint(_PERIOD_TYPES, name="period_type"),
)

capacity_forecasts = Table(
    "capacity_forecasts",
    metadata,
    Column("instance_id", Integer, primary_key=True, autoincrement=False),
    Column("forecast_date", Date, primary_key=True, comment="the last day that it knows of"),
    Column("status", Text, nullable=False),
    Column("used_bytes", BigInteger, comment="last sizes of its databases and its logs; NULL: never measured"),
    Column("limit_bytes", BigInteger, comment="of the fleet file when it was calculated"),
    Column("rate_bytes_per_day", BigInteger, nullable=False),
    Column("spread_bytes", BigInteger, nullable=False, comment="of 28 days"),
    Column("swing_bytes", BigInteger, nullable=False),
    Column("range_low", Numeric, nullable=False, comment="spreads that the range reaches below the rate"),
    Column("range_high", Numeric, nullable=False, comment="spreads that the range reaches above the rate"),
    Column("expected_date", Date),
    Column("earliest_date", Date, comment="NULL: open"),
    Column("latest_date", Date, comment="NULL: open"),
    Column("last_measured_date", Date),
    Column("measured_days", Integer, nullable=False),
    Column("databases", Integer, nullable=False),
    Column("reason", JSONB, nullable=False, comment="largest growers, one-offs left out, what has no pace"),
    _timestamp("calculated_at", nullable=False),
    *_row_times(),
    CheckConstraint(_one_of("status", ForecastStatus), name="status"),
    Index("capacity_forecasts_forecast_date_idx", "forecast_date", postgresql_using="brin"),
    postgresql_partition_by="RANGE (forecast_date)",
)

database_forecasts = Table(
    "database_forecasts",
    metadata,
    Column("instance_id", Integer, primary_key=True, autoincrement=False),
    _name("database_name", primary_key=True),
    Column("forecast_date", Date, nullable=False, comment="the newest alone is kept"),
    Column("size_bytes", BigInteger, nullable=False, comment="when last measured"),
    Column("last_measured_date", Date, nullable=False),
    Column("measured_days", Integer, nullable=False),
    Column("rate_bytes_per_day", BigInteger, comment="NULL: too few measured days"),
    Column("spread_bytes", BigInteger, comment="of 28 days"),
    Column("swing_bytes", BigInteger),
    Column("one_offs", Integer, nullable=False, comment="jumps that the rate leaves out"),
    Column("one_off_bytes", BigInteger, nullable=False, comment="their sum"),
    _timestamp("calculated_at", nullable=False),
    *_row_times(),
    postgresql_with={"fillfactor": 80},
)

forecast_accuracy = Table(
    "forecast_accuracy",
    metadata,
    Column("forecast_date", Date, primary_key=True, comment="the day on which the forecasts are looked back at"),
    Column("level", Text, primary_key=True),
    Column("horizon_days", Integer, primary_key=True, autoincrement=False, comment="how long ago they were made"),
    Column("forecasts", Integer, nullable=False),
    *(
        Column(f"{method}{figure}_error_percent", Numeric, comment="of the size then")
        for method in ("", "no_growth_", "least_squares_")
        for figure in ("mean", "median", "p90")
    ),
    Column("coverage_percent", Numeric, comment="forecasts that ended in their range"),
    Column("range_low", Numeric, nullable=False, comment="spreads that a range of this day reaches below the rate"),
    Column("range_high", Numeric, nullable=False, comment="spreads that a range of this day reaches above the rate"),
    Column("one_off_bytes", Numeric, nullable=False, comment="one-offs that came since, in no error"),
    Column("new_database_bytes", Numeric, nullable=False, comment="databases without a pace then, in no error"),
    _timestamp("calculated_at", nullable=False),
    *_row_times(),
    CheckConstraint(_LEVELS, name="level"),
)

size_anomalies = Table(
    "size_anomalies",
    metadata,
    Column("instance_id", Integer, primary_key=True, autoincrement=False),
    _name("database_name", primary_key=True),
    Column("day", Date, primary_key=True),
    Column("kind", Text, nullable=False),
    Column("change_bytes", BigInteger, nullable=False, comment="beyond the usual; of a stall, all of it"),
    Column("usual_bytes", BigInteger, nullable=False),
    Column("threshold_bytes", BigInteger, nullable=False),
    _timestamp("calculated_at", nullable=False),
    *_row_times(),
    CheckConstraint(_one_of("kind", AnomalyKind), name="kind"),
    Index("size_anomalies_day_idx", "day", postgresql_using="brin"),
    postgresql_partition_by="RANGE (day)",
)

task_runs = Table(
    "task_runs",
    metadata,
    Column("id", BigInteger, Identity(), primary_key=True),
    Column("run_id", String(36), nullable=False, unique=True, comment="the Dagster run id"),
    Column("task_key", Text, nullable=False),
    Column("task_name", Text, nullable=False),
    Column("task_category", Text, nullable=False),
    Column("trigger_source", Text, nullable=False),
    Column("status", Text, nullable=False),
    _timestamp("started_at"),
    _timestamp("completed_at"),
    Column("created_by", Text),
    Column("progress_total", Integer, nullable=False, server_default=text("0")),
    Column("progress_completed", Integer, nullable=False, server_default=text("0")),
    Column("progress_failed", Integer, nullable=False, server_default=text("0")),
    Column("summary_json", JSONB),
    Column("result_url", Text),
    Column("error_message", Text),
    Column("closed_at", DateTime(timezone=True), comment="when items, counters and summary became final"),
    *_row_times(),
    CheckConstraint(_RUN_STATUSES, name="status"),
    CheckConstraint("trigger_source IN ('scheduled', 'manual', 'api')", name="trigger_source"),
    Index("task_runs_created_at_idx", "created_at"),
    Index("task_runs_not_closed_idx", "run_id", postgresql_where=text("closed_at IS NULL")),
    Index(
        "task_runs_closed_at_idx",
        "closed_at",
        postgresql_where=text("status IN ('failed', 'completed_with_errors')"),
    ),
)

task_run_items = Table(
    "task_run_items",
    metadata,
    Column("id", BigInteger, Identity(), primary_key=True),
    Column("run_id", String(36), ForeignKey("task_runs.run_id", ondelete="CASCADE"), nullable=False),
    Column("item_type", String(20), nullable=False),
    Column("item_key", String(128), nullable=False),
    Column("item_name", Text, nullable=False),
    Column("instance_id", Integer),
    Column("status", Text, nullable=False),
    _timestamp("started_at"),
    _timestamp("completed_at"),
    Column("metrics_json", JSONB),
    Column("details_json", JSONB),
    Column("error_message", Text),
    *_row_times(),
    CheckConstraint(_ITEM_STATUSES, name="status"),
    Index("task_run_items_run_id_item_type_item_key_key", "run_id", "item_type", "item_key", unique=True),
)

collection_shards = Table(
    "collection_shards",
    metadata,
    Column("root_run_id", String(36), primary_key=True, comment="the first of the runs that execute one another again"),
    Column("first_instance_id", Integer, primary_key=True, autoincrement=False),
    Column("last_instance_id", Integer, nullable=False),
    Column("collected_date", Date, nullable=False),
    Column("planned_by", String(36), nullable=False, comment="the run that divided the fleet"),
    Column("visited_by", String(36), comment="the run whose visits these are; NULL as long as there are none"),
    Column("outcome_json", JSON),
    *_row_times(),
    CheckConstraint("(visited_by IS NULL) = (outcome_json IS NULL)", name="outcome"),
)

console_users = Table(
    "console_users",
    metadata,
    _name("name", primary_key=True),
    Column("role", Text, nullable=False),
    Column("password_hash", Text, nullable=False, comment="argon2id"),
    Column(
        "session_key",
        Uuid,
        nullable=False,
        server_default=text("gen_random_uuid()"),
        comment="sessions opened with another one have ended",
    ),
    *_row_times(),
    CheckConstraint(_ROLES, name="role"),
)

console_sessions = Table(
    "console_sessions",
    metadata,
    Column(
        "cookie_hash",
        Text,
        primary_key=True,
        comment="SHA-256 in hexadecimal; the cookie itself is random and kept nowhere",
    ),
    Column("user_name", Text(collation="C"), ForeignKey("console_users.name", ondelete="CASCADE"), nullable=False),
    Column("session_key", Uuid, nullable=False, comment="that of the user when the session was opened"),
    *_row_times(),
)

console_tokens = Table(
    "console_tokens",
    metadata,
    _name("name", primary_key=True),
    Column("role", Text, nullable=False),
    Column(
        "token_hash",
        Text,
        nullable=False,
        unique=True,
        comment="SHA-256 in hexadecimal; the token itself is random and kept nowhere",
    ),
    _timestamp("revoked_at"),
    *_row_times(),
    CheckConstraint(_ROLES, name="role"),
)

retired_children = Table(
    "retired_children",
    metadata,
    Column("id", BigInteger, Identity(), primary_key=True),
    Column("table_name", Text, nullable=False),
    Column("child_name", Text, nullable=False),
    Column("child_oid", BigInteger, comment="which table it was: a name alone could be that of another"),
    Column("lower_bound", Date, nullable=False),
    Column("upper_bound", Date, nullable=False),
    Column("retired_on", Date, nullable=False, comment="the day of the maintenance"),
    Column("rows", BigInteger),
    Column("bytes", BigInteger),
    Column("archive", Text, comment="path of the manifest"),
    Column("dropped_at", DateTime(timezone=True), comment="NULL as long as it is on its way out"),
    _timestamp("restored_at"),
    Column("kept_until", Date, comment="a restored child is past again from this day on"),
    *_row_times(),
    CheckConstraint("lower_bound < upper_bound", name="span"),
    Index("retired_children_table_name_lower_bound_idx", "table_name", "lower_bound"),
)

alerts = Table(
    "alerts",
    metadata,
    Column("id", BigInteger, Identity(), primary_key=True),
    Column("cause", Text, nullable=False),
    Column("day", Date, nullable=False, comment="of the cause: one alert a cause and day"),
    Column("channel", Text, nullable=False),
    Column(
        "state",
        Text,
        nullable=False,
        server_default=text("'waiting'"),
        comment="unknown: what sent it ended before it could say whether it was taken",
    ),
    Column("message_json", JSONB, nullable=False),
    Column("attempts", Integer, nullable=False, server_default=text("0")),
    Column("next_attempt_at", DateTime(timezone=True), nullable=False, server_default=text("now()")),
    Column("error_message", Text),
    *_row_times(),
    UniqueConstraint("cause", "day", "channel"),
    CheckConstraint("state IN ('waiting', 'sending', 'sent', 'unknown')", name="state"),
)
