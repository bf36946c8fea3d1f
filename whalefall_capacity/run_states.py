"""States of a Dagster run that several statuses share."""

from __future__ import annotations

from typing import TypeGuard

import dagster as dg


def goes_on(run: dg.DagsterRun | None) -> TypeGuard[dg.DagsterRun]:
    """Tell whether there is such a run and steps of it may still begin: it has not ended, and is not to end."""
    return run is not None and not run.is_finished and run.status is not dg.DagsterRunStatus.CANCELING


def is_cancelled(run: dg.DagsterRun | None) -> bool:
    """Tell whether a run was cancelled, or is being cancelled."""
    return run is not None and run.status in (dg.DagsterRunStatus.CANCELING, dg.DagsterRunStatus.CANCELED)
