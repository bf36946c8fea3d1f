"""Checks of the stats: what an operator should look at after a collection. None of them blocks.

Annotations are not postponed here: Dagster reads the type of the resource from the function.
"""

from collections.abc import Iterator, Sequence
from dataclasses import astuple
from datetime import date

import dagster as dg

from whalefall_capacity.asset_keys import DATABASE_SIZE_STATS, INSTANCE_SIZE_STATS
from whalefall_capacity.assets.checks import FINDINGS_SHOWN, check_result, some
from whalefall_capacity.assets.metadata import metadata_table
from whalefall_capacity.resources.store import StoreResource
from whalefall_capacity.settings import load_settings
from whalefall_capacity.store.fleet_credentials import unreadable_secrets
from whalefall_capacity.store.sizes.day_comparison import (
    LostDatabase,
    ShrunkInstance,
    latest_stored_day,
    lost_databases,
    shrunk_instances,
)

INVENTORY_SHRANK = dg.AssetCheckSpec(
    "inventory_shrank",
    asset=INSTANCE_SIZE_STATS,
    description="Does any instance list fewer databases than the day before? A warning; an error when one lists fewer "
    "than half. Ask its owner whether they were dropped on purpose. docs/checks.md#inventory_shrank",
)
DATABASES_MISSING = dg.AssetCheckSpec(
    "databases_missing",
    asset=DATABASE_SIZE_STATS,
    description="Is there a database without a size that had one before? It is gone, or it is still listed and the "
    "account may no longer read it. docs/checks.md#databases_missing",
)
# Evaluated by the collection itself: without secrets no server can be visited, and no later step runs.
SECRETS_READABLE = dg.AssetCheckSpec(
    "secrets_readable",
    asset=INSTANCE_SIZE_STATS,
    description="Can the password of every credential be found or decrypted? A warning; an error when an instance of "
    "the fleet needs one that cannot. Names are shown, never values. docs/checks.md#secrets_readable",
)


@dg.multi_asset_check(name="stats_checks", specs=[INVENTORY_SHRANK, DATABASES_MISSING], can_subset=True)
def stats_checks(context: dg.AssetCheckExecutionContext, store: StoreResource) -> Iterator[dg.AssetCheckResult]:
    """Compare the latest stored day with the nearest earlier day within a week."""
    day = latest_stored_day(store.engine)
    for key in context.selected_asset_check_keys:
        if day is None:
            yield dg.AssetCheckResult(
                check_name=key.name, asset_key=key.asset_key, passed=True, description="nothing is stored yet"
            )
        elif key == INVENTORY_SHRANK.key:
            yield inventory_result(day, shrunk_instances(store.engine, day))
        else:
            yield missing_result(day, lost_databases(store.engine, day))


def secrets_result(store: StoreResource) -> dg.AssetCheckResult:
    """Report the credentials whose secret cannot be read."""
    found = unreadable_secrets(store.engine, load_settings().secret_key)
    needed = sorted({instance for secret in found for instance in secret.instances})
    concerned = f"instances affected: {some(needed)}" if needed else "no instance of the fleet needs them"
    return check_result(
        SECRETS_READABLE.key,
        found,
        good="every secret can be read",
        bad=f"{len(found)} secrets cannot be read; {concerned}. Set what the table names, then collect again",
        is_error=needed,
        metadata={
            "secrets_unreadable": len(found),
            "instances_concerned": len(needed),
            "secrets": metadata_table(
                ("credential", "error", "instances"),
                [(secret.credential, secret.error, some(secret.instances)) for secret in found[:FINDINGS_SHOWN]],
            ),
        },
    )


def inventory_result(day: date, shrunk: Sequence[ShrunkInstance]) -> dg.AssetCheckResult:
    """Report the instances that list fewer databases on *day*."""
    return check_result(
        INVENTORY_SHRANK.key,
        shrunk,
        good=f"every instance lists on {day} at least as many databases as before",
        bad=f"{len(shrunk)} instances list fewer databases on {day} than before: "
        f"{some([f'{s.instance} ({s.listed_before} to {s.listed})' for s in shrunk])}. "
        "`databases_missing` names the databases; ask whether they were dropped on purpose",
        is_error=any(instance.listed * 2 < instance.listed_before for instance in shrunk),
        metadata={
            "instances_shrunk": len(shrunk),
            "databases_fewer": sum(instance.listed_before - instance.listed for instance in shrunk),
            "instances": metadata_table(
                ("instance", "databases", "databases_before", "day_before"),
                [astuple(instance) for instance in shrunk[:FINDINGS_SHOWN]],
            ),
        },
    )


def missing_result(day: date, lost: Sequence[LostDatabase]) -> dg.AssetCheckResult:
    """Report the databases that have no size on *day*, largest first."""
    unmeasured = sum(database.is_listed for database in lost)
    return check_result(
        DATABASES_MISSING.key,
        lost,
        good=f"every database that had a size before has one on {day}",
        bad=f"{len(lost)} databases have no size on {day}: {some([f'{d.instance}/{d.database}' for d in lost])}. "
        f"{unmeasured} are still listed (`whalefall-capacity fleet check` prints the missing GRANT), "
        f"{len(lost) - unmeasured} are gone",
        metadata={
            "databases_not_measured": unmeasured,
            "databases_gone": len(lost) - unmeasured,
            "size_bytes_before": sum(database.size_bytes for database in lost),
            "databases": metadata_table(
                ("instance", "database", "state", "last_day", "size_bytes"),
                [(d.instance, d.database, _state(d), d.last_day, d.size_bytes) for d in lost[:FINDINGS_SHOWN]],
            ),
        },
    )


def _state(database: LostDatabase) -> str:
    return "listed, not measured" if database.is_listed else "no longer listed"
