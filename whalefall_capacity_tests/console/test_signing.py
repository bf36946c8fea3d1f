"""The keys that the console and the Dagster UI share."""

from __future__ import annotations

import stat

from whalefall_capacity.console.signing import KEY_FILE, signing_keys
from whalefall_capacity.settings import Settings, build_settings

OLD_KEY = "4Uf0rFhRtqk4ZpYyQBRjE3fWbBfwGyRkTtJgk1xXrzo="
NEW_KEY = "3q2-7wAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA="


def test_a_key_of_their_own_is_made_once_and_is_its_owners_alone(settings: Settings) -> None:
    (first,) = signing_keys(settings)
    assert signing_keys(settings) == [first]
    assert len(first) > 40
    assert [path.name for path in settings.home.iterdir()] == [KEY_FILE]
    assert stat.S_IMODE((settings.home / KEY_FILE).stat().st_mode) == 0o600


def test_the_secret_key_is_taken_where_it_is_set() -> None:
    settings = build_settings(secret_key=OLD_KEY)
    assert signing_keys(settings) == [OLD_KEY]
    assert not (settings.home / KEY_FILE).exists()


def test_while_the_secret_key_is_replaced_the_new_one_signs_and_the_old_one_is_believed() -> None:
    assert signing_keys(build_settings(secret_key=f"{NEW_KEY}, {OLD_KEY}")) == [OLD_KEY, NEW_KEY]
