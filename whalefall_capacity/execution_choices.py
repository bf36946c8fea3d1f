"""Executors and run launchers that the settings may name, and what each of them needs: packages and other settings."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from enum import StrEnum
from importlib.util import find_spec


class ExecutorName(StrEnum):
    """Where the steps of a run are executed."""

    IN_PROCESS = "in_process"
    MULTIPROCESS = "multiprocess"
    CELERY = "celery"
    K8S = "k8s"
    DOCKER = "docker"


class LauncherName(StrEnum):
    """Where a run itself is executed: in a child process of the code server, a container or a pod."""

    DEFAULT = "default"
    DOCKER = "docker"
    K8S = "k8s"


# The package of each choice that is an extra; the extra has the name of the choice.
PACKAGES: Mapping[str, str] = {"celery": "dagster_celery", "k8s": "dagster_k8s", "docker": "dagster_docker"}
USERS: Mapping[str, Sequence[ExecutorName]] = {
    "executor_max_concurrent": (ExecutorName.MULTIPROCESS, ExecutorName.K8S, ExecutorName.DOCKER),
    "celery_broker": (ExecutorName.CELERY,),
    "celery_backend": (ExecutorName.CELERY,),
    "celery_visibility_seconds": (ExecutorName.CELERY,),
}
# Elsewhere the embedded server cannot be reached, and each worker would start one of its own. In Kubernetes Dagster's
# chart says where Dagster's storage is.
NEEDED: Mapping[str, Sequence[str]] = {
    "celery": ("celery_broker", "store_url", "dagster_url"),
    "docker": ("store_url", "dagster_url"),
    "k8s": ("store_url",),
}


def is_installed(package: str) -> bool:
    """Tell whether *package* can be imported, without importing it."""
    return find_spec(package) is not None


def conflicts(
    executor: ExecutorName,
    launcher: LauncherName,
    given: Set[str],
    is_there: Callable[[str], bool] = is_installed,
) -> Iterator[tuple[str, str]]:
    """Yield the name of each setting that does not go with the choices, with the reason; *given* are those set."""
    # Of two that are the same, one line is enough.
    for choice, setting in {launcher.value: "run_launcher", executor.value: "executor"}.items():
        if choice in PACKAGES and not is_there(PACKAGES[choice]):
            yield setting, f"'{choice}': is not installed; `pip install 'whalefall-capacity[{choice}]'` installs it"
        for name in NEEDED.get(choice, ()):
            if name not in given:
                yield name, f"must be set beside WHALEFALL_{setting.upper()}={choice}"
    for name, users in USERS.items():
        if name in given and executor not in users:
            yield name, f"has no effect with WHALEFALL_EXECUTOR={executor}; it is for {', '.join(users)}"
    if executor is ExecutorName.K8S and launcher is not LauncherName.K8S:
        yield "run_launcher", f"'{launcher}': must be k8s beside WHALEFALL_EXECUTOR=k8s"
