"""Every metric of the collector: name, kind, meaning, labels, and what it costs; docs/metrics.md is made from this.

`cost` is the number of series that a metric makes, in words.

Names and units follow https://prometheus.io/docs/practices/naming/: seconds, bytes, counters end in `_total`.
"""

from __future__ import annotations

from dataclasses import dataclass

COUNTER, GAUGE, HISTOGRAM = "counter", "gauge", "histogram"
#: what a label value becomes when there are too many of them, or when its task is not allowed a name of its own
OTHER = "other"
#: what a label says when no event told it
UNKNOWN = "unknown"
#: labels whose few values come from our own code, so that they are never folded
FIXED_LABELS = frozenset(("state", "reason", "metric", "le"))
#: what happens to a task, in the order of a life; `lost`: its worker went away without a word
STATES = ("sent", "received", "started", "succeeded", "failed", "retried", "revoked", "rejected", "lost")


@dataclass(frozen=True)
class Metric:
    """One family of series."""

    name: str
    kind: str
    help: str
    labels: tuple[str, ...] = ()
    #: series that it makes
    cost: str = "1"
    #: survives a restart of the collector
    kept: bool = False

    def with_label(self, label: str) -> Metric:
        """The same with one label more."""
        return Metric(self.name, self.kind, self.help, (*self.labels, label), f"{self.cost} x {label}s", self.kept)


_TASKS_QUEUES = "tasks x queues x 9"

TASKS = Metric(
    "celery_tasks_total", COUNTER, "Tasks that came to a state.", ("task", "state", "queue"), _TASKS_QUEUES, kept=True
)
RUNTIME = Metric(
    "celery_task_runtime_seconds",
    HISTOGRAM,
    "How long tasks ran that succeeded.",
    ("task",),
    "tasks x (buckets + 3)",
    kept=True,
)
QUEUE_WAIT = Metric(
    "celery_task_queue_wait_seconds",
    HISTOGRAM,
    "From sent to received by a worker; needs task_send_sent_event.",
    ("queue",),
    "queues x (buckets + 3)",
    kept=True,
)
PREFETCH = Metric(
    "celery_task_prefetch_seconds",
    HISTOGRAM,
    "From received by a worker, or from its ETA, to started there.",
    ("queue",),
    "queues x (buckets + 3)",
    kept=True,
)
FAILURES = Metric(
    "celery_task_failures_total",
    COUNTER,
    "Tasks that failed, by class of the exception.",
    ("task", "exception"),
    "tasks that fail x exceptions",
    kept=True,
)
RETRIES = Metric(
    "celery_task_retries_total",
    COUNTER,
    "Tasks that are to be tried again, by class of the exception.",
    ("task", "exception"),
    "tasks that retry x exceptions",
    kept=True,
)
RUNNING = Metric("celery_tasks_running", GAUGE, "Tasks that run now.", ("task",), "tasks")

WORKERS_ONLINE = Metric(
    "celery_workers_online", GAUGE, "Workers that send heartbeats; while the broker is away, those that did."
)
WORKERS_LOST = Metric(
    "celery_workers_lost", GAUGE, "Workers whose heartbeats stopped without a goodbye, until they are forgotten."
)
WORKER_LOSSES = Metric(
    "celery_worker_losses_total", COUNTER, "Times that a worker's heartbeats stopped without a goodbye.", kept=True
)
WORKER_ONLINE = Metric(
    "celery_worker_online", GAUGE, "1 while a worker sends heartbeats, else 0.", ("worker",), "workers"
)
WORKER_LAST_SEEN = Metric(
    "celery_worker_last_seen_timestamp_seconds",
    GAUGE,
    "When a worker was last heard of, by the collector's clock.",
    ("worker",),
    "workers",
)
WORKER_ACTIVE = Metric(
    "celery_worker_active_tasks", GAUGE, "Tasks that a worker runs now, as it says.", ("worker",), "workers"
)
WORKER_PROCESSED = Metric(
    "celery_worker_processed_tasks_total",
    COUNTER,
    "Tasks that a worker has taken since it started, as it says.",
    ("worker",),
    "workers",
)
WORKER_CONCURRENCY = Metric(
    "celery_worker_concurrency", GAUGE, "Tasks that a worker can run at once.", ("worker",), "workers"
)
WORKER_MEMORY = Metric(
    "celery_worker_memory_max_bytes",
    GAUGE,
    "The most memory that a worker's main process has had, where it tells.",
    ("worker",),
    "workers",
)

QUEUE_LENGTH = Metric(
    "celery_queue_length", GAUGE, "Messages that wait in a queue, over all its priorities.", ("queue",), "queues"
)
QUEUE_CONSUMERS = Metric(
    "celery_queue_consumers", GAUGE, "Consumers of a queue; with Redis workers that consume it.", ("queue",), "queues"
)
QUEUE_OLDEST = Metric(
    "celery_queue_oldest_seconds",
    GAUGE,
    "How long the oldest message has waited; at least, where nobody tells when it was sent.",
    ("queue",),
    "queues",
)
QUEUE_UNACKED = Metric(
    "celery_queue_unacked",
    GAUGE,
    "Messages of a queue that workers hold; RabbitMQ's management API only.",
    ("queue",),
    "queues",
)
UNACKED = Metric(
    "celery_unacked_messages",
    GAUGE,
    "Messages that workers hold: prefetched, waiting for an ETA, or running with acks_late; all queues together.",
)
QUEUES_POLLED = Metric(
    "flowerbed_queues_success_timestamp_seconds", GAUGE, "When the broker last told about its queues."
)
QUEUES_FAILED = Metric("flowerbed_queues_failures_total", COUNTER, "Times that the broker did not tell.")

EVENTS = Metric("celery_events_total", COUNTER, "Events read.", ("type",), "about 12", kept=True)
EVENT_LAG = Metric(
    "flowerbed_event_lag_seconds", GAUGE, "From when the last event was sent to when it was taken in, by two clocks."
)
LAST_EVENT = Metric("flowerbed_last_event_timestamp_seconds", GAUGE, "When the last event was taken in.")
EVENTS_DROPPED = Metric(
    "flowerbed_events_dropped_total", COUNTER, "Events dropped since they came faster than they could be taken in."
)
EVENTS_DOUBLED = Metric(
    "flowerbed_events_doubled_total", COUNTER, "Events of tasks that came again and were not counted twice."
)
TASKS_FORGOTTEN = Metric(
    "flowerbed_tasks_forgotten_total",
    COUNTER,
    "Tasks under way that were forgotten since there were too many; what comes of them later has no name.",
)
EVENTS_INVALID = Metric(
    "flowerbed_events_invalid_total", COUNTER, "Messages that are no events of Celery's.", ("reason",), "10"
)
BROKER_CONNECTED = Metric("flowerbed_broker_connected", GAUGE, "1 while events are listened to, else 0.")
BROKER_RECONNECTS = Metric("flowerbed_broker_reconnects_total", COUNTER, "Times that the broker was lost and found.")
BROKER_AWAY = Metric("flowerbed_broker_away_seconds_total", COUNTER, "Time in which events could not be listened to.")
HISTORY_UP = Metric("flowerbed_history_up", GAUGE, "1 while the history can be written, else 0.")
HISTORY_WRITTEN = Metric("flowerbed_history_writes_total", COUNTER, "Rows of tasks written to the history.")
HISTORY_BACKLOG = Metric("flowerbed_history_backlog", GAUGE, "Rows of tasks that wait to be written.")
HISTORY_FAILURES = Metric("flowerbed_history_failures_total", COUNTER, "Batches that could not be written.")
HISTORY_DROPPED = Metric("flowerbed_history_dropped_total", COUNTER, "Rows given up since the history was away long.")
HISTORY_REFUSED = Metric(
    "flowerbed_history_refused_total", COUNTER, "Rows that the database did not take for what they hold."
)
HISTORY_PRUNED = Metric("flowerbed_history_pruned_total", COUNTER, "Rows deleted by age, number or size.")
SERIES = Metric("flowerbed_metric_series", GAUGE, "Series of a family of metrics.", ("metric",), "families")
SERIES_LIMIT = Metric("flowerbed_metric_series_limit", GAUGE, "The most series that a family may have.")
FOLDED = Metric(
    "flowerbed_metric_folded_total",
    COUNTER,
    "Values counted under `other` since a family had its most series.",
    ("metric",),
    "families",
)
SOURCE_FAILURES = Metric("flowerbed_metric_failures_total", COUNTER, "Metrics left out since they could not be told.")
BUILD = Metric("flowerbed_build_info", GAUGE, "Versions; always 1.", ("version", "python", "celery"))
#: the usual names of every process
CPU = Metric("process_cpu_seconds_total", COUNTER, "Time of processors that the collector has used.")
MEMORY = Metric("process_resident_memory_bytes", GAUGE, "Memory that the collector has.")
START = Metric("process_start_time_seconds", GAUGE, "When the collector was started.")

#: in the order of the documentation
SECTIONS = {
    "Tasks": (TASKS, RUNNING, RUNTIME, QUEUE_WAIT, PREFETCH, FAILURES, RETRIES),
    "Queues": (QUEUE_LENGTH, QUEUE_OLDEST, QUEUE_CONSUMERS, QUEUE_UNACKED, UNACKED, QUEUES_POLLED, QUEUES_FAILED),
    "Workers": (
        WORKERS_ONLINE,
        WORKERS_LOST,
        WORKER_LOSSES,
        WORKER_ONLINE,
        WORKER_LAST_SEEN,
        WORKER_ACTIVE,
        WORKER_PROCESSED,
        WORKER_CONCURRENCY,
        WORKER_MEMORY,
    ),
    "Events and the broker": (
        EVENTS,
        EVENT_LAG,
        LAST_EVENT,
        EVENTS_DROPPED,
        EVENTS_INVALID,
        EVENTS_DOUBLED,
        TASKS_FORGOTTEN,
        BROKER_CONNECTED,
        BROKER_RECONNECTS,
        BROKER_AWAY,
    ),
    "The history": (
        HISTORY_UP,
        HISTORY_WRITTEN,
        HISTORY_BACKLOG,
        HISTORY_FAILURES,
        HISTORY_DROPPED,
        HISTORY_REFUSED,
        HISTORY_PRUNED,
    ),
    "The collector itself": (SERIES, SERIES_LIMIT, FOLDED, SOURCE_FAILURES, BUILD, CPU, MEMORY, START),
}
METRICS = tuple(metric for section in SECTIONS.values() for metric in section)


def markdown(metrics: tuple[Metric, ...]) -> str:
    """A table for the documentation."""
    rows = ["| metric | type | labels | meaning | series | kept |", "|---|---|---|---|---|---|"]
    for metric in metrics:
        labels = ", ".join(f"`{label}`" for label in metric.labels)
        kept = "yes" if metric.kept else ""
        rows.append(f"| `{metric.name}` | {metric.kind} | {labels} | {metric.help} | {metric.cost} | {kept} |")
    return "\n".join(rows) + "\n"
