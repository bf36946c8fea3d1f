"""`whalefall-capacity collect`: a Dagster run in the terminal, whose status says whether everyone was measured."""

from __future__ import annotations

import getpass
import os
from collections.abc import Iterator
from datetime import date

import dagster as dg
import pytest

from whalefall_capacity.asset_keys import DATABASE_SIZE_STATS
from whalefall_capacity.collection.sizes import Target
from whalefall_capacity.private_files import is_open_to_others
from whalefall_capacity.settings import PREFIX, Settings
from whalefall_capacity_tests.collection.mysql_family import account
from whalefall_capacity_tests.commands.conftest import CommandLine
from whalefall_capacity_tests.commands.test_fleet import cells
from whalefall_capacity_tests.processes import run
from whalefall_capacity_tests.registry import PASSWORD_VARIABLE, entry, refusing, register
from whalefall_capacity_tests.servers import MariadbFleetServer, PostgresqlServer
from whalefall_capacity_tests.store.records import rows

STORED = """
SELECT i.name, s.total_size_bytes > 0, s.database_count FROM instance_size_stats AS s
JOIN instances AS i ON i.id = s.instance_id ORDER BY i.name
"""


@pytest.fixture
def orders(mariadb: MariadbFleetServer) -> Iterator[str]:
    """A database of the MariaDB server, and the only one that is not left out."""
    with mariadb.connect() as cursor:
        cursor.execute("CREATE DATABASE collected_orders")
        cursor.execute("CREATE TABLE collected_orders.t (id INT PRIMARY KEY)")
        os.environ[f"{PREFIX}MARIADB_EXCLUDE_REGEX"] = "(?!collected_orders$).*"
        yield "collected_orders"
        cursor.execute("DROP DATABASE IF EXISTS collected_orders")


@pytest.mark.usefixtures("orders")
def test_the_fleet_is_measured_and_the_run_is_recorded(
    whalefall: CommandLine, postgresql: PostgresqlServer, mariadb: MariadbFleetServer
) -> None:
    register(whalefall.store, entry("pg", postgresql.target()), entry("maria", mariadb.target()))
    done = whalefall("collect")
    assert (done.status, done.err) == (0, "")
    ((day,),) = rows(whalefall.store, "SELECT DISTINCT collected_date FROM instance_size_stats")
    assert done.out.startswith(f"sizes of {day}")
    assert [name for name, *_ in rows(whalefall.store, STORED)] == ["maria", "pg"]
    with dg.DagsterInstance.get() as instance:
        record = instance.get_latest_data_version_record(DATABASE_SIZE_STATS, partition_key=str(day))
        assert record is not None
        run = instance.get_run_by_id(record.run_id)
        assert run is not None
        assert (run.job_name, run.status) == ("sync_databases", dg.DagsterRunStatus.SUCCESS)


@pytest.mark.slow
@pytest.mark.usefixtures("orders")
def test_what_a_collection_leaves_behind_is_its_owners_alone_whatever_the_umask(
    whalefall: CommandLine, mariadb: MariadbFleetServer, settings: Settings
) -> None:
    register(whalefall.store, entry("maria", mariadb.target()))
    variables = {name: value for name, value in os.environ.items() if name.startswith((PREFIX, PASSWORD_VARIABLE))}
    before = os.umask(0)
    try:
        done = run(["collect"], variables)
    finally:
        os.umask(before)
    assert done.returncode == 0, done.stderr
    left = [path for path in settings.home.rglob("*") if not path.is_symlink()]
    assert [path.suffix for path in left if path.suffix == ".err"] != []
    assert [path for path in (settings.home, *left) if is_open_to_others(path)] == []


@pytest.mark.usefixtures("orders")
def test_json_has_what_is_stored_of_the_day(whalefall: CommandLine, mariadb: MariadbFleetServer) -> None:
    register(whalefall.store, entry("maria", mariadb.target()))
    (total,) = whalefall("collect", "--json").json
    assert (total["instance"], total["db_type"], total["database_count"]) == ("maria", "mariadb", 1)
    assert (total["missing_count"], total["total_size_bytes"] > 0, total["log_size_bytes"] > 0) == (0, True, True)
    assert "MariaDB" in total["version"]


@pytest.mark.usefixtures("orders")
def test_only_the_named_instances_are_measured_and_only_they_decide_the_status(
    whalefall: CommandLine, postgresql: PostgresqlServer, mariadb: MariadbFleetServer
) -> None:
    register(whalefall.store, refusing("dead"), entry("pg", postgresql.target()), entry("maria", mariadb.target()))
    done = whalefall("collect", "--instance", "maria")
    assert (done.status, done.err) == (0, "")
    assert [name for name, *_ in rows(whalefall.store, STORED)] == ["maria"]
    assert whalefall("collect", "--instance", "maria", "--instance", "pg").status == 0
    assert [name for name, *_ in rows(whalefall.store, STORED)] == ["maria", "pg"]


@pytest.mark.usefixtures("orders")
def test_a_server_that_is_down_fails_the_command_and_loses_nobody_else(
    whalefall: CommandLine, mariadb: MariadbFleetServer
) -> None:
    register(whalefall.store, refusing("dead"), entry("maria", mariadb.target()))
    done = whalefall("collect", "--json")
    assert done.status == 1
    assert [total["instance"] for total in done.json] == ["maria"]
    assert "not measured:\ndead: connecting to 127.0.0.1:1 as nobody failed: " in done.err


@pytest.fixture
def half_seen(postgresql: PostgresqlServer) -> Iterator[Target]:
    """An account of the PostgreSQL server that may not connect to one of its databases, [red]."""
    with postgresql.database("[red]"), postgresql.connect() as cursor:
        cursor.execute('CREATE ROLE half LOGIN; REVOKE CONNECT ON DATABASE "[red]" FROM PUBLIC')
        yield postgresql.target(username="half")
        cursor.execute("DROP ROLE half")


def test_each_database_that_was_not_measured_is_named_with_its_reason(
    whalefall: CommandLine, half_seen: Target
) -> None:
    register(whalefall.store, entry("pg", half_seen))
    done = whalefall("collect")
    reason = "no CONNECT privilege and not a member of pg_read_all_stats"
    assert done.status == 0
    assert ["pg", "[red]", reason] in cells(done.out)
    (total,) = whalefall("collect", "--json").json
    assert (total["missing"], total["missing_not_named"], total["missing_count"]) == ({"[red]": reason}, 0, 1)
    ((run_id,), *_) = rows(whalefall.store, "SELECT run_id FROM task_runs")
    assert ["pg", "[red]", reason] in cells(whalefall("runs", "show", str(run_id)).out)


def test_sizes_that_leave_something_out_are_told_with_the_privilege_that_mends_it(
    whalefall: CommandLine, mariadb: MariadbFleetServer, orders: str
) -> None:
    only_files = (
        f"only InnoDB's files are counted in {orders}: the account does not see whether there are tables of other "
        "engines; it needs SHOW VIEW on all"
    )
    with account(mariadb, "PROCESS", "SHOW DATABASES") as target:
        register(whalefall.store, entry("maria", target))
        done = whalefall("collect")
        (total,) = whalefall("collect", "--json").json
    assert done.status == 0
    assert ["maria", only_files] in cells(done.out)
    assert total["caveats"] == [only_files]
    ((run_id,), *_) = rows(whalefall.store, "SELECT run_id FROM task_runs")
    assert ["maria", only_files] in cells(whalefall("runs", "show", str(run_id)).out)


def test_a_fleet_of_which_nobody_answers_fails(whalefall: CommandLine) -> None:
    register(whalefall.store, refusing("dead"), refusing("gone"))
    done = whalefall("collect")
    assert done.status == 1
    assert "none of 2 instances could be measured; the first: " in done.err
    assert rows(whalefall.store, STORED) == []


def test_a_fleet_of_nobody_is_no_failure(whalefall: CommandLine) -> None:
    done = whalefall("collect")
    assert (done.status, done.err) == (0, "")
    assert whalefall("collect", "--json").json == []


def test_an_unknown_or_disabled_instance_is_an_error_before_anyone_is_visited(whalefall: CommandLine) -> None:
    register(whalefall.store, refusing("shop"), refusing("gone"))
    register(whalefall.store, refusing("shop"))
    done = whalefall("collect", "--instance", "shop", "--instance", "gone", "--instance", "Shop")
    assert (done.status, done.out) == (1, "")
    assert done.err == "error: gone, Shop: not in the fleet; `whalefall-capacity fleet list` shows it\n"


def test_an_emptied_server_fails_until_it_is_confirmed(
    whalefall: CommandLine, mariadb: MariadbFleetServer, orders: str
) -> None:
    register(whalefall.store, entry("maria", mariadb.target()))
    assert whalefall("collect").status == 0
    with mariadb.connect() as cursor:
        cursor.execute(f"DROP DATABASE {orders}")
    refused = whalefall("collect")
    assert refused.status == 1
    assert "maria: inventory shrank from 1 to 0; nothing was changed. If the server really was emptied: " in refused.err
    assert "`whalefall-capacity collect --instance maria --accept-empty`" in refused.err
    assert rows(whalefall.store, STORED) == [("maria", True, 1)]
    assert whalefall("collect", "--instance", "maria", "--accept-empty").status == 0
    assert rows(whalefall.store, STORED) == [("maria", False, 0)]
    assert whalefall("collect").status == 0


def test_a_dagster_storage_that_cannot_be_opened_is_an_error_that_says_where_it_is(
    whalefall: CommandLine, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unreachable() -> None:
        raise ConnectionError("no route to host")

    monkeypatch.setattr(dg.DagsterInstance, "get", unreachable)
    done = whalefall("collect")
    assert (done.status, done.out) == (1, "")
    assert done.err == (
        "error: Dagster's storage cannot be opened: no route to host; WHALEFALL_DAGSTER_URL says where it is\n"
    )


def test_a_confirmation_of_the_whole_fleet_is_wrong_usage(whalefall: CommandLine) -> None:
    done = whalefall("collect", "--accept-empty")
    assert (done.status, done.out) == (2, "")
    assert "--accept-empty needs --instance" in done.err


@pytest.mark.real_clock
def test_the_day_is_the_one_of_the_configured_zone(whalefall: CommandLine, mariadb: MariadbFleetServer) -> None:
    register(whalefall.store, entry("maria", mariadb.target()))
    # In a process of its own: the definitions of this one may have been loaded with another zone.
    variables = {name: value for name, value in os.environ.items() if name.startswith(PREFIX)}
    done = run(["collect"], variables | {f"{PREFIX}TIMEZONE": "Pacific/Kiritimati"})
    assert done.returncode == 0, done.stderr
    now = "SELECT collected_date, CAST(now() AT TIME ZONE 'Pacific/Kiritimati' AS date) FROM instance_size_stats"
    ((stored, there),) = rows(whalefall.store, now)
    assert isinstance(stored, date)
    assert stored == there


def test_a_user_without_a_name_is_known_by_its_number(
    whalefall: CommandLine, postgresql: PostgresqlServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As in a container that is started with the number of a user."""

    def nameless() -> str:
        raise KeyError("getpwuid(): uid not found: 1234")

    monkeypatch.setattr(getpass, "getuser", nameless)
    register(whalefall.store, entry("pg", postgresql.target()))
    done = whalefall("collect")
    assert done.status == 0, done.err
    assert rows(whalefall.store, "SELECT created_by FROM task_runs") == [(str(os.getuid()),)]
