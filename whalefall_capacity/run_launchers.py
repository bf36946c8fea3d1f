"""The launcher of runs that the settings name, added to dagster.yaml.

What its containers and pods need, such as an image, variables and networks, is in the environment of the code server:
DAGSTER_CURRENT_IMAGE and DAGSTER_CONTAINER_CONTEXT, which are Dagster's own.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import yaml

from whalefall_capacity.execution_choices import LauncherName

# The beginning of a file that was made here, and may be replaced.
MADE_HERE = "# Made by whalefall-capacity for WHALEFALL_RUN_LAUNCHER="
LAUNCHERS: Mapping[LauncherName, Mapping[str, Any]] = {
    LauncherName.DOCKER: {"module": "dagster_docker", "class": "DockerRunLauncher"},
    LauncherName.K8S: {
        "module": "dagster_k8s",
        "class": "K8sRunLauncher",
        "config": {
            "job_namespace": {"env": "DAGSTER_K8S_PIPELINE_RUN_NAMESPACE"},
            "service_account_name": {"env": "DAGSTER_K8S_SERVICE_ACCOUNT"},
            # Required, and not used: a pod is told in its arguments what it needs of dagster.yaml.
            "instance_config_map": "none",
        },
    },
}


def with_launcher(dagster_yaml: str, launcher: LauncherName) -> str:
    """Return the text of dagster.yaml with *launcher*, which is not the default."""
    part = yaml.safe_dump({"run_launcher": dict(LAUNCHERS[launcher])}, sort_keys=False)
    return f"{MADE_HERE}{launcher}, again at every start\n{dagster_yaml}\n{part}"
