"""An engine is any word, and no longer one of a list: engine files bring others."""

from __future__ import annotations

from alembic import op

revision = "0016"
down_revision = "0015"
branch_labels = None
depends_on = None

UPGRADE = """
ALTER TABLE instances DROP CONSTRAINT instances_db_type_check;
ALTER TABLE instances ADD CONSTRAINT instances_db_type_check CHECK (db_type ~ '^[a-z][a-z0-9_]{0,31}$');
"""
# The version before could not visit such servers.
DOWNGRADE = """
UPDATE instances SET db_type = 'unknown', is_active = false
WHERE db_type NOT IN ('postgresql', 'mysql', 'mariadb', 'unknown');
ALTER TABLE instances DROP CONSTRAINT instances_db_type_check;
ALTER TABLE instances ADD CONSTRAINT instances_db_type_check
    CHECK (db_type IN ('postgresql', 'mysql', 'mariadb', 'unknown'));
"""


def upgrade() -> None:
    op.execute(UPGRADE)


def downgrade() -> None:
    op.execute(DOWNGRADE)
