"""What the tests of the pages on the history share: a history with tasks in it, and a collector that says anything."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import msgspec

from flowerbed.collector.events import Event
from flowerbed.collector.tasks import Folder
from flowerbed.history.schema import row_of
from flowerbed.history.store import open_store
from flowerbed.redact import Redactor
from flowerbed.settings import Redact

WORKER = "w1@shop"
#: the beginning of the story, in seconds since 1970
BEGIN = float(int(time.time()) - 3600)
#: a chord that a task has sent: its header and body
CHORD = ("order", "pick1", "pick2", "pick3", "pack")


def sent(uuid: str, name: str, at: float, **fields: Any) -> dict[str, Any]:
    """task-sent, as a program sends it."""
    fields = {"args": "()", "kwargs": "{}", "retries": 0, "eta": None, "expires": None, **fields}
    fields.setdefault("root_id", uuid)
    fields.setdefault("parent_id", None)
    place = {"queue": "celery", "exchange": "", "routing_key": "celery"}
    return {
        "type": "task-sent",
        "uuid": uuid,
        "name": name,
        "hostname": "gen1@shop",
        "timestamp": at,
        **place,
        **fields,
    }


def done(uuid: str, name: str, at: float, *, ends: str = "succeeded", **fields: Any) -> list[dict[str, Any]]:
    """All events of a task that is sent, waits for a tenth of a second and runs for half of one."""
    known = {key: fields.pop(key) for key in ("args", "kwargs", "root_id", "parent_id") if key in fields}
    first = sent(uuid, name, at, **known)
    received = {key: value for key, value in first.items() if key not in ("queue", "exchange", "routing_key")}
    base = {"uuid": uuid, "hostname": WORKER}
    events = [
        first,
        {**received, "type": "task-received", "hostname": WORKER, "timestamp": at + 0.05},
        {**base, "type": "task-started", "timestamp": at + 0.1},
    ]
    last: dict[str, Any] = {**base, "type": f"task-{ends}", "timestamp": at + 0.6, **fields}
    if ends == "succeeded":
        last = {"result": "'ok'", "runtime": 0.5, **last}
    elif ends in ("failed", "retried"):
        last = {"exception": "ValueError('no')", "traceback": "Traceback …\nValueError: no\n", **last}
    return events if ends == "started" else [*events, last]


def story() -> list[dict[str, Any]]:
    """Events of tasks in every state, and of a chord."""
    begin = BEGIN
    events = [
        *done("ok-1", "shop.add", begin, args="(1, 2)", kwargs="{'user': 7}", result="3"),
        *done("bad-1", "shop.fail", begin + 1, ends="failed", exception="TimeoutError('mail')"),
        *done("again-1", "shop.flaky", begin + 2, ends="retried"),
        *done("runs-1", "shop.slow", begin + 3, ends="started"),
        *done("away-1", "shop.slow", begin + 4, ends="revoked", terminated=True, signum="15", expired=False),
        sent("waits-1", "shop.add", begin + 5, args="(5, 6)"),
        *done("order", "shop.order", begin + 10),
    ]
    for number, name in enumerate(("pick1", "pick2", "pick3"), 1):
        events += done(name, "shop.pick", begin + 10.2 + number / 10, root_id="order", parent_id="order")
    return [*events, *done("pack", "shop.pack", begin + 11.3, root_id="order", parent_id="pick3")]


def keep(url: str, events: Iterable[dict[str, Any]], *, lost: Iterable[str] = (), redact: Redact | None = None) -> None:
    """Puts what the collector would make of events into a history, which is made when it is not there."""
    folder = Folder(Redactor(redact or Redact()))
    records = {}
    for event in events:
        kinds = msgspec.convert({**event, "local_received": event["timestamp"]}, Event, strict=False)
        change = folder.fold(kinds, event["timestamp"])
        if change is not None:
            records[change.record.id] = change.record
    for uuid in lost:
        records[uuid].lost = True
    store = open_store(url)
    store.write([row_of(record) for record in records.values()])
    store.close()


def publish(broker: str, events: Iterable[dict[str, Any]]) -> None:
    """Sends events as Celery's workers and programs do."""
    from celery import Celery

    app = Celery(broker=broker, set_as_current=False)
    with app.connection_for_write() as connection:
        for event in events:
            fields = {key: value for key, value in event.items() if key not in ("type", "hostname")}
            dispatcher = app.events.Dispatcher(connection, hostname=event["hostname"])
            dispatcher.send(event["type"], **fields)
            dispatcher.close()


@dataclass
class FakeCollector:
    """Answers /health as it is told to; a real one is in tests/collector."""

    address: str = "127.0.0.1"
    answer: dict[str, Any] = field(default_factory=lambda: {"status": "ok", "reader": "reading", "history": "ok"})
    asked: int = 0
    #: seconds that an answer takes
    delay: float = 0.0

    def start(self) -> int:
        """Listens; the port."""
        collector = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                collector.asked += 1
                time.sleep(collector.delay)
                body = json.dumps(collector.answer).encode()
                self.send_response(200 if collector.answer.get("status") == "ok" else 503)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
                pass

        class Server(ThreadingHTTPServer):
            address_family = __import__("socket").AF_INET6 if ":" in self.address else 2

        self._server = Server((self.address, 0), Handler)
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return int(self._server.server_address[1])

    def stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()


@contextmanager
def collector(**answers: Any) -> Iterator[tuple[FakeCollector, int]]:
    """A collector that listens."""
    made = FakeCollector(**answers)
    port = made.start()
    try:
        yield made, port
    finally:
        made.stop()


def history_settings(path: Path | str, port: int, **more: Any) -> dict[str, Any]:
    """Settings of a Flower with the history at a path."""
    url = path if isinstance(path, str) else f"sqlite:///{path}"
    return {
        "secure_cookies": False,
        "collector": {"enabled": True, "address": "127.0.0.1", "port": port},
        "history": {"url": url},
        **more,
    }


def table(search: str = "", *, sort: str = "received", descending: bool = True, **changed: Any) -> str:
    """The path of a page of the table, as its script asks for it."""
    query = {
        "draw": 7,
        "start": 0,
        "length": 100,
        "search[value]": search,
        "order[0][column]": 3,
        "order[0][dir]": "desc" if descending else "asc",
        "columns[3][data]": sort,
        **changed,
    }
    return "/tasks/datatable?" + urlencode({key: value for key, value in query.items() if value is not None})
