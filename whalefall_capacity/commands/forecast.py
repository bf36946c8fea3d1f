"""`whalefall-capacity forecast`: when disks are full."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime
from typing import Annotated

import typer
from sqlalchemy import Engine

from whalefall_capacity.byte_sizes import binary_size
from whalefall_capacity.commands.output import JsonOption, err, print_rows, say
from whalefall_capacity.errors import StoreError
from whalefall_capacity.insight.statuses import FEWEST_DAYS, ForecastStatus
from whalefall_capacity.periods import today
from whalefall_capacity.runtime import open_store
from whalefall_capacity.settings import Settings, load_settings
from whalefall_capacity.store.fleet import list_instances
from whalefall_capacity.store.insight.read import CapacityForecast, forecasts_of_day, newest_forecast_day, soonest_first

ANSWERS = {
    ForecastStatus.NO_LIMIT: "no capacity_limit in the fleet file",
    ForecastStatus.FULL: "used reaches the limit",
    ForecastStatus.NOT_WITHIN_A_YEAR: "not full within a year",
}


@dataclass(frozen=True)
class Line:
    """One instance, as the command prints it; dates are None where open."""

    instance: str
    status: str
    used_bytes: int | None
    limit_bytes: int | None
    rate_bytes_per_day: int | None
    expected_date: date | None
    earliest_date: date | None
    latest_date: date | None
    reason: str


def forecast(
    day: Annotated[
        datetime | None,
        typer.Option(
            formats=["%Y-%m-%d"], help="What this day says; the newest day with forecasts when it is not given."
        ),
    ] = None,
    instance: Annotated[str | None, typer.Option(help="Name of one instance.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Say when every instance with a limit is full, as a range of dates, or why that cannot be said; soonest first.

    Prints what is stored for the day. A day of which nothing is stored is calculated now, and not stored.

    Example: whalefall-capacity forecast --instance shop-primary
    """
    settings = load_settings()
    if day is not None and not settings.start_date <= day.date() <= today(settings.zone):
        raise typer.BadParameter(
            f"--day must lie from {settings.start_date} (WHALEFALL_START_DATE) to {today(settings.zone)} (today)"
        )
    with open_store(settings) as engine:
        if instance is not None and instance not in {known.name for known in list_instances(engine)}:
            raise StoreError(f"there is no instance {instance}; `whalefall-capacity fleet list` names them")
        found = _forecasts(engine, settings, None if day is None else day.date())
    lines = [_line(each) for each in found if instance is None or each.instance == instance]
    print_rows(
        lines,
        as_json,
        f"forecast of {found[0].forecast_date}" if found else "forecast",
        {
            "instance": lambda line: line.instance,
            "status": lambda line: line.status,
            "used": lambda line: binary_size(line.used_bytes),
            "limit": lambda line: binary_size(line.limit_bytes),
            "per day": lambda line: _signed(line.rate_bytes_per_day),
            "expected": lambda line: line.expected_date,
            "earliest": lambda line: line.earliest_date,
            "latest": lambda line: line.latest_date,
            "reason": lambda line: line.reason,
        },
        right=("used", "limit", "per day"),
    )


def _forecasts(engine: Engine, settings: Settings, day: date | None) -> Sequence[CapacityForecast]:
    """Return what is stored of *day*, or of the newest; otherwise calculate it."""
    wanted = day or newest_forecast_day(engine) or today(settings.zone)
    if stored := forecasts_of_day(engine, wanted):
        return stored
    say(f"nothing is stored of {wanted}: calculated now", err)
    # Imported here: numpy takes a while to load, and what is stored needs none of it.
    from whalefall_capacity.store.insight.calculate import calculate

    (result,) = calculate(engine, [wanted], settings.timezone)
    return soonest_first(result.forecasts)


def _line(of: CapacityForecast) -> Line:
    return Line(
        of.instance,
        of.status.value,
        of.used_bytes,
        of.limit_bytes,
        of.shown_rate_bytes_per_day,
        of.shown_expected_date,
        of.earliest_date,
        of.latest_date,
        _reason(of),
    )


def _reason(of: CapacityForecast) -> str:
    """Return what the answer rests on, in words."""
    if of.status is ForecastStatus.STALE:
        return f"last measured on {of.last_measured_date}"
    if of.status is ForecastStatus.TOO_NEW:
        return f"{of.measured_days} measured days, {FEWEST_DAYS} are needed"
    if of.status in ANSWERS:
        return "; ".join([ANSWERS[of.status], *_without_pace(of)])
    parts = [f"{grower.database} {grower.percent:.1f} %" for grower in of.reason.growers[:3]]
    if of.reason.one_offs:
        largest = of.reason.one_offs[0]
        parts.append(f"left out: {_signed(largest.size_bytes)} in {largest.database} on {largest.day}")
    if of.reason.one_offs_left_out > 1:
        parts.append(f"and {of.reason.one_offs_left_out - 1} more")
    return "; ".join([*parts, *_without_pace(of)])


def _without_pace(of: CapacityForecast) -> list[str]:
    """Return how many databases an answer knows less of, in words; one that needs no pace says nothing of them."""
    if of.status in (ForecastStatus.NO_LIMIT, ForecastStatus.FULL):
        return []
    counts = {"too new to have a pace": of.reason.young, "not measured lately": of.reason.stale}
    return [f"{count} databases {why}" for why, count in counts.items() if count]


def _signed(size_bytes: int | None) -> str:
    if size_bytes is None:
        return binary_size(None)
    return f"{'-' if size_bytes < 0 else '+'}{binary_size(abs(size_bytes))}"
