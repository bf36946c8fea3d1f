"""Settings are WHALEFALL_* variables, checked once at start.

A bad value raises SettingsError that names the variable, shows the value unless it is a secret, and says
what is allowed. Nothing of the error carries a secret: neither its text nor what it was raised from.
"""

from __future__ import annotations

import subprocess
import sys
from datetime import date
from pathlib import Path

import pytest
from cryptography.fernet import Fernet
from sqlalchemy import make_url

from whalefall_capacity.collection.sizes import ServerEngine
from whalefall_capacity.errors import SettingsError
from whalefall_capacity.runtime import name_filters
from whalefall_capacity.settings import (
    PREFIX,
    PROJECT_ROOT,
    Settings,
    build_settings,
    load_settings,
    settings_of_file,
)
from whalefall_capacity_tests.errors import all_that_it_carries
from whalefall_capacity_tests.other_account import as_another_account, needs_root

URL_FORM = (
    "must look like postgresql://user:password@host:5432/database; special characters of the password as %XX, "
    "such as %40 for @"
)
REDIS_FORM = (
    "must look like redis://:password@host:6379/0, or rediss://:password@host:6379/0?ssl_cert_reqs=required (TLS); "
    "special characters of the password as %XX, such as %40 for @"
)
CRON_FORM = "must be a cron expression of five fields, such as 0 3 * * *"
ZONE_FORM = "must be a zone of the IANA database, such as Asia/Shanghai or UTC"
NOT_A_NUMBER = "Input should be a valid integer, unable to parse string as an integer"

BAD_VALUES = [
    ("HOME", "/dev/null", "must be a folder, or nothing yet"),
    ("HOME", "~nobody-of-this-name/whalefall", "must be a folder; ~ stands for the home of a user that exists"),
    ("TIMEZONE", "Asia/Nowhere", ZONE_FORM),
    ("TIMEZONE", "Asia", ZONE_FORM),
    ("TIMEZONE", "/etc/passwd", ZONE_FORM),
    ("TIMEZONE", "+08:00", ZONE_FORM),
    ("START_DATE", "yesterday", "must be a day such as 2025-01-31"),
    ("START_DATE", "2025-13-01", "must be a day such as 2025-01-31"),
    ("START_DATE", "2025-02-29", "must be a day such as 2025-01-31"),
    ("START_DATE", "0001-01-01", "Input should be greater than or equal to 2000-01-01"),
    ("COLLECTION_SCHEDULE", "daily", CRON_FORM),
    ("COLLECTION_SCHEDULE", "0 3 * *", CRON_FORM),
    ("COLLECTION_SCHEDULE", "61 3 * * *", CRON_FORM),
    ("COLLECTION_CONCURRENCY", "many", NOT_A_NUMBER),
    ("COLLECTION_CONCURRENCY", "1.5", NOT_A_NUMBER),
    ("COLLECTION_CONCURRENCY", "0", "Input should be greater than or equal to 1"),
    ("COLLECTION_CONCURRENCY", "513", "Input should be less than or equal to 512"),
    ("COLLECTION_DEADLINE_SECONDS", "0", "Input should be greater than 0"),
    ("COLLECTION_DEADLINE_SECONDS", "nan", "Input should be less than or equal to 86400"),
    ("CONNECT_TIMEOUT_SECONDS", "soon", "Input should be a valid number, unable to parse string as a number"),
    ("CONNECT_TIMEOUT_SECONDS", "601", "Input should be less than or equal to 600"),
    ("STATEMENT_TIMEOUT_SECONDS", "inf", "Input should be less than or equal to 86400"),
    (
        "POSTGRESQL_EXCLUDE_REGEX",
        "temp_(.*",
        "must be a regular expression (missing ), unterminated subpattern at position 5)",
    ),
    ("MYSQL_EXCLUDE_REGEX", "*", "must be a regular expression (nothing to repeat at position 0)"),
    ("MARIADB_EXCLUDE_REGEX", "[", "must be a regular expression (unterminated character set at position 0)"),
    ("CREATE_AHEAD_MONTHS", "0", "Input should be greater than or equal to 1"),
    ("CREATE_AHEAD_MONTHS", "25", "Input should be less than or equal to 24"),
    ("RETENTION_DAILY_MONTHS", "0", "Input should be greater than or equal to 1"),
    ("RETENTION_WEEKLY_MONTHS", "-1", "Input should be greater than or equal to 1"),
    ("RETENTION_MONTHLY_MONTHS", "1201", "Input should be less than or equal to 1200"),
    ("RETENTION_QUARTERLY_MONTHS", "forever", NOT_A_NUMBER),
    ("RETENTION_TASK_RUNS_DAYS", "36501", "Input should be less than or equal to 36500"),
    ("EXECUTOR", "threads", "Input should be 'in_process', 'multiprocess', 'celery', 'k8s' or 'docker'"),
    ("EXECUTOR_MAX_CONCURRENT", "0", "Input should be greater than or equal to 1"),
    ("RUN_LAUNCHER", "celery", "Input should be 'default', 'docker' or 'k8s'"),
    ("CELERY_VISIBILITY_SECONDS", "9", "Input should be greater than or equal to 10"),
    ("WEBSERVER_PORT", "65536", "Input should be less than or equal to 65535"),
]
ALLOWED = {
    "START_DATE": "from 2000-01-01",
    "COLLECTION_CONCURRENCY": "from 1 to 512",
    "COLLECTION_DEADLINE_SECONDS": "above 0 to 86400",
    "CONNECT_TIMEOUT_SECONDS": "above 0 to 600",
    "STATEMENT_TIMEOUT_SECONDS": "above 0 to 86400",
    "CREATE_AHEAD_MONTHS": "from 1 to 24",
    "RETENTION_DAILY_MONTHS": "from 1 to 1200",
    "RETENTION_WEEKLY_MONTHS": "from 1 to 1200",
    "RETENTION_MONTHLY_MONTHS": "from 1 to 1200",
    "RETENTION_QUARTERLY_MONTHS": "from 1 to 1200",
    "RETENTION_TASK_RUNS_DAYS": "from 1 to 36500",
    "EXECUTOR_MAX_CONCURRENT": "from 1 to 1000",
    "CELERY_VISIBILITY_SECONDS": "from 10 to 604800",
    "WEBSERVER_PORT": "from 1 to 65535",
}
BAD_URLS = [
    "db.example/sizes?password=Tr0ub4dor",
    "whalefall:Tr0ub4dor@db.example/sizes",
    "mysql://whalefall:Tr0ub4dor@db.example/sizes",
    "postgresql+psycopg://whalefall:Tr0ub4dor@db.example/sizes",
    "postgresql://whalefall:Tr0ub4dor@db.example",
    "postgresql://whalefall:Tr0ub4dor@db.example:port/sizes",
    "postgresql://whalefall:Tr0ub4dor@db.example:0/sizes",
    "postgresql://whalefall:Tr0ub4dor@db.example:65536/sizes",
    "postgresql://whalefall:Tr@Tr0ub4dor@db.example/sizes",
]


@pytest.fixture(autouse=True)
def _no_zone(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: ARG001 - made before
    """Take away the zone that --clock sets: the defaults are looked at."""
    monkeypatch.delenv("WHALEFALL_TIMEZONE", raising=False)


@pytest.mark.parametrize(("name", "value", "message"), BAD_VALUES)
def test_a_bad_value_names_the_variable_shows_the_value_and_says_what_is_allowed(
    name: str, value: str, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(PREFIX + name, value)
    allowed = f"; allowed: {ALLOWED[name]}" if name in ALLOWED else ""
    assert str(_refusal()) == f"WHALEFALL_{name}: '{value}': {message}{allowed}"


@pytest.mark.parametrize("name", ["WEBSERVER_URL", "UI_URL"])
@pytest.mark.parametrize("login", ["somebody:geheim", "geheim", ":geheim"])
def test_an_address_that_pages_show_has_no_password(name: str, login: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(f"WHALEFALL_{name}", f"http://{login}@dagster.example:3000")
    assert str(_refusal()) == (
        f"WHALEFALL_{name}: (secret): must have no user and no password: nobody logs in with them, and pages show the "
        "address"
    )


@pytest.mark.parametrize("name", ["STORE_URL", "DAGSTER_URL"])
@pytest.mark.parametrize("url", BAD_URLS)
def test_a_bad_url_is_refused_without_showing_the_password(
    name: str, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(PREFIX + name, url)
    refusal = _refusal()
    assert str(refusal) == f"WHALEFALL_{name}: (secret): {URL_FORM}"
    assert "Tr0ub4dor" not in all_that_it_carries(refusal)


@pytest.mark.parametrize("name", ["CELERY_BROKER", "CELERY_BACKEND"])
@pytest.mark.parametrize(
    "url",
    [
        "redis.example:6379/0?password=Tr0ub4dor",
        "amqp://whalefall:Tr0ub4dor@rabbit.example//",
        "redis://:Tr@Tr0ub4dor@redis.example:6379/0",
        "redis://:Tr0ub4dor@redis.example:0/0",
        "rediss://:Tr0ub4dor@redis.example:6379/0",
    ],
)
def test_a_bad_url_of_redis_is_refused_without_showing_the_password(
    name: str, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(PREFIX + name, url)
    refusal = _refusal()
    assert str(refusal) == f"WHALEFALL_{name}: (secret): {REDIS_FORM}"
    assert "Tr0ub4dor" not in all_that_it_carries(refusal)


@pytest.mark.parametrize("key", ["Tr0ub4dor", "Tr0ub4dor" * 5, "Tr0ub4dör" * 5], ids=["short", "long", "not ASCII"])
def test_a_bad_key_is_refused_without_showing_it(key: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WHALEFALL_SECRET_KEY", key)
    refusal = _refusal()
    assert str(refusal) == ("WHALEFALL_SECRET_KEY: (secret): must be a Fernet key: 32 bytes in URL-safe base64")
    assert "Tr0ub4d" not in all_that_it_carries(refusal)


def test_one_bad_value_does_not_spill_the_secrets_of_the_good_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    key = Fernet.generate_key().decode()
    monkeypatch.setenv("WHALEFALL_SECRET_KEY", key)
    monkeypatch.setenv("WHALEFALL_STORE_URL", "postgresql://whalefall:Tr0ub4dor@db.example/sizes")
    monkeypatch.setenv("WHALEFALL_TIMEZONE", "Asia/Nowhere")
    carried = all_that_it_carries(_refusal())
    assert "Tr0ub4dor" not in carried
    assert key not in carried


def test_settings_themselves_do_not_show_secrets() -> None:
    key = Fernet.generate_key().decode()
    settings = build_settings(secret_key=key, store_url="postgresql://whalefall:Tr0ub4dor@db.example/sizes")
    shown = repr(settings) + str(settings) + settings.model_dump_json()
    assert "Tr0ub4dor" not in shown
    assert key not in shown


def test_every_bad_variable_has_a_line_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WHALEFALL_WEBSERVER_PORT", "0")
    monkeypatch.setenv("WHALEFALL_TIMEZONE", "CST")
    assert str(_refusal()).splitlines() == [
        f"WHALEFALL_TIMEZONE: 'CST': {ZONE_FORM}",
        "WHALEFALL_WEBSERVER_PORT: '0': Input should be greater than or equal to 1; allowed: from 1 to 65535",
    ]


def test_the_environment_wins_over_the_file(monkeypatch: pytest.MonkeyPatch) -> None:
    Path(".env").write_text("WHALEFALL_TIMEZONE=Europe/Berlin\nWHALEFALL_WEBSERVER_PORT=3100\n")
    monkeypatch.setenv("WHALEFALL_TIMEZONE", "UTC")
    settings = build_settings()
    assert (settings.timezone, settings.webserver_port) == ("UTC", 3100)


def test_a_byte_order_mark_is_no_part_of_the_first_variable_of_the_file() -> None:
    Path(".env").write_text("WHALEFALL_TIMEZONE=Europe/Berlin\r\nWHALEFALL_WEBSERVER_PORT=3100\r\n", "utf-8-sig")
    assert build_settings().timezone == "Europe/Berlin"
    assert settings_of_file() == {"WHALEFALL_TIMEZONE": "Europe/Berlin", "WHALEFALL_WEBSERVER_PORT": "3100"}


def test_a_bad_value_of_the_file_is_refused_like_one_of_the_environment() -> None:
    Path(".env").write_text("WHALEFALL_TIMEZONE=CST\n")
    assert str(_refusal()) == f"WHALEFALL_TIMEZONE: 'CST': {ZONE_FORM}"


def test_a_file_that_is_not_utf8_is_refused_without_showing_what_is_in_it() -> None:
    Path(".env").write_bytes(b"WHALEFALL_STORE_URL=postgresql://u:Tr0ub4dor\xff@db.example/sizes\n")
    refusal = _refusal()
    assert str(refusal) == ".env: must be UTF-8 (invalid start byte at byte 44)"
    assert "Tr0ub4dor" not in all_that_it_carries(refusal)


@needs_root
def test_a_file_that_may_not_be_read_is_refused() -> None:
    Path(".env").touch(0o600)
    Path.cwd().chmod(0o755)
    assert as_another_account(lambda: str(_refusal())) == (
        ".env: cannot be read: Permission denied; it must be readable by whoever starts the command"
    )


@needs_root
@pytest.mark.parametrize("name", ["HOME", "ARCHIVE_DIR", "ENGINES"])
def test_a_folder_that_may_not_be_looked_into_is_refused(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    Path("closed").mkdir(0o700)
    Path.cwd().chmod(0o755)
    monkeypatch.delenv("WHALEFALL_HOME")
    monkeypatch.setenv(f"WHALEFALL_{name}", "closed/folder")
    refusal = as_another_account(lambda: str(_refusal()))
    assert refusal == f"WHALEFALL_{name}: 'closed/folder': cannot be reached: Permission denied"


def test_variables_of_others_are_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    Path(".env").write_text("PGPASSWORD=x\nWHALEFALL_PASSWORD_OF_SHOP=x\n")
    monkeypatch.setenv("WHALEFALL_PASSWORD_OF_BLOG", "x")
    assert build_settings().timezone == "Asia/Shanghai"


@pytest.mark.parametrize("name", sorted(Settings.model_fields.keys() - {"home"}))
def test_an_empty_value_counts_as_unset(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(PREFIX + name.upper(), "")
    assert getattr(build_settings(), name) == Settings.model_fields[name].default


def test_an_empty_home_is_not_the_working_directory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WHALEFALL_HOME", "")
    assert build_settings().home == PROJECT_ROOT / ".whalefall"


def test_a_tilde_in_home_is_the_home_of_the_user(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/srv/dba")
    monkeypatch.setenv("WHALEFALL_HOME", "~/whalefall")
    assert build_settings().home == Path("/srv/dba/whalefall")


@pytest.mark.parametrize("scheme", ["postgresql", "postgres", "postgresql+psycopg2"])
def test_a_url_leads_to_psycopg2_whichever_way_it_is_written(scheme: str) -> None:
    assert _store_url(f"{scheme}://whalefall:secret@db.example:5433/sizes?sslmode=require") == (
        "postgresql+psycopg2://whalefall:secret@db.example:5433/sizes?sslmode=require"
    )


@pytest.mark.parametrize(
    "url",
    [
        "postgresql+psycopg2://postgres@/whalefall?host=/run/postgresql",
        "postgresql+psycopg2:///whalefall",
        "postgresql+psycopg2://whalefall@[::1]:5432/sizes",
        "postgresql+psycopg2://whalefall@/sizes?host=a.example:5432&host=b.example:5432",
    ],
    ids=["socket", "default host", "IPv6", "several hosts"],
)
def test_every_form_of_url_that_libpq_can_use_is_taken_as_it_is(url: str) -> None:
    assert _store_url(url) == url


@pytest.mark.parametrize("name", ["sslrootcert", "sslcert", "sslkey", "sslcrl", "passfile"])
def test_a_file_of_a_url_has_its_whole_path(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WHALEFALL_STORE_URL", f"postgresql://u:geheim@db.example/sizes?{name}=files/mine")
    assert str(_refusal()) == (
        f"WHALEFALL_STORE_URL: (secret): {name}: must be an absolute path: the service works in another folder"
    )
    assert _store_url(f"postgresql://u@db.example/sizes?{name}=/files/mine").endswith("=/files/mine")


def test_the_authorities_of_the_system_are_no_file() -> None:
    assert _store_url("postgresql://u@db.example/sizes?sslrootcert=system").endswith("?sslrootcert=system")


def test_special_characters_of_a_password_are_percent_encoded() -> None:
    url = _store_url("postgresql://whalefall:p%40ss%2Fw%3Ard@db.example/sizes")
    assert make_url(url).password == "p@ss/w:rd"


@pytest.mark.parametrize(
    ("store_url", "dagster_url"),
    [
        ("postgresql://a:x@db.example:5432/sizes", "postgresql://b:y@DB.example/sizes"),
        ("postgres://postgres@/sizes?host=/run/postgresql", "postgresql://postgres@/sizes?host=/run/postgresql"),
    ],
    ids=["another user, the port left out", "a socket"],
)
def test_dagster_may_not_live_in_the_database_of_the_store(
    store_url: str, dagster_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WHALEFALL_STORE_URL", store_url)
    monkeypatch.setenv("WHALEFALL_DAGSTER_URL", dagster_url)
    assert str(_refusal()) == (
        "WHALEFALL_DAGSTER_URL: (secret): must be another database than that of WHALEFALL_STORE_URL"
    )


@pytest.mark.parametrize(
    "dagster",
    [
        "postgresql://whalefall@db.example/dagster",
        "postgresql://whalefall@db.example:5433/sizes",
        "postgresql://whalefall@other.example/sizes",
        "postgresql://whalefall@/sizes?host=/run/postgresql",
    ],
    ids=["another database", "another port", "another host", "a socket"],
)
def test_dagster_may_live_in_any_other_database(dagster: str) -> None:
    settings = build_settings(store_url="postgresql://whalefall@db.example/sizes", dagster_url=dagster)
    assert settings.dagster_url is not None


def test_the_start_date_may_be_today_and_not_tomorrow() -> None:
    settings = build_settings(start_date=date(2026, 3, 10))
    assert settings.contradictions(date(2026, 3, 10)) == []
    assert settings.contradictions(date(2026, 3, 9)) == [
        "WHALEFALL_START_DATE: '2026-03-10': must not be in the future; today is 2026-03-09"
    ]


def test_a_start_date_in_the_future_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WHALEFALL_START_DATE", "9999-12-31")
    assert str(_refusal()).startswith("WHALEFALL_START_DATE: '9999-12-31': must not be in the future; today is ")


@pytest.mark.parametrize("months", ["1", "3"])
def test_a_retention_in_which_days_go_before_their_quarter_is_over_is_refused(
    months: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WHALEFALL_RETENTION_STATS_MONTHS", months)
    assert str(_refusal()) == (
        f"WHALEFALL_RETENTION_STATS_MONTHS: '{months}': Input should be greater than or equal to 4; "
        "allowed: from 4 to 1200"
    )


def test_the_shortest_retention_of_days_is_four_months(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WHALEFALL_RETENTION_STATS_MONTHS", "4")
    assert build_settings().retention_stats_months == 4


@pytest.mark.parametrize(
    ("regex", "dropped", "kept"),
    [
        ("temp_.*", ["temp_1", "temp_"], ["temperature", "temp", "my_temp_1", "TEMP_1"]),
        ("pg_.*", ["pg_stats"], ["pgbench", "postgres"]),
        ("tmp_.*", ["tmp_load"], ["tmpfile"]),
        ("temp_*|pg_*|tmp_*", [], ["temperature", "pgbench", "tmpfile"]),
        ("temp_.*|pg_.*", ["temp_1", "pg_stats"], ["temperature", "pgbench"]),
    ],
)
@pytest.mark.parametrize("engine", list(ServerEngine))
def test_an_underscore_of_a_filter_is_a_letter_and_the_whole_name_must_match(
    engine: ServerEngine, regex: str, dropped: list[str], kept: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(f"WHALEFALL_{engine.name}_EXCLUDE_REGEX", regex)
    excludes = name_filters(build_settings())[engine].excludes
    assert [name for name in dropped + kept if excludes(name)] == dropped


def test_exact_names_are_separated_by_commas(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WHALEFALL_MARIADB_EXCLUDE", "scratch, old data ,, temp_*")
    filters = name_filters(build_settings())
    names = ["scratch", "old data", "temp_*", "Scratch", "temp_1", ""]
    assert [name for name in names if filters[ServerEngine.MARIADB].excludes(name)] == [
        "scratch",
        "old data",
        "temp_*",
    ]
    assert not filters[ServerEngine.MYSQL].excludes("scratch")


def test_the_settings_of_a_process_are_read_once(monkeypatch: pytest.MonkeyPatch) -> None:
    first = load_settings()
    monkeypatch.setenv("WHALEFALL_TIMEZONE", "UTC")
    assert load_settings() is first


def test_the_page_of_settings_is_what_the_settings_say() -> None:
    script = PROJECT_ROOT / "scripts" / "settings_page.py"
    printed = subprocess.run([sys.executable, script], capture_output=True, check=True).stdout
    assert (PROJECT_ROOT / "docs" / "settings.md").read_bytes() == printed


def test_the_page_of_settings_shows_default_and_range_of_every_variable() -> None:
    page = (PROJECT_ROOT / "docs" / "settings.md").read_text(encoding="utf-8")
    rows = [line.strip("|").split(" | ") for line in page.splitlines() if line.startswith("| `")]
    assert [row[0].strip() for row in rows] == [f"`WHALEFALL_{name.upper()}`" for name in Settings.model_fields]
    assert all(row[-1].rstrip().endswith(".") for row in rows)
    found = {row[0].strip(" `"): (row[1], row[2].strip()) for row in rows}
    assert found["WHALEFALL_WEBSERVER_PORT"] == ("`3000`", "from 1 to 65535")
    assert found["WHALEFALL_HOME"][0] == (
        "`.whalefall` in the checkout, or in the current folder where a wheel is installed"
    )
    assert found["WHALEFALL_STORE_URL"][0] == "unset"


def _refusal() -> SettingsError:
    with pytest.raises(SettingsError) as raised:
        build_settings()
    return raised.value


def _store_url(url: str) -> str:
    settings = build_settings(store_url=url)
    assert settings.store_url is not None
    return settings.store_url.get_secret_value()
