"""The guard in front of the Dagster UI: only its own pages, and programs that are no browser, get through.

A browser sends requests to this machine for whatever page is open in it. Three marks tell them apart, and no page can
forge them: `Host` is the name under which the page was found (another name is DNS rebinding), `Origin` and
`Sec-Fetch-Site` say whose page it is. Scripts send neither of the latter two.
"""

from __future__ import annotations

from pydantic import HttpUrl
from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from whalefall_capacity.console.http.hosts import HOST_REFUSED, is_allowed
from whalefall_capacity.ui.refusal import RefusedError

SAFE_METHODS = frozenset({"GET", "HEAD"})
OWN_SITES = frozenset({"same-origin", "none"})
DEFAULT_PORTS = {"http": 80, "https": 443}
# The UI shows notebooks in frames of its own origin: DENY would break that.
HEADERS = {
    "X-Frame-Options": "SAMEORIGIN",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}
# A policy beside the one that Dagster sends with its page: a browser obeys both.
FRAME_POLICY = "frame-ancestors 'self'"


class Guard:
    """Refuses what a page of another origin sends, and puts security headers on every answer."""

    def __init__(self, app: ASGIApp, hosts: frozenset[str], ui_url: HttpUrl | None) -> None:
        self._app = app
        self._hosts = hosts
        self._ui_origin = None if ui_url is None else _origin(ui_url)

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
        if not is_allowed(scope["headers"], self._hosts):
            raise RefusedError(400, HOST_REFUSED)
        headers = Headers(scope=scope)
        for origin in headers.getlist("origin"):
            if origin != self._ui_origin and origin not in _own_origins(scope, headers["host"]):
                raise RefusedError(
                    403,
                    f"A page of {origin[:100]!r} may not use the Dagster UI. If this is the address under which you "
                    "opened the UI, set WHALEFALL_UI_URL to it.",
                )
        site = headers.get("sec-fetch-site", "none")
        if site not in OWN_SITES and not _follows_a_link(scope, headers):
            raise RefusedError(403, f"A page of another origin may only link to the Dagster UI ({site[:100]!r}).")


def _origin(url: HttpUrl) -> str:
    """Return the origin of the pages at *url*, as a browser sends it."""
    host = str(url.host)
    return f"{url.scheme}://{host}" if url.port == DEFAULT_PORTS[url.scheme] else f"{url.scheme}://{host}:{url.port}"


def _own_origins(scope: Scope, host: str) -> set[str]:
    """Return the origins of the pages that are found under *host*; a proxy may not say that it speaks TLS."""
    schemes = {"https"} if scope["scheme"] in {"https", "wss"} else {"http", "https"}
    return {f"{scheme}://{host.lower()}" for scheme in schemes}


def _follows_a_link(scope: Scope, headers: Headers) -> bool:
    """Does somebody open the page itself, in a tab, as a link of the console or of a chat does?"""
    return (
        scope.get("method") in SAFE_METHODS
        and headers.get("sec-fetch-mode") == "navigate"
        and headers.get("sec-fetch-dest") == "document"
    )


def _with_headers(send: Send) -> Send:
    async def send_with_headers(message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = MutableHeaders(scope=message)
            for name, value in HEADERS.items():
                headers.setdefault(name, value)
            headers.append("Content-Security-Policy", FRAME_POLICY)
        await send(message)

    return send_with_headers
