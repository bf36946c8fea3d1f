"""`whalefall-capacity alert`: a test of the delivery of alerts."""

from __future__ import annotations

import typer

from whalefall_capacity.alerts.message import trial
from whalefall_capacity.alerts.transports import channels
from whalefall_capacity.commands.output import err, say
from whalefall_capacity.errors import AlertError
from whalefall_capacity.periods import utc_now
from whalefall_capacity.settings import load_settings

app = typer.Typer(help="Messages about failures, sent to chats, mail and pagers.", no_args_is_help=True)


@app.callback()
def alert() -> None:
    """Messages about failures, sent to chats, mail and pagers."""


@app.command()
def test() -> None:
    """Send a test message to every configured receiver of alerts. Exits with 1 if one does not accept it.

    Example: whalefall-capacity alert test
    """
    settings = load_settings()
    found = channels(settings)
    if not found:
        raise AlertError("alerts are off: set WHALEFALL_ALERT_URLS; see docs/alerts.md")
    message = trial(utc_now().astimezone(settings.zone))
    failed = []
    for name, send in found.items():
        try:
            note = send(message)
        except AlertError as error:
            say(f"{name}: {error}", err)
            failed.append(name)
        else:
            say(f"{name}: sent" + (f"; {note}" if note else ""))
    if failed:
        raise AlertError(f"the test message was not sent by {' and '.join(failed)}")
