"""Decisions on each credential and each instance of WhaleFall, from both sides, without touching either."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from cryptography.fernet import InvalidToken
from pydantic import SecretStr, ValidationError

from whalefall_capacity.collection.sizes import UNKNOWN_ENGINE, ServerEngine
from whalefall_capacity.credentials import fernet_of
from whalefall_capacity.engine_catalog import known_engines
from whalefall_capacity.errors import CredentialError, MigrationError
from whalefall_capacity.fleet_file import InstanceEntry
from whalefall_capacity.store.fleet_credentials import REFERENCE_NAME
from whalefall_capacity.store.moving_in.report import Outcome
from whalefall_capacity.store.moving_in.source import SourceCredential, SourceInstance

# The engine of an instance that is known and cannot be visited.
CREDENTIAL_TYPE = "database"
# A 0 there says that no InnoDB file of the database was seen, not that it is empty.
ZERO_IS_PLACEHOLDER = "mysql"


@dataclass(frozen=True)
class OldKey:
    """The key under which WhaleFall keeps passwords, and the environment variable that has it."""

    variable: str
    key: SecretStr


@dataclass(frozen=True)
class CredentialMove:
    """A credential of WhaleFall and what becomes of it; *password* only where it is created with the key at hand."""

    source: SourceCredential
    outcome: Outcome
    reason: str = ""
    password: SecretStr | None = None


@dataclass(frozen=True)
class StoredInstance:
    """An instance of the store, as far as the migration compares it."""

    id: int
    name: str
    db_type: str
    host: str | None
    port: int | None
    credential: str | None
    is_visited: bool


@dataclass(frozen=True)
class InstanceMove:
    """An instance of WhaleFall and what becomes of it. *target_id* is None as long as it is not in the store."""

    source: SourceInstance
    outcome: Outcome
    target_id: int | None
    is_visited: bool
    db_type: str
    database_name: str | None
    credential: str | None
    is_active: bool
    deleted_at: datetime | None
    reason: str = ""

    @property
    def id_in_rows(self) -> int:
        """The id that its rows carry; of one that is only planned it is negative, and so nobody's."""
        return self.target_id if self.target_id is not None else -self.source.id

    @property
    def zero_is_placeholder(self) -> bool:
        return self.source.db_type.lower() == ZERO_IS_PLACEHOLDER


def decide_credentials(
    found: Sequence[SourceCredential], stored: Mapping[str, str], old_key: OldKey | None
) -> list[CredentialMove]:
    """Return what becomes of each credential; *stored* has the usernames of the store's credentials by their names.

    Raises MigrationError, with a line for each, for names that cannot be kept and passwords that the key does not
    decrypt.
    """
    moves, problems = [], []
    for credential in found:
        try:
            moves.append(_decide_credential(credential, stored, old_key))
        except CredentialError as error:
            problems.append(str(error))
    if problems:
        raise MigrationError(problems)
    return moves


def _decide_credential(
    credential: SourceCredential, stored: Mapping[str, str], old_key: OldKey | None
) -> CredentialMove:
    if credential.credential_type.lower() != CREDENTIAL_TYPE:
        return CredentialMove(
            credential, Outcome.SKIPPED, f"of type {credential.credential_type}: only those of type database log in"
        )
    if credential.deleted_at is not None:
        return CredentialMove(credential, Outcome.SKIPPED, "deleted there")
    if credential.name in stored:
        username = stored[credential.name]
        other = "" if username == credential.username else f", for the username {username}"
        return CredentialMove(credential, Outcome.KEPT, f"the store has one of this name{other}")
    if not credential.name.strip() or REFERENCE_NAME.fullmatch(credential.name):
        raise CredentialError(
            f"credential {credential.name!r}: the name cannot be kept, for the registry names references like that; "
            "rename it in WhaleFall"
        )
    password = None if old_key is None else _password(credential, old_key)
    reason = "" if credential.is_active else "inactive there"
    return CredentialMove(credential, Outcome.CREATED, reason, password)


def _password(credential: SourceCredential, old_key: OldKey) -> SecretStr:
    try:
        token = base64.b64decode(credential.password.get_secret_value(), validate=True)
        password = fernet_of(old_key.key).decrypt(token).decode()
    except (InvalidToken, binascii.Error, UnicodeError):
        password = ""
    # Outside of the handler: the error that it handles may carry a part of the secret.
    if not password:
        raise CredentialError(
            f"credential {credential.name}: its password cannot be decrypted with the key in {old_key.variable}; name "
            "the variable that has WhaleFall's PASSWORD_ENCRYPTION_KEY, or store the password first with "
            f"`whalefall-capacity credential set {credential.name} --username {credential.username}`"
        )
    return SecretStr(password)


def decide_instances(
    found: Sequence[SourceInstance], stored: Mapping[str, StoredInstance], credentials: Sequence[CredentialMove]
) -> list[InstanceMove]:
    """Return what becomes of each instance; *stored* has those of the store by name.

    Raises MigrationError, with a line for each, for names, hosts and ports that a fleet file could not have either.
    """
    by_id = {move.source.id: move for move in credentials if move.outcome is not Outcome.SKIPPED}
    moves = [_decide_instance(instance, stored.get(instance.name), by_id) for instance in found]
    if problems := [problem for move in moves for problem in _problems(move)]:
        raise MigrationError(problems)
    return moves


def _decide_instance(
    instance: SourceInstance, stored: StoredInstance | None, credentials: Mapping[int, CredentialMove]
) -> InstanceMove:
    db_type = _engine_of(instance)
    credential = credentials.get(instance.credential_id or 0)
    inactive = _why_inactive(instance, db_type, credential)
    outcome, reason = Outcome.CREATED, inactive
    if stored is not None and (stored.db_type != UNKNOWN_ENGINE or (db_type == UNKNOWN_ENGINE and stored.host)):
        outcome, reason = Outcome.KEPT, _differences(instance, stored, credential)
    elif stored is not None:
        outcome, reason = Outcome.CHANGED, inactive or "known until now from imported history alone"
    return InstanceMove(
        source=instance,
        outcome=outcome,
        target_id=stored.id if stored else None,
        is_visited=stored is not None and stored.is_visited,
        db_type=db_type,
        # A MySQL server is measured without; there it may be anything.
        database_name=None if db_type == ServerEngine.MYSQL else instance.database_name,
        credential=credential.source.name if credential else None,
        is_active=not inactive,
        deleted_at=instance.deleted_at,
        reason=reason,
    )


def _engine_of(instance: SourceInstance) -> str:
    return instance.db_type.lower() if instance.db_type.lower() in known_engines() else UNKNOWN_ENGINE


def _why_inactive(instance: SourceInstance, db_type: str, credential: CredentialMove | None) -> str:
    """Return why *instance* is not visited; empty when it is."""
    if instance.deleted_at is not None:
        return "deleted there"
    if db_type == UNKNOWN_ENGINE:
        return f"{instance.db_type} is not measured here: registered as inactive, with its history"
    if not instance.is_active:
        return "inactive there"
    if credential is None:
        return "without a credential that comes along: registered as inactive; a fleet file can give it one"
    return ""


def _differences(instance: SourceInstance, stored: StoredInstance, credential: CredentialMove | None) -> str:
    """Return that an instance stays as it is registered here, and in what it differs from *instance*."""
    pairs = [
        ("engine", stored.db_type, _engine_of(instance)),
        ("host", stored.host, instance.host),
        ("port", stored.port, instance.port),
        ("credential", stored.credential, credential.source.name if credential else None),
    ]
    different = [f"{name} {here} here, {there} there" for name, here, there in pairs if here != there]
    return "registered here already" + (f"; stays as it is: {', '.join(different)}" if different else "")


def _problems(move: InstanceMove) -> list[str]:
    """Return what of an instance a fleet file would refuse: its name, and of one that is visited the address too."""
    if move.outcome is Outcome.KEPT:
        return []
    instance = move.source
    entry = {
        "name": instance.name,
        "engine": move.db_type if move.is_active else ServerEngine.POSTGRESQL,
        "host": instance.host if move.is_active else "host",
        "port": instance.port if move.is_active else None,
        "credential": {"stored": move.credential or "none"},
    }
    try:
        InstanceEntry.model_validate(entry)
    except ValidationError as error:
        return [
            f"instance {instance.name[:60]!r}: its {'.'.join(map(str, problem['loc']))} cannot be kept: "
            f"{problem['msg'].removeprefix('Value error, ')}; change it in WhaleFall"
            for problem in error.errors(include_url=False, include_context=False, include_input=False)
        ]
    return []
