"""Every WHALEFALL_* variable, typed and checked once; .env in the working directory is read too.

The environment wins over .env. A bad value raises SettingsError that names the variable, shows the
value unless it is a secret, and says what is allowed. `docs/settings.md` is generated from here.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import date
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pydantic import AfterValidator, BeforeValidator, Field, SecretStr, ValidationError
from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from whalefall_capacity.errors import SettingsError

PREFIX = "WHALEFALL_"
PROJECT_ROOT = Path(__file__).resolve().parent.parent


def _zone_name(value: str) -> str:
    try:
        ZoneInfo(value)
    except (ZoneInfoNotFoundError, ValueError, OSError) as error:
        raise ValueError("must be a zone of the IANA database, such as Asia/Shanghai or UTC") from error
    return value


def _postgres_url(value: SecretStr) -> SecretStr:
    url = value.get_secret_value()
    scheme, separator, rest = url.partition("://")
    if not separator or scheme not in {"postgresql", "postgres", "postgresql+psycopg2"}:
        raise ValueError("must look like postgresql://user:password@host:5432/database")
    return SecretStr(f"postgresql+psycopg2://{rest}")


def _fernet_key(value: SecretStr) -> SecretStr:
    from cryptography.fernet import Fernet

    try:
        Fernet(value.get_secret_value())
    except ValueError as error:
        raise ValueError("must be a Fernet key: 32 bytes in URL-safe base64") from error
    return value


def _names(value: Any) -> Any:
    if isinstance(value, str):
        return tuple(name.strip() for name in value.split(",") if name.strip())
    return value


def _regex(value: str) -> str:
    try:
        re.compile(value)
    except re.error as error:
        raise ValueError(f"must be a regular expression ({error})") from error
    return value


def _cron(value: str) -> str:
    from dagster._utils.schedules import is_valid_cron_schedule

    if not is_valid_cron_schedule(value):
        raise ValueError("must be a cron expression of five fields, such as 0 3 * * *")
    return value


ZoneName = Annotated[str, AfterValidator(_zone_name)]
PostgresUrl = Annotated[SecretStr, AfterValidator(_postgres_url)]
FernetKey = Annotated[SecretStr, AfterValidator(_fernet_key)]
Names = Annotated[tuple[str, ...], NoDecode, BeforeValidator(_names)]
Regex = Annotated[str, AfterValidator(_regex)]
Cron = Annotated[str, AfterValidator(_cron)]
Months = Annotated[int, Field(ge=1, le=1200)]


class Settings(BaseSettings):
    """All settings; see the field descriptions. Build it through `load_settings`."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, env_file=".env", extra="ignore", frozen=True)

    home: Path = Field(
        default=PROJECT_ROOT / ".whalefall",
        description="Folder for the state of the embedded PostgreSQL server and of Dagster.",
    )
    store_url: PostgresUrl | None = Field(
        default=None,
        description="PostgreSQL 15 or newer that holds the sizes, as postgresql://user:password@host:5432/database. "
        "Unset: the embedded server.",
    )
    dagster_url: PostgresUrl | None = Field(
        default=None,
        description="PostgreSQL database for Dagster's own storage, another database than the store. "
        "Unset: the embedded server.",
    )
    timezone: ZoneName = Field(
        default="Asia/Shanghai",
        description="Zone that decides which day it is, for partitions and schedules (IANA name).",
    )
    start_date: date = Field(
        default=date(2025, 1, 1),
        description="First day that can have sizes; the first daily partition and the oldest day of an import.",
    )
    secret_key: FernetKey | None = Field(
        default=None,
        description="Fernet key that encrypts passwords kept in the store. Needed only for `stored:` credentials.",
    )
    collection_schedule: Cron = Field(
        default="0 3 * * *", description="When the fleet is measured every day (cron, in WHALEFALL_TIMEZONE)."
    )
    collection_concurrency: int = Field(
        default=32, ge=1, le=512, description="How many servers are visited at the same time."
    )
    collection_deadline_seconds: float = Field(
        default=300, gt=0, le=86_400, description="Longest time that one visit of one server may take, in seconds."
    )
    connect_timeout_seconds: float = Field(
        default=10,
        gt=0,
        le=600,
        description="Longest wait for a server to accept the connection and greet, in seconds.",
    )
    statement_timeout_seconds: float = Field(
        default=120, gt=0, le=86_400, description="Longest time that one statement on a server may take, in seconds."
    )
    postgresql_exclude: Names = Field(
        default=(), description="PostgreSQL databases to leave out: exact names, separated by commas."
    )
    postgresql_exclude_regex: Regex | None = Field(
        default=None,
        description="PostgreSQL databases to leave out: a regular expression that matches the whole name, "
        "such as temp_.*|pg_.* (which keeps temperature and pgbench).",
    )
    mysql_exclude: Names = Field(default=(), description="MySQL databases to leave out: exact names.")
    mysql_exclude_regex: Regex | None = Field(
        default=None, description="MySQL databases to leave out: a regular expression that matches the whole name."
    )
    mariadb_exclude: Names = Field(default=(), description="MariaDB databases to leave out: exact names.")
    mariadb_exclude_regex: Regex | None = Field(
        default=None, description="MariaDB databases to leave out: a regular expression that matches the whole name."
    )
    create_ahead_months: int = Field(
        default=3, ge=1, le=24, description="How many months ahead table partitions are created."
    )
    retention_stats_months: Months = Field(default=13, description="Calendar months for which daily sizes are kept.")
    retention_daily_months: Months = Field(
        default=13, description="Calendar months for which daily aggregations are kept."
    )
    retention_weekly_months: Months = Field(
        default=36, description="Calendar months for which weekly aggregations are kept."
    )
    retention_monthly_months: Months = Field(
        default=120, description="Calendar months for which monthly aggregations are kept."
    )
    retention_quarterly_months: Months = Field(
        default=120, description="Calendar months for which quarterly aggregations are kept."
    )
    retention_task_runs_days: int = Field(
        default=180, ge=1, le=36_500, description="Days for which finished task runs are kept."
    )
    webserver_port: int = Field(default=3000, ge=1, le=65_535, description="Port of the Dagster UI under `up`.")

    @property
    def zone(self) -> ZoneInfo:
        """The configured time zone."""
        return ZoneInfo(self.timezone)

    def raw_days_too_short(self) -> str | None:
        """Say why raw days would go before the longest window that needs them is over, or None.

        A quarter has three months, and a child of a month goes only when the whole month is past.
        """
        if self.retention_stats_months < 4:
            return (
                f"{PREFIX}RETENTION_STATS_MONTHS: {self.retention_stats_months} would drop daily sizes before the "
                "quarter that needs them is over; allowed: 4 to 1200"
            )
        return None


def describe_errors(error: ValidationError) -> str:
    """Return one line per bad variable: its name, the value unless it is secret, and what is allowed."""
    lines = []
    for problem in error.errors(include_url=False, include_context=False):
        name = str(problem["loc"][0]) if problem["loc"] else ""
        field = Settings.model_fields.get(name)
        secret = field is not None and ("SecretStr" in str(field.annotation) or name.endswith(("_url", "_key")))
        value = "(secret)" if secret else repr(str(problem["input"]))
        message = problem["msg"].removeprefix("Value error, ")
        lines.append(f"{PREFIX}{name.upper()}: {value}: {message}")
    return "\n".join(lines)


def build_settings(**overrides: Any) -> Settings:
    """Read and check the settings; *overrides* win over the environment. Raises SettingsError."""
    try:
        settings = Settings(**overrides)
    except ValidationError as error:
        raise SettingsError(describe_errors(error)) from None
    too_short = settings.raw_days_too_short()
    if too_short:
        raise SettingsError(too_short)
    return settings


@lru_cache(maxsize=1)
def load_settings() -> Settings:
    """Return the settings of this process, read once."""
    return build_settings()


@dataclass(frozen=True)
class SettingRow:
    """One line of docs/settings.md."""

    variable: str
    default: str
    allowed: str
    description: str


def setting_rows() -> list[SettingRow]:
    """Return every setting, in order."""
    return [
        SettingRow(f"{PREFIX}{name.upper()}", _shown_default(name, field), _allowed(field), field.description or "")
        for name, field in Settings.model_fields.items()
    ]


def _shown_default(name: str, field: FieldInfo) -> str:
    if name == "home":
        return "`.whalefall` in the project"
    default = field.get_default()
    return "unset" if default in (None, ()) else f"`{default}`"


def _allowed(field: FieldInfo) -> str:
    bounds = {}
    for rule in field.metadata:
        for name, word in (("ge", "from"), ("gt", "above"), ("le", "to")):
            if (value := getattr(rule, name, None)) is not None:
                bounds[word] = f"{word} {value}"
    return " ".join(bounds.values())
