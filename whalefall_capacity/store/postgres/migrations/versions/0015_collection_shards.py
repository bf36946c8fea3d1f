"""The ledger of collections that several processes share: what became of each shard of the fleet."""

from __future__ import annotations

from alembic import op

revision = "0015"
down_revision = "0014"
branch_labels = None
depends_on = None

UPGRADE = """
CREATE TABLE collection_shards (
    root_run_id VARCHAR(36) NOT NULL,
    first_instance_id INTEGER NOT NULL,
    last_instance_id INTEGER NOT NULL,
    collected_date DATE NOT NULL,
    planned_by VARCHAR(36) NOT NULL,
    visited_by VARCHAR(36),
    outcome_json JSON,
    created_at timestamptz DEFAULT now() NOT NULL,
    updated_at timestamptz DEFAULT now() NOT NULL,
    CONSTRAINT collection_shards_pkey PRIMARY KEY (root_run_id, first_instance_id),
    CONSTRAINT collection_shards_outcome_check CHECK ((visited_by IS NULL) = (outcome_json IS NULL))
);
COMMENT ON COLUMN collection_shards.root_run_id IS 'the first of the runs that execute one another again';
COMMENT ON COLUMN collection_shards.planned_by IS 'the run that divided the fleet';
COMMENT ON COLUMN collection_shards.visited_by IS 'the run whose visits these are; NULL as long as there are none';
"""
DOWNGRADE = """
DROP TABLE collection_shards;
"""


def upgrade() -> None:
    op.execute(UPGRADE)


def downgrade() -> None:
    op.execute(DOWNGRADE)
