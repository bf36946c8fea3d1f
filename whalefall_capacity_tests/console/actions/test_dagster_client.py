"""The console's own client of the Dagster webserver: in whose name it asks, and what it makes of a refusal."""

from __future__ import annotations

from pathlib import Path

import pytest

from whalefall_capacity.console.actions.dagster_client import DagsterClient
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
    ],
)
def test_a_refusal_says_why(status: int, content: object, said: str) -> None:
    with webserver() as running:
        running.status, running.content = status, content
        with pytest.raises(DagsterError, match=said):
            DagsterClient(running.url, asks_for_login=False).launch("job", {}, {}, (False, ""))
