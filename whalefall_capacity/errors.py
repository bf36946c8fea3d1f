"""The errors this project raises on purpose; every message says what, where, and what to do."""

from collections.abc import Sequence
from typing import ClassVar


class WhalefallError(Exception):
    """Base of all expected errors; the command line prints these without a traceback."""


class RefusedError(WhalefallError):
    """Something that was given cannot be used; the message ends with the assurance that this had no effect."""

    assurance: ClassVar[str] = "nothing was written"

    def __init__(self, problem: str | Sequence[str]) -> None:
        """*problem* is a sentence, or a list of lines, one for each problem."""
        told = f"{problem}; " if isinstance(problem, str) else "".join(f"{line}\n" for line in problem)
        super().__init__(told + self.assurance)


class SettingsError(WhalefallError):
    """A WHALEFALL_* variable has a value that cannot be used."""


class StoreError(WhalefallError):
    """The PostgreSQL store is absent, unreachable or not as this version expects it."""


class FleetFileError(RefusedError):
    """fleet.yaml cannot be used."""

    assurance = "nothing was changed"


class FleetError(WhalefallError):
    """An instance is not in the fleet."""


class EngineFileError(WhalefallError):
    """An engine is not known here, or its file of queries cannot be used."""

    def __init__(self, problem: str | Sequence[str]) -> None:
        """*problem* is a sentence, or a list of lines, one for each problem."""
        super().__init__(problem if isinstance(problem, str) else "\n".join(problem))


class CredentialError(WhalefallError):
    """A password cannot be resolved from its reference."""


class HistoryFileError(RefusedError):
    """A history file cannot be read, or has bad rows."""


class MigrationError(RefusedError):
    """The data of another system cannot be moved in."""


class MigrationStoppedError(WhalefallError):
    """A migration stopped between two steps; each of them is complete or not begun."""


class CollectionError(WhalefallError):
    """One server could not be measured."""


class AggregationError(WhalefallError):
    """Some windows could not be calculated."""


class AccessError(WhalefallError):
    """A user or token of the console cannot be created or changed."""


class DagsterError(WhalefallError):
    """The Dagster webserver refused or failed a request."""


class TaskRunError(WhalefallError):
    """A task run does not exist, or did not complete."""


class PlanError(WhalefallError):
    """A plan for the table partitions does not hold, or was not confirmed; nothing was changed."""


class AlertError(WhalefallError):
    """An alert could not be delivered, or a source of alerts could not be read."""
