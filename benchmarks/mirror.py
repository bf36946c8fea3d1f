"""Cost of mirroring a run into task runs: the same runs with it and without it, by turns."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import date, timedelta

import dagster as dg
from sqlalchemy import Engine

from benchmarks.aggregation import fill, point_settings_at
from benchmarks.fleet import DATABASES, fleet_server
from benchmarks.harness import fresh_store, in_turns, print_result, rounds_at
from benchmarks.runs import ended_items, materialize
from whalefall_capacity.asset_keys import AGGREGATION_JOB_NAMES, STATS_KEYS, aggregation_keys
from whalefall_capacity.fleet_file import FleetFile
from whalefall_capacity.mirror.reporter import Reporter, SummaryChange
from whalefall_capacity.periods import PeriodType, today, window_of
from whalefall_capacity.resources.task_runs import TaskRunsResource
from whalefall_capacity.settings import load_settings
from whalefall_capacity.store.fleet import apply_fleet
from whalefall_capacity.store.task_runs.write import Item, ItemUpdate
from whalefall_capacity.tasks import SYNC_DATABASES

PASSWORD_VARIABLE = "BENCHMARK_FLEET_PASSWORD"  # noqa: S105 - the name of a variable


class Silence(Reporter):
    """Reports nothing."""

    def __init__(self) -> None:
        pass

    def declare(self, items: Sequence[Item]) -> None:
        pass

    def update(self, updates: Sequence[ItemUpdate]) -> None:
        pass

    def change_summary(self, change: SummaryChange) -> None:
        pass

    def raise_if_cancelled(self) -> None:
        pass


class Unmirrored(TaskRunsResource):
    """A run that nobody is told of."""

    @contextmanager
    def yield_for_execution(self, context: dg.InitResourceContext) -> Iterator[TaskRunsResource]:  # noqa: ARG002
        self._reporter = Silence()
        yield self


def run(scale: float) -> None:
    """Print the seconds of a collection and of a month's aggregation of 1,000 instances times *scale*."""
    count, rounds = max(int(1000 * scale), 2), rounds_at(scale, 5)
    with fleet_server() as server, fresh_store() as engine, dg.instance_for_test() as instance:
        point_settings_at(engine)
        day = today(load_settings().zone)
        month = window_of(day.replace(day=1) - timedelta(days=1), PeriodType.MONTHLY)
        fill(engine, count, month.start, (month.end - month.start).days + 1)
        _register(engine, count, str(server.socket_dir))
        aggregation = AGGREGATION_JOB_NAMES[PeriodType.MONTHLY], aggregation_keys(PeriodType.MONTHLY)
        rows = [
            ("collection", *_compare(engine, instance, SYNC_DATABASES.key, STATS_KEYS, day, rounds)),
            ("aggregation of a month", *_compare(engine, instance, *aggregation, month.start, rounds)),
        ]
    print_result(
        f"the mirror, {count:,} instances x {DATABASES} databases",
        ("run", "with s", "without s", "ratio"),
        rows,
    )


def _compare(
    engine: Engine, instance: dg.DagsterInstance, job: str, keys: Sequence[dg.AssetKey], partition: date, rounds: int
) -> tuple[float, float, float]:
    def run_id_of(task_runs: TaskRunsResource) -> str:
        return materialize(instance, job, keys, partition_key=partition.isoformat(), task_runs=task_runs).run_id

    assert ended_items(engine, run_id_of(TaskRunsResource())) > 0
    assert ended_items(engine, run_id_of(Unmirrored())) == 0
    mirrored, alone = in_turns((lambda _: run_id_of(TaskRunsResource()), lambda _: run_id_of(Unmirrored())), rounds)
    return mirrored, alone, mirrored / alone


def _register(engine: Engine, count: int, host: str) -> None:
    os.environ[PASSWORD_VARIABLE] = ""
    credential = {"username": "postgres", "password_env": PASSWORD_VARIABLE}
    entries = [
        {"name": f"instance-{n}", "engine": "postgresql", "host": host, "port": 5432, "credential": credential}
        for n in range(1, count + 1)
    ]
    apply_fleet(engine, FleetFile.model_validate({"instances": entries}))
