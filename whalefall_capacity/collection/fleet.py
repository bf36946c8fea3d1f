"""All servers of the fleet, concurrently, each with its own deadline.

A server that does not answer costs its own deadline and nobody else's: its visit runs in a thread of its
own, the coordinator stops waiting at the deadline, takes what the visit has found so far, shuts its socket
and gives the place to the next server. Threads are daemons, so that one stuck in a name look-up cannot hold
the process.
"""

from __future__ import annotations

import itertools
import queue
import resource
import sys
import threading
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import chain
from typing import Generic, TypeVar

from whalefall_capacity.collection.database_tables import DatabaseTables
from whalefall_capacity.collection.sizes import (
    DEADLINE_SETTING,
    Cutoff,
    FailedVisit,
    Findings,
    Limits,
    Target,
    Visit,
    deadline_reached,
)
from whalefall_capacity.collection.visit import Checkup, Filters, check, failed, read_tables, visit, visit_of
from whalefall_capacity.errors import CollectionError

# How often whoever waits for visits is given a turn, to hear a cancel.
LISTEN_SECONDS = 1.0
# Outcomes that are handed on together: enough for a write, and however fast servers answer, nobody waits for all.
MOST_TOGETHER = 64
# How long a thread of Python may go on while others wait. They look that often whether they may, and by hundreds of
# visits at Python's 5 ms they took a tenth of the processor for it: `python -m benchmarks scale`.
SWITCH_INTERVAL_SECONDS = 0.02
# Open files, at most: of one visit, sockets to the server and of the relay, and duplicates; and of all else here.
FILES_OF_A_VISIT = 8
OTHER_FILES = 200

T = TypeVar("T")
# A target, what came of it, and after how many seconds.
Ended = tuple[Target, T | Exception, float]


@dataclass
class _Running:
    target: Target
    started: float
    cutoff: Cutoff = field(default_factory=Cutoff)
    findings: Findings = field(default_factory=Findings)
    # By the visit's own thread: whoever waits for visits may be kept from looking at them, by the store for one.
    ended: float | None = None


@dataclass
class _FanOut(Generic[T]):
    """Runs a call per target on at most *concurrency* threads; *began* is told of each as its call begins.

    A thread takes one call after another. To start one waits until it has had its turn among all that run, in which the
    coordinator could start many calls. One whose call has passed its deadline is replaced, until it comes back.

    A target is taken when there is a place for it. None among them says that no target is ready now: who comes next is
    asked for again when something has ended, and once a second.

    *rescue* makes an outcome of what a call has found when its deadline is reached, or returns None.

    Yields batches of whatever ended since the last look, so that a slow consumer gets larger batches rather than a
    longer queue; an empty one when nothing ended for a second.
    """

    targets: Iterable[Target | None]
    call: Callable[[Target, Cutoff, Findings], T]
    rescue: Callable[[Target, Findings, float], T | None]
    concurrency: int
    deadline_seconds: float
    began: Callable[[Target], None] = lambda _: None

    def __post_init__(self) -> None:
        self._places = _places(self.concurrency)
        self._coming = iter(self.targets)
        self._all_came = False
        self._running: dict[int, _Running] = {}
        self._ended: queue.SimpleQueue[tuple[int, T | Exception]] = queue.SimpleQueue()
        self._tickets = itertools.count()
        self._work: queue.SimpleQueue[tuple[int, _Running] | None] = queue.SimpleQueue()
        self._threads = self._idle_threads = 0

    def batches(self) -> Iterator[list[Ended[T]]]:
        try:
            self._start_what_fits()
            while self._running or not self._all_came:
                # Not both: waiting for the next to end would leave the places of the expired ones empty.
                yield self._expired() or self._next_ended()
                self._start_what_fits()
        finally:
            for run in self._running.values():
                run.cutoff.cut()
            for _ in range(self._threads):
                self._work.put(None)

    def _start_what_fits(self) -> None:
        while len(self._running) < self._places and (target := self._next_target()) is not None:
            ticket = next(self._tickets)
            run = self._running[ticket] = _Running(target, time.monotonic())
            self.began(run.target)
            self._work.put((ticket, run))
            if self._idle_threads:
                self._idle_threads -= 1
            else:
                self._threads += 1
                threading.Thread(target=self._serve, daemon=True).start()

    def _next_target(self) -> Target | None:
        """Return the next target; None when none is ready now, or there is none any more."""
        try:
            return next(self._coming)
        except StopIteration:
            self._all_came = True
            return None

    def _serve(self) -> None:
        while self._serve_next():
            pass

    def _serve_next(self) -> bool:
        """Make the next call; return False when there is none any more. Between calls nothing of them is held."""
        work = self._work.get()
        if work is None:
            return False
        ticket, run = work
        threading.current_thread().name = f"visit-{run.target.name}"
        self._ended.put((ticket, self._outcome(run)))
        threading.current_thread().name = "visit"
        return True

    def _outcome(self, run: _Running) -> T | Exception:
        outcome: T | Exception
        try:
            outcome = self.call(run.target, run.cutoff, run.findings)
        except Exception as error:
            # Whose frames hold all of the visit, and this one the error: only the collector of cycles would free them.
            outcome = error.with_traceback(None)
            outcome.__context__ = None
        run.ended = time.monotonic()
        return outcome

    def _next_ended(self) -> list[Ended[T]]:
        """Wait for the next visit to end, the next deadline, or a second; return those that have ended."""
        batch: list[Ended[T]] = []
        oldest = min((run.started for run in self._running.values()), default=time.monotonic())
        patience = min(max(oldest + self.deadline_seconds - time.monotonic(), 0.0), LISTEN_SECONDS)
        while len(batch) < MOST_TOGETHER:
            try:
                ticket, outcome = self._ended.get(timeout=patience)
            except queue.Empty:
                break
            self._idle_threads += 1
            # A ticket that is not there belongs to a visit that was already given up.
            if (run := self._running.pop(ticket, None)) is not None:
                batch.append((run.target, outcome, (run.ended or time.monotonic()) - run.started))
                # Its place is taken again before the rest is looked at.
                self._start_what_fits()
            patience = 0.0
        return batch

    def _expired(self) -> list[Ended[T]]:
        now = time.monotonic()
        late = [
            ticket
            for ticket, run in self._running.items()
            if run.ended is None and now - run.started >= self.deadline_seconds
        ]
        return [self._give_up(self._running.pop(ticket), now) for ticket in late]

    def _give_up(self, run: _Running, now: float) -> Ended[T]:
        outcome: T | Exception
        # Before the cut, whose error the visit might take for an answer of the server.
        try:
            outcome = self.rescue(run.target, run.findings, now - run.started) or CollectionError(
                f"{run.target.name}: no answer from {run.target.address} within the deadline of "
                f"{self.deadline_seconds:g} s; look at the server's load, or raise {DEADLINE_SETTING}"
            )
        except CollectionError as error:
            outcome = error
        run.cutoff.cut()
        return run.target, outcome, now - run.started


def _places(concurrency: int) -> int:
    """Return how many visits at once the process may have files for, which are allowed to it here as far as can be."""
    wanted = concurrency * FILES_OF_A_VISIT + OTHER_FILES
    allowed, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    if allowed == resource.RLIM_INFINITY or allowed >= wanted:
        return concurrency
    allowed = wanted if most == resource.RLIM_INFINITY else min(wanted, most)
    resource.setrlimit(resource.RLIMIT_NOFILE, (allowed, most))
    return max(min(concurrency, (allowed - OTHER_FILES) // FILES_OF_A_VISIT), 1)


def visit_fleet(
    targets: Iterable[Target | None],
    limits: Limits,
    filters: Filters,
    concurrency: int,
    began: Callable[[Target], None] = lambda _: None,
) -> Generator[list[Visit | FailedVisit], None, None]:
    """Visit every server and yield, in batches, what came of each as soon as it is there, in no particular order.

    A target is taken as its visit begins; None among *targets* says that the next one is not ready yet. *began* is told
    of each server as its visit begins. A batch is empty when nothing ended for a second.

    Closing the generator early cuts the visits that run, and starts no more. The process keeps the longer switch
    interval of its threads.
    """
    sys.setswitchinterval(SWITCH_INTERVAL_SECONDS)

    def call(target: Target, cutoff: Cutoff, findings: Findings) -> Visit:
        return visit(target, limits, filters, cutoff, findings)

    def rescue(target: Target, findings: Findings, seconds: float) -> Visit | None:
        if not findings.has_sizes:
            return None
        return visit_of(target, findings, deadline_reached(limits.deadline_seconds), seconds)

    for batch in _FanOut(targets, call, rescue, concurrency, limits.deadline_seconds, began).batches():
        yield [
            outcome if isinstance(outcome, Visit) else failed(target, str(outcome), seconds)
            for target, outcome, seconds in batch
        ]


def check_fleet(targets: Sequence[Target], limits: Limits, filters: Filters, concurrency: int) -> list[Checkup]:
    """Run the privilege doctor on every server; the result is in the order of *targets*."""

    def call(target: Target, cutoff: Cutoff, _: Findings) -> Checkup:
        return check(target, limits, filters, cutoff)

    # A check-up that did not end says nothing of what it did not ask: nothing is rescued.
    checkups = _FanOut[Checkup](targets, call, lambda *_: None, concurrency, limits.deadline_seconds)
    found: dict[int, Checkup] = {}
    for batch in checkups.batches():
        for target, outcome, seconds in batch:
            found[target.instance_id] = (
                outcome
                if isinstance(outcome, Checkup)
                else Checkup(target.name, None, (), failed(target, str(outcome), seconds).error)
            )
    return [found[target.instance_id] for target in targets]


def read_tables_of(target: Target, database: str, limits: Limits) -> DatabaseTables:
    """Read the tables of one database within the deadline. Raises CollectionError."""

    def call(target: Target, cutoff: Cutoff, _: Findings) -> DatabaseTables:
        return read_tables(target, database, limits, cutoff)

    reading = _FanOut[DatabaseTables]([target], call, lambda *_: None, 1, limits.deadline_seconds)
    for _, outcome, seconds in chain.from_iterable(reading.batches()):
        if isinstance(outcome, DatabaseTables):
            return outcome
        raise CollectionError(failed(target, str(outcome), seconds).error)
    raise AssertionError("a target has an outcome")
