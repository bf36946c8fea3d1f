"""Imported days as materialized partitions."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from datetime import date

import dagster as dg
from sqlalchemy import Engine

from whalefall_capacity.asset_keys import DATABASE_SIZE_STATS, INSTANCE_SIZE_STATS
from whalefall_capacity.assets.metadata import materializations, stored_days
from whalefall_capacity.dagster_private import RUNLESS_JOB_NAME, RUNLESS_RUN_ID, StepMaterializationData
from whalefall_capacity.periods import utc_now


def report_imported_days(engine: Engine, days: Iterable[date]) -> None:
    """Record a materialization of both stats assets for each of *days* in the Dagster instance of DAGSTER_HOME."""
    with dg.DagsterInstance.get() as instance:
        report_stored_days(instance, engine, days)


def report_stored_days(instance: dg.DagsterInstance, engine: Engine, days: Iterable[date]) -> None:
    """Record a materialization of both stats assets, as they are stored, for each of *days* in *instance*.

    All days of an asset in one statement: the sensor that follows the sizes of databases, which come last, sees all of
    them in one tick, or none. Dagster's own report of an event outside of a run takes one event at a time.
    """
    found = list(materializations(stored_days(engine, days, changed=None)))
    for key in (INSTANCE_SIZE_STATS, DATABASE_SIZE_STATS):
        entries = [_log_entry(event) for event in found if event.asset_key == key]
        if entries:
            instance.event_log_storage.store_event_batch(entries)


def _log_entry(event: dg.AssetMaterialization) -> dg.EventLogEntry:
    """Return *event* as Dagster logs one that belongs to no run."""
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
