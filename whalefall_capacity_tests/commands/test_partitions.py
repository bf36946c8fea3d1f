"""`whalefall-capacity partitions`: a plan is the same before and after, or is refused; restore is one command."""

from __future__ import annotations

from datetime import date
from pathlib import Path

import pytest

from whalefall_capacity.periods import add_months, month_start
from whalefall_capacity.settings import load_settings
from whalefall_capacity.store.postgres.locks import maintenance_lock
from whalefall_capacity.store.postgres.schema import require_current
from whalefall_capacity.store.table_partitions.create import create_ahead
from whalefall_capacity_tests.clock import today
from whalefall_capacity_tests.commands.conftest import CommandLine
from whalefall_capacity_tests.store.maintenance.upkeep import stats
from whalefall_capacity_tests.store.past import put_sizes
from whalefall_capacity_tests.store.postgres.downgrade import downgrade
from whalefall_capacity_tests.store.records import children


def long_ago() -> date:
    """Return the first day of a month that is past under every retention."""
    return add_months(month_start(today()), -20)


def old_children() -> list[str]:
    return [f"{table}_{long_ago():%Y_%m}" for table in ("database_size_stats", "instance_size_stats")]


@pytest.fixture(autouse=True)
def archive(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.setenv("WHALEFALL_ARCHIVE_DIR", str(tmp_path / "archive"))
    monkeypatch.setenv("WHALEFALL_RETENTION_DAILY_MONTHS", "60")
    return tmp_path / "archive"


def put_old(whalefall: CommandLine, month: date | None = None) -> None:
    put_sizes(whalefall.store, [(1, "shop", month or long_ago(), 100)])


def test_a_plan_says_what_would_go_and_changes_nothing(whalefall: CommandLine) -> None:
    put_old(whalefall)
    done = whalefall("partitions", "plan")
    assert done.status == 0
    assert all(child in done.out for child in old_children())
    assert "13 months ago" in done.out
    assert children(whalefall.store) == old_children()


def test_plan_and_apply_print_the_same_plan_with_the_same_id(whalefall: CommandLine) -> None:
    put_old(whalefall)
    plan = whalefall("partitions", "plan").out
    done = whalefall("partitions", "apply")
    assert done.status == 0, done.err
    assert done.out.startswith(plan)
    assert old_children()[0] not in children(whalefall.store)
    assert "dropped" in done.out.removeprefix(plan)


def test_json_has_the_plan_and_what_became_of_every_child(whalefall: CommandLine) -> None:
    put_old(whalefall)
    plan = whalefall("partitions", "plan", "--json").json
    assert [drop["child"] for drop in plan["drops"]] == old_children()
    assert (plan["question"], plan["kept"], plan["waiting"]) == (None, [], [])
    done = whalefall("partitions", "apply", "--plan", plan["plan_id"], "--json").json
    assert done["plan_id"] == plan["plan_id"]
    ends = {outcome["child"]: (outcome["outcome"], outcome["rows"]) for outcome in done["outcomes"]}
    assert [ends[child] for child in old_children()] == [("dropped", 1), ("dropped", 1)]
    assert ends[f"database_size_stats_{today():%Y_%m}"] == ("created", None)


def test_a_plan_that_no_longer_holds_is_refused_and_nothing_changes(whalefall: CommandLine) -> None:
    put_old(whalefall)
    plan_id = whalefall("partitions", "plan", "--json").json["plan_id"]
    put_old(whalefall, add_months(long_ago(), 1))
    before = children(whalefall.store)
    done = whalefall("partitions", "apply", "--plan", plan_id)
    assert done.status == 1
    assert f"error: the plan {plan_id} no longer holds, it is " in done.err
    assert "nothing was changed" in done.err
    assert children(whalefall.store) == before


def test_another_archive_folder_is_another_plan(whalefall: CommandLine, monkeypatch: pytest.MonkeyPatch) -> None:
    put_old(whalefall)
    plan_id = whalefall("partitions", "plan", "--json").json["plan_id"]
    monkeypatch.delenv("WHALEFALL_ARCHIVE_DIR")
    assert whalefall("partitions", "apply", "--plan", plan_id).status == 1
    assert children(whalefall.store) == old_children()


def test_far_more_than_last_time_is_asked_for(whalefall: CommandLine) -> None:
    for months in range(7):
        put_old(whalefall, add_months(long_ago(), -months))
    before = children(whalefall.store)
    for answer in ("", "n\n"):
        done = whalefall("partitions", "apply", stdin=answer)
        assert done.status == 1
        assert "14 table partitions would be dropped (0 last time)" in done.err
        assert children(whalefall.store) == before
    assert whalefall("partitions", "apply", "--yes").status == 0
    assert old_children()[0] not in children(whalefall.store)


def test_nothing_to_do_is_no_failure(whalefall: CommandLine) -> None:
    create_ahead(whalefall.store, load_settings(), today())
    done = whalefall("partitions", "apply", "--json")
    assert done.status == 0
    assert {outcome["outcome"] for outcome in done.json["outcomes"]} == {"exists"}


def test_a_child_that_fails_fails_the_command(whalefall: CommandLine, archive: Path) -> None:
    put_old(whalefall)
    archive.write_text("a file where a folder should be")
    done = whalefall("partitions", "apply")
    assert done.status == 1
    archive.unlink()
    assert whalefall("partitions", "apply").status == 0


def test_status_shows_every_child_and_the_health_of_every_table(whalefall: CommandLine) -> None:
    put_old(whalefall)
    done = whalefall("partitions", "status")
    assert done.status == 1
    assert "missing" in done.out
    assert whalefall("partitions", "apply").status == 0
    done = whalefall("partitions", "status")
    assert done.status == 0
    assert "current" in done.out
    assert "missing" not in done.out
    exact = whalefall("partitions", "status", "--exact", "--json").json
    assert exact["healthy"] is True
    assert {child["rows_exact"] for child in exact["children"]} == {True}
    (this_month,) = [c for c in exact["children"] if c["child"] == f"database_size_stats_{today():%Y_%m}"]
    assert (this_month["state"], this_month["rows"]) == ("current", 0)


def test_an_archive_is_restored_by_one_command(whalefall: CommandLine, archive: Path) -> None:
    put_old(whalefall)
    before = stats(whalefall.store)
    assert whalefall("partitions", "apply").status == 0
    assert stats(whalefall.store) == []
    for child in old_children():
        (file,) = archive.glob(f"{child}-*.parquet")
        done = whalefall("partitions", "restore", file, "--keep-days", "3")
        assert done.status == 0, done.err
        assert f"restored 1 rows into {child}, kept until " in done.out
    assert stats(whalefall.store) == before
    assert "was restored, and is kept until" in whalefall("partitions", "plan").out


def test_a_file_that_is_no_archive_is_refused(whalefall: CommandLine) -> None:
    done = whalefall("partitions", "restore", whalefall.write("notes.json", "{}"))
    assert done.status == 1
    assert "is no manifest of an archive" in done.err


def test_a_restore_beside_a_maintenance_is_told_so(whalefall: CommandLine, monkeypatch: pytest.MonkeyPatch) -> None:
    real = maintenance_lock
    monkeypatch.setattr("whalefall_capacity.commands.partitions.maintenance_lock", lambda engine: real(engine, 0.1))
    with maintenance_lock(whalefall.store):
        done = whalefall("partitions", "restore", whalefall.write("notes.json", "{}"))
    assert done.status == 1
    assert "another maintenance of the table partitions, or a restore, is under way" in done.err


def test_a_store_of_an_older_version_of_the_program_is_brought_to_this_one(whalefall: CommandLine) -> None:
    downgrade(whalefall.store, "0009")
    done = whalefall("partitions", "plan")
    assert (done.status, done.err) == (0, "")
    require_current(whalefall.store)
