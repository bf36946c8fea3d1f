"""The host names that are answered: loopback and what the settings name.

A page anywhere can let its own name point to our address (DNS rebinding): its requests are then of our origin to the
browser, cookies and all. Only the Host header tells that the name is another one.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from ipaddress import IPv6Address

from pydantic import HttpUrl
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from whalefall_capacity.settings import EVERY_ADDRESS, Settings

LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})
HOST_HEADER = re.compile(r"(?:\[(?P<ipv6>[0-9a-f:.]+)\]|(?P<name>[a-z0-9._-]+))(?::\d{1,5})?")
HOST_REFUSED = (
    "This host name is not answered. Add it to WHALEFALL_ALLOWED_HOSTS if it is yours, and restart; "
    "docs/security.md says what that is for.\n"
)


def allowed_hosts(settings: Settings) -> frozenset[str]:
    """Return every name that requests may be for, of the console and of the Dagster UI."""
    own = set() if settings.console_host in EVERY_ADDRESS else {_compared(settings.console_host)}
    return LOOPBACK | own | set(settings.allowed_hosts) | _hosts_of(settings.ui_url, settings.webserver_url)


def host_name(header: str) -> str | None:
    """Return the host of a Host header, without its port and as it is compared; None when it is none."""
    found = HOST_HEADER.fullmatch(header.lower())
    if found is None:
        return None
    if found["ipv6"] is None:
        return found["name"]
    try:
        return str(IPv6Address(found["ipv6"]))
    except ValueError:
        return None


def is_allowed(headers: Iterable[tuple[bytes, bytes]], allowed: frozenset[str]) -> bool:
    """Tell whether a request with *headers*, as ASGI has them, is for exactly one host, and an allowed one."""
    hosts = [value.decode("latin-1") for name, value in headers if name == b"host"]
    return len(hosts) == 1 and host_name(hosts[0]) in allowed


class AllowedHosts:
    """Refuses requests and websockets for any other host, before anything else looks at them."""

    def __init__(self, app: ASGIApp, allowed: frozenset[str]) -> None:
        self._app = app
        self._allowed = allowed

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan" or is_allowed(scope["headers"], self._allowed):
            await self._app(scope, receive, send)
        elif scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1008})
        else:
            await PlainTextResponse(HOST_REFUSED, 400)(scope, receive, send)


def _compared(host: str) -> str:
    """Return a host as `host_name` returns it: an address may be written in several ways."""
    return host_name(f"[{host}]") or host.lower()


def _hosts_of(*urls: HttpUrl | None) -> set[str]:
    return {url.host.strip("[]") for url in urls if url is not None and url.host}
