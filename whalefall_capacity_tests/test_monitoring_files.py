"""The files of `monitoring/`: Prometheus and Grafana accept them, and what they read is there."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from datetime import date, timedelta
from typing import Any

import pytest
import yaml
from sqlalchemy import Engine, text
from sqlalchemy.engine import Row

from whalefall_capacity.console.monitoring.metrics import GAUGES
from whalefall_capacity.periods import PeriodType, days_to_windows
from whalefall_capacity.settings import PROJECT_ROOT
from whalefall_capacity.store.aggregations.calculate import aggregate
from whalefall_capacity.store.aggregations.statements import Level
from whalefall_capacity_tests.clock import today
from whalefall_capacity_tests.pages import page
from whalefall_capacity_tests.store.past import MIB, put_sizes

FOLDER = PROJECT_ROOT / "monitoring"
RULES = FOLDER / "prometheus-rules.yaml"
DASHBOARD = FOLDER / "grafana-dashboard.json"
RULE_TESTS = PROJECT_ROOT / "whalefall_capacity_tests" / "prometheus-rules-test.yaml"
LABELS = {gauge.name: set(gauge.labels) for gauge in GAUGES}
QUOTED = re.compile(r'"[^"]*"')
METRIC = re.compile(r"\bwhalefall_[a-z_]+\b(?:\{([^}]*)\})?")
# The role of docs/operations.md that only reads, and what it is granted.
READER = "grafana_reader"


def rules() -> list[dict[str, Any]]:
    (group,) = yaml.safe_load(RULES.read_text())["groups"]
    found: list[dict[str, Any]] = group["rules"]
    return found


def panels() -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(DASHBOARD.read_text())["panels"]
    return found


def targets(datasource: str) -> Iterator[tuple[str, dict[str, Any]]]:
    for panel in panels():
        if panel["datasource"]["type"] == datasource:
            yield from ((panel["title"], target) for target in panel["targets"])


def metrics_in(expression: str) -> set[str]:
    return {match[0].partition("{")[0] for match in METRIC.finditer(QUOTED.sub('""', expression))}


EXPRESSIONS = [(rule["alert"], rule["expr"]) for rule in rules()] + [
    (title, target["expr"]) for title, target in targets("prometheus")
]
STATEMENTS = {title: target["rawSql"] for title, target in targets("grafana-postgresql-datasource")}


@pytest.mark.parametrize(("name", "expression"), EXPRESSIONS, ids=[name for name, _ in EXPRESSIONS])
def test_every_metric_and_label_of_an_expression_is_one_of_ours(name: str, expression: str) -> None:
    unquoted = QUOTED.sub('""', expression)
    used = metrics_in(expression)
    assert used <= LABELS.keys()
    assert used or expression.startswith("up{"), name
    for match in METRIC.finditer(unquoted):
        matched = set(re.findall(r"(\w+)\s*(?:=~|!~|!=|=)", match[1] or ""))
        assert matched <= LABELS[match[0].partition("{")[0]]
    grouped = {label.strip() for labels in re.findall(r"by \(([^)]*)\)", unquoted) for label in labels.split(",")}
    assert grouped <= set.union(*(LABELS[name] for name in used), set())


@pytest.mark.parametrize("rule", rules(), ids=lambda rule: rule["alert"])
def test_every_rule_says_how_bad_it_is_and_what_to_do(rule: dict[str, Any]) -> None:
    assert rule.keys() <= {"alert", "expr", "for", "labels", "annotations"}
    assert rule["labels"]["severity"] in {"warning", "critical"}
    assert rule["annotations"].keys() == {"summary", "description"}


def promtool(*arguments: str) -> str:
    """Run promtool and return what it says of what is good."""
    program = shutil.which("promtool")
    if program is None:
        pytest.skip("no promtool: of the Debian package prometheus")
    done = subprocess.run([program, *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_prometheus_accepts_the_rules() -> None:
    assert f"SUCCESS: {len(rules())} rules found" in promtool("check", "rules", str(RULES))


def test_the_rules_tell_what_they_are_for_and_nothing_else() -> None:
    assert "SUCCESS" in promtool("test", "rules", str(RULE_TESTS))


def test_every_metric_is_watched_by_a_rule_or_shown() -> None:
    assert set.union(*(metrics_in(expression) for _, expression in EXPRESSIONS)) == LABELS.keys()


@pytest.mark.parametrize("gauge", GAUGES, ids=lambda gauge: gauge.name)
def test_every_metric_and_label_is_documented(gauge: Any) -> None:
    (line,) = [line for line in page("docs/monitoring.md").text.splitlines() if line.startswith(f"| `{gauge.name}` |")]
    assert re.findall(r"`(\w+)`", line.split("|")[2]) == list(gauge.labels)


def test_the_dashboard_names_each_panel_once_and_asks_for_its_two_data_sources() -> None:
    dashboard = json.loads(DASHBOARD.read_text())
    ids = [panel["id"] for panel in dashboard["panels"]]
    assert len(set(ids)) == len(ids)
    variables = {variable["name"]: variable["query"] for variable in dashboard["templating"]["list"]}
    assert variables == {"prometheus": "prometheus", "store": "grafana-postgresql-datasource"}
    for panel in dashboard["panels"]:
        uids = {target["datasource"]["uid"] for target in panel["targets"]} | {panel["datasource"]["uid"]}
        assert uids <= {"${prometheus}", "${store}"}


def rows_of(store: Engine, title: str, day: date) -> list[Row[Any]]:
    """Return the rows of a panel over the month until *day*, as Grafana asks for them with a role that only reads."""
    grants = next(block.content for block in page("docs/operations.md").blocks("sql") if "TO charts" in block.content)
    statement = STATEMENTS[title]
    first, last = day - timedelta(days=30), day
    statement = statement.replace("$__timeFrom()", f"'{first}T00:00:00Z'").replace("$__timeTo()", f"'{last}T12:00:00Z'")
    assert "$__" not in statement
    with store.connect() as connection, connection.begin() as transaction:
        connection.execute(text(f"CREATE ROLE {READER}"))
        for grant in re.findall(r"^GRANT SELECT .* TO charts;$", grants, re.MULTILINE):
            connection.execute(text(grant.replace("charts;", READER)))
        connection.execute(text(f"SET LOCAL ROLE {READER}"))
        found = list(connection.exec_driver_sql(statement.replace("%", "%%")).all())
        transaction.rollback()
    return found


@pytest.fixture
def past(store: Engine) -> date:
    """Fourteen days of two databases, of which one grows; a server was last measured a week ago."""
    day = today()
    days = [day - timedelta(days=n) for n in range(14)]
    put_sizes(store, [(1, "shop", when, (1000 - 50 * n) * MIB) for n, when in enumerate(days)])
    put_sizes(store, [(1, "crm", when, 10 * MIB) for when in days])
    put_sizes(store, [(2, "old", when, 5 * MIB) for when in days[7:]])
    for level in Level:
        aggregate(store, level, days_to_windows(days, PeriodType.WEEKLY))
    return day


def test_the_dashboard_shows_what_was_measured_each_day(store: Engine, past: date) -> None:
    found = rows_of(store, "Measured each day, from the store", past)
    assert [row.time.date() for row in found] == [past - timedelta(days=n) for n in range(13, -1, -1)]
    assert found[-1]._mapping["size of what was measured"] == 1010 * MIB


def test_the_dashboard_shows_what_grew_this_week(store: Engine, past: date) -> None:
    (row,) = rows_of(store, "Databases that grew most this week, from the store", past)
    assert (row.instance, row.database) == ("instance-1", "shop")
    assert row.change > 0


def test_the_dashboard_shows_who_was_not_measured_lately(store: Engine, past: date) -> None:
    (row,) = rows_of(store, "Servers without a size since", past)
    assert (row.instance, row._mapping["last day"]) == ("instance-2", past - timedelta(days=7))
