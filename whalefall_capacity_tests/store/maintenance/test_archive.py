"""An archive is the child, byte for byte, and is only called one when it was read back and is the same."""

from __future__ import annotations

import json
import os
import stat
from datetime import date
from pathlib import Path

import pytest
from psycopg2 import sql
from sqlalchemy import Engine, text

from whalefall_capacity.errors import StoreError
from whalefall_capacity.store.maintenance import archive
from whalefall_capacity.store.maintenance.archive import Manifest, load_archive, read_manifest, write_archive
from whalefall_capacity.store.maintenance.plan import PlannedDrop
from whalefall_capacity.store.postgres.copying import copy_rows
from whalefall_capacity_tests.store.maintenance.upkeep import JANUARY, calculate, put_month
from whalefall_capacity_tests.store.past import put_sizes
from whalefall_capacity_tests.store.records import rows

FEBRUARY = date(2025, 2, 1)
HUGE = "12345678901234567890123456789012345678901234567890.10"
NAMES = (
    "shop",
    "",
    '"quoted", with a comma',
    "line\nbreak",
    "return\rhere",
    "both\r\n",
    "库",
    "\\N",
    "tab\t",
    " ",
    "NULL",
    "é" * 60,
)


def written(store: Engine, folder: Path, table: str = "database_size_stats", child: str | None = None) -> Manifest:
    """Archive the child of January 2025."""
    child = child or f"{table}_2025_01"
    ((oid,),) = rows(store, "SELECT CAST(to_regclass(:name)::oid AS bigint)", name=child)
    drop = PlannedDrop(table, child, oid, JANUARY, FEBRUARY, rows=None, bytes=0, reason="past")
    return write_archive(store, folder, drop, sql.Identifier(child))


def texts(store: Engine, table: str) -> list[str]:
    """Return the text of every row, in order."""
    return sorted(row for (row,) in rows(store, f"SELECT t::text FROM {table} AS t"))


def loaded(store: Engine, manifest: Manifest, like: str) -> list[str]:
    """Load an archive into a new table and return the text of its rows."""
    with store.begin() as connection:
        connection.execute(text(f"CREATE TABLE loaded (LIKE {like})"))
        load_archive(connection, manifest, sql.Identifier("loaded"))
    return texts(store, "loaded")


def test_rows_come_back_byte_for_byte(store: Engine, tmp_path: Path) -> None:
    put_sizes(store, [(1, name, JANUARY, n * 10**17, n, None) for n, name in enumerate(NAMES)])
    change = "UPDATE database_size_stats SET {} WHERE database_name = :name"
    with store.begin() as connection:
        for name, values in {
            "shop": "created_at = 'epoch'",
            "": "updated_at = '1969-12-31 23:59:59.999999+00'",
            " ": "collected_at = '2025-03-30 02:30:00.000001+02'",
            "库": "log_size_bytes = 9223372036854775807",
        }.items():
            connection.execute(text(change.format(values)), {"name": name})
    before = texts(store, "database_size_stats")
    manifest = written(store, tmp_path)
    assert manifest.rows == len(NAMES)
    assert loaded(store, manifest, "database_size_stats") == before


def test_sums_without_limit_keep_every_digit(store: Engine, tmp_path: Path) -> None:
    put_month(store, JANUARY)
    calculate(store, [JANUARY])
    change = "UPDATE database_size_aggregations SET sum_size_bytes = CAST(:sum AS numeric) WHERE database_name = 'crm'"
    with store.begin() as connection:
        connection.execute(text(change), {"sum": HUGE})
    child = "database_size_aggregations_daily_2025_01"
    before = texts(store, child)
    manifest = written(store, tmp_path, "database_size_aggregations_daily", child)
    assert any(HUGE in row for row in before)
    assert loaded(store, manifest, child) == before


def test_a_child_of_many_stretches_is_whole(store: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archive, "PAGES", 3)
    monkeypatch.setattr(archive, "BATCH_ROWS", 500)
    put_sizes(store, [(1, f"d{n}", JANUARY, n) for n in range(3000)])
    with store.begin() as connection:
        connection.execute(text("DELETE FROM database_size_stats WHERE size_bytes BETWEEN 500 AND 1500"))
    before = texts(store, "database_size_stats")
    assert loaded(store, written(store, tmp_path), "database_size_stats") == before


def test_an_empty_child_has_an_archive_too(store: Engine, tmp_path: Path) -> None:
    put_month(store, JANUARY)
    with store.begin() as connection:
        connection.execute(text("DELETE FROM database_size_stats"))
    manifest = written(store, tmp_path)
    assert manifest.rows == 0
    assert loaded(store, manifest, "database_size_stats") == []


def test_an_archive_is_its_owners_alone_whatever_the_umask(store: Engine, tmp_path: Path) -> None:
    put_month(store, JANUARY)
    before = os.umask(0)
    try:
        manifest = written(store, tmp_path / "made" / "archive")
    finally:
        os.umask(before)
    made = [manifest.path.parent.parent, manifest.path.parent, manifest.path, manifest.path.with_suffix(".parquet")]
    assert [stat.S_IMODE(path.stat().st_mode) for path in made] == [0o700, 0o700, 0o600, 0o600]


def test_the_manifest_says_what_there_is(store: Engine, tmp_path: Path) -> None:
    put_month(store, JANUARY)
    manifest = written(store, tmp_path)
    content = json.loads(manifest.path.read_text())
    assert (content["table"], content["child"]) == ("database_size_stats", "database_size_stats_2025_01")
    assert (content["lower"], content["upper"], content["rows"]) == ("2025-01-01", "2025-02-01", 20)
    assert content["columns"][2] == ["collected_date", "date"]
    assert (tmp_path / content["file"]).stat().st_size == content["file_bytes"]
    assert sorted(path.name for path in tmp_path.iterdir()) == [manifest.path.name, content["file"]]
    assert read_manifest(manifest.path) == manifest
    assert read_manifest(tmp_path / content["file"]) == manifest


def test_the_same_rows_are_archived_once_and_others_never_overwrite_them(store: Engine, tmp_path: Path) -> None:
    put_month(store, JANUARY)
    first = written(store, tmp_path)
    assert written(store, tmp_path) == first
    put_sizes(store, [(1, "shop", JANUARY, 5)])
    second = written(store, tmp_path)
    assert second.file != first.file
    assert len(list(tmp_path.glob("*.parquet"))) == 2


def test_what_cannot_be_read_back_the_same_is_no_archive(
    store: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put_month(store, JANUARY)
    monkeypatch.setattr(
        archive, "COPY_PAGES", sql.SQL(archive.COPY_PAGES.string.replace("ctid >= ", "size_bytes <> 107 AND ctid >= "))
    )
    with pytest.raises(StoreError, match=r"says 20 rows .* but reading its file gives 18"):
        written(store, tmp_path)
    assert list(tmp_path.glob("*.json")) == []


@pytest.mark.parametrize("suffix", [".parquet", ".json"])
def test_a_damaged_archive_is_refused(store: Engine, tmp_path: Path, suffix: str) -> None:
    put_month(store, JANUARY)
    manifest = written(store, tmp_path)
    path = manifest.path.with_suffix(suffix)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(StoreError, match=r"is damaged|is no manifest|is not there|reading its file gives|does not fit"):
        loaded(store, read_manifest(manifest.path), "database_size_stats")


@pytest.mark.parametrize("suffix", [".parquet", ".json"])
def test_half_an_archive_is_none(store: Engine, tmp_path: Path, suffix: str) -> None:
    put_month(store, JANUARY)
    manifest = written(store, tmp_path)
    manifest.path.with_suffix(suffix).unlink()
    with pytest.raises(StoreError, match=r"is not there: an archive is a .parquet file and the .json beside it"):
        read_manifest(manifest.path)


def test_a_manifest_of_another_version_is_refused(store: Engine, tmp_path: Path) -> None:
    put_month(store, JANUARY)
    manifest = written(store, tmp_path)
    manifest.path.write_text(manifest.path.read_text().replace('"version": 1', '"version": 2'))
    with pytest.raises(StoreError, match="is of version 2, this program reads version 1"):
        read_manifest(manifest.path)


def test_something_else_is_no_manifest(tmp_path: Path) -> None:
    path = tmp_path / "other.json"
    path.write_text('{"name": "other"}')
    with pytest.raises(StoreError, match="is no manifest of an archive"):
        read_manifest(path)


def test_a_checksum_knows_no_order_and_every_byte(store: Engine) -> None:
    with store.begin() as connection:
        for name, values in {"a": [(1, "x"), (2, "y")], "b": [(2, "y"), (1, "x")], "c": [(1, "x"), (2, "Y")]}.items():
            connection.execute(text(f"CREATE TABLE {name} (n integer, t text)"))
            copy_rows(connection, name, ("n", "t"), values)
        a, b, c = (archive.checksum_of(connection, sql.Identifier(name), ["n", "t"]) for name in "abc")
    assert a == b
    assert a[0] == c[0] == 2
    assert a[1] != c[1]
