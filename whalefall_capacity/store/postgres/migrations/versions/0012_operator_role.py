"""The role operator, between view and admin."""

from __future__ import annotations

from alembic import op

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None

UPGRADE = """
ALTER TABLE console_users DROP CONSTRAINT console_users_role_check,
    ADD CONSTRAINT console_users_role_check CHECK (role IN ('view', 'operator', 'admin'));
ALTER TABLE console_tokens DROP CONSTRAINT console_tokens_role_check,
    ADD CONSTRAINT console_tokens_role_check CHECK (role IN ('view', 'operator', 'admin'));
"""

# Operators go: to the older program they could only be viewers or admins, and neither is for a migration to decide.
DOWNGRADE = """
DELETE FROM console_users WHERE role = 'operator';
DELETE FROM console_tokens WHERE role = 'operator';
ALTER TABLE console_users DROP CONSTRAINT console_users_role_check,
    ADD CONSTRAINT console_users_role_check CHECK (role IN ('view', 'admin'));
ALTER TABLE console_tokens DROP CONSTRAINT console_tokens_role_check,
    ADD CONSTRAINT console_tokens_role_check CHECK (role IN ('view', 'admin'));
"""


def upgrade() -> None:
    op.execute(UPGRADE)


def downgrade() -> None:
    op.execute(DOWNGRADE)
