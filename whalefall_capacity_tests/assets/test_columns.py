"""Columns as the UI shows them: a meaning for each, and the column of the stats behind it."""

from __future__ import annotations

import dagster as dg
import pytest

from whalefall_capacity.assets.aggregations import AGGREGATIONS
from whalefall_capacity.assets.columns import column_lineage, column_schema
from whalefall_capacity.assets.stats import size_stats
from whalefall_capacity.store.aggregations.statements import TABLES, Level


@pytest.mark.parametrize(
    "table",
    [table for level in Level for table in (TABLES[level].stats, TABLES[level].aggregations)],
    ids=lambda table: table.name,
)
def test_every_column_has_a_type_and_a_meaning(table: object) -> None:
    columns = column_schema(table).columns  # type: ignore[arg-type]
    assert all(column.description for column in columns)
    assert {column.type for column in columns} <= {"integer", "bigint", "numeric", "text", "date", "timestamptz"}


def test_a_column_that_may_be_unknown_says_so() -> None:
    columns = {column.name: column for column in column_schema(TABLES[Level.DATABASE].aggregations).columns}
    assert columns["sum_size_bytes"].description == "size, sum over the days, in bytes"
    assert (columns["sum_size_bytes"].constraints.nullable, columns["sum_log_size_bytes"].constraints.nullable) == (
        False,
        True,
    )


@pytest.mark.parametrize(
    ("level", "column", "source"),
    [
        (Level.DATABASE, "database_name", "database_name"),
        (Level.DATABASE, "data_count", "collected_date"),
        (Level.DATABASE, "closing_size_bytes", "size_bytes"),
        (Level.DATABASE, "max_data_size_bytes", "data_size_bytes"),
        (Level.DATABASE, "log_size_count", "log_size_bytes"),
        (Level.INSTANCE, "sum_size_bytes", "total_size_bytes"),
        (Level.INSTANCE, "min_database_count", "database_count"),
        (Level.INSTANCE, "partial_days", "missing_count"),
    ],
)
def test_a_measure_comes_from_its_column_of_the_stats(level: Level, column: str, source: str) -> None:
    (dependency,) = column_lineage(level).deps_by_column[column]
    assert dependency.asset_key == dg.AssetKey(f"{level.value}_size_stats")
    assert dependency.column_name == source


@pytest.mark.parametrize("level", Level)
def test_lineage_names_columns_that_there_are_and_leaves_out_those_of_the_row_itself(level: Level) -> None:
    lineage = column_lineage(level).deps_by_column
    sources = {dependency.column_name for dependencies in lineage.values() for dependency in dependencies}
    assert sources <= {column.name for column in TABLES[level].stats.columns}
    assert {column.name for column in TABLES[level].aggregations.columns} - lineage.keys() == {
        "period_type",
        "calculated_at",
        "created_at",
        "updated_at",
    }


@pytest.mark.parametrize("asset", [size_stats, *AGGREGATIONS], ids=lambda asset: "-".join(asset.node_def.name.split()))
def test_every_asset_has_an_owner_a_documentation_and_an_expected_age(asset: dg.AssetsDefinition) -> None:
    for spec in asset.specs:
        assert spec.owners == ["team:dba"]
        assert spec.kinds == {"postgres"}
        assert "docs/" in str(spec.description)
        assert isinstance(spec.freshness_policy, dg.FreshnessPolicy)
        assert spec.metadata["dagster/column_schema"].columns
