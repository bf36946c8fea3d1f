"""Everything that the documentation names is there: links, commands, settings, tables; both READMEs say the same."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from sqlalchemy import Engine, text

from whalefall_capacity.definitions import defs
from whalefall_capacity.settings import PREFIX, PROJECT_ROOT, Settings
from whalefall_capacity_tests.commands.test_help import COMMANDS, LEAVES
from whalefall_capacity_tests.pages import PAGES, Page, commands_in, page
from whalefall_capacity_tests.servers import WITHOUT_MYSQL

ENGLISH = page("README.md")
CHINESE = page("README.zh-CN.md")
# Of PostgreSQL, MySQL, Dagster, nginx and Kubernetes.
OTHERS = {
    "client_ed25519",
    "forecast_quality",
    "information_schema",
    "k8s_job_executor",
    "max_allowed_packet",
    "max_connections",
    "max_join_size",
    "mysql_native_password",
    "partial_revokes",
    "performance_schema",
    "pg_database",
    "pg_database_size",
    "pg_dump",
    "pg_hba",
    "pg_ls_waldir",
    "pg_read_all_stats",
    "postgres_fdw",
    "predict_linear",
    "real_clock",
    "run_retries",
    "server_info",
    "sha256_password",
    "sql_select_limit",
    "transaction_timeout",
    "whalefall_capacity_tests",
}
NAME = re.compile(r"[a-z][a-z0-9]*(_[a-z0-9]+)+")


def commands() -> Iterator[tuple[str, list[str]]]:
    for path in PAGES:
        for arguments in Page(path).commands():
            yield path.name, arguments


@pytest.mark.parametrize("path", PAGES, ids=lambda path: str(path.relative_to(PROJECT_ROOT)))
def test_every_link_leads_somewhere(path: Path) -> None:
    broken = []
    for link in Page(path).links:
        target, _, anchor = link.partition("#")
        if target.startswith(("http://", "https://")):
            continue
        file = path.parent / target if target else path
        if not file.exists() or (anchor and anchor not in Page(file).anchors):
            broken.append(link)
    assert broken == []


@pytest.mark.parametrize("path", sorted((PROJECT_ROOT / "docs").glob("*.md")), ids=lambda path: path.name)
def test_the_index_leads_to_every_page(path: Path) -> None:
    assert path.name in page("docs/README.md").links or path.name == "README.md"


@pytest.mark.parametrize(("where", "arguments"), list(commands()), ids=str)
def test_every_command_is_one_that_the_program_accepts(
    where: str,  # noqa: ARG001 - names the test
    arguments: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    names = [tuple(arguments[:length]) for length in range(len(arguments), -1, -1)]
    path = next(name for name in names if name in COMMANDS)
    rest = arguments[len(path) :]
    if path not in LEAVES:
        # Of a group only help, or nothing, as the name of all its commands.
        assert rest in ([], ["--help"]), f"{' '.join(arguments)}: no such command"
        return
    for word in rest:
        # Files are looked for while arguments are parsed.
        if re.fullmatch(r"[\w./-]+\.(yaml|csv|parquet)|FILE", word):
            Path(word).parent.mkdir(parents=True, exist_ok=True)
            Path(word).touch()
    # The text may name a command without what it takes; what stands in blocks is executed, too.
    if rest:
        LEAVES[path].make_context(path[-1], rest)


def test_commands_are_found_behind_pipes_and_inside_of_others() -> None:
    line = (
        'echo "$(whalefall-capacity credential new-key)" >> .env && ls a/whalefall-capacity | bin/whalefall-capacity up'
    )
    assert list(commands_in(line)) == [["credential", "new-key"], ["up"]]


def test_every_setting_that_is_named_exists() -> None:
    settings = {f"{PREFIX}{name.upper()}" for name in Settings.model_fields} | {WITHOUT_MYSQL}
    named = {(path.name, name) for path in PAGES for name in re.findall(r"\bWHALEFALL_[A-Z_]*[A-Z]\b", Page(path).text)}
    assert {(where, name) for where, name in named if name not in settings} == set()


def test_every_name_in_the_text_is_of_a_table_a_column_an_asset_a_job_or_whatever_else_there_is(store: Engine) -> None:
    known = names_in_dagster() | names_in_store(store) | names_in_code() | OTHERS
    known |= yaml.safe_load((PROJECT_ROOT / "dagster.yaml").read_text()).keys()
    unknown = {
        (path.name, code)
        for path in PAGES
        for code in Page(path).words_in_code
        for word in re.split(r"[./]", code.partition("(")[0])
        # A table partition has the name of its table, and a date.
        if NAME.fullmatch(word) and re.sub(r"(_\d+)+$", "", word) not in known
    }
    assert unknown == set()


def test_the_page_of_the_schema_is_what_the_metadata_say() -> None:
    script = PROJECT_ROOT / "scripts" / "er_diagram.py"
    printed = subprocess.run([sys.executable, script], capture_output=True, check=True).stdout
    assert page("docs/schema.md").path.read_bytes() == printed


def test_both_readmes_have_the_same_structure() -> None:
    assert [level for level, _ in ENGLISH.headings] == [level for level, _ in CHINESE.headings]


def test_both_readmes_have_the_same_code_and_commands() -> None:
    def bare(of: Page) -> list[tuple[str, str]]:
        return [(block.language, re.sub(r" *#.*", "", block.content)) for block in of.blocks("sh", "yaml", "sql")]

    assert bare(ENGLISH) == bare(CHINESE)
    assert sorted(ENGLISH.commands()) == sorted(CHINESE.commands())


def test_both_readmes_have_the_same_links_and_lead_to_each_other() -> None:
    assert CHINESE.path.name in ENGLISH.links
    assert ENGLISH.path.name in CHINESE.links
    other = {CHINESE.path.name, ENGLISH.path.name}
    assert sorted(set(ENGLISH.links) - other) == sorted(set(CHINESE.links) - other)


def names_in_dagster() -> set[str]:
    repository = defs.get_repository_def()
    graph = repository.asset_graph
    return {
        *(part for key in graph.get_all_asset_keys() for part in key.path),
        *(check.name for check in graph.asset_check_keys),
        *(job.name for job in repository.get_all_jobs()),
        *(schedule.name for schedule in repository.schedule_defs),
        *(sensor.name for sensor in repository.sensor_defs),
    }


def names_in_code() -> set[str]:
    """Return the names of modules, functions, fields and arguments, and every string that is one word."""
    names = {path.stem for path in PROJECT_ROOT.glob("whalefall_capacity*/**/*")} | {"whalefall_capacity"}
    for path in PROJECT_ROOT.glob("whalefall_capacity/**/*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
                names.add(node.target.id)
            elif isinstance(node, ast.arg):
                names.add(node.arg)
            elif isinstance(node, ast.FunctionDef):
                names.add(node.name)
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                names.add(node.value)
    return names


def names_in_store(store: Engine) -> set[str]:
    with store.connect() as connection:
        rows = connection.execute(
            text("SELECT table_name, column_name FROM information_schema.columns WHERE table_schema = 'public'")
        ).all()
    return {name for row in rows for name in row}
