"""The executor that the settings name; the package of an extra is imported only when it is chosen."""

from __future__ import annotations

import warnings
from typing import Any

import dagster as dg

from whalefall_capacity.execution_choices import ExecutorName
from whalefall_capacity.settings import Settings

# The processes of a run's steps are forked from one that has loaded the program: each would take seconds to load it.
FORKED = {"forkserver": {"preload_modules": ["whalefall_capacity.definitions"]}}


def executor_of(settings: Settings) -> dg.ExecutorDefinition:
    """Return the executor of all jobs that do not choose one themselves."""
    limit = settings.executor_max_concurrent
    limits = {} if limit is None else {"max_concurrent": limit}
    match settings.executor:
        case ExecutorName.IN_PROCESS:
            return dg.in_process_executor
        case ExecutorName.MULTIPROCESS:
            return dg.multiprocess_executor.configured({**limits, "start_method": FORKED})
        case ExecutorName.CELERY:
            from whalefall_capacity.celery_steps import ending_celery_executor

            # Dagster defines the one task that it has again for each step.
            warnings.filterwarnings("ignore", message="Task name 'execute_plan' is already registered")
            return ending_celery_executor().configured(celery_config(settings))
        case ExecutorName.K8S:
            from dagster_k8s import k8s_job_executor

            # A pod that fails is the executor's to repeat: Kubernetes would repeat it behind its back.
            once = {"job_spec_config": {"backoff_limit": 0}}
            return _definition(k8s_job_executor.configured({**limits, "step_k8s_config": once}))
        case ExecutorName.DOCKER:
            from dagster_docker import docker_executor

            return _definition(docker_executor.configured(limits))


def celery_config(settings: Settings) -> dict[str, Any]:
    """Return the configuration of Celery, the same for the executor and for the workers.

    A task is acknowledged when it is done, so that another process takes it over from one that died: at once if its
    worker lives, otherwise after the visibility timeout. A task that was done all the same is not repeated. Whether a
    worker has begun a task is noted, so that a cancelled run waits for no other.
    """
    broker, backend = settings.celery_broker, settings.celery_backend or settings.celery_broker
    assert broker is not None
    assert backend is not None
    return {
        "broker": broker.get_secret_value(),
        "backend": backend.get_secret_value(),
        "config_source": {
            "task_acks_late": True,
            "task_reject_on_worker_lost": True,
            "task_track_started": True,
            "worker_deduplicate_successful_tasks": True,
            "worker_prefetch_multiplier": 1,
            "broker_transport_options": {
                "visibility_timeout": settings.celery_visibility_seconds,
                # Workers look for tasks beyond it every ten seconds; by default they do each tenth time.
                "unacked_restore_throttle": 1,
            },
        },
    }


def _definition(found: object) -> dg.ExecutorDefinition:
    assert isinstance(found, dg.ExecutorDefinition)
    return found
