"""Counts failed sign-ins in a sliding window, so that guessing is slow and nobody else is locked out by it.

Two counts are kept, and neither is by user name alone:

* by (user name, address): at `attempts` failures the pair is locked until the oldest one leaves the window.  A guesser
  elsewhere can therefore never lock a real user out: the user's own address has a count of its own.
* by address, four times as many: one address cannot go through many names.  IPv6 counts by /64, as clients get them.

An attempt counts as failed from its start until it has succeeded, so a burst of parallel guesses gains nothing.
A success clears its pair; the address keeps its count, or a guesser with an account could wipe it clean in between.
Sessions that are open are never touched by a lock.  What is not solved: a guesser behind the same address as a real
user can keep that user from signing in there, and one with very many addresses is only stopped by long passwords.
"""

from __future__ import annotations

import ipaddress
import time
from collections import deque
from collections.abc import Callable

#: failures of one address for each failure allowed to a pair
ADDRESS_FACTOR = 4
#: counts kept at most for each kind; the longest untouched goes first
MAX_COUNTS = 10_000
FIRST_DELAY_SECONDS = 0.25
MAX_DELAY_SECONDS = 4.0

_Counts = dict[tuple[str, ...], deque[float]]


class Throttle:
    """Sliding windows of failures; only for the event loop's thread."""

    def __init__(self, attempts: int, window_seconds: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._attempts = attempts
        self._window = window_seconds
        self._clock = clock
        self._pairs: _Counts = {}
        self._addresses: _Counts = {}

    def pair_wait(self, name: str, address: str) -> float:
        """Seconds until this user may try again from this address; 0 when not locked."""
        return self._wait(self._pairs, (name, network(address)), self._attempts)

    def address_wait(self, address: str) -> float:
        """Seconds until anybody may try again from this address; 0 when not locked."""
        return self._wait(self._addresses, (network(address),), self._attempts * ADDRESS_FACTOR)

    def begin(self, name: str, address: str) -> float:
        """Counts an attempt as failed and gives its time stamp for `succeeded`."""
        now = self._clock()
        self._add(self._pairs, (name, network(address)), now)
        self._add(self._addresses, (network(address),), now)
        return now

    def succeeded(self, name: str, address: str, began: float) -> None:
        """Takes back what `begin` counted, and forgets the pair's failures."""
        self._pairs.pop((name, network(address)), None)
        times = self._addresses.get((network(address),))
        if times and began in times:
            times.remove(began)

    def delay(self, name: str, address: str) -> float:
        """Seconds that the answer to a failure is held back: 0.25, 0.5, 1, 2, then 4."""
        failures = len(self._pairs.get((name, network(address)), ()))
        spread = len(self._addresses.get((network(address),), ())) // ADDRESS_FACTOR
        steps = max(failures, spread, 1) - 1
        return min(FIRST_DELAY_SECONDS * 2.0 ** min(steps, 10), MAX_DELAY_SECONDS)

    def _wait(self, counts: _Counts, key: tuple[str, ...], limit: int) -> float:
        times = counts.get(key)
        if not times:
            return 0.0
        now = self._clock()
        while times and times[0] <= now - self._window:
            times.popleft()
        if not times:
            del counts[key]
            return 0.0
        return max(times[len(times) - limit] + self._window - now, 0.0) if len(times) >= limit else 0.0

    def _add(self, counts: _Counts, key: tuple[str, ...], now: float) -> None:
        # taken out and put back in: the dictionary stays ordered by last use
        times = counts.pop(key, None) or deque()
        while times and times[0] <= now - self._window:
            times.popleft()
        times.append(now)
        counts[key] = times
        while len(counts) > MAX_COUNTS:
            del counts[next(iter(counts))]


def network(address: str) -> str:
    """What one client is taken to be: an IPv4 address, the /64 of an IPv6 address, else the text itself."""
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return address
    if isinstance(parsed, ipaddress.IPv6Address):
        if parsed.ipv4_mapped is not None:
            return str(parsed.ipv4_mapped)
        return str(ipaddress.ip_network((int(parsed), 64), strict=False).network_address)
    return str(parsed)
