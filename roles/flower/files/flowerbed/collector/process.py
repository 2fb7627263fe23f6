"""The collector: reads Celery's events once, counts every one of them, and remembers every task.

Threads: the reader waits for the broker only; the main thread decodes, folds and counts; others write the history, ask
for queues, ask workers for events and answer HTTP.  Whatever one of them waits for, none of the others waits too.  A
thread that dies takes the process with it, so that whoever started it can start it again.
"""

# ruff: noqa: PLC0415  # late imports: Celery acts when imported, and not every command needs it
from __future__ import annotations

import logging
import signal
import socket
import threading
import time
from collections import Counter, OrderedDict
from collections.abc import Mapping
from copy import copy
from typing import Any

from flowerbed import notify
from flowerbed.collector.abandoned import Abandoned
from flowerbed.collector.buffer import Buffer
from flowerbed.collector.choices import check
from flowerbed.collector.events import REASONS, DecodeError, Event, decode
from flowerbed.collector.queues import Consumer, Queues, sole_queues
from flowerbed.collector.reader import Reader, connections, keep_enabled
from flowerbed.collector.tasks import Folder, Record
from flowerbed.history.retention import Limits
from flowerbed.history.words import Words
from flowerbed.history.writer import Writer
from flowerbed.metrics import names
from flowerbed.metrics.observe import Observer, Options
from flowerbed.metrics.persistence import Keeper
from flowerbed.metrics.registry import Registry, clean
from flowerbed.metrics.server import MetricsServer, Publisher, ServerError
from flowerbed.redact import Redactor
from flowerbed.settings import Credentials, Settings, SettingsError

#: seconds between two looks at workers and counters, and the most that a turn waits for events
LOOK_SECONDS, TURN_SECONDS = 1.0, 0.25
#: seconds without a sign of life from the broker, or without a turn of the counting, after which /health is red
DEAF_SECONDS, STUCK_SECONDS = 30.0, 10.0
#: seconds that the history may take at the start to tell of former runs; events wait in the buffer meanwhile, until it
#: is half full.  A connection has failed by then (store.CONNECT_SECONDS): only a host that is very busy takes longer.
START_SECONDS = 15.0
#: seconds that the reader may take to end: on AMQP it waits until what it read is written
FAREWELL_SECONDS = 7.0
#: what a worker's clock may be behind ours, in seconds, for rows to be old by ours
BEHIND_SECONDS = 3600.0

logger = logging.getLogger(__name__)


class Collector:
    """All parts, put together; `run` returns when `stop` is set."""

    def __init__(self, settings: Settings, credentials: Credentials) -> None:
        """Raises SettingsError for what can never work."""
        check(settings, credentials)
        chosen = settings.collector
        self.stop = threading.Event()
        self.buffer = Buffer()
        self.registry = Registry(chosen.series_limit)
        self.observer = Observer(
            self.registry,
            Options(
                allow=chosen.tasks_allow,
                deny=chosen.tasks_deny,
                worker_label=chosen.worker_label,
                series_limit=chosen.series_limit,
                buckets=chosen.buckets,
                task_buckets=chosen.task_buckets,
                celery_exporter=chosen.compat == "celery-exporter",
            ),
        )
        history_url = credentials.history_url or settings.history.url
        self.writer = writer = self._history(history_url, settings)
        self.words = Words(history_url) if history_url else None
        # texts are for the history only
        self.folder = Folder(Redactor(settings.redact), longest=settings.history.text_lengths if self.writer else {})
        self.abandoned = Abandoned(settings.history.lost_after)
        self.reader = Reader(
            connections(credentials.celery),
            self.buffer.put,
            # on AMQP a queue of this host's and instance's own keeps events over a restart
            queue=f"celeryev.flowerbed.{socket.gethostname()}.{settings.instance}",
            max_wait=settings.broker_reconnect_max_seconds,
            safe=(lambda: writer.safe) if writer else None,
        )
        self.keeper = Keeper(self.registry, self._written) if self.writer else None
        self.app = _celery(credentials)
        self.queues = Queues(
            self.app.connection_for_read,
            self.observer.waiting,
            self.observer.workers,
            app=self.app,
            configured=chosen.queues,
            seen=self.observer.queues,
            management_api=credentials.options.get("broker_api"),
            on_consumers=self._learn_queues,
        )
        take = self.keeper.shown if self.keeper else self.registry.snapshot
        try:
            self.server = MetricsServer(chosen.address, chosen.port, Publisher(take), self.health)
        except ServerError as error:
            raise SettingsError(str(error)) from None
        self.invalid: Counter[str] = Counter()
        self._enables = chosen.enable_events
        self._turned = time.monotonic()
        self._started = time.monotonic()
        self._former: list[Record] | None = None
        #: when the former run took in its last event; None when that was told, or is not known
        self._last_taken: float | None = None
        #: task -> payloads that had passed before it was put aside, and its rows since then
        self._late: OrderedDict[str, tuple[int, list[Record]]] = OrderedDict()
        self._position = 0
        self._threads: list[threading.Thread] = []
        self._died: list[str] = []
        self._sources()

    # ------------------------------------------------------------------ running

    def run(self) -> bool:
        """Works until `stop` is set, then writes what is left; False when it had to end since a thread died."""
        self.server.start()
        if self.writer:
            self.writer.start()
        self._start("flowerbed-reader", self.reader.run, self.stop)
        self._start("flowerbed-queues", self.queues.run, self.stop)
        if self.words:
            self._start("flowerbed-words", self.words.run, self.stop)
        if self._enables:
            self._start("flowerbed-enable", keep_enabled, self.app, self.stop)
        notify.notify("READY=1")
        self._begin()
        while not self.stop.is_set():
            self.turn(self.buffer.take(TURN_SECONDS))
        notify.notify("STOPPING=1")
        # what the reader hands over until it has ended
        end = time.monotonic() + FAREWELL_SECONDS
        while self._threads[0].is_alive() and time.monotonic() < end:
            self.turn(self.buffer.take(0.05))
        while payloads := self.buffer.take(0):
            self.turn(payloads)
        self._settle(everything=True)
        if self.writer:
            self.writer.stop()
        self.server.stop()
        return not self._died

    def _begin(self) -> None:
        """Lets the history tell of former runs before the first event is counted, if it can."""
        while self.writer and not self.writer.opened and not self.stop.wait(0.02):
            self._turned = time.monotonic()
            # it waits on purpose, and does not stand still
            notify.notify("WATCHDOG=1")
            late = self._turned - self._started > START_SECONDS or self.buffer.is_half_full
            if late or self.writer.stats.problem is not None:
                logger.warning("The history does not tell of former runs yet: tasks that began before have no name.")
                break
        self._turned = time.monotonic()
        self._remember()

    def _told(self, former: list[Record]) -> None:
        """Takes the tasks of former runs, for the thread that counts."""
        self._former = former

    def _remember(self) -> None:
        """Goes on where the former run ended: with its counters and its tasks."""
        if self.keeper:
            self.keeper.settle()
        former, self._former = self._former, None
        if former is None:
            return
        self.folder.restore(former)
        self._last_taken = max((record.updated for record in former), default=None)
        self.abandoned.expect(self.folder.running_on(), time.monotonic())
        for record in former:
            if record.state == "PENDING" and record.queue is not None:
                self.observer.waiting.add(record.queue, record.id, record.seen)

    def turn(self, payloads: list[bytes]) -> None:
        """Takes in payloads, and looks at what time has done to workers and counters once a second."""
        now, moment = time.time(), time.monotonic()
        changed: dict[str, Record] = {}
        for payload in payloads:
            try:
                self._take(self._decoded(payload), now, moment, changed)
            except Exception:
                # the broker may send it again and again: it goes by, as everything does that cannot be read
                if not self.invalid["unexpected"]:
                    logger.exception("An event could not be taken in; more of them are counted only")
                self.invalid["unexpected"] += 1
        if moment - self._turned >= LOOK_SECONDS:
            self._turned = moment
            self._look(now, moment, changed)
            notify.notify("WATCHDOG=1")
        self._settle()
        if self.writer:
            for record in changed.values():
                if record.id in self.observer.held:
                    self._late.setdefault(record.id, (self._position, []))[1].append(copy(record))
                else:
                    self.writer.put(record)
            self.folder.forget_texts()
            self._position = self.buffer.passed
            self.writer.meet()

    def _settle(self, everything: bool = False) -> None:
        """Hands over rows whose changes are counted now: what is not counted must come again after a `kill -9`."""
        for uuid in self.observer.settle(everything):
            for late in self._late.pop(uuid, (0, []))[1]:
                if self.writer:
                    self.writer.put(late)

    def _decoded(self, payload: bytes) -> list[Event]:
        try:
            return decode(payload)
        except DecodeError as error:
            self.invalid[error.reason] += error.count
            return error.events

    def _take(self, events: list[Event], now: float, moment: float, changed: dict[str, Record]) -> None:
        """Takes in the events of a payload, and notes the records that they change."""
        fold, take = self.folder.fold, self.observer.take
        for event in events:
            if not event.uuid:
                take(event, None, moment)
                if event.type in ("worker-online", "worker-heartbeat"):
                    self.abandoned.heard(event, moment, now)
                continue
            change = fold(event, now)
            take(event, change, moment)
            if change is not None:
                changed[change.record.id] = change.record

    def _look(self, now: float, moment: float, changed: dict[str, Record]) -> None:
        """Once a second: lost workers and their tasks, what the history told late, and threads that died."""
        connection, reached = self.reader.stats.connected_since, min(self.buffer.reached, moment)
        for worker in self.observer.check(reached, connection):
            logger.warning("Worker %s was lost: it sends no heartbeats and said no goodbye.", clean(worker))
        for worker, before in self.abandoned.check(self.observer.workers.known, reached, connection):
            changes = self.folder.lost(worker, now, before)
            if changes:
                logger.warning("%d tasks that were started on worker %s are lost.", len(changes), clean(worker))
            for change in changes:
                self.observer.change(change)
                changed[change.record.id] = change.record
            if self.writer:
                # those that are not remembered here
                self.writer.mark_lost(worker, min(now, before))
        self._remember()
        if connection is not None and self._last_taken is not None:
            logger.warning(
                "Reading events; the last one before this start was taken in %.0f s ago. What was sent in between is "
                "counted only where the broker kept it (RabbitMQ).",
                max(connection - self._last_taken, 0.0),
            )
            self._last_taken = None
        self._died = self._dead()
        if self._died:
            logger.critical("The collector ends, since a thread has died: %s.", ", ".join(self._died))
            self.stop.set()

    def _dead(self) -> list[str]:
        """Threads that should run and do not; Python has written to the log why."""
        if self.stop.is_set():
            return []
        found = [thread.name for thread in self._threads if not thread.is_alive()]
        if self.writer and not self.writer.is_alive:
            found.append("flowerbed-history")
        return found if self.server.is_alive else [*found, "metrics-http"]

    # ------------------------------------------------------------------ what it tells

    def health(self) -> tuple[bool, dict[str, Any]]:
        """Whether events are read and counted; the history being away is told, and is no reason for red."""
        stats, moment = self.reader.stats, time.monotonic()
        reading = bool(self._threads) and self._threads[0].is_alive()
        # a moment for the first connection, and for a broker that is restarted
        silent = moment - (self._started if stats.alive is None else stats.alive)
        counting = moment - self._turned < STUCK_SECONDS
        return reading and silent < DEAF_SECONDS and counting, {
            "reader": "reading" if stats.connected_since is not None else stats.last_error or "connecting",
            "counting": "ok" if counting else "stuck",
            "dropped": self.buffer.dropped,
            "history": self._history_health(),
        }

    def _history_health(self) -> str:
        if not self.writer:
            return "off"
        if self.writer.stats.problem is not None:
            return str(self.writer.stats.problem)
        return "ok" if self.writer.opened else "opening"

    def _sources(self) -> None:
        give, stats = self.registry.source, self.reader.stats
        self.observer.running(self.folder.running.copy)
        self.queues.serve(self.registry, self.observer.options.celery_exporter)
        give(names.EVENTS_DROPPED, lambda: self.buffer.dropped)
        give(names.EVENTS_DOUBLED, lambda: self.folder.duplicates)
        give(names.TASKS_FORGOTTEN, lambda: self.folder.evicted)
        give(names.EVENTS_INVALID, lambda: {(reason,): self.invalid[reason] for reason in REASONS})
        give(names.BROKER_CONNECTED, lambda: int(stats.connected_since is not None))
        give(names.BROKER_RECONNECTS, lambda: stats.reconnects)
        give(names.BROKER_AWAY, lambda: stats.away_seconds)
        if writer := self.writer:
            give(names.HISTORY_UP, lambda: int(writer.stats.problem is None and writer.stats.last_written is not None))
            give(names.HISTORY_WRITTEN, lambda: writer.stats.written)
            give(names.HISTORY_BACKLOG, lambda: writer.backlog)
            give(names.HISTORY_FAILURES, lambda: writer.stats.failures)
            give(names.HISTORY_DROPPED, lambda: writer.stats.dropped)
            give(names.HISTORY_REFUSED, lambda: writer.stats.refused)
            give(names.HISTORY_PRUNED, lambda: writer.stats.pruned)

    # ------------------------------------------------------------------ making

    def _history(self, url: str | None, settings: Settings) -> Writer | None:
        if not url:
            return None
        keep = settings.history
        limits = Limits(
            seconds=keep.days * 86400.0 if keep.days else None, rows=keep.rows or None, size=keep.size or None
        )
        return Writer(
            url,
            limits,
            counters=lambda: self.keeper.counters() if self.keeper else [],
            on_loaded=lambda rows: self.keeper.loaded(rows) if self.keeper else None,
            on_tasks=self._told,
            look=self._look_together,
            clock=self._believed,
        )

    def _learn_queues(self, consumers: Mapping[str, Consumer]) -> None:
        # another dictionary, not the same one changed: a worker that consumes two queues now is in it no more
        self.folder.queues = sole_queues(consumers)

    def _look_together(self) -> int:
        """The counters of this moment, and how many payloads they are of."""
        if self.keeper:
            self.keeper.look()
        return next((position for position, _ in self._late.values()), self.buffer.passed)

    def _believed(self) -> float | None:
        """The time by which rows are old: ours, unless it is far ahead of what workers say; None until one did.

        A clock that jumps into the future, or a machine that starts with a wrong one, must not empty the history.
        """
        latest = self.observer.latest
        return None if latest is None else min(time.time(), latest.timestamp + BEHIND_SECONDS)

    def _written(self) -> int:
        return self.writer.stats.batches if self.writer else 0

    def _start(self, name: str, target: Any, *arguments: Any) -> None:
        thread = threading.Thread(target=target, args=arguments, name=name, daemon=True)
        self._threads.append(thread)
        thread.start()


def _celery(credentials: Credentials) -> Any:
    """A Celery application on the same broker, for asking workers."""
    from celery import Celery

    from flowerbed import broker

    app = Celery("flowerbed-collector", set_as_current=False)
    broker.configure(app, credentials.celery)
    return app


def run(settings: Settings, credentials: Credentials) -> int:
    """Runs until SIGTERM or SIGINT; raises SettingsError before anything has started."""
    collector = Collector(settings, credentials)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: collector.stop.set())
    return 0 if collector.run() else 1
