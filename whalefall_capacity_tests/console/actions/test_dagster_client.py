"""The console's own client of the Dagster webserver: in whose name it asks, and what it makes of a refusal."""

from __future__ import annotations

from datetime import datetime, timezone
from pathlib import Path

import pytest

from whalefall_capacity.console.actions.dagster_client import DagsterClient
from whalefall_capacity.console.http.dagster_checks import DagsterCheck
from whalefall_capacity.errors import DagsterError
from whalefall_capacity_tests.console.webserver import webserver
from whalefall_capacity_tests.processes import free_port


def test_a_webserver_without_login_learns_nothing_of_the_caller() -> None:
    with webserver() as running:
        client = DagsterClient(running.url, asks_for_login=False)
        assert client.launch("job", {}, {}, (True, "secret")) == "run-1"
        assert running.asked[0].keys().isdisjoint({"authorization", "cookie"})


def test_a_webserver_with_a_login_is_asked_in_the_name_of_the_caller() -> None:
    with webserver() as running:
        client = DagsterClient(running.url, asks_for_login=True)
        client.launch("job", {}, {}, (True, "a-token"))
        client.launch("job", {}, {}, (False, "a-session"))
        assert running.asked[0]["authorization"] == "Bearer a-token"
        assert running.asked[1]["cookie"] == "whalefall_session=a-session; __Host-whalefall_session=a-session"
        assert "authorization" not in running.asked[1]


def test_a_netrc_of_the_account_takes_the_place_of_no_caller(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login somebody password else\n")
    monkeypatch.setenv("NETRC", str(netrc))
    with webserver() as running:
        DagsterClient(running.url, asks_for_login=True).launch("job", {}, {}, (True, "a-token"))
        DagsterClient(running.url, asks_for_login=False).launch("job", {}, {}, (False, ""))
        assert running.asked[0]["authorization"] == "Bearer a-token"
        assert "authorization" not in running.asked[1]


@pytest.mark.parametrize("variable", ["http_proxy", "ALL_PROXY"])
def test_a_proxy_of_the_machine_learns_nothing_of_the_caller(variable: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(variable, f"http://127.0.0.1:{free_port()}")
    with webserver() as running:
        client = DagsterClient(running.url, asks_for_login=True)
        assert client.launch("job", {}, {}, (True, "a-token")) == "run-1"


def test_a_webserver_that_is_away_is_told_in_one_sentence_with_what_to_do() -> None:
    url = f"http://127.0.0.1:{free_port()}"
    with pytest.raises(DagsterError) as raised:
        DagsterClient(url, asks_for_login=False).launch("job", {}, {}, (False, ""))
    assert str(raised.value) == (
        f"the Dagster webserver at {url} does not answer ([Errno 111] Connection refused): start it with "
        "`whalefall-capacity up`; WHALEFALL_WEBSERVER_URL says where it is"
    )


@pytest.mark.parametrize(
    ("status", "content", "said"),
    [
        (401, {}, "asks for a login"),
        (403, {"errors": [{"message": "No mutation can be sent with the role view."}]}, "with the role view"),
        (500, "nothing of use", "HTTP Error 500"),
        (302, {}, "HTTP Error 302"),
        (200, {"errors": [{"message": "broken"}]}, "broken"),
        (200, {"status": "ok"}, "is no Dagster webserver"),
        (200, ["of", "another"], "is no Dagster webserver"),
        (200, "<html>Log in to go on</html>", "is no Dagster webserver; WHALEFALL_WEBSERVER_URL says where"),
        (200, {"data": None}, "is no Dagster webserver"),
        (200, {"data": {"launchRun": None}}, "is no Dagster webserver"),
        (200, {"errors": "of another kind"}, "is no Dagster webserver"),
    ],
)
def test_a_refusal_says_why(status: int, content: object, said: str) -> None:
    with webserver() as running:
        running.status, running.content = status, content
        with pytest.raises(DagsterError, match=said):
            DagsterClient(running.url, asks_for_login=False).launch("job", {}, {}, (False, ""))


def test_the_checks_that_failed_are_told_with_what_they_found() -> None:
    def executed(status: str, evaluation: object) -> dict[str, object]:
        return {"status": status, "runId": f"run-{status}", "timestamp": 1_700_000_000.5, "evaluation": evaluation}

    found = {"severity": "ERROR", "description": "no table partition holds 2026-12-01"}
    checks = [
        {"name": "good", "executionForLatestMaterialization": executed("SUCCEEDED", found)},
        {"name": "bad", "executionForLatestMaterialization": executed("FAILED", found)},
        {"name": "broken", "executionForLatestMaterialization": executed("EXECUTION_FAILED", None)},
        {"name": "never run", "executionForLatestMaterialization": None},
    ]
    nodes = [
        {"assetKey": {"path": ["sizes", "daily"]}, "assetChecksOrError": {"checks": checks}},
        {"assetKey": {"path": ["unchecked"]}, "assetChecksOrError": {}},
    ]
    with webserver() as running:
        running.content = {"data": {"assetNodes": nodes}}
        failed = DagsterClient(running.url, asks_for_login=True).failed_checks((True, "a-token"))
        assert running.asked[0]["authorization"] == "Bearer a-token"
    at = datetime(2023, 11, 14, 22, 13, 20, 500_000, tzinfo=timezone.utc)
    assert failed == [
        DagsterCheck("sizes/daily", "bad", "ERROR", "no table partition holds 2026-12-01", "run-FAILED", at),
        DagsterCheck("sizes/daily", "broken", None, None, "run-EXECUTION_FAILED", at),
    ]
