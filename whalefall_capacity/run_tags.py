"""Tags on a Dagster run: set by whoever launches it for somebody (the API, the command line), and by its job."""

from __future__ import annotations

TRIGGER_TAG = "whalefall/trigger"
CREATED_BY_TAG = "whalefall/created_by"
# Dagster's own, by the names under which it documents them.
PARTITION_TAG = "dagster/partition"
RETRY_STRATEGY_TAG = "dagster/retry_strategy"
PERIOD_TYPE_TAG = "whalefall/period_type"
