"""One TLS context for all servers of the same setting, whoever visits them and how many at once."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from whalefall_capacity.collection.mysql.tls import tls_context
from whalefall_capacity.collection.sizes import Tls, TlsMode
from whalefall_capacity_tests.collection.certificates import Authority


@pytest.mark.parametrize("mode", ["prefer", "require", "verify-ca", "verify-full"])
def test_visits_of_the_same_setting_share_a_context(mode: TlsMode) -> None:
    with ThreadPoolExecutor(16) as visits:
        contexts = list(visits.map(lambda _: tls_context(Tls(mode)), range(16)))
    assert all(context is contexts[0] for context in contexts)


def test_visits_of_different_settings_do_not(tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
    authorities = [str(Authority(tmp_path / name, name).certificate) for name in ("one", "two")]
    modes: tuple[TlsMode, ...] = ("require", "verify-ca", "verify-full")
    settings = [Tls(mode, file) for mode in modes for file in (None, *authorities)]
    assert len({id(tls_context(tls)) for tls in settings}) == 9
