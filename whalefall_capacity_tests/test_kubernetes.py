"""The Job of a step as Dagster makes it from the Helm values of deploy/, compared with a golden one, and executed.

No cluster is here: an API that answers like one executes what each Job says as a process of this machine.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from copy import deepcopy
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
import yaml
from sqlalchemy import Engine

from whalefall_capacity.settings import PREFIX, PROJECT_ROOT
from whalefall_capacity_tests.commands.conftest import dagster_url as dagster_url
from whalefall_capacity_tests.fake_kubernetes import Cluster, fake_kubernetes
from whalefall_capacity_tests.processes import run
from whalefall_capacity_tests.store.past import put_sizes
from whalefall_capacity_tests.store.records import rows

pytestmark = pytest.mark.slow

VALUES = yaml.safe_load((PROJECT_ROOT / "deploy" / "helm-values.yaml").read_text())
GOLDEN = Path(__file__).with_name("kubernetes_step_job.yaml")
MONDAY = date(2026, 3, 2)
ONE_STEP = ["aggregate", "daily", "--from", "2026-03-02", "--to", "2026-03-02", "--scope", "instance", "--json"]
# What differs from run to run.
RUN = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")


def launcher_config(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return what the chart writes into dagster.yaml of the run launcher (its template _run-launcher.tpl)."""
    config = values["runLauncher"]["config"]["k8sRunLauncher"]
    kubernetes = config["runK8sConfig"]
    return {
        "job_namespace": "whalefall",
        "image_pull_policy": config["imagePullPolicy"],
        "service_account_name": values["global"]["serviceAccountName"],
        "instance_config_map": "whalefall-dagster-instance",
        "postgres_password_secret": values["global"]["postgresqlSecretName"],
        "resources": config["resources"],
        "run_k8s_config": {
            "pod_spec_config": kubernetes["podSpecConfig"],
            "job_spec_config": kubernetes["jobSpecConfig"],
        },
    }


def container_context(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return what the chart hands over of the code server to its runs (includeConfigInLaunchedRuns)."""
    (deployment,) = values["dagster-user-deployments"]["deployments"]
    assert deployment["includeConfigInLaunchedRuns"]["enabled"]
    return {
        "k8s": {
            "image_pull_policy": deployment["image"]["pullPolicy"],
            "env": deployment["env"],
            "env_secrets": [secret["name"] for secret in deployment["envSecrets"]],
            "namespace": "whalefall",
        }
    }


@dataclass(frozen=True)
class Pod:
    """The pod of a run in the cluster: its variables, and the cluster."""

    cluster: Cluster
    variables: dict[str, str]


@pytest.fixture
def pod(store: Engine, dagster_url: str, tmp_path: Path) -> Iterator[Pod]:
    """Dagster's instance as the chart makes it, but for its storage and its way to the cluster."""
    (deployment,) = VALUES["dagster-user-deployments"]["deployments"]
    secret = {
        f"{PREFIX}STORE_URL": store.url.render_as_string(hide_password=False),
        f"{PREFIX}DAGSTER_URL": dagster_url,
        f"{PREFIX}HOME": str(tmp_path / "home"),
    }
    folder = tmp_path / "cluster"
    folder.mkdir()
    with fake_kubernetes(folder, {"whalefall": secret}) as (cluster, kubeconfig):
        home = tmp_path / "home" / "dagster"
        home.mkdir(parents=True)
        content = yaml.safe_load((PROJECT_ROOT / "dagster.yaml").read_text())
        way = {"load_incluster_config": False, "kubeconfig_file": str(kubeconfig)}
        launcher = {"module": "dagster_k8s", "class": "K8sRunLauncher", "config": launcher_config(VALUES) | way}
        (home / "dagster.yaml").write_text(yaml.safe_dump(content | {"run_launcher": launcher}))
        image = deployment["image"]
        yield Pod(
            cluster,
            secret
            | {variable["name"]: variable["value"] for variable in deployment["env"]}
            | {
                "DAGSTER_CURRENT_IMAGE": f"{image['repository']}:{image['tag']}",
                "DAGSTER_CONTAINER_CONTEXT": json.dumps(container_context(VALUES)),
            },
        )


def normalized(job: dict[str, Any]) -> dict[str, Any]:
    """Return a Job without what differs from run to run."""
    job = deepcopy(job)
    (container,) = job["spec"]["template"]["spec"]["containers"]
    for variable in container["env"]:
        if variable["name"] == "DAGSTER_COMPRESSED_EXECUTE_STEP_ARGS":
            variable["value"] = "ARGUMENTS"
    text = RUN.sub("RUN", json.dumps(job))
    text = text.replace(job["metadata"]["name"], "dagster-step-HASH").replace(dg.__version__, "VERSION")
    normal: dict[str, Any] = json.loads(text)
    return normal


def test_the_job_of_a_step_is_the_golden_one_and_does_what_it_says(store: Engine, pod: Pod) -> None:
    put_sizes(store, [(1, "shop", MONDAY, 100)])
    done = run(ONE_STEP, pod.variables)
    assert done.returncode == 0, done.stderr + pod.cluster.output()
    (window,) = json.loads(done.stdout)
    assert (window["state"], window["rows_written"]) == ("done", 1)
    assert rows(store, "SELECT sum_size_bytes FROM instance_size_aggregations") == [(100,)]
    job, *_checks = pod.cluster.jobs
    assert normalized(job) == yaml.safe_load(GOLDEN.read_text())


def test_a_pod_that_fails_is_not_started_again_by_kubernetes_and_fails_its_run(store: Engine, pod: Pod) -> None:
    put_sizes(store, [(1, "shop", MONDAY, 100)])
    with store.begin() as connection:
        connection.exec_driver_sql("ALTER TABLE instance_size_aggregations ADD CHECK (sum_size_bytes > 1000)")
    done = run(ONE_STEP, pod.variables)
    assert done.returncode == 1
    assert "violates check constraint" in done.stderr
    assert [job["spec"]["backoffLimit"] for job in pod.cluster.jobs] == [0]
    assert rows(store, "SELECT status FROM task_runs") == [("failed",)]
