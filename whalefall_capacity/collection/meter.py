"""Memory that the answers of one visit may take: more is an error, before it is taken."""

from __future__ import annotations

import sys
from typing import Any

from whalefall_capacity.errors import CollectionError

# With names of 30 characters, 300,000 InnoDB tables of a MySQL 8 or newer fit (440 bytes each), 190,000 of a MariaDB or
# an older MySQL (705), and 230,000 of any other engine, or where the views of InnoDB cannot be read (577).
VISIT_LIMIT_BYTES = 128 * 1024**2


class Meter:
    """Counts what the answers of one server take in one visit."""

    def __init__(self, limit_bytes: int = VISIT_LIMIT_BYTES) -> None:
        self._limit_bytes = limit_bytes
        self.taken_bytes = 0

    def count(self, taken_bytes: int) -> None:
        """Count memory. Raises CollectionError when it is too much, now and ever after."""
        self.taken_bytes += taken_bytes
        if self.taken_bytes > self._limit_bytes:
            raise CollectionError(
                f"the server's answers take more than {self._limit_bytes // 1024**2} MiB, which names and sizes of "
                "databases do not; look at what listens there"
            )

    def count_row(self, row: tuple[Any, ...]) -> None:
        """Count a row. Raises CollectionError like `count`."""
        taken_bytes = sys.getsizeof(row)
        for value in row:
            # Of None, and of each small number, Python keeps one object for all.
            if value is None or (isinstance(value, int) and -5 <= value <= 256):
                continue
            taken_bytes += sys.getsizeof(value)
        self.count(taken_bytes)
