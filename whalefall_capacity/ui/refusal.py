"""Refusals of the guard: a status and a text for people, over HTTP and before a websocket opens."""

from __future__ import annotations

from starlette.datastructures import Headers
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.types import Receive, Scope, Send

GRAPHQL = "/graphql"
# Of RFC 6455: the message breaks a policy of the server.
POLICY_VIOLATION = 1008


class RefusedError(Exception):
    """A request that goes no further."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.message = message

    async def answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the refusal; a websocket is closed before it opens, which the browser sees as 403."""
        if scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": POLICY_VIOLATION, "reason": ""})
            return
        await self._response(scope)(scope, receive, send)

    def _response(self, scope: Scope) -> Response:
        headers = {"Cache-Control": "no-store"}
        if self.status == 401:
            headers["WWW-Authenticate"] = "Bearer"
        # What speaks GraphQL looks for errors in this form.
        if is_graphql(scope) and "text/html" not in Headers(scope=scope).get("accept", ""):
            return JSONResponse({"data": None, "errors": [{"message": self.message}]}, self.status, headers)
        return PlainTextResponse(self.message + "\n", self.status, headers)


def is_graphql(scope: Scope) -> bool:
    """Is the request for Dagster's GraphQL endpoint?"""
    path: str = scope["path"]
    return path.rstrip("/") == GRAPHQL
