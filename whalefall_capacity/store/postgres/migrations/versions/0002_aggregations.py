"""Sizes rolled up per period: LIST by period type, below it RANGE by the start of the period."""

from __future__ import annotations

from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

UPGRADE = """
CREATE TABLE database_size_aggregations (
    instance_id INTEGER NOT NULL,
    database_name TEXT COLLATE "C" NOT NULL,
    period_type TEXT NOT NULL,
    period_start DATE NOT NULL,
    period_end DATE NOT NULL,
    data_count INTEGER NOT NULL,
    sum_size_bytes NUMERIC NOT NULL,
    max_size_bytes BIGINT NOT NULL,
    min_size_bytes BIGINT NOT NULL,
    closing_size_bytes BIGINT NOT NULL,
    data_size_count INTEGER,
    sum_data_size_bytes NUMERIC,
    max_data_size_bytes BIGINT,
    min_data_size_bytes BIGINT,
    closing_data_size_bytes BIGINT,
    log_size_count INTEGER,
    sum_log_size_bytes NUMERIC,
    max_log_size_bytes BIGINT,
    min_log_size_bytes BIGINT,
    closing_log_size_bytes BIGINT,
    calculated_at timestamptz NOT NULL,
    created_at timestamptz DEFAULT now() NOT NULL,
    updated_at timestamptz DEFAULT now() NOT NULL,
    CONSTRAINT database_size_aggregations_pkey PRIMARY KEY (instance_id, database_name, period_type, period_start)
) PARTITION BY LIST (period_type);
CREATE INDEX database_size_aggregations_period_start_idx ON database_size_aggregations USING brin (period_start);
COMMENT ON COLUMN database_size_aggregations.period_end IS 'last day of the window';
COMMENT ON COLUMN database_size_aggregations.data_count IS 'days with data';
COMMENT ON COLUMN database_size_aggregations.closing_size_bytes IS 'last day with data';

CREATE TABLE instance_size_aggregations (
    instance_id INTEGER NOT NULL,
    period_type TEXT NOT NULL,
    period_start DATE NOT NULL,
    period_end DATE NOT NULL,
    data_count INTEGER NOT NULL,
    partial_days INTEGER NOT NULL,
    sum_size_bytes NUMERIC NOT NULL,
    max_size_bytes BIGINT NOT NULL,
    min_size_bytes BIGINT NOT NULL,
    closing_size_bytes BIGINT NOT NULL,
    sum_database_count BIGINT NOT NULL,
    max_database_count INTEGER NOT NULL,
    min_database_count INTEGER NOT NULL,
    log_size_count INTEGER,
    sum_log_size_bytes NUMERIC,
    max_log_size_bytes BIGINT,
    min_log_size_bytes BIGINT,
    closing_log_size_bytes BIGINT,
    calculated_at timestamptz NOT NULL,
    created_at timestamptz DEFAULT now() NOT NULL,
    updated_at timestamptz DEFAULT now() NOT NULL,
    CONSTRAINT instance_size_aggregations_pkey PRIMARY KEY (instance_id, period_type, period_start)
) PARTITION BY LIST (period_type);
CREATE INDEX instance_size_aggregations_period_start_idx ON instance_size_aggregations USING brin (period_start);
COMMENT ON COLUMN instance_size_aggregations.period_end IS 'last day of the window';
COMMENT ON COLUMN instance_size_aggregations.data_count IS 'days with data';
COMMENT ON COLUMN instance_size_aggregations.partial_days IS 'days with missing databases';
COMMENT ON COLUMN instance_size_aggregations.sum_size_bytes IS 'of the daily totals';
COMMENT ON COLUMN instance_size_aggregations.closing_size_bytes IS 'last day with data';

CREATE TABLE aggregation_windows (
    level TEXT NOT NULL,
    period_type TEXT NOT NULL,
    period_start DATE NOT NULL,
    calculated_at timestamptz NOT NULL,
    source_rows BIGINT NOT NULL,
    source_sum_bytes NUMERIC NOT NULL,
    source_max_updated_at timestamptz,
    result_rows BIGINT NOT NULL,
    instances INTEGER NOT NULL,
    sealed_at timestamptz,
    created_at timestamptz DEFAULT now() NOT NULL,
    updated_at timestamptz DEFAULT now() NOT NULL,
    CONSTRAINT aggregation_windows_pkey PRIMARY KEY (level, period_type, period_start),
    CONSTRAINT aggregation_windows_level_check CHECK (level IN ('database', 'instance')),
    CONSTRAINT aggregation_windows_period_type_check CHECK (period_type IN ('daily', 'weekly', 'monthly', 'quarterly'))
);

CREATE TABLE database_size_aggregations_daily PARTITION OF database_size_aggregations
    FOR VALUES IN ('daily') PARTITION BY RANGE (period_start);
CREATE TABLE database_size_aggregations_weekly PARTITION OF database_size_aggregations
    FOR VALUES IN ('weekly') PARTITION BY RANGE (period_start);
CREATE TABLE database_size_aggregations_monthly PARTITION OF database_size_aggregations
    FOR VALUES IN ('monthly') PARTITION BY RANGE (period_start);
CREATE TABLE database_size_aggregations_quarterly PARTITION OF database_size_aggregations
    FOR VALUES IN ('quarterly') PARTITION BY RANGE (period_start);
CREATE TABLE instance_size_aggregations_daily PARTITION OF instance_size_aggregations
    FOR VALUES IN ('daily') PARTITION BY RANGE (period_start);
CREATE TABLE instance_size_aggregations_weekly PARTITION OF instance_size_aggregations
    FOR VALUES IN ('weekly') PARTITION BY RANGE (period_start);
CREATE TABLE instance_size_aggregations_monthly PARTITION OF instance_size_aggregations
    FOR VALUES IN ('monthly') PARTITION BY RANGE (period_start);
CREATE TABLE instance_size_aggregations_quarterly PARTITION OF instance_size_aggregations
    FOR VALUES IN ('quarterly') PARTITION BY RANGE (period_start);
"""

DOWNGRADE = """
DROP TABLE database_size_aggregations, instance_size_aggregations, aggregation_windows;
"""


def upgrade() -> None:
    op.execute(UPGRADE)


def downgrade() -> None:
    op.execute(DOWNGRADE)
