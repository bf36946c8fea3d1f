"""Single statements, each in a transaction of its own; one that only reads starts again when the connection is lost."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from sqlalchemy import Engine, text

from whalefall_capacity.store.postgres.engine import again_if_connection_lost

T = TypeVar("T")


@again_if_connection_lost
def read_rows(engine: Engine, make: Callable[..., T], statement: str, **values: Any) -> list[T]:
    """Return what *make* returns for each row of *statement*, whose columns are named as its parameters."""
    with engine.connect() as connection:
        return [make(**row) for row in connection.execute(text(statement), values).mappings()]


@again_if_connection_lost
def read_value(engine: Engine, statement: str, **values: Any) -> Any:
    """Return the one value of *statement*."""
    with engine.connect() as connection:
        return connection.execute(text(statement), values).scalar_one()


def typed(row_type: Callable[..., T], **types: Callable[[Any], object]) -> Callable[..., T]:
    """Return a function for `read_rows` that makes a *row_type* of a row, after giving some columns their *types*."""
    return lambda **row: row_type(**row | {name: make(row[name]) for name, make in types.items()})


def write(engine: Engine, statement: str, **values: Any) -> int:
    """Execute *statement* and return how many rows it wrote."""
    with engine.begin() as connection:
        return connection.execute(text(statement), values).rowcount
