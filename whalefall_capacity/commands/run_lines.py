"""Lines in the terminal when a run starts and when it ends.

They come from the task runs in the store, which are brought up to date whatever happens to the process of a run.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from zoneinfo import ZoneInfo

from sqlalchemy import Engine
from sqlalchemy.exc import SQLAlchemyError

from whalefall_capacity.commands.output import err, local_time, say
from whalefall_capacity.store.task_runs.read import TaskRun, list_recent_task_runs

POLL_SECONDS = 1.0
# For the final look, which is one query.
LAST_LOOK_SECONDS = 5


class RunLines:
    """The lines for the runs of a store, each returned once; earlier events are skipped."""

    def __init__(self, engine: Engine, zone: ZoneInfo) -> None:
        self._engine = engine
        self._zone = zone
        self._started: set[str] = set()
        self._ended: set[str] = set()
        self.new()

    def new(self) -> list[str]:
        """Return the lines for the events since the last call, in the order of the runs."""
        lines = []
        for run in list_recent_task_runs(self._engine, self._started - self._ended):
            if run.started_at is not None and run.run_id not in self._started:
                self._started.add(run.run_id)
                lines.append(
                    f"{local_time(run.started_at, self._zone, 'seconds')} {run.task_name}: started{_origin(run)}"
                )
            if run.has_ended and run.run_id not in self._ended:
                self._ended.add(run.run_id)
                ended = local_time(run.completed_at, self._zone, "seconds")
                lines.append(f"{ended} {run.task_name}: {_outcome(run)}{_origin(run)}")
        return lines


@contextmanager
def run_lines_shown(engine: Engine, zone: ZoneInfo) -> Iterator[None]:
    """Print the lines of runs while the block lasts."""
    over = threading.Event()
    follower = threading.Thread(target=_follow, args=(RunLines(engine, zone), over), daemon=True)
    follower.start()
    try:
        yield
    finally:
        over.set()
        follower.join(LAST_LOOK_SECONDS)


def _follow(lines: RunLines, over: threading.Event) -> None:
    answers = True
    while True:
        is_last = over.wait(POLL_SECONDS)
        try:
            for line in lines.new():
                say(line)
            answers = True
        except SQLAlchemyError as error:
            if answers:
                say(f"runs will not be shown until the store answers: {error}", err)
            answers = False
        if is_last:
            return


def _origin(run: TaskRun) -> str:
    return f" ({run.trigger_source}, run {run.run_id[:8]})"


def _outcome(run: TaskRun) -> str:
    words = run.status.replace("_", " ")
    if run.started_at is not None and run.completed_at is not None:
        words += f" after {(run.completed_at - run.started_at).total_seconds():.0f} s"
    if run.progress_total:
        words += f", {run.progress_completed} of {run.progress_total} items done"
    if run.error_message:
        words += f": {run.error_message.splitlines()[0]}"
    return words
