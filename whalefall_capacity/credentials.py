"""Passwords of the fleet: looked up where the reference says, never kept in clear.

A reference is `env:VARIABLE` or `file:/path`; a password kept in the store is Fernet ciphertext under
WHALEFALL_SECRET_KEY, which may be several keys: the first encrypts, each of them decrypts. Error messages name the
reference, never the secret.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

from cryptography.fernet import Fernet, InvalidToken, MultiFernet
from pydantic import SecretStr

from whalefall_capacity.errors import CredentialError
from whalefall_capacity.printable import is_text

FERNET_KEY = re.compile(r"[A-Za-z0-9_+/-]{43}=")


def resolve_reference(reference: str) -> SecretStr:
    """Return the password behind *reference*. Raises CredentialError."""
    kind, _, where = reference.partition(":")
    if kind == "env":
        value = os.environ.get(where)
        if value is None:
            raise CredentialError(f"environment variable {where} is not set")
        if not is_text(value):
            raise CredentialError(f"environment variable {where} is not UTF-8")
        return SecretStr(value)
    if kind == "file":
        return _from_file(where)
    raise CredentialError(f"{reference!r} is neither env:VARIABLE nor file:/path")


def encrypt(password: SecretStr, keys: SecretStr | None) -> str:
    """Return the Fernet ciphertext of *password*. Raises CredentialError without a key."""
    return _fernet(keys).encrypt(password.get_secret_value().encode()).decode()


def decrypt(name: str, ciphertext: str, keys: SecretStr | None) -> SecretStr:
    """Return the password of the stored credential *name*. Raises CredentialError."""
    try:
        return SecretStr(_fernet(keys).decrypt(ciphertext.encode()).decode())
    except InvalidToken:
        raise _cannot_decrypt(name) from None


def rotate(name: str, ciphertext: str, keys: SecretStr | None) -> str:
    """Return the ciphertext of the same password under the first of *keys*. Raises CredentialError."""
    try:
        return _fernet(keys).rotate(ciphertext.encode()).decode()
    except InvalidToken:
        raise _cannot_decrypt(name) from None


def fernet_of(keys: SecretStr) -> MultiFernet:
    """Return what encrypts with the first of *keys*, and decrypts with each. Raises ValueError for what is no key."""
    each = [key.strip() for key in keys.get_secret_value().split(",")]
    # The decoder of base64 skips what is none: of two keys with a space between them it would take the first.
    if not all(FERNET_KEY.fullmatch(key) for key in each):
        raise ValueError("not a Fernet key")
    return MultiFernet([Fernet(key) for key in each])


def _cannot_decrypt(name: str) -> CredentialError:
    return CredentialError(
        f"stored credential {name} cannot be decrypted: WHALEFALL_SECRET_KEY is not the key it was stored with; "
        f"set the right key, or store it again with `whalefall-capacity credential set {name}`"
    )


def _from_file(path: str) -> SecretStr:
    try:
        content = Path(path).read_bytes()
    except OSError as error:
        raise CredentialError(f"password file {path} cannot be read: {error}") from None
    try:
        # Editors of Windows begin a file with a byte order mark.
        return SecretStr(content.decode("utf-8-sig").rstrip("\r\n"))
    except UnicodeDecodeError:
        pass
    # Not raised from the handler: the error that it handles carries the password.
    raise CredentialError(f"password file {path} is not UTF-8")


def _fernet(keys: SecretStr | None) -> MultiFernet:
    if keys is None:
        raise CredentialError(
            "stored credentials need WHALEFALL_SECRET_KEY; `whalefall-capacity credential new-key` prints a new one"
        )
    return fernet_of(keys)
