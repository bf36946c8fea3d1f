"""Asset checks. None of them blocks: one dead server must not stop the fleet's charts."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import date
from typing import Any

import dagster as dg

from whalefall_capacity.asset_keys import INSIGHT_KEYS, STATS_KEYS, aggregation_key
from whalefall_capacity.periods import PeriodType, today
from whalefall_capacity.printable import first_of, printable
from whalefall_capacity.resources.fleet import MOST_NAMED, Collection
from whalefall_capacity.resources.store import StoreResource
from whalefall_capacity.settings import load_settings
from whalefall_capacity.store.aggregations.statements import Level
from whalefall_capacity.store.maintenance.health import PartitionHealth, TableHealth, read_status
from whalefall_capacity.store.sizes.stats import Coverage
from whalefall_capacity.store.table_partitions.create import AGGREGATION_TABLES

FLEET_COVERAGE = dg.AssetCheckSpec(
    "fleet_coverage",
    asset="database_size_stats",
    description="Did every instance of the fleet report its sizes? A warning if some did not, an error if fewer than "
    "half did. `whalefall-capacity fleet check` shows what a server lacks. docs/checks.md#fleet_coverage",
)


# How many rows the tables of findings show.
FINDINGS_SHOWN = 20


def check_result(
    check: dg.AssetCheckKey,
    found: Sequence[Any],
    good: str,
    bad: str,
    metadata: Mapping[str, Any],
    is_error: object = False,
) -> dg.AssetCheckResult:
    """Return a failed result that says *bad* if anything was *found*, else a passed one that says *good*."""
    return dg.AssetCheckResult(
        check_name=check.name,
        asset_key=check.asset_key,
        passed=not found,
        severity=dg.AssetCheckSeverity.ERROR if is_error else dg.AssetCheckSeverity.WARN,
        description=bad if found else good,
        metadata=metadata,
    )


def some(names: Sequence[str], count: int = 5) -> str:
    """Return the first *count* of *names*, printable, and how many more there are."""
    return printable(first_of(names, count))


def coverage_result(day: date, found: Coverage, collection: Collection) -> dg.AssetCheckResult:
    """Report the instances without sizes for *day*, and why: the first by name, the others as a number.

    *collection* has the first visits that just failed, with their reasons.
    """
    errors = {visit.name: visit.error for visit in collection.first_failed}
    answers = f"{found.answered} of {found.instances} instances reported their sizes for {day}"
    silent = found.instances - found.answered
    all_are_named = len(found.silent) == silent
    # Those whose reason is known come first. Of a failed visit somebody else may have brought the sizes meanwhile.
    reasons = [name for name in errors if name in found.silent or not all_are_named]
    explained = [*reasons, *(name for name in found.silent if name not in errors)][:MOST_NAMED]
    return check_result(
        FLEET_COVERAGE.key,
        found=found.silent,
        good=answers,
        bad=f"{answers}; not: {first_of(found.silent, MOST_NAMED, silent)}",
        is_error=found.answered * 2 < found.instances,
        metadata={name: errors.get(name) or f"nothing is stored for {day}" for name in explained},
    )


TABLE_PARTITIONS = "table_partitions"
# The asset whose rows each partitioned table holds.
TABLE_ASSETS: Mapping[str, dg.AssetKey] = {key.path[0]: key for key in (*STATS_KEYS, *INSIGHT_KEYS)} | {
    AGGREGATION_TABLES[level.value, period_type].name: aggregation_key(level, period_type)
    for level in Level
    for period_type in PeriodType
}


def table_partition_check(table: str) -> dg.AssetChecksDefinition:
    """Return the check of one partitioned table; the daily maintenance also evaluates it."""

    @dg.asset_check(
        asset=TABLE_ASSETS[table],
        name=TABLE_PARTITIONS,
        description=f"Does {table} have its current and next table partition, and none that is beyond retention, left "
        "over from a detach or created by hand? `whalefall-capacity partitions status` says more. "
        "docs/checks.md#table_partitions",
    )
    def check(store: StoreResource) -> dg.AssetCheckResult:
        settings = load_settings()
        status = read_status(store.engine, settings, today(settings.zone))
        (health,) = [health for health in status.tables if health.table == table]
        return dg.AssetCheckResult(**_result(health))

    return check


def table_partition_evaluations(status: PartitionHealth) -> Iterator[dg.AssetCheckEvaluation]:
    """Yield the evaluations of the checks of all tables by *status*, for a run that does not include the checks."""
    for health in status.tables:
        yield dg.AssetCheckEvaluation(
            asset_key=TABLE_ASSETS[health.table], check_name=TABLE_PARTITIONS, **_result(health)
        )


def _result(health: TableHealth) -> Mapping[str, Any]:
    return {
        "passed": not health.problems,
        "severity": dg.AssetCheckSeverity.WARN if health.healthy else dg.AssetCheckSeverity.ERROR,
        "description": "; ".join(health.problems)
        or f"{health.table} has the table partitions that it needs, and no others",
        "metadata": {"problems": len(health.problems)},
    }


TABLE_PARTITION_CHECKS = [table_partition_check(table) for table in TABLE_ASSETS]
