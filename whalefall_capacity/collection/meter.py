"""How much memory the answers of one visit may take: more is an error, before it is taken."""

from __future__ import annotations

import sys
from typing import Any

from whalefall_capacity.errors import CollectionError

# Two hundred thousand tables of a MySQL server fit, or as many databases of a PostgreSQL server.
VISIT_LIMIT_BYTES = 128 * 1024**2


class Meter:
    """Counts what the answers of one server take in one visit."""

    def __init__(self, limit_bytes: int = VISIT_LIMIT_BYTES) -> None:
        self._limit_bytes = limit_bytes
        self._left_bytes = limit_bytes

    def count(self, taken_bytes: int) -> None:
        """Count memory. Raises CollectionError when it is too much, now and ever after."""
        self._left_bytes -= taken_bytes
        if self._left_bytes < 0:
            raise CollectionError(
                f"the server's answers take more than {self._limit_bytes // 1024**2} MiB, which names and sizes of "
                "databases do not; look at what listens there"
            )

    def count_row(self, row: tuple[Any, ...]) -> None:
        """Count a row. Raises CollectionError like `count`."""
        self.count(sys.getsizeof(row) + sum(map(sys.getsizeof, row)))
