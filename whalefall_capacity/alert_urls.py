"""URLs of the receivers of alerts, as apprise reads them: each of its services has a scheme of its own.

The URL alone decides where an alert goes and how: no configuration file and no plug-in folder of apprise is read,
nothing is kept on disk, and no redirection is followed unless the URL says so. What apprise logs goes nowhere, for it
quotes addresses.
"""

from __future__ import annotations

import logging
import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from apprise import NotifyBase

# A comma may also stand within a URL, between recipients; white space never does.
BETWEEN_URLS = re.compile(r"\s+|,(?=\s*[A-Za-z][A-Za-z0-9+.-]*://)")


def split_urls(value: str) -> tuple[str, ...]:
    """Return the URLs in *value*, which commas or white space separate, each once."""
    parts = (part.strip(",") for part in BETWEEN_URLS.split(value))
    return tuple(dict.fromkeys(part for part in parts if part))


def service_of(url: str) -> NotifyBase | None:
    """Return the service that *url* names; None where apprise cannot use it."""
    from apprise import Apprise, AppriseAsset, OverflowMode

    logger = logging.getLogger("apprise")
    logger.propagate = False
    # The result of a notification carries what was logged of it: from here on which recipients took it.
    logger.setLevel(logging.INFO)
    asset = AppriseAsset(app_id="whalefall_capacity", async_mode=False, http_redirects=False, service_timeout=0)
    service = Apprise.instantiate(url, asset=asset)
    if service is None:
        return None
    # When to try again is our decision, and a failure is never a success, whatever the URL asks for.
    service.retry, service.optional = 0, False
    if "overflow=" not in url:
        # A message that is longer than the service takes would be refused each time.
        service.overflow_mode = OverflowMode.SPLIT
    return service
