"""Details of a visit, as its item keeps them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any


class VisitDetails:
    """A row with the *details_json* of an item; those of other items than visits have none of this."""

    details_json: Mapping[str, Any] | None

    @property
    def missing(self) -> Mapping[str, str]:
        """The databases that were listed and not measured, the first of very many, with their reasons."""
        found: Mapping[str, str] = self._details.get("missing", {})
        return found

    @property
    def missing_not_named(self) -> int:
        """The number of databases beside *missing* that were not measured."""
        return int(self._details.get("missing_not_named", 0))

    @property
    def caveats(self) -> Sequence[str]:
        """What is less sure about some of the sizes than it could be, and which privilege mends it."""
        found: Sequence[str] = self._details.get("caveats", ())
        return found

    @property
    def _details(self) -> Mapping[str, Any]:
        return self.details_json or {}
