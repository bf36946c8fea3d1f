"""Problems of the pipeline: a component and a kind of reason, and nothing that would help an attacker."""

from __future__ import annotations

from enum import StrEnum


class Component(StrEnum):
    """A part that the pipeline cannot do without."""

    STORE = "store"
    WEBSERVER = "webserver"
    DAGSTER_STORAGE = "dagster_storage"
    DAEMON = "daemon"
    CODE_LOCATION = "code_location"


class Reason(StrEnum):
    """Reason why a component is not ready."""

    UNREACHABLE = "unreachable"
    TIMEOUT = "timeout"
    REFUSED = "refused"
    NOT_MIGRATED = "not_migrated"
    NO_HEARTBEAT = "no_heartbeat"
    OLD_HEARTBEAT = "old_heartbeat"
    NOT_LOADED = "not_loaded"


class NotReadyError(Exception):
    """A component is not ready."""

    def __init__(self, component: Component, reason: Reason) -> None:
        super().__init__(f"{component}: {reason}")
        self.component = component
        self.reason = reason
