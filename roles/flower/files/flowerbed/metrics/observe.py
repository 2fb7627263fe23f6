"""Turns what happened to tasks and workers into numbers; called once for each event, so every step here is counted."""

from __future__ import annotations

import platform
import re
import resource
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import translate
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING

import flowerbed
from flowerbed.metrics import names
from flowerbed.metrics.compat import CeleryExporter
from flowerbed.metrics.registry import Labels, Registry, bounds_of, clean
from flowerbed.metrics.waiting import Waiting
from flowerbed.metrics.workers import Workers

if TYPE_CHECKING:
    from flowerbed.collector.events import Event
    from flowerbed.collector.tasks import Change

#: upper bounds in seconds, up to a day
BUCKETS = (0.01, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 900, 3600, 14400, 86400)
#: how long task-sent is waited for when a worker was faster, in seconds
ASIDE_SECONDS = 1.0
#: tasks to have come without any task-sent before it is taken that none tells of sending; a producer's first task-sent
#: needs a connection of its own, and comes long after the worker's task-received
UNDECIDED_TASKS = 1000
#: names that are remembered with their labels; what is over is looked at anew
LARGEST_CACHE = 50_000
#: types of events that Celery sends; an application's own are counted too, up to the limit
TYPES = (
    *(f"task-{state}" for state in names.STATES if state != "lost"),
    "worker-online",
    "worker-heartbeat",
    "worker-offline",
)
_SENT: Labels = ("task-sent",)
_RECEIVED: Labels = ("task-received",)
#: the most types of events that are told apart
MOST_TYPES = 50


@dataclass(frozen=True)
class Options:
    """What an operator chooses about metrics."""

    #: globs of task names; tasks that are not allowed, or denied, are counted as `other`
    allow: Sequence[str] = ("*",)
    deny: Sequence[str] = ()
    #: a label `worker` on counters and histograms of tasks
    worker_label: bool = False
    #: the most series of one family, as Prometheus counts them
    series_limit: int = 20_000
    #: upper bounds of histograms in seconds, and others for tasks by glob (the first that fits)
    buckets: Sequence[float] = BUCKETS
    task_buckets: Mapping[str, Sequence[float]] = field(default_factory=dict)
    #: missed heartbeats after which a worker is lost, and seconds after which a gone one is forgotten; alerts such as
    #: the celery-mixin's wait for 15 minutes
    lost_heartbeats: float = 3
    forget_seconds: float = 1800
    #: also give celery-exporter's names
    celery_exporter: bool = False


class TaskNames(dict["str | None", str]):
    """Task name -> its label."""

    def __init__(self, allow: Sequence[str], deny: Sequence[str]) -> None:
        super().__init__()
        self._allow, self._deny = _any_of(allow), _any_of(deny)

    def __missing__(self, name: str | None) -> str:
        """Looks at a task that was not seen before."""
        if len(self) >= LARGEST_CACHE:
            self.clear()
        self[name] = label = self._label(name)
        return label

    def _label(self, name: str | None) -> str:
        if not name:
            return names.UNKNOWN
        return clean(name) if self._allow.match(name) and not self._deny.match(name) else names.OTHER


class Cleaned(dict["str | None", str]):
    """Anything else that comes from outside -> its label."""

    def __missing__(self, value: str | None) -> str:
        """Looks at a value that was not seen before."""
        if len(self) >= LARGEST_CACHE:
            self.clear()
        self[value] = label = clean(value) if value else names.UNKNOWN
        return label


class Observer:
    """Counts events, changes of tasks, and signs of life."""

    def __init__(self, registry: Registry, options: Options | None = None) -> None:
        options = options or Options()
        self.registry = registry
        self.options = options
        self.workers = Workers(options.lost_heartbeats, options.forget_seconds, min(options.series_limit, 10_000))
        self.waiting = Waiting()
        self.latest: Event | None = None
        #: task whose queue may become known -> since when it is waited for (monotonic), and what happened to it
        self.held: OrderedDict[str, tuple[float, list[Change]]] = OrderedDict()
        self._connection: object | None = None
        self._listening_since = 0.0
        self._tasks = TaskNames(options.allow, options.deny)
        self._cleaned = Cleaned()
        self._queues = Cleaned()
        self._by_worker = by_worker = options.worker_label

        def metric(plain: names.Metric) -> names.Metric:
            return plain.with_label("worker") if by_worker else plain

        self._states = registry.counter(metric(names.TASKS))
        self._failures = registry.counter(metric(names.FAILURES))
        self._retries = registry.counter(metric(names.RETRIES))
        self._losses = registry.counter(names.WORKER_LOSSES)
        self._losses.appear(())
        default = bounds_of(options.buckets)
        patterns = [(_any_of([glob]), bounds_of(bounds)) for glob, bounds in options.task_buckets.items()]

        def task_bounds(labels: Labels) -> tuple[float, ...]:
            return next((bounds for pattern, bounds in patterns if pattern.match(labels[0])), default)

        self._runtime = registry.histogram(metric(names.RUNTIME), task_bounds)
        self._queue_wait = registry.histogram(names.QUEUE_WAIT, lambda _: default)
        self._prefetch = registry.histogram(names.PREFETCH, lambda _: default)
        self._events = registry.counter(names.EVENTS)
        self._events.limit = MOST_TYPES
        for kind in TYPES:
            self._events.appear((kind,))
        # the same dictionaries, one step nearer: these are touched by every event
        self._types, self._counts, self._known = self._events.values, self._states.values, self.workers.known
        self.exporter = CeleryExporter(registry, self.workers) if options.celery_exporter else None
        self._sources()

    def take(self, event: Event, change: Change | None, now: float) -> None:
        """Takes in one event and the change that it made; `now` is time.monotonic(). Raises nothing."""
        kind = event.type
        try:
            self._types[kind,] += 1
        except KeyError:
            self._events.add((self._cleaned[kind],))
        self.latest = event
        if change is not None:
            self.change(change)
            if change.kind == "sent":
                return
            worker = self._known.get(event.hostname)
            if worker is not None and worker.online:
                worker.heard, worker.seen = now, event.local_received
                return
        if kind.startswith("worker-"):
            self.workers.event(event, now)
        elif kind != "task-sent" and kind.startswith("task-") and event.hostname:
            self.workers.sign(event.hostname, now, event.local_received)

    def change(self, change: Change) -> None:
        """Counts what happened to one task; also for changes that come of no event (lost).

        Celery publishes task-sent after the message, and on RabbitMQ when that is confirmed, so that an idle worker's
        task-received may come before it.  Where task-sent may be heard at all, what happens to a task without a queue
        in its first moment is therefore put aside for a moment: see settle().
        """
        record = change.record
        if self.held and (waiting := self.held.get(record.id)) is not None:
            # in their order, and all in the same moment
            waiting[1].append(change)
        elif (
            record.queue is None
            and change.kind != "sent"
            and (self._types.get(_SENT) or self._types.get(_RECEIVED, 0) <= UNDECIDED_TASKS)
            and time.time() - record.seen < ASIDE_SECONDS
        ):
            self.held[record.id] = time.monotonic(), [change]
        else:
            self._count(change)

    def settle(self, everything: bool = False) -> list[str]:
        """Counts what was put aside long enough, or all of it; gives the ids of those tasks."""
        settled: list[str] = []
        held, ripe = self.held, time.monotonic() - ASIDE_SECONDS
        while held and (everything or next(iter(held.values()))[0] <= ripe):
            uuid, (_, changes) = held.popitem(last=False)
            for change in changes:
                self._count(change)
            settled.append(uuid)
        return settled

    def _count(self, change: Change) -> None:
        record, kind = change.record, change.kind
        task, queue = self._tasks[record.name], self._queues[record.queue]
        labels: Labels = (task, kind, queue)
        worker: Labels = ()
        if self._by_worker:
            worker = self._worker(change)
            labels += worker
        try:
            self._counts[labels] += 1
        except KeyError:
            self._first(labels)
        if kind == "succeeded":
            if (seconds := change.runtime_seconds) is not None:
                self._runtime.observe((task, *worker) if worker else (task,), seconds if seconds > 0 else 0.0)
        elif kind == "started":
            if (seconds := change.prefetch_seconds) is not None:
                self._prefetch.observe((queue,), seconds if seconds > 0 else 0.0)
        elif kind in ("sent", "received"):
            # on whichever of the two came last
            if (seconds := change.queue_seconds) is not None:
                self._queue_wait.observe((queue,), seconds if seconds > 0 else 0.0)
            if kind == "received":
                self.waiting.remove(record.queue, record.id)
            elif record.state == "PENDING" and record.queue is not None:
                self.waiting.add(record.queue, record.id, record.updated)
        elif kind == "failed":
            self._failures.add((task, self._cleaned[short_class(change.error)], *worker))
        elif kind == "retried":
            self._retries.add((task, self._cleaned[short_class(change.error)], *worker))
        elif kind == "revoked":
            self.waiting.remove(record.queue, record.id)
        if self.exporter is not None:
            self.exporter.take(change, task, queue)

    def check(self, now: float, connection: object | None) -> list[str]:
        """Full names of workers that were just lost; called about once a second by the thread that counts.

        `now` is the time (time.monotonic()) up to which everything that was read has been taken in; `connection` is
        something that changes with each connection to the broker, such as when it began, and None without one.
        For each name that comes back the Folder should be told (Folder.lost).
        """
        if connection != self._connection:
            self._connection, self._listening_since = connection, now
        self.waiting.tidy()
        lost, forgotten = self.workers.check(now, None if connection is None else self._listening_since)
        if lost:
            self._losses.add((), len(lost))
        if forgotten and self.options.worker_label:
            self._forget({clean(hostname) for hostname in forgotten})
        if forgotten and self.exporter is not None:
            self.exporter.forget(forgotten)
        return lost

    def queues(self) -> list[str]:
        """Names of queues that events told, also before a restart; any thread."""
        told = {queue: None for queue in self._queues.copy() if queue}
        kept = {labels[2]: None for labels in self._counts.copy()}
        return [queue for queue in told | kept if queue not in (names.UNKNOWN, names.OTHER)]

    def running(self, give: Callable[[], Mapping[str, int]]) -> None:
        """Sets where the tasks that run now are known: task name -> number."""

        def folded() -> dict[Labels, float]:
            # tasks of which none runs are there too, or a sum would be no number when nothing runs
            found: dict[Labels, float] = {(labels[0],): 0 for labels in self._counts.copy()}
            for name, number in dict(give()).items():
                labels = (self._tasks[name],)
                found[labels] = found.get(labels, 0) + number
            return found

        self.registry.source(names.RUNNING, folded)

    def _first(self, labels: Labels) -> None:
        """A task that was not seen before shows all its states, so that even its first failure is seen as a step."""
        if not self.options.worker_label:
            for state in names.STATES:
                self._states.appear((labels[0], state, labels[2]))
        self._states.add(labels)

    def _worker(self, change: Change) -> Labels:
        # who sends tasks is a process of any number of web servers
        return ("",) if change.kind == "sent" else (self._cleaned[change.hostname],)

    def _forget(self, workers: set[str]) -> None:
        for family in (self._states, self._failures, self._retries, self._runtime):
            gone = [labels for labels in family.values if labels[-1] in workers]
            for labels in gone:
                family.remove(labels)

    def _sources(self) -> None:
        give, workers, registry = self.registry.source, self.workers, self.registry
        give(names.WORKERS_ONLINE, workers.online)
        give(names.WORKERS_LOST, workers.lost)
        give(names.WORKER_ONLINE, lambda: workers.each(lambda one: int(one.online)))
        give(names.WORKER_LAST_SEEN, lambda: workers.each(lambda one: one.seen))
        give(names.WORKER_ACTIVE, lambda: workers.each(lambda one: one.active))
        give(names.WORKER_PROCESSED, lambda: workers.each(lambda one: one.processed))
        give(names.EVENT_LAG, lambda: self.latest.local_received - self.latest.timestamp if self.latest else None)
        give(names.LAST_EVENT, lambda: self.latest.local_received if self.latest else None)
        give(names.SERIES, registry.sizes)
        give(names.SERIES_LIMIT, lambda: registry.limit)
        give(names.FOLDED, self._folded)
        give(names.SOURCE_FAILURES, lambda: registry.failures)
        build = (flowerbed.__version__, platform.python_version(), _celery_version())
        give(names.BUILD, lambda: {build: 1})
        started = time.time()
        give(names.CPU, time.process_time)
        give(names.MEMORY, _resident_bytes)
        give(names.START, lambda: started)

    def _folded(self) -> dict[Labels, float]:
        refused: dict[Labels, float] = {}
        if self.workers.refused:
            refused = {(names.WORKER_ONLINE.name,): self.workers.refused}
        return {**self.registry.folded(), **refused}


def short_class(error: str | None) -> str:
    """`OperationalError` of `kombu.exceptions.OperationalError`."""
    return error.rpartition(".")[2] if error else names.UNKNOWN


def _any_of(globs: Sequence[str]) -> re.Pattern[str]:
    """One pattern for several globs; none matches nothing."""
    return re.compile("|".join(f"(?:{translate(glob)})" for glob in globs) if globs else r"(?!)")


def _resident_bytes() -> float:
    """Memory of this process (proc(5))."""
    pages = Path("/proc/self/statm").read_text(encoding="ascii").split()[1]
    return int(pages) * resource.getpagesize()


def _celery_version() -> str:
    try:
        return version("celery")
    except PackageNotFoundError:
        return names.UNKNOWN
