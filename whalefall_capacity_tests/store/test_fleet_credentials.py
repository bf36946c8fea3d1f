"""The secrets of the fleet that cannot be read are named, with who needs them."""

from __future__ import annotations

from pathlib import Path

from cryptography.fernet import Fernet
from pydantic import SecretStr
from sqlalchemy import Engine

from whalefall_capacity.store.fleet_credentials import set_credential, unreadable_secrets
from whalefall_capacity_tests.registry import refusing, register


def test_a_secret_is_named_with_its_cause_and_who_needs_it(store: Engine, tmp_path: Path) -> None:
    key = SecretStr(Fernet.generate_key().decode())
    set_credential(store, "kept", "whalefall", SecretStr("hunter2"), key)
    fleet = [
        refusing("a") | {"credential": {"username": "u", "password_env": "NOT_THERE"}},
        refusing("b") | {"credential": {"username": "u", "password_file": str(tmp_path / "absent")}},
        refusing("c") | {"credential": {"stored": "kept"}},
        refusing("d"),
    ]
    register(store, *fleet)
    found = {secret.credential: secret for secret in unreadable_secrets(store, key)}
    assert {name: list(secret.instances) for name, secret in found.items()} == {
        "u (env:NOT_THERE)": ["a"],
        f"u (file:{tmp_path / 'absent'})": ["b"],
    }
    assert found["u (env:NOT_THERE)"].error == "environment variable NOT_THERE is not set"
    other = SecretStr(Fernet.generate_key().decode())
    wrong = {secret.credential: secret for secret in unreadable_secrets(store, other)}["kept"]
    assert wrong.error.startswith("stored credential kept cannot be decrypted")
    assert list(wrong.instances) == ["c"]
    register(store, *[entry for entry in fleet if entry["name"] != "c"])
    unneeded = {secret.credential: secret for secret in unreadable_secrets(store, other)}["kept"]
    assert list(unneeded.instances) == []
