"""Names of Dagster that have no public home: imported here and from here, so that an upgrade has one place to look at.

Two modules import others, which no other module needs: `ui/dagster_app.py` those of the webserver itself, and
`celery_steps.py` those of steps on Celery workers, which is an extra.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

# The state of an asset's freshness, as `DagsterInstance` stores it; only the policies are public.
from dagster._core.definitions.freshness import FreshnessState as FreshnessState

# How Dagster's own commands name a job that other processes load again; `reconstructable` takes no job of a location.
from dagster._core.definitions.reconstruct import ReconstructableRepository as ReconstructableRepository

# The content of a materialization event; the public `report_runless_asset_event` writes one event at a time.
from dagster._core.events import StepMaterializationData as StepMaterializationData

# Executes a run whose id is known before; the public `execute_job` makes its own.
from dagster._core.execution.api import execute_run as execute_run

# Under which job and run Dagster logs an event that belongs to no run; for the same reason.
from dagster._core.instance.utils import RUNLESS_JOB_NAME as RUNLESS_JOB_NAME
from dagster._core.instance.utils import RUNLESS_RUN_ID as RUNLESS_RUN_ID

# The latest evaluation of a check with its status; the public `AssetCheckEvaluation` does not know of one in progress.
from dagster._core.storage.asset_check_execution_record import (
    AssetCheckExecutionRecord as AssetCheckExecutionRecord,
)
from dagster._core.storage.asset_check_execution_record import (
    AssetCheckExecutionRecordStatus as AssetCheckExecutionRecordStatus,
)

# The names of tags: documented, but only as text.
from dagster._core.storage.tags import ASSET_PARTITION_RANGE_END_TAG as ASSET_PARTITION_RANGE_END_TAG
from dagster._core.storage.tags import ASSET_PARTITION_RANGE_START_TAG as ASSET_PARTITION_RANGE_START_TAG
from dagster._core.storage.tags import BACKFILL_ID_TAG as BACKFILL_ID_TAG
from dagster._core.storage.tags import PARENT_RUN_ID_TAG as PARENT_RUN_ID_TAG
from dagster._core.storage.tags import PARTITION_NAME_TAG as PARTITION_NAME_TAG
from dagster._core.storage.tags import PRIORITY_TAG as PRIORITY_TAG
from dagster._core.storage.tags import RETRY_NUMBER_TAG as RETRY_NUMBER_TAG
from dagster._core.storage.tags import SCHEDULE_NAME_TAG as SCHEDULE_NAME_TAG
from dagster._core.storage.tags import SENSOR_NAME_TAG as SENSOR_NAME_TAG

# Whether the scheduler would take a cron expression; in public one can only make a schedule and see.
from dagster._utils.schedules import is_valid_cron_schedule as is_valid_cron_schedule

if TYPE_CHECKING:
    # A daemon's own report, as the storage of runs keeps it; `get_daemon_heartbeats` is public. Only a type here: its
    # package loads every daemon.
    from dagster._daemon.types import DaemonHeartbeat as DaemonHeartbeat
