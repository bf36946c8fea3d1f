"""Who may use the console: users who log in, and tokens for scripts."""

from __future__ import annotations

from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None

UPGRADE = """
CREATE TABLE console_users (
    name TEXT COLLATE "C" NOT NULL,
    role TEXT NOT NULL,
    password_hash TEXT NOT NULL,
    session_key UUID DEFAULT gen_random_uuid() NOT NULL,
    created_at timestamptz DEFAULT now() NOT NULL,
    updated_at timestamptz DEFAULT now() NOT NULL,
    CONSTRAINT console_users_pkey PRIMARY KEY (name),
    CONSTRAINT console_users_role_check CHECK (role IN ('view', 'admin'))
);
COMMENT ON COLUMN console_users.password_hash IS 'argon2id';
COMMENT ON COLUMN console_users.session_key IS 'sessions signed with another one have ended';

CREATE TABLE console_tokens (
    name TEXT COLLATE "C" NOT NULL,
    role TEXT NOT NULL,
    token_hash TEXT NOT NULL,
    revoked_at timestamptz,
    created_at timestamptz DEFAULT now() NOT NULL,
    updated_at timestamptz DEFAULT now() NOT NULL,
    CONSTRAINT console_tokens_pkey PRIMARY KEY (name),
    CONSTRAINT console_tokens_role_check CHECK (role IN ('view', 'admin')),
    CONSTRAINT console_tokens_token_hash_key UNIQUE (token_hash)
);
COMMENT ON COLUMN console_tokens.token_hash IS 'SHA-256 in hexadecimal; the token itself is random and kept nowhere';
"""

DOWNGRADE = """
DROP TABLE console_users, console_tokens;
"""


def upgrade() -> None:
    op.execute(UPGRADE)


def downgrade() -> None:
    op.execute(DOWNGRADE)
