"""fleet.yaml: the servers to watch, checked by schema; errors name the line and the field."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from ipaddress import IPv6Address
from pathlib import Path
from typing import Annotated, Any, LiteralString

from pydantic import AfterValidator, BeforeValidator, Field, ValidationError, field_validator, model_validator
from pydantic_core import InitErrorDetails, PydanticCustomError

from whalefall_capacity.byte_sizes import LARGEST_SIZE, bytes_in
from whalefall_capacity.collection.sizes import ServerEngine, Tls
from whalefall_capacity.engine_catalog import known_engines, known_engines_in_words
from whalefall_capacity.errors import FleetFileError
from whalefall_capacity.libpq import is_forgotten
from whalefall_capacity.yaml_file import Strict, number, read_yaml_file

TLS_FILES = ("ca_file", "cert_file", "key_file", "server_public_key_file")
MYSQL_FAMILY = (ServerEngine.MYSQL, ServerEngine.MARIADB)


def _engine(name: str) -> str:
    if name not in known_engines():
        raise ValueError(f"must be {known_engines_in_words()}")
    return name


def _not_blank(name: str) -> str:
    if not name.strip():
        raise ValueError("must not be blank")
    return name


def _host(value: Any) -> Any:
    """Accept an IPv6 address in brackets, as in URLs; refuse a host with a port."""
    if not isinstance(value, str) or value.startswith(("/", "@")):
        return value
    if value and not value.strip():
        raise ValueError("must not be blank")
    if "://" in value:
        # The value is not repeated: a URL may have a password in it.
        raise ValueError("must be a name or an address, not a URL")
    bracketed = re.fullmatch(r"\[(.*)\]", value)
    if bracketed:
        try:
            return str(IPv6Address(bracketed[1]))
        except ValueError:
            raise ValueError("must have an IPv6 address between the brackets") from None
    if re.fullmatch(r"[^:]*:\d+|\[.*\]:\d+", value):
        raise ValueError("must not include the port, which has its own field")
    return value


def _kept_variable(name: str | None) -> str | None:
    """Refuse the variables that `forget_environment` removes before a password is looked up."""
    if name is not None and is_forgotten(name):
        raise ValueError("is a variable of libpq, which gets to see none; choose another name, such as SHOP_PASSWORD")
    return name


class CredentialEntry(Strict):
    """The account to connect as, with a reference to its password: exactly one of three kinds."""

    username: str | None = Field(default=None, min_length=1)
    password_env: Annotated[str | None, AfterValidator(_kept_variable)] = Field(default=None, min_length=1)
    password_file: str | None = Field(default=None, min_length=1)
    stored: str | None = Field(default=None, min_length=1)

    @model_validator(mode="after")
    def one_reference(self) -> CredentialEntry:
        given = [self.password_env, self.password_file, self.stored]
        if sum(value is not None for value in given) != 1:
            raise ValueError("give exactly one of password_env, password_file and stored")
        if (self.stored is None) == (self.username is None):
            raise ValueError("username goes with password_env or password_file; a stored credential has its own")
        return self

    @property
    def reference(self) -> str | None:
        """`env:VARIABLE`, `file:/path`, or None for a stored credential."""
        if self.password_env is not None:
            return f"env:{self.password_env}"
        return f"file:{self.password_file}" if self.password_file is not None else None


class InstanceEntry(Strict):
    """One server."""

    name: Annotated[str, AfterValidator(_not_blank)] = Field(min_length=1, max_length=128)
    engine: Annotated[str, AfterValidator(_engine)]
    host: Annotated[str, BeforeValidator(_host)] = Field(min_length=1)
    port: Annotated[int | None, BeforeValidator(number)] = Field(default=None, ge=1, le=65_535)
    database: str | None = Field(default=None, min_length=1)
    tls: Tls | None = None
    credential: CredentialEntry
    capacity_limit: Annotated[int | None, BeforeValidator(bytes_in), BeforeValidator(number)] = Field(
        default=None, gt=0, le=LARGEST_SIZE
    )
    replica_of: str | None = Field(default=None, min_length=1)
    description: str | None = None
    active: bool = True

    @model_validator(mode="after")
    def key_is_of_mysql(self) -> InstanceEntry:
        if self.engine not in MYSQL_FAMILY and self.tls is not None and self.tls.server_public_key_file:
            raise ValueError("tls.server_public_key_file is for MySQL servers only")
        return self


class FleetFile(Strict):
    """The whole file. A fleet of no server is refused: applying it would disable every instance."""

    instances: list[InstanceEntry] = Field(min_length=1)

    @field_validator("instances")
    @classmethod
    def distinct_names(cls, instances: list[InstanceEntry]) -> list[InstanceEntry]:
        twice = sorted(name for name, count in Counter(instance.name for instance in instances).items() if count > 1)
        if twice:
            raise ValueError(f"names must be distinct; more than once: {', '.join(twice)}")
        return instances

    @field_validator("instances")
    @classmethod
    def replicas_have_their_primary(cls, instances: list[InstanceEntry]) -> list[InstanceEntry]:
        by_name = {instance.name: instance for instance in instances}
        problems = [
            InitErrorDetails(type=PydanticCustomError("replica_of", problem), loc=(place, "replica_of"), input=None)
            for place, instance in enumerate(instances)
            if (problem := _problem_of_replica(instance, by_name)) is not None
        ]
        if problems:
            raise ValidationError.from_exception_data(cls.__name__, problems, hide_input=True)
        return instances


def _problem_of_replica(instance: InstanceEntry, by_name: Mapping[str, InstanceEntry]) -> LiteralString | None:
    """Return why *instance* cannot be the replica that it says it is: its data must count once, at the primary."""
    if instance.replica_of is None:
        return None
    primary = by_name.get(instance.replica_of)
    if primary is None:
        return "names no instance of this file"
    if primary is instance:
        return "names the instance itself"
    if primary.replica_of is not None:
        return "names a replica; name the primary that it follows"
    if primary.engine != instance.engine:
        return "names an instance of another engine"
    if instance.active and not primary.active:
        return "names an instance that is not active, where its data would not be counted"
    return None


def read_fleet_file(path: Path) -> FleetFile:
    """Read and check a fleet file; relative paths in it are seen from its folder.

    Raises FleetFileError that names every bad field with its line.
    """
    fleet = read_yaml_file(path, FleetFile, FleetFileError)
    # Of a pipe there is no folder.
    folder = path.absolute().parent if path.is_file() else Path.cwd()
    return fleet.model_copy(update={"instances": [_with_whole_paths(entry, folder) for entry in fleet.instances]})


def _with_whole_paths(entry: InstanceEntry, folder: Path) -> InstanceEntry:
    """Return *entry* with the whole paths of its files: the service works in another folder."""
    credential, tls = entry.credential, entry.tls
    if credential.password_file is not None:
        whole = str(folder / credential.password_file)
        credential = credential.model_copy(update={"password_file": whole})
    if tls is not None:
        given = {name: getattr(tls, name) for name in TLS_FILES}
        # `system`, to libpq: the authorities that the system trusts.
        files: Any = {name: str(folder / file) for name, file in given.items() if file not in (None, "system")}
        tls = replace(tls, **files)
    return entry.model_copy(update={"credential": credential, "tls": tls})
