#!/usr/bin/env python3
"""What reading Celery's events costs: events per second of the consumer's processor time, on one stream over Redis.

    collector_read.py [--events 100000] [--rounds 3] [--exporter /path/to/python] [consumer ...]

Every consumer is a process of its own that reads the same stream from a redis-server started here, in turns; the
processor's time is the kernel's (/proc), user and system, without that of starting.  `--exporter` names the Python
that has prometheus-exporter-celery (danihodovic/celery-exporter), the one to compare with; without it ratios are
against the first consumer.
"""

from __future__ import annotations

import argparse
import base64
import json
import os
import random
import signal
import statistics
import subprocess
import sys
import threading
import time
import uuid
from bisect import bisect_left
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "roles" / "flower" / "files"), str(ROOT)]

TASKS, WORKERS, PATTERN = 40, 8, "/0.celeryev/*"
BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)
TICKS = os.sysconf("SC_CLK_TCK")


# ---------------------------------------------------------------------- the stream


def stream(count: int, single: float) -> Iterator[tuple[str, bytes]]:
    """Channel and payload, as Celery 5.7's workers with a prefork pool send them, until `count` events are in them.

    `single` is the part of the tasks whose events come one by one, as they do under light load, and not in a batch.
    """
    chosen = random.Random(4)
    sent = 0
    while sent < count:
        worker = f"worker{chosen.randrange(WORKERS)}@host{chosen.randrange(3)}"
        batch: list[dict[str, Any]] = []
        for _ in range(chosen.choice((1, 1, 1, 2, 4, 7))):
            batch += task_events(chosen, worker)
        sent += len(batch)
        if chosen.random() < single:
            yield from (("/0.celeryev/" + event["type"].replace("-", "."), envelope(event)) for event in batch)
        else:
            yield "/0.celeryev/task.multi", envelope(batch)


def task_events(chosen: random.Random, worker: str) -> list[dict[str, Any]]:
    """Received, started, succeeded or failed of one task."""
    number = chosen.randrange(TASKS)
    common = {
        "hostname": worker,
        "utcoffset": 0,
        "pid": 4711,
        "clock": chosen.randrange(10**6),
        "uuid": str(uuid.UUID(int=chosen.getrandbits(128), version=4)),
    }
    carried = {
        "name": f"shop.orders.task{number}",
        "args": f"({number}, 'alice@example.org')",
        "kwargs": f"{{'lines': [1, 2, {number}], 'total': 17.5}}",
        "root_id": common["uuid"],
        "parent_id": None,
        "retries": 0,
        "eta": None,
        "expires": None,
    }
    ends: dict[str, Any] = {"type": "task-succeeded", "result": "{'stored': True}", "runtime": chosen.random()}
    if chosen.random() < 0.05:
        trace = 'Traceback (most recent call last):\n  File "tasks.py", line 7, in run\n' * 4
        ends = {"type": "task-failed", "exception": "ValueError('no such order')", "traceback": trace}
    now = time.time()
    return [
        {**common, "type": "task-received", **carried, "timestamp": now},
        {**common, "type": "task-started", "timestamp": now},
        {**common, **ends, "timestamp": now},
    ]


def envelope(body: Any) -> bytes:
    """As kombu's virtual transports put it on the wire."""
    return json.dumps(
        {
            "body": base64.b64encode(json.dumps(body).encode()).decode(),
            "content-encoding": "utf-8",
            "content-type": "application/json",
            "headers": {"hostname": "worker1@host1"},
            "properties": {
                "delivery_mode": 1,
                "delivery_info": {"exchange": "celeryev", "routing_key": "task.multi"},
                "priority": 0,
                "body_encoding": "base64",
                "delivery_tag": str(uuid.uuid4()),
            },
        }
    ).encode()


# ---------------------------------------------------------------------- consumers, each in a process of its own


class Counting:
    """The least that folding and counting can be: a record a task, counters, a histogram."""

    def __init__(self) -> None:
        self.tasks: dict[str, Any] = {}
        self.counters: dict[tuple[str | None, str], int] = {}
        self.histogram: dict[str | None, list[int]] = {}

    def take(self, events: list[Any]) -> None:
        for event in events:
            if event.type == "task-received":
                self.tasks[event.uuid] = event
                name = event.name
            else:
                record = self.tasks.get(event.uuid)
                name = record.name if record else None
                if event.runtime is not None:
                    self.tasks.pop(event.uuid, None)
                    counts = self.histogram.setdefault(name, [0] * (len(BUCKETS) + 1))
                    counts[bisect_left(BUCKETS, event.runtime)] += 1
            key = (name, event.type)
            self.counters[key] = self.counters.get(key, 0) + 1


class Folding:
    """The collector's own folding, and counters like those of its metrics; texts are for the history only."""

    def __init__(self) -> None:
        from flowerbed.collector.tasks import Folder
        from flowerbed.redact import Redactor
        from flowerbed.settings import Redact

        self.folder = Folder(Redactor(Redact()), longest={})
        self.counters: dict[tuple[str | None, str, str | None], int] = {}
        self.histogram: dict[str | None, list[int]] = {}

    def take(self, events: list[Any]) -> None:
        now, fold, counters = time.time(), self.folder.fold, self.counters
        for event in events:
            change = fold(event, now)
            if change is None:
                continue
            record = change.record
            key = (record.name, change.kind, record.queue)
            counters[key] = counters.get(key, 0) + 1
            if change.runtime_seconds is not None:
                counts = self.histogram.setdefault(record.name, [0] * (len(BUCKETS) + 1))
                counts[bisect_left(BUCKETS, change.runtime_seconds)] += 1


def decoding(then: Callable[[list[Any]], None]) -> Callable[[list[bytes]], None]:
    from flowerbed.collector.events import decode

    def take(payloads: list[bytes]) -> None:
        for payload in payloads:
            then(decode(payload))

    return take


def threaded(take: Callable[[list[bytes]], None]) -> Callable[[list[bytes]], None]:
    """Hands over to a second thread, as the collector does."""
    import queue

    waiting: queue.SimpleQueue[list[bytes]] = queue.SimpleQueue()

    def fold() -> None:
        while True:
            take(waiting.get())

    threading.Thread(target=fold, daemon=True).start()
    return waiting.put


def with_reader(url: str, take: Callable[[list[bytes]], None]) -> None:
    from flowerbed.collector.reader import Reader, connections

    Reader(connections({"broker_url": url}), take).run(threading.Event())


def with_pubsub(url: str, take: Callable[[list[bytes]], None]) -> None:
    """redis-py's own pub/sub."""
    import redis

    client: Any = redis.Redis.from_url(url)
    subscription = client.pubsub(ignore_subscribe_messages=True)
    subscription.psubscribe(PATTERN)
    while True:
        message = subscription.get_message(timeout=1)
        if message:
            take([message["data"]])


def with_replies(url: str, take: Callable[[list[bytes]], None]) -> None:
    """redis-py's connection, without its pub/sub: the hiredis parser that it has."""
    import redis

    connection: Any = redis.Redis.from_url(url, protocol=2).connection_pool.make_connection()
    connection.connect()
    connection.send_command("PSUBSCRIBE", PATTERN)
    while True:
        reply = connection.read_response()
        if len(reply) == 4:
            take([reply[3]])


def with_receiver(url: str, take: Callable[[list[bytes]], None]) -> None:
    """kombu's general way, which the reader takes for other brokers."""
    from flowerbed.collector import reader, reader_redis

    reader_redis.fits = lambda connection: False
    reader.Reader(reader.connections({"broker_url": url}), take).run(threading.Event())


CONSUMERS: dict[str, Callable[[str], None]] = {
    "reader, nothing done": lambda url: with_reader(url, lambda payloads: None),
    "reader, decoding": lambda url: with_reader(url, decoding(lambda events: None)),
    "reader, decoding and counting": lambda url: with_reader(url, decoding(Counting().take)),
    "the same in two threads": lambda url: with_reader(url, threaded(decoding(Counting().take))),
    "reader, decoding, folding, two threads": lambda url: with_reader(url, threaded(decoding(Folding().take))),
    "redis-py pub/sub, folding": lambda url: with_pubsub(url, decoding(Folding().take)),
    "redis-py pub/sub, decoding and counting": lambda url: with_pubsub(url, decoding(Counting().take)),
    "redis-py replies, decoding and counting": lambda url: with_replies(url, decoding(Counting().take)),
    "kombu Consumer, decoding and counting": lambda url: with_receiver(url, decoding(Counting().take)),
}


# ---------------------------------------------------------------------- measuring


def cpu_seconds(pid: int) -> float:
    """User and system time of a process so far, in seconds."""
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


def settled(pid: int) -> float:
    """The processor's time when it stands still: at most 0.02 s more within a second."""
    last = cpu_seconds(pid)
    while True:
        time.sleep(1)
        now = cpu_seconds(pid)
        if now - last <= 0.02:
            return now
        last = now


def measured(command: list[str], client: Any, messages: list[tuple[str, bytes]], pace: float) -> float:
    """Seconds of the processor that a consumer took for all messages; `pace` in messages a second, 0 is all at once."""
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 30
        while not client.pubsub_numpat():
            if time.monotonic() > deadline or process.poll() is not None:
                raise SystemExit(f"{Path(command[0]).name} {command[1:4]} did not subscribe")
            time.sleep(0.1)
        before = settled(process.pid)
        publish(client, messages, pace)
        while any(int(entry["omem"]) for entry in client.client_list(_type="pubsub")):
            time.sleep(0.2)
        return settled(process.pid) - before
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()


def publish(client: Any, messages: list[tuple[str, bytes]], pace: float) -> None:
    started = time.monotonic()
    for first in range(0, len(messages), 20):
        with client.pipeline(transaction=False) as pipeline:
            for channel, payload in messages[first : first + 20]:
                pipeline.publish(channel, payload)
            pipeline.execute()
        if pace and (ahead := first / pace - (time.monotonic() - started)) > 0:
            time.sleep(ahead)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--events", type=int, default=100_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--pace", type=float, default=0, help="events a second; 0: as fast as Redis takes them")
    parser.add_argument("--single", type=float, default=0.4, help="part of the tasks whose events come one by one")
    parser.add_argument("--exporter", help="Python with prometheus-exporter-celery")
    parser.add_argument("--consume", nargs=2, metavar=("CONSUMER", "URL"), help=argparse.SUPPRESS)
    parser.add_argument("consumers", nargs="*", help=", ".join(CONSUMERS))
    options = parser.parse_args()
    if options.consume:
        CONSUMERS[options.consume[0]](options.consume[1])
        return 0
    import redis

    from tests.addon.addon_support import Redis, free_port

    server = Redis()
    try:
        client: Any = redis.Redis.from_url(server.url)
        # a slow consumer is to be measured, not to be thrown out
        client.config_set("client-output-buffer-limit", "pubsub 0 0 0")
        commands = {
            name: [sys.executable, str(Path(__file__).resolve()), "--consume", name, server.url]
            for name in options.consumers or CONSUMERS
        }
        if options.exporter:
            starting = "from src.cli import cli; cli()"
            arguments = [f"--broker-url={server.url}", "--host=127.0.0.1", f"--port={free_port()}"]
            commands = {"celery-exporter": [options.exporter, "-c", starting, *arguments], **commands}
        messages = list(stream(options.events, options.single))
        pace = options.pace * len(messages) / options.events
        found: dict[str, list[float]] = {name: [] for name in commands}
        for _ in range(options.rounds):
            for name, command in commands.items():
                found[name].append(measured(command, client, messages, pace))
        report(found, options.events, len(messages))
    finally:
        server.kill()
    return 0


def report(found: dict[str, list[float]], events: int, messages: int) -> None:
    print(f"{events} events in {messages} messages, median of {len(next(iter(found.values())))}")
    first = statistics.median(next(iter(found.values())))
    for name, seconds in found.items():
        median = statistics.median(seconds)
        spread = " ".join(f"{one:.2f}" for one in sorted(seconds))
        print(
            f"{name:42} {events / max(median, 0.01):9,.0f} events/s  {first / max(median, 0.01):5.1f} x   ({spread} s)"
        )


if __name__ == "__main__":
    sys.exit(main())
