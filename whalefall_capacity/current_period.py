"""Aggregating the current period, as all sides know it: the API, the job in the Dagster UI, the mirror of its run."""

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
# Whatever period was asked for.
EFFECTIVE_PERIOD_TYPE = "daily"


@dataclass(frozen=True)
class CurrentPeriod:
    """The windows to aggregate: the daily ones of *day*, which is today, of *scope*."""

    scope: str
    day: date
    requested_period_type: str | None = None

    @property
    def levels(self) -> Sequence[Level]:
        return list(Level) if self.scope == ALL else [Level(self.scope)]

    def run_config(self) -> Mapping[str, object]:
        """Return the configuration of the run."""
        config = {"scope": self.scope, "day": self.day.isoformat()}
        if self.requested_period_type is not None:
            config["period_type"] = self.requested_period_type
        return {"ops": {OP: {"config": config}}}

    def summary(self, timezone: str) -> TaskSummary:
        """Return the summary as it is before the work."""
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
    """Return what a run with this configuration aggregates; a day that is none will fail the run, not its mirror."""
    config = run_config.get("ops", {}).get(OP, {}).get("config", {})
    try:
        day = date.fromisoformat(config.get("day") or today.isoformat())
    except ValueError:
        day = today
    scope = config.get("scope", ALL)
    return CurrentPeriod(scope if scope in SCOPES else ALL, day, config.get("period_type"))
