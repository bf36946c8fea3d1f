"""A server that keeps silent is waited for only so long, and soon after by nobody else."""

from __future__ import annotations

from contextlib import closing

import psycopg2
import pytest
from pydantic import SecretStr
from sqlalchemy import Engine, make_url, text
from sqlalchemy.exc import OperationalError

from whalefall_capacity.store.postgres import engine as engines
from whalefall_capacity.store.postgres.silence import Connecting, watched_connections

NEVER = "SELECT pg_sleep(3600)"


def test_a_statement_that_is_not_answered_in_time_fails(store: Engine) -> None:
    url = make_url(store.url)
    with closing(
        psycopg2.connect(
            host=url.query["host"],
            dbname=url.database,
            user=url.username,
            connection_factory=watched_connections(0.1),
        )
    ) as connection:
        with connection.cursor() as cursor:
            cursor.execute("SELECT 7")
            assert cursor.fetchall() == [(7,)]
        with pytest.raises(psycopg2.OperationalError, match="closed"), connection.cursor() as cursor:
            cursor.execute(NEVER)
        assert connection.closed


def test_others_are_not_cut_off_meanwhile(store: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    url = SecretStr(store.url.render_as_string(hide_password=False))
    patient = engines.create_writing_engine(url)
    monkeypatch.setattr(engines, "WRITING_SECONDS", 0.1)
    impatient = engines.create_writing_engine(url)
    with patient.connect() as waiting:
        with impatient.connect() as connection, pytest.raises(OperationalError) as caught:
            connection.execute(text(NEVER))
        assert caught.value.connection_invalidated
        assert waiting.execute(text("SELECT pg_sleep(1.5), 7")).one()[1] == 7
    # The next one is a connection of its own.
    with impatient.connect() as connection:
        assert connection.execute(text("SELECT 7")).scalar_one() == 7
    patient.dispose()
    impatient.dispose()


class Clock:
    """A clock that moves when a server is waited for."""

    def __init__(self) -> None:
        self.seconds = 100.0

    def __call__(self) -> float:
        return self.seconds

    def wait_in_vain(self, seconds: float) -> None:
        self.seconds += seconds
        raise psycopg2.OperationalError(f"timeout expired after {seconds:g} s")


def test_a_server_that_was_waited_for_in_vain_is_not_waited_for_again_at_once() -> None:
    clock = Clock()
    connecting = Connecting(clock)
    for _ in range(3):
        with pytest.raises(psycopg2.OperationalError, match="timeout expired after 8 s"):
            connecting.attempt(lambda: clock.wait_in_vain(8))
    assert clock.seconds == 108
    clock.seconds += 5
    assert connecting.attempt(lambda: "connected") == "connected"


def test_a_server_that_refuses_at_once_is_tried_each_time() -> None:
    clock = Clock()
    connecting = Connecting(clock)
    with pytest.raises(psycopg2.OperationalError):
        connecting.attempt(lambda: clock.wait_in_vain(0.1))
    assert connecting.attempt(lambda: "connected") == "connected"
