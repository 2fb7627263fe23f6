"""Which workers are there: by their full node names, and by our own clock, since theirs may be wrong."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from flowerbed.metrics.registry import Labels, clean

if TYPE_CHECKING:
    from flowerbed.collector.events import Event

#: seconds between heartbeats of a worker that does not say (Celery's default)
USUAL_FREQ = 2.0
#: heartbeats further apart than this are not believed, in seconds
LONGEST_FREQ = 3600.0


class Worker:
    """What is known of one worker; times called `heard` are of the monotonic clock."""

    __slots__ = ("active", "freq", "heard", "lost", "name", "online", "processed", "seen")

    def __init__(self, name: str, heard: float, seen: float) -> None:
        self.name = clean(name)
        self.heard = heard
        #: seconds since 1970
        self.seen = seen
        self.freq = USUAL_FREQ
        self.online = True
        self.lost = False
        self.active: int | None = None
        self.processed: int | None = None


class Workers:
    """Every worker that was heard of and is not forgotten."""

    def __init__(self, heartbeats: float = 3, forget_seconds: float = 1800, limit: int = 10_000) -> None:
        self.known: dict[str, Worker] = {}
        self.losses = 0
        #: signs of life that were not taken in since there were too many workers
        self.refused = 0
        self._heartbeats = heartbeats
        self._forget_seconds = forget_seconds
        self._limit = limit

    def sign(self, hostname: str, now: float, seen: float) -> None:
        """A task's event came from this worker; a worker that said goodbye is not called back by it."""
        worker = self.known.get(hostname)
        if worker is None:
            self._new(hostname, now, seen)
        elif worker.online or worker.lost:
            worker.heard, worker.seen, worker.online, worker.lost = now, seen, True, False

    def event(self, event: Event, now: float) -> None:
        """worker-online, worker-heartbeat or worker-offline."""
        worker = self.known.get(event.hostname)
        if worker is None:
            worker = self._new(event.hostname, now, event.local_received)
        if worker is None:
            return
        worker.heard, worker.seen, worker.lost = now, event.local_received, False
        worker.online = event.type != "worker-offline"
        if event.freq is not None and 0 < event.freq <= LONGEST_FREQ:
            worker.freq = event.freq
        if not worker.online:
            worker.active = 0
        else:
            worker.active = None if event.active is None else max(event.active, 0)
        if event.processed is not None:
            worker.processed = max(event.processed, 0)

    def check(self, now: float, listening_since: float | None) -> tuple[list[str], list[str]]:
        """Names of workers that were just lost, and of those that are now forgotten.

        `now` is the time up to which everything that was read has been taken in, `listening_since` when the broker was
        last (re)connected: who cannot hear must not call anybody dead. None: not connected, nobody is judged.
        """
        lost: list[str] = []
        forgotten: list[str] = []
        if listening_since is None:
            return lost, forgotten
        for hostname, worker in list(self.known.items()):
            silent = now - max(worker.heard, listening_since)
            if worker.online and silent > self._heartbeats * worker.freq:
                worker.online, worker.lost, worker.active = False, True, 0
                self.losses += 1
                lost.append(hostname)
            if not worker.online and silent > self._forget_seconds:
                del self.known[hostname]
                forgotten.append(hostname)
        return lost, forgotten

    def online(self) -> int:
        """Number of workers that send heartbeats."""
        return sum(worker.online for worker in self.known.copy().values())

    def lost(self) -> int:
        """Number of workers that went without a word."""
        return sum(worker.lost for worker in self.known.copy().values())

    def each(self, figure: Callable[[Worker], float | None]) -> dict[Labels, float]:
        """One figure of every worker that tells it."""
        told = ((worker.name, figure(worker)) for worker in self.known.copy().values())
        return {(name,): value for name, value in told if value is not None}

    def _new(self, hostname: str, now: float, seen: float) -> Worker | None:
        if not hostname or len(self.known) >= self._limit:
            self.refused += 1
            return None
        return self.known.setdefault(hostname, Worker(hostname, now, seen))
