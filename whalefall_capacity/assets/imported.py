"""Imported days as materialized partitions."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from datetime import date, datetime, timezone

import dagster as dg
from sqlalchemy import Engine

from whalefall_capacity.asset_keys import DATABASE_SIZE_STATS, INSTANCE_SIZE_STATS
from whalefall_capacity.assets.metadata import CHANGED_AT, materializations, stored_days
from whalefall_capacity.dagster_private import RUNLESS_JOB_NAME, RUNLESS_RUN_ID, StepMaterializationData
from whalefall_capacity.periods import utc_now
from whalefall_capacity.store.sizes.stats import days_with_imports, written_days


def report_imported_days(engine: Engine, days: Iterable[date] = ()) -> None:
    """Record a materialization of both stats assets for each of *days* in the Dagster instance of DAGSTER_HOME.

    And for each day that was imported and not told of since: a process that was killed between the two, or could not
    reach Dagster's storage, is made up for by the next one.
    """
    with dg.DagsterInstance.get() as instance:
        report_stored_days(instance, engine, sorted({*days, *unreported_days(instance, engine)}))


def unreported_days(instance: dg.DagsterInstance, engine: Engine) -> list[date]:
    """Return the days with imported rows that changed after what *instance* was last told of them."""
    told = _last_told(instance)
    changed = [day for day, changed_at in written_days(engine).items() if day not in told or told[day] < changed_at]
    return days_with_imports(engine, changed)


def _last_told(instance: dg.DagsterInstance) -> dict[date, datetime]:
    """Return how new the rows of each day were, by the store's clock, when it was last materialized."""
    # Two reads, however many days and events there are: the newest event of each day by the index, then those events.
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
        date.fromisoformat(record.partition_key): _changed_at(record)
        for record in records
        if record.partition_key is not None
    }


def _changed_at(record: dg.EventLogRecord) -> datetime:
    event = record.asset_materialization
    told = event.metadata.get(CHANGED_AT) if event is not None else None
    if told is None:
        # Of an earlier version, by the clock of whoever told it.
        return datetime.fromtimestamp(record.timestamp, timezone.utc)
    return datetime.fromisoformat(str(told.value))


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
