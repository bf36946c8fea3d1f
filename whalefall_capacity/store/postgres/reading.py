"""Reading by one statement, begun again when the connection is lost."""

from __future__ import annotations

from typing import Any, TypeVar

from sqlalchemy import Engine, text

from whalefall_capacity.store.postgres.engine import again_if_connection_lost

T = TypeVar("T")


@again_if_connection_lost
def read_rows(engine: Engine, row_type: type[T], statement: str, **values: Any) -> list[T]:
    """Return the rows of *statement*, whose columns are named as the fields of *row_type*."""
    with engine.connect() as connection:
        return [row_type(**row) for row in connection.execute(text(statement), values).mappings()]


@again_if_connection_lost
def read_value(engine: Engine, statement: str, **values: Any) -> Any:
    """Return the one value of *statement*."""
    with engine.connect() as connection:
        return connection.execute(text(statement), values).scalar_one()
