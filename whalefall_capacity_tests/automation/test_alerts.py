"""The sensor of alerts, tick by tick, on a real store, a real Dagster instance and a real receiver.

A cause is told once a day, whatever is restarted; what was not taken is tried again; one source that cannot be read
keeps no other from being told.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date, datetime, timedelta, timezone

import dagster as dg
import pytest
from dagster._core.definitions.freshness import FreshnessState, FreshnessStateChange
from sqlalchemy import Engine, text

from whalefall_capacity.automation import alerts as module
from whalefall_capacity.automation.alerts import alerts_go_out, check_alerts, freshness_alerts
from whalefall_capacity.definitions import defs
from whalefall_capacity.errors import AlertError
from whalefall_capacity.mirror.follow import mirror
from whalefall_capacity.settings import PREFIX, build_settings, load_settings
from whalefall_capacity_tests.alerts.receivers import WebReceiver, web_receiver
from whalefall_capacity_tests.clock import today
from whalefall_capacity_tests.registry import entry, refusing, register
from whalefall_capacity_tests.servers import PostgresqlServer
from whalefall_capacity_tests.store.past import put_sizes


@dataclass
class Daemon:
    """Evaluates the sensor; without a cursor it is one that forgot everything."""

    instance: dg.DagsterInstance
    cursor: str | None = None

    def tick(self, definitions: dg.Definitions = defs) -> str:
        """Evaluate once and return what the tick says."""
        with dg.build_sensor_context(self.instance, cursor=self.cursor, definitions=definitions) as context:
            result = alerts_go_out(context)
        if isinstance(result, dg.SkipReason):
            return str(result.skip_message)
        assert isinstance(result, dg.SensorResult)
        assert result.skip_reason is not None
        self.cursor = result.cursor
        return str(getattr(result.skip_reason, "skip_message", result.skip_reason))


@pytest.fixture
def web(store: Engine) -> Iterator[WebReceiver]:  # noqa: ARG001 - its settings come first
    with web_receiver() as receiver:
        os.environ[f"{PREFIX}ALERT_WEBHOOK_URL"] = receiver.url
        load_settings.cache_clear()
        yield receiver


@pytest.fixture
def daemon(dagster_instance: dg.DagsterInstance) -> Daemon:
    return Daemon(dagster_instance)


def collect(daemon: Daemon, store: Engine) -> None:
    """Run a collection of today, whatever comes of it, and its task run."""
    job = defs.resolve_job_def("sync_databases")
    result = job.execute_in_process(instance=daemon.instance, partition_key=today().isoformat(), raise_on_error=False)
    mirror(store, daemon.instance, result.run_id)


def titles(web: WebReceiver) -> list[str]:
    return sorted(message["title"] for message in web.received)


def make_due(store: Engine) -> None:
    with store.begin() as connection:
        connection.execute(text("UPDATE alerts SET next_attempt_at = now()"))


def test_without_a_receiver_nothing_is_looked_at(daemon: Daemon) -> None:
    assert daemon.tick() == "no receiver of alerts is set"


def test_a_server_that_failed_is_told_with_its_name_and_where_to_look(
    daemon: Daemon, store: Engine, web: WebReceiver, postgresql: PostgresqlServer
) -> None:
    register(store, entry("pg", postgresql.target()), refusing("gone"))
    collect(daemon, store)
    assert daemon.tick() == "2 new alerts, 2 sent, 0 not delivered now"
    by_title = {message["title"]: message for message in web.received}
    run = by_title[f"1 failed: Collect sizes of {today()}"]
    assert run["where"] == ["gone"]
    assert "gone" in run["what"]
    assert run["link"].startswith("http://127.0.0.1:3000/runs/")
    assert "whalefall-capacity fleet check" in run["remedy"]
    check = by_title["check fleet_coverage failed (warning)"]
    assert f"1 of 2 instances reported their sizes for {today()}" in check["what"]
    assert check["where"] == ["asset database_size_stats"]
    assert check["link"] == run["link"]


def test_the_same_cause_is_told_once_a_day_also_by_a_daemon_that_forgot(
    daemon: Daemon, store: Engine, web: WebReceiver
) -> None:
    register(store, refusing("gone"))
    collect(daemon, store)
    daemon.tick()
    first = titles(web)
    assert first
    collect(daemon, store)
    daemon.tick()
    Daemon(daemon.instance).tick()
    assert titles(web) == first


def test_other_servers_that_fail_on_the_same_day_are_news(daemon: Daemon, store: Engine, web: WebReceiver) -> None:
    register(store, refusing("gone"))
    collect(daemon, store)
    daemon.tick()
    before = len(web.received)
    register(store, refusing("away"), refusing("gone"))
    collect(daemon, store)
    daemon.tick()
    assert [message["where"] for message in web.received[before:]] == [["away", "gone"]]


def test_a_run_without_failures_is_not_told(
    daemon: Daemon, store: Engine, web: WebReceiver, postgresql: PostgresqlServer
) -> None:
    register(store, entry("pg", postgresql.target()))
    collect(daemon, store)
    assert daemon.tick() == "0 new alerts, 0 sent, 0 not delivered now"
    assert web.received == []


def test_what_the_receiver_did_not_take_arrives_when_it_does(daemon: Daemon, store: Engine, web: WebReceiver) -> None:
    register(store, refusing("gone"))
    collect(daemon, store)
    web.status = 500
    assert daemon.tick().endswith(" 0 sent, 1 not delivered now")
    web.received.clear()
    web.status = 200
    make_due(store)
    Daemon(daemon.instance).tick()
    assert f"run failed: Collect sizes of {today()}" in titles(web)
    web.received.clear()
    make_due(store)
    daemon.tick()
    assert web.received == []


def test_a_tick_that_dies_after_it_sent_does_not_send_again(
    daemon: Daemon,
    store: Engine,
    web: WebReceiver,
    postgresql: PostgresqlServer,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    register(store, entry("pg", postgresql.target()), refusing("gone"))
    collect(daemon, store)

    def die(*_arguments: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(module, "alert_was_sent", die)
        with pytest.raises(KeyboardInterrupt):
            daemon.tick()
    [first] = web.received
    make_due(store)
    with store.begin() as connection:
        connection.execute(text("UPDATE alerts SET updated_at = now() - interval '6 minutes' WHERE state = 'sending'"))
    Daemon(daemon.instance).tick()
    assert len(web.received) == 2
    assert web.received[1]["key"] != first["key"]


def test_every_url_is_told_and_one_that_fails_does_not_hold_up_the_other(
    daemon: Daemon, store: Engine, web: WebReceiver
) -> None:
    register(store, refusing("gone"))
    with web_receiver() as other:
        os.environ[f"{PREFIX}ALERT_WEBHOOK_URL"] = ""
        os.environ[f"{PREFIX}ALERT_URLS"] = f"json://127.0.0.1:{web.port}, json://127.0.0.1:{other.port}"
        load_settings.cache_clear()
        web.status = 500
        collect(daemon, store)
        daemon.tick()
        told = f"whalefall_capacity: run failed: Collect sizes of {today()}"
        assert told in titles(other)
        count = len(other.received)
        web.status = 200
        web.received.clear()
        make_due(store)
        Daemon(daemon.instance).tick()
        assert told in titles(web)
        assert len(other.received) == count


def test_a_missed_day_is_told_once_for_ever(daemon: Daemon, store: Engine, web: WebReceiver) -> None:
    register(store, refusing("gone"))
    with store.begin() as connection:
        connection.execute(text("UPDATE instances SET created_at = now() - interval '3 days'"))
    put_sizes(store, [(1, "shop", today() - timedelta(days=1), 100)])
    daemon.tick()
    missed = today() - timedelta(days=2)
    assert titles(web) == [f"no sizes were collected on {missed}"]
    Daemon(daemon.instance).tick()
    assert len(web.received) == 1


def test_a_source_that_cannot_be_read_keeps_no_other_from_being_told(
    daemon: Daemon, store: Engine, web: WebReceiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    register(store, refusing("gone"))
    collect(daemon, store)

    def fail(*_arguments: object) -> None:
        raise RuntimeError

    monkeypatch.setattr(module, "check_alerts", fail)
    with pytest.raises(AlertError, match=r"some sources of alerts could not be read: asset checks \(RuntimeError\)"):
        daemon.tick()
    assert titles(web) == [f"run failed: Collect sizes of {today()}"]


def test_a_check_is_told_with_its_texts_and_without_its_tables_and_since_it_failed_first(daemon: Daemon) -> None:
    table = dg.MetadataValue.table([dg.TableRecord({"database": "in the table"})])

    @dg.asset_check(asset="sizes", description="Ask who dropped them.")
    def shrunk() -> dg.AssetCheckResult:
        return dg.AssetCheckResult(
            passed=False, description="2 shrank", metadata={"crm": "by 10 %", "count": 2, "worst": table}
        )

    definitions = dg.Definitions(assets=[dg.asset(name="sizes")(lambda: None)], asset_checks=[shrunk])
    started = datetime.now(timezone.utc)
    for _ in range(2):
        assert definitions.resolve_implicit_global_asset_job_def().execute_in_process(instance=daemon.instance).success
    between = datetime.now(timezone.utc)
    repository = definitions.get_repository_def()
    [alert] = check_alerts(daemon.instance, repository, build_settings(), started)
    assert alert.what == "2 shrank; crm: by 10 %"
    assert alert.where == ("asset sizes",)
    assert alert.remedy == "Ask who dropped them."
    assert alert.since is not None
    [first, second] = daemon.instance.get_run_records(ascending=True)
    assert first.start_time is not None
    assert second.start_time is not None
    assert first.start_time <= alert.since.timestamp() <= second.start_time
    assert list(check_alerts(daemon.instance, repository, build_settings(), between)) == []


pytestmark = [
    # Days are missed from the one on which the store's server registered the first server of the fleet.
    pytest.mark.real_clock,
    pytest.mark.filterwarnings("ignore:WHALEFALL_ALERT_WEBHOOK_URL and WHALEFALL_ALERT_SMTP_URL still work"),
]

FRESH = dg.Definitions(
    assets=[
        dg.AssetSpec("plain"),
        dg.asset(name="fresh", freshness_policy=dg.FreshnessPolicy.time_window(fail_window=timedelta(days=1)))(
            lambda: None
        ),
    ]
)


def freshness(daemon: Daemon, state: FreshnessState, day: date) -> list[tuple[str, date]]:
    daemon.instance._report_runless_asset_event(  # as Dagster's daemon does
        FreshnessStateChange(
            key=dg.AssetKey("fresh"),
            new_state=state,
            previous_state=FreshnessState.UNKNOWN,
            state_change_timestamp=datetime(2026, 7, 1, tzinfo=timezone.utc).timestamp(),
        )
    )
    repository = FRESH.get_repository_def()
    with dg.build_sensor_context(daemon.instance) as context:
        found = freshness_alerts(daemon.instance, repository, build_settings(), day, context.log)
        return [(alert.cause, alert.day) for alert in found]


def test_missed_freshness_is_told_on_each_day_on_which_it_lasts(daemon: Daemon) -> None:
    for day in (date(2026, 7, 1), date(2026, 7, 2)):
        assert freshness(daemon, FreshnessState.FAIL, day) == [("freshness fresh", day)]


@pytest.mark.parametrize("state", [FreshnessState.PASS, FreshnessState.WARN, FreshnessState.NOT_APPLICABLE])
def test_freshness_that_is_not_missed_is_not_told(daemon: Daemon, state: FreshnessState) -> None:
    assert freshness(daemon, state, date(2026, 7, 1)) == []
