"""The application of the Celery workers: `celery -A whalefall_capacity.celery_app worker`.

Dagster's own command writes the broker's URL, with its password, into a file; here it comes from the settings.
"""

from __future__ import annotations

from dagster_celery.executor import CeleryExecutor
from dagster_celery.make_app import make_app
from dagster_celery.tasks import create_task

from whalefall_capacity.errors import SettingsError
from whalefall_capacity.execution_choices import ExecutorName
from whalefall_capacity.executor import celery_config
from whalefall_capacity.settings import Settings, load_settings


def _require_celery(settings: Settings) -> Settings:
    if settings.executor is not ExecutorName.CELERY:
        raise SettingsError(f"WHALEFALL_EXECUTOR: '{settings.executor}': must be celery for a Celery worker")
    return settings


_config = celery_config(_require_celery(load_settings()))
app = make_app(CeleryExecutor.for_cli(**_config).app_args())  # type: ignore[no-untyped-call]
execute_plan = create_task(app)  # type: ignore[no-untyped-call]
