"""Counts failed sign-ins in a sliding window, so that guessing is slow and no user is locked out for good.

An attempt comes from one of three kinds of client:

* a known device: a browser with a cookie from an earlier good sign-in of that user (OWASP's "device cookies");
* a known address: this user has signed in well from there in the last 7 days (for scripts; kept in memory only);
* an unknown client: everybody else.

Four counts are kept, each closed at its limit until the oldest failure leaves the window:

* by device, `attempts` of them: the only count that a known device has, so that nobody else's guesses touch it;
* by user name and address, `attempts`;
* by address, four times as many: one address cannot go through many names.  IPv6 counts by /64, as clients get them;
* by user name over all unknown clients, four times as many: many addresses together get no further than one.
  Every name counts alike, whether there is such a user or not: it falls into one of 4096 drawers under a key of this
  process, so that memory is bounded and neither a status nor a time tells which names there are.

An attempt counts as failed from its start until it has succeeded, so a burst of parallel guesses gains nothing.
A success clears the count of its own device or pair; the others keep their failures, or a guesser with an account
could wipe them clean in between.  What is refused is not counted: a lock ends by itself, however long the guessing
goes on.  Sessions that are open are never touched by a lock.

Solved: with 5 attempts in 5 minutes, all strangers together get 20 guesses at a name in 5 minutes, from however many
addresses; the user still signs in from a known browser, and from a known address.

Not solved:

* while a guesser with many addresses keeps at it, the user cannot sign in from a browser and an address that are both
  new: strangers share 20 attempts, and the guesser takes each one that comes free.  It ends with the attack;
* a flood over many names keeps the queue for strangers full (auth.py): some of them then get 503, and try again;
* a guesser behind the same address as a user's script can lock that script out there, though not the user's browser;
* a restart forgets known addresses and all counts (not known devices: those are in the cookies);
* a stolen device cookie is good for `attempts` guesses in each window, until the password changes;
* a weak password: 20 guesses in 5 minutes are 5,760 a day.
"""

from __future__ import annotations

import hashlib
import ipaddress
import secrets
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

#: failures of one address, and of all strangers at one name, for each failure allowed to a pair
ADDRESS_FACTOR = NAME_FACTOR = 4
#: counts kept at most for each kind; the longest untouched goes first
MAX_COUNTS = 10_000
#: counts by name are kept for so many drawers
DRAWERS = 4096
#: how long an address is known after a good sign-in, and how many are kept for a user
KNOWN_SECONDS = 7 * 86400
MAX_KNOWN = 64
FIRST_DELAY_SECONDS = 0.25
MAX_DELAY_SECONDS = 4.0

_Key = tuple[str, ...] | int
_Counts = dict[_Key, deque[float]]


@dataclass(frozen=True)
class Client:
    """Who tries to sign in: the name given, the network it comes from, and what speaks for it."""

    name: str
    network: str
    #: the number in a device cookie that was good for this name, else empty
    device: str = ""
    #: whether it is a known device or comes from a known address
    known: bool = False


class Throttle:
    """Sliding windows of failures; only for the event loop's thread."""

    def __init__(self, attempts: int, window_seconds: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._attempts = attempts
        self._window = window_seconds
        self._clock = clock
        self._key = secrets.token_bytes(32)
        self._devices: _Counts = {}
        self._pairs: _Counts = {}
        self._addresses: _Counts = {}
        self._names: _Counts = {}
        self._known: dict[str, dict[str, float]] = {}

    def client(self, name: str, address: str, device: str = "") -> Client:
        """The client behind an attempt; `device` comes from a cookie that was checked, or is empty."""
        where = network(address)
        known_here = self._known.get(name, {}).get(where, 0.0) > self._clock()
        return Client(name, where, device, bool(device) or known_here)

    def own_wait(self, client: Client) -> float:
        """Seconds until this device, or this user at this address, may try again; 0 when not locked."""
        return self._wait(*self._own(client))

    def wait(self, client: Client) -> float:
        """Seconds until this client may try again, by all counts that concern it; 0 when not locked."""
        return max(self._wait(*count) for count in [self._own(client), *self._shared(client)])

    def begin(self, client: Client) -> float:
        """Counts an attempt as failed and gives its time stamp for `succeeded`."""
        now = self._clock()
        for counts, key, _ in (self._own(client), *self._shared(client)):
            self._add(counts, key, now)
        return now

    def succeeded(self, client: Client, began: float) -> None:
        """Takes back what `begin` counted, forgets the client's own failures, and knows the address from now on."""
        counts, key, _ = self._own(client)
        counts.pop(key, None)
        for counts, key, _ in self._shared(client):
            if began in (times := counts.get(key, deque())):
                times.remove(began)
        addresses = self._known.setdefault(client.name, {})
        addresses.pop(client.network, None)
        addresses[client.network] = self._clock() + KNOWN_SECONDS
        while len(addresses) > MAX_KNOWN:
            del addresses[next(iter(addresses))]

    def delay(self, client: Client) -> float:
        """Seconds that the answer to a failure is held back: 0.25, 0.5, 1, 2, then 4."""
        failures = [len(counts.get(key, ())) * self._attempts // limit
                    for counts, key, limit in (self._own(client), *self._shared(client))]  # fmt: skip
        return min(FIRST_DELAY_SECONDS * 2.0 ** min(max(1, *failures) - 1, 10), MAX_DELAY_SECONDS)

    def _own(self, client: Client) -> tuple[_Counts, _Key, int]:
        """The count of this client alone, its key in there, and its limit."""
        if client.device:
            return self._devices, (client.name, client.device), self._attempts
        return self._pairs, (client.name, client.network), self._attempts

    def _shared(self, client: Client) -> list[tuple[_Counts, _Key, int]]:
        """The counts that this client has in common with others."""
        if client.device:
            return []
        address = (self._addresses, (client.network,), self._attempts * ADDRESS_FACTOR)
        name = (self._names, self._drawer(client.name), self._attempts * NAME_FACTOR)
        return [address] if client.known else [address, name]

    def _drawer(self, name: str) -> int:
        digest = hashlib.blake2b(name.encode("utf-8", "surrogatepass"), key=self._key, digest_size=4).digest()
        return int.from_bytes(digest, "big") % DRAWERS

    def _wait(self, counts: _Counts, key: _Key, limit: int) -> float:
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

    def _add(self, counts: _Counts, key: _Key, now: float) -> None:
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
