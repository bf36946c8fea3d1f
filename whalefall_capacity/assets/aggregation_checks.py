"""Checks of the aggregations: do they match the stats, and are there stats for every day? None of them blocks.

Annotations are not postponed here: Dagster reads the types of config and resource from the function.
"""

import secrets
from collections.abc import Iterator, Sequence
from dataclasses import astuple
from datetime import date, timedelta

import dagster as dg
from pydantic import Field

from whalefall_capacity.asset_keys import aggregation_key
from whalefall_capacity.assets.checks import FINDINGS_SHOWN, check_result
from whalefall_capacity.assets.metadata import metadata_table
from whalefall_capacity.periods import PeriodType, Window, today, window_of
from whalefall_capacity.resources.store import StoreResource
from whalefall_capacity.settings import load_settings
from whalefall_capacity.store.aggregations.recompute import Recomputation, recompute
from whalefall_capacity.store.aggregations.statements import Level
from whalefall_capacity.store.sizes.day_comparison import MissingDays, latest_stored_day, missing_days

RECOMPUTED = "recomputed"
DAYS_MISSING = "days_missing"
SEEDS = 2**31


class SampleConfig(dg.Config):
    """The sample to recompute; a new one every time by default."""

    seed: int | None = Field(
        default=None, description="Seed of the sample; the metadata of an evaluation has the seed that repeats it."
    )


def aggregation_checks(level: Level, period_type: PeriodType) -> dg.AssetChecksDefinition:
    """Return the checks of one aggregation asset."""
    key = aggregation_key(level, period_type)
    specs = [
        dg.AssetCheckSpec(
            RECOMPUTED,
            asset=key,
            description="Do a random 1 % of the latest window, and of one earlier window, match a recomputation "
            "from the stats? An error when a figure differs, a warning when a window is behind its stats. "
            f"docs/checks.md#{RECOMPUTED}",
        )
    ]
    if period_type is not PeriodType.DAILY:
        specs.append(
            dg.AssetCheckSpec(
                DAYS_MISSING,
                asset=key,
                description="Are there stats for every day so far of the period in progress, of every instance that "
                f"belonged to the fleet? A warning. docs/checks.md#{DAYS_MISSING}",
            )
        )

    @dg.multi_asset_check(name=f"{'__'.join(key.path)}__checks", specs=specs, can_subset=True)
    def checks(
        context: dg.AssetCheckExecutionContext, config: SampleConfig, store: StoreResource
    ) -> Iterator[dg.AssetCheckResult]:
        selected = {check_key.name for check_key in context.selected_asset_check_keys}
        if RECOMPUTED in selected:
            seed = secrets.randbelow(SEEDS) if config.seed is None else config.seed
            yield recomputed_result(key, recompute(store.engine, level, period_type, seed), seed)
        if DAYS_MISSING in selected:
            settings = load_settings()
            this_day = today(settings.zone)
            window = window_of(this_day, period_type)
            last = last_day_due(this_day, latest_stored_day(store.engine))
            found = missing_days(store.engine, window.start, last, settings.zone)
            yield missing_days_result(key, window, last, found)

    return checks


def recomputed_result(key: dg.AssetKey, windows: Sequence[Recomputation], seed: int) -> dg.AssetCheckResult:
    """Report whether the windows match their stats.

    A difference in a window that is behind its stats will be resolved by the next calculation; in any other window it
    is an error.
    """
    behind = [window for window in windows if window.behind is not None]
    wrong = [window for window in windows if window.behind is None and window.differences]
    differences = [(w.window.start, difference) for w in windows for difference in w.differences]
    names = ", ".join(w.window.start.isoformat() for w in windows)
    compared = sum(w.keys for w in windows)
    if wrong:
        bad = (
            f"figures of the windows {', '.join(w.window.start.isoformat() for w in wrong)} do not match their "
            "stats: materialize these partitions again, and report a bug if the check still fails"
        )
    else:
        bad = (
            f"{'; '.join(f'{w.window.start}: {w.behind}' for w in behind)}. The sensor aggregations_follow_stats "
            "catches up within a minute; if it does not, see that it runs, or materialize the partition"
        )
    return check_result(
        dg.AssetCheckKey(key, RECOMPUTED),
        found=[*behind, *wrong],
        good=f"{compared} rows match a recomputation from their stats; windows {names}"
        if windows
        else "there is nothing to recompute",
        bad=bad,
        is_error=wrong,
        metadata={
            "seed": seed,
            "windows": names,
            "rows_compared": compared,
            "figures_different": len(differences),
            "windows_behind": len(behind),
            "differences": metadata_table(
                ("window", "key", "figure", "stored", "recomputed"),
                [
                    (start, d.key, d.measure, _text(d.stored), _text(d.recomputed))
                    for start, d in differences[:FINDINGS_SHOWN]
                ],
            ),
        },
    )


def last_day_due(this_day: date, latest_stored: date | None) -> date:
    """Return the last day that should have stats: today as soon as its first sizes are stored, else yesterday."""
    return this_day if latest_stored is not None and latest_stored >= this_day else this_day - timedelta(days=1)


def missing_days_result(
    key: dg.AssetKey, window: Window, last: date, found: Sequence[MissingDays]
) -> dg.AssetCheckResult:
    """Report the instances that lack stats for days from the start of *window* to *last*."""
    good = f"there are stats of every instance for every day from {window.start} to {last}"
    if last < window.start:
        good = f"no day of the period that starts on {window.start} is due yet"
    return check_result(
        dg.AssetCheckKey(key, DAYS_MISSING),
        found,
        good=good,
        bad=f"{len(found)} instances lack days from {window.start} to {last}. A past day cannot be measured: "
        "`whalefall-capacity history import FILE` imports its sizes from other sources; the means of the period "
        "only cover the days with data",
        metadata={
            "instances": len(found),
            "days_missing": sum(instance.days for instance in found),
            "worst": metadata_table(
                ("instance", "days", "first_day", "last_day"),
                [astuple(instance) for instance in found[:FINDINGS_SHOWN]],
            ),
        },
    )


def _text(figure: object) -> str | None:
    # As text: a sum may be larger than the integers that a browser can represent.
    return None if figure is None else str(figure)


AGGREGATION_CHECKS: Sequence[dg.AssetChecksDefinition] = [
    aggregation_checks(level, period_type) for period_type in PeriodType for level in Level
]
