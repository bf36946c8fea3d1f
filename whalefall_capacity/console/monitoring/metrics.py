"""The figures for Prometheus: one entry each in GAUGES, read from the store when somebody scrapes.

What is not known has no sample, and is never 0. Labels are bounded: instances, tasks, statuses, tables and daemons, and
never databases. The label of an instance is `instance_name`, for Prometheus itself sets `instance`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from functools import cached_property
from typing import NamedTuple

from prometheus_client import CollectorRegistry
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector
from sqlalchemy import Engine

from whalefall_capacity.console.http.state import Console
from whalefall_capacity.console.monitoring.problems import Component
from whalefall_capacity.console.monitoring.readiness import Readiness
from whalefall_capacity.insight.statuses import ForecastStatus
from whalefall_capacity.periods import utc_now
from whalefall_capacity.settings import Settings
from whalefall_capacity.store.insight.read import forecasts_of_day, newest_forecast_day
from whalefall_capacity.store.maintenance.health import read_status
from whalefall_capacity.store.sizes.fleet_watch import WatchedInstance, watched_fleet
from whalefall_capacity.store.task_runs.activity import Activity, open_activity, recent_activity


class Sample(NamedTuple):
    """A value, and those of the labels of its gauge."""

    value: float
    labels: tuple[str, ...] = ()


@dataclass(frozen=True)
class Scrape:
    """One scrape: where its figures come from; what several gauges tell of is read once."""

    store: Engine
    settings: Settings
    today: date
    now: datetime
    readiness: Readiness

    @cached_property
    def fleet(self) -> Sequence[WatchedInstance]:
        return watched_fleet(self.store, self.today)

    @cached_property
    def newest_day(self) -> date | None:
        return max((one.day for one in self.fleet if one.day is not None), default=None)

    @cached_property
    def recent(self) -> Sequence[Activity]:
        return recent_activity(self.store)

    @cached_property
    def open(self) -> Sequence[Activity]:
        return open_activity(self.store)


@dataclass(frozen=True)
class Gauge:
    """A figure, and how it is read."""

    name: str
    description: str
    read: Callable[[Scrape], Iterator[Sample]]
    labels: tuple[str, ...] = ()


def _newest_day_age(scrape: Scrape) -> Iterator[Sample]:
    if (day := scrape.newest_day) is not None:
        began = datetime(day.year, day.month, day.day, tzinfo=scrape.settings.zone)
        yield Sample((scrape.now - began).total_seconds())


def _instances(scrape: Scrape) -> Iterator[Sample]:
    states = Counter(_state(one, scrape.newest_day) for one in scrape.fleet)
    for state in ("measured", "failed", "missing"):
        yield Sample(states[state], (state,))


def _state(one: WatchedInstance, newest_day: date | None) -> str:
    if one.day is not None and one.day == newest_day:
        return "measured"
    return "failed" if one.failed else "missing"


def _databases_missing(scrape: Scrape) -> Iterator[Sample]:
    if scrape.newest_day is not None:
        yield Sample(sum(one.missing for one in scrape.fleet if one.day == scrape.newest_day))


def _fleet_size(scrape: Scrape) -> Iterator[Sample]:
    sizes = [one.size_bytes for one in scrape.fleet if one.size_bytes is not None]
    if sizes:
        yield Sample(sum(sizes))


def _instance_sizes(scrape: Scrape) -> Iterator[Sample]:
    for one in scrape.fleet:
        if one.size_bytes is not None:
            yield Sample(one.size_bytes, (one.instance, one.db_type))


def _days_until_full(scrape: Scrape) -> Iterator[Sample]:
    day = newest_forecast_day(scrape.store)
    for forecast in [] if day is None else forecasts_of_day(scrape.store, day):
        is_full = forecast.status is ForecastStatus.FULL
        dates = {
            "earliest": forecast.earliest_date,
            "expected": forecast.shown_expected_date,
            "latest": forecast.latest_date,
        }
        for bound, full_on in dates.items():
            if is_full or full_on is not None:
                days = 0 if is_full or full_on is None else (full_on - scrape.today).days
                yield Sample(days, (forecast.instance, bound))


def _recent_runs(scrape: Scrape) -> Iterator[Sample]:
    return (Sample(one.runs, (one.task_key, one.status)) for one in scrape.recent)


def _recent_seconds(scrape: Scrape) -> Iterator[Sample]:
    return (Sample(one.seconds, (one.task_key, one.status)) for one in scrape.recent)


def _open_runs(scrape: Scrape) -> Iterator[Sample]:
    return (Sample(one.runs, (one.task_key, one.status)) for one in scrape.open)


def _open_seconds(scrape: Scrape) -> Iterator[Sample]:
    return (Sample(one.seconds, (one.task_key, one.status)) for one in scrape.open)


def _table_partitions(scrape: Scrape) -> Iterator[Sample]:
    status = read_status(scrape.store, scrape.settings, scrape.today)
    return (Sample(len(table.problems), (table.table,)) for table in status.tables)


def _ready(scrape: Scrape) -> Iterator[Sample]:
    for component in Component:
        if (is_ready := scrape.readiness.is_ready(component)) is not None:
            yield Sample(is_ready, (component,))


def _heartbeats(scrape: Scrape) -> Iterator[Sample]:
    return (Sample(age, (daemon,)) for daemon, age in scrape.readiness.heartbeat_seconds.items())


GAUGES: Sequence[Gauge] = (
    Gauge("whalefall_newest_day_age_seconds", "Since the newest day with a size began.", _newest_day_age),
    Gauge("whalefall_instances", "Instances of the fleet by how they fared on the newest day.", _instances, ("state",)),
    Gauge("whalefall_databases_missing", "Databases without a size on the newest day.", _databases_missing),
    Gauge("whalefall_fleet_size_bytes", "The latest sizes of all instances of the fleet.", _fleet_size),
    Gauge(
        "whalefall_instance_size_bytes", "The latest size of an instance.", _instance_sizes, ("instance_name", "engine")
    ),
    Gauge(
        "whalefall_days_until_full",
        "Days until an instance is full, by the newest forecast; 0 for one that is full.",
        _days_until_full,
        ("instance_name", "bound"),
    ),
    Gauge("whalefall_recent_task_runs", "Task runs created within 24 hours.", _recent_runs, ("task", "status")),
    Gauge(
        "whalefall_recent_task_run_seconds",
        "What the task runs created within 24 hours took together.",
        _recent_seconds,
        ("task", "status"),
    ),
    Gauge("whalefall_open_task_runs", "Task runs that wait or work.", _open_runs, ("task", "status")),
    Gauge(
        "whalefall_open_task_run_age_seconds",
        "Since the oldest task run that waits or works was created.",
        _open_seconds,
        ("task", "status"),
    ),
    Gauge(
        "whalefall_table_partitions_behind",
        "Table partitions that are missing, beyond retention or half detached.",
        _table_partitions,
        ("table",),
    ),
    Gauge("whalefall_ready", "Whether a component is ready, as /readyz tells.", _ready, ("component",)),
    Gauge(
        "whalefall_daemon_heartbeat_age_seconds",
        "Since a thread of Dagster's daemon was last heard of.",
        _heartbeats,
        ("daemon",),
    ),
)


class ScrapeCollector(Collector):
    """The families of one scrape."""

    def __init__(self, scrape: Scrape) -> None:
        self._scrape = scrape

    def collect(self) -> Iterator[GaugeMetricFamily]:
        for gauge in GAUGES:
            family = GaugeMetricFamily(gauge.name, gauge.description, labels=gauge.labels)
            for sample in gauge.read(self._scrape):
                family.add_metric(sample.labels, sample.value)
            yield family


def exposition(console: Console, readiness: Readiness, accept: str) -> tuple[bytes, str]:
    """Return the figures in the format that *accept* asks for, and its content type."""
    scrape = Scrape(console.monitoring, console.settings, console.today(), utc_now(), readiness)
    # Described by nobody: to register a collector would scrape it once more.
    registry = CollectorRegistry(auto_describe=False)
    registry.register(ScrapeCollector(scrape))
    encode, content_type = choose_encoder(accept)
    return encode(registry), content_type
