"""Passwords are found where their reference says, or decrypted from the store.

Errors name the reference or the stored credential, never the secret; nothing of them carries it.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from cryptography.fernet import Fernet
from pydantic import SecretStr

from whalefall_capacity.credentials import decrypt, encrypt, resolve_reference
from whalefall_capacity.errors import CredentialError
from whalefall_capacity_tests.errors import all_that_it_carries

PASSWORD = SecretStr("Tr0ub4dor")
KEY = SecretStr("3q2-7wAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=")
OTHER_KEY = SecretStr("yv66vgAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=")
WRONG_KEY = (
    "stored credential monitoring cannot be decrypted: WHALEFALL_SECRET_KEY is not the key it was stored with; "
    "set the right key, or store it again with `whalefall-capacity credential set monitoring`"
)
NO_KEY = "stored credentials need WHALEFALL_SECRET_KEY; `whalefall-capacity credential new-key` prints a new one"


@pytest.mark.parametrize("password", ["Tr0ub4dor", "", " with spaces ", "密码:é", "a\nb"])
def test_a_variable_gives_the_password_as_it_is(password: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SHOP_PASSWORD", password)
    assert resolve_reference("env:SHOP_PASSWORD").get_secret_value() == password


def test_a_variable_that_is_not_set_is_named() -> None:
    with pytest.raises(CredentialError, match=r"^environment variable SHOP_PASSWORD is not set$"):
        resolve_reference("env:SHOP_PASSWORD")


def test_a_variable_that_is_not_utf8_is_named_without_its_value(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SHOP_PASSWORD", "Tr0ub4dor\udcff")
    with pytest.raises(CredentialError, match=r"^environment variable SHOP_PASSWORD is not UTF-8$") as raised:
        resolve_reference("env:SHOP_PASSWORD")
    assert "Tr0ub4dor" not in all_that_it_carries(raised.value)


@pytest.mark.parametrize(
    ("content", "password"),
    [
        ("Tr0ub4dor", "Tr0ub4dor"),
        ("Tr0ub4dor\n", "Tr0ub4dor"),
        ("Tr0ub4dor\r\n", "Tr0ub4dor"),
        ("\ufeffTr0ub4dor\r\n", "Tr0ub4dor"),
        (" Tr0ub4dor \n", " Tr0ub4dor "),
        ("密码:é\n", "密码:é"),
        ("two\nlines\n", "two\nlines"),
        ("", ""),
    ],
    ids=[
        "bare",
        "newline",
        "Windows newline",
        "byte order mark",
        "spaces are part of it",
        "not ASCII",
        "two lines",
        "empty",
    ],
)
def test_a_file_gives_the_password_without_the_newline_at_its_end(content: str, password: str, tmp_path: Path) -> None:
    (tmp_path / "password").write_bytes(content.encode())
    assert resolve_reference(f"file:{tmp_path / 'password'}").get_secret_value() == password


def test_the_path_of_a_file_may_contain_a_colon(tmp_path: Path) -> None:
    (tmp_path / "shop:5432").write_text("Tr0ub4dor\n")
    assert resolve_reference(f"file:{tmp_path / 'shop:5432'}").get_secret_value() == "Tr0ub4dor"


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    path = tmp_path / "password"
    with pytest.raises(CredentialError) as raised:
        resolve_reference(f"file:{path}")
    assert str(raised.value) == (f"password file {path} cannot be read: [Errno 2] No such file or directory: '{path}'")


def test_a_folder_is_no_password_file(tmp_path: Path) -> None:
    with pytest.raises(CredentialError, match=r"^password file .* cannot be read: \[Errno 21\] Is a directory"):
        resolve_reference(f"file:{tmp_path}")


def test_a_file_that_is_not_utf8_is_named_and_nothing_of_its_content_is_shown(tmp_path: Path) -> None:
    path = tmp_path / "password"
    path.write_bytes(b"Tr0ub4dor\xff")
    with pytest.raises(CredentialError) as raised:
        resolve_reference(f"file:{path}")
    assert str(raised.value) == f"password file {path} is not UTF-8"
    assert "Tr0ub4dor" not in all_that_it_carries(raised.value)


@pytest.mark.parametrize("reference", ["vault:shop", "SHOP_PASSWORD", ""])
def test_a_reference_of_another_kind_is_refused(reference: str) -> None:
    with pytest.raises(CredentialError) as raised:
        resolve_reference(reference)
    assert str(raised.value) == f"'{reference}' is neither env:VARIABLE nor file:/path"


@pytest.mark.parametrize("password", ["Tr0ub4dor", "", "密码:é\n", "x" * 1000])
def test_a_stored_password_comes_back_as_it_was(password: str) -> None:
    ciphertext = encrypt(SecretStr(password), KEY)
    assert decrypt("monitoring", ciphertext, KEY).get_secret_value() == password


def test_what_is_stored_does_not_contain_the_password() -> None:
    ciphertext = encrypt(PASSWORD, KEY)
    assert "Tr0ub4dor" not in ciphertext
    assert Fernet(KEY.get_secret_value()).decrypt(ciphertext) == b"Tr0ub4dor"


def test_the_same_password_is_never_stored_as_the_same_text() -> None:
    assert encrypt(PASSWORD, KEY) != encrypt(PASSWORD, KEY)


def test_a_resolved_password_does_not_show_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SHOP_PASSWORD", "Tr0ub4dor")
    found = [resolve_reference("env:SHOP_PASSWORD"), decrypt("shop", encrypt(PASSWORD, KEY), KEY)]
    assert "Tr0ub4dor" not in f"{found}{found[0]}{found[1]}"


def test_without_a_key_nothing_is_encrypted_and_the_message_says_where_to_get_one() -> None:
    with pytest.raises(CredentialError) as raised:
        encrypt(PASSWORD, None)
    assert str(raised.value) == NO_KEY
    assert "Tr0ub4dor" not in all_that_it_carries(raised.value)


def test_without_a_key_nothing_is_decrypted() -> None:
    ciphertext = encrypt(PASSWORD, KEY)
    with pytest.raises(CredentialError) as raised:
        decrypt("monitoring", ciphertext, None)
    assert str(raised.value) == NO_KEY


@pytest.mark.parametrize("damage", ["the wrong key", "a cut off text", "no ciphertext at all"])
def test_a_password_that_cannot_be_decrypted_is_named_and_what_to_do_is_said(damage: str) -> None:
    ciphertext = encrypt(PASSWORD, OTHER_KEY)
    damaged = {"the wrong key": ciphertext, "a cut off text": ciphertext[:-9], "no ciphertext at all": "é"}[damage]
    with pytest.raises(CredentialError) as raised:
        decrypt("monitoring", damaged, KEY)
    assert str(raised.value) == WRONG_KEY
    carried = all_that_it_carries(raised.value)
    assert not [secret for secret in ("Tr0ub4dor", _secret(KEY), _secret(OTHER_KEY)) if secret in carried]


def _secret(key: SecretStr) -> str:
    return key.get_secret_value()
