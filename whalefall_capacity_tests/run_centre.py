"""A deployment as the run centre and an operator have it before them: two tables, and the API of the UI."""

from __future__ import annotations

import os
import re
import urllib.error
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

import dagster as dg
import psutil
import yaml
from dagster._core.scheduler.instigation import SensorInstigatorData
from sqlalchemy import Engine, text

from whalefall_capacity.periods import today
from whalefall_capacity.runtime import DAGSTER_FILE
from whalefall_capacity.settings import PROJECT_ROOT, Settings, load_settings
from whalefall_capacity.store.postgres.schema import migrate
from whalefall_capacity_tests.processes import REPOSITORY, Deployment, deployment, wait_for
from whalefall_capacity_tests.registry import PASSWORD_VARIABLE

# Runs with the first tag never leave the queue; of those with the second, one at a time does.
HELD, ALONE = "test/held", "test/alone"

SENSOR = "query($sensor: SensorSelector!) { sensorOrError(sensorSelector: $sensor) { ... on Sensor { id } } }"
STOP_SENSOR = "mutation($id: String!) { stopSensor(id: $id) { __typename } }"
START_SENSOR = "mutation($sensor: SensorSelector!) { startSensor(sensorSelector: $sensor) { __typename } }"
TASK_RUN = "SELECT * FROM task_runs WHERE run_id = :run"
ITEMS = "SELECT * FROM task_run_items WHERE run_id = :run ORDER BY id"
CANCEL = "UPDATE task_runs SET status = 'cancelled' WHERE run_id = :run"


@dataclass(frozen=True)
class Centre:
    """A running deployment, its store, and Dagster's instance as the deployment has it."""

    running: Deployment
    store: Engine
    instance: dg.DagsterInstance

    def launch(self, *tags: str) -> str:
        """Launch today's collection from the UI and return its run id."""
        return self.running.launch_collection(this_day(), *tags)

    def launch_until_half(self, *tags: str) -> str:
        """Launch a collection and wait until it is in the middle: one visit done, two at the gate, three to come."""
        run_id = self.launch(*tags)
        half = {"completed": 1, "running": 2, "pending": 3}
        wait_for(lambda: self.visits(run_id) == half, "collection that is half done")
        return run_id

    def cancel(self, run_id: str) -> None:
        """Cancel as the run centre does."""
        with self.store.begin() as connection:
            assert connection.execute(text(CANCEL), {"run": run_id}).rowcount == 1

    def await_dagster(self, run_id: str, status: str) -> None:
        wait_for(lambda: self.running.run_status(run_id) == status, f"{status} of run {run_id}")

    def await_ui(self, run_id: str) -> None:
        """Wait until the UI answers again: it finds out one by one that its connections to the storage are gone."""

        def answers() -> bool:
            try:
                self.running.run_messages(run_id)
                self.running.run_status(run_id)
            except urllib.error.HTTPError:
                return False
            return True

        wait_for(answers, "answer of the UI")

    def rows(self, query: str, **values: object) -> list[Any]:
        with self.store.connect() as connection:
            return list(connection.execute(text(query), values))

    def task_run(self, run_id: str) -> Any:
        """Return the row of a run, None when there is none yet."""
        return next(iter(self.rows(TASK_RUN, run=run_id)), None)

    def items(self, run_id: str) -> list[Any]:
        return self.rows(ITEMS, run=run_id)

    def visits(self, run_id: str) -> Counter[str]:
        """Return how many visits of a run are in which status."""
        return Counter(item.status for item in self.items(run_id) if item.item_type == "collection")

    def await_closed(self, run_id: str) -> Any:
        """Wait until everything of a task run is final and return its row."""

        def closed() -> Any:
            row = self.task_run(run_id)
            return row if row is not None and row.closed_at is not None else None

        return wait_for(closed, f"end of task run {run_id}")

    def worker(self, run_id: str) -> psutil.Process:
        """Return the process that works for a run. Raises psutil.NoSuchProcess when it has ended."""
        found = re.search(r"Started process for run \(pid: (\d+)\)", self.running.run_messages(run_id))
        assert found is not None
        return psutil.Process(int(found[1]))

    def stop_sensor(self, name: str) -> None:
        sensor = self.running.graphql(SENSOR, sensor=REPOSITORY | {"sensorName": name})["sensorOrError"]
        self.running.graphql(STOP_SENSOR, id=sensor["id"])

    def stop_sensor_between_looks(self, name: str) -> None:
        """Stop a sensor whose look has just been noted in its state.

        A look that is already due comes all the same, on a busy machine late. At the end of a look, a moment after its
        tick has ended, the daemon writes the whole state of the sensor: a stop just before would be undone.
        """
        before = self._last_look(name)
        wait_for(lambda: self._last_look(name) not in (None, before), f"look of {name}")
        self.stop_sensor(name)

    def _last_look(self, name: str) -> float | None:
        """Return when the newest look of a sensor was noted as ended, None while one is under way."""
        (state,) = [state for state in self.instance.all_instigator_state() if state.instigator_name == name]
        assert isinstance(state.instigator_data, SensorInstigatorData)
        return state.instigator_data.last_tick_success_timestamp

    def start_sensor(self, name: str) -> None:
        self.running.graphql(START_SENSOR, sensor=REPOSITORY | {"sensorName": name})


def this_day() -> date:
    """Return today in the zone of the deployment."""
    return today(Settings(_env_file=None).zone)


@contextmanager
def centre(folder: Path, store: Engine, dagster_url: str) -> Iterator[Centre]:
    """Hold a deployment in which nothing starts by itself, and two servers at a time are visited."""
    migrate(store)
    home = folder / "home" / "dagster"
    home.mkdir(parents=True)
    (home / DAGSTER_FILE).write_text(_dagster_file(), encoding="utf-8")
    variables = {
        "WHALEFALL_HOME": str(folder / "home"),
        "WHALEFALL_STORE_URL": store.url.render_as_string(hide_password=False),
        "WHALEFALL_DAGSTER_URL": dagster_url,
        "WHALEFALL_COLLECTION_CONCURRENCY": "2",
        "WHALEFALL_CONNECT_TIMEOUT_SECONDS": "300",
        PASSWORD_VARIABLE: "",
    }
    with (
        deployment(["up"], variables, folder / "up.log") as running,
        dagster_instance_of(home, dagster_url) as instance,
    ):
        found = Centre(running, store, instance)
        found.stop_sensor("aggregations_follow_stats")
        yield found


def _dagster_file() -> str:
    """Return the project's own, with the queue of the tests."""
    content = yaml.safe_load((PROJECT_ROOT / DAGSTER_FILE).read_text(encoding="utf-8"))
    limits = [{"key": HELD, "limit": 0}, {"key": ALONE, "limit": 1}]
    content["run_coordinator"]["config"]["tag_concurrency_limits"] = limits
    # A test looks at the runs that it makes: none may be executed again by itself, or wait for that of another.
    content["run_retries"]["enabled"] = False
    del content["concurrency"]["pools"]["default_limit"]
    return yaml.safe_dump(content)


@contextmanager
def dagster_instance_of(home: Path, dagster_url: str) -> Iterator[dg.DagsterInstance]:
    """Hold Dagster's instance as a deployment with *home* as its DAGSTER_HOME has it."""
    os.environ["WHALEFALL_DAGSTER_URL"] = dagster_url
    load_settings.cache_clear()
    try:
        instance = dg.DagsterInstance.from_config(str(home))
    finally:
        del os.environ["WHALEFALL_DAGSTER_URL"]
        load_settings.cache_clear()
    with instance:
        yield instance
