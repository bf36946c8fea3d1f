"""Growth costs the planner less: one division a figure, which is still exact, and each figure named once in a view."""

from __future__ import annotations

from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None

# PostgreSQL keeps at least as many decimals of a quotient as its dividend has: 30 here. What is halfway between two
# results is so within 30 decimals, and stays; anything else is further from halfway than 10^-30 as long as the divisor
# is below 10^27 (a sum of bytes times a count of days). So this rounds once, half away from zero, as the whole-number
# arithmetic before did, with a fifth of what the planner has to inline. The cast to bigint rounds alike.
# trend_direction names its argument once, or it would not be inlined: a percent of two decimals is above 5 from 5.01.
FUNCTIONS = """
CREATE OR REPLACE FUNCTION rounded_ratio(dividend numeric, divisor numeric, digits integer) RETURNS numeric
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN round(1.000000000000000000000000000000 * dividend / divisor, digits);

CREATE OR REPLACE FUNCTION mean_change(sum numeric, count numeric, base_sum numeric, base_count numeric) RETURNS bigint
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN (1.000000000000000000000000000000 * (sum * base_count - base_sum * count) / (count * base_count))::bigint;

CREATE OR REPLACE FUNCTION mean_change_percent(sum numeric, count numeric, base_sum numeric, base_count numeric)
RETURNS numeric
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN round(100.000000000000000000000000000000 * (sum * base_count - base_sum * count)
             / nullif(base_sum * count, 0), 2);

CREATE OR REPLACE FUNCTION trend_direction(percent numeric) RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN ('{shrinking, stable, growing}'::text[])[1 + width_bucket(percent, '{-5.00, 5.01}'::numeric[])];
"""

# As before, a branch per period type: the planner drops what a query does not ask for of the windows themselves, and
# the look-up of the baseline knows its own table partitions. But only the look-up is written out per type; the figures
# stand above the branches, once. The columns are those of before: what is granted on the views stays.
DATABASE_VIEW = """
CREATE OR REPLACE VIEW database_size_growth AS
SELECT derived.*, trend_direction(size_change_percent) AS trend_direction
FROM (
    SELECT instance_id, database_name, period_type, period_start, period_end,
           data_count, sum_size_bytes, max_size_bytes, min_size_bytes, closing_size_bytes,
           data_size_count, sum_data_size_bytes, max_data_size_bytes, min_data_size_bytes, closing_data_size_bytes,
           log_size_count, sum_log_size_bytes, max_log_size_bytes, min_log_size_bytes, closing_log_size_bytes,
           calculated_at, created_at, updated_at,
           rounded_ratio(sum_size_bytes, data_count, 0)::bigint AS avg_size_bytes,
           rounded_ratio(sum_data_size_bytes, data_size_count, 0)::bigint AS avg_data_size_bytes,
           rounded_ratio(sum_log_size_bytes, log_size_count, 0)::bigint AS avg_log_size_bytes,
           baseline_start,
           mean_change(sum_size_bytes, data_count, base_sum, base_count) AS size_change_bytes,
           mean_change_percent(sum_size_bytes, data_count, base_sum, base_count) AS size_change_percent,
           mean_change(sum_data_size_bytes, data_size_count, base_sum_data, base_data_count) AS data_size_change_bytes,
           mean_change_percent(sum_data_size_bytes, data_size_count, base_sum_data, base_data_count)
               AS data_size_change_percent,
           mean_change(sum_log_size_bytes, log_size_count, base_sum_log, base_log_count) AS log_size_change_bytes,
           mean_change_percent(sum_log_size_bytes, log_size_count, base_sum_log, base_log_count)
               AS log_size_change_percent
    FROM ({branches}) AS windows
) AS derived
"""
DATABASE_BRANCH = """
SELECT a.*, b.period_start AS baseline_start, b.data_count AS base_count, b.sum_size_bytes AS base_sum,
       b.data_size_count AS base_data_count, b.sum_data_size_bytes AS base_sum_data,
       b.log_size_count AS base_log_count, b.sum_log_size_bytes AS base_sum_log
FROM database_size_aggregations_{period_type} AS a
LEFT JOIN LATERAL (
    SELECT * FROM database_size_aggregations_{period_type} AS earlier
    WHERE earlier.instance_id = a.instance_id AND earlier.database_name = a.database_name
      AND earlier.period_type = '{period_type}' AND earlier.period_start < a.period_start
      AND earlier.period_start >= a.period_start - interval '{reach}'
    ORDER BY earlier.period_start DESC LIMIT 1
) AS b ON true
WHERE a.period_type = '{period_type}'
"""

INSTANCE_VIEW = """
CREATE OR REPLACE VIEW instance_size_growth AS
SELECT derived.*, trend_direction(total_size_change_percent) AS trend_direction
FROM (
    SELECT instance_id, period_type, period_start, period_end, data_count, partial_days,
           sum_size_bytes, max_size_bytes, min_size_bytes, closing_size_bytes,
           sum_database_count, max_database_count, min_database_count,
           log_size_count, sum_log_size_bytes, max_log_size_bytes, min_log_size_bytes, closing_log_size_bytes,
           calculated_at, created_at, updated_at,
           rounded_ratio(sum_size_bytes, data_count, 0)::bigint AS total_size_bytes,
           CASE WHEN sum_database_count = 0 THEN 0
                ELSE rounded_ratio(sum_size_bytes, sum_database_count, 0)::bigint END AS avg_database_size_bytes,
           rounded_ratio(sum_database_count, data_count, 0)::integer AS database_count,
           rounded_ratio(sum_database_count, data_count, 2) AS avg_database_count,
           rounded_ratio(sum_log_size_bytes, log_size_count, 0)::bigint AS avg_log_size_bytes,
           baseline_start,
           mean_change(sum_size_bytes, data_count, base_sum, base_count) AS total_size_change_bytes,
           mean_change_percent(sum_size_bytes, data_count, base_sum, base_count) AS total_size_change_percent,
           mean_change(sum_database_count, data_count, base_databases, base_count)::integer AS database_count_change,
           mean_change_percent(sum_database_count, data_count, base_databases, base_count)
               AS database_count_change_percent,
           mean_change(sum_log_size_bytes, log_size_count, base_sum_log, base_log_count) AS log_size_change_bytes,
           mean_change_percent(sum_log_size_bytes, log_size_count, base_sum_log, base_log_count)
               AS log_size_change_percent
    FROM ({branches}) AS windows
) AS derived
"""
INSTANCE_BRANCH = """
SELECT a.*, b.period_start AS baseline_start, b.data_count AS base_count, b.sum_size_bytes AS base_sum,
       b.sum_database_count AS base_databases, b.log_size_count AS base_log_count, b.sum_log_size_bytes AS base_sum_log
FROM instance_size_aggregations_{period_type} AS a
LEFT JOIN LATERAL (
    SELECT * FROM instance_size_aggregations_{period_type} AS earlier
    WHERE earlier.instance_id = a.instance_id
      AND earlier.period_type = '{period_type}' AND earlier.period_start < a.period_start
      AND earlier.period_start >= a.period_start - interval '{reach}'
    ORDER BY earlier.period_start DESC LIMIT 1
) AS b ON true
WHERE a.period_type = '{period_type}'
"""

# How far back a baseline may lie.
REACH = {"daily": "7 days", "weekly": "28 days", "monthly": "3 months", "quarterly": "12 months"}


def upgrade() -> None:
    op.execute(FUNCTIONS)
    for view, branch in ((DATABASE_VIEW, DATABASE_BRANCH), (INSTANCE_VIEW, INSTANCE_BRANCH)):
        branches = (branch.format(period_type=period_type, reach=reach) for period_type, reach in REACH.items())
        op.execute(view.format(branches="UNION ALL".join(branches)))


def downgrade() -> None:
    """Leave them: views and functions say what they said before, at less cost."""
