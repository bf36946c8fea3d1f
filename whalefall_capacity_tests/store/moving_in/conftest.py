"""A WhaleFall with two instances of each of its four engines, and with everything in it that does not simply fit."""

from __future__ import annotations

from collections.abc import Callable
from datetime import date, datetime, timezone
from typing import Any

import pytest
from pydantic import SecretStr
from sqlalchemy import Engine

from whalefall_capacity.settings import build_settings
from whalefall_capacity.store.moving_in.mapping import OldKey
from whalefall_capacity.store.moving_in.move import Choices, move_in
from whalefall_capacity.store.moving_in.report import Report
from whalefall_capacity_tests.whalefall_source import WhaleFall, make_whalefall

START, TODAY = date(2025, 1, 1), date(2025, 7, 15)
DAYS = (date(2025, 5, 30), date(2025, 5, 31), date(2025, 6, 1), date(2025, 7, 10))
DROPPED_AT = datetime(2025, 6, 5, 1, 2, 3, tzinfo=timezone.utc)
LONG_NAME = "x" * 254 + "é"

Migrate = Callable[..., Report]


@pytest.fixture
def whale(empty_database: str) -> WhaleFall:
    """An empty WhaleFall."""
    return make_whalefall(empty_database)


@pytest.fixture
def house(whale: WhaleFall) -> WhaleFall:
    """A WhaleFall with something of everything."""
    _fleet(whale)
    _sizes(whale)
    return whale


@pytest.fixture
def migrate(store: Engine, whale: WhaleFall) -> Migrate:
    """The migration into the store of the test, on a day in July 2025, under the right key unless another is given."""

    def call(apply: bool = True, key: str = whale.key, task_runs: bool = False, **settings: Any) -> Report:
        choices = Choices(apply, task_runs, OldKey("OLD_KEY", SecretStr(key)) if key else None)
        built = build_settings(**{"start_date": START, "secret_key": whale.key} | settings)
        return move_in(store, SecretStr(whale.url), choices, built, TODAY)

    return call


def _fleet(whale: WhaleFall) -> None:
    monitor = whale.credential("monitor", "correct horse", description="read only")
    sleepy = whale.credential("sleepy", "nap", is_active=False)
    old = whale.credential("old", "gone", deleted_at=DROPPED_AT)
    whale.credential("jump host", "none", credential_type="ssh")
    last = datetime(2025, 7, 14, 18, 0, tzinfo=timezone.utc)
    whale.instance("pg-a", credential_id=monitor, database_name="app", detailed_version="16.4", last_connected=last)
    whale.instance("pg-b", credential_id=old, deleted_at=DROPPED_AT, database_version="PostgreSQL 12.1 on x86")
    whale.instance("my-a", "mysql", credential_id=sleepy, database_name="mysql", main_version="8.0", port=3307)
    whale.instance("my-b", "mysql", credential_id=monitor, is_active=False, description="the spare one")
    whale.instance("ms-a", "sqlserver", credential_id=monitor, port=1433)
    whale.instance("ms-b", "sqlserver", credential_id=monitor, port=1433, deleted_at=DROPPED_AT)
    whale.instance("ora-a", "oracle", credential_id=monitor, port=1521, database_name="ORCL")
    whale.instance("ora-b", "oracle", port=1521)


def _sizes(whale: WhaleFall) -> None:
    ids = {name: number for number, name in whale.execute("SELECT id, name FROM instances")}
    for name in ("pg-a", "my-b", "ms-a", "ora-a"):
        whale.database(ids[name], "orders", DAYS[0], DAYS[-1])
        for number, day in enumerate(DAYS):
            whale.sizes(ids[name], day, {"orders": 100 + number, LONG_NAME: 3})
    whale.database(ids["pg-b"], "legacy", DAYS[0], DAYS[1], is_active=False, deleted_at=DROPPED_AT)
    whale.sizes(ids["pg-b"], DAYS[0], {"legacy": 7})
    # Of MySQL a 0 is no size; elsewhere it is less than a MiB.
    whale.sizes(ids["my-a"], DAYS[0], {"shop": 40, "empty": 0}, total=40)
    whale.sizes(ids["my-a"], DAYS[1], {"empty": 0})
    whale.sizes(ids["ms-b"], DAYS[0], {"tiny": 0})
    # WhaleFall's total had counted one of two databases.
    whale.sizes(ids["ora-b"], DAYS[1], {"a": 10, "b": 5}, total=10)
    # A total alone, one that was deleted, one that is no size, and days and instances that do not exist.
    whale.total(ids["pg-a"], date(2025, 6, 2), 250, 3)
    whale.total(ids["pg-a"], date(2025, 6, 3), 251, 3, is_deleted=True)
    whale.total(ids["pg-a"], date(2025, 6, 4), -1, 3)
    whale.sizes(ids["pg-a"], date(2024, 12, 31), {"orders": 90})
    whale.sizes(ids["pg-a"], date(2025, 7, 16), {"orders": 110})
    whale.sizes(999, DAYS[0], {"stray": 1})
    whale.sizes(ids["my-b"], date(2025, 6, 7), {"broken": -5, "huge": 2**33, " ": 4, "sound": 2**33 - 1}, total=4)
