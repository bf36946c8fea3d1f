"""The overview, gathered from the store: what page and API say of the fleet as a whole."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import date, timedelta
from typing import Annotated

from pydantic import Field

from whalefall_capacity.console.http.dagster_checks import DagsterChecks
from whalefall_capacity.console.http.principals import Credential
from whalefall_capacity.console.http.state import Console
from whalefall_capacity.insight.statuses import AnomalyKind
from whalefall_capacity.periods import PeriodType
from whalefall_capacity.sentences import Sentence
from whalefall_capacity.store.aggregations.basis import daily_basis
from whalefall_capacity.store.aggregations.ranking import LargestKey, largest_keys
from whalefall_capacity.store.aggregations.selection import Selection
from whalefall_capacity.store.aggregations.statements import Level
from whalefall_capacity.store.fleet import count_replicas
from whalefall_capacity.store.insight.read import anomalies_of_days
from whalefall_capacity.store.maintenance.health import read_status
from whalefall_capacity.store.sizes.day_comparison import lost_databases, shrunk_instances
from whalefall_capacity.store.sizes.fleet_day import FleetDay, fleet_day
from whalefall_capacity.store.sizes.fleet_totals import DayTotal, TotalChange, fleet_totals, total_changes
from whalefall_capacity.store.sizes.growers import MONTH, Grower, growing_databases, growing_instances
from whalefall_capacity.store.task_runs.attention import failed_runs, open_runs
from whalefall_capacity.store.task_runs.read import TaskRun

SHOWN = 5
RUNS_SHOWN = 10
# The changes of the total need the days that they are measured from, whatever the chart shows.
LEAST_DAYS = 98
# Checks that the overview computes itself, as of now.
SIZE_CHECKS = ("inventory_shrank", "databases_missing")
SIZE_ANOMALY = "size_anomaly"
COMPUTED_CHECKS = frozenset({*SIZE_CHECKS, SIZE_ANOMALY, "table_partitions"})


@dataclass(frozen=True)
class FailedCheck:
    """A check of the newest day that did not pass."""

    check: str
    count: Annotated[int, Field(description="What it found: instances or databases.")]
    first: Annotated[Sequence[str], Field(description=f"The first {SHOWN} of them.")]


@dataclass(frozen=True)
class Attention:
    """Matters that need a person, beside the servers that were not measured."""

    failed_runs: Annotated[Sequence[TaskRun], Field(description="Of the last three days, and not made good since.")]
    failed_checks: Sequence[FailedCheck]
    dagster_checks: Annotated[DagsterChecks, Field(description="All other checks, as Dagster has them.")]
    table_partitions: Annotated[Sequence[str], Field(description="What is wrong with the table partitions.")]
    nothing_since: Annotated[
        date | None, Field(description="The newest day with a size, when that is before yesterday.")
    ]


@dataclass(frozen=True)
class Replicas:
    """The servers that hold the data of a primary once more."""

    servers: int
    total_size_bytes: Annotated[int | None, Field(description="null when none was measured in the last days.")]


@dataclass(frozen=True)
class Overview:
    """The fleet as a whole. Sizes are bytes; a server that was not measured counts with its size of before."""

    today: FleetDay
    total_size_bytes: Annotated[
        int | None, Field(description="Without replicas, as in the changes and the totals of the days.")
    ]
    replicas: Replicas
    changes: Sequence[TotalChange]
    totals: Annotated[Sequence[DayTotal], Field(description="Oldest first.")]
    largest_instances: Sequence[LargestKey]
    largest_databases: Sequence[LargestKey]
    growing_instances: Annotated[Sequence[Grower], Field(description="By their change over 30 days.")]
    growing_databases: Annotated[Sequence[Grower], Field(description="By their change over 30 days.")]
    attention: Attention
    open_runs: Sequence[TaskRun]


@dataclass(frozen=True)
class OverviewSizes:
    """The part of the overview that follows from the sizes alone."""

    totals: Sequence[DayTotal]
    totals_of_replicas: Sequence[DayTotal]
    largest_instances: Sequence[LargestKey]
    largest_databases: Sequence[LargestKey]
    growing_instances: Sequence[Grower]
    growing_databases: Sequence[Grower]
    failed_checks: Sequence[FailedCheck]


def overview(console: Console, credential: Credential, days: int) -> Overview:
    """Return the overview of today, with the totals of the last *days*, for whoever sent *credential*."""
    store, today = console.reading, console.today()
    measured = fleet_day(store, today)
    first = today - timedelta(days=max(days, LEAST_DAYS) - 1)
    # Many open the page on the same morning: what nothing was added to since is not asked for again.
    sizes = console.overview_sizes.get(
        (first, today), daily_basis(store, first, today), lambda: _sizes(console, first, measured)
    )
    return Overview(
        today=measured,
        total_size_bytes=_newest(sizes.totals),
        replicas=Replicas(count_replicas(store), _newest(sizes.totals_of_replicas)),
        changes=total_changes(sizes.totals),
        totals=sizes.totals[-days:],
        largest_instances=sizes.largest_instances,
        largest_databases=sizes.largest_databases,
        growing_instances=sizes.growing_instances,
        growing_databases=sizes.growing_databases,
        attention=_attention(console, credential, measured, sizes.failed_checks),
        open_runs=open_runs(store, RUNS_SHOWN),
    )


def _sizes(console: Console, first: date, measured: FleetDay) -> OverviewSizes:
    store, today = console.reading, measured.day
    month = Selection(PeriodType.DAILY, today - MONTH + timedelta(days=1), today)
    newest = measured.newest_day or today
    return OverviewSizes(
        totals=fleet_totals(store, first, today),
        totals_of_replicas=fleet_totals(store, first, today, replicas=True),
        largest_instances=largest_keys(store, Level.INSTANCE, month, SHOWN),
        largest_databases=largest_keys(store, Level.DATABASE, month, SHOWN),
        growing_instances=growing_instances(store, newest, SHOWN),
        growing_databases=growing_databases(store, newest, SHOWN),
        failed_checks=[] if measured.newest_day is None else _failed_checks(console, newest),
    )


def _newest(totals: Sequence[DayTotal]) -> int | None:
    return next((one.total_size_bytes for one in reversed(totals) if one.measured), None)


def _attention(
    console: Console, credential: Credential, measured: FleetDay, failed_checks: Sequence[FailedCheck]
) -> Attention:
    newest, yesterday = measured.newest_day, measured.day - timedelta(days=1)
    health = read_status(console.engine, console.settings, measured.day)
    return Attention(
        failed_runs=failed_runs(console.reading, RUNS_SHOWN),
        failed_checks=[*failed_checks, *([] if newest is None else _odd_sizes(console, newest))],
        dagster_checks=_other_checks(console, credential),
        table_partitions=[
            Sentence("{table}: {problem}", table=table.table, problem=problem)
            for table in health.tables
            for problem in table.problems
        ],
        nothing_since=newest if newest is not None and newest < yesterday else None,
    )


def _other_checks(console: Console, credential: Credential) -> DagsterChecks:
    """Return what Dagster tells of the checks that are not looked at here."""
    told = console.checks.checks(lambda: console.dagster.failed_checks(credential))
    return replace(told, failed=[one for one in told.failed if one.check not in COMPUTED_CHECKS])


def _failed_checks(console: Console, day: date) -> list[FailedCheck]:
    """Return what the checks of sizes say of *day*, from the same comparison as theirs."""
    store = console.reading
    found = (
        [one.instance for one in shrunk_instances(store, day)],
        [f"{one.database} ({one.instance})" for one in lost_databases(store, day)],
    )
    return [
        FailedCheck(check, len(names), names[:SHOWN]) for check, names in zip(SIZE_CHECKS, found, strict=True) if names
    ]


def _odd_sizes(console: Console, day: date) -> list[FailedCheck]:
    """Return the jumps and drops of *day*, as the check of anomalies reports them."""
    odd = [one for one in anomalies_of_days(console.reading, day, day) if one.kind is not AnomalyKind.STALL]
    names = [f"{one.database} ({one.instance})" for one in odd]
    return [FailedCheck(SIZE_ANOMALY, len(names), names[:SHOWN])] if names else []
