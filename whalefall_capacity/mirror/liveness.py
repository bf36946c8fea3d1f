"""Liveness of a run: a lock in the store, which the run's own process holds for as long as it executes the run.

It is not bound to the steps. Another process may execute them, and while one waits for its worker, none does; a step
whose run is dead does not keep it alive.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from pydantic import SecretStr
from sqlalchemy import Engine, NullPool

from whalefall_capacity.store.postgres.advisory_locks import confirm_liveness, hold_liveness
from whalefall_capacity.store.postgres.engine import create_store_engine

CONFIRM_SECONDS = 1.0
RECONNECT_SECONDS = 1.0
# A session that does not end by then ends with the process.
END_SECONDS = 5.0

logger = logging.getLogger(__name__)


@contextmanager
def held_liveness(url: SecretStr, run_id: str) -> Iterator[None]:
    """Hold the liveness lock of a run for the length of the block.

    A thread of its own does so: a store that is away neither delays nor fails the run. A session that is lost is
    replaced.
    """
    ended = threading.Event()
    engine = create_store_engine(url, poolclass=NullPool)
    thread = threading.Thread(target=_hold, args=(engine, run_id, ended), name=f"liveness-{run_id}", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join(END_SECONDS)


def _hold(engine: Engine, run_id: str, ended: threading.Event) -> None:
    told = False
    while not ended.is_set():
        try:
            _hold_in_one_session(engine, run_id, ended)
        # Until the store is back the run may be taken for dead, but it must not fail because of that.
        except Exception as error:
            if not told:
                logger.warning("run %s: its liveness lock cannot be held at the moment: %s", run_id, error)
                told = True
            ended.wait(RECONNECT_SECONDS)


def _hold_in_one_session(engine: Engine, run_id: str, ended: threading.Event) -> None:
    """Hold the lock until *ended*, or until the session is lost."""
    with engine.connect() as connection:
        with connection.begin():
            hold_liveness(connection, run_id)
        while not ended.wait(CONFIRM_SECONDS):
            with connection.begin():
                confirm_liveness(connection)
