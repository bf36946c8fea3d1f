"""Alerts through any channel: which there are is for the settings to say."""

from __future__ import annotations

from alembic import op

revision = "0011"
down_revision = "0010"

UPGRADE = "ALTER TABLE alerts DROP CONSTRAINT alerts_channel_check"

# Alerts of the other channels are lost: the older program could not send them.
DOWNGRADE = """
DELETE FROM alerts WHERE channel NOT IN ('webhook', 'email');
ALTER TABLE alerts ADD CONSTRAINT alerts_channel_check CHECK (channel IN ('webhook', 'email'));
"""


def upgrade() -> None:
    op.execute(UPGRADE)


def downgrade() -> None:
    op.execute(DOWNGRADE)
