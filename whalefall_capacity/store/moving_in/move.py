"""The migration from end to end: the fleet, its databases, their sizes, task runs; as a plan or for good."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta

from pydantic import SecretStr
from sqlalchemy import Engine

from whalefall_capacity.settings import Settings
from whalefall_capacity.store.moving_in.advice import NOT_CARRIED, notes, settings_lines
from whalefall_capacity.store.moving_in.fleet import Fleet, move_fleet, move_inventory
from whalefall_capacity.store.moving_in.mapping import InstanceMove, OldKey
from whalefall_capacity.store.moving_in.report import (
    Account,
    InstanceSummary,
    Line,
    Outcome,
    Report,
    summarize,
)
from whalefall_capacity.store.moving_in.sizes import SizesMove, joined
from whalefall_capacity.store.moving_in.source import Source, open_source
from whalefall_capacity.store.moving_in.task_runs import TaskRunsMove
from whalefall_capacity.store.moving_in.whalefall_tables import ALERT_LIMITS, TASK_RUNS, USERS


@dataclass(frozen=True)
class Choices:
    """Options of a migration: a plan alone or also its execution, the key of the passwords, task runs or none."""

    apply: bool = False
    task_runs: bool = False
    old_key: OldKey | None = None


def move_in(engine: Engine, url: SecretStr, choices: Choices, settings: Settings, today: date) -> Report:
    """Move what WhaleFall's database at *url* holds into the store, or say what would come of it; return the account.

    Raises MigrationError before anything is written when the source is not WhaleFall's, or a name or a password
    cannot be kept.
    """
    account = Account()
    with open_source(url) as source:
        if choices.task_runs:
            source.require(TASK_RUNS)
        fleet = move_fleet(engine, source, choices.old_key, settings.secret_key, choices.apply)
        _account_for_fleet(fleet, account)
        move_inventory(engine, source, fleet, (settings.start_date, today), choices.apply, account)
        sizes = SizesMove(engine, source, fleet, choices.apply, account)
        sizes.months(settings.start_date, today)
        if choices.task_runs:
            oldest = today - timedelta(days=settings.retention_task_runs_days)
            kept_since = datetime.combine(oldest, time(), settings.zone)
            TaskRunsMove(engine, source, fleet, choices.apply, account, kept_since).months()
        return _report(source, fleet, sizes, choices, settings, today)


def _account_for_fleet(fleet: Fleet, account: Account) -> None:
    for credential in fleet.credentials:
        account.add("credentials", None, credential.outcome, 1, _of(credential.source.name, credential.reason))
    for instance in fleet.instances:
        account.add("instances", instance.source.name, instance.outcome, 1, instance.reason)


def _of(name: str, reason: str) -> str:
    return f"{name}: {reason}" if reason else name


def _report(
    source: Source, fleet: Fleet, sizes: SizesMove, choices: Choices, settings: Settings, today: date
) -> Report:
    lines = sizes.account.merged()
    days = source.days()
    limits = source.alert_limits() if source.has(ALERT_LIMITS) else None
    users = source.users() if source.has(USERS) else []
    with_task_runs = choices.task_runs if source.has(TASK_RUNS) else None
    return Report(
        applied=choices.apply,
        tables=summarize(lines),
        instances=tuple(_instance_summary(move, lines) for move in fleet.instances),
        lines=tuple(lines),
        differing_totals=tuple(joined(sizes.differing)),
        settings=settings_lines(limits, days, settings),
        not_carried=NOT_CARRIED,
        notes=notes(users, days, settings, today, with_task_runs),
    )


def _instance_summary(move: InstanceMove, lines: Sequence[Line]) -> InstanceSummary:
    state = "active" if move.is_active else "inactive"
    own = [line for line in lines if line.instance == move.source.name and line.table != "instances"]
    return InstanceSummary(
        instance=move.source.name,
        db_type=move.source.db_type,
        outcome=move.outcome,
        state="as it is" if move.outcome is Outcome.KEPT else state,
        reason=move.reason,
        tables=summarize(own),
    )
