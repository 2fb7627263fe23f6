"""What the tests of the collector's reader share: brokers, real workers, and a reader that is running."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import redis
from celery import Celery

ROOT = Path(__file__).resolve().parents[2]
# for every import mode of pytest's
sys.path[:0] = [str(ROOT), str(ROOT / "tests" / "addon"), str(ROOT / "roles" / "flower" / "files")]

from addon_support import Redis, free_port, wait_for  # noqa: E402

from flowerbed.collector.events import DecodeError, Event, decode  # noqa: E402
from flowerbed.collector.reader import Reader, connections  # noqa: E402

__all__ = [
    "Reading",
    "Redis",
    "Sentinel",
    "application",
    "client",
    "free_port",
    "hears",
    "send",
    "wait_for",
    "worker",
]

APPLICATION = """
import json, os, time
from celery import Celery
from celery.exceptions import Ignore, Reject
with open(os.environ["SETTINGS"]) as file:
    settings = json.load(file)
app = Celery("shop", **settings.pop("celery", {}))
app.conf.update(settings)

@app.task(name="shop.add")
def add(a, b, **more):
    return a + b

@app.task(name="shop.fail")
def fail(text):
    raise ValueError(text)

@app.task(name="shop.retry", bind=True, max_retries=2)
def retry(self):
    raise self.retry(exc=OSError("not yet"), countdown=0.1)

@app.task(name="shop.reject", acks_late=True)
def reject():
    raise Reject("no", requeue=False)

@app.task(name="shop.sleep")
def sleep(seconds):
    time.sleep(seconds)

@app.task(name="shop.progress", bind=True)
def progress(self):
    self.send_event("task-progress", done=0.5)
"""


def application(settings: dict[str, Any]) -> Celery:
    """A producer that tells of what it sends."""
    app = Celery("producer", set_as_current=False)
    app.conf.update(settings, task_send_sent_event=True)
    return app


def client(server: Redis) -> Any:
    """Redis as an administrator sees it."""
    return redis.Redis.from_url(server.url)


@contextlib.contextmanager
def worker(directory: Path, settings: dict[str, Any], *arguments: str, name: str = "w1@test") -> Iterator[Any]:
    """A real worker that sends events, as a process; `settings` are Celery's."""
    (directory / "shop.py").write_text(APPLICATION)
    (directory / "settings.json").write_text(json.dumps(settings))
    environment = {
        "PATH": os.environ["PATH"],
        "SETTINGS": str(directory / "settings.json"),
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    command = [sys.executable, "-m", "celery", "-A", "shop", "worker", "-n", name, "-c", "1", "--without-mingle"]
    with (directory / f"{name}.log").open("ab") as log:
        process = subprocess.Popen([*command, *arguments], cwd=directory, env=environment, stdout=log, stderr=log)
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(15)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


class Reading:
    """A reader in a thread of its own, and what it has read."""

    def __init__(self, celery: dict[str, Any], **options: Any) -> None:
        self.payloads: list[bytes] = []
        self.reader = Reader(connections(celery), self.payloads.extend, **options)
        self.stop = threading.Event()
        self.thread = threading.Thread(target=self.reader.run, args=(self.stop,), daemon=True)

    def __enter__(self) -> Reading:
        self.thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop.set()
        self.thread.join(10)
        assert not self.thread.is_alive(), "the reader did not stop"

    def wait_connected(self, connects: int = 1, seconds: float = 20) -> None:
        stats = self.reader.stats
        wait_for(lambda: stats.connected_since and stats.connects >= connects, f"subscription {connects}", seconds)

    @property
    def events(self) -> list[Event]:
        found: list[Event] = []
        for payload in self.payloads.copy():
            with contextlib.suppress(DecodeError):
                found += decode(payload)
        return found

    def types(self, uuid: str) -> list[str]:
        """Types of the events of one task, in the order they came."""
        return [event.type for event in self.events if event.uuid == uuid]

    def wait_type(self, kind: str, uuid: str | None = None) -> Event:
        """The first event of a type, of one task."""

        def find() -> Event | None:
            return next((e for e in self.events if e.type == kind and uuid in (None, e.uuid)), None)

        found: Event = wait_for(find, f"{kind} of {uuid}", 30)
        return found


def send(celery: dict[str, Any], *uuids: str) -> None:
    """Events as a worker of this broker sends them."""
    app = Celery("sender", set_as_current=False)
    app.conf.update(celery)
    with app.connection_for_write() as connection, app.events.Dispatcher(connection, hostname="w@test") as dispatcher:
        for uuid in uuids:
            dispatcher.send("task-received", uuid=uuid, name="shop.add")


def hears(reading: Reading, celery: dict[str, Any]) -> None:
    """The reader gets what is sent now."""
    uuids = [f"{time.time()}-{number}" for number in range(3)]
    send(celery, *uuids)
    for uuid in uuids:
        reading.wait_type("task-received", uuid)


class Sentinel:
    """Two Redis servers, the second a replica, and a sentinel that watches them."""

    def __init__(self, directory: Path) -> None:
        self.port = free_port()
        self.master = Redis()
        login = f"masterauth {self.master.password}\nreplica-priority 10\n"
        self.replica = Redis(f"port %d\nreplicaof 127.0.0.1 {self.master.port}\n{login}")
        client(self.replica).config_set("requirepass", self.master.password)
        self.replica.password = self.master.password
        path = directory / "sentinel.conf"
        path.write_text(
            f"bind 127.0.0.1\nport {self.port}\ndir {directory}\n"
            f"sentinel monitor shop 127.0.0.1 {self.master.port} 1\nsentinel auth-pass shop {self.master.password}\n"
            "sentinel down-after-milliseconds shop 500\nsentinel failover-timeout shop 2000\n"
        )
        self.process = subprocess.Popen(["redis-server", str(path), "--sentinel"], stdout=subprocess.DEVNULL)
        watching = redis.Redis(port=self.port)

        def sees_replica() -> bool:
            with contextlib.suppress(redis.RedisError):
                return bool(watching.execute_command("SENTINEL", "REPLICAS", "shop"))
            return False

        wait_for(sees_replica, "the sentinel to see the replica")

    @property
    def celery(self) -> dict[str, Any]:
        return {
            "broker_url": f"sentinel://:{self.master.password}@127.0.0.1:{self.port}/0",
            "broker_transport_options": {"master_name": "shop"},
        }

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()
        self.master.kill()
        self.replica.kill()
