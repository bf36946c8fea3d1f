"""The parts of WhaleFall that become settings, commands and notes for a person instead of rows."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from datetime import date

from whalefall_capacity.collection.sizes import ServerEngine
from whalefall_capacity.periods import add_months, month_start
from whalefall_capacity.settings import Settings
from whalefall_capacity.store.moving_in.source import AlertLimits, SourceUser

# What the file database_filters.yaml of WhaleFall drops, as it is shipped, beside what is never measured here anyway:
# the system databases and templates. A MariaDB stands there as mysql.
LEFT_OUT_NAMES: Mapping[ServerEngine, Sequence[str]] = {ServerEngine.POSTGRESQL: ("postgres",)}
LEFT_OUT_PATTERNS: Mapping[ServerEngine, Sequence[str]] = {
    ServerEngine.POSTGRESQL: ("pg_%",),
    ServerEngine.MYSQL: ("tmp_%", "temp_%", "#sql%"),
    ServerEngine.MARIADB: ("tmp_%", "temp_%", "#sql%"),
}
NOT_CARRIED = (
    "database_size_aggregations, instance_size_aggregations: calculated again from the daily sizes. WhaleFall's "
    "quarters lack a month in the baseline, its means are cut off, and 0 stands for a change without a baseline",
    "data sizes and log sizes: WhaleFall's data size always equals the size, and its log size is never set; both are "
    "unknown here",
    "tags and sync_count of instances: there is nothing here that they would mean",
    "accounts, classifications, clusters, backups, tables of databases and logs of WhaleFall: not about capacity",
    "passwords of users: bcrypt there, argon2id here",
)
SWITCH = (
    "Totals step on the day of the switch, though nothing grew: postgres and the databases that WhaleFall's filters "
    "drop are measured unless the settings above are taken along; MySQL and MariaDB gain tables of other engines and "
    "shared tablespaces; and WhaleFall's whole MiB, rounded up on MySQL and cut off elsewhere, were up to 1 MiB a "
    "database away"
)
FILTER_FILE = (
    "The filters above are those that WhaleFall ships; its _ stands for any character, so they drop temperature, "
    "pgbench and tmpfile, too: write temp_.* instead of temp..* to keep them. Where database_filters.yaml was edited, "
    "its names are exact names here, and of its patterns % becomes .* and _ becomes ."
)
FLEET_FILE = (
    "A fleet file disables every instance that it does not name: before the next `fleet apply`, write one that names "
    "all that are to be visited, with `stored:` and the names of these credentials"
)


def like_to_regex(pattern: str) -> str:
    """Return the regular expression that matches the names that a LIKE *pattern* matches, but for the case."""
    parts = {"%": ".*", "_": "."}
    return "".join(parts.get(character) or re.escape(character) for character in pattern)


def settings_lines(limits: AlertLimits | None, days: tuple[date, date] | None, settings: Settings) -> tuple[str, ...]:
    """Return the lines of a `.env` that make this program do what WhaleFall was set to do."""
    return (*_filter_lines(), *_alert_lines(limits), *_span_lines(days, settings))


def notes(
    users: Sequence[SourceUser], days: tuple[date, date] | None, settings: Settings, today: date, task_runs: bool | None
) -> tuple[str, ...]:
    """Return what a person has to know or do; *task_runs* is None where WhaleFall has none."""
    found = [SWITCH, FILTER_FILE, FLEET_FILE]
    if users:
        found.append("Users need new passwords; " + ", ".join(map(_user_command, users)))
    if task_runs is False:
        found.append("Task runs stay where they are; --task-runs takes them along")
    cut_off = add_months(today, -settings.retention_stats_months)
    if days is not None and month_start(days[0]) < month_start(cut_off):
        found.append(
            f"Daily sizes before {cut_off} are older than WHALEFALL_RETENTION_STATS_MONTHS "
            f"({settings.retention_stats_months}): the next maintenance rolls them up into aggregations and retires "
            "them; raise the setting before --apply to keep them"
        )
    return tuple(found)


def _filter_lines() -> Iterator[str]:
    for engine, names in LEFT_OUT_NAMES.items():
        yield f"WHALEFALL_{engine.name}_EXCLUDE={','.join(names)}"
    for engine, patterns in LEFT_OUT_PATTERNS.items():
        # The name of a database is matched there whatever its case.
        yield f"WHALEFALL_{engine.name}_EXCLUDE_REGEX='(?i){'|'.join(map(like_to_regex, patterns))}'"


def _alert_lines(limits: AlertLimits | None) -> Iterator[str]:
    if limits is None:
        return
    yield (
        f"# WhaleFall's limits of growth, {limits.percent} % and {limits.gigabytes} GiB, have no setting here: "
        "size_anomaly knows how each database usually grows."
    )
    if limits.recipients:
        yield f"# WhaleFall mails to {', '.join(limits.recipients)}: WHALEFALL_ALERT_URLS"


def _span_lines(days: tuple[date, date] | None, settings: Settings) -> Iterator[str]:
    if days is not None and days[0] < settings.start_date:
        yield f"WHALEFALL_START_DATE={max(days[0], date(2000, 1, 1))}"


def _user_command(user: SourceUser) -> str:
    role = "admin" if user.role == "admin" else "view"
    return f"`whalefall-capacity user set {shlex.quote(user.username)} --role {role}`"
