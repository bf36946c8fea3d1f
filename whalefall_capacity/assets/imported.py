"""Imported days as materialized partitions."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import date

import dagster as dg
from sqlalchemy import Engine

from whalefall_capacity.assets.metadata import materializations, stored_days


def report_imported_days(engine: Engine, days: Iterable[date]) -> None:
    """Record a materialization of both stats assets for each of *days* in the Dagster instance of DAGSTER_HOME."""
    with dg.DagsterInstance.get() as instance:
        report_stored_days(instance, engine, days)


def report_stored_days(instance: dg.DagsterInstance, engine: Engine, days: Iterable[date]) -> None:
    """Record a materialization of both stats assets, as they are stored, for each of *days* in *instance*."""
    for event in materializations(stored_days(engine, days, changed=None)):
        instance.report_runless_asset_event(event)
