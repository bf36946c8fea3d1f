"""Rows of lists: made here, where fifty take the time of ten in a template."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import date
from html import escape
from typing import Protocol
from urllib.parse import quote_plus

from markupsafe import Markup

from whalefall_capacity.console.pages.choices import shown
from whalefall_capacity.console.pages.formats import NOT_KNOWN, binary_size, signed_size
from whalefall_capacity.console.pages.sparklines import HEIGHT, WIDTH, spark_path
from whalefall_capacity.store.sizes.database_list import ListedDatabase
from whalefall_capacity.store.sizes.instance_list import ListedInstance

FIGURES = """<td class="figure">{}</td>
    <td class="figure">{}</td>
    <td class="figure">{}</td>
    <td class="figure">{}</td>
    <td>{}</td>"""
DATABASE = """<tr>
    <th scope="row"><a href="{}">{}</a></th>
    <td><a href="/instances/{}">{}</a></td>
    <td class="engine">{}</td>
    <td>{}</td>
    {}
  </tr>"""
INSTANCE = """<tr>
    <th scope="row"><a href="/instances/{}">{}</a></th>
    <td class="engine">{}</td>
    <td>{}</td>
    {}
    <td class="figure">{}{}</td>
  </tr>"""
COUNT = '<a href="/databases/list?instance_id={}">{:,}</a>'
MISSING = ' <span class="bad">{}</span>'
FAILURE = '<tr class="error-row"><td colspan="9">{}</td></tr>'
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


def database_rows(words: Mapping[str, str], rows: Iterable[ListedDatabase]) -> Markup:
    """Return the rows of the list of databases."""
    return _joined(
        DATABASE.format(
            _url(row.instance_id, row.database_name),
            shown(row.database_name),
            row.instance_id,
            shown(row.instance),
            row.db_type,
            _status(words, row.status.value),
            _cells(row),
        )
        for row in rows
    )


def instance_rows(words: Mapping[str, str], rows: Iterable[ListedInstance]) -> Markup:
    """Return the rows of the list of instances, below each the failure of its newest visit."""
    return _joined(
        INSTANCE.format(
            row.instance_id,
            shown(row.instance),
            row.db_type,
            _status(words, row.status.value),
            _cells(row),
            NOT_KNOWN if row.database_count is None else COUNT.format(row.instance_id, row.database_count),
            MISSING.format(escape(words["list.missing"].format(count=f"{row.missing_count:,}")))
            if row.missing_count
            else "",
        )
        + (FAILURE.format(shown(row.failure)) if row.failure else "")
        for row in rows
    )


def size_cells(row: Sized) -> Markup:
    """Return the cells of the latest size, its day, its changes and the small line."""
    return Markup(_cells(row))  # noqa: S704 - figures alone


def size_status(words: Mapping[str, str], status: str) -> Markup:
    """Return the mark of a status."""
    return Markup(_status(words, status))  # noqa: S704 - escaped


def database_url(instance_id: int, name: str) -> Markup:
    """Return the URL of the page of a database."""
    return Markup(_url(instance_id, name))  # noqa: S704 - nothing of the name acts


def _cells(row: Sized) -> str:
    path = spark_path(row.trend)
    return FIGURES.format(
        binary_size(row.size_bytes),
        row.day or NOT_KNOWN,
        signed_size(row.change_7_days_bytes),
        signed_size(row.change_30_days_bytes),
        LINE.format(path) if path else "",
    )


def _status(words: Mapping[str, str], status: str) -> str:
    return f'<span class="status {status}">{escape(words[f"list.status.{status}"])}</span>'


def _url(instance_id: int, name: str) -> str:
    return f"/instances/{instance_id}/database?name={quote_plus(name)}"


def _joined(rows: Iterable[str]) -> Markup:
    return Markup("\n".join(rows))  # noqa: S704 - every name in them is escaped
