"""The tables of WhaleFall that are read, and their columns; what it has beside them is none of our business.

Facts of its public models and migrations up to version 1.5.0 (https://github.com/nyealovey/WhaleFall).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

TablesAndColumns = Mapping[str, Sequence[str]]

REQUIRED: TablesAndColumns = {
    "credentials": (
        "id", "name", "credential_type", "username", "password", "description", "is_active", "deleted_at",
    ),
    "instances": (
        "id", "name", "db_type", "host", "port", "database_name", "database_version", "main_version",
        "detailed_version", "description", "is_active", "last_connected", "deleted_at", "credential_id",
    ),
    "instance_databases": (
        "instance_id", "database_name", "is_active", "first_seen_date", "last_seen_date", "deleted_at",
    ),
    "database_size_stats": ("instance_id", "database_name", "size_mb", "collected_date", "collected_at"),
    "instance_size_stats": (
        "instance_id", "total_size_mb", "database_count", "collected_date", "collected_at", "is_deleted",
    ),
}  # fmt: skip
TASK_RUNS: TablesAndColumns = {
    "task_runs": (
        "run_id", "task_key", "trigger_source", "status", "started_at", "completed_at", "created_by",
        "error_message", "created_at",
    ),
    "task_run_items": (
        "run_id", "item_type", "item_key", "item_name", "instance_id", "status", "started_at", "completed_at",
        "metrics_json", "details_json", "error_message",
    ),
    "users": ("id", "username", "role", "is_active"),
}  # fmt: skip
ALERT_LIMITS: TablesAndColumns = {
    "email_alert_settings": (
        "id", "global_enabled", "recipients_json", "database_capacity_enabled",
        "database_capacity_percent_threshold", "database_capacity_absolute_gb_threshold",
    ),
}  # fmt: skip
USERS: TablesAndColumns = {"users": TASK_RUNS["users"]}
