"""A Celery application that keeps its own log of what it did, to be compared with what others say of it.

The log has a line of JSON for each step of each task: when a producer has handed it to the broker, when a worker has
it, when it begins and how it ends. It is written by Celery's signals, in the process in which it happens, and owes
nothing to events. Settings come from a file: broker_url, broker_use_ssl, result_backend.
"""

from __future__ import annotations

import json
import os
import ssl
import time
from pathlib import Path
from typing import Any

from celery import Celery, Task, chord, signals
from celery.exceptions import Reject
from kombu import Queue

SETTINGS = Path("/etc/observed/celery.json")
LOG = Path("/var/lib/observed/log.jsonl")
#: `nobody` has no worker, until a test starts one
QUEUES = ("default", "other", "slow", "nobody")


class TeapotError(Exception):
    """A class of the application's own."""


def settings() -> dict[str, Any]:
    """Celery's settings, with the constants that JSON has only as text."""
    found: dict[str, Any] = json.loads(SETTINGS.read_text(encoding="utf-8"))
    if tls := found.get("broker_use_ssl"):
        tls["cert_reqs"] = ssl.VerifyMode[tls["cert_reqs"]]
        # else RabbitMQ may not have what a producer wrote down as sent
        found["broker_transport_options"] = {"confirm_publish": True}
    return found


app = Celery("observed")
app.conf.update(
    **settings(),
    task_default_queue="default",
    # priorities: RabbitMQ wants to know of them when a queue is made
    task_queues=[Queue(name, routing_key=name, max_priority=10) for name in QUEUES],
    task_create_missing_queues=False,
    task_send_sent_event=True,
    worker_prefetch_multiplier=4,
    broker_connection_retry_on_startup=True,
    broker_connection_max_retries=None,
    # a worker is back soon after its broker
    broker_connection_timeout=2,
)

# ------------------------------------------------------------------ the log


def note(what: str, uuid: str, **more: Any) -> None:
    """Adds a line; one write, so that lines of several processes do not mix."""
    line = json.dumps({"time": time.time(), "what": what, "id": uuid, **more}) + "\n"
    descriptor = os.open(LOG, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o664)
    try:
        os.write(descriptor, line.encode())
    finally:
        os.close(descriptor)


@signals.after_task_publish.connect
def sent(sender: str, headers: dict[str, Any], routing_key: str, **_: Any) -> None:
    """A producer has handed it over."""
    note(
        "sent", headers["id"], name=sender, queue=routing_key, retries=headers["retries"],
        root=headers["root_id"], parent=headers["parent_id"], group=headers["group"],
    )  # fmt: skip


@signals.task_received.connect
def received(request: Any, **_: Any) -> None:
    """A worker has it."""
    note("received", request.id, worker=request.hostname)


@signals.task_prerun.connect
def started(task_id: str, task: Any, **_: Any) -> None:
    """It begins."""
    note("started", task_id, worker=task.request.hostname)


@signals.task_success.connect
def succeeded(sender: Any, **_: Any) -> None:
    """It has returned."""
    note("succeeded", sender.request.id)


@signals.task_failure.connect
def failed(task_id: str, exception: BaseException, **_: Any) -> None:
    """It has raised."""
    note("failed", task_id, error=type(exception).__name__)


@signals.task_retry.connect
def retried(request: Any, reason: Any, **_: Any) -> None:
    """It is to be tried again."""
    note("retried", request.id, error=type(getattr(reason, "exc", reason)).__name__)


@signals.task_revoked.connect
def revoked(request: Any, **_: Any) -> None:
    """It was called off."""
    note("revoked", request.id)


# ------------------------------------------------------------------ the tasks


@app.task(name="observed.add")
def add(one: int, other: int, **more: Any) -> int:
    """What most tasks are: short."""
    return one + other


@app.task(name="observed.fail")
def fail(kind: str) -> None:
    """Raises an exception of a class."""
    raise {"value": ValueError, "key": KeyError, "os": OSError, "own": TeapotError}[kind]("on purpose")


@app.task(name="observed.flaky", bind=True, max_retries=3)
def flaky(self: Task[Any, Any]) -> int:
    """Succeeds at the third attempt."""
    if self.request.retries < 2:
        raise self.retry(exc=TimeoutError("not yet"), countdown=0.5)
    return int(self.request.retries)


@app.task(name="observed.hopeless", bind=True, max_retries=1)
def hopeless(self: Task[Any, Any]) -> None:
    """Fails at the second attempt."""
    raise self.retry(exc=ConnectionError("never"), countdown=0.5)


@app.task(name="observed.reject", bind=True, acks_late=True)
def reject(self: Task[Any, Any]) -> None:
    """Is not wanted."""
    note("rejected", self.request.id)
    raise Reject("on purpose", requeue=False)


@app.task(name="observed.sleep")
def sleep(seconds: float) -> float:
    """Takes its time."""
    time.sleep(seconds)
    return seconds


@app.task(name="observed.total")
def total(numbers: list[int]) -> int:
    """The end of a chord."""
    return sum(numbers)


@app.task(name="observed.spread")
def spread(parts: int) -> str:
    """Starts a chord from within a task."""
    return str(chord([add.s(part, 1) for part in range(parts)])(total.s()).id)
