"""CSV files that people open in a spreadsheet: rows in parts, and cells that do no harm there."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Iterator, Sequence
from operator import attrgetter

from starlette.responses import Response, StreamingResponse

# Spreadsheets take a cell that begins like this for a formula.
FORMULA_SIGNS = ("=", "+", "-", "@", "\t", "\r")
# Each part is a hop between threads.
ROWS_OF_A_PART = 2000


def harmless(cell: str) -> str:
    """Return a cell that no spreadsheet takes for a formula."""
    return f"'{cell}" if cell.startswith(FORMULA_SIGNS) else cell


def csv_file(name: str, columns: Sequence[str], rows: Iterable[object]) -> Response:
    """Return *rows* as a file to download, a cell for each of their attributes *columns*; sizes in bytes."""
    return StreamingResponse(
        _parts(columns, rows),
        media_type="text/csv; charset=utf-8",
        headers={"Content-Disposition": f'attachment; filename="{name}.csv"'},
    )


def _parts(columns: Sequence[str], rows: Iterable[object]) -> Iterator[str]:
    content = io.StringIO()
    writer = csv.writer(content)
    writer.writerow(columns)
    values_of = attrgetter(*columns)
    for number, row in enumerate(rows, 1):
        writer.writerow([harmless(value) if isinstance(value, str) else value for value in values_of(row)])
        if number % ROWS_OF_A_PART == 0:
            yield content.getvalue()
            content.seek(0)
            content.truncate()
    yield content.getvalue()
