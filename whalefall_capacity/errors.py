"""The errors this project raises on purpose; every message says what, where, and what to do."""


class WhalefallError(Exception):
    """Base of all expected errors; the command line prints these without a traceback."""


class SettingsError(WhalefallError):
    """A WHALEFALL_* variable has a value that cannot be used."""


class StoreError(WhalefallError):
    """The PostgreSQL store is absent, unreachable or not as this version expects it."""


class FleetFileError(WhalefallError):
    """fleet.yaml cannot be used; nothing was changed."""


class EngineFileError(WhalefallError):
    """An engine is not known here, or its file of queries cannot be used."""


class CredentialError(WhalefallError):
    """A password cannot be resolved from its reference."""


class HistoryFileError(WhalefallError):
    """A history file has bad rows; nothing was written."""


class MigrationError(WhalefallError):
    """The data of another system cannot be moved in; nothing incomplete was written."""


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
