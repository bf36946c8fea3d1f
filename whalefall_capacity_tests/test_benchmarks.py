"""Every benchmark runs, at a small size; what it prints is for people."""

from __future__ import annotations

import pytest

from benchmarks import aggregation, archive, backfill, console, fleet, idle, latency, mirror, writing


@pytest.mark.slow
def test_writing_prints_both_sides(capsys: pytest.CaptureFixture[str]) -> None:
    writing.run(0.01)
    assert "10 x 50" in capsys.readouterr().out


@pytest.mark.slow
def test_fleet_prints_both_sides(capsys: pytest.CaptureFixture[str]) -> None:
    fleet.run(0.01)
    assert "visiting 10 instances" in capsys.readouterr().out


@pytest.mark.slow
def test_aggregation_prints_both_sides(capsys: pytest.CaptureFixture[str]) -> None:
    aggregation.run(0.002)
    printed = capsys.readouterr().out
    assert "one window, 2 instances" in printed
    assert "top 50 growers" in printed


@pytest.mark.slow
def test_backfill_prints_both_sides(capsys: pytest.CaptureFixture[str]) -> None:
    backfill.run(0.01)
    assert "all eight" in capsys.readouterr().out


@pytest.mark.slow
def test_mirror_prints_both_sides(capsys: pytest.CaptureFixture[str]) -> None:
    mirror.run(0.01)
    assert "the mirror, 10 instances" in capsys.readouterr().out


@pytest.mark.slow
def test_archive_prints_both_sides_and_that_nothing_was_changed(capsys: pytest.CaptureFixture[str]) -> None:
    archive.run(0.01)
    printed = capsys.readouterr().out
    assert "a month of 15,000 rows" in printed
    assert "identical: True" in printed


@pytest.mark.slow
def test_idle_prints_every_process_and_what_the_storage_grows_by(capsys: pytest.CaptureFixture[str]) -> None:
    idle.run(0.05)
    printed = capsys.readouterr().out
    for process in ("daemon", "code server", "webserver", "PostgreSQL"):
        assert process in printed
    assert "growth beside them" in printed


@pytest.mark.slow
def test_latency_prints_both_chains(capsys: pytest.CaptureFixture[str]) -> None:
    latency.run(0.01)
    printed = capsys.readouterr().out
    assert "the pipeline" in printed
    assert "the same runs with empty bodies" in printed


@pytest.mark.slow
def test_console_prints_both_sides(capsys: pytest.CaptureFixture[str]) -> None:
    console.run(0.002)
    assert "20 users at once, 2 instances" in capsys.readouterr().out
