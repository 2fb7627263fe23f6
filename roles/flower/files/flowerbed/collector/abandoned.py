"""Which workers have left started tasks behind: they were silent for long, or there is a new process in their name.

All times are of the monotonic clock, but for those called `before`, which are compared with a row's `updated`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from flowerbed.collector.events import Event
    from flowerbed.metrics.workers import Worker

#: names that are remembered; anybody may send heartbeats in any name
MOST = 10_000


class Abandoned:
    """Give it every worker-online and worker-heartbeat, and ask it once a second; `after` in seconds."""

    def __init__(self, after: float) -> None:
        self._after = after
        self._connection: object | None = None
        self._listening_since = 0.0
        #: silent workers, and since when; None once they were told
        self._silent: dict[str, float | None] = {}
        #: workers that started anew: when, and the time before which their tasks are those of the old process
        self._anew: dict[str, tuple[float, float]] = {}
        #: pid and number of tasks done, as each worker last said
        self._processes: dict[str, tuple[int | None, int]] = {}

    def expect(self, workers: Iterable[str], now: float) -> None:
        """Workers that should be there, since tasks of a former run are started on them."""
        for worker in workers:
            self._silent.setdefault(worker, now)

    def heard(self, event: Event, now: float, before: float) -> None:
        """A sign of life, which tells whether it is of a process that was not there before.

        A worker that only lost its broker says worker-online again, but goes on counting its tasks; in a container
        every process has the same pid.
        """
        worker, done = event.hostname, event.processed or 0
        known = self._processes.get(worker)
        if known is None and len(self._processes) >= MOST:
            return
        self._processes[worker] = event.pid, done
        if known is not None and (known[0] != event.pid or done < known[1]) and event.type == "worker-online":
            self._anew[worker] = now, before

    def check(self, workers: Mapping[str, Worker], now: float, connection: object | None) -> list[tuple[str, float]]:
        """Workers whose started tasks are lost, each once, and the time since which nothing was heard of those tasks.

        The time is infinite for a worker that is not there.  `connection` changes with each connection to the broker
        and is None without one: who cannot hear must not call anybody silent.
        """
        if connection != self._connection:
            self._connection, self._listening_since = connection, now
        if connection is None:
            return []
        for name, worker in workers.items():
            if worker.online:
                self._silent.pop(name, None)
            elif len(self._silent) < MOST:
                self._silent.setdefault(name, worker.heard)
        found = [
            (name, float("inf"))
            for name, since in self._silent.items()
            if since is not None and now - max(since, self._listening_since) >= self._after
        ]
        self._silent.update((name, None) for name, _ in found)
        due = [name for name, (since, _) in self._anew.items() if now - since >= self._after]
        found += [(name, self._anew.pop(name)[1]) for name in due]
        # who was forgotten and told is done with
        for name in [name for name, since in self._silent.items() if since is None and name not in workers]:
            del self._silent[name]
        return found
