"""The executor that the settings name: what it is told, what it imports, and that it tells nobody a secret."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import pytest

from whalefall_capacity.executor import celery_config, executor_of
from whalefall_capacity.settings import build_settings
from whalefall_capacity_tests.processes import environment

URLS = {
    "WHALEFALL_STORE_URL": "postgresql://whalefall@db.example/sizes",
    "WHALEFALL_DAGSTER_URL": "postgresql://whalefall@db.example/dagster",
}
CELERY = {
    **URLS,
    "WHALEFALL_EXECUTOR": "celery",
    "WHALEFALL_CELERY_BROKER": "redis://:Tr0ub4dor@redis.example:6379/0",
    "WHALEFALL_CELERY_BACKEND": "redis://:C0rrectHorse@redis.example:6379/1",
    "WHALEFALL_CELERY_VISIBILITY_SECONDS": "7200",
}
LOAD = """
import json, sys
from dagster._core.remote_representation.external_data import RepositorySnap
from dagster._serdes import serialize_value
from whalefall_capacity.definitions import defs
repository = defs.get_repository_def()
extras = {"celery", "dagster_celery", "dagster_docker", "dagster_k8s", "docker", "kubernetes", "redis"}
print(json.dumps({
    "executors": {job.name: job.executor_def.name for job in repository.get_all_jobs()},
    "tags": repository.get_job("partition_maintenance").tags,
    "extras": sorted(extras & sys.modules.keys()),
    "told": serialize_value(RepositorySnap.from_def(repository)),
}))
"""
# One works through a file, for the other somebody waits.
JOBS_OF_ONE_PROCESS = {"partition_maintenance", "capacity_aggregate_current"}


def loaded(variables: dict[str, str]) -> dict[str, Any]:
    """Load the code location; return the executors of its jobs, the extras it imports, and what Dagster is told."""
    done = subprocess.run(
        [sys.executable, "-c", LOAD], env=environment(variables), capture_output=True, text=True, check=True
    )
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def test_by_default_steps_run_in_the_process_of_the_run_and_no_extra_is_imported() -> None:
    found = loaded({})
    assert set(found["executors"].values()) == {"in_process"}
    assert found["extras"] == []
    assert found["tags"] == {}


def test_celery_imports_its_package_alone_and_its_passwords_stay_in_the_process() -> None:
    found = loaded(CELERY)
    elsewhere = {job for job, executor in found["executors"].items() if executor == "celery"}
    assert found["executors"].keys() - elsewhere == JOBS_OF_ONE_PROCESS
    assert found["extras"] == ["dagster_celery"]
    assert "sync_databases" in found["told"]
    assert "Tr0ub4dor" not in found["told"]
    assert "C0rrectHorse" not in found["told"]


def test_a_maintenance_whose_container_died_begins_again() -> None:
    found = loaded(URLS | {"WHALEFALL_RUN_LAUNCHER": "docker"})
    assert found["tags"] == {"dagster/retry_strategy": "ALL_STEPS"}
    assert found["extras"] == []


@pytest.mark.parametrize(
    ("variables", "name"),
    [
        ({"executor": "multiprocess", "executor_max_concurrent": 3}, "multiprocess"),
        ({"executor": "docker", "run_launcher": "docker"}, "docker"),
        ({"executor": "k8s", "run_launcher": "k8s"}, "k8s"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_every_executor_is_the_one_of_dagster_by_that_name(variables: dict[str, object], name: str) -> None:
    urls = {"store_url": URLS["WHALEFALL_STORE_URL"], "dagster_url": URLS["WHALEFALL_DAGSTER_URL"]}
    assert executor_of(build_settings(**urls, **variables)).name == name


def test_a_lost_task_of_celery_goes_to_another_worker_and_a_finished_one_is_not_repeated() -> None:
    settings = build_settings(
        executor="celery",
        store_url=URLS["WHALEFALL_STORE_URL"],
        dagster_url=URLS["WHALEFALL_DAGSTER_URL"],
        celery_broker="redis://:Tr0ub4dor@redis.example:6379/0",
        celery_visibility_seconds=7200,
    )
    config = celery_config(settings)
    assert config["backend"] == config["broker"] == "redis://:Tr0ub4dor@redis.example:6379/0"
    assert config["config_source"] == {
        "task_acks_late": True,
        "task_reject_on_worker_lost": True,
        "task_track_started": True,
        "worker_deduplicate_successful_tasks": True,
        "worker_prefetch_multiplier": 1,
        "broker_transport_options": {"visibility_timeout": 7200, "unacked_restore_throttle": 1},
    }


def test_a_worker_of_celery_without_the_executor_says_what_is_missing() -> None:
    done = subprocess.run(
        [sys.executable, "-c", "import whalefall_capacity.celery_app"],
        env=environment({}),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].endswith("WHALEFALL_EXECUTOR: 'in_process': must be celery for a Celery worker")
