"""Cells of the rows of lists: made here, where fifty rows take the time of ten in a template."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import date
from typing import Protocol
from urllib.parse import quote_plus

from markupsafe import Markup, escape

from whalefall_capacity.console.pages.formats import NOT_KNOWN, binary_size, signed_size
from whalefall_capacity.console.pages.sparklines import HEIGHT, WIDTH, spark_path

FIGURES = """<td class="figure">{}</td>
    <td class="figure">{}</td>
    <td class="figure">{}</td>
    <td class="figure">{}</td>
    <td>{}</td>"""
LINE = (
    f'<svg class="spark" viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" height="{HEIGHT}" aria-hidden="true">'
    '<path d="{}"/></svg>'
)


class Sized(Protocol):
    """A row of a list: an instance or a database."""

    @property
    def size_bytes(self) -> int | None: ...
    @property
    def day(self) -> date | None: ...
    @property
    def change_7_days_bytes(self) -> int | None: ...
    @property
    def change_30_days_bytes(self) -> int | None: ...
    @property
    def trend(self) -> Sequence[int | None]: ...


def size_cells(row: Sized) -> Markup:
    """Return the cells of the latest size, its day, its changes and the small line."""
    path = spark_path(row.trend)
    cells = FIGURES.format(
        binary_size(row.size_bytes),
        row.day or NOT_KNOWN,
        signed_size(row.change_7_days_bytes),
        signed_size(row.change_30_days_bytes),
        LINE.format(path) if path else "",
    )
    return Markup(cells)  # noqa: S704 - figures alone


def size_status(words: Mapping[str, str], status: str) -> Markup:
    """Return the mark of a status."""
    word = escape(words[f"list.status.{status}"])
    return Markup(f'<span class="status {status}">{word}</span>')  # noqa: S704 - a status is a word of ours


def database_url(instance_id: int, name: str) -> Markup:
    """Return the URL of the page of a database."""
    return Markup(f"/instances/{instance_id}/database?name={quote_plus(name)}")  # noqa: S704 - nothing of the name acts
