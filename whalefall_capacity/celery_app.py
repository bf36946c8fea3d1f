"""The application of the Celery workers: `celery -A whalefall_capacity.celery_app worker`.

Dagster's own command writes the broker's URL, with its password, into a file; here it comes from the settings.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from celery import Task
from celery.exceptions import Ignore
from dagster_celery.executor import CeleryExecutor
from dagster_celery.make_app import make_app
from dagster_celery.tasks import create_task

from whalefall_capacity.celery_steps import is_dropped
from whalefall_capacity.errors import SettingsError
from whalefall_capacity.execution_choices import ExecutorName
from whalefall_capacity.executor import celery_config
from whalefall_capacity.settings import Settings, load_settings


def _require_celery(settings: Settings) -> Settings:
    if settings.executor is not ExecutorName.CELERY:
        raise SettingsError(f"WHALEFALL_EXECUTOR: '{settings.executor}': must be celery for a Celery worker")
    return settings


class StepTask(Task):  # type: ignore[misc]
    """A step as a task, which is dropped if its run is over: it may have waited in the queue since."""

    def before_start(self, task_id: str, _: object, kwargs: Mapping[str, Any]) -> None:
        if is_dropped(kwargs["execute_step_args_packed"]):
            self.backend.mark_as_revoked(task_id, "its run is over", request=self.request)
            raise Ignore


_config = celery_config(_require_celery(load_settings()))
app = make_app(CeleryExecutor.for_cli(**_config).app_args())  # type: ignore[no-untyped-call]
execute_plan = create_task(app, base=StepTask)  # type: ignore[no-untyped-call]
