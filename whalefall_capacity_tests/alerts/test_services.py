"""Alerts through the receivers of WHALEFALL_ALERT_URLS: apprise's services in front of real servers.

What is not taken is an error, whatever the URL asks for, and nothing that is said, logged or named has a secret of it.
"""

from __future__ import annotations

import io
import logging
from collections.abc import Iterator
from urllib.parse import quote

import pytest

from whalefall_capacity.alert_urls import split_urls
from whalefall_capacity.alerts import transports
from whalefall_capacity.alerts.transports import channels
from whalefall_capacity.errors import AlertError, SettingsError
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
    # Of apprise's own imports.
    pytest.mark.filterwarnings("ignore:'imghdr' is deprecated"),
]

BODY = ALERT.text.split("\n\n", 1)[1]


def json_url(port: int, query: str = "") -> str:
    return f"json://127.0.0.1:{port}/hooks/{TOKEN}{query}"


def mail_url(port: int, *to: str) -> str:
    login = f"{USER}:{quote(PASSWORD, safe='')}@" if to else ""
    return f"mailto://{login}127.0.0.1:{port}?from=dba@example.com&to={','.join(to) or 'oncall@example.com'}"


def send(url: str) -> str | None:
    """Send the alert and return the note."""
    [way] = channels(build_settings(alert_urls=url)).values()
    return way(ALERT)


def refusal(url: str) -> str:
    with pytest.raises(AlertError) as raised:
        send(url)
    carried = all_that_it_carries(raised.value)
    assert [secret for secret in (TOKEN, PASSWORD, quote(PASSWORD, safe="")) if secret in carried] == []
    return str(raised.value)


def test_a_service_gets_the_subject_as_title_and_the_rest_as_message(web: WebReceiver) -> None:
    assert send(json_url(web.port)) is None
    assert web.received == [
        {
            "version": "1.0",
            "title": "whalefall_capacity: 2 failed: Collect sizes of 2026-07-01",
            "message": BODY,
            "attachments": [],
            "type": "warning",
        }
    ]
    assert web.headers[0]["User-Agent"] == "whalefall_capacity"


def test_a_message_longer_than_a_service_takes_arrives_in_parts(web: WebReceiver) -> None:
    longest = 32_768  # of apprise's JSON
    many = ALERT.model_copy(update={"where": ("x" * longest,)})
    [way] = channels(build_settings(alert_urls=json_url(web.port))).values()
    way(many)
    parts = [message["message"] for message in web.received]
    assert len(parts) > 1
    assert [len(part) for part in parts if len(part) > longest] == []
    assert parts[-1].endswith("Next: `whalefall-capacity fleet check`")


def test_a_mail_goes_to_every_recipient_of_its_url(mail: Mailbox) -> None:
    send(f"mailto://127.0.0.1:{mail.port}?from=dba@example.com&to=oncall@example.com,boss@example.com")
    assert sorted(str(message["To"]) for message in mail.mails) == ["boss@example.com", "oncall@example.com"]
    message = mail.mails[0]
    assert message["Subject"] == "whalefall_capacity: 2 failed: Collect sizes of 2026-07-01"
    assert "dba@example.com" in message["From"]
    assert "Where: crm, shop" in message.as_string()


def test_the_user_and_the_password_of_a_mail_url_log_in() -> None:
    with mail_receiver(PASSWORD) as mail:
        send(mail_url(mail.port, "oncall@example.com"))
    assert len(mail.mails) == 1


def test_a_wrong_password_is_an_error() -> None:
    with mail_receiver("another") as mail:
        assert refusal(mail_url(mail.port, "oncall@example.com")) == (
            "the service cannot be reached, or refused the message"
        )
    assert mail.mails == []


def test_a_server_without_starttls_gets_no_password_and_no_mail_when_tls_is_demanded(mail: Mailbox) -> None:
    demanding = mail_url(mail.port, "oncall@example.com").replace("mailto://", "mailtos://")
    assert refusal(demanding) == "the service cannot be reached, or refused the message"
    assert mail.mails == []


def test_a_mail_that_its_recipient_does_not_get_is_an_error(mail: Mailbox) -> None:
    mail.refuses = {"oncall@example.com"}
    assert refusal(mail_url(mail.port)) == "the service cannot be reached, or refused the message"


def test_one_refused_recipient_of_two_is_told_and_the_mail_counts_as_sent(mail: Mailbox) -> None:
    mail.refuses = {"gone@example.com"}
    url = f"mailto://127.0.0.1:{mail.port}?from=dba@example.com&to=gone@example.com,oncall@example.com"
    assert send(url) == "the service did not take it for every recipient"
    assert [message["To"] for message in mail.mails] == ["oncall@example.com"]
    mail.refuses.add("oncall@example.com")
    assert refusal(url) == "the service cannot be reached, or refused the message"


@pytest.mark.parametrize("status", [400, 401, 429, 500])
def test_an_answer_that_is_no_success_is_told_with_its_status(web: WebReceiver, status: int) -> None:
    web.status = status
    assert refusal(json_url(web.port)) == f"the service answered {status}"


def test_a_redirection_is_not_followed(web: WebReceiver) -> None:
    web.status, web.location = 302, web.url
    assert refusal(json_url(web.port)) == "the service answered 302"
    assert len(web.received) == 1


def test_no_url_can_turn_a_failure_into_a_success_or_into_many(web: WebReceiver) -> None:
    web.status = 500
    assert refusal(json_url(web.port, "?optional=yes&retry=3&wait=0")) == "the service answered 500"
    assert len(web.received) == 1


def test_a_service_that_is_away_is_an_error() -> None:
    assert refusal(json_url(free_port())) == "the service cannot be reached, or refused the message"


def test_a_service_that_drips_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transports, "DEADLINE_SECONDS", 0.5)
    with mute_receiver(b"HTTP/1.1 200 OK\r\nX: ") as port:
        assert refusal(json_url(port)) == "the service did not take the message within 0.5 s"


@pytest.fixture
def everything_logged() -> Iterator[io.StringIO]:
    """Everything that reaches the handlers of a root logger that wants all; apprise's own logger too."""
    written = io.StringIO()
    handler = logging.StreamHandler(written)
    loggers = [logging.getLogger(name) for name in (None, "apprise")]
    levels = [logger.level for logger in loggers]
    loggers[0].addHandler(handler)
    for logger in loggers:
        logger.setLevel(logging.DEBUG)
    yield written
    loggers[0].removeHandler(handler)
    for logger, level in zip(loggers, levels, strict=True):
        logger.setLevel(level)


def test_no_log_and_no_output_has_a_secret_of_a_url(
    web: WebReceiver, everything_logged: io.StringIO, capfd: pytest.CaptureFixture[str]
) -> None:
    web.status = 500
    refusal(json_url(web.port))
    with pytest.warns(FutureWarning), pytest.raises(AlertError):
        channels(build_settings(alert_webhook_url=web.url))["webhook"](ALERT)
    with pytest.raises(SettingsError):
        build_settings(alert_urls=f"slack://{TOKEN}")
    assert len(web.received) == 2
    assert TOKEN not in everything_logged.getvalue()
    assert TOKEN not in "".join(capfd.readouterr())


def test_each_url_is_a_way_of_its_own_with_a_name_that_tells_nothing_of_it() -> None:
    urls = f"{json_url(1)}, {json_url(2)}\n{mail_url(3)} json://elsewhere.example"
    assert list(channels(build_settings(alert_urls=urls))) == ["json", "json 2", "mailto", "json 3"]


def test_the_receivers_of_the_older_settings_stay_beside_the_new_ones_and_a_warning_names_the_new_setting(
    web: WebReceiver,
) -> None:
    settings = build_settings(alert_urls=json_url(web.port), alert_webhook_url=web.url)
    with pytest.warns(FutureWarning, match="WHALEFALL_ALERT_URLS supersedes them"):
        assert list(channels(settings)) == ["json", "webhook"]


@pytest.mark.parametrize(
    ("value", "urls"),
    [
        ("json://a/1,json://b/2", ("json://a/1", "json://b/2")),
        ("json://a/1\njson://b/2\n", ("json://a/1", "json://b/2")),
        (" json://a/1 ,\n  json://b/2,", ("json://a/1", "json://b/2")),
        ("json://a/1, json://a/1", ("json://a/1",)),
        ("mailto://h?to=a@x.com,b@x.com,json://b", ("mailto://h?to=a@x.com,b@x.com", "json://b")),
        (" , \n", ()),
    ],
)
def test_urls_are_separated_by_commas_or_white_space_and_keep_the_commas_within(
    value: str, urls: tuple[str, ...]
) -> None:
    assert split_urls(value) == urls


@pytest.mark.parametrize(
    "bad",
    [
        f"slack://{TOKEN}",
        f"nothing://{TOKEN}",
        f"https://chat.example.com/hooks/{TOKEN}",
        TOKEN,
    ],
)
def test_a_url_that_apprise_cannot_use_is_refused_by_its_place_and_not_shown(bad: str) -> None:
    with pytest.raises(SettingsError) as raised:
        build_settings(alert_urls=f"json://good.example\n{bad}")
    assert str(raised.value).startswith("WHALEFALL_ALERT_URLS: (secret of place 2): must be a URL that apprise can use")
    assert TOKEN not in all_that_it_carries(raised.value)


def test_the_settings_do_not_show_the_urls() -> None:
    settings = build_settings(alert_urls=json_url(1))
    assert TOKEN not in repr(settings) + settings.model_dump_json()
