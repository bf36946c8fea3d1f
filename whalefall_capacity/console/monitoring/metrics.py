"""The figures for Prometheus: one entry each in GAUGES, read from the store when somebody scrapes.

What is not known has no sample, and is never 0. Labels are bounded: instances, tasks, statuses, tables and daemons, and
never databases. The label of an instance is `instance_name`, for Prometheus itself sets `instance`.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
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
from whalefall_capacity.store.aggregations.basis import daily_basis
from whalefall_capacity.store.insight.read import forecasts_basis, forecasts_of_day, newest_forecast_day
from whalefall_capacity.store.maintenance.health import read_status
from whalefall_capacity.store.sizes.fleet_watch import WatchedFleet, count_failed, watched_fleet
from whalefall_capacity.store.task_runs.activity import Activity, open_activity, recent_activity

# Sizes of earlier days change when somebody imports them, and count from the next visit on.
BASIS_REACH = timedelta(days=7)
END_OF_OPEN_METRICS = b"# EOF\n"


class Sample(NamedTuple):
    """A value, and those of the labels of its gauge."""

    value: float
    labels: tuple[str, ...] = ()


@dataclass(frozen=True)
class Scrape:
    """One scrape: where its figures come from; what several gauges tell of is read once."""

    console: Console
    today: date
    now: datetime
    readiness: Readiness

    @property
    def store(self) -> Engine:
        return self.console.monitoring

    @property
    def settings(self) -> Settings:
        return self.console.settings

    @cached_property
    def sizes_basis(self) -> Hashable:
        return daily_basis(self.store, self.today - BASIS_REACH, self.today)

    @cached_property
    def fleet(self) -> WatchedFleet:
        return self.console.watched_fleet.get(
            self.today, self.sizes_basis, lambda: watched_fleet(self.store, self.today)
        )

    @cached_property
    def forecast_day(self) -> date | None:
        return newest_forecast_day(self.store)

    @cached_property
    def recent(self) -> Sequence[Activity]:
        return recent_activity(self.store)

    @cached_property
    def open(self) -> Sequence[Activity]:
        return open_activity(self.store)


@dataclass(frozen=True)
class Gauge:
    """A figure, and how it is read; one with a sample an instance is only written anew when its *basis* has changed."""

    name: str
    description: str
    read: Callable[[Scrape], Iterator[Sample]]
    labels: tuple[str, ...] = ()
    basis: Callable[[Scrape], Hashable] | None = None


def _newest_day_age(scrape: Scrape) -> Iterator[Sample]:
    if (day := scrape.fleet.newest_day) is not None:
        began = datetime(day.year, day.month, day.day, tzinfo=scrape.settings.zone)
        yield Sample((scrape.now - began).total_seconds())


def _instances(scrape: Scrape) -> Iterator[Sample]:
    fleet = scrape.fleet
    failed = count_failed(scrape.store, scrape.today, fleet.newest_day)
    yield Sample(fleet.measured, ("measured",))
    yield Sample(failed, ("failed",))
    # Asked a moment later: one that failed may have been measured meanwhile.
    yield Sample(max(len(fleet.instances) - fleet.measured - failed, 0), ("missing",))


def _databases_missing(scrape: Scrape) -> Iterator[Sample]:
    if scrape.fleet.newest_day is not None:
        yield Sample(scrape.fleet.missing_databases)


def _fleet_size(scrape: Scrape) -> Iterator[Sample]:
    if (size_bytes := scrape.fleet.total_size_bytes) is not None:
        yield Sample(size_bytes)


def _instance_sizes(scrape: Scrape) -> Iterator[Sample]:
    for one in scrape.fleet.instances:
        if one.size_bytes is not None:
            yield Sample(one.size_bytes, (one.instance, one.db_type))


def _days_until_full(scrape: Scrape) -> Iterator[Sample]:
    day = scrape.forecast_day
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
        "whalefall_instance_size_bytes",
        "The latest size of an instance.",
        _instance_sizes,
        ("instance_name", "engine"),
        basis=lambda scrape: scrape.sizes_basis,
    ),
    Gauge(
        "whalefall_days_until_full",
        "Days until an instance is full, by the newest forecast; 0 for one that is full.",
        _days_until_full,
        ("instance_name", "bound"),
        basis=lambda scrape: forecasts_basis(scrape.store, scrape.forecast_day),
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


# A registry looks its collectors up by their hash.
@dataclass(frozen=True, eq=False)
class GaugeCollector(Collector):
    """The family of one gauge."""

    gauge: Gauge
    scrape: Scrape

    def collect(self) -> Iterator[GaugeMetricFamily]:
        family = GaugeMetricFamily(self.gauge.name, self.gauge.description, labels=self.gauge.labels)
        for sample in self.gauge.read(self.scrape):
            family.add_metric(sample.labels, sample.value)
        yield family


def exposition(console: Console, readiness: Readiness, accept: str) -> tuple[bytes, str]:
    """Return the figures in the format that *accept* asks for, and its content type."""
    scrape = Scrape(console, console.today(), utc_now(), readiness)
    encode, content_type = choose_encoder(accept)

    def written(gauge: Gauge) -> bytes:
        # Described by nobody: to register a collector would scrape it once more.
        registry = CollectorRegistry(auto_describe=False)
        registry.register(GaugeCollector(gauge, scrape))
        return encode(registry)

    def text_of(gauge: Gauge) -> bytes:
        if gauge.basis is None:
            return written(gauge)
        question = (gauge.name, content_type, scrape.today)
        return console.metric_texts.get(question, gauge.basis(scrape), lambda: written(gauge))

    texts = [text_of(gauge) for gauge in GAUGES]
    end = END_OF_OPEN_METRICS if texts[-1].endswith(END_OF_OPEN_METRICS) else b""
    return b"".join(part.removesuffix(end) for part in texts) + end, content_type
