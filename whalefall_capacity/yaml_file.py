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


class _Loader(yaml.SafeLoader):
    """PyYAML's safe loader, for which a value that its tag does not allow is an error of its line like any other.

    SafeLoader itself raises whatever the conversion raises, in words that repeat the value.
    """

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        try:
            return super().construct_object(node, deep)
        except (ValueError, LookupError, AttributeError):
            # Only tags that the loader knows lead here, so the name of the type is none that somebody wrote.
            kind = node.tag.rpartition(":")[2]
            problem = f"not a valid {kind}; text that looks like one needs quotation marks"
            raise yaml.constructor.ConstructorError(None, None, problem, node.start_mark) from None


def _decimal(construct: Callable[[_Loader, yaml.ScalarNode], float]) -> Callable[[_Loader, yaml.ScalarNode], float]:
    """Return *construct* for numbers that mean to people what they mean to it.

    To YAML 1.1 0777 is octal, 511, and 1:30 is sexagesimal, 90: https://yaml.org/type/int.html
    """

    def number_of(loader: _Loader, node: yaml.ScalarNode) -> float:
        if re.match(r"[-+]?0[0-9_]", node.value) or ":" in node.value:
            raise ValueError("octal or sexagesimal")
        return construct(loader, node)

    return number_of


_Loader.add_constructor("tag:yaml.org,2002:int", _decimal(_Loader.construct_yaml_int))
_Loader.add_constructor("tag:yaml.org,2002:float", _decimal(_Loader.construct_yaml_float))


def read_yaml_file(path: Path, model: type[Model], refusal: Callable[[str | Sequence[str]], WhalefallError]) -> Model:
    """Read a file as a *model*. Raises a *refusal*, of a sentence or of a line for every bad field."""
    try:
        source = path.read_text(encoding="utf-8")
        tree = yaml.compose(source, Loader=yaml.SafeLoader)
        content = _Loader(source).get_single_data()
    except (OSError, UnicodeDecodeError) as error:
        raise refusal(f"{path}: cannot be read: {error}") from None
    except yaml.YAMLError as error:
        raise refusal(f"{path}:{_describe_yaml(error)}") from None
    except RecursionError:
        raise refusal(f"{path}: not YAML: its brackets or its lists are nested too deeply") from None
    problems = [f"{path}: line {line}: {key}: appears twice in one mapping" for line, key in _repeated_keys(tree)]
    problems += [f"{path}: line {line}: must not contain a NUL character" for line in _lines_with_nul(tree)]
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
    for node in _nodes(root):
        if isinstance(node, yaml.MappingNode):
            keys = [key.value for key, _ in node.value]
            for position, (key, _) in enumerate(node.value):
                if key.value in keys[:position]:
                    yield key.start_mark.line + 1, str(key.value)


def _lines_with_nul(root: yaml.Node | None) -> Iterator[int]:
    r"""Yield the line of every value with a NUL, which YAML writes "\0": neither PostgreSQL nor a driver takes it."""
    for node in _nodes(root):
        if isinstance(node, yaml.ScalarNode) and "\0" in node.value:
            yield node.start_mark.line + 1


def _nodes(root: yaml.Node | None) -> Iterator[yaml.Node]:
    """Yield every node once, without the keys of mappings."""
    pending, visited = [] if root is None else [root], set[int]()
    while pending:
        node = pending.pop()
        # An alias leads to a node that was visited, possibly one that contains it.
        if id(node) in visited:
            continue
        visited.add(id(node))
        yield node
        if isinstance(node, yaml.SequenceNode):
            pending += node.value
        elif isinstance(node, yaml.MappingNode):
            pending += [value for _, value in node.value]


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
