"""A code location in which the sensor starts the same runs as in the real one, and their assets have empty bodies."""

from __future__ import annotations

import dagster as dg

from benchmarks.empty_assets import idle_asset
from whalefall_capacity.asset_keys import AGGREGATION_JOB_NAMES, aggregation_keys
from whalefall_capacity.automation import sensors
from whalefall_capacity.periods import PeriodType
from whalefall_capacity.store.aggregations.statements import Level

JOBS = [
    dg.define_asset_job(AGGREGATION_JOB_NAMES[period_type], dg.AssetSelection.assets(*aggregation_keys(period_type)))
    for period_type in PeriodType
]


@dg.sensor(
    jobs=JOBS,
    default_status=dg.DefaultSensorStatus.RUNNING,
    minimum_interval_seconds=sensors.aggregations_follow_stats.minimum_interval_seconds,
)
def aggregations_follow_stats(context: dg.SensorEvaluationContext) -> dg.SensorResult | dg.SkipReason:
    result = sensors.aggregations_follow_stats(context)
    assert isinstance(result, dg.SensorResult | dg.SkipReason)
    return result


defs = dg.Definitions(
    assets=[idle_asset(level, period_type) for level in Level for period_type in PeriodType],
    jobs=JOBS,
    sensors=[aggregations_follow_stats],
    executor=dg.in_process_executor,
)
