"""Forecasts of instances and databases, how good they were, and what was odd about a day."""

from __future__ import annotations

from alembic import op

revision = "0013"
down_revision = "0012"
branch_labels = None
depends_on = None

ROW_TIMES = "created_at timestamptz DEFAULT now() NOT NULL, updated_at timestamptz DEFAULT now() NOT NULL"

UPGRADE = f"""
CREATE TABLE capacity_forecasts (
    instance_id INTEGER NOT NULL,
    forecast_date DATE NOT NULL,
    status TEXT NOT NULL CHECK (
        status IN ('no_limit', 'stale', 'full', 'too_new', 'not_within_a_year', 'not_before', 'dated')
    ),
    used_bytes BIGINT,
    limit_bytes BIGINT,
    rate_bytes_per_day BIGINT NOT NULL,
    spread_bytes BIGINT NOT NULL,
    swing_bytes BIGINT NOT NULL,
    range_low NUMERIC NOT NULL,
    range_high NUMERIC NOT NULL,
    expected_date DATE,
    earliest_date DATE,
    latest_date DATE,
    last_measured_date DATE,
    measured_days INTEGER NOT NULL,
    databases INTEGER NOT NULL,
    reason JSONB NOT NULL,
    calculated_at timestamptz NOT NULL,
    {ROW_TIMES},
    PRIMARY KEY (instance_id, forecast_date)
) PARTITION BY RANGE (forecast_date);
CREATE INDEX capacity_forecasts_forecast_date_idx ON capacity_forecasts USING brin (forecast_date);
COMMENT ON COLUMN capacity_forecasts.forecast_date IS 'the last day that it knows of';
COMMENT ON COLUMN capacity_forecasts.used_bytes IS 'last sizes of its databases and its logs; NULL: never measured';
COMMENT ON COLUMN capacity_forecasts.limit_bytes IS 'of the fleet file when it was calculated';
COMMENT ON COLUMN capacity_forecasts.spread_bytes IS 'of 28 days';
COMMENT ON COLUMN capacity_forecasts.range_low IS 'spreads that the range reaches below the rate';
COMMENT ON COLUMN capacity_forecasts.range_high IS 'spreads that the range reaches above the rate';
COMMENT ON COLUMN capacity_forecasts.earliest_date IS 'NULL: open';
COMMENT ON COLUMN capacity_forecasts.latest_date IS 'NULL: open';
COMMENT ON COLUMN capacity_forecasts.reason IS 'largest growers, one-offs left out, what has no pace';

CREATE TABLE database_forecasts (
    instance_id INTEGER NOT NULL,
    database_name TEXT COLLATE "C" NOT NULL,
    forecast_date DATE NOT NULL,
    size_bytes BIGINT NOT NULL,
    last_measured_date DATE NOT NULL,
    measured_days INTEGER NOT NULL,
    rate_bytes_per_day BIGINT,
    spread_bytes BIGINT,
    swing_bytes BIGINT,
    one_offs INTEGER NOT NULL,
    one_off_bytes BIGINT NOT NULL,
    calculated_at timestamptz NOT NULL,
    {ROW_TIMES},
    PRIMARY KEY (instance_id, database_name)
) WITH (fillfactor = 80);
COMMENT ON COLUMN database_forecasts.forecast_date IS 'the newest alone is kept';
COMMENT ON COLUMN database_forecasts.size_bytes IS 'when last measured';
COMMENT ON COLUMN database_forecasts.rate_bytes_per_day IS 'NULL: too few measured days';
COMMENT ON COLUMN database_forecasts.spread_bytes IS 'of 28 days';
COMMENT ON COLUMN database_forecasts.one_offs IS 'jumps that the rate leaves out';
COMMENT ON COLUMN database_forecasts.one_off_bytes IS 'their sum';

CREATE TABLE forecast_accuracy (
    forecast_date DATE NOT NULL,
    level TEXT NOT NULL CHECK (level IN ('database', 'instance')),
    horizon_days INTEGER NOT NULL,
    forecasts INTEGER NOT NULL,
    mean_error_percent NUMERIC,
    median_error_percent NUMERIC,
    p90_error_percent NUMERIC,
    no_growth_mean_error_percent NUMERIC,
    no_growth_median_error_percent NUMERIC,
    no_growth_p90_error_percent NUMERIC,
    least_squares_mean_error_percent NUMERIC,
    least_squares_median_error_percent NUMERIC,
    least_squares_p90_error_percent NUMERIC,
    coverage_percent NUMERIC,
    range_low NUMERIC NOT NULL,
    range_high NUMERIC NOT NULL,
    one_off_bytes NUMERIC NOT NULL,
    new_database_bytes NUMERIC NOT NULL,
    calculated_at timestamptz NOT NULL,
    {ROW_TIMES},
    PRIMARY KEY (forecast_date, level, horizon_days)
);
COMMENT ON COLUMN forecast_accuracy.forecast_date IS 'the day on which the forecasts are looked back at';
COMMENT ON COLUMN forecast_accuracy.horizon_days IS 'how long ago they were made';
COMMENT ON COLUMN forecast_accuracy.mean_error_percent IS 'of the size then';
COMMENT ON COLUMN forecast_accuracy.median_error_percent IS 'of the size then';
COMMENT ON COLUMN forecast_accuracy.p90_error_percent IS 'of the size then';
COMMENT ON COLUMN forecast_accuracy.no_growth_mean_error_percent IS 'of the size then';
COMMENT ON COLUMN forecast_accuracy.no_growth_median_error_percent IS 'of the size then';
COMMENT ON COLUMN forecast_accuracy.no_growth_p90_error_percent IS 'of the size then';
COMMENT ON COLUMN forecast_accuracy.least_squares_mean_error_percent IS 'of the size then';
COMMENT ON COLUMN forecast_accuracy.least_squares_median_error_percent IS 'of the size then';
COMMENT ON COLUMN forecast_accuracy.least_squares_p90_error_percent IS 'of the size then';
COMMENT ON COLUMN forecast_accuracy.coverage_percent IS 'forecasts that ended in their range';
COMMENT ON COLUMN forecast_accuracy.range_low IS 'spreads that a range of this day reaches below the rate';
COMMENT ON COLUMN forecast_accuracy.range_high IS 'spreads that a range of this day reaches above the rate';
COMMENT ON COLUMN forecast_accuracy.one_off_bytes IS 'one-offs that came since, in no error';
COMMENT ON COLUMN forecast_accuracy.new_database_bytes IS 'databases without a pace then, in no error';

CREATE TABLE size_anomalies (
    instance_id INTEGER NOT NULL,
    database_name TEXT COLLATE "C" NOT NULL,
    day DATE NOT NULL,
    kind TEXT NOT NULL CHECK (kind IN ('jump', 'drop', 'stall')),
    change_bytes BIGINT NOT NULL,
    usual_bytes BIGINT NOT NULL,
    threshold_bytes BIGINT NOT NULL,
    calculated_at timestamptz NOT NULL,
    {ROW_TIMES},
    PRIMARY KEY (instance_id, database_name, day)
) PARTITION BY RANGE (day);
CREATE INDEX size_anomalies_day_idx ON size_anomalies USING brin (day);
COMMENT ON COLUMN size_anomalies.change_bytes IS 'beyond the usual; of a stall, all of it';
"""

DOWNGRADE = "DROP TABLE capacity_forecasts, database_forecasts, forecast_accuracy, size_anomalies;"


def upgrade() -> None:
    op.execute(UPGRADE)


def downgrade() -> None:
    op.execute(DOWNGRADE)
