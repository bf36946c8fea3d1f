"""`alert test`: whether alerts arrive, before they are needed."""

from __future__ import annotations

import os

import pytest

from whalefall_capacity.settings import PREFIX
from whalefall_capacity_tests.alerts.receivers import TOKEN, mail_receiver, web_receiver
from whalefall_capacity_tests.commands.conftest import CommandLine

pytestmark = pytest.mark.filterwarnings("ignore:WHALEFALL_ALERT_WEBHOOK_URL and WHALEFALL_ALERT_SMTP_URL still work")


def test_every_service_of_the_urls_gets_the_message(whalefall: CommandLine) -> None:
    with web_receiver() as web, mail_receiver() as mail:
        os.environ[f"{PREFIX}ALERT_URLS"] = (
            f"json://127.0.0.1:{web.port}, mailto://127.0.0.1:{mail.port}?from=dba@example.com&to=oncall@example.com"
        )
        done = whalefall("alert", "test")
    assert (done.status, done.out) == (0, "json: sent\nmailto: sent\n")
    assert web.received[0]["title"] == "whalefall_capacity: test message"
    assert mail.mails[0]["Subject"] == "whalefall_capacity: test message"


def test_a_service_that_refuses_is_told_without_its_address_and_the_other_still_served(whalefall: CommandLine) -> None:
    with web_receiver() as refusing, web_receiver() as web:
        refusing.status = 401
        os.environ[f"{PREFIX}ALERT_URLS"] = f"json://127.0.0.1:{refusing.port}/{TOKEN},json://127.0.0.1:{web.port}"
        done = whalefall("alert", "test")
    assert done.status == 1
    assert done.out == "json 2: sent\n"
    assert done.err == "json: the service answered 401\nerror: the test message was not sent by json\n"
    assert TOKEN not in done.out + done.err


def test_every_receiver_of_the_older_settings_gets_the_message(whalefall: CommandLine) -> None:
    with web_receiver() as web, mail_receiver() as mail:
        os.environ[f"{PREFIX}ALERT_WEBHOOK_URL"] = web.url
        os.environ[f"{PREFIX}ALERT_SMTP_URL"] = f"smtp://127.0.0.1:{mail.port}"
        os.environ[f"{PREFIX}ALERT_EMAIL_FROM"] = "dba@example.com"
        os.environ[f"{PREFIX}ALERT_EMAIL_TO"] = "oncall@example.com, boss@example.com"
        done = whalefall("alert", "test")
    assert (done.status, done.out) == (0, "webhook: sent\nemail: sent\n")
    assert web.received[0]["title"] == "test message"
    assert mail.mails[0]["Subject"] == "whalefall_capacity: test message"


def test_one_receiver_that_refuses_is_told_without_its_address_and_the_other_still_served(
    whalefall: CommandLine,
) -> None:
    with web_receiver() as web, mail_receiver() as mail:
        web.status = 500
        os.environ[f"{PREFIX}ALERT_WEBHOOK_URL"] = web.url
        os.environ[f"{PREFIX}ALERT_SMTP_URL"] = f"smtp://127.0.0.1:{mail.port}"
        os.environ[f"{PREFIX}ALERT_EMAIL_FROM"] = "dba@example.com"
        os.environ[f"{PREFIX}ALERT_EMAIL_TO"] = "oncall@example.com"
        done = whalefall("alert", "test")
    assert done.status == 1
    assert done.out == "email: sent\n"
    assert done.err == "webhook: the webhook answered 500\nerror: the test message was not sent by webhook\n"
    assert TOKEN not in done.out + done.err


def test_without_a_receiver_it_fails_and_says_what_to_set(whalefall: CommandLine) -> None:
    done = whalefall("alert", "test")
    assert done.status == 1
    assert "alerts are off: set WHALEFALL_ALERT_URLS" in done.err


@pytest.mark.parametrize("unset", ["FROM", "TO"])
def test_a_mail_server_needs_a_sender_and_recipients(whalefall: CommandLine, unset: str) -> None:
    for name, value in {
        "SMTP_URL": "smtp://127.0.0.1",
        "EMAIL_FROM": "dba@example.com",
        "EMAIL_TO": "a@example.com",
    }.items():
        os.environ[f"{PREFIX}ALERT_{name}"] = "" if name.endswith(unset) else value
    done = whalefall("alert", "test")
    assert done.status == 1
    assert done.err == f"error: WHALEFALL_ALERT_EMAIL_{unset}: must be set beside WHALEFALL_ALERT_SMTP_URL\n"
