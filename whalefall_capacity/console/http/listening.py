"""Serving an application with uvicorn: who is believed, and how long a request may take to arrive."""

from __future__ import annotations

import logging
import signal

import uvicorn
from starlette.types import ASGIApp, Receive, Scope, Send

from whalefall_capacity.console.http.prompt_protocol import PromptProtocol
from whalefall_capacity.settings import Settings
from whalefall_capacity.signals import handled_by

# Fewer than the files that a process may open.
MOST_CONNECTIONS = 500
UNTRUSTED_PROXY = (
    "X-Forwarded-For or -Proto came from %s, which is no trusted proxy: it was ignored. If that is your proxy, set "
    "WHALEFALL_TRUSTED_PROXIES=%s; until then everybody behind it counts as one address, and cookies lack Secure"
)

logger = logging.getLogger(__name__)


class ForwardedNotice:
    """Says, once, that a proxy forwards what is not believed."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self._told = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if not self._told and any(name.startswith(b"x-forwarded-") for name, _ in scope.get("headers", ())):
            self._told = True
            address = scope["client"][0] if scope.get("client") else "a socket"
            logger.warning(UNTRUSTED_PROXY, address, address)
        await self._app(scope, receive, send)


def listen(app: ASGIApp, settings: Settings, host: str, port: int) -> None:
    """Serve *app* until a signal."""
    proxies = list(settings.trusted_proxies)
    server = uvicorn.Server(
        uvicorn.Config(
            app if proxies else ForwardedNotice(app),
            host=host,
            port=port,
            http=PromptProtocol,
            log_level="warning",
            server_header=False,
            proxy_headers=bool(proxies),
            forwarded_allow_ips=proxies,
            limit_concurrency=MOST_CONNECTIONS,
            timeout_graceful_shutdown=5,
        )
    )
    # uvicorn knows two of the signals; raised in the midst of its loop, the third could be lost there.
    with handled_by(signal.SIGHUP, server.handle_exit):
        server.run()
