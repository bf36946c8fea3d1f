"""Names of Dagster that are not public come from one module."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

from whalefall_capacity.dagster_private import PARTITION_NAME_TAG
from whalefall_capacity.run_tags import PARTITION_TAG
from whalefall_capacity.settings import PROJECT_ROOT

PRODUCT = PROJECT_ROOT / "whalefall_capacity"
MAY_IMPORT_THEM = ["celery_steps.py", "dagster_private.py", "ui/dagster_app.py"]


def imported_modules(source: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(source.read_text())):
        if isinstance(node, ast.ImportFrom) and node.level == 0:
            yield from (f"{node.module}.{name.name}" for name in node.names)
        elif isinstance(node, ast.Import):
            yield from (name.name for name in node.names)


def is_private(module: str) -> bool:
    package, *rest = module.split(".")
    return package.split("_")[0] == "dagster" and any(part.startswith("_") for part in rest)


def test_three_modules_import_what_dagster_calls_private() -> None:
    found = {
        source.relative_to(PRODUCT).as_posix()
        for source in PRODUCT.rglob("*.py")
        if any(is_private(module) for module in imported_modules(source))
    }
    assert sorted(found) == MAY_IMPORT_THEM


def test_every_name_of_the_one_module_is_used() -> None:
    home = "whalefall_capacity.dagster_private"
    used = {
        module.removeprefix(f"{home}.")
        for source in PRODUCT.rglob("*.py")
        for module in imported_modules(source)
        if module.startswith(f"{home}.")
    }
    tree = ast.parse((PRODUCT / "dagster_private.py").read_text())
    offered = {
        name.name
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and node.module not in ("__future__", "typing")
        for name in node.names
    }
    assert used == offered


def test_the_tag_of_a_partition_is_the_one_that_dagster_knows() -> None:
    assert PARTITION_TAG == PARTITION_NAME_TAG
