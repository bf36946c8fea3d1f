"""Receivers of alerts for the tests of their delivery."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from whalefall_capacity_tests.alerts.receivers import Mailbox, WebReceiver, mail_receiver, web_receiver


@pytest.fixture
def web() -> Iterator[WebReceiver]:
    """A web server that takes what is posted to it."""
    with web_receiver() as receiver:
        yield receiver


@pytest.fixture
def mail() -> Iterator[Mailbox]:
    """A mail server that takes what is sent to it."""
    with mail_receiver() as receiver:
        yield receiver
