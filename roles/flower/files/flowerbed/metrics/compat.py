"""The names and labels of danihodovic/celery-exporter (0.11, 0.12), so that its dashboards and alerts work unchanged.

What differs: its counters survive a restart and a worker's end of life is seen after three heartbeats, not minutes; a
host is up while any of its workers is, and its active tasks are those of all its workers; an exception with a dotted
name is called by its class, not UnknownException; there are no `_created` series; its limit of series is ours.

`celery_queue_length` is the one name that both have: with this on it has the exporter's label, `queue_name`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime
from typing import TYPE_CHECKING

from flowerbed.metrics import names
from flowerbed.metrics.names import COUNTER, GAUGE, HISTOGRAM, Metric
from flowerbed.metrics.registry import Histogram, Labels, Registry, Series, clean
from flowerbed.metrics.workers import Workers

if TYPE_CHECKING:
    from flowerbed.collector.tasks import Change

#: prometheus_client's default buckets, which the exporter has for runtimes, and its own for waits, in seconds
BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0)
WAIT_BUCKETS = (0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1800.0)
#: what the exporter calls the queue of a task when no task-sent told it, and an exception it cannot read
DEFAULT_QUEUE, UNKNOWN_EXCEPTION = "celery", "UnknownException"
#: what it calls a task without a name; its dashboards and alerts leave that out
NO_NAME = "None"

_LABELS = ("hostname", "name", "queue_name")
_COST = "tasks x hosts x queues"
COUNTERS = {
    state: Metric(
        f"celery_task_{state}_total",
        COUNTER,
        text,
        ("exception", *_LABELS) if state == "failed" else _LABELS,
        _COST,
        kept=True,
    )
    for state, text in (
        ("sent", "Sent when a task message is published."),
        ("received", "Sent when the worker receives a task."),
        ("started", "Sent just before the worker executes the task."),
        ("succeeded", "Sent if the task executed successfully."),
        ("failed", "Sent if the execution of the task failed."),
        (
            "rejected",
            "The task was rejected by the worker, possibly to be re-queued or moved to a dead letter queue.",
        ),
        ("revoked", "Sent if the task has been revoked."),
        ("retried", "Sent if the task failed, but will be retried in the future."),
    )
}
RUNTIME = Metric(
    "celery_task_runtime", HISTOGRAM, "Histogram of task runtime measurements.", _LABELS, f"{_COST} x 17", kept=True
)
QUEUE_WAIT = Metric(
    "celery_task_queue_wait_time",
    HISTOGRAM,
    "Histogram of the time tasks spend waiting in the queue before being executed, excluding deliberate ETA/countdown "
    "delay.",
    _LABELS,
    f"{_COST} x 17",
    kept=True,
)
WORKER_UP = Metric(
    "celery_worker_up", GAUGE, "Indicates if a worker has recently sent a heartbeat.", ("hostname",), "hosts"
)
WORKER_ACTIVE = Metric(
    "celery_worker_tasks_active",
    GAUGE,
    "The number of tasks the worker is currently processing",
    ("hostname",),
    "hosts",
)
QUEUE_LENGTH = Metric("celery_queue_length", GAUGE, "The number of message in broker queue.", ("queue_name",), "queues")
CONSUMERS = Metric(
    "celery_active_consumer_count",
    GAUGE,
    "The number of active consumer in broker queue.",
    ("queue_name",),
    "queues, RabbitMQ only",
)
WORKER_COUNT = Metric(
    "celery_active_worker_count", GAUGE, "The number of active workers in broker queue.", ("queue_name",), "queues"
)
PROCESS_COUNT = Metric(
    "celery_active_process_count", GAUGE, "The number of active processes in broker queue.", ("queue_name",), "queues"
)
METRICS = (
    *COUNTERS.values(),
    RUNTIME,
    QUEUE_WAIT,
    WORKER_UP,
    WORKER_ACTIVE,
    QUEUE_LENGTH,
    CONSUMERS,
    WORKER_COUNT,
    PROCESS_COUNT,
)


class Hosts(dict[str, str]):
    """Full node name -> the host's, as the exporter's label has it."""

    def __missing__(self, node: str) -> str:
        """Looks at a node that was not seen before."""
        if len(self) >= 10_000:
            self.clear()
        self[node] = host = clean(node.rpartition("@")[2]) or names.UNKNOWN
        return host


class CeleryExporter:
    """Counts as the exporter does."""

    def __init__(self, registry: Registry, workers: Workers) -> None:
        self._counters = {state: registry.counter(metric) for state, metric in COUNTERS.items()}
        self._runtime = registry.histogram(RUNTIME, lambda _: BUCKETS)
        self._queue_wait = registry.histogram(QUEUE_WAIT, lambda _: WAIT_BUCKETS)
        self._workers = workers
        self._hosts = Hosts()
        #: what shows all its counters already
        self._shown: set[Labels] = set()
        registry.source(WORKER_UP, lambda: self._each_host(lambda one: int(one.online), max))
        registry.source(WORKER_ACTIVE, lambda: self._each_host(lambda one: one.active, lambda one, two: one + two))

    def take(self, change: Change, task: str, queue: str) -> None:
        """Counts one change of a task; `task` and `queue` are their labels."""
        kind = change.kind
        if (counter := self._counters.get(kind)) is None:
            return
        record = change.record
        if record.queue is None:
            queue = DEFAULT_QUEUE
        if not record.name:
            task = NO_NAME
        labels = (self._hosts[change.hostname], task, queue)
        if kind == "failed":
            counter.add((exception(change.error), *labels))
        else:
            counter.add(labels)
        if kind == "sent":
            return
        if labels not in self._shown:
            self._show(labels, kind)
        if kind == "succeeded" and change.runtime_seconds is not None:
            self._runtime.observe(labels, max(change.runtime_seconds, 0.0))
        elif kind == "started" and record.sent is not None:
            begin = max(record.sent, _seconds(record.eta)) if record.eta is not None else record.sent
            self._queue_wait.observe(labels, max(change.timestamp - begin, 0.0))

    def forget(self, workers: list[str]) -> None:
        """Takes away the series of hosts whose last worker is forgotten."""
        left = {self._hosts[name] for name in self._workers.known}
        gone = {self._hosts[name] for name in workers} - left
        if not gone:
            return
        families: list[Series | Histogram] = [*self._counters.values(), self._runtime, self._queue_wait]
        for family in families:
            # `failed` has the exception before it
            for labels in [labels for labels in family.values if labels[-3] in gone]:
                family.remove(labels)
        self._shown = {labels for labels in self._shown if labels[0] not in gone}

    def _show(self, labels: Labels, kind: str) -> None:
        """The exporter shows every counter of a task once it has heard of it from a worker."""
        if len(self._shown) < 100_000:
            self._shown.add(labels)
        for state, counter in self._counters.items():
            if state != kind:
                counter.appear(("", *labels) if state == "failed" else labels)

    def _each_host(
        self, figure: Callable[..., int | None], join: Callable[[float, float], float]
    ) -> Mapping[Labels, float]:
        found: dict[Labels, float] = {}
        for name, worker in self._workers.known.copy().items():
            value = figure(worker)
            if value is not None:
                labels = (self._hosts[name],)
                found[labels] = join(found[labels], value) if labels in found else value
        return found


def _seconds(eta: str) -> float:
    """Seconds since 1970 of an ISO 8601 time; 0 when it is none."""
    try:
        return datetime.fromisoformat(eta).timestamp()
    except (ValueError, OverflowError, OSError):
        return 0.0


def exception(error: str | None) -> str:
    """The label of an exception's class."""
    return clean(error.rpartition(".")[2]) if error else UNKNOWN_EXCEPTION
