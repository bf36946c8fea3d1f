"""fleet.yaml: the servers to watch, checked by schema; errors name the line and the field."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from ipaddress import IPv6Address
from pathlib import Path
from typing import Annotated, Any, LiteralString

import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, field_validator, model_validator
from pydantic_core import InitErrorDetails, PydanticCustomError

from whalefall_capacity.byte_sizes import LARGEST_SIZE, bytes_in
from whalefall_capacity.collection.sizes import ServerEngine, Tls
from whalefall_capacity.errors import FleetFileError


def _number(value: Any) -> Any:
    """Refuse booleans, which Python would take for 1 and 0."""
    if isinstance(value, bool):
        raise ValueError("must be a number")
    return value


def _host(value: Any) -> Any:
    """Accept an IPv6 address in brackets, as in URLs; refuse a host with a port."""
    if not isinstance(value, str) or value.startswith(("/", "@")):
        return value
    bracketed = re.fullmatch(r"\[(.*)\]", value)
    if bracketed:
        try:
            return str(IPv6Address(bracketed[1]))
        except ValueError:
            raise ValueError("must have an IPv6 address between the brackets") from None
    if re.fullmatch(r"[^:]*:\d+|\[.*\]:\d+", value):
        raise ValueError("must not include the port, which has its own field")
    return value


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)


class CredentialEntry(_Strict):
    """The account to connect as, with a reference to its password: exactly one of three kinds."""

    username: str | None = Field(default=None, min_length=1)
    password_env: str | None = Field(default=None, min_length=1)
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


class InstanceEntry(_Strict):
    """One server."""

    name: str = Field(min_length=1, max_length=128)
    engine: ServerEngine
    host: Annotated[str, BeforeValidator(_host)] = Field(min_length=1)
    port: Annotated[int | None, BeforeValidator(_number)] = Field(default=None, ge=1, le=65_535)
    database: str | None = Field(default=None, min_length=1)
    tls: Tls | None = None
    credential: CredentialEntry
    capacity_limit: Annotated[int | None, BeforeValidator(bytes_in), BeforeValidator(_number)] = Field(
        default=None, gt=0, le=LARGEST_SIZE
    )
    replica_of: str | None = Field(default=None, min_length=1)
    description: str | None = None
    active: bool = True

    @model_validator(mode="after")
    def key_is_of_mysql(self) -> InstanceEntry:
        if self.engine is ServerEngine.POSTGRESQL and self.tls is not None and self.tls.server_public_key_file:
            raise ValueError("tls.server_public_key_file is for MySQL servers only")
        return self


class FleetFile(_Strict):
    """The whole file. A fleet of no server is refused: applying it would disable every instance."""

    instances: list[InstanceEntry] = Field(min_length=1)

    @field_validator("instances")
    @classmethod
    def distinct_names(cls, instances: list[InstanceEntry]) -> list[InstanceEntry]:
        names = [instance.name for instance in instances]
        twice = sorted({name for name in names if names.count(name) > 1})
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
    if primary.engine is not instance.engine:
        return "names an instance of another engine"
    if instance.active and not primary.active:
        return "names an instance that is not active, where its data would not be counted"
    return None


def read_fleet_file(path: Path) -> FleetFile:
    """Read and check a fleet file. Raises FleetFileError that names every bad field with its line."""
    try:
        source = path.read_text(encoding="utf-8")
        tree = yaml.compose(source, Loader=yaml.SafeLoader)
        content = yaml.safe_load(source)
    except (OSError, ValueError) as error:
        # ValueError: not UTF-8, or an impossible date such as one with month 13.
        raise FleetFileError(f"{path}: cannot be read: {error}") from None
    except yaml.YAMLError as error:
        raise FleetFileError(f"{path}:{_describe_yaml(error)}") from None
    repeated = [f"{path}: line {line}: {key}: appears twice in one mapping" for line, key in _repeated_keys(tree)]
    if repeated:
        raise FleetFileError(repeated)
    try:
        return FleetFile.model_validate(content if isinstance(content, dict) else {})
    except ValidationError as error:
        problems = error.errors(include_url=False, include_context=False, include_input=False)
        raise FleetFileError([_describe(path, tree, problem["loc"], problem["msg"]) for problem in problems]) from None


def _describe(path: Path, tree: yaml.Node | None, location: tuple[int | str, ...], message: str) -> str:
    field = ".".join(str(part) for part in location) or "file"
    return f"{path}: line {_line(tree, location)}: {field}: {message.removeprefix('Value error, ')}"


def _describe_yaml(error: yaml.YAMLError) -> str:
    if not isinstance(error, yaml.MarkedYAMLError):
        return f" not YAML: {error}"
    what = " ".join(part for part in (error.context, error.problem) if part)
    line = f" line {error.problem_mark.line + 1}:" if error.problem_mark else ""
    # A password that begins with * or ! is parsed as the name of an alias or tag: do not show it.
    return f"{line} not YAML: " + re.sub(r"(alias|anchor|tag|handle) '.*'", r"\1", what)


def _repeated_keys(root: yaml.Node | None) -> Iterator[tuple[int, str]]:
    """Yield the line and name of every repeated key: YAML would silently keep only the last one."""
    pending, visited = [root], set[int]()
    while pending:
        node = pending.pop()
        # An alias leads to a node that was visited, possibly one that contains it.
        if id(node) in visited:
            continue
        visited.add(id(node))
        if isinstance(node, yaml.SequenceNode):
            pending += node.value
        elif isinstance(node, yaml.MappingNode):
            keys = [key.value for key, _ in node.value]
            for position, (key, value) in enumerate(node.value):
                pending.append(value)
                if key.value in keys[:position]:
                    yield key.start_mark.line + 1, str(key.value)


def _line(node: yaml.Node | None, location: tuple[int | str, ...]) -> int:
    """Return the line of the innermost part of *location* that exists in the file."""
    if node is None:
        return 1
    line = node.start_mark.line + 1
    for part in location:
        child = None
        if isinstance(node, yaml.SequenceNode) and isinstance(part, int) and part < len(node.value):
            child = node.value[part]
            line = child.start_mark.line + 1
        elif isinstance(node, yaml.MappingNode):
            for key, value in node.value:
                if key.value == part:
                    child, line = value, key.start_mark.line + 1
        if child is None:
            break
        node = child
    return line
