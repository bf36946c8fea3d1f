"""Growth is derived on read: averages, baseline, change and trend of every aggregation row."""

from __future__ import annotations

from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

# Every figure is rounded once, half away from zero, in whole numbers: a quotient that was rounded before would be
# wrong where it ends in five.
FUNCTIONS = """
CREATE FUNCTION rounded_ratio(dividend numeric, divisor numeric, digits integer) RETURNS numeric
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN round(sign(dividend) * div(2 * abs(dividend) * 10::numeric ^ digits + divisor, 2 * divisor)
             / 10::numeric ^ digits, digits);
COMMENT ON FUNCTION rounded_ratio IS 'dividend / divisor (above 0), rounded once, half away from zero';

CREATE FUNCTION mean_change(sum numeric, count numeric, base_sum numeric, base_count numeric) RETURNS bigint
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN rounded_ratio(sum * base_count - base_sum * count, count * base_count, 0)::bigint;
COMMENT ON FUNCTION mean_change IS 'mean minus mean of the baseline, rounded to an integer';

CREATE FUNCTION mean_change_percent(sum numeric, count numeric, base_sum numeric, base_count numeric) RETURNS numeric
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN rounded_ratio(100 * (sum * base_count - base_sum * count), nullif(base_sum * count, 0), 2);
COMMENT ON FUNCTION mean_change_percent IS 'change in percent of the baseline, 2 decimals; NULL from a baseline of 0';

CREATE FUNCTION trend_direction(percent numeric) RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN CASE WHEN percent > 5 THEN 'growing' WHEN percent < -5 THEN 'shrinking'
            WHEN percent IS NOT NULL THEN 'stable' END;
"""

# A branch per period type: the planner drops those that a query does not ask for, and of the look-up of the baseline
# all table partitions but those of its own type.
DATABASE_BRANCH = """
SELECT derived.*, trend_direction(size_change_percent) AS trend_direction
FROM (
    SELECT a.*,
           rounded_ratio(a.sum_size_bytes, a.data_count, 0)::bigint AS avg_size_bytes,
           rounded_ratio(a.sum_data_size_bytes, a.data_size_count, 0)::bigint AS avg_data_size_bytes,
           rounded_ratio(a.sum_log_size_bytes, a.log_size_count, 0)::bigint AS avg_log_size_bytes,
           b.period_start AS baseline_start,
           mean_change(a.sum_size_bytes, a.data_count, b.sum_size_bytes, b.data_count) AS size_change_bytes,
           mean_change_percent(a.sum_size_bytes, a.data_count, b.sum_size_bytes, b.data_count) AS size_change_percent,
           mean_change(a.sum_data_size_bytes, a.data_size_count, b.sum_data_size_bytes, b.data_size_count)
               AS data_size_change_bytes,
           mean_change_percent(a.sum_data_size_bytes, a.data_size_count, b.sum_data_size_bytes, b.data_size_count)
               AS data_size_change_percent,
           mean_change(a.sum_log_size_bytes, a.log_size_count, b.sum_log_size_bytes, b.log_size_count)
               AS log_size_change_bytes,
           mean_change_percent(a.sum_log_size_bytes, a.log_size_count, b.sum_log_size_bytes, b.log_size_count)
               AS log_size_change_percent
    FROM database_size_aggregations AS a
    LEFT JOIN LATERAL (
        SELECT * FROM database_size_aggregations AS earlier
        WHERE earlier.instance_id = a.instance_id AND earlier.database_name = a.database_name
          AND earlier.period_type = '{period_type}' AND earlier.period_start < a.period_start
          AND earlier.period_start >= a.period_start - interval '{reach}'
        ORDER BY earlier.period_start DESC LIMIT 1
    ) AS b ON true
    WHERE a.period_type = '{period_type}'
) AS derived
"""

INSTANCE_BRANCH = """
SELECT derived.*, trend_direction(total_size_change_percent) AS trend_direction
FROM (
    SELECT a.*,
           rounded_ratio(a.sum_size_bytes, a.data_count, 0)::bigint AS total_size_bytes,
           CASE WHEN a.sum_database_count = 0 THEN 0
                ELSE rounded_ratio(a.sum_size_bytes, a.sum_database_count, 0)::bigint END AS avg_database_size_bytes,
           rounded_ratio(a.sum_database_count, a.data_count, 0)::integer AS database_count,
           rounded_ratio(a.sum_database_count, a.data_count, 2) AS avg_database_count,
           rounded_ratio(a.sum_log_size_bytes, a.log_size_count, 0)::bigint AS avg_log_size_bytes,
           b.period_start AS baseline_start,
           mean_change(a.sum_size_bytes, a.data_count, b.sum_size_bytes, b.data_count) AS total_size_change_bytes,
           mean_change_percent(a.sum_size_bytes, a.data_count, b.sum_size_bytes, b.data_count)
               AS total_size_change_percent,
           mean_change(a.sum_database_count, a.data_count, b.sum_database_count, b.data_count)::integer
               AS database_count_change,
           mean_change_percent(a.sum_database_count, a.data_count, b.sum_database_count, b.data_count)
               AS database_count_change_percent,
           mean_change(a.sum_log_size_bytes, a.log_size_count, b.sum_log_size_bytes, b.log_size_count)
               AS log_size_change_bytes,
           mean_change_percent(a.sum_log_size_bytes, a.log_size_count, b.sum_log_size_bytes, b.log_size_count)
               AS log_size_change_percent
    FROM instance_size_aggregations AS a
    LEFT JOIN LATERAL (
        SELECT * FROM instance_size_aggregations AS earlier
        WHERE earlier.instance_id = a.instance_id
          AND earlier.period_type = '{period_type}' AND earlier.period_start < a.period_start
          AND earlier.period_start >= a.period_start - interval '{reach}'
        ORDER BY earlier.period_start DESC LIMIT 1
    ) AS b ON true
    WHERE a.period_type = '{period_type}'
) AS derived
"""

# How far back a baseline may lie.
REACH = {"daily": "7 days", "weekly": "28 days", "monthly": "3 months", "quarterly": "12 months"}

DOWNGRADE = """
DROP VIEW database_size_growth, instance_size_growth;
DROP FUNCTION mean_change, mean_change_percent, trend_direction, rounded_ratio;
"""


def upgrade() -> None:
    op.execute(FUNCTIONS)
    for view, branch in (("database_size_growth", DATABASE_BRANCH), ("instance_size_growth", INSTANCE_BRANCH)):
        branches = (branch.format(period_type=period_type, reach=reach) for period_type, reach in REACH.items())
        op.execute(f"CREATE VIEW {view} AS {'UNION ALL'.join(branches)}")


def downgrade() -> None:
    op.execute(DOWNGRADE)
