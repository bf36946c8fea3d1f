"""The liveness lock: held from the beginning of the block to its end, whatever becomes of the session that holds it."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import SecretStr
from sqlalchemy import Engine

from whalefall_capacity.mirror import liveness as module
from whalefall_capacity.mirror.liveness import held_liveness
from whalefall_capacity.store.postgres.advisory_locks import without_worker
from whalefall_capacity.store.postgres.embedded import EmbeddedPostgres
from whalefall_capacity.store.postgres.engine import create_store_engine
from whalefall_capacity_tests.processes import wait_for
from whalefall_capacity_tests.store.records import rows

RUN = "6b1f0c8e-1111-4222-8333-444455556666"
END_HOLDER = "SELECT pg_terminate_backend(pid, 5000) FROM pg_locks WHERE locktype = 'advisory' AND objsubid = 1"


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the session be looked after more often."""
    monkeypatch.setattr(module, "CONFIRM_SECONDS", 0.1)
    monkeypatch.setattr(module, "RECONNECT_SECONDS", 0.1)


def url_of(store: Engine) -> SecretStr:
    return SecretStr(store.url.render_as_string(hide_password=False))


def is_alive(store: Engine, run_id: str = RUN) -> bool:
    with store.connect() as connection:
        return not without_worker(connection, [run_id])


def test_a_run_is_alive_during_the_block_and_not_after(store: Engine) -> None:
    assert not is_alive(store)
    with held_liveness(url_of(store), RUN):
        wait_for(lambda: is_alive(store), "lock")
        assert not is_alive(store, RUN.replace("6", "7"))
    # The server gives a lock back a moment after its session has taken leave.
    wait_for(lambda: not is_alive(store), "end of the lock")


def test_an_error_of_the_block_goes_through_and_ends_the_run(store: Engine) -> None:
    def work() -> None:
        with held_liveness(url_of(store), RUN):
            wait_for(lambda: is_alive(store), "lock")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        work()
    wait_for(lambda: not is_alive(store), "end of the lock")


def test_a_lost_session_is_replaced(store: Engine) -> None:
    with held_liveness(url_of(store), RUN):
        wait_for(lambda: is_alive(store), "lock")
        assert rows(store, END_HOLDER) == [(True,)]
        wait_for(lambda: is_alive(store), "lock of another session")


@pytest.mark.slow
def test_a_store_that_is_away_delays_no_run_and_holds_its_lock_once_it_is_there(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    server = EmbeddedPostgres(tmp_path / "pg")
    with server.running():
        server.create_databases("own")
        url = server.url("own")
    with held_liveness(url, RUN):
        wait_for(lambda: "its liveness lock cannot be held at the moment" in caplog.text, "warning")
        with server.running():
            store = create_store_engine(url)
            wait_for(lambda: is_alive(store), "lock")
            store.dispose()
            # Told once, not at every attempt.
            assert caplog.text.count("its liveness lock cannot be held at the moment") == 1
