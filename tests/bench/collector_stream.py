#!/usr/bin/env python3
"""Publishes events as Celery's workers do, and writes down what it published: the other side of the collector's books.

    collector_stream.py --url redis://… [--events 100000 | --seconds 300] [--rate 20000] [--log FILE]

A rate of 0 is as fast as Redis takes them.  The log is JSON: events by type, tasks by name, state and queue, and rows
by name and state with a checksum over every id, so that counters and a history can be compared with it exactly.
"""

from __future__ import annotations

import argparse
import base64
import json
import random
import socket
import sys
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit
from zlib import crc32

import hiredis
import msgspec

CHANNEL = "/{database}.celeryev/"
#: messages in one write to Redis, and seconds between two when a rate is kept
MESSAGES, SLICE_SECONDS = 200, 0.01
#: the states of rows by the type of a task's last event
STATES = {"task-succeeded": "SUCCESS", "task-failed": "FAILURE", "task-revoked": "REVOKED"}
TRACEBACK = 'Traceback (most recent call last):\n  File "tasks.py", line 7, in run\n' * 4
_encode = msgspec.json.Encoder().encode
_ENVELOPE = (
    b'{"body": "%s", "content-encoding": "utf-8", "content-type": "application/json", "headers": {"hostname": '
    b'"worker1@host1"}, "properties": {"delivery_mode": 1, "delivery_info": {"exchange": "celeryev", "routing_key": '
    b'"task.multi"}, "priority": 0, "body_encoding": "base64", "delivery_tag": '
    b'"0f8fad5b-d9cb-469f-a165-70867728950e"}}'
)


@dataclass
class Mix:
    """What the stream is made of."""

    tasks: int = 40
    workers: int = 8
    queues: int = 3
    #: part of the tasks whose events come one by one, as they do under light load, and not in a batch
    single: float = 0.4
    #: part of the tasks whose producer tells that it sent them
    sent: float = 0.25
    seed: int = 4
    #: what ids begin with, so that two runs have none in common
    run: int = 0


@dataclass
class Books:
    """What was published."""

    events: int = 0
    messages: int = 0
    #: messages that nobody was subscribed to
    unheard: int = 0
    types: Counter[str] = field(default_factory=Counter)
    #: task, state, queue as the collector labels them -> number
    counted: Counter[tuple[str, str, str]] = field(default_factory=Counter)
    #: name, state -> number of rows
    rows: Counter[tuple[str, str]] = field(default_factory=Counter)
    #: sum over all rows of crc32(id + state)
    checksum: int = 0
    seconds: float = 0.0

    def write(self, path: Path) -> None:
        """As JSON: [key, number] pairs, since the keys are tuples."""
        known = {name: getattr(self, name) for name in ("events", "messages", "unheard", "checksum", "seconds")}
        counts = {
            "types": dict(self.types),
            "counted": [[*key, number] for key, number in sorted(self.counted.items())],
            "rows": [[*key, number] for key, number in sorted(self.rows.items())],
        }
        path.write_text(json.dumps({**known, **counts}, indent=1), encoding="utf-8")


def row_sum(uuid: str, state: str) -> int:
    """What a row adds to the checksum."""
    return crc32(f"{uuid} {state}".encode())


#: routing key, payload
Message = tuple[str, bytes]


def groups(mix: Mix, books: Books) -> Iterator[list[Message]]:
    """What a worker sends at once, for ever: whole lives of a few tasks, or heartbeats; all of it is in the books."""
    chosen = random.Random(f"{mix.seed} {mix.run}")
    beats = time.monotonic()
    while True:
        if time.monotonic() >= beats:
            beats += 2
            beat = {"type": "worker-heartbeat", "freq": 2.0, "active": 1, "processed": books.events}
            books.types["worker-heartbeat"] += mix.workers
            books.events += mix.workers
            books.messages += mix.workers
            yield [
                ("worker.heartbeat", envelope(_encode({**_common(worker), **beat}))) for worker in range(mix.workers)
            ]
        worker = chosen.randrange(mix.workers)
        batch: list[dict[str, Any]] = []
        for _ in range(chosen.choice((1, 1, 1, 2, 4, 7))):
            batch += _task(chosen, mix, books, worker)
        found = [("task.multi", envelope(_encode(batch)))]
        if chosen.random() < mix.single:
            found = [(event["type"].replace("-", "."), envelope(_encode(event))) for event in batch]
        books.events += len(batch)
        books.messages += len(found)
        yield found


def _common(worker: int) -> dict[str, Any]:
    return {
        "hostname": f"worker{worker}@host{worker % 3}",
        "utcoffset": 0,
        "pid": 4711,
        "clock": 123456,
        "timestamp": time.time(),
    }


def _task(chosen: random.Random, mix: Mix, books: Books, worker: int) -> list[dict[str, Any]]:
    """All events of one task, which are noted in the books."""
    number = chosen.randrange(mix.tasks)
    bits = f"{chosen.getrandbits(96):024x}"
    uuid = f"{mix.run:08x}-{bits[:4]}-{bits[4:8]}-{bits[8:12]}-{bits[12:]}"
    name, queue = f"shop.orders.task{number}", "unknown"
    carried = {
        "uuid": uuid,
        "name": name,
        "args": f"({number}, 'alice@example.org')",
        "kwargs": f"{{'lines': [1, 2, {number}], 'total': 17.5}}",
        "root_id": uuid,
        "parent_id": None,
        "retries": 0,
        "eta": None,
        "expires": None,
    }
    common = _common(worker)
    events: list[dict[str, Any]] = []
    if chosen.random() < mix.sent:
        queue = f"queue{number % mix.queues}"
        producer = {**common, "hostname": f"gen{worker}@web"}
        events.append({**producer, "type": "task-sent", **carried, "queue": queue, "routing_key": queue})
    events += [{**common, "type": "task-received", **carried}, {**common, "uuid": uuid, "type": "task-started"}]
    fate = chosen.random()
    if fate < 0.05:
        end: dict[str, Any] = {
            "type": "task-failed",
            "exception": "ValueError('no such order')",
            "traceback": TRACEBACK,
        }
    elif fate < 0.06:
        end = {"type": "task-revoked", "terminated": True, "signum": "15", "expired": False}
    else:
        end = {"type": "task-succeeded", "result": "{'stored': True}", "runtime": chosen.random()}
    events.append({**common, "uuid": uuid, **end})
    for event in events:
        kind = event["type"]
        books.types[kind] += 1
        books.counted[name, kind[5:], queue] += 1
    state = STATES[events[-1]["type"]]
    books.rows[name, state] += 1
    books.checksum += row_sum(uuid, state)
    return events


def envelope(body: bytes) -> bytes:
    """As kombu's virtual transports put it on the wire."""
    return _ENVELOPE % base64.b64encode(body)


class Publisher:
    """A connection to Redis that publishes in large writes; redis-py would cost more than all the rest."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        self.database = int(parts.path.strip("/") or 0)
        self._socket = socket.create_connection((parts.hostname or "127.0.0.1", parts.port or 6379), timeout=60)
        self._replies = hiredis.Reader()
        if parts.password:
            self._socket.sendall(_command(b"AUTH", unquote(parts.password).encode()))
            self._wait(1)

    def publish(self, waiting: list[tuple[str, bytes]]) -> int:
        """Publishes all, and gives the number of those that nobody listened to."""
        prefix = CHANNEL.format(database=self.database)
        self._socket.sendall(b"".join(_command(b"PUBLISH", (prefix + key).encode(), data) for key, data in waiting))
        return self._wait(len(waiting))

    def _wait(self, number: int) -> int:
        zeros = 0
        while number:
            data = self._socket.recv(65536)
            if not data:
                raise SystemExit("Redis closed the generator's connection")
            self._replies.feed(data)
            while (reply := self._replies.gets()) is not False:
                if isinstance(reply, Exception):
                    raise SystemExit(f"Redis: {reply}")
                number -= 1
                zeros += reply == 0
        return zeros


def _command(*words: bytes) -> bytes:
    return b"*%d\r\n" % len(words) + b"".join(b"$%d\r\n%s\r\n" % (len(word), word) for word in words)


def publish(url: str, mix: Mix, *, events: int = 0, seconds: float = 0, rate: float = 0) -> Books:
    """Publishes `events` events, or for so many seconds; `rate` a second, 0 is as fast as Redis takes them."""
    publisher, books = Publisher(url), Books()
    stream = groups(mix, books)
    began = time.monotonic()
    while (not events or books.events < events) and (not seconds or time.monotonic() - began < seconds):
        due = rate * (time.monotonic() - began) if rate else books.events + 10 * MESSAGES
        waiting: list[Message] = []
        while books.events < due and len(waiting) < MESSAGES and (not events or books.events < events):
            waiting += next(stream)
        if waiting:
            books.unheard += publisher.publish(waiting)
        if len(waiting) < MESSAGES:
            time.sleep(SLICE_SECONDS)
    books.seconds = time.monotonic() - began
    return books


def main() -> int:
    """Publish, and write the log."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--url", required=True)
    parser.add_argument("--events", type=int, default=0)
    parser.add_argument("--seconds", type=float, default=0)
    parser.add_argument("--rate", type=float, default=0)
    parser.add_argument("--log", type=Path)
    for name, kind in (("tasks", int), ("workers", int), ("single", float), ("sent", float), ("run", int)):
        parser.add_argument(f"--{name}", type=kind, default=getattr(Mix, name))
    options = parser.parse_args()
    mix = Mix(options.tasks, options.workers, single=options.single, sent=options.sent, run=options.run)
    books = publish(
        options.url, mix, events=options.events or (0 if options.seconds else 100_000), seconds=options.seconds,
        rate=options.rate,
    )  # fmt: skip
    if options.log:
        books.write(options.log)
    print(f"{books.events} events in {books.messages} messages, {books.events / books.seconds:,.0f} events/s")
    return 0


if __name__ == "__main__":
    sys.exit(main())
