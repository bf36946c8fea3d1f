"""`alert test`: whether alerts arrive, before they are needed."""

from __future__ import annotations

import os

import pytest

from whalefall_capacity.settings import PREFIX
from whalefall_capacity_tests.alerts.receivers import TOKEN, mail_receiver, web_receiver
from whalefall_capacity_tests.commands.conftest import CommandLine


def test_every_receiver_that_is_set_gets_the_message(whalefall: CommandLine) -> None:
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
    assert "alerts are off: set WHALEFALL_ALERT_WEBHOOK_URL, or WHALEFALL_ALERT_SMTP_URL" in done.err


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
