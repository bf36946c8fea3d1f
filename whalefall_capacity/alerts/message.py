"""Text of an alert: what failed, where, since when, where to look, and what to do next."""

from __future__ import annotations

import hashlib
from datetime import date, datetime, timezone

from pydantic import BaseModel, ConfigDict, Field

from whalefall_capacity.printable import first_of, printable, printable_lines

# A chat shows no more, and nobody reads a thousand names in a mail.
NAMES_SHOWN = 20
LONGEST_TEXT = 2000


class Alert(BaseModel):
    """A message; *cause* and *day* say which alerts are the same one.

    One of the same cause is not sent again before *quiet_days* are over: 1 is once a day, 7 once a week.
    """

    model_config = ConfigDict(frozen=True)

    cause: str
    day: date
    title: str
    what: str
    where: tuple[str, ...] = ()
    since: datetime | None = None
    link: str | None = None
    remedy: str
    # For the one that files it; receivers have no use for it.
    quiet_days: int = Field(default=1, exclude=True)

    @property
    def key(self) -> str:
        """The same for each attempt to send this alert, so that a receiver can tell a repetition."""
        return hashlib.sha256(f"{self.cause}\n{self.day}".encode()).hexdigest()[:32]

    @property
    def subject(self) -> str:
        """One line, whatever names are in it."""
        return printable(" ".join(f"whalefall_capacity: {self.title}".split()))

    @property
    def text(self) -> str:
        """The whole message for people."""
        return f"{self.subject}\n\n{self.body}"

    @property
    def body(self) -> str:
        """The message without its subject."""
        lines = [f"What: {_short(printable_lines(self.what))}"]
        if self.where:
            lines.append(f"Where: {printable(first_of(self.where, NAMES_SHOWN))}")
        if self.since is not None:
            lines.append(f"Since: {self.since:%Y-%m-%d %H:%M %Z}")
        if self.link is not None:
            lines.append(f"Link: {self.link}")
        return "\n".join([*lines, f"Next: {_short(self.remedy)}"])


def trial(now: datetime) -> Alert:
    """Return the alert of `alert test`."""
    return Alert(
        cause=f"test {now.astimezone(timezone.utc).isoformat()}",
        day=now.date(),
        title="test message",
        what="nothing failed: this message was asked for with `whalefall-capacity alert test`",
        since=now,
        remedy="nothing; alerts arrive here",
    )


def _short(content: str) -> str:
    return content if len(content) <= LONGEST_TEXT else f"{content[: LONGEST_TEXT - 1]}…"
