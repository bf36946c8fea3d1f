"""Limits on guessing passwords.

An address that guessed wrong too often is refused for some minutes. A name cannot be refused: whoever knows it could
lock its owner out. Its logins take some seconds longer instead, from wherever they come.
"""

from __future__ import annotations

import math
import threading
import time
from collections import OrderedDict, deque
from collections.abc import Callable
from dataclasses import dataclass
from ipaddress import IPv6Address, IPv6Network, ip_address

ADDRESS_FAILURES = 10
NAME_FAILURES = 5
WINDOW_SECONDS = 300.0
FIRST_DELAY_SECONDS = 0.25
# Each failure doubles it: four seconds at most.
GROWING_DELAYS = 4
# Of addresses, and of names: a few megabytes at most.
MOST_REMEMBERED = 10_000
SITE_PREFIX = 64


class FailureLog:
    """The latest moments of failure of each key, not more than *most* of each, and of *keys* keys."""

    def __init__(self, most: int, keys: int) -> None:
        self._most = most
        self._keys = keys
        self._failures: OrderedDict[str, deque[float]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._failures)

    def add(self, key: str, now: float) -> None:
        """Note a failure; the key that failed longest ago is forgotten when there are too many."""
        self._failures.setdefault(key, deque(maxlen=self._most)).append(now)
        self._failures.move_to_end(key)
        if len(self._failures) > self._keys:
            self._failures.popitem(last=False)

    def take_back(self, key: str, moment: float) -> None:
        """Forget the failure of *moment*, which was none."""
        failures = self._failures.get(key, deque())
        if moment in failures:
            failures.remove(moment)
        if not failures:
            self._failures.pop(key, None)

    def since(self, key: str, moment: float) -> list[float]:
        """Return the failures of *key* after *moment*, oldest first."""
        return [failed for failed in self._failures.get(key, ()) if failed > moment]


@dataclass(frozen=True)
class Attempt:
    """One login that may be tried, after *delay_seconds*."""

    address: str
    name: str
    moment: float
    delay_seconds: float


class LoginLimiter:
    """Counts failed logins per address and per name within the last five minutes."""

    def __init__(self, clock: Callable[[], float] = time.monotonic, most_remembered: int = MOST_REMEMBERED) -> None:
        self._clock = clock
        self._addresses = FailureLog(ADDRESS_FAILURES, most_remembered)
        self._names = FailureLog(NAME_FAILURES + GROWING_DELAYS, most_remembered)
        self._lock = threading.Lock()

    def wait_seconds(self, address: str) -> int:
        """Return for how long logins from *address* are refused; 0 when one may be tried now."""
        with self._lock:
            now = self._clock()
            failures = self._addresses.since(site_of(address), now - WINDOW_SECONDS)
        return math.ceil(failures[0] + WINDOW_SECONDS - now) if len(failures) >= ADDRESS_FAILURES else 0

    def admit(self, address: str, name: str) -> Attempt | None:
        """Let a login be tried, or not (None: `wait_seconds` says for how long).

        It counts as failed until `forgive`: else a hundred that come at once would all be let through.
        """
        site = site_of(address)
        with self._lock:
            now = self._clock()
            if len(self._addresses.since(site, now - WINDOW_SECONDS)) >= ADDRESS_FAILURES:
                return None
            failures = len(self._names.since(name, now - WINDOW_SECONDS))
            self._addresses.add(site, now)
            self._names.add(name, now)
        return Attempt(site, name, now, delay_seconds(failures))

    def forgive(self, attempt: Attempt) -> None:
        """Take an attempt back: its password was right."""
        with self._lock:
            self._addresses.take_back(attempt.address, attempt.moment)
            self._names.take_back(attempt.name, attempt.moment)


def delay_seconds(failures: int) -> float:
    """Return how long a login is held before its password is looked at, after so many failures of its name."""
    if failures < NAME_FAILURES:
        return 0.0
    growths = min(failures - NAME_FAILURES, GROWING_DELAYS)
    return FIRST_DELAY_SECONDS * 2.0**growths


def site_of(address: str) -> str:
    """Return who an address belongs to: an IPv4 address, or the /64 of an IPv6 one, all of which one customer has."""
    try:
        parsed = ip_address(address.partition("%")[0])
    except ValueError:
        return address[:64]
    if isinstance(parsed, IPv6Address):
        if parsed.ipv4_mapped is not None:
            return str(parsed.ipv4_mapped)
        return str(IPv6Network((parsed, SITE_PREFIX), strict=False))
    return str(parsed)
