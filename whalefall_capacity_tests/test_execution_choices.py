"""Executors and run launchers that are chosen by settings: what each needs, and what has no effect with it."""

from __future__ import annotations

import pytest

from whalefall_capacity.errors import SettingsError
from whalefall_capacity.execution_choices import PACKAGES, ExecutorName, LauncherName, conflicts, is_installed
from whalefall_capacity.settings import PREFIX, build_settings

URLS = {"store_url", "dagster_url"}
REDIS = "redis://:Tr0ub4dor@redis.example:6379/0"


def everything_is_there(_: str) -> bool:
    return True


def nothing_is_there(_: str) -> bool:
    return False


@pytest.mark.parametrize(
    ("executor", "launcher", "given"),
    [
        ("in_process", "default", set()),
        ("multiprocess", "default", set()),
        ("multiprocess", "default", {"executor_max_concurrent"}),
        ("celery", "default", {"celery_broker", *URLS}),
        ("celery", "docker", {"celery_broker", "celery_backend", "celery_visibility_seconds", *URLS}),
        ("docker", "docker", {"executor_max_concurrent", *URLS}),
        ("docker", "default", URLS),
        ("k8s", "k8s", {"store_url", "executor_max_concurrent"}),
        ("in_process", "k8s", {"store_url"}),
    ],
)
def test_choices_with_all_that_they_need_are_good(executor: str, launcher: str, given: set[str]) -> None:
    found = conflicts(ExecutorName(executor), LauncherName(launcher), given, everything_is_there)
    assert list(found) == []


@pytest.mark.parametrize(
    ("executor", "launcher", "given", "lines"),
    [
        (
            "in_process",
            "default",
            {"executor_max_concurrent", "celery_broker"},
            [
                (
                    "executor_max_concurrent",
                    "has no effect with WHALEFALL_EXECUTOR=in_process; it is for multiprocess, k8s, docker",
                ),
                ("celery_broker", "has no effect with WHALEFALL_EXECUTOR=in_process; it is for celery"),
            ],
        ),
        (
            "celery",
            "default",
            {"executor_max_concurrent"},
            [
                ("celery_broker", "must be set beside WHALEFALL_EXECUTOR=celery"),
                ("store_url", "must be set beside WHALEFALL_EXECUTOR=celery"),
                ("dagster_url", "must be set beside WHALEFALL_EXECUTOR=celery"),
                (
                    "executor_max_concurrent",
                    "has no effect with WHALEFALL_EXECUTOR=celery; it is for multiprocess, k8s, docker",
                ),
            ],
        ),
        (
            "docker",
            "docker",
            {"dagster_url", "celery_visibility_seconds"},
            [
                ("store_url", "must be set beside WHALEFALL_EXECUTOR=docker"),
                ("celery_visibility_seconds", "has no effect with WHALEFALL_EXECUTOR=docker; it is for celery"),
            ],
        ),
        ("in_process", "k8s", set(), [("store_url", "must be set beside WHALEFALL_RUN_LAUNCHER=k8s")]),
        ("k8s", "default", URLS, [("run_launcher", "'default': must be k8s beside WHALEFALL_EXECUTOR=k8s")]),
    ],
)
def test_what_is_missing_and_what_has_no_effect_is_said(
    executor: str, launcher: str, given: set[str], lines: list[tuple[str, str]]
) -> None:
    found = conflicts(ExecutorName(executor), LauncherName(launcher), given, everything_is_there)
    assert list(found) == lines


@pytest.mark.parametrize(("executor", "launcher"), [("celery", "default"), ("docker", "docker")])
def test_an_extra_that_is_not_installed_is_one_line_with_the_command_that_installs_it(
    executor: str, launcher: str
) -> None:
    given = {"celery_broker", *URLS} if executor == "celery" else URLS
    found = conflicts(ExecutorName(executor), LauncherName(launcher), given, nothing_is_there)
    assert list(found) == [
        ("executor", f"'{executor}': is not installed; `pip install 'whalefall-capacity[{executor}]'` installs it")
    ]


@pytest.mark.parametrize("choice", sorted(PACKAGES))
def test_the_extras_are_among_what_make_install_installs(choice: str) -> None:
    assert is_installed(PACKAGES[choice])


def test_a_package_that_nobody_has_is_not_installed() -> None:
    assert not is_installed("whalefall_nowhere")


def test_the_settings_refuse_what_has_no_effect(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(f"{PREFIX}CELERY_BROKER", REDIS)
    monkeypatch.setenv(f"{PREFIX}CELERY_VISIBILITY_SECONDS", "3600")
    with pytest.raises(SettingsError) as raised:
        build_settings()
    assert str(raised.value).splitlines() == [
        "WHALEFALL_CELERY_BROKER: has no effect with WHALEFALL_EXECUTOR=in_process; it is for celery",
        "WHALEFALL_CELERY_VISIBILITY_SECONDS: has no effect with WHALEFALL_EXECUTOR=in_process; it is for celery",
    ]
