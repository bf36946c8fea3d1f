"""Growth costs less: one division a figure, which is still exact."""

from __future__ import annotations

from alembic import op

revision = "0006"
down_revision = "0004"
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

DOWNGRADE = """
CREATE OR REPLACE FUNCTION rounded_ratio(dividend numeric, divisor numeric, digits integer) RETURNS numeric
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN round(sign(dividend) * div(2 * abs(dividend) * 10::numeric ^ digits + divisor, 2 * divisor)
             / 10::numeric ^ digits, digits);

CREATE OR REPLACE FUNCTION mean_change(sum numeric, count numeric, base_sum numeric, base_count numeric) RETURNS bigint
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN rounded_ratio(sum * base_count - base_sum * count, count * base_count, 0)::bigint;

CREATE OR REPLACE FUNCTION mean_change_percent(sum numeric, count numeric, base_sum numeric, base_count numeric)
RETURNS numeric
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN rounded_ratio(100 * (sum * base_count - base_sum * count), nullif(base_sum * count, 0), 2);

CREATE OR REPLACE FUNCTION trend_direction(percent numeric) RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN CASE WHEN percent > 5 THEN 'growing' WHEN percent < -5 THEN 'shrinking'
            WHEN percent IS NOT NULL THEN 'stable' END;
"""


def upgrade() -> None:
    op.execute(FUNCTIONS)


def downgrade() -> None:
    op.execute(DOWNGRADE)
