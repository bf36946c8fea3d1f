"""HTTP/1.1 for clients that get to the point: a request that does not arrive in time is cut off.

uvicorn waits for ever for the rest of a head or a body. Whoever sends a byte now and then would hold as many
connections as the process may open, at no cost. It takes a class of protocol in its settings (`http`); what this one
adds to uvicorn's own rests on the states of h11, and on asyncio.

Where all connections are taken, a new one takes the place of the one that has dawdled longest over its head.
"""

from __future__ import annotations

import asyncio
from typing import Any

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

HEAD_SECONDS = 10.0
# The application answers 408 before that where it reads the body; this is for a body that nobody reads.
BODY_SECONDS = 30.0


class PromptProtocol(H11Protocol):
    """Gives a client HEAD_SECONDS for the head of a request, from its first byte, and BODY_SECONDS for the body."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._awaited: object = None
        self._cut_off: asyncio.TimerHandle | None = None

    @property
    def dawdles_until(self) -> float | None:
        """The moment at which this connection is cut off; None for one whose head has arrived."""
        return self._cut_off.when() if self._cut_off is not None and self._awaited is h11.IDLE else None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        if self.limit_concurrency is not None and len(self.connections) >= self.limit_concurrency:
            self._make_room()
        self._await(h11.IDLE)

    def data_received(self, data: bytes) -> None:
        if self._awaited is None:
            self._await(self.conn.their_state)
        super().data_received(data)
        if self.conn.their_state is not self._awaited:
            self._await(self.conn.their_state)

    def connection_lost(self, exc: Exception | None) -> None:
        self._await(None)
        super().connection_lost(exc)

    def _make_room(self) -> None:
        others = [other for other in self.connections if isinstance(other, PromptProtocol)]
        dawdling = [(until, other) for other in others if (until := other.dawdles_until) is not None]
        if dawdling:
            _, slowest = min(dawdling, key=lambda found: found[0])
            # Its end is heard of a moment later only; until then it must not count, nor be found again.
            self.connections.discard(slowest)
            slowest.transport.abort()

    def _await(self, state: object) -> None:
        """Let the client have its time to get out of *state*, if there it is its turn to send."""
        if self._cut_off is not None:
            self._cut_off.cancel()
            self._cut_off = None
        seconds = HEAD_SECONDS if state is h11.IDLE else BODY_SECONDS if state is h11.SEND_BODY else None
        self._awaited = None if seconds is None else state
        if seconds is not None:
            self._cut_off = self.loop.call_later(seconds, self.transport.abort)
