"""Sessions of the console as rows, so that one that was logged out has ended for everybody."""

from __future__ import annotations

from alembic import op

revision = "0010"
down_revision = "0009"

UPGRADE = """
CREATE TABLE console_sessions (
    cookie_hash TEXT NOT NULL,
    user_name TEXT COLLATE "C" NOT NULL,
    session_key UUID NOT NULL,
    created_at timestamptz DEFAULT now() NOT NULL,
    updated_at timestamptz DEFAULT now() NOT NULL,
    CONSTRAINT console_sessions_pkey PRIMARY KEY (cookie_hash),
    CONSTRAINT console_sessions_user_name_fkey FOREIGN KEY (user_name) REFERENCES console_users (name)
        ON DELETE CASCADE
);
COMMENT ON COLUMN console_sessions.cookie_hash IS
    'SHA-256 in hexadecimal; the cookie itself is random and kept nowhere';
COMMENT ON COLUMN console_sessions.session_key IS 'that of the user when the session was opened';
COMMENT ON COLUMN console_users.session_key IS 'sessions opened with another one have ended';
"""

DOWNGRADE = """
DROP TABLE console_sessions;
COMMENT ON COLUMN console_users.session_key IS 'sessions signed with another one have ended';
"""


def upgrade() -> None:
    op.execute(UPGRADE)


def downgrade() -> None:
    op.execute(DOWNGRADE)
