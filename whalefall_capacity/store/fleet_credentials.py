"""The credentials of the fleet: passwords kept in the store, encrypted, and references to where others are."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from pydantic import SecretStr
from sqlalchemy import Engine, text

from whalefall_capacity.credentials import decrypt, encrypt, resolve_reference, rotate
from whalefall_capacity.errors import CredentialError
from whalefall_capacity.fleet_file import CredentialEntry
from whalefall_capacity.store.postgres.engine import again_if_connection_lost
from whalefall_capacity.store.postgres.one_statement import write

REFERENCE_NAME = re.compile(r".* \((env|file):.*\)", re.DOTALL)
SET_CREDENTIAL = """
INSERT INTO credentials (name, username, password, description)
VALUES (:name, :username, :password, :description)
ON CONFLICT (name) DO UPDATE
SET username = excluded.username, password = excluded.password, secret_reference = NULL,
    description = excluded.description, updated_at = now()
"""
# Locked, so that what `credential set` writes meanwhile comes before or after.
STORED_PASSWORDS = """
SELECT id, name, password FROM credentials WHERE password IS NOT NULL ORDER BY id FOR UPDATE
"""
SET_CIPHERTEXT = "UPDATE credentials SET password = :password, updated_at = now() WHERE id = :id"
SECRETS = """
SELECT c.name, c.password, c.secret_reference,
       array(SELECT i.name FROM instances AS i
             WHERE i.credential_id = c.id AND i.is_active AND i.deleted_at IS NULL ORDER BY i.name) AS instances
FROM credentials AS c
ORDER BY c.name
"""


@dataclass(frozen=True)
class UnreadableSecret:
    """A credential without its secret, why, and the instances of the fleet that need it."""

    credential: str
    error: str
    instances: Sequence[str]


def credential_name(credential: CredentialEntry) -> str:
    """Return the name under which the registry keeps the credential of an instance.

    That of a reference is made of all that it says: another username, another credential.
    """
    return credential.stored or f"{credential.username} ({credential.reference})"


def set_credential(
    engine: Engine, name: str, username: str, password: SecretStr, key: SecretStr | None, description: str | None = None
) -> None:
    """Keep a password in the store, encrypted.

    Raises CredentialError without a key, and for a name under which the registry keeps a reference: the
    servers of that reference would get this password.
    """
    if REFERENCE_NAME.fullmatch(name):
        raise CredentialError(f"{name}: the registry names references in fleet files like that; choose another name")
    ciphertext = encrypt(password, key)
    write(engine, SET_CREDENTIAL, name=name, username=username, password=ciphertext, description=description)


def rotate_credentials(engine: Engine, keys: SecretStr | None) -> int:
    """Encrypt every stored password with the first of *keys*, in one transaction; return how many there are.

    Raises CredentialError when one of them cannot be decrypted; then nothing is changed.
    """
    with engine.begin() as connection:
        stored = connection.execute(text(STORED_PASSWORDS)).all()
        values = [{"id": row.id, "password": rotate(row.name, row.password, keys)} for row in stored]
        if values:
            connection.execute(text(SET_CIPHERTEXT), values)
    return len(values)


def find_secret(name: str, password: str | None, reference: str | None, key: SecretStr | None) -> SecretStr:
    """Return the secret of credential *name*: its stored *password*, decrypted, or what *reference* points to.

    Raises CredentialError when it is not there.
    """
    return resolve_reference(str(reference)) if password is None else decrypt(name, password, key)


@again_if_connection_lost
def unreadable_secrets(engine: Engine, key: SecretStr | None) -> list[UnreadableSecret]:
    """Return the credentials whose secret *key* does not decrypt, or is not where the reference says."""
    with engine.connect() as connection:
        rows = list(connection.execute(text(SECRETS)))
    found = []
    for row in rows:
        try:
            find_secret(row.name, row.password, row.secret_reference, key)
        except CredentialError as error:
            found.append(UnreadableSecret(row.name, str(error), row.instances))
    return found
