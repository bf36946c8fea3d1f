"""Checks of the forecasts and anomalies: what an operator should look at. None of them blocks.

Annotations are not postponed here: Dagster reads the type of the resource from the function.
"""

from collections.abc import Iterator, Sequence
from datetime import date

import dagster as dg

from whalefall_capacity.asset_keys import CAPACITY_FORECASTS, SIZE_ANOMALIES
from whalefall_capacity.assets.checks import FINDINGS_SHOWN, check_result, some
from whalefall_capacity.assets.insight import HORIZON_DAYS, anomaly_table
from whalefall_capacity.assets.metadata import metadata_table
from whalefall_capacity.insight.statuses import AnomalyKind, Urgency
from whalefall_capacity.resources.store import StoreResource
from whalefall_capacity.store.insight.read import (
    Accuracy,
    CapacityForecast,
    SizeAnomaly,
    accuracy_of_days,
    anomalies_of_days,
    forecasts_of_day,
    newest_forecast_day,
)
from whalefall_capacity.store.sizes.day_comparison import latest_stored_day

# What the coverage of a range that holds 8 of 10 may be, in percent.
COVERAGE = (65, 95)
# Of fewer, that share may well be small, or 100, by chance.
FEWEST_COVERED = 20
NOTHING_TO_DO = "Nothing need be done: from 200 forecasts on, the fleet's own deviations set the width"
LOOK_FOR = "Look for launches, moves and imports in that time; no method knows them before"
DISK_FULL_SOON = dg.AssetCheckSpec(
    "disk_full_soon",
    asset=CAPACITY_FORECASTS,
    description="Is a disk full, or expected to be within 30 days? A warning; an error within 7 days, and when one is "
    "full. docs/checks.md#disk_full_soon",
)
FORECAST_ACCURACY = dg.AssetCheckSpec(
    "forecast_accuracy",
    asset=CAPACITY_FORECASTS,
    description="Did the sizes of today lie in the ranges that were forecast 90 days ago in 65 to 95 of 100 cases, and "
    "were these forecasts better than assuming no growth? A warning. docs/checks.md#forecast_accuracy",
)
SIZE_ANOMALY = dg.AssetCheckSpec(
    "size_anomaly",
    asset=SIZE_ANOMALIES,
    description="Did a database grow or shrink in a day as it never does? A warning. docs/checks.md#size_anomaly",
)


@dg.multi_asset_check(name="insight_checks", specs=[DISK_FULL_SOON, FORECAST_ACCURACY, SIZE_ANOMALY], can_subset=True)
def insight_checks(context: dg.AssetCheckExecutionContext, store: StoreResource) -> Iterator[dg.AssetCheckResult]:
    """Look at the newest day: of the forecasts, and of the sizes."""
    day, latest = newest_forecast_day(store.engine), latest_stored_day(store.engine)
    for key in context.selected_asset_check_keys:
        if day is None or latest is None:
            yield dg.AssetCheckResult(
                check_name=key.name, asset_key=key.asset_key, passed=True, description="nothing was forecast yet"
            )
        elif key == DISK_FULL_SOON.key:
            yield full_soon_result(day, forecasts_of_day(store.engine, day))
        elif key == FORECAST_ACCURACY.key:
            yield accuracy_result(day, accuracy_of_days(store.engine, day, day))
        else:
            yield anomaly_result(latest, anomalies_of_days(store.engine, latest, latest))


def full_soon_result(day: date, forecasts: Sequence[CapacityForecast]) -> dg.AssetCheckResult:
    """Say which instances are full or will be soon, the soonest first."""
    found = [forecast for forecast in forecasts if forecast.urgency is not None]
    urgent = [forecast for forecast in found if forecast.urgency is not Urgency.WITHIN_A_MONTH]
    return check_result(
        DISK_FULL_SOON.key,
        found,
        good=f"as of {day} no disk is full or expected to be within 30 days",
        bad=f"{len(found)} instances are full or expected to be within 30 days, as of {day}: "
        f"{some([f'{f.instance} ({_when(f)})' for f in found])}. Make room, or enlarge the disk and say so in the "
        "fleet file (capacity_limit)",
        is_error=urgent,
        metadata={
            "instances": len(found),
            "instances_urgent": len(urgent),
            "soonest": metadata_table(
                ("instance", "expected", "earliest", "latest", "used_bytes", "limit_bytes"),
                [
                    (f.instance, _when(f), f.earliest_date, f.latest_date, f.used_bytes, f.limit_bytes)
                    for f in found[:FINDINGS_SHOWN]
                ],
            ),
        },
    )


def accuracy_result(day: date, accuracy: Sequence[Accuracy]) -> dg.AssetCheckResult:
    """Say whether the forecasts of 90 days ago kept their promise, on both levels."""
    looked_at = [found for found in accuracy if found.horizon_days == HORIZON_DAYS and found.forecasts]
    complaints, advice = [], NOTHING_TO_DO
    for found in looked_at:
        coverage, ours, none = found.coverage_percent, found.mean_error_percent, found.no_growth_mean_error_percent
        judged = found.level == "instance" and found.forecasts >= FEWEST_COVERED
        if judged and coverage is not None and not COVERAGE[0] <= coverage <= COVERAGE[1]:
            was_too_wide = coverage > COVERAGE[1]
            complaint = f"{coverage:.1f} % of {found.forecasts} instances ended in the range"
            complaints.append(f"{complaint}, which was wider than this fleet needed" if was_too_wide else complaint)
            advice = advice if was_too_wide else LOOK_FOR
        if ours is not None and none is not None and ours > none:
            complaints.append(f"forecasts of {found.level}s were off by {ours:.2f} %, no growth by {none:.2f} %")
            advice = LOOK_FOR
    return check_result(
        FORECAST_ACCURACY.key,
        complaints,
        good=f"the forecasts of {HORIZON_DAYS} days before {day} kept what they promised"
        if looked_at
        else f"there are no forecasts of {HORIZON_DAYS} days before {day} to look back at",
        bad=f"of the forecasts of {HORIZON_DAYS} days before {day}: {'; '.join(complaints)}. {advice}",
        metadata={
            "forecasts": sum(found.forecasts for found in looked_at),
            "accuracy": metadata_table(
                (
                    "level",
                    "forecasts",
                    "coverage_percent",
                    "error_percent",
                    "no_growth_percent",
                    "least_squares_percent",
                ),
                [
                    (
                        found.level,
                        found.forecasts,
                        found.coverage_percent,
                        found.mean_error_percent,
                        found.no_growth_mean_error_percent,
                        found.least_squares_mean_error_percent,
                    )
                    for found in looked_at
                ],
            ),
        },
    )


def anomaly_result(day: date, anomalies: Sequence[SizeAnomaly]) -> dg.AssetCheckResult:
    """Say which databases jumped or dropped on *day*, the greatest change first; stalls are shown alone."""
    found = [anomaly for anomaly in anomalies if anomaly.kind is not AnomalyKind.STALL]
    return check_result(
        SIZE_ANOMALY.key,
        found,
        good=f"no database grew or shrank on {day} as it never does",
        bad=f"{len(found)} databases grew or shrank on {day} as they never do: "
        f"{some([f'{a.instance}/{a.database} ({a.change_bytes:+} bytes)' for a in found])}. "
        "Ask their owners what was loaded or dropped",
        metadata={
            "databases_grown": sum(anomaly.kind is AnomalyKind.JUMP for anomaly in found),
            "databases_shrunk": sum(anomaly.kind is AnomalyKind.DROP for anomaly in found),
            "databases_stalled": len(anomalies) - len(found),
            "databases": anomaly_table(anomalies[:FINDINGS_SHOWN]),
        },
    )


def _when(forecast: CapacityForecast) -> str:
    if forecast.urgency is Urgency.FULL:
        return "full"
    if forecast.shown_expected_date is None:
        return f"any day from {forecast.earliest_date} on"
    return forecast.shown_expected_date.isoformat()
