"""Reports to Dagster of days that were not measured here."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date

from sqlalchemy import Engine

from whalefall_capacity.errors import StoreError


def report_days(engine: Engine, days: Sequence[date] = ()) -> None:
    """Report *days* to Dagster, and each imported day that it was not told of. Raises StoreError."""
    # Imported here: Dagster takes seconds to load, and a refused file or a plan needs none of it.
    from whalefall_capacity.assets.imported import report_imported_days

    try:
        report_imported_days(engine, days)
    except Exception as error:
        raise StoreError(
            f"the rows are written, but could not be reported to Dagster's storage: {error}; once it can be reached, "
            "run the same command again: it reports what is missing"
        ) from error
