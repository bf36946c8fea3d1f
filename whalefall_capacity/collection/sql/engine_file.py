"""Engine files: the queries that measure one kind of server, and how its driver connects. docs/engines.md"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, Field, StringConstraints

from whalefall_capacity.collection.sizes import (
    ENGINE_FILE_SUFFIX,
    ENGINE_NAME,
    TAKEN_NAMES,
    NameFilter,
    Target,
    TlsMode,
)
from whalefall_capacity.errors import EngineFileError
from whalefall_capacity.yaml_file import Strict, number, read_yaml_file

FILES_KEPT = 64
PLACEHOLDER = re.compile(r"\{(\w+)\}")
CONNECT_SECONDS = "connect_timeout_seconds"
STATEMENT_SECONDS = "statement_timeout_seconds"
STATEMENT_MILLISECONDS = "statement_timeout_milliseconds"
OF_TARGET = ("host", "port", "database", "username", "password", "ca_file", "cert_file", "key_file")
# By where they may stand.
OF_CONNECTION = frozenset({*OF_TARGET, CONNECT_SECONDS, STATEMENT_SECONDS, STATEMENT_MILLISECONDS})
OF_SESSION = frozenset({STATEMENT_SECONDS, STATEMENT_MILLISECONDS})
OF_GRANT = frozenset({"username"})

Options = dict[str, Any]


def _engine_name(name: str) -> str:
    if name in TAKEN_NAMES:
        raise ValueError(f"'{name}' is built in; choose another name")
    return name


def _regex(pattern: str) -> str:
    try:
        return re.compile(pattern).pattern
    except re.error as error:
        raise ValueError(f"must be a regular expression ({error})") from error


def _placeholders(known: frozenset[str]) -> AfterValidator:
    """Return a validator of texts, or of options with texts in them, in which only *known* placeholders stand."""

    def validate(value: Any) -> Any:
        for text in _texts(value):
            if unknown := [name for name in PLACEHOLDER.findall(text) if name not in known]:
                raise ValueError(f"knows no placeholder {{{unknown[0]}}}; there are {', '.join(sorted(known))}")
            if "{password}" in text and text != "{password}":
                raise ValueError("must not have anything else beside {password}, which may contain any character")
        return value

    return AfterValidator(validate)


def _texts(value: object) -> Iterable[str]:
    if isinstance(value, str):
        yield value
    for part in value.values() if isinstance(value, Mapping) else value if isinstance(value, list) else ():
        yield from _texts(part)


Text = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1)]
Word = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9_]*$")]
ConnectionOptions = Annotated[Options, _placeholders(OF_CONNECTION)]


class Connection(Strict):
    """How the driver connects: the arguments of its `connect`, and what is then set on the connection."""

    arguments: Annotated[ConnectionOptions, Field(min_length=1)]
    attributes: ConnectionOptions = Field(default_factory=dict)
    database: str | None = Field(default=None, min_length=1)
    tls: dict[TlsMode, ConnectionOptions] = Field(default_factory=dict)


class Queries(Strict):
    """The statements, each of which gives the columns that docs/engines.md names."""

    version: Text
    databases: Text
    logs: Text | None = None
    tables: Text | None = None


class Grant(Strict):
    """A privilege to advise: the *probe* fails, or gives no row, NULL, 0 or false, where it is missing."""

    name: Text
    probe: Text
    grant: Annotated[Text, _placeholders(OF_GRANT)]
    required: bool = True


class EngineFile(Strict):
    """The whole file."""

    name: Annotated[str, StringConstraints(pattern=ENGINE_NAME), AfterValidator(_engine_name)]
    title: Text
    dialect: Word
    driver: Word
    install: Text
    default_port: Annotated[int, BeforeValidator(number)] = Field(ge=1, le=65_535)
    connection: Connection
    session: list[Annotated[Text, _placeholders(OF_SESSION)]] = Field(default_factory=list)
    queries: Queries
    exclude: frozenset[str] = frozenset()
    exclude_regex: Annotated[str, AfterValidator(_regex)] | None = None
    grants: list[Grant] = Field(default_factory=list)

    @property
    def driver_name(self) -> str:
        """The driver as SQLAlchemy names it."""
        return f"{self.dialect}+{self.driver}"

    @property
    def excluded(self) -> NameFilter:
        """The databases that are left out whatever the settings say."""
        return NameFilter(self.exclude, self.exclude_regex)

    def session_statements(self, seconds: float) -> list[str]:
        """Return the settings of one query, which may take *seconds*."""
        values = _time_limit(seconds)
        return [str(filled_in(statement, values)) for statement in self.session]

    def connect_arguments(self, target: Target, connect_seconds: float, statement_seconds: float) -> Options:
        """Return what the driver's `connect` is told. Raises EngineFileError when it has no such TLS mode."""
        values = _values(target, self.connection.database, connect_seconds, statement_seconds)
        return _filled_in_options(self.connection.arguments | self._tls_of(target), values)

    def attributes(self, target: Target, connect_seconds: float, statement_seconds: float) -> Options:
        """Return what is set on the connection of the driver."""
        values = _values(target, self.connection.database, connect_seconds, statement_seconds)
        return _filled_in_options(self.connection.attributes, values)

    def _tls_of(self, target: Target) -> Options:
        modes = self.connection.tls
        if (mode := next((mode for mode in modes if mode == target.tls.mode), None)) is not None:
            return modes[mode]
        # Nobody asked for anything; or nobody on the way can listen.
        if target.tls.mode == "prefer" or target.is_local:
            return {}
        raise EngineFileError(
            f"tls.mode is {target.tls.mode}, and engine {self.name} has no such mode; "
            f"it has {', '.join(modes) if modes else 'none'}, and prefer, which is up to the driver"
        )


def read_engine_file(path: Path) -> EngineFile:
    """Read and check an engine file, again when it has changed. Raises EngineFileError with file, line and field."""
    try:
        found = path.stat()
    except OSError as error:
        raise EngineFileError(f"{path}: cannot be read: {error}") from None
    return _read(path, (found.st_ino, found.st_size, found.st_mtime_ns))


@lru_cache(FILES_KEPT)
def _read(path: Path, _identity: tuple[int, int, int]) -> EngineFile:
    engine = read_yaml_file(path, EngineFile, EngineFileError)
    if path.name != f"{engine.name}{ENGINE_FILE_SUFFIX}":
        raise EngineFileError(
            f"{path}: name: is {engine.name}: the file must be named {engine.name}{ENGINE_FILE_SUFFIX}"
        )
    return engine


def filled_in(text: str, values: Mapping[str, object]) -> object:
    """Return *text* with its placeholders filled in; what is one placeholder and nothing else becomes its value."""
    if whole := PLACEHOLDER.fullmatch(text):
        return values[whole[1]]
    return PLACEHOLDER.sub(lambda found: str(values[found[1]]), text)


def _filled_in_options(options: Mapping[str, Any], values: Mapping[str, object]) -> Options:
    """Return *options* filled in, without those for which there is no value."""
    found = {name: _filled_in_option(option, values) for name, option in options.items()}
    return {name: value for name, value in found.items() if value is not None}


def _filled_in_option(option: Any, values: Mapping[str, object]) -> Any:
    if isinstance(option, Mapping):
        return _filled_in_options(option, values)
    if not isinstance(option, str):
        return option
    named = PLACEHOLDER.findall(option)
    return None if any(values[name] is None for name in named) else filled_in(option, values)


def _values(
    target: Target, default_database: str | None, connect_seconds: float, statement_seconds: float
) -> dict[str, object]:
    return {
        "host": target.host,
        "port": target.port,
        "database": target.database or default_database,
        "username": target.username,
        "password": target.password.get_secret_value(),
        "ca_file": target.tls.ca_file,
        "cert_file": target.tls.cert_file,
        "key_file": target.tls.key_file,
        # Drivers count whole seconds.
        CONNECT_SECONDS: math.ceil(connect_seconds),
        **_time_limit(statement_seconds),
    }


def _time_limit(seconds: float) -> dict[str, object]:
    return {STATEMENT_SECONDS: math.ceil(seconds), STATEMENT_MILLISECONDS: math.ceil(seconds * 1000)}
