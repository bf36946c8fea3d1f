"""Series out of rows of growth: three charts over the same windows, each of what is largest by its own measure."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date
from itertools import count
from typing import Any

from whalefall_capacity.console.pages.formats import binary_size, signed_percent, signed_size, window_label
from whalefall_capacity.periods import Window
from whalefall_capacity.printable import printable
from whalefall_capacity.store.aggregations.console_series import LargestSeries
from whalefall_capacity.store.aggregations.growth import DatabaseGrowth, InstanceGrowth
from whalefall_capacity.store.aggregations.ranking import Measure

Value = float | int | None


@dataclass(frozen=True)
class Metric:
    """One of the three charts: *unit* is bytes or percent, *columns* the column per row type."""

    measure: Measure
    unit: str
    show: Callable[[Any], str]
    columns: Mapping[type, str]

    @property
    def key(self) -> str:
        return self.measure.value


METRICS = (
    Metric(Measure.SIZE, "bytes", binary_size, {DatabaseGrowth: "avg_size_bytes", InstanceGrowth: "total_size_bytes"}),
    Metric(
        Measure.CHANGE,
        "bytes",
        signed_size,
        {DatabaseGrowth: "size_change_bytes", InstanceGrowth: "total_size_change_bytes"},
    ),
    Metric(
        Measure.PERCENT,
        "percent",
        signed_percent,
        {DatabaseGrowth: "size_change_percent", InstanceGrowth: "total_size_change_percent"},
    ),
)
METRIC_KEYS = tuple(metric.key for metric in METRICS)


@dataclass(frozen=True)
class Series:
    """One line: a database or an instance, a value per window, None where there is none."""

    name: str
    instance: str
    instance_id: int
    database_name: str | None
    values: Sequence[Value]
    colour: int = 0


@dataclass(frozen=True)
class Chart:
    """One chart, and the table under it."""

    metric: Metric
    windows: Sequence[Window]
    series: Sequence[Series]
    today: date

    @property
    def in_progress(self) -> Window | None:
        """The last window, when days of it are still to come. A day is measured at once."""
        last = self.windows[-1]
        return last if last.start < last.end and last.start <= self.today <= last.end else None

    @property
    def labels(self) -> list[str]:
        return [window_label(window.start, window.period_type) for window in self.windows]

    @property
    def is_empty(self) -> bool:
        return all(value is None for one in self.series for value in one.values)

    def payload(self) -> dict[str, object]:
        """Return what the script draws."""
        return {
            "metric": self.metric.key,
            "unit": self.metric.unit,
            "labels": self.labels,
            "in_progress": self.in_progress is not None,
            "series": [
                {
                    "name": printable(one.name),
                    "colour": one.colour,
                    "values": one.values,
                    "texts": [self.metric.show(value) for value in one.values],
                }
                for one in self.series
            ],
        }


def series_name(row: DatabaseGrowth | InstanceGrowth) -> str:
    """Return the name by which two databases of one name on two instances are told apart."""
    return f"{row.database_name} ({row.instance})" if isinstance(row, DatabaseGrowth) else row.instance


def charts(largest: LargestSeries, windows: Sequence[Window], today: date) -> list[Chart]:
    """Return the three charts; the order of the rows is the order of the series."""
    known: dict[str, int] = {}
    found = []
    for metric in METRICS:
        series = _all_series(metric, largest[metric.measure], windows)
        colours = _colours([one.name for one in series], known)
        known = colours | known
        found.append(Chart(metric, windows, [replace(one, colour=colours[one.name]) for one in series], today))
    return found


def _colours(names: Sequence[str], known: Mapping[str, int]) -> dict[str, int]:
    """Return a colour of its own for each series: that of the charts before, where no other of this one has it."""
    colours: dict[str, int] = {}
    for name in names:
        if name in known and known[name] not in colours.values():
            colours[name] = known[name]
    for name in names:
        if name not in colours:
            colours[name] = next(colour for colour in count() if colour not in colours.values())
    return {name: colours[name] for name in names}


def size_chart(rows: Sequence[DatabaseGrowth | InstanceGrowth], windows: Sequence[Window], today: date) -> Chart:
    """Return the chart of sizes alone."""
    return Chart(METRICS[0], windows, _all_series(METRICS[0], rows, windows), today)


def _all_series(
    metric: Metric, rows: Sequence[DatabaseGrowth | InstanceGrowth], windows: Sequence[Window]
) -> list[Series]:
    by_key: dict[tuple[int, str | None], dict[date, DatabaseGrowth | InstanceGrowth]] = {}
    for row in rows:
        key = (row.instance_id, row.database_name if isinstance(row, DatabaseGrowth) else None)
        by_key.setdefault(key, {})[row.period_start] = row
    return [_series(metric, database, found, windows) for (_, database), found in by_key.items()]


def _series(
    metric: Metric,
    database_name: str | None,
    found: Mapping[date, DatabaseGrowth | InstanceGrowth],
    windows: Sequence[Window],
) -> Series:
    one = next(iter(found.values()))
    column = metric.columns[type(one)]
    values = [_plain(getattr(found[w.start], column)) if w.start in found else None for w in windows]
    return Series(series_name(one), one.instance, one.instance_id, database_name, values)


def _plain(value: object) -> Value:
    return value if value is None or isinstance(value, int) else float(str(value))
