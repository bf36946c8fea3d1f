"""Dagster's webserver as an ASGI application in this process: the one place that rests on private parts of Dagster.

Dagster offers its webserver as a command only, and that command is all or nothing: `--read-only` holds for everybody.
Three things are taken from inside (Dagster 1.13): `WorkspaceProcessContext`, which the command makes too, with the file
that names the code server; `WorkspaceRequestContext`, whose `read_only` decides every permission, and greys the buttons
of the UI out; and `create_app_from_workspace_process_context`, which makes the application.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import dagster as dg
from dagster._core.workspace.context import WorkspaceProcessContext, WorkspaceRequestContext
from dagster._core.workspace.load_target import WorkspaceFileTarget
from dagster_webserver.app import create_app_from_workspace_process_context
from starlette.requests import HTTPConnection
from starlette.types import ASGIApp

# The values of Dagster's command.
STATEMENT_TIMEOUT_MILLISECONDS = 15_000
POOL_RECYCLE_SECONDS = 3600
POOL_MAX_OVERFLOW = 20
POLL_MILLISECONDS = 2000


class WorkspaceByRequest(WorkspaceProcessContext):
    """A workspace that is read-only for some requests and not for others."""

    def __init__(
        self, instance: dg.DagsterInstance, workspace: Path, may_change: Callable[[HTTPConnection], bool]
    ) -> None:
        self._may_change = may_change
        super().__init__(instance, WorkspaceFileTarget([str(workspace)]), version=dg.__version__)

    def create_request_context(self, source: object | None = None) -> WorkspaceRequestContext:
        """Return what a request works on; *source* is the request."""
        return WorkspaceRequestContext(
            instance=self.instance,
            current_workspace=self.get_current_workspace(),
            process_context=self,
            version=self.version,
            source=source,
            read_only=not (isinstance(source, HTTPConnection) and self._may_change(source)),
        )


@contextmanager
def dagster_app(workspace: Path, may_change: Callable[[HTTPConnection], bool]) -> Iterator[ASGIApp]:
    """Hold Dagster's webserver for the code servers of a workspace file, read-only but for whom *may_change*."""
    with dg.DagsterInstance.get() as instance:
        instance.optimize_for_webserver(STATEMENT_TIMEOUT_MILLISECONDS, POOL_RECYCLE_SECONDS, POOL_MAX_OVERFLOW)
        with WorkspaceByRequest(instance, workspace, may_change) as context:
            yield create_app_from_workspace_process_context(context, live_data_poll_rate=POLL_MILLISECONDS)
