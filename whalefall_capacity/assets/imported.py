"""Imported days as materialized partitions."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from datetime import date, datetime, timezone

import dagster as dg
from sqlalchemy import Engine

from whalefall_capacity.asset_keys import DATABASE_SIZE_STATS, INSTANCE_SIZE_STATS
from whalefall_capacity.assets.metadata import materializations, stored_days
from whalefall_capacity.dagster_private import RUNLESS_JOB_NAME, RUNLESS_RUN_ID, StepMaterializationData
from whalefall_capacity.periods import utc_now
from whalefall_capacity.store.sizes.stats import imported_days


def report_imported_days(engine: Engine, days: Iterable[date]) -> None:
    """Record a materialization of both stats assets for each of *days* in the Dagster instance of DAGSTER_HOME."""
    with dg.DagsterInstance.get() as instance:
        report_stored_days(instance, engine, days)


def report_unreported_days(engine: Engine) -> None:
    """Record the same for each day whose imported rows are newer than its latest materialization.

    This makes up for a process that was killed between the import and its report.
    """
    with dg.DagsterInstance.get() as instance:
        reported = _last_reported(instance)
        days = [day for day, at in imported_days(engine).items() if day not in reported or reported[day] < at]
        report_stored_days(instance, engine, days)


def _last_reported(instance: dg.DagsterInstance) -> dict[date, datetime]:
    """Return when each day was last materialized."""
    latest = instance.event_log_storage.get_latest_storage_id_by_partition(
        DATABASE_SIZE_STATS, dg.DagsterEventType.ASSET_MATERIALIZATION
    )
    ids = list(latest.values())
    if not ids:
        return {}
    records = instance.fetch_materializations(
        dg.AssetRecordsFilter(asset_key=DATABASE_SIZE_STATS, storage_ids=ids), limit=len(ids)
    ).records
    return {
        date.fromisoformat(record.partition_key): datetime.fromtimestamp(record.timestamp, timezone.utc)
        for record in records
        if record.partition_key is not None
    }


def report_stored_days(instance: dg.DagsterInstance, engine: Engine, days: Iterable[date]) -> None:
    """Record a materialization of both stats assets, as they are stored, for each of *days* in *instance*.

    One statement for all days of an asset: the sensor that follows the database sizes, which are written last, sees all
    of them in one tick or none. Dagster's own API for events outside a run takes one event at a time.
    """
    found = list(materializations(stored_days(engine, days, changed=None)))
    for key in (INSTANCE_SIZE_STATS, DATABASE_SIZE_STATS):
        entries = [_log_entry(event) for event in found if event.asset_key == key]
        if entries:
            instance.event_log_storage.store_event_batch(entries)


def _log_entry(event: dg.AssetMaterialization) -> dg.EventLogEntry:
    """Return *event* as Dagster logs events outside a run."""
    materialized = dg.DagsterEvent(
        event_type_value=dg.DagsterEventType.ASSET_MATERIALIZATION.value,
        job_name=RUNLESS_JOB_NAME,
        event_specific_data=StepMaterializationData(event),
    )
    return dg.EventLogEntry(  # type: ignore[no-untyped-call]
        error_info=None,
        level=logging.INFO,
        user_message="",
        run_id=RUNLESS_RUN_ID,
        timestamp=utc_now().timestamp(),
        job_name=RUNLESS_JOB_NAME,
        dagster_event=materialized,
    )
