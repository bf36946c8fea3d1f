"""Every benchmark runs, at a small size: each of its rows has what it measured, beside what, and the ratio of both."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field

import pytest

from benchmarks import (
    aggregation,
    archive,
    backfill,
    console,
    fleet,
    forecast,
    forecast_quality,
    idle,
    latency,
    migration,
    mirror,
    scale,
    writing,
)

Report = Callable[[Callable[[float], None], float], "Tables"]
# Figures are printed with two digits.
ROUNDING = 0.005


@dataclass
class Table:
    """A printed table; the cells are text."""

    columns: list[str] = field(default_factory=list)
    rows: list[list[str]] = field(default_factory=list)

    def labels(self) -> list[str]:
        return [row[0] for row in self.rows]

    def figures(self, column: int) -> list[float]:
        return [float(row[column].replace(",", "")) for row in self.rows if row[column]]

    def assert_ratio(self, ratio: int, above: int, *below: int) -> None:
        """Assert that column *ratio* is *above* by the sum of *below* in every row, as far as rounding shows it."""
        assert self.figures(ratio), self
        for printed, over, *under in zip(*map(self.figures, (ratio, above, *below)), strict=False):
            total, rounding = sum(under), ROUNDING * len(under)
            # Of a command that takes a process, the share of what it does may round to nothing at this size.
            assert printed > 0 or over < ROUNDING * total, self
            assert printed + ROUNDING >= (over - ROUNDING) / (total + rounding), self
            assert total <= rounding or printed - ROUNDING <= (over + ROUNDING) / (total - rounding), self


class Tables(dict[str, Table]):
    """Tables by their titles; what is printed before a title stands in front of it."""

    def __missing__(self, title: str) -> Table:
        (found,) = [table for printed, table in self.items() if printed.endswith(title)]
        return found


@pytest.fixture
def report(capsys: pytest.CaptureFixture[str]) -> Report:
    """Run a benchmark at a share of its size and return its tables by their titles."""

    def run(benchmark: Callable[[float], None], scale: float) -> Tables:
        benchmark(scale)
        return tables(capsys.readouterr().out)

    return run


def tables(printed: str) -> Tables:
    found = Tables()
    title: list[str] = []
    for line in printed.splitlines():
        cells = [cell.strip() for cell in re.split("[┃│]", line)[1:-1]]
        if line.startswith("┏"):
            table = found[" ".join(title)] = Table()
        elif line.startswith("┃"):
            table.columns = [
                f"{before} {cell}".strip() for before, cell in zip(table.columns or cells, cells, strict=True)
            ]
        elif line.startswith("│"):
            table.rows.append(cells)
        title = [] if cells or line[:1] in "┏┡└" else [*title, line.strip()]
    return found


@pytest.mark.slow
def test_writing_is_measured_beside_copy_and_merge(report: Report) -> None:
    table = report(writing.run, 0.01)["writing a day"]
    assert [row[:2] for row in table.rows] == [
        ["10 x 50", "new"],
        ["10 x 50", "again"],
        ["1 x 100", "new"],
        ["1 x 100", "again"],
    ]
    table.assert_ratio(4, 2, 3)
    table.assert_ratio(6, 2, 5)


@pytest.mark.slow
def test_visits_are_measured_beside_a_bare_loop(report: Report) -> None:
    table = report(fleet.run, 0.01)["visiting 10 instances with 50 databases each, 32 at a time"]
    assert table.labels() == ["visit and store", "visit alone", "bare loop: connect, one SELECT"]
    assert table.figures(2)[2] == 1
    assert all(share > 0 for share in table.figures(2))


@pytest.mark.slow
def test_aggregation_is_measured_beside_the_bare_statement(report: Report) -> None:
    found = report(aggregation.run, 0.002)
    steps = found["one window, 2 instances x 50 databases x 91 days"]
    assert [row[:2] for row in steps.rows] == [
        [f"{level} {period_type}", rows]
        for level in ("database", "instance")
        for period_type in ("daily", "weekly", "monthly", "quarterly")
        for rows in ("new", "again")
    ]
    steps.assert_ratio(5, 2, 3)
    steps.assert_ratio(6, 2, 3, 4)
    growth = found["growth"]
    assert growth.labels() == [
        "one database's year of weeks",
        "one instance's month, all databases",
        "one instance's totals, a year of weeks",
    ]
    growth.assert_ratio(3, 2, 1)
    growth.assert_ratio(5, 4, 1)
    found["growth of everything"].assert_ratio(3, 2, 1)
    memory = found["memory of the worker, 2 instances"]
    assert memory.labels() == ["daily", "quarterly"]
    assert memory.figures(1) == [100, 9100]
    assert all(mebibytes > 0 for mebibytes in memory.figures(2))
    assert found["one quarter of all databases"].labels() == ["9,100"]


@pytest.mark.slow
def test_a_backfill_is_measured_beside_its_statements_and_empty_runs(report: Report) -> None:
    table = report(backfill.run, 0.01)["a backfill of 14 days, 2 instances x 50 databases"]
    assert table.labels() == ["daily", "weekly", "monthly", "quarterly", "all eight"]
    table.assert_ratio(4, 1, 2, 3)


@pytest.mark.slow
def test_runs_are_measured_with_the_mirror_and_without(report: Report) -> None:
    table = report(mirror.run, 0.01)["the mirror, 10 instances x 50 databases"]
    assert table.labels() == ["collection", "aggregation of a month"]
    table.assert_ratio(3, 1, 2)


@pytest.mark.slow
def test_a_fleet_far_away_is_measured_beside_the_cost_model(report: Report) -> None:
    table = report(scale.run, 0.002)["a fleet 200 ms away, 50 databases a server"]
    assert table.labels() == ["2", "20"]
    assert table.figures(4) == [5, 5]
    # A visit lasts as long as its round trips at least, or takes the processor for longer, and the model knows it.
    for count, model, milliseconds in zip((2, 20), table.figures(3), table.figures(5), strict=True):
        assert model in {int(min(count, 1000 / (milliseconds + off))) for off in (-ROUNDING, ROUNDING)}, table
    assert all(seconds > 1.0 for seconds in table.figures(1))


@pytest.mark.slow
def test_an_archive_is_measured_beside_copy(report: Report) -> None:
    table = report(archive.run, 0.01)["a month of 15,000 rows, archived, dropped and restored"]
    assert table.labels() == [
        "archive, read back and compare",
        "restore and compare",
        "seal, every window calculated first",
        "detach, look again, drop",
    ]
    table.assert_ratio(3, 1, 2)


@pytest.mark.slow
def test_an_idle_deployment_is_measured_process_by_process(report: Report) -> None:
    found = report(idle.run, 0.02)
    processes = next(table for title, table in found.items() if title.startswith("idle for 0.2 minutes"))
    assert sorted(processes.labels()) == [
        "PostgreSQL",
        "all of Dagster",
        "code server",
        "console",
        "daemon",
        "supervisor",
        "webserver",
    ]
    shares = dict(zip(processes.labels(), processes.figures(1), strict=True))
    of_dagster = sum(shares[name] for name in ("code server", "daemon", "supervisor", "webserver"))
    assert shares["all of Dagster"] == pytest.approx(of_dagster, abs=5 * ROUNDING)
    assert "job_ticks" in found["Dagster's storage"].labels()
    assert {"dagster", "whalefall"} <= set(found["connections opened"].labels())
    day = dict(found["a day"].rows)
    assert day["ticks older than their days that were still there after a minute (rows)"] == "0"
    assert "growth beside them" in day


@pytest.mark.slow
def test_the_lag_of_the_charts_is_measured_beside_empty_runs(report: Report) -> None:
    (table,) = report(latency.run, 0.01).values()
    assert table.labels() == ["the pipeline", "the same runs with empty bodies"]
    for median, wait, rest, slowest in zip(*map(table.figures, range(1, 5)), strict=True):
        assert 0 < rest <= median <= slowest
        assert 0 <= wait <= median


@pytest.mark.slow
def test_questions_to_the_console_are_measured_beside_bare_sql(report: Report) -> None:
    table = report(console.run, 0.002)["20 users at once, 2 instances x 50 databases x 400 days"]
    assert table.labels() == [
        "list of databases",
        "list of databases, one instance",
        "summary of databases",
        "list of instances",
        "summary of instances",
        "overview",
        "page: overview",
        "page: charts of instances",
        "page: charts of databases",
        "page: list of databases",
        "by size",
        "by size, page 100",
        "by change",
        "CSV of all databases",
        "page: list of instances",
    ]
    table.assert_ratio(3, 1, 2)
    assert all(milliseconds > 0 for column in (4, 5) for milliseconds in table.figures(column))


@pytest.mark.slow
def test_a_migration_is_measured_beside_copy_and_merge(report: Report) -> None:
    table = report(migration.run, 0.002)["moving in from WhaleFall"]
    assert table.labels() == ["3,100", "6,200"]
    table.assert_ratio(4, 2, 3)
    assert all(peak > 0 for peak in table.figures(7))


@pytest.mark.slow
def test_forecasts_are_measured_beside_least_squares_in_sql(report: Report) -> None:
    found = report(forecast.run, 0.002)
    assert found["instances x 50 databases x 280 days"].labels() == ["regr_slope in SQL", "forecast", "forecast again"]
    assert len(found["forecast, memory"].rows) == 2


@pytest.mark.slow
def test_forecasts_are_more_right_than_lines(report: Report) -> None:
    found = report(forecast_quality.run, 0.1)
    quality = next(table for title, table in found.items() if "instances" in title)
    assert quality.labels() == ["ours", "line of 30 d", "line of 90 d", "no growth"]
    for column in (1, 2):
        ours, *others = quality.figures(column)
        assert ours < min(others)
    assert "all" in found["by kind of history"].labels()
