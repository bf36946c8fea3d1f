"""The store's schema."""

from __future__ import annotations

from sqlalchemy import Engine, text


def test_a_migrated_store_is_empty(store: Engine) -> None:
    with store.connect() as connection:
        assert connection.execute(text("SELECT count(*) FROM database_size_stats")).scalar_one() == 0
