"""Parameters of requests, typed and bounded, the windows that they mean, and the page of a list that they ask for."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import date, timedelta
from typing import Annotated, Any, Generic, TypeVar

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, WithJsonSchema

from whalefall_capacity.collection.sizes import ENGINE_NAME, LONGEST_NAME
from whalefall_capacity.console.http.envelope import ApiError, invalid
from whalefall_capacity.periods import PeriodType, window_of, windows_back
from whalefall_capacity.printable import is_text
from whalefall_capacity.sentences import Sentence
from whalefall_capacity.store.aggregations.console_series import MOST_ROWS
from whalefall_capacity.store.aggregations.selection import Selection

DAY = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")
WHOLE = re.compile(r"[0-9]{1,18}")
# No store holds a day before or after.
EARLIEST, LATEST = date(2000, 1, 1), date(2199, 12, 31)
MOST_INSTANCES = 200
MOST_DB_TYPES = 50
LONGEST_RANGE_DAYS = 3660


def _day(value: Any) -> Any:
    if isinstance(value, str) and DAY.fullmatch(value):
        with suppress(ValueError):
            return date.fromisoformat(value)
    raise ValueError("must be a day that exists, such as 2026-01-31")


def _whole(value: Any) -> Any:
    if isinstance(value, str) and not WHOLE.fullmatch(value):
        raise ValueError("must be a whole number")
    return value


def _text(value: str) -> str:
    if "\x00" in value:
        raise ValueError("must not contain the character NUL")
    if not is_text(value):
        raise ValueError("must be text that UTF-8 can encode")
    return value


def _engine(value: str) -> str:
    if not re.fullmatch(ENGINE_NAME, value):
        raise ValueError("must be the name of an engine, such as postgresql")
    return value


Day = Annotated[date, BeforeValidator(_day)]
Whole = Annotated[int, BeforeValidator(_whole)]
PageNumber = Annotated[Whole, Field(ge=1)]
# Of any engine: one that no instance has leads to no rows.
DbType = Annotated[str, AfterValidator(_engine), WithJsonSchema({"type": "string", "pattern": ENGINE_NAME})]
Name = Annotated[str, Field(min_length=1, max_length=LONGEST_NAME), AfterValidator(_text)]


Row = TypeVar("Row")


class Rows(BaseModel, Generic[Row]):
    """Some rows of a list: the dataclasses of the store, with their descriptions."""

    items: list[Row]
    page: int
    limit: int
    total: int = Field(description="Counted up to 10,000.")
    total_is_exact: bool = Field(description="False when there are 10,000 or more.")
    pages: int
    has_next: bool


class Page(BaseModel):
    """A page of a list."""

    model_config = ConfigDict(extra="forbid")

    page: PageNumber = Field(
        default=1, description=f"Begins within the first {MOST_ROWS:,} rows: narrow the filter to see more."
    )
    limit: Annotated[Whole, Field(ge=1, le=200)] = Field(default=20, description="Rows of a page.")

    @property
    def offset(self) -> int:
        """Rows before the page. Raises ApiError beyond what can be paged through."""
        return offset_of(self.page, self.limit)

    def of(self, items: Sequence[object], total: int) -> dict[str, Any]:
        """Return the fields of Rows: *items*, which are this page of *total*."""
        return {
            "items": items,
            "page": self.page,
            "limit": self.limit,
            "total": total,
            "total_is_exact": total < MOST_ROWS,
            "pages": -(-total // self.limit),
            "has_next": self.page * self.limit < total,
        }


class DayRange(BaseModel):
    """A range of days."""

    model_config = ConfigDict(extra="forbid")

    start_date: Day | None = Field(default=None, description="The first day, or a day of the first window.")
    end_date: Day | None = Field(default=None, description="The last day, or a day of the last window; unset: today.")
    time_range: Annotated[Whole, Field(ge=1, le=LONGEST_RANGE_DAYS)] | None = Field(
        default=None, description="The last so many days, in place of start_date and end_date."
    )

    def days(self, today: date, first_of: Callable[[date], date]) -> tuple[date, date]:
        """Return the first and the last day; *first_of* gives the first where nothing does.

        Raises ApiError when the range is none.
        """
        if self.time_range is not None:
            if self.start_date is not None or self.end_date is not None:
                raise invalid("time_range", "does not go together with start_date and end_date")
            return today - timedelta(days=self.time_range - 1), today
        last = self.end_date or today
        if self.start_date is not None and self.start_date > last:
            raise after_end(self.start_date, last)
        last = min(max(last, EARLIEST), LATEST)
        return min(max(self.start_date or first_of(last), EARLIEST), last), last


class CapacityFilter(DayRange):
    """A filter of windows, databases and instances."""

    instance_id: list[Annotated[Whole, Field(ge=1)]] = Field(
        default=[], max_length=MOST_INSTANCES, description="Ids of instances; may be repeated."
    )
    db_type: list[DbType] = Field(default=[], max_length=MOST_DB_TYPES, description="Engines; may be repeated.")
    database_name: list[Name] = Field(
        default=[],
        max_length=MOST_INSTANCES,
        description="Exact names of databases, upper and lower case told apart; may be repeated. Of instances: those "
        "that have one of them.",
    )
    period_type: PeriodType = Field(default=PeriodType.DAILY, description="Length of the windows.")

    def selection(self, today: date) -> Selection:
        """Return the windows that have a day in the range. Raises ApiError when the range is none."""
        shown = self.period_type.calendar.shown_windows
        first, last = self.days(today, lambda last: windows_back(last, self.period_type, shown - 1))
        return Selection(
            period_type=self.period_type,
            first=window_of(first, self.period_type).start,
            last=last,
            instance_ids=self.instance_id or None,
            db_types=self.db_type or None,
            database_names=self.database_name or None,
        )


class CapacityPage(CapacityFilter, Page):
    """A filter, and a page of the rows."""


def after_end(first: date, last: date) -> ApiError:
    """Return the error of a range that ends before it begins."""
    return invalid("start_date", Sentence("{first} lies after end_date {last}", first=first, last=last))


def offset_of(page: int, limit: int) -> int:
    """Return the rows before a page. Raises ApiError beyond what can be paged through."""
    offset = (page - 1) * limit
    if offset >= MOST_ROWS:
        raise invalid(
            "page", Sentence("must begin within the first {most:,} rows: narrow the filter instead", most=MOST_ROWS)
        )
    return offset
