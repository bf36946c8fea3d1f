"""Every WHALEFALL_* variable, typed and checked once; .env in the working directory is read too.

The environment wins over .env; an empty value counts as unset. A bad value raises SettingsError that
names the variable, shows the value unless it is a secret, and says what is allowed. `docs/settings.md`
is generated from here.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from datetime import date
from functools import lru_cache
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import SplitResult, urlsplit
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from dotenv import dotenv_values
from pydantic import AfterValidator, BeforeValidator, Field, HttpUrl, SecretStr, ValidationError
from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from whalefall_capacity.errors import SettingsError
from whalefall_capacity.execution_choices import ExecutorName, LauncherName, conflicts
from whalefall_capacity.periods import today

PREFIX = "WHALEFALL_"
# The checkout; of an installed wheel, the folder that it is installed into.
PROJECT_ROOT = Path(__file__).resolve().parent.parent
ENV_FILE = ".env"
# With the byte order mark that editors of Windows begin a file with, or without.
ENV_FILE_ENCODING = "utf-8-sig"
# As a host to listen on.
EVERY_ADDRESS = frozenset({"0.0.0.0", "::", ""})  # noqa: S104
# Of libpq, in the URL of a database.
FILE_PARAMETERS = ("sslrootcert", "sslcert", "sslkey", "sslcrl", "passfile")
SMTP_SCHEMES = ("smtp", "smtp+starttls", "smtps")


def default_home() -> Path:
    """Return `.whalefall` in the checkout; where the package is installed from a wheel, in the current folder."""
    is_checkout = (PROJECT_ROOT / "pyproject.toml").exists()
    return (PROJECT_ROOT if is_checkout else Path.cwd()) / ".whalefall"


def _folder(value: Path) -> Path:
    try:
        folder = value.expanduser()
        is_usable = folder.is_dir() or not folder.exists()
    except RuntimeError as error:
        raise ValueError("must be a folder; ~ stands for the home of a user that exists") from error
    except OSError as error:
        raise ValueError(f"cannot be reached: {error.strerror}") from error
    if not is_usable:
        raise ValueError("must be a folder, or nothing yet")
    return folder


def _parsed(parse: Callable[[str], object], allowed: str) -> Callable[[Any], Any]:
    """Return a validator that keeps the result of *parse*; what it refuses must be what is *allowed*."""

    def validate(value: Any) -> Any:
        if not isinstance(value, str):
            return value
        try:
            return parse(value)
        except (ValueError, OSError, ZoneInfoNotFoundError, re.error) as error:
            raise ValueError(f"must be {allowed.format(error=error)}") from error

    return validate


def _engine_files(value: Path) -> Path:
    try:
        path = value.expanduser()
        is_usable = path.is_dir() or (path.is_file() and path.suffix == ".yaml")
    except RuntimeError as error:
        raise ValueError("must be files or folders; ~ stands for the home of a user that exists") from error
    except OSError as error:
        raise ValueError(f"cannot be reached: {error.strerror}") from error
    if not is_usable:
        raise ValueError("must be files that are there, named after their engines (firebird.yaml), or folders of them")
    return path


def _postgres_url(value: SecretStr) -> SecretStr:
    scheme, separator, rest = value.get_secret_value().partition("://")
    url = SecretStr(f"postgresql+psycopg2://{rest}")
    if not separator or scheme not in {"postgresql", "postgres", "postgresql+psycopg2"} or _address(url) is None:
        raise ValueError(
            "must look like postgresql://user:password@host:5432/database; special characters of the password "
            "as %XX, such as %40 for @"
        )
    if relative := _relative_files(url):
        raise ValueError(f"{', '.join(relative)}: must be an absolute path: the service works in another folder")
    return url


def _relative_files(url: SecretStr) -> list[str]:
    """Return the parameters of *url* that name a file from the folder in which one happens to be."""
    from sqlalchemy import make_url

    query = make_url(url.get_secret_value()).query
    files = {name: str(query[name]) for name in FILE_PARAMETERS if name in query}
    # `system`: the authorities that the system trusts.
    return [name for name, file in files.items() if not Path(file).is_absolute() and file != "system"]


def _address(url: SecretStr) -> tuple[str, int, str] | None:
    """Return host (or folder of the socket), port and database; None when one of them cannot be."""
    from sqlalchemy import make_url
    from sqlalchemy.exc import ArgumentError

    try:
        parts = make_url(url.get_secret_value())
        port = int(str(parts.query.get("port", 5432))) if parts.port is None else parts.port
    except (ArgumentError, ValueError):
        return None
    host = str(parts.host or parts.query.get("host") or "").lower()
    if "@" in host or not 1 <= port <= 65_535 or not parts.database:
        return None
    return host, port, parts.database


def _http_url(example: str) -> Callable[[SecretStr], SecretStr]:
    """Return a validator of URLs that look like *example*."""

    def validate(value: SecretStr) -> SecretStr:
        parts = _split(value)
        if parts is None or parts.scheme not in {"http", "https"}:
            raise ValueError(f"must look like {example}")
        return value

    return validate


def _smtp_url(value: SecretStr) -> SecretStr:
    parts = _split(value)
    # What comes after the host is of a password with a / or a # in it that is not written as %XX.
    if (
        parts is None
        or parts.scheme not in SMTP_SCHEMES
        or parts.path not in ("", "/")
        or parts.query
        or parts.fragment
    ):
        raise ValueError(
            "must look like smtp+starttls://user:password@host:587, smtps://… (TLS from the start) or smtp://… (no "
            "TLS); special characters of the password as %XX, such as %40 for @"
        )
    return value


def _redis_url(value: SecretStr) -> SecretStr:
    parts = _split(value)
    if (
        parts is None
        or parts.scheme not in {"redis", "rediss"}
        or (parts.scheme == "rediss" and "ssl_cert_reqs=" not in parts.query)
    ):
        raise ValueError(
            "must look like redis://:password@host:6379/0, or rediss://:password@host:6379/0?ssl_cert_reqs=required "
            "(TLS); special characters of the password as %XX, such as %40 for @"
        )
    return value


def _alert_urls(value: Any) -> Any:
    from whalefall_capacity.alert_urls import split_urls

    return split_urls(value) if isinstance(value, str) else value


def _alert_url(value: SecretStr) -> SecretStr:
    from whalefall_capacity.alert_urls import service_of

    if service_of(value.get_secret_value()) is None:
        # What is wrong with it cannot be told without quoting it.
        raise ValueError(
            "must be a URL that apprise can use, such as slack://… or mailtos://…, with all parts that the service "
            "needs (https://appriseit.com/services/); special characters as %XX, such as %40 for @"
        )
    return value


def _without_login(url: HttpUrl) -> HttpUrl:
    if url.username is not None or url.password is not None:
        raise ValueError("must have no user and no password: nobody logs in with them, and pages show the address")
    return url


def _split(url: SecretStr) -> SplitResult | None:
    """Return the parts of a URL with a host; None when it is none."""
    try:
        parts = urlsplit(url.get_secret_value())
        usable = bool(parts.hostname) and parts.port != 0 and parts.netloc.count("@") <= 1
    except ValueError:
        return None
    return parts if usable else None


def _mail_address(value: str) -> str:
    if not re.fullmatch(r"[^@\s<>,]+@[^@\s<>,]+", value):
        raise ValueError("must be a mail address such as dba@example.com")
    return value


def _fernet_keys(value: SecretStr) -> SecretStr:
    from whalefall_capacity.credentials import fernet_of

    try:
        fernet_of(value)
    except ValueError as error:
        several = "; of several, separated by commas, each must be one" if "," in value.get_secret_value() else ""
        raise ValueError(f"must be a Fernet key: 32 bytes in URL-safe base64{several}") from error
    return value


def _host_name(value: str) -> str:
    try:
        return str(ip_address(value))
    except ValueError:
        pass
    if not re.fullmatch(r"[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?", value):
        raise ValueError("must be host names such as capacity.example.com, without scheme and port")
    return value.lower()


def _names(value: Any) -> Any:
    if isinstance(value, str):
        return tuple(name.strip() for name in value.split(",") if name.strip())
    return value


def _cron(value: str) -> str:
    from whalefall_capacity.dagster_private import is_valid_cron_schedule

    if not is_valid_cron_schedule(value):
        raise ValueError("must be a cron expression of five fields, such as 0 3 * * *")
    return value


# Absolute: child processes work in another folder.
Folder = Annotated[Path, AfterValidator(_folder), AfterValidator(Path.resolve)]
Day = Annotated[date, BeforeValidator(_parsed(date.fromisoformat, "a day such as 2025-01-31"))]
ZoneName = Annotated[
    str,
    AfterValidator(
        _parsed(lambda name: ZoneInfo(name).key, "a zone of the IANA database, such as Asia/Shanghai or UTC")
    ),
]
ShownUrl = Annotated[HttpUrl, AfterValidator(_without_login)]
PostgresUrl = Annotated[SecretStr, AfterValidator(_postgres_url)]
FernetKeys = Annotated[SecretStr, AfterValidator(_fernet_keys)]
WebhookUrl = Annotated[SecretStr, AfterValidator(_http_url("https://chat.example.com/hooks/token"))]
HeartbeatUrl = Annotated[SecretStr, AfterValidator(_http_url("https://hc.example.com/ping/token"))]
RedisUrl = Annotated[SecretStr, AfterValidator(_redis_url)]
SmtpUrl = Annotated[SecretStr, AfterValidator(_smtp_url)]
AlertUrls = Annotated[
    tuple[Annotated[SecretStr, AfterValidator(_alert_url)], ...], NoDecode, BeforeValidator(_alert_urls)
]
MailAddress = Annotated[str, AfterValidator(_mail_address)]
Names = Annotated[tuple[str, ...], NoDecode, BeforeValidator(_names)]
MailAddresses = Annotated[tuple[MailAddress, ...], NoDecode, BeforeValidator(_names)]
EngineFiles = Annotated[
    tuple[Annotated[Path, AfterValidator(_engine_files), AfterValidator(Path.resolve)], ...],
    NoDecode,
    BeforeValidator(_names),
]
HostName = Annotated[str, AfterValidator(_host_name)]
HostNames = Annotated[tuple[HostName, ...], NoDecode, BeforeValidator(_names)]
Network = Annotated[
    str,
    AfterValidator(
        _parsed(lambda text: str(ip_network(text)), "addresses or networks such as 127.0.0.1 or 10.0.0.0/24 ({error})")
    ),
]
Networks = Annotated[tuple[Network, ...], NoDecode, BeforeValidator(_names)]
Regex = Annotated[str, AfterValidator(_parsed(lambda text: re.compile(text).pattern, "a regular expression ({error})"))]
Cron = Annotated[str, AfterValidator(_cron)]
Months = Annotated[int, Field(ge=1, le=1200)]


class Settings(BaseSettings):
    """All settings; see the field descriptions. Build it through `load_settings`."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX,
        env_file=ENV_FILE,
        env_file_encoding=ENV_FILE_ENCODING,
        env_ignore_empty=True,
        extra="ignore",
        frozen=True,
        hide_input_in_errors=True,
    )

    home: Folder = Field(
        default_factory=default_home,
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
    start_date: Day = Field(
        default=date(2025, 1, 1),
        ge=date(2000, 1, 1),
        description="First day that can have sizes; the first daily partition and the oldest day of an import.",
    )
    secret_key: FernetKeys | None = Field(
        default=None,
        description="Fernet key that encrypts passwords kept in the store. Needed for `stored:` credentials. Several "
        "separated by commas while a key is replaced: the first encrypts, each of them decrypts; see `credential "
        "rotate-key`.",
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
    collection_shard_instances: int | None = Field(
        default=None,
        ge=1,
        le=1_000_000,
        description="How many servers one step of a collection visits, where each step is a process of its own; there "
        "are 200 of these steps at most. Unset: one step visits all servers.",
    )
    shard_retries: int = Field(
        default=0,
        ge=0,
        le=10,
        description="How often a step that visits servers is executed again after an error, or when its process died. "
        "To be left at 0 where the process of the run executes its steps: it dies with them.",
    )
    aggregation_concurrency: int = Field(
        default=2,
        ge=1,
        le=64,
        description="How many chunks (the databases of 500 servers, or 5,000 servers as a whole) are aggregated at the "
        "same time, each on a connection to the store and, at most, a processor of its server.",
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
    engines: EngineFiles = Field(
        default=(),
        description="Engine files of your own, or folders of them, separated by commas: queries that measure one more "
        "kind of server each. See docs/engines.md.",
    )
    create_ahead_months: int = Field(
        default=3, ge=1, le=24, description="How many months ahead table partitions are created."
    )
    retention_stats_months: int = Field(
        default=13,
        # A table partition of a month expires only when the whole month is past, and a quarter has three of them.
        ge=4,
        le=1200,
        description="Calendar months for which daily sizes are kept; at least 4, so that every quarter is complete "
        "before its first days expire.",
    )
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
    retention_forecasts_months: Months = Field(
        default=24, description="Calendar months for which forecasts, their accuracy and anomalies are kept."
    )
    retention_task_runs_days: int = Field(
        default=180, ge=1, le=36_500, description="Days for which finished task runs are kept."
    )
    retention_dagster_runs_days: int = Field(
        default=400,
        ge=1,
        le=36_500,
        description="Days for which Dagster keeps finished runs of this code location with their events; partitions "
        "that only older runs materialized are shown as missing.",
    )
    maintenance_schedule: Cron = Field(
        default="30 4 * * *",
        description="When table partitions are created and retired every day (cron, in WHALEFALL_TIMEZONE).",
    )
    archive_dir: Folder | None = Field(
        default=None,
        description="Folder into which table partitions are archived, as Parquet, before they are dropped. "
        "Unset: they are dropped without an archive.",
    )
    webserver_port: int = Field(default=3000, ge=1, le=65_535, description="Port of the Dagster UI under `up`.")
    webserver_url: ShownUrl | None = Field(
        default=None,
        description="Where the console finds the Dagster webserver, such as http://dagster.internal:3000. "
        "Unset: WHALEFALL_WEBSERVER_PORT on this machine.",
    )
    console_port: int = Field(default=8000, ge=1, le=65_535, description="Port of the console's pages and API.")
    console_host: str = Field(
        default="127.0.0.1",
        description="Address that the console listens on; 0.0.0.0 only behind a proxy that speaks TLS.",
    )
    allowed_hosts: HostNames = Field(
        default=(),
        description="Host names under which people open the console and the Dagster UI, such as "
        "capacity.example.com,dagster.example.com. Requests for other names are refused, but for those of this "
        "machine (localhost, 127.0.0.1, ::1), WHALEFALL_CONSOLE_HOST, WHALEFALL_UI_URL and WHALEFALL_WEBSERVER_URL.",
    )
    trusted_proxies: Networks = Field(
        default=(),
        description="Addresses or networks of the proxies whose X-Forwarded-For and X-Forwarded-Proto are believed, "
        "such as 127.0.0.1 for one on this machine. Unset: nobody's.",
    )
    session_hours: int = Field(
        default=12, ge=1, le=720, description="Hours after which one has to log in to the console again."
    )
    ui_url: ShownUrl | None = Field(
        default=None,
        description="Where people open the Dagster UI, such as https://dagster.example.com; task runs link to it. "
        "Unset: 127.0.0.1 and WHALEFALL_WEBSERVER_PORT.",
    )
    ui_login: bool = Field(
        default=False,
        description="Whether the Dagster UI asks for the console's login; then only role admin may change anything.",
    )
    alert_urls: AlertUrls = Field(
        default=(),
        description="Receivers of alerts, as URLs of apprise separated by commas or line breaks, such as slack://… or "
        "mailtos://user:password@example.com?to=dba@example.com. Unset: alerts are off.",
    )
    alert_webhook_url: WebhookUrl | None = Field(
        default=None,
        description="Superseded by WHALEFALL_ALERT_URLS, and still working: where alerts are posted as JSON of our "
        "own, such as https://chat.example.com/hooks/token.",
    )
    alert_smtp_url: SmtpUrl | None = Field(
        default=None,
        description="Superseded by WHALEFALL_ALERT_URLS, and still working: mail server for alerts, "
        "smtp+starttls://user:password@host:587, smtps://… (TLS from the start) or smtp://… (no TLS).",
    )
    alert_email_from: MailAddress | None = Field(
        default=None, description="Sender of alerts mailed through WHALEFALL_ALERT_SMTP_URL."
    )
    alert_email_to: MailAddresses = Field(
        default=(),
        description="Recipients of alerts mailed through WHALEFALL_ALERT_SMTP_URL: addresses, separated by commas.",
    )
    heartbeat_url: HeartbeatUrl | None = Field(
        default=None,
        description="Address that is called once after each day whose collection succeeded, such as "
        "https://hc.example.com/ping/token, so that somebody outside notices when no day does. Unset: none is.",
    )
    executor: ExecutorName = Field(
        default=ExecutorName.IN_PROCESS,
        description="Where the steps of a run are executed: in_process, in the run's own process; multiprocess, in a "
        "process each; celery, k8s or docker, on other machines (docs/scaling.md).",
    )
    executor_max_concurrent: int | None = Field(
        default=None,
        ge=1,
        le=1000,
        description="How many steps of one run are executed at the same time, by multiprocess, k8s or docker. Unset: "
        "by multiprocess as many as there are processors, by the others all that can be.",
    )
    run_launcher: LauncherName = Field(
        default=LauncherName.DEFAULT,
        description="Where a run itself is executed: default, in a child process of the code server; docker, in a "
        "container; k8s, in a pod (docs/scaling.md).",
    )
    celery_broker: RedisUrl | None = Field(
        default=None,
        description="Redis through which WHALEFALL_EXECUTOR=celery hands steps to its workers, as "
        "redis://:password@host:6379/0, or rediss://…?ssl_cert_reqs=required with TLS.",
    )
    celery_backend: RedisUrl | None = Field(
        default=None, description="Redis that keeps the results of steps for a day. Unset: WHALEFALL_CELERY_BROKER."
    )
    celery_visibility_seconds: int = Field(
        default=3600,
        ge=10,
        le=604_800,
        description="Seconds after which a step whose worker is gone with its machine goes to another worker. Must be "
        "longer than the longest step, or that is executed twice.",
    )

    @property
    def dagster_webserver(self) -> str:
        """The URL of the Dagster webserver."""
        return str(self.webserver_url or f"http://127.0.0.1:{self.webserver_port}").rstrip("/")

    @property
    def zone(self) -> ZoneInfo:
        """The configured time zone."""
        return ZoneInfo(self.timezone)

    @property
    def run_url(self) -> str:
        """The address of a run in the Dagster UI; {run_id} stands for its id."""
        base = str(self.ui_url or f"http://127.0.0.1:{self.webserver_port}").rstrip("/")
        return f"{base}/runs/{{run_id}}"

    def contradictions(self, day: date) -> list[str]:
        """Return one line per setting that is good alone but not beside the others, or not on *day*, today."""
        lines = []
        if self.start_date > day:
            lines.append(f"{PREFIX}START_DATE: '{self.start_date}': must not be in the future; today is {day}")
        if self.store_url and self.dagster_url and _address(self.store_url) == _address(self.dagster_url):
            lines.append(f"{PREFIX}DAGSTER_URL: (secret): must be another database than that of {PREFIX}STORE_URL")
        if self.alert_smtp_url and not self.alert_email_from:
            lines.append(f"{PREFIX}ALERT_EMAIL_FROM: must be set beside {PREFIX}ALERT_SMTP_URL")
        if self.alert_smtp_url and not self.alert_email_to:
            lines.append(f"{PREFIX}ALERT_EMAIL_TO: must be set beside {PREFIX}ALERT_SMTP_URL")
        given = {name for name in self.model_fields_set if getattr(self, name) is not None}
        found = conflicts(self.executor, self.run_launcher, given)
        return lines + [f"{PREFIX}{name.upper()}: {reason}" for name, reason in found]


def describe_errors(error: ValidationError) -> str:
    """Return one line per bad variable: its name, the value unless it is secret, and what is allowed."""
    lines = []
    for problem in error.errors(include_url=False, include_context=False):
        name = str(problem["loc"][0]) if problem["loc"] else ""
        field = Settings.model_fields.get(name)
        secret = field is not None and ("SecretStr" in str(field.annotation) or name.endswith(("_url", "_key")))
        # Of several secrets the place is all that tells them apart.
        place = "".join(f" of place {index + 1}" for index in problem["loc"] if isinstance(index, int))
        value = f"(secret{place})" if secret else repr(str(problem["input"]))
        message = problem["msg"].removeprefix("Value error, ")
        allowed = f"; allowed: {allowed_range(field)}" if field is not None and allowed_range(field) else ""
        lines.append(f"{PREFIX}{name.upper()}: {value}: {message}{allowed}")
    return "\n".join(lines)


def build_settings(**overrides: Any) -> Settings:
    """Read and check the settings; *overrides* win over the environment. Raises SettingsError."""
    try:
        settings = Settings(**overrides)
    except ValidationError as error:
        problems = describe_errors(error)
    except UnicodeDecodeError as error:
        problems = f"{ENV_FILE}: must be UTF-8 ({error.reason} at byte {error.start})"
    except OSError as error:
        problems = f"{ENV_FILE}: cannot be read: {error.strerror}; it must be readable by whoever starts the command"
    else:
        problems = "\n".join(settings.contradictions(today(settings.zone)))
    # Not raised from the handlers: the errors that they handle carry the values, secrets too.
    if problems:
        raise SettingsError(problems)
    return settings


@lru_cache(maxsize=1)
def load_settings() -> Settings:
    """Return the settings of this process, read once."""
    return build_settings()


def settings_of_file() -> dict[str, str]:
    """Return the variables of .env that are settings and that the environment does not have, by their usual names.

    As for the settings themselves, the case of a name does not matter, and an empty variable is none.
    """
    values = dotenv_values(ENV_FILE, encoding=ENV_FILE_ENCODING)
    given = {name.upper() for name, value in os.environ.items() if value}
    return {
        name.upper(): value
        for name, value in values.items()
        if name.upper().startswith(PREFIX) and value and name.upper() not in given
    }


def allowed_range(field: FieldInfo) -> str:
    """Return the bounds of a setting, such as "from 1 to 24"; empty when it has none."""
    bounds = {}
    for rule in field.metadata:
        for name, word in (("ge", "from"), ("gt", "above"), ("le", "to")):
            if (value := getattr(rule, name, None)) is not None:
                bounds[word] = f"{word} {value}"
    return " ".join(bounds.values())
