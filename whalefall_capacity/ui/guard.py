"""The guard in front of the Dagster UI: only its own pages, and programs that are no browser, get through.

A browser sends requests to this machine for whatever page is open in it. Three marks tell them apart, and no page can
forge them: `Host` is the name under which the page was found (another name is DNS rebinding), `Origin` and
`Sec-Fetch-Site` say whose page it is. Scripts send neither of the latter two.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping

from pydantic import HttpUrl
from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from whalefall_capacity.ui.refusal import RefusedError

LOOPBACK_NAMES = ("127.0.0.1", "localhost", "[::1]")
SAFE_METHODS = frozenset({"GET", "HEAD"})
OWN_SITES = frozenset({"same-origin", "none"})
# The UI shows notebooks in frames of its own origin, so that DENY would break it.
HEADERS = {
    "X-Frame-Options": "SAMEORIGIN",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}
# A policy beside the one that Dagster sends with its page: a browser obeys both.
FRAMES = "frame-ancestors 'self'"


def origins_by_host(port: int, ui_url: HttpUrl | None, more_hosts: Iterable[str]) -> Mapping[str, frozenset[str]]:
    """Return each name under which the UI is reached, as in `Host`, with the origins of its pages there."""
    origins: defaultdict[str, set[str]] = defaultdict(set)
    for name in LOOPBACK_NAMES:
        host = name if port == 80 else f"{name}:{port}"
        origins[host].add(f"http://{host}")
    for host in more_hosts:
        origins[host] |= {f"http://{host}", f"https://{host}"}
    if ui_url is not None:
        is_default = ui_url.port == {"http": 80, "https": 443}[ui_url.scheme]
        host = f"{ui_url.host}" if is_default else f"{ui_url.host}:{ui_url.port}"
        # A proxy may pass the name without the port.
        for passed in (host, f"{ui_url.host}"):
            origins[passed].add(f"{ui_url.scheme}://{host}")
    return {host: frozenset(found) for host, found in origins.items()}


class Guard:
    """Refuses what a page of another origin sends, and puts security headers on every answer."""

    def __init__(self, app: ASGIApp, origins: Mapping[str, frozenset[str]]) -> None:
        self._app = app
        self._origins = origins

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        try:
            self._check(scope)
        except RefusedError as refusal:
            await refusal.answer(scope, receive, _with_headers(send))
        else:
            await self._app(scope, receive, _with_headers(send))

    def _check(self, scope: Scope) -> None:
        """Raise RefusedError for a Host that is not ours, and for what another page sends."""
        headers = Headers(scope=scope)
        hosts = [host.lower() for host in headers.getlist("host")]
        if len(hosts) != 1 or hosts[0] not in self._origins:
            raise RefusedError(
                421,
                f"The Dagster UI is not known as {_shown(hosts)}. Open it as 127.0.0.1 or localhost with its port, or "
                "set WHALEFALL_UI_URL or WHALEFALL_UI_HOSTS.",
            )
        origins = headers.getlist("origin")
        if not self._origins[hosts[0]].issuperset(origins):
            raise RefusedError(
                403,
                f"A page of {_shown(origins)} may not use the Dagster UI at {hosts[0]}. If this is the address under "
                "which you opened the UI, set WHALEFALL_UI_URL to it.",
            )
        site = headers.get("sec-fetch-site", "none")
        if site not in OWN_SITES and not _follows_a_link(scope, headers):
            raise RefusedError(
                403, f"A page of another origin may only link to the Dagster UI (Sec-Fetch-Site: {site})."
            )


def _follows_a_link(scope: Scope, headers: Headers) -> bool:
    """Does somebody open the page itself, in a tab, as a link of the console or of a chat does?"""
    return (
        scope.get("method") in SAFE_METHODS
        and headers.get("sec-fetch-mode") == "navigate"
        and headers.get("sec-fetch-dest") == "document"
    )


def _shown(values: list[str]) -> str:
    return ", ".join(repr(value[:100]) for value in values) or "nothing"


def _with_headers(send: Send) -> Send:
    async def send_with_headers(message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = MutableHeaders(scope=message)
            for name, value in HEADERS.items():
                headers.setdefault(name, value)
            headers.append("Content-Security-Policy", FRAMES)
        await send(message)

    return send_with_headers
