"""Rules for GraphQL documents sent to Dagster: mutations by POST of JSON alone, and by no reader at all.

Dagster runs mutations by GET, and by a POST of any content type with the query in the URL: any page can send both. So
documents are looked at here, before they get there, with the parser that Dagster reads them with. The websocket is for
subscriptions, and carries nothing else.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from functools import lru_cache
from typing import Any

from graphql import GraphQLError, OperationDefinitionNode, OperationType, parse
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from whalefall_capacity.launch_request import is_launch_by_operator
from whalefall_capacity.ui.guard import SAFE_METHODS
from whalefall_capacity.ui.refusal import POLICY_VIOLATION, RefusedError, is_graphql

# In the scope of a request: the role of whoever sends it, that of the console.
ROLE = "whalefall.role"
VIEW, OPERATOR, ADMIN = "view", "operator", "admin"
# Forms and pages of other origins cannot send this type without asking us first, and we never agree.
CONTENT_TYPE = "application/json"
# While a document is parsed, everybody waits: that of a reader, or of a websocket, is small.
LARGEST_DOCUMENT = 256 * 1024


class DocumentRules:
    """Refuses documents that the request, or whoever sends it, may not carry."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "websocket":
            await self._app(scope, _subscriptions_only(receive, send), send)
            return
        if scope["type"] == "http":
            try:
                scope, receive = await _checked(scope, receive)
            except RefusedError as refusal:
                await refusal.answer(scope, receive, send)
                return
        await self._app(scope, receive, send)


async def _checked(scope: Scope, receive: Receive) -> tuple[Scope, Receive]:
    """Return the scope of the request, and what its body is received with, from here on. Raises RefusedError."""
    request = Request(scope, receive)
    if request.method in SAFE_METHODS:
        if is_graphql(scope):
            _require(OperationType.QUERY, request.query_params.getlist("query"), 405, "by GET")
        return scope, receive
    types = request.headers.getlist("content-type")
    # In the very letters that Dagster looks for: of others it takes the query in the URL.
    if len(types) != 1 or types[0].partition(";")[0].strip() != CONTENT_TYPE:
        raise RefusedError(
            415, f"Send this as {CONTENT_TYPE}: other content types are those of forms, which any page can send."
        )
    role = scope.get(ROLE, VIEW)
    if role == ADMIN:
        return scope, receive
    if not is_graphql(scope):
        raise RefusedError(403, "This takes the role admin.")
    body = await _read(request)
    if role == OPERATOR and is_launch_by_operator(_object_in(body)):
        # To Dagster this one document is that of somebody who may change things.
        return {**scope, ROLE: ADMIN}, _replayed(body, receive)
    _require(OperationType.QUERY, [_text_of(_object_in(body).get("query"))], 403, f"with the role {role}")
    return scope, _replayed(body, receive)


def _require(only: OperationType, documents: Iterable[str], status: int, how: str) -> None:
    """Raise RefusedError when a document has an operation of another type than *only*."""
    for document in documents:
        others = sorted(kind.value for kind in _operations(document) - {only})
        if others:
            raise RefusedError(status, f"No {others[0]} can be sent {how}.")


# The UI sends the same documents again and again, and to parse one takes milliseconds.
@lru_cache(maxsize=128)
def _operations(document: str) -> frozenset[OperationType]:
    try:
        definitions = parse(document, no_location=True).definitions
    except (GraphQLError, RecursionError) as error:
        raise RefusedError(400, f"This is no GraphQL document: {error}") from error
    return frozenset(node.operation for node in definitions if isinstance(node, OperationDefinitionNode))


async def _read(request: Request) -> bytes:
    parts = []
    size = 0
    async for part in request.stream():
        size += len(part)
        if size > LARGEST_DOCUMENT:
            raise RefusedError(413, f"With this role a request has at most {LARGEST_DOCUMENT // 1024} KiB.")
        parts.append(part)
    return b"".join(parts)


def _replayed(body: bytes, receive: Receive) -> Receive:
    """Return a receive that gives the body that was read, then what comes after it."""
    waiting = [body]

    async def replay() -> Message:
        if waiting:
            return {"type": "http.request", "body": waiting.pop(), "more_body": False}
        return await receive()

    return replay


def _object_in(text: str | bytes) -> dict[str, Any]:
    try:
        found = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise RefusedError(400, "This is no JSON.") from error
    if not isinstance(found, dict):
        raise RefusedError(400, "This is no JSON object.")
    return found


def _text_of(value: object) -> str:
    if not isinstance(value, str):
        raise RefusedError(400, "There is no GraphQL query in this.")
    return value


def _subscriptions_only(receive: Receive, send: Send) -> Receive:
    """Return a receive that ends the websocket when a message starts anything but a subscription."""

    async def receive_checked() -> Message:
        message = await receive()
        if message["type"] != "websocket.receive":
            return message
        try:
            _check_message(message.get("text"))
        except RefusedError as refusal:
            await send({"type": "websocket.close", "code": POLICY_VIOLATION, "reason": refusal.message[:100]})
            return {"type": "websocket.disconnect", "code": POLICY_VIOLATION}
        return message

    return receive_checked


def _check_message(text: str | None) -> None:
    if text is not None and len(text) > LARGEST_DOCUMENT:
        raise RefusedError(413, f"A message has at most {LARGEST_DOCUMENT // 1024} KiB.")
    message = _object_in(_text_of(text))
    if message.get("type") != "start":
        return
    payload = message.get("payload")
    query = _text_of(payload.get("query") if isinstance(payload, dict) else None)
    _require(OperationType.SUBSCRIPTION, [query], 403, "over a websocket")
