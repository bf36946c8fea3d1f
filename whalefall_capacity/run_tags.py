"""Tags on a Dagster run, set by whoever launches it for somebody: the API and the command line."""

from __future__ import annotations

TRIGGER_TAG = "whalefall/trigger"
CREATED_BY_TAG = "whalefall/created_by"
