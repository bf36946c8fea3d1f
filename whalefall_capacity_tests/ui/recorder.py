"""A stand-in for the Dagster webserver: it notes what reaches it, over HTTP and over its websocket."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from starlette.requests import HTTPConnection, Request
from starlette.responses import JSONResponse
from starlette.types import Receive, Scope, Send
from starlette.websockets import WebSocket, WebSocketDisconnect

from whalefall_capacity.ui.server import may_change


@dataclass
class Recorder:
    """Answers everything; *reached* has the path, what came with it, and whether the sender may change anything."""

    reached: list[tuple[str, Any, bool]] = field(default_factory=list)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "websocket":
            await self._talk(WebSocket(scope, receive, send))
            return
        request = Request(scope, receive)
        body = (await request.body()).decode()
        self.reached.append((scope["path"], body, may_change(HTTPConnection(scope))))
        answer = JSONResponse({"data": "reached"}, headers={"Content-Security-Policy": "base-uri 'none'"})
        await answer(scope, receive, send)

    async def _talk(self, websocket: WebSocket) -> None:
        await websocket.accept("graphql-ws")
        try:
            while True:
                message = await websocket.receive_json()
                self.reached.append((websocket.url.path, message, may_change(websocket)))
                await websocket.send_json({"type": "data"})
        except WebSocketDisconnect:
            pass
