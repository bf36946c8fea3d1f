"""Asset checks. None of them blocks: one dead server must not stop the fleet's charts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import date

import dagster as dg

from whalefall_capacity.collection.sizes import FailedVisit

FLEET_COVERAGE = dg.AssetCheckSpec(
    "fleet_coverage",
    asset="database_size_stats",
    description="Did every instance of the fleet give its sizes? A warning when some did not, an error when fewer than "
    "half did. `whalefall-capacity fleet check` says what a server lacks. docs/checks.md#fleet_coverage",
)


def coverage_result(day: date, fleet: Mapping[str, bool], failed: Sequence[FailedVisit]) -> dg.AssetCheckResult:
    """Say which instances gave no sizes for *day*, and why.

    *fleet* says of every instance of today's fleet whether sizes are stored for the day; *failed* are the
    visits that failed just now, also of servers that were measured earlier in the day.
    """
    reasons = {name: f"nothing is stored for {day}" for name, stored in fleet.items() if not stored}
    reasons |= {visit.name: visit.error for visit in failed}
    answered = len(fleet) - len(reasons)
    severity = dg.AssetCheckSeverity.ERROR if answered * 2 < len(fleet) else dg.AssetCheckSeverity.WARN
    absent = f"; not: {', '.join(sorted(reasons))}" if reasons else ""
    return dg.AssetCheckResult(
        check_name=FLEET_COVERAGE.name,
        asset_key=FLEET_COVERAGE.asset_key,
        passed=not reasons,
        severity=severity,
        description=f"{answered} of {len(fleet)} instances gave their sizes for {day}{absent}",
        metadata=dict(sorted(reasons.items())[:100]),
    )
