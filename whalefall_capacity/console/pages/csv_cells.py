"""CSV files that people open in a spreadsheet: rows, and cells that do no harm there."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence
from operator import attrgetter

from starlette.responses import Response

# Spreadsheets take a cell that begins like this for a formula; those of East Asian languages the wide signs, too.
# https://owasp.org/www-community/attacks/CSV_Injection
FORMULA_SIGNS = ("=", "+", "-", "@", "\t", "\r", "\n", "\uff1d", "\uff0b", "\uff0d", "\uff20")


def harmless(cell: str) -> str:
    """Return a cell that no spreadsheet takes for a formula."""
    return f"'{cell}" if cell.startswith(FORMULA_SIGNS) else cell


def csv_file(name: str, columns: Sequence[str], rows: Iterable[object]) -> Response:
    """Return *rows* as a file to download, a cell for each of their attributes *columns*; sizes in bytes."""
    content = io.StringIO()
    writer = csv.writer(content)
    values_of = attrgetter(*columns)
    for row in rows:
        writer.writerow([harmless(value) if isinstance(value, str) else value for value in values_of(row)])
    return csv_of_lines(name, columns, [content.getvalue()])


def csv_of_lines(name: str, columns: Sequence[str], lines: Iterable[str]) -> Response:
    """Return parts of a CSV file, which end with a line, as a file to download with the names of its *columns*."""
    return Response(
        "".join([",".join(columns), "\r\n", *lines]),
        media_type="text/csv; charset=utf-8",
        headers={"Content-Disposition": f'attachment; filename="{name}.csv"'},
    )
