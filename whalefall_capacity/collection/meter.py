"""How much a server may answer in one visit: more than that is an error, before it fills the memory."""

from __future__ import annotations

from whalefall_capacity.errors import CollectionError

# A hundred thousand databases fit: their names and sizes are 300 bytes each, in all answers of a visit together.
VISIT_LIMIT_BYTES = 32 * 1024**2


class Meter:
    """Counts what one server has sent in one visit."""

    def __init__(self, limit_bytes: int = VISIT_LIMIT_BYTES) -> None:
        self._limit_bytes = limit_bytes
        self._left_bytes = limit_bytes

    def count(self, received_bytes: int) -> None:
        """Count what has arrived. Raises CollectionError when it is too much."""
        self._left_bytes -= received_bytes
        if self._left_bytes < 0:
            raise CollectionError(
                f"the server answered with more than {self._limit_bytes // 1024**2} MiB in one visit, which the sizes "
                "of its databases do not take; look at what listens there"
            )
