"""A terminal status of a task run or of an item is final for every writer, and a task run is closed once."""

from __future__ import annotations

from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

UPGRADE = """
ALTER TABLE task_runs ADD COLUMN closed_at timestamptz;
COMMENT ON COLUMN task_runs.closed_at IS 'when items, counters and summary became final';
CREATE INDEX task_runs_not_closed_idx ON task_runs (run_id) WHERE closed_at IS NULL;

CREATE FUNCTION refuse_to_leave_terminal_status() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'a terminal status is final: % of run % is % and cannot become %',
                    TG_TABLE_NAME, OLD.run_id, OLD.status, NEW.status
          USING ERRCODE = 'check_violation';
END
$$;
CREATE TRIGGER terminal_status_is_final BEFORE UPDATE OF status ON task_runs FOR EACH ROW
WHEN (OLD.status IN ('completed', 'completed_with_errors', 'failed', 'cancelled') AND NEW.status <> OLD.status)
EXECUTE FUNCTION refuse_to_leave_terminal_status();
CREATE TRIGGER terminal_status_is_final BEFORE UPDATE OF status ON task_run_items FOR EACH ROW
WHEN (OLD.status IN ('completed', 'failed', 'cancelled') AND NEW.status <> OLD.status)
EXECUTE FUNCTION refuse_to_leave_terminal_status();
"""

DOWNGRADE = """
DROP TRIGGER terminal_status_is_final ON task_runs;
DROP TRIGGER terminal_status_is_final ON task_run_items;
DROP FUNCTION refuse_to_leave_terminal_status;
ALTER TABLE task_runs DROP COLUMN closed_at;
"""


def upgrade() -> None:
    op.execute(UPGRADE)


def downgrade() -> None:
    op.execute(DOWNGRADE)
