"""YAML files that people write, checked by a schema; errors name the file, the line and the field."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

from whalefall_capacity.errors import WhalefallError

Model = TypeVar("Model", bound=BaseModel)


class Strict(BaseModel):
    """A part of a file: a field that it does not know is refused, and no error shows a value."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)


def number(value: Any) -> Any:
    """Refuse booleans, which Python would take for 1 and 0."""
    if isinstance(value, bool):
        raise ValueError("must be a number")
    return value


def read_yaml_file(path: Path, model: type[Model], refusal: Callable[[str | Sequence[str]], WhalefallError]) -> Model:
    """Read a file as a *model*. Raises a *refusal*, of a sentence or of a line for every bad field."""
    try:
        source = path.read_text(encoding="utf-8")
        tree = yaml.compose(source, Loader=yaml.SafeLoader)
        content = yaml.safe_load(source)
    except (OSError, ValueError) as error:
        # ValueError: not UTF-8, or an impossible date such as one with month 13.
        raise refusal(f"{path}: cannot be read: {error}") from None
    except yaml.YAMLError as error:
        raise refusal(f"{path}:{_describe_yaml(error)}") from None
    problems = [f"{path}: line {line}: {key}: appears twice in one mapping" for line, key in _repeated_keys(tree)]
    if not problems:
        try:
            return model.model_validate(content if isinstance(content, dict) else {})
        except ValidationError as error:
            found = error.errors(include_url=False, include_context=False, include_input=False)
            problems = [_describe(path, tree, problem["loc"], problem["msg"]) for problem in found]
    raise refusal(problems)


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
