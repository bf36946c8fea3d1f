"""The files of deploy/ are well formed, name settings that exist, and say the same as dagster.yaml and the pages."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from string import Template
from typing import Any

import jsonschema
import pytest
import yaml

from whalefall_capacity.settings import PREFIX, PROJECT_ROOT, Settings, build_settings
from whalefall_capacity.tasks import LOCATION
from whalefall_capacity_tests.units import units

DEPLOY = PROJECT_ROOT / "deploy"
COMPOSE_FILES = ("compose.yaml", "compose.docker.yaml")
TEXT = {"type": "string"}
TEXTS = {"type": "array", "items": TEXT, "minItems": 1}
# As much of the Compose specification as is used.
SERVICE = {
    "type": "object",
    "additionalProperties": False,
    "properties": {
        "image": TEXT,
        "network_mode": {"enum": ["host"]},
        "restart": {"enum": ["unless-stopped"]},
        "command": TEXTS,
        "environment": {"type": "object", "additionalProperties": TEXT},
        "group_add": TEXTS,
        "volumes": TEXTS,
        "stop_grace_period": {"type": "string", "pattern": "^[0-9]+[sm]$"},
        "deploy": {
            "type": "object",
            "additionalProperties": False,
            "properties": {"replicas": {"type": "integer", "minimum": 0}},
        },
        "depends_on": {
            "type": "object",
            "additionalProperties": {
                "type": "object",
                "additionalProperties": False,
                "properties": {"condition": {"enum": ["service_healthy"]}},
            },
        },
        "configs": {
            "type": "array",
            "items": {
                "type": "object",
                "additionalProperties": False,
                "required": ["source", "target"],
                "properties": {"source": TEXT, "target": TEXT},
            },
        },
        "healthcheck": {
            "type": "object",
            "additionalProperties": False,
            "required": ["test"],
            "properties": {"test": TEXTS, "interval": TEXT, "retries": {"type": "integer"}},
        },
    },
}
COMPOSE = {
    "type": "object",
    "additionalProperties": False,
    "required": ["services"],
    "patternProperties": {"^x-": {}},
    "properties": {
        "name": TEXT,
        "services": {"type": "object", "additionalProperties": SERVICE},
        "volumes": {"type": "object", "additionalProperties": {"type": "null"}},
        "configs": {
            "type": "object",
            "additionalProperties": {
                "type": "object",
                "additionalProperties": False,
                "required": ["content"],
                "properties": {"content": TEXT},
            },
        },
    },
}
ENVIRONMENT = {"POSTGRES_PASSWORD": "a", "REDIS_PASSWORD": "b", "DOCKER_GROUP": "999"}


def loaded(name: str) -> Any:
    return yaml.safe_load((DEPLOY / name).read_text())


def environment_of(*names: str) -> dict[str, str]:
    """Return the variables of the program, of files laid on top of each other."""
    found: dict[str, str] = {}
    for name in names:
        found |= loaded(name)["services"]["program"]["environment"]
    return {variable: interpolated(value) for variable, value in found.items()}


def interpolated(text: str) -> str:
    """Return *text* as Compose reads it, with the variables that the page asks for."""
    plain = re.sub(r"\$\{(\w+):\?\}", r"${\1}", text)
    return Template(re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", plain)).substitute(ENVIRONMENT)


def settings_of(variables: Mapping[str, str]) -> Settings:
    """Return the settings that *variables* make, checked as at start."""
    named = {name.removeprefix(PREFIX).lower(): value for name, value in variables.items() if name.startswith(PREFIX)}
    return build_settings(**{name: value for name, value in named.items() if value})


def dagster_yaml() -> Any:
    return yaml.safe_load((PROJECT_ROOT / "dagster.yaml").read_text())


@pytest.mark.parametrize("name", COMPOSE_FILES)
def test_a_compose_file_is_well_formed(name: str) -> None:
    jsonschema.validate(loaded(name), COMPOSE)
    content = loaded(name)
    for service in content["services"].values():
        for volume in service.get("volumes", []):
            assert volume.startswith("/") or volume.partition(":")[0] in content["volumes"]
        for config in service.get("configs", []):
            assert config["source"] in content["configs"]
        assert set(service.get("depends_on", {})) <= content["services"].keys()


@pytest.mark.parametrize("path", sorted(DEPLOY.iterdir()), ids=lambda path: path.name)
def test_every_setting_that_is_named_exists(path: Any) -> None:
    named = set(re.findall(r"\bWHALEFALL_[A-Z_]*[A-Z]\b", path.read_text()))
    assert named <= {f"{PREFIX}{name.upper()}" for name in Settings.model_fields}


@pytest.mark.parametrize(("files", "executor"), [(COMPOSE_FILES[:1], "celery"), (COMPOSE_FILES, "docker")])
def test_the_settings_of_the_compose_files_go_together(files: tuple[str, ...], executor: str) -> None:
    settings = settings_of(environment_of(*files))
    assert settings.executor == executor
    assert settings.run_launcher == ("docker" if executor == "docker" else "default")


def test_a_container_of_a_run_gets_every_setting_of_the_program() -> None:
    variables = environment_of(*COMPOSE_FILES)
    context = json.loads(variables["DAGSTER_CONTAINER_CONTEXT"])["docker"]
    passed = set(context["env_vars"])
    assert {name for name, value in variables.items() if name.startswith(PREFIX) and value} <= passed
    assert context["container_kwargs"]["group_add"] == ["999"]


def test_the_worker_of_the_compose_file_is_started_like_the_one_of_the_unit() -> None:
    program, *arguments = loaded("compose.yaml")["services"]["worker"]["command"]
    unit = units({})["whalefall-worker"].command
    assert (unit[0].rpartition("/")[2], unit[1:]) == (program, arguments)


def test_the_values_of_the_chart_say_what_dagster_yaml_says() -> None:
    values, ours = loaded("helm-values.yaml"), dagster_yaml()
    daemon = values["dagsterDaemon"]
    coordinator = daemon["runCoordinator"]["config"]["customRunCoordinator"]
    assert coordinator == ours["run_coordinator"]
    assert values["additionalInstanceConfig"] == {"concurrency": ours["concurrency"], "freshness": ours["freshness"]}
    monitoring = {
        re.sub("[A-Z]", lambda found: f"_{found[0].lower()}", key): value
        for key, value in daemon["runMonitoring"].items()
    }
    same = ("enabled", "poll_interval_seconds", "max_resume_run_attempts", "free_slots_after_run_end_seconds")
    assert {key: monitoring[key] for key in same} == {key: ours["run_monitoring"][key] for key in same}
    assert (daemon["runRetries"]["maxRetries"], daemon["sensors"]["numWorkers"]) == (
        ours["run_retries"]["max_retries"],
        ours["sensors"]["num_workers"],
    )
    retention = values["retention"]
    assert retention["sensor"]["purgeAfterDays"] == ours["retention"]["sensor"]["purge_after_days"]
    assert retention["schedule"]["purgeAfterDays"] == ours["retention"]["schedule"]["purge_after_days"]


def test_the_code_server_of_the_chart_has_the_name_and_the_settings_that_the_program_needs() -> None:
    values = loaded("helm-values.yaml")
    (deployment,) = values["dagster-user-deployments"]["deployments"]
    (server,) = values["dagsterWebserver"]["workspace"]["servers"]
    assert server == {"host": deployment["name"], "port": deployment["port"], "name": LOCATION}
    variables = {entry["name"]: entry["value"] for entry in deployment["env"]}
    settings = settings_of(variables | {f"{PREFIX}STORE_URL": "postgresql://whalefall@db.internal/whalefall"})
    assert (settings.executor, settings.run_launcher) == ("k8s", "k8s")
    assert values["postgresql"]["postgresqlScheme"] == "postgresql+psycopg2"


def test_every_part_of_the_cluster_has_the_same_image() -> None:
    values = loaded("helm-values.yaml")
    (deployment,) = values["dagster-user-deployments"]["deployments"]
    image = deployment["image"]
    assert values["dagsterWebserver"]["image"] == values["dagsterDaemon"]["image"] == image
    others = yaml.safe_load_all((DEPLOY / "kubernetes.yaml").read_text())
    containers = [c for o in others if "template" in o["spec"] for c in o["spec"]["template"]["spec"]["containers"]]
    assert {container["image"] for container in containers} == {f"{image['repository']}:{image['tag']}"}


def test_the_image_is_made_of_files_that_exist_and_is_not_run_by_root() -> None:
    lines = (DEPLOY / "Dockerfile").read_text().splitlines()
    copied = [word for line in lines if line.startswith("COPY") and "--from" not in line for word in line.split()[1:-1]]
    assert "requirements.lock" in copied
    assert [name for name in copied if not (PROJECT_ROOT / name).exists()] == []
    assert "USER 10001" in lines
