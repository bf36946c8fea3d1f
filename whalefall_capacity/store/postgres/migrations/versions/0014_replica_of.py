"""The primary of a replica, so that totals count their data once."""

from __future__ import annotations

from alembic import op

revision = "0014"
down_revision = "0013"
branch_labels = None
depends_on = None

UPGRADE = """
ALTER TABLE instances
    ADD COLUMN replica_of_id INTEGER CONSTRAINT instances_replica_of_id_fkey REFERENCES instances (id);
COMMENT ON COLUMN instances.replica_of_id IS 'the primary, where its data counts';
"""
DOWNGRADE = """
ALTER TABLE instances DROP COLUMN replica_of_id;
"""


def upgrade() -> None:
    op.execute(UPGRADE)


def downgrade() -> None:
    op.execute(DOWNGRADE)
