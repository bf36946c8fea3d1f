"""`task_runs.summary_json`: the envelope in which every task run sums itself up.

Its JSON Schema is docs/task-run-summary.schema.json; no other keys are written at any level of it. What a task wants
to say beyond the common part goes into `ext.data`.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, JsonValue, SerializerFunctionWrapHandler, model_serializer


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid")


class Metric(_Part):
    """One figure of a run; sizes in bytes."""

    key: str
    label: str
    value: int | float | str | None
    unit: str = Field(default="", description="left out when there is none")
    tone: Literal["", "success", "warning", "danger"] = Field(default="", description="left out when neutral")

    @model_serializer(mode="wrap")
    def _without_empty(self, serialize: SerializerFunctionWrapHandler) -> dict[str, Any]:
        content: dict[str, Any] = serialize(self)
        return {name: value for name, value in content.items() if name not in ("unit", "tone") or value}


class Day(_Part):
    """The day that a run is about."""

    type: Literal["date"] = "date"
    timezone: str
    date: date


class Scope(_Part):
    """The subject of a run: one day, or several (null), and a part of the fleet."""

    time: Day | None = None
    target: dict[str, JsonValue] = Field(default_factory=dict)


class Flags(_Part):
    """A run that had nothing to do says so."""

    skipped: bool = False
    skip_reason: str | None = None


class Common(_Part):
    """The part that is alike for every task run."""

    inputs: dict[str, JsonValue] = Field(default_factory=dict)
    scope: Scope = Field(default_factory=Scope)
    metrics: list[Metric] = Field(default_factory=list)
    highlights: list[str] = Field(default_factory=list)
    flags: Flags = Field(default_factory=Flags)


class Extension(_Part):
    """The part that only this kind of task has; `type` is the task_key."""

    type: str
    version: Literal[1] = 1
    data: dict[str, JsonValue] = Field(default_factory=dict)


class TaskSummary(_Part):
    """The whole envelope."""

    version: Literal[1] = 1
    common: Common = Field(default_factory=Common)
    ext: Extension

    def with_metrics(self, *metrics: Metric) -> Self:
        """Return a copy in which *metrics* replace those of the same key, or come after the others."""
        new = {metric.key: metric for metric in metrics}
        kept = [new.pop(metric.key, metric) for metric in self.common.metrics]
        common = self.common.model_copy(update={"metrics": [*kept, *new.values()]})
        return self.model_copy(update={"common": common})

    def with_highlight(self, highlight: str) -> Self:
        """Return a copy that says *highlight* once."""
        if highlight in self.common.highlights:
            return self
        common = self.common.model_copy(update={"highlights": [*self.common.highlights, highlight]})
        return self.model_copy(update={"common": common})

    def as_skipped(self, reason: str) -> Self:
        """Return a copy that says why there was nothing to do."""
        common = self.common.model_copy(update={"flags": Flags(skipped=True, skip_reason=reason)})
        return self.model_copy(update={"common": common})


def summary_of_days(
    task_key: str,
    timezone: str,
    *,
    days: tuple[date, date] | None,
    instance_ids: Sequence[int] | None = None,
    levels: Sequence[str] = (),
    period_type: str | None = None,
) -> TaskSummary:
    """Return the summary, before its work, of a run over *days*, the first and the last; None for one without days."""
    inputs: dict[str, JsonValue] = {}
    target: dict[str, JsonValue] = {}
    time = None
    if days is not None:
        first, last = days
        inputs |= {"first": first.isoformat(), "last": last.isoformat()}
        time = Day(timezone=timezone, date=first) if first == last else None
    if instance_ids is not None:
        target["instance_ids"] = list(instance_ids)
    if levels:
        target["levels"] = list(levels)
    if period_type is not None:
        target["period_type"] = period_type
    return TaskSummary(
        common=Common(inputs=inputs, scope=Scope(time=time, target=target)), ext=Extension(type=task_key)
    )
