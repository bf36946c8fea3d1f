"""Tags on a Dagster run: set by whoever launches it for somebody (the API, the command line), and by its job."""

from __future__ import annotations

TRIGGER_TAG = "whalefall/trigger"
CREATED_BY_TAG = "whalefall/created_by"
# Dagster's own, by the name under which it documents it.
PARTITION_TAG = "dagster/partition"
PERIOD_TYPE_TAG = "whalefall/period_type"
