"""The summary of a task run, to the letter: what the run centre parses."""

from __future__ import annotations

import json
import subprocess
import sys
from datetime import date
from typing import Any

import pytest
from pydantic import ValidationError

from whalefall_capacity.settings import PROJECT_ROOT
from whalefall_capacity.store.task_runs.summary import (
    Common,
    Day,
    Extension,
    Flags,
    Metric,
    Scope,
    TaskSummary,
)
from whalefall_capacity_tests.summaries import SCHEMA_FILE, problems_of

LEAST = TaskSummary(ext=Extension(type="sync_databases"))
FULL = TaskSummary(
    common=Common(
        inputs={"first": "2026-06-22", "last": "2026-06-22"},
        scope=Scope(time=Day(timezone="Asia/Shanghai", date=date(2026, 6, 22)), target={"instance_ids": [1, 2]}),
        metrics=[
            Metric(key="total_size_bytes", label="Total size", value=2**40, unit="bytes"),
            Metric(key="instances_failed", label="Not measured", value=1, tone="danger"),
            Metric(key="databases", label="Databases measured", value=7),
        ],
        highlights=["one server was away"],
        flags=Flags(skipped=False),
    ),
    ext=Extension(type="sync_databases", data={"seconds": 1.5}),
)
PLACES: list[tuple[str, ...]] = [
    (),
    ("common",),
    ("common", "scope"),
    ("common", "scope", "time"),
    ("common", "metrics", "0"),
    ("common", "flags"),
    ("ext",),
]


def written(summary: TaskSummary) -> Any:
    return json.loads(summary.model_dump_json())


def place(content: Any, path: tuple[str, ...]) -> Any:
    """Return what is at *path* of a parsed summary."""
    for name in path:
        content = content[int(name)] if name.isdigit() else content[name]
    return content


def test_the_least_that_is_written_is_the_whole_envelope() -> None:
    assert LEAST.model_dump_json() == (
        '{"version":1,"common":{"inputs":{},"scope":{"time":null,"target":{}},"metrics":[],"highlights":[],'
        '"flags":{"skipped":false,"skip_reason":null}},"ext":{"type":"sync_databases","version":1,"data":{}}}'
    )


def test_a_full_summary_has_its_day_as_iso_text_and_leaves_empty_units_and_tones_out() -> None:
    assert written(FULL) == {
        "version": 1,
        "common": {
            "inputs": {"first": "2026-06-22", "last": "2026-06-22"},
            "scope": {
                "time": {"type": "date", "timezone": "Asia/Shanghai", "date": "2026-06-22"},
                "target": {"instance_ids": [1, 2]},
            },
            "metrics": [
                {"key": "total_size_bytes", "label": "Total size", "value": 1099511627776, "unit": "bytes"},
                {"key": "instances_failed", "label": "Not measured", "value": 1, "tone": "danger"},
                {"key": "databases", "label": "Databases measured", "value": 7},
            ],
            "highlights": ["one server was away"],
            "flags": {"skipped": False, "skip_reason": None},
        },
        "ext": {"type": "sync_databases", "version": 1, "data": {"seconds": 1.5}},
    }


@pytest.mark.parametrize("summary", [LEAST, FULL, FULL.as_skipped("nobody is active")])
def test_what_is_written_is_read_back_as_the_same(summary: TaskSummary) -> None:
    assert TaskSummary.model_validate_json(summary.model_dump_json()) == summary


@pytest.mark.parametrize("path", PLACES, ids=".".join)
def test_no_other_key_is_taken_at_any_level(path: tuple[str, ...]) -> None:
    content = written(FULL)
    place(content, path)["other"] = 1
    with pytest.raises(ValidationError, match="Extra inputs are not permitted"):
        TaskSummary.model_validate(content)


@pytest.mark.parametrize("value", [0, 2**63 - 1, 1.5, "12 of 13", None])
def test_the_value_of_a_metric_stays_what_it_is(value: float | str | None) -> None:
    assert written(LEAST.with_metrics(Metric(key="k", label="K", value=value)))["common"]["metrics"] == [
        {"key": "k", "label": "K", "value": value}
    ]


def test_a_metric_replaces_the_one_of_its_key_in_its_place_and_a_new_one_comes_last() -> None:
    summary = LEAST.with_metrics(Metric(key="a", label="A", value=1), Metric(key="b", label="B", value=2))
    changed = summary.with_metrics(Metric(key="c", label="C", value=3), Metric(key="a", label="A", value=4))
    assert [(metric.key, metric.value) for metric in changed.common.metrics] == [("a", 4), ("b", 2), ("c", 3)]
    assert [(metric.key, metric.value) for metric in summary.common.metrics] == [("a", 1), ("b", 2)]


def test_a_highlight_is_said_once() -> None:
    summary = LEAST.with_highlight("first").with_highlight("second").with_highlight("first")
    assert summary.common.highlights == ["first", "second"]
    assert LEAST.common.highlights == []


def test_a_skipped_run_says_why() -> None:
    summary = FULL.as_skipped("there was nothing to do")
    assert written(summary)["common"]["flags"] == {"skipped": True, "skip_reason": "there was nothing to do"}
    assert summary.common.metrics == FULL.common.metrics
    assert not FULL.common.flags.skipped


# The exported schema


def test_the_exported_schema_is_what_the_model_says() -> None:
    script = PROJECT_ROOT / "scripts" / "task_run_schema.py"
    printed = subprocess.run([sys.executable, script], capture_output=True, check=True).stdout
    assert SCHEMA_FILE.read_bytes() == printed


@pytest.mark.parametrize("summary", [LEAST, FULL, FULL.as_skipped("nobody is active")])
def test_the_exported_schema_takes_what_is_written(summary: TaskSummary) -> None:
    assert list(problems_of(written(summary), "sync_databases")) == []


@pytest.mark.parametrize("path", PLACES, ids=".".join)
def test_the_exported_schema_refuses_other_keys_at_every_level(path: tuple[str, ...]) -> None:
    content = written(FULL)
    place(content, path)["other"] = 1
    (problem,) = problems_of(content, "sync_databases")
    assert "'other'" in problem


@pytest.mark.parametrize("path", PLACES, ids=".".join)
def test_the_exported_schema_misses_every_key_that_is_always_written(path: tuple[str, ...]) -> None:
    for name in place(written(FULL), path):
        if name != "unit":
            content = written(FULL)
            del place(content, path)[name]
            assert list(problems_of(content, "sync_databases")), name


@pytest.mark.parametrize(
    ("path", "name", "value"),
    [
        ((), "version", 2),
        (("common",), "highlights", [1]),
        (("common", "scope", "time"), "type", "range"),
        (("common", "scope", "time"), "date", "22 June 2026"),
        (("common", "metrics", "0"), "unit", ""),
        (("common", "metrics", "1"), "tone", ""),
        (("common", "metrics", "1"), "tone", "red"),
        (("common", "metrics", "2"), "value", [1]),
        (("common", "flags"), "skipped", "no"),
        (("ext",), "type", "other"),
        (("ext",), "data", None),
    ],
)
def test_the_exported_schema_refuses_other_values(path: tuple[str, ...], name: str, value: Any) -> None:
    content = written(FULL)
    place(content, path)[name] = value
    (problem,) = problems_of(content, "sync_databases")
    assert name in problem
