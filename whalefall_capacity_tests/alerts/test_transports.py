"""Alerts through real receivers: what arrives, what counts as not delivered, and that nothing waits or tells for ever.

No error, nor anything that it carries, has the address of the webhook or the password of the mail server.
"""

from __future__ import annotations

from base64 import b64encode
from pathlib import Path
from urllib.parse import quote

import pytest
from pydantic import SecretStr

from whalefall_capacity.alerts import transports
from whalefall_capacity.alerts.transports import call_heartbeat, channels
from whalefall_capacity.errors import AlertError
from whalefall_capacity.settings import build_settings
from whalefall_capacity_tests.alerts.receivers import (
    PASSWORD,
    TOKEN,
    USER,
    Mailbox,
    WebReceiver,
    mail_receiver,
    mute_receiver,
)
from whalefall_capacity_tests.alerts.test_message import ALERT
from whalefall_capacity_tests.errors import all_that_it_carries
from whalefall_capacity_tests.processes import free_port

pytestmark = [
    # The mail server of the tests warns that it takes passwords without TLS.
    pytest.mark.filterwarnings("ignore:Requiring AUTH while not requiring TLS"),
    pytest.mark.filterwarnings("ignore:WHALEFALL_ALERT_WEBHOOK_URL and WHALEFALL_ALERT_SMTP_URL still work"),
]


@pytest.fixture
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transports, "TIMEOUT_SECONDS", 0.5)


def post(url: str) -> None:
    channels(build_settings(alert_webhook_url=url))["webhook"](ALERT)


def send_mail(url: str, *to: str) -> str | None:
    """Mail the alert and return the note."""
    settings = build_settings(alert_smtp_url=url, alert_email_from="dba@example.com", alert_email_to=to)
    return channels(settings)["email"](ALERT)


def refusal_of_post(url: str) -> str:
    with pytest.raises(AlertError) as raised:
        post(url)
    assert TOKEN not in all_that_it_carries(raised.value)
    return str(raised.value)


def refusal_of_call(url: str) -> str:
    with pytest.raises(AlertError) as raised:
        call_heartbeat(SecretStr(url))
    assert TOKEN not in all_that_it_carries(raised.value)
    return str(raised.value)


def refusal_of_mail(url: str) -> str:
    with pytest.raises(AlertError) as raised:
        send_mail(url, "oncall@example.com")
    carried = all_that_it_carries(raised.value)
    assert PASSWORD not in carried
    assert quote(PASSWORD, safe="") not in carried
    return str(raised.value)


def test_alerts_are_off_by_default() -> None:
    assert channels(build_settings()) == {}


def test_a_webhook_gets_the_text_and_the_parts(web: WebReceiver) -> None:
    post(web.url)
    assert web.received == [
        {
            "cause": "run sync_databases failed",
            "day": "2026-07-01",
            "title": "2 failed: Collect sizes of 2026-07-01",
            "what": "Collect sizes of 2026-07-01: connection refused",
            "where": ["crm", "shop"],
            "since": "2026-07-01T03:05:00+08:00",
            "link": "http://127.0.0.1:3000/runs/4caf",
            "remedy": "`whalefall-capacity fleet check`",
            "key": ALERT.key,
            "text": ALERT.text,
        }
    ]
    assert web.headers[0]["Idempotency-Key"] == ALERT.key


@pytest.mark.parametrize("status", [400, 404, 429, 500, 503])
def test_an_answer_that_is_no_success_is_not_delivered(web: WebReceiver, status: int) -> None:
    web.status = status
    assert refusal_of_post(web.url) == f"the webhook answered {status}"


def test_a_redirection_is_not_followed(web: WebReceiver) -> None:
    web.status, web.location = 302, web.url
    assert refusal_of_post(web.url) == "the webhook answered 302"
    assert len(web.received) == 1


def test_a_netrc_of_the_account_is_for_others(
    web: WebReceiver, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    netrc = tmp_path / "netrc"
    netrc.write_text("default login somebody password else\n")
    monkeypatch.setenv("NETRC", str(netrc))
    post(web.url)
    post(web.url.replace("127", "user:right@127"))
    (by_service,) = channels(build_settings(alert_urls=f"json://127.0.0.1:{web.port}/hooks")).values()
    by_service(ALERT)
    given = [headers.get("Authorization") for headers in web.headers]
    assert given == [None, f"Basic {b64encode(b'user:right').decode()}", None]


def test_a_webhook_that_nobody_serves_is_not_delivered() -> None:
    refusal = refusal_of_post(f"http://127.0.0.1:{free_port()}/hooks/{TOKEN}")
    assert refusal == "the webhook cannot be reached, or hung up"


@pytest.mark.usefixtures("hasty")
def test_a_webhook_that_hangs_is_given_up() -> None:
    with mute_receiver() as port:
        refusal = refusal_of_post(f"http://127.0.0.1:{port}/hooks/{TOKEN}")
    assert refusal == "the webhook did not answer within 0.5 s"


def test_a_webhook_that_drips_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transports, "DEADLINE_SECONDS", 0.5)
    with mute_receiver(b"HTTP/1.1 200 OK\r\nX: ") as port:
        refusal = refusal_of_post(f"http://127.0.0.1:{port}/hooks/{TOKEN}")
    assert refusal == "the webhook did not take the message within 0.5 s"


@pytest.mark.usefixtures("hasty")
def test_a_service_of_the_heartbeat_that_hangs_is_given_up() -> None:
    with mute_receiver() as port:
        refusal = refusal_of_call(f"http://127.0.0.1:{port}/ping/{TOKEN}")
    assert refusal == "the service of the heartbeat did not answer within 0.5 s"


def test_a_service_of_the_heartbeat_that_drips_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transports, "DEADLINE_SECONDS", 0.5)
    with mute_receiver(b"HTTP/1.1 200 OK\r\nX: ") as port:
        refusal = refusal_of_call(f"http://127.0.0.1:{port}/ping/{TOKEN}")
    assert refusal == "the service of the heartbeat did not take the message within 0.5 s"


def test_a_mail_has_the_text_and_an_id_of_its_own(mail: Mailbox) -> None:
    assert send_mail(f"smtp://127.0.0.1:{mail.port}", "oncall@example.com", "boss@example.com") is None
    [message] = mail.mails
    assert message["Subject"] == "whalefall_capacity: 2 failed: Collect sizes of 2026-07-01"
    assert message["From"] == "dba@example.com"
    assert message["To"] == "oncall@example.com, boss@example.com"
    assert message["Message-ID"] == f"<{ALERT.key}@whalefall-capacity>"
    assert str(message.get_payload()).splitlines() == ALERT.text.splitlines()


def test_the_user_and_the_password_of_the_url_log_in() -> None:
    with mail_receiver(PASSWORD) as mail:
        send_mail(f"smtp://{USER}:{quote(PASSWORD, safe='')}@127.0.0.1:{mail.port}", "oncall@example.com")
    assert len(mail.mails) == 1


def test_a_wrong_password_is_not_delivered() -> None:
    with mail_receiver("another") as mail:
        refusal = refusal_of_mail(f"smtp://{USER}:{quote(PASSWORD, safe='')}@127.0.0.1:{mail.port}")
    assert refusal == "the mail server refused the user or the password (535)"
    assert mail.mails == []


def test_a_server_without_starttls_gets_no_password_and_no_mail_when_it_is_demanded(mail: Mailbox) -> None:
    refusal = refusal_of_mail(f"smtp+starttls://{USER}:{quote(PASSWORD, safe='')}@127.0.0.1:{mail.port}")
    assert refusal == "the mail server does not offer STARTTLS or a login"
    assert mail.mails == []


def test_one_refused_recipient_of_two_is_told_and_the_mail_counts_as_sent(mail: Mailbox) -> None:
    mail.refuses = {"gone@example.com"}
    note = send_mail(f"smtp://127.0.0.1:{mail.port}", "oncall@example.com", "gone@example.com")
    assert note == "the mail server refused gone@example.com"
    assert len(mail.mails) == 1


def test_a_mail_that_no_recipient_gets_is_not_delivered(mail: Mailbox) -> None:
    mail.refuses = {"oncall@example.com"}
    assert refusal_of_mail(f"smtp://127.0.0.1:{mail.port}") == "the mail server refused every recipient"


def test_a_mail_server_that_is_away_is_not_delivered() -> None:
    refusal = refusal_of_mail(f"smtp://127.0.0.1:{free_port()}")
    assert refusal == "the mail server cannot be reached (ConnectionRefusedError)"


@pytest.mark.usefixtures("hasty")
@pytest.mark.parametrize("first_words", [b"", b"220 hello\r\n"], ids=["before the greeting", "after it"])
def test_a_mail_server_that_hangs_is_given_up(first_words: bytes) -> None:
    with mute_receiver(first_words) as port:
        refusal = refusal_of_mail(f"smtp://127.0.0.1:{port}")
    assert refusal == "the mail server hung up, or did not answer within 0.5 s"


def test_a_port_that_speaks_no_tls_is_told(mail: Mailbox) -> None:
    assert refusal_of_mail(f"smtps://127.0.0.1:{mail.port}").startswith("TLS with the mail server failed")
