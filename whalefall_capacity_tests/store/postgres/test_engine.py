"""The store is where its URL says."""

from __future__ import annotations

import os

from sqlalchemy import Engine, text

from whalefall_capacity.settings import load_settings
from whalefall_capacity.store.postgres.engine import create_store_engine
from whalefall_capacity_tests.collection.support import garbage, peer


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
