"""The collector: reads Celery's events once, counts every one of them, and remembers every task.

Threads: the reader waits for the broker only; the main thread decodes, folds and counts; others write the history, ask
for queues, ask workers for events and answer HTTP.  Whatever one of them waits for, none of the others waits too.
"""

# ruff: noqa: PLC0415  # late imports: Celery acts when imported, and not every command needs it
from __future__ import annotations

import logging
import signal
import socket
import threading
import time
from collections import Counter
from collections.abc import Mapping
from typing import Any

from flowerbed import notify
from flowerbed.collector.buffer import Buffer
from flowerbed.collector.events import REASONS, DecodeError, decode
from flowerbed.collector.queues import Consumer, Queues, sole_queues
from flowerbed.collector.reader import Reader, connections, keep_enabled
from flowerbed.collector.tasks import Folder, Record
from flowerbed.history.retention import Limits
from flowerbed.history.writer import Writer
from flowerbed.metrics import names
from flowerbed.metrics.observe import Observer, Options
from flowerbed.metrics.persistence import Keeper
from flowerbed.metrics.registry import Registry
from flowerbed.metrics.server import MetricsServer, Publisher, ServerError
from flowerbed.redact import Redactor
from flowerbed.settings import Credentials, Settings, SettingsError

#: seconds between two looks at workers and counters
TURN_SECONDS = 1.0
#: seconds without a subscription, or without a turn of the counting, after which /health is red
DEAF_SECONDS, STUCK_SECONDS = 30.0, 10.0

logger = logging.getLogger(__name__)


class Collector:
    """All parts, put together; `run` returns when `stop` is set."""

    def __init__(self, settings: Settings, credentials: Credentials) -> None:
        """Raises SettingsError for what can never work."""
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
        self.folder = Folder(Redactor(settings.redact))
        self.reader = Reader(
            connections(credentials.celery),
            self.buffer.put,
            # on AMQP a queue of this host's and instance's own keeps events over a restart
            queue=f"celeryev.flowerbed.{socket.gethostname()}.{settings.instance}",
            max_wait=settings.broker_reconnect_max_seconds,
        )
        self.writer = self._history(credentials.history_url or settings.history.url, settings)
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
        self._threads: list[threading.Thread] = []
        self._sources()

    # ------------------------------------------------------------------ running

    def run(self) -> None:
        """Works until `stop` is set, then writes what is left."""
        self.server.start()
        if self.writer:
            self.writer.start()
        self._start("flowerbed-reader", self.reader.run, self.stop)
        self._start("flowerbed-queues", self.queues.run, self.stop)
        if self._enables:
            self._start("flowerbed-enable", keep_enabled, self.app, self.stop)
        notify.notify("READY=1")
        while not self.stop.is_set():
            self.turn(self.buffer.take(TURN_SECONDS))
        notify.notify("STOPPING=1")
        # what the reader has handed over meanwhile
        self._threads[0].join(2)
        self.turn(self.buffer.take(0))
        if self.writer:
            self.writer.stop()
        self.server.stop()

    def turn(self, payloads: list[bytes]) -> None:
        """Takes in payloads, and looks at what time has done to workers and counters once a second."""
        now, moment = time.time(), time.monotonic()
        changed: dict[str, Record] = {}
        for payload in payloads:
            try:
                events = decode(payload)
            except DecodeError as error:
                self.invalid[error.reason] += error.count
                events = error.events
            for event in events:
                change = self.folder.fold(event, now) if event.uuid else None
                self.observer.take(event, change, moment)
                if change is not None:
                    changed[change.record.id] = change.record
        if moment - self._turned >= TURN_SECONDS:
            self._turned = moment
            self._look(now, moment, changed)
            notify.notify("WATCHDOG=1")
        if self.writer:
            for record in changed.values():
                self.writer.put(record)

    def _look(self, now: float, moment: float, changed: dict[str, Record]) -> None:
        """Once a second: lost workers and their tasks, and the counters of former runs."""
        for worker in self.observer.check(moment, self.reader.stats.connected_since):
            logger.warning("Worker %s was lost: it sends no heartbeats and said no goodbye.", worker)
            for change in self.folder.lost(worker, now):
                self.observer.change(change)
                changed[change.record.id] = change.record
            if self.writer:
                self.writer.mark_lost(worker, now)
        if self.keeper:
            self.keeper.settle()

    # ------------------------------------------------------------------ what it tells

    def health(self) -> tuple[bool, dict[str, Any]]:
        """Whether events are read and counted; the history being away is told, and is no reason for red."""
        stats, moment = self.reader.stats, time.monotonic()
        alive = bool(self._threads) and self._threads[0].is_alive()
        since = stats.connected_since
        # a moment for the first connection, and for a broker that is restarted
        lost = stats.last_alive
        silent = moment - self._started if lost is None else time.time() - lost
        connected = since is not None or silent < DEAF_SECONDS
        counting = moment - self._turned < STUCK_SECONDS
        problem = self.writer.stats.problem if self.writer else None
        return alive and connected and counting, {
            "reader": "reading" if since is not None else stats.last_error or "connecting",
            "counting": "ok" if counting else "stuck",
            "dropped": self.buffer.dropped,
            "history": "off" if not self.writer else str(problem) if problem else "ok",
        }

    def _sources(self) -> None:
        give, stats = self.registry.source, self.reader.stats
        self.observer.running(self.folder.running.copy)
        self.queues.serve(self.registry, self.observer.options.celery_exporter)
        give(names.EVENTS_DROPPED, lambda: self.buffer.dropped)
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
        )

    def _learn_queues(self, consumers: Mapping[str, Consumer]) -> None:
        # another dictionary, not the same one changed: a worker that consumes two queues now is in it no more
        self.folder.queues = sole_queues(consumers)

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
    collector.run()
    return 0
