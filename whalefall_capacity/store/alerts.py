"""Alerts that wait or were sent, and what of the store they tell.

A row per cause, day and channel is written when the cause is found and stays when it was sent: the next look, also of
a daemon that was started again, finds it there and writes no second. Before an alert is sent its row says `sending`,
committed; after that what came of it. Of a sender that dies in between nobody can know whether its alert arrived: such
a row becomes `unknown` and is not sent again.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta

from sqlalchemy import Engine, text

from whalefall_capacity.alerts.message import Alert
from whalefall_capacity.store.postgres.one_statement import read_rows, write

# Longer than a sender can take.
SENDING_AT_MOST = timedelta(minutes=5)
LONGEST_PAUSE = timedelta(hours=1)
RETENTION = timedelta(days=90)

# The unique key of cause, day and channel decides what is new, also beside another look at the same time; its index
# finds what was reported within the quiet days before. What was found first is reported first.
INSERT_ALERTS = """
INSERT INTO alerts (cause, day, channel, message_json)
SELECT filed.cause, filed.day, channel, filed.message
FROM unnest(CAST(:causes AS text[]), CAST(:days AS date[]), CAST(:quiet_days AS integer[]), CAST(:messages AS jsonb[]))
     WITH ORDINALITY AS filed (cause, day, quiet_days, message, number)
CROSS JOIN unnest(CAST(:channels AS text[])) AS channel
WHERE NOT EXISTS (SELECT FROM alerts AS told
                  WHERE told.cause = filed.cause AND told.channel = channel
                    AND told.day > filed.day - filed.quiet_days AND told.day < filed.day)
ORDER BY filed.number
ON CONFLICT (cause, day, channel) DO NOTHING
"""
# What was tried least recently comes first: a message that its receiver does not want holds up no other. A row that
# another sender is claiming is skipped, so that nobody waits and no two send it.
CLAIM = """
UPDATE alerts SET state = 'sending', attempts = attempts + 1, updated_at = now()
WHERE id = (SELECT id FROM alerts
            WHERE state = 'waiting' AND next_attempt_at <= now() AND channel = ANY(:channels)
            ORDER BY next_attempt_at, id LIMIT 1 FOR UPDATE SKIP LOCKED)
RETURNING id, channel, attempts, message_json
"""
MARK_SENT = """
UPDATE alerts SET state = 'sent', error_message = :note, updated_at = now() WHERE id = :id AND state = 'sending'
"""
RETRY_LATER = """
UPDATE alerts SET state = 'waiting', error_message = :error, next_attempt_at = now() + :pause, updated_at = now()
WHERE id = :id AND state = 'sending'
"""
MARK_UNKNOWN = """
UPDATE alerts SET state = 'unknown', error_message = 'what sent it ended before it could say whether it was taken',
                  updated_at = now()
WHERE state = 'sending' AND updated_at < now() - :at_most
RETURNING cause, channel
"""
DELETE_OLD = "DELETE FROM alerts WHERE updated_at < now() - :kept"
FAILED_RUNS = """
SELECT run.run_id, run.task_key, run.task_name, run.status, run.completed_at, run.closed_at, run.result_url,
       coalesce(run.error_message, failed.first_error) AS error, coalesce(failed.names, '{}') AS names
FROM task_runs AS run
LEFT JOIN LATERAL (
    SELECT array_agg(DISTINCT item_name ORDER BY item_name) AS names, min(error_message) AS first_error
    FROM task_run_items AS item WHERE item.run_id = run.run_id AND item.status = 'failed'
) AS failed ON true
WHERE run.status IN ('failed', 'completed_with_errors') AND run.closed_at > :since
ORDER BY run.closed_at
"""
# Before the first server was registered there was nothing to miss.
MISSED_DAYS = """
SELECT day::date AS day FROM generate_series(CAST(:first AS timestamp), CAST(:last AS timestamp), '1 day') AS day
WHERE day::date > (SELECT min(created_at AT TIME ZONE :zone)::date FROM instances
                   WHERE is_active AND deleted_at IS NULL)
  AND NOT EXISTS (SELECT FROM instance_size_stats WHERE collected_date = day::date)
ORDER BY day
"""


@dataclass(frozen=True)
class Claimed:
    """An alert that is ours to send now."""

    id: int
    channel: str
    attempts: int
    alert: Alert


@dataclass(frozen=True)
class FailedRun:
    """A task run that is over and did not do all of its work; *names* are of what failed, mostly instances."""

    run_id: str
    task_key: str
    task_name: str
    status: str
    completed_at: datetime
    closed_at: datetime
    result_url: str | None
    error: str | None
    names: Sequence[str]


def file_alerts(engine: Engine, alerts: Sequence[Alert], channels: Iterable[str]) -> int:
    """File *alerts* for each of *channels*, but those filed already; return how many are new."""
    if not alerts:
        return 0
    return write(
        engine,
        INSERT_ALERTS,
        causes=[alert.cause for alert in alerts],
        days=[alert.day for alert in alerts],
        quiet_days=[alert.quiet_days for alert in alerts],
        messages=[alert.model_dump_json() for alert in alerts],
        channels=list(channels),
    )


def claim_alert(engine: Engine, channels: Iterable[str]) -> Claimed | None:
    """Return an alert to send now, which nobody else will send; None when none is due."""
    with engine.begin() as connection:
        row = connection.execute(text(CLAIM), {"channels": list(channels)}).one_or_none()
    return None if row is None else Claimed(row.id, row.channel, row.attempts, Alert.model_validate(row.message_json))


def alert_was_sent(engine: Engine, claimed: Claimed, note: str | None) -> None:
    """Say that its receiver has *claimed*."""
    write(engine, MARK_SENT, id=claimed.id, note=note)


def alert_was_not_sent(engine: Engine, claimed: Claimed, error: str) -> timedelta:
    """Say that *claimed* was not taken, and return how long until it is tried again."""
    pause = min(timedelta(minutes=2 ** min(claimed.attempts - 1, 10)), LONGEST_PAUSE)
    write(engine, RETRY_LATER, id=claimed.id, error=error, pause=pause)
    return pause


def give_up_unknown(engine: Engine) -> list[tuple[str, str]]:
    """Close the alerts whose sender died while it sent them; return cause and channel of each."""
    with engine.begin() as connection:
        return [
            (row.cause, row.channel) for row in connection.execute(text(MARK_UNKNOWN), {"at_most": SENDING_AT_MOST})
        ]


def delete_old_alerts(engine: Engine) -> None:
    """Forget alerts of which nothing has been heard for long."""
    write(engine, DELETE_OLD, kept=RETENTION)


def failed_runs(engine: Engine, since: datetime) -> list[FailedRun]:
    """Return the task runs that were closed after *since* and failed, or some of whose items did; oldest first."""
    return read_rows(engine, FailedRun, FAILED_RUNS, since=since)


def missed_days(engine: Engine, first: date, last: date, zone: str) -> list[date]:
    """Return the days from *first* to *last* of which nothing is stored, though there was a fleet; in order."""
    return read_rows(engine, lambda day: day, MISSED_DAYS, first=first, last=last, zone=zone)
