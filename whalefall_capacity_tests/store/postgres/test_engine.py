"""The store is where its URL says, and one that is away is tried again for as long as its users can wait."""

from __future__ import annotations

import os
from collections.abc import Callable

import psycopg2
import pytest
from pydantic import SecretStr
from sqlalchemy import Engine, text

from whalefall_capacity.settings import load_settings
from whalefall_capacity.store.postgres.engine import create_store_engine, keep_trying
from whalefall_capacity.store.postgres.locks import Patience, with_patience
from whalefall_capacity_tests.collection.support import garbage, peer
from whalefall_capacity_tests.store.records import add_instance


def test_another_server_in_the_environment_is_not_taken_for_the_store(store: Engine) -> None:
    url = load_settings().store_url
    assert url is not None
    with peer(garbage) as elsewhere:
        os.environ.update(PGHOSTADDR="127.0.0.1", PGPORT=str(elsewhere.port), PGOPTIONS="-c no_such_setting=1")
        engine = create_store_engine(url)
        with engine.connect() as connection:
            assert connection.execute(text("SELECT count(*) FROM instances")).scalar_one() == 0
        engine.dispose()
        assert elsewhere.arrivals == 0
    assert store.url.database == engine.url.database


def test_a_transaction_sees_what_others_commit_whatever_the_role_begins_with(store: Engine) -> None:
    strict = store.url.update_query_dict({"options": "-c default_transaction_isolation=serializable"})
    engine = create_store_engine(SecretStr(strict.render_as_string(hide_password=False)))
    count = text("SELECT count(*) FROM instances")
    with engine.connect() as connection:
        before = connection.execute(count).scalar_one()
        add_instance(store, "shop")
        after = connection.execute(count).scalar_one()
    engine.dispose()
    assert (before, after) == (0, 1)


class Clock:
    """A clock that moves when somebody sleeps."""

    def __init__(self) -> None:
        self.seconds = 100.0

    def sleep(self, seconds: float) -> None:
        self.seconds += seconds

    def monotonic(self) -> float:
        return self.seconds


def failing(*errors: Exception) -> Callable[[], str]:
    """Return a function that raises *errors*, one a call, and then returns."""
    coming = iter(errors)

    def attempt() -> str:
        for error in coming:
            raise error
        return "done"

    return attempt


def test_what_may_pass_is_tried_again_every_half_second() -> None:
    clock = Clock()
    away = [psycopg2.OperationalError("away") for _ in range(3)]
    assert keep_trying(failing(*away), lambda _: True, 60, clock.sleep, clock.monotonic) == "done"
    assert clock.seconds == 101.5


def test_a_store_that_stays_away_is_given_up_when_patience_ends() -> None:
    clock = Clock()
    away = [psycopg2.OperationalError(f"away {number}") for number in range(200)]
    with pytest.raises(psycopg2.OperationalError, match="away 121"):
        keep_trying(failing(*away), lambda _: True, 60, clock.sleep, clock.monotonic)
    assert clock.seconds == 160.5


def test_what_will_not_pass_is_raised_at_once() -> None:
    clock = Clock()
    with pytest.raises(psycopg2.ProgrammingError, match="wrong"):
        keep_trying(failing(psycopg2.ProgrammingError("wrong")), lambda _: False, 60, clock.sleep, clock.monotonic)
    assert clock.seconds == 100


class LockTimeout(psycopg2.OperationalError):
    """The error of a statement that waited too long for a lock."""

    pgcode = "55P03"


def test_a_lock_that_is_held_is_waited_for_again_after_each_pause() -> None:
    pauses: list[float] = []
    patience = Patience(pauses_seconds=(0.5, 1.0, 2.0))
    assert with_patience(patience, failing(*[LockTimeout() for _ in range(2)]), pauses.append) == "done"
    assert pauses == [0.5, 1.0]


def test_a_lock_that_stays_held_is_raised_after_the_last_pause() -> None:
    pauses: list[float] = []
    with pytest.raises(LockTimeout):
        with_patience(Patience(pauses_seconds=(0.5, 1.0)), failing(*[LockTimeout() for _ in range(9)]), pauses.append)
    assert pauses == [0.5, 1.0]
