"""Delivery of alerts within a bounded time: by apprise, and by the webhook and the mail server of the older settings.

Those two keep transports of their own, because apprise would not send their receivers the same. Its mail goes to each
recipient in a message of its own, so one that runs out of time would be sent again to those who have it; it reads some
addresses as others (`o'brien@example.com` as `brien@example.com`), drops those at an IP address, and names neither who
was refused nor why. Its JSON has no lists, no nulls and no key of the alert.

An AlertError tells the kind of trouble, and never the address, which is a secret of a webhook, nor the words of a
library, which quotes the address.
"""

from __future__ import annotations

import logging
import os
import re
import smtplib
import ssl
import threading
import warnings
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from email.message import EmailMessage
from email.utils import formatdate
from functools import partial
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

from pydantic import SecretStr

from whalefall_capacity.alert_urls import service_of
from whalefall_capacity.alerts.message import Alert
from whalefall_capacity.errors import AlertError
from whalefall_capacity.settings import Settings

if TYPE_CHECKING:
    from apprise import NotifyBase

WEBHOOK, EMAIL, HEARTBEAT = "webhook", "email", "heartbeat"
# For one wait on the network.
TIMEOUT_SECONDS = 10.0
# For one message, however slowly the other side answers.
DEADLINE_SECONDS = 20.0
RECEIVERS: Mapping[str, str] = {
    WEBHOOK: "the webhook",
    EMAIL: "the mail server",
    HEARTBEAT: "the service of the heartbeat",
}
SMTP_PORTS: Mapping[str, int] = {"smtp": 25, "smtp+starttls": 587, "smtps": 465}
# The first that fits; in no word of the server, which may repeat what it was given.
MAIL_TROUBLES: Sequence[tuple[type[Exception], str]] = (
    (smtplib.SMTPAuthenticationError, "the mail server refused the user or the password ({code})"),
    (smtplib.SMTPRecipientsRefused, "the mail server refused every recipient"),
    (smtplib.SMTPResponseException, "the mail server answered {code}"),
    (smtplib.SMTPNotSupportedError, "the mail server does not offer STARTTLS or a login"),
    (ssl.SSLError, "TLS with the mail server failed: its certificate is not trusted, or its port speaks no TLS"),
    (TimeoutError, "the mail server hung up, or did not answer within {limit:g} s"),
    # The library makes the one of the other once the server has greeted.
    (smtplib.SMTPServerDisconnected, "the mail server hung up, or did not answer within {limit:g} s"),
    (Exception, "the mail server cannot be reached ({error})"),
)

# Sends an alert and returns what was not perfect about it, None when nothing was. Raises AlertError.
Channel = Callable[[Alert], str | None]


def channels(settings: Settings) -> dict[str, Channel]:
    """Return the channels in the settings by the names that the store knows them by; none by default."""
    _keep_secrets()
    sends: dict[str, Channel] = {
        name: partial(send_by_service, service) for name, service in _services(settings).items()
    }
    webhook, smtp, sender = settings.alert_webhook_url, settings.alert_smtp_url, settings.alert_email_from
    if webhook is not None:
        sends[WEBHOOK] = partial(send_webhook, webhook)
    if smtp is not None and sender is not None:
        sends[EMAIL] = partial(send_email, smtp, sender, settings.alert_email_to)
    if WEBHOOK in sends or EMAIL in sends:
        # Shown once per process: Python shows a warning of the same line only once.
        warnings.warn(
            "WHALEFALL_ALERT_WEBHOOK_URL and WHALEFALL_ALERT_SMTP_URL still work, but WHALEFALL_ALERT_URLS supersedes "
            "them: see docs/alerts.md",
            FutureWarning,
            stacklevel=1,
        )
    return {
        name: partial(_send_within_deadline, send, RECEIVERS.get(name, "the service")) for name, send in sends.items()
    }


def _services(settings: Settings) -> dict[str, NotifyBase]:
    """Return the service of each URL by its scheme, the second of a scheme as `json 2`.

    The name reveals nothing of the URL, and stays if the URL is corrected: waiting alerts then go to the new one.
    """
    found: dict[str, NotifyBase] = {}
    counts: Counter[str] = Counter()
    for url in settings.alert_urls:
        service = service_of(url.get_secret_value())
        # The settings have validated each.
        assert service is not None
        counts[service.schema] += 1
        count = counts[service.schema]
        found[service.schema if count == 1 else f"{service.schema} {count}"] = service
    return found


def send_by_service(service: NotifyBase, alert: Alert) -> str | None:
    """Send *alert* through apprise. Raises AlertError unless the service took it, for one recipient at least."""
    from apprise import Apprise, NotifyFormat, NotifyType

    result = Apprise(service, asset=service.asset).notify(
        alert.body,
        title=alert.subject,
        notify_type=NotifyType.WARNING,
        body_format=NotifyFormat.TEXT,
        log_level=logging.INFO,
    )
    if result:
        return None
    logged = [entry.message for entry in result.logs()]
    # Its services log this for each recipient. Those who have the message would get it again with every attempt.
    if len(service) > 1 and any(line.startswith("Sent ") for line in logged):
        return "the service did not take it for every recipient"
    # Only the status of the answer is sure to contain no secret.
    statuses = [match[1] for line in logged for match in re.finditer(r"error=(\d{3})\b", line)]
    raise AlertError(
        f"the service answered {statuses[-1]}" if statuses else "the service cannot be reached, or refused the message"
    )


def send_webhook(url: SecretStr, alert: Alert) -> None:
    """Post *alert* as JSON; `text` is the whole message, as chats want it.

    Raises AlertError unless the answer is 2xx.
    """
    _request(
        "POST",
        url,
        RECEIVERS[WEBHOOK],
        json=alert.model_dump(mode="json") | {"key": alert.key, "text": alert.text},
        headers={"Idempotency-Key": alert.key},
    )


def call_heartbeat(url: SecretStr) -> None:
    """Call *url*, within a bounded time. Raises AlertError unless the answer is 2xx."""
    _keep_secrets()
    _within_deadline(lambda: _request("GET", url, RECEIVERS[HEARTBEAT]), RECEIVERS[HEARTBEAT])


def _keep_secrets() -> None:
    """Let nothing log the path of a request, which is the secret of a webhook, and nothing send a secret of others.

    At DEBUG urllib3 would do the former. To `requests`, and so to apprise, a .netrc of the account is of more weight
    than the user and password of a URL, and its `default` entry is for every host.
    """
    logging.getLogger("urllib3.connectionpool").setLevel(logging.INFO)
    os.environ["NETRC"] = os.devnull


def _request(method: str, url: SecretStr, receiver: str, **content: Any) -> None:
    """Send a request. Raises AlertError, with no word of the address, unless the answer is 2xx."""
    import requests

    try:
        with requests.request(
            method,
            url.get_secret_value(),
            **content,
            timeout=TIMEOUT_SECONDS,
            # A redirect could hand the message to somebody else, or turn the POST into an empty GET.
            allow_redirects=False,
            # The body of the answer is not needed.
            stream=True,
        ) as answer:
            status = answer.status_code
    except requests.Timeout:
        raise AlertError(f"{receiver} did not answer within {TIMEOUT_SECONDS:g} s") from None
    except requests.exceptions.SSLError:
        raise AlertError(f"the certificate of {receiver} is not trusted") from None
    except requests.ConnectionError:
        raise AlertError(f"{receiver} cannot be reached, or hung up") from None
    if not 200 <= status < 300:
        raise AlertError(f"{receiver} answered {status}")


def send_email(url: SecretStr, sender: str, recipients: tuple[str, ...], alert: Alert) -> str | None:
    """Mail *alert*. Raises AlertError unless the server took it for one recipient at least."""
    message = EmailMessage()
    message["Subject"] = alert.subject
    message["From"] = sender
    message["To"] = ", ".join(recipients)
    message["Date"] = formatdate()
    message["Message-ID"] = f"<{alert.key}@whalefall-capacity>"
    message["Auto-Submitted"] = "auto-generated"
    message.set_content(alert.text)
    try:
        refused = _mail(url, sender, recipients, message)
    except (OSError, smtplib.SMTPException) as error:
        trouble = next(text for kind, text in MAIL_TROUBLES if isinstance(error, kind))
        code = error.smtp_code if isinstance(error, smtplib.SMTPResponseException) else None
        raise AlertError(trouble.format(code=code, limit=TIMEOUT_SECONDS, error=type(error).__name__)) from None
    return f"the mail server refused {', '.join(sorted(refused))}" if refused else None


def _mail(
    url: SecretStr, sender: str, recipients: tuple[str, ...], message: EmailMessage
) -> Mapping[str, tuple[int, bytes]]:
    """Hand over *message* and return which recipients were refused, when not all were."""
    parts = urlsplit(url.get_secret_value())
    host, port = parts.hostname or "", parts.port or SMTP_PORTS[parts.scheme]
    tls = ssl.create_default_context()
    server: smtplib.SMTP
    if parts.scheme == "smtps":
        server = smtplib.SMTP_SSL(host, port, timeout=TIMEOUT_SECONDS, context=tls)
    else:
        server = smtplib.SMTP(host, port, timeout=TIMEOUT_SECONDS)
    try:
        if parts.scheme == "smtp+starttls":
            server.starttls(context=tls)
        if parts.username is not None:
            server.login(unquote(parts.username), unquote(parts.password or ""))
        return server.send_message(message, sender, list(recipients))
    finally:
        # Not quit(): if that failed, a message that was accepted would be sent again.
        server.close()


def _send_within_deadline(send: Channel, receiver: str, alert: Alert) -> str | None:
    """Send *alert*. Raises AlertError if that takes too long; the thread is left to end on its own."""
    return _within_deadline(lambda: send(alert), receiver)


def _within_deadline(send: Callable[[], str | None], receiver: str) -> str | None:
    """Call *send*. Raises AlertError if that takes too long; the thread is left to end on its own."""
    notes: list[str | None] = []
    troubles: list[str] = []

    def work() -> None:
        try:
            notes.append(send())
        except AlertError as error:
            troubles.append(str(error))
        except Exception as error:
            # Its text may contain the address.
            troubles.append(f"{receiver} cannot be used ({type(error).__name__})")

    worker = threading.Thread(target=work, daemon=True)
    worker.start()
    worker.join(DEADLINE_SECONDS)
    if notes:
        return notes[0]
    # A new error: the causes chained to the thread's own contain the address.
    raise AlertError(troubles[0] if troubles else f"{receiver} did not take the message within {DEADLINE_SECONDS:g} s")
