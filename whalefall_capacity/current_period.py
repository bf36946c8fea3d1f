"""The current period as the API, the job in the Dagster UI and the mirror of its runs aggregate it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from typing import Any, Literal, get_args

from whalefall_capacity.store.aggregations.statements import Level
from whalefall_capacity.store.task_runs.summary import Common, Day, Extension, Scope, TaskSummary
from whalefall_capacity.tasks import AGGREGATE_CURRENT

OP = "aggregate_current"
AggregationScope = Literal["instance", "database", "all"]
SCOPES: tuple[AggregationScope, ...] = get_args(AggregationScope)
ALL: AggregationScope = "all"
# Whichever period is requested.
EFFECTIVE_PERIOD_TYPE = "daily"


def levels_of(scope: str) -> Sequence[Level]:
    """Return the levels that a scope names. Raises ValueError for an unknown one."""
    return list(Level) if scope == ALL else [Level(scope)]


@dataclass(frozen=True)
class CurrentPeriod:
    """The daily windows of *day*, which is today, on the levels of *scope*."""

    scope: str
    day: date
    requested_period_type: str | None = None

    @property
    def levels(self) -> Sequence[Level]:
        return levels_of(self.scope)

    def run_config(self) -> Mapping[str, object]:
        """Return the configuration of the run."""
        config = {"scope": self.scope, "day": self.day.isoformat()}
        if self.requested_period_type is not None:
            config["period_type"] = self.requested_period_type
        return {"ops": {OP: {"config": config}}}

    def summary(self, timezone: str) -> TaskSummary:
        """Return the summary of a run before its work."""
        return TaskSummary(
            common=Common(
                inputs={
                    "scope": self.scope,
                    "requested_period_type": self.requested_period_type,
                    "effective_period_type": EFFECTIVE_PERIOD_TYPE,
                },
                scope=Scope(time=Day(timezone=timezone, date=self.day), target={"scope": self.scope}),
            ),
            ext=Extension(type=AGGREGATE_CURRENT.key),
        )


def read_run_config(run_config: Mapping[str, Any], today: date) -> CurrentPeriod:
    """Return what a run with this configuration aggregates; an invalid day fails the run, not its mirror."""
    config = run_config.get("ops", {}).get(OP, {}).get("config", {})
    try:
        day = date.fromisoformat(config.get("day") or today.isoformat())
    except ValueError:
        day = today
    scope = config.get("scope", ALL)
    return CurrentPeriod(scope if scope in SCOPES else ALL, day, config.get("period_type"))
