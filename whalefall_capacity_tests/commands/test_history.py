"""`whalefall-capacity history import`: a file goes in whole or not at all, and its days show up in Dagster."""

from __future__ import annotations

import gzip
import os
from datetime import date
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
import sqlalchemy

from whalefall_capacity.asset_keys import DATABASE_SIZE_STATS, INSTANCE_SIZE_STATS
from whalefall_capacity.settings import PREFIX
from whalefall_capacity_tests.commands.conftest import CommandLine
from whalefall_capacity_tests.registry import refusing, register
from whalefall_capacity_tests.store.records import children, row_versions, rows

HEADER = "instance,database,date,size_bytes\n"


@pytest.fixture
def shop(whalefall: CommandLine) -> CommandLine:
    register(whalefall.store, refusing("shop"))
    return whalefall


def reported(day: str) -> dict[dg.AssetKey, Any]:
    """Return the metadata of the latest materialization of each stats asset for *day*."""
    found = {}
    with dg.DagsterInstance.get() as instance:
        for key in (DATABASE_SIZE_STATS, INSTANCE_SIZE_STATS):
            records = instance.fetch_materializations(
                dg.AssetRecordsFilter(asset_key=key, asset_partitions=[day]), limit=1
            ).records
            if records and records[0].asset_materialization is not None:
                found[key] = {name: value.value for name, value in records[0].asset_materialization.metadata.items()}
    return found


def test_the_days_of_an_import_become_materialized_partitions(shop: CommandLine) -> None:
    file = shop.write("sizes.csv", HEADER + "shop,orders,2025-05-05,100\nshop,users,2025-05-05,50\n")
    done = shop("history", "import", file)
    assert (done.status, done.err) == (0, "")
    assert done.out == "wrote 2 of 2 rows on 1 days; 0 unchanged, 0 measured rows kept\n"
    metadata = reported("2025-05-05")
    assert metadata.keys() == {DATABASE_SIZE_STATS, INSTANCE_SIZE_STATS}
    assert metadata[DATABASE_SIZE_STATS]["total_size_bytes"] == 150
    assert metadata[DATABASE_SIZE_STATS]["dagster/partition_row_count"] == 2
    assert metadata[INSTANCE_SIZE_STATS]["instances"] == 1
    assert metadata[INSTANCE_SIZE_STATS]["measured_now"] is False


def test_a_file_may_be_in_another_unit_and_say_when_it_was_measured(shop: CommandLine) -> None:
    content = "instance,database,date,size_bytes,collected_at\nshop,orders,2025-05-05,3,2025-05-05T03:00:00+08:00\n"
    done = shop("history", "import", shop.write("sizes.csv", content), "--unit", "MiB")
    assert (done.status, done.err) == (0, "")
    assert rows(
        shop.store, "SELECT size_bytes, CAST(collected_at AT TIME ZONE 'UTC' AS text) FROM database_size_stats"
    ) == [(3_145_728, "2025-05-04 19:00:00")]
    wrong = shop("history", "import", "sizes.csv", "--unit", "MB")
    assert wrong.status == 2
    assert "'MB'" in wrong.err


def test_a_name_does_nothing_to_the_terminal_and_is_no_markup(shop: CommandLine) -> None:
    file = shop.write("sizes.csv", f"{HEADER}\x1b[31m[/red]\u202e,orders,2025-05-05,100\n")
    done = shop("history", "import", file, "--create-instances")
    assert (done.status, done.err) == (0, "")
    assert done.out.splitlines()[1] == "registered as inactive: \\x1b[31m[/red]\\u202e"


@pytest.mark.parametrize(
    ("name", "content", "place"),
    [
        ("semicolons.csv", HEADER.replace(",", ";").encode(), "line 1: its columns are separated by semicolons"),
        ("cut.csv.gz", gzip.compress(HEADER.encode(), mtime=0)[:-8], "line 2: the compressed data ends here"),
        ("plain.csv.gz", HEADER.encode(), "its name says gzip, its content is not compressed"),
        ("plain.csv.xz", HEADER.encode(), "its name says xz, its content is not compressed"),
        (
            "latin.csv.gz",
            gzip.compress(HEADER.encode() + b"shop,caf\xe9,2025-05-05,1\n", mtime=0),
            "line 2: not UTF-8: invalid",
        ),
        ("CUT.PARQUET", b"PAR1", "cannot be read: "),
        ("empty.parquet", b"", "cannot be read: "),
    ],
    ids=["semicolons", "cut gzip", "no gzip", "no xz", "latin in gzip", "cut Parquet", "empty Parquet"],
)
def test_a_file_that_cannot_be_read_is_one_line_that_says_why_and_nothing_is_written(
    shop: CommandLine, tmp_path: Path, name: str, content: bytes, place: str
) -> None:
    (tmp_path / name).write_bytes(content)
    failed = shop("history", "import", tmp_path / name)
    assert (failed.status, failed.out) == (1, "")
    assert failed.err.startswith(f"error: {tmp_path / name}: {place}")
    assert failed.err.endswith("; nothing was written\n")
    assert failed.err.count("\n") == 1
    assert rows(shop.store, "SELECT count(*) FROM database_size_stats") == [(0,)]


def test_json_counts_what_happened(shop: CommandLine) -> None:
    file = shop.write("sizes.csv", HEADER + "shop,orders,2025-05-06,100\nbank,ledger,2025-05-07,7\n")
    done = shop("history", "import", file, "--json", "--create-instances")
    assert done.status == 0
    assert done.json == {
        "rows": 2,
        "written": 2,
        "kept_measured": 0,
        "created_instances": ["bank"],
        "changed_days": ["2025-05-06", "2025-05-07"],
    }
    again = shop("history", "import", file, "--json")
    assert (again.status, again.json["written"], again.json["changed_days"]) == (0, 0, [])


def test_a_dry_run_says_what_would_happen_and_leaves_nothing(shop: CommandLine) -> None:
    shop("fleet", "list")
    before, parents = row_versions(shop.store), children(shop.store)
    file = shop.write("sizes.csv", HEADER + "shop,orders,2025-05-08,100\nbank,ledger,2025-05-08,7\n")
    done = shop("history", "import", file, "--create-instances", "--dry-run")
    assert (done.status, done.err) == (0, "")
    assert done.out.splitlines() == [
        "would write 2 of 2 rows on 1 days; 0 unchanged, 0 measured rows kept",
        "would register as inactive: bank",
    ]
    assert row_versions(shop.store) == before
    assert children(shop.store) == parents
    assert reported("2025-05-08") == {}


def test_a_file_with_bad_rows_is_refused_with_their_lines(shop: CommandLine) -> None:
    before = row_versions(shop.store)
    file = shop.write("sizes.csv", HEADER + "shop,orders,2025-05-09,100\nshop,users,2025-05-09,-1\n")
    done = shop("history", "import", file)
    assert (done.status, done.out) == (1, "")
    assert done.err.splitlines() == [
        f"error: {file}: line 3: size_bytes: '-1': must be a whole number of bytes from 0 to 9007199254740991",
        "nothing was written",
    ]
    assert row_versions(shop.store) == before


@pytest.mark.parametrize(("start_date", "status"), [("2025-05-10", 0), ("2025-05-11", 1)])
def test_the_start_date_is_the_oldest_day(shop: CommandLine, start_date: str, status: int) -> None:
    os.environ[f"{PREFIX}START_DATE"] = start_date
    file = shop.write("sizes.csv", HEADER + "shop,orders,2025-05-10,100\n")
    assert shop("history", "import", file).status == status


def test_tomorrow_cannot_be_imported(shop: CommandLine) -> None:
    file = shop.write("sizes.csv", HEADER + f"shop,orders,{date(2999, 1, 1)},100\n")
    done = shop("history", "import", file)
    assert done.status == 1
    assert "(today)" in done.err


def test_an_unknown_instance_is_an_error(shop: CommandLine) -> None:
    done = shop("history", "import", shop.write("sizes.csv", HEADER + "bank,ledger,2025-05-11,7\n"))
    assert (done.status, done.out) == (1, "")
    assert "instances bank are not registered" in done.err
    assert "--create-instances" in done.err


def test_measured_rows_are_kept_unless_they_are_to_be_replaced(shop: CommandLine) -> None:
    file = shop.write("sizes.csv", HEADER + "shop,orders,2025-05-12,100\n")
    shop("history", "import", file)
    with shop.store.begin() as connection:
        connection.execute(sqlalchemy.text("UPDATE database_size_stats SET source = 'measured'"))
    shop.write("sizes.csv", HEADER + "shop,orders,2025-05-12,999\n")
    kept = shop("history", "import", file)
    assert kept.out == "wrote 0 of 1 rows on 0 days; 0 unchanged, 1 measured rows kept\n"
    replaced = shop("history", "import", file, "--replace")
    assert replaced.out == "wrote 1 of 1 rows on 1 days; 0 unchanged, 0 measured rows kept\n"
    assert rows(shop.store, "SELECT size_bytes, source FROM database_size_stats") == [(999, "imported")]


def test_a_file_that_is_not_there_is_wrong_usage(whalefall: CommandLine) -> None:
    assert whalefall("history", "import", "absent.csv").status == 2


def test_when_dagster_cannot_be_told_the_error_says_that_the_rows_are_there_and_what_to_do(
    shop: CommandLine, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unreachable() -> None:
        raise ConnectionError("no route to host")

    monkeypatch.setattr(dg.DagsterInstance, "get", unreachable)
    file = shop.write("sizes.csv", HEADER + "shop,orders,2025-05-13,100\nshop,orders,2025-05-14,100\n")
    done = shop("history", "import", file)
    assert (done.status, done.out) == (1, "")
    assert done.err == (
        "error: the rows are written, but could not be reported to Dagster's storage: no route to host; once it can be "
        "reached, run the same command again: it reports what is missing\n"
    )
    assert rows(shop.store, "SELECT count(*) FROM database_size_stats") == [(2,)]
