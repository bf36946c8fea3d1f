"""Tags on a Dagster run: set by whoever launches it for somebody (the API, the command line), and by its job."""

from __future__ import annotations

TRIGGER_TAG = "whalefall/trigger"
CREATED_BY_TAG = "whalefall/created_by"
PERIOD_TYPE_TAG = "whalefall/period_type"
