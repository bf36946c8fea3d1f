"""Asset checks. None of them blocks: one dead server must not stop the fleet's charts."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import date
from typing import Any

import dagster as dg

from whalefall_capacity.asset_keys import INSIGHT_KEYS, STATS_KEYS, aggregation_key
from whalefall_capacity.collection.sizes import FailedVisit
from whalefall_capacity.periods import PeriodType, today
from whalefall_capacity.printable import printable
from whalefall_capacity.resources.store import StoreResource
from whalefall_capacity.settings import load_settings
from whalefall_capacity.store.aggregations.statements import Level
from whalefall_capacity.store.maintenance.health import Status, TableHealth, read_status
from whalefall_capacity.store.table_partitions.create import AGGREGATION_TABLES

FLEET_COVERAGE = dg.AssetCheckSpec(
    "fleet_coverage",
    asset="database_size_stats",
    description="Did every instance of the fleet give its sizes? A warning when some did not, an error when fewer than "
    "half did. `whalefall-capacity fleet check` says what a server lacks. docs/checks.md#fleet_coverage",
)


# Rows of the table of the worst.
WORST = 20


def check_result(
    check: dg.AssetCheckKey,
    found: Sequence[Any],
    good: str,
    bad: str,
    metadata: Mapping[str, Any],
    is_error: object = False,
) -> dg.AssetCheckResult:
    """Return the result that says *bad* when anything was *found*, an error or a warning, and *good* otherwise."""
    return dg.AssetCheckResult(
        check_name=check.name,
        asset_key=check.asset_key,
        passed=not found,
        severity=dg.AssetCheckSeverity.ERROR if is_error else dg.AssetCheckSeverity.WARN,
        description=bad if found else good,
        metadata=metadata,
    )


def some(names: Sequence[str], count: int = 5) -> str:
    """Return the first *count* of *names*, and how many more there are."""
    shown = printable(", ".join(names[:count]))
    return shown if len(names) <= count else f"{shown} and {len(names) - count} more"


def coverage_result(day: date, fleet: Mapping[str, bool], failed: Sequence[FailedVisit]) -> dg.AssetCheckResult:
    """Say which instances gave no sizes for *day*, and why.

    *fleet* says of every instance of today's fleet whether sizes are stored for the day; *failed* are the
    visits that failed just now, also of servers that were measured earlier in the day.
    """
    reasons = {name: f"nothing is stored for {day}" for name, stored in fleet.items() if not stored}
    reasons |= {visit.name: visit.error for visit in failed}
    answered = len(fleet) - len(reasons)
    answers = f"{answered} of {len(fleet)} instances gave their sizes for {day}"
    return check_result(
        FLEET_COVERAGE.key,
        found=list(reasons),
        good=answers,
        bad=f"{answers}; not: {', '.join(sorted(reasons))}",
        is_error=answered * 2 < len(fleet),
        metadata=dict(sorted(reasons.items())[:100]),
    )


TABLE_PARTITIONS = "table_partitions"
# The asset that lives in each partitioned table.
TABLE_ASSETS: Mapping[str, dg.AssetKey] = {key.path[0]: key for key in (*STATS_KEYS, *INSIGHT_KEYS)} | {
    AGGREGATION_TABLES[level.value, period_type].name: aggregation_key(level, period_type)
    for level in Level
    for period_type in PeriodType
}


def table_partition_check(table: str) -> dg.AssetChecksDefinition:
    """Return the check of one partitioned table; the daily maintenance evaluates it too."""

    @dg.asset_check(
        asset=TABLE_ASSETS[table],
        name=TABLE_PARTITIONS,
        description=f"Has {table} its current and next table partition, is none of them beyond retention, "
        "left over from an interrupted detach, or foreign? `whalefall-capacity partitions status` says more. "
        "docs/checks.md#table_partitions",
    )
    def check(store: StoreResource) -> dg.AssetCheckResult:
        settings = load_settings()
        status = read_status(store.engine, settings, today(settings.zone))
        (health,) = [health for health in status.tables if health.table == table]
        return dg.AssetCheckResult(**_result(health))

    return check


def table_partition_evaluations(status: Status) -> Iterator[dg.AssetCheckEvaluation]:
    """Yield what the checks of all tables say of *status*, as events for a run that is not theirs."""
    for health in status.tables:
        yield dg.AssetCheckEvaluation(
            asset_key=TABLE_ASSETS[health.table], check_name=TABLE_PARTITIONS, **_result(health)
        )


def _result(health: TableHealth) -> Mapping[str, Any]:
    return {
        "passed": not health.problems,
        "severity": dg.AssetCheckSeverity.WARN if health.healthy else dg.AssetCheckSeverity.ERROR,
        "description": "; ".join(health.problems) or f"{health.table} has all that it needs and nothing else",
        "metadata": {"problems": len(health.problems)},
    }


TABLE_PARTITION_CHECKS = [table_partition_check(table) for table in TABLE_ASSETS]
