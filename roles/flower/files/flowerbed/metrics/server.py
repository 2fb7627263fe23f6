"""Answers /metrics and /health over HTTP, from snapshots: nothing here can make the reader or the counting wait."""

from __future__ import annotations

import contextlib
import gzip
import ipaddress
import json
import logging
import socket
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, TypeAlias

from flowerbed.addresses import place
from flowerbed.metrics.exposition import OPENMETRICS, TEXT, Writer, wants_openmetrics
from flowerbed.metrics.registry import Snapshot

logger = logging.getLogger(__name__)

#: whether all is well, and what there is to say about it (JSON)
Health: TypeAlias = Callable[[], tuple[bool, dict[str, Any]]]
#: a snapshot is given again to who asks within this time, in seconds
FRESH_SECONDS = 1.0
#: requests at once; the next is told to come again
MOST_REQUESTS = 16
#: seconds that a client may be silent, or not read, and that it may take for all of it
CLIENT_SECONDS, LONGEST_SECONDS = 10, 30.0
#: level of gzip: 1 is three times as fast as the usual 6, for a text that is a little longer
GZIP_LEVEL = 1


class ServerError(Exception):
    """The server cannot listen; one sentence."""


class Publisher:
    """Gives the text of a moment; `take` is Registry.snapshot, or Keeper.shown where counters are saved."""

    def __init__(self, take: Callable[[], Snapshot]) -> None:
        self._take = take
        self._writer = Writer()
        self._lock = threading.Lock()
        self._snapshot: Snapshot | None = None
        self._texts: dict[bool, bytes] = {}

    def text(self, openmetrics: bool = False) -> bytes:
        """The numbers as text, at most FRESH_SECONDS old."""
        with self._lock:
            if self._snapshot is None or time.monotonic() - self._snapshot.taken > FRESH_SECONDS:
                self._snapshot = self._take()
                self._texts.clear()
            if openmetrics not in self._texts:
                self._texts[openmetrics] = self._writer.write(self._snapshot, openmetrics)
            return self._texts[openmetrics]


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 32

    def __init__(self, address: str, port: int, publisher: Publisher, health: Health) -> None:
        self.publisher = publisher
        self.health = health
        self.slots = threading.BoundedSemaphore(MOST_REQUESTS)
        #: requests under way, and since when
        self.begun: dict[socket.socket, float] = {}
        if ":" in address:
            self.address_family = socket.AF_INET6
        super().__init__((address, port), _Handler)

    def process_request(self, request: Any, client_address: Any) -> None:
        """Starts a thread for a request, if there are not too many."""
        if not self.slots.acquire(blocking=False):
            self.shutdown_request(request)
            return
        super().process_request(request, client_address)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        """The thread."""
        self.begun[request] = time.monotonic()
        try:
            super().process_request_thread(request, client_address)
        finally:
            del self.begun[request]
            self.slots.release()

    def service_actions(self) -> None:
        """Twice a second: who sends a byte now and then must not keep a place for ever."""
        for request, begun in self.begun.copy().items():
            if time.monotonic() - begun > LONGEST_SECONDS:
                with contextlib.suppress(OSError):
                    request.shutdown(socket.SHUT_RDWR)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that went away is no news."""
        logger.debug("A request from %s was not answered.", client_address, exc_info=True)


class _Handler(BaseHTTPRequestHandler):
    server: _Server
    server_version, sys_version = "flowerbed", ""
    timeout = CLIENT_SECONDS

    def do_GET(self) -> None:  # http.server's name
        """Answers; the query is not looked at."""
        path = self.path.partition("?")[0]
        if path == "/metrics":
            openmetrics = wants_openmetrics(self.headers.get("Accept", ""))
            self._answer(200, OPENMETRICS if openmetrics else TEXT, self.server.publisher.text(openmetrics))
        elif path == "/health":
            well, told = self.server.health()
            body = json.dumps({"status": "ok" if well else "failing", **told}).encode() + b"\n"
            self._answer(200 if well else 503, "application/json", body)
        elif path == "/":
            self._answer(200, "text/plain; charset=utf-8", b"/metrics\n/health\n")
        else:
            self._answer(404, "text/plain; charset=utf-8", b"Not found: there are /metrics and /health.\n")

    def do_HEAD(self) -> None:
        """The same without a body."""
        self.do_GET()

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002  # http.server's name
        """A scrape is no news."""

    def _answer(self, status: int, kind: str, body: bytes) -> None:
        zipped = len(body) > 1400 and "gzip" in self.headers.get("Accept-Encoding", "")
        if zipped:
            body = gzip.compress(body, GZIP_LEVEL)
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Cache-Control", "no-store")
        self.send_header("X-Content-Type-Options", "nosniff")
        if zipped:
            self.send_header("Content-Encoding", "gzip")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)


class MetricsServer:
    """The HTTP server in threads of its own; port 0 takes a free one."""

    def __init__(self, address: str, port: int, publisher: Publisher, health: Health) -> None:
        try:
            ipaddress.ip_address(address)
            self._server = _Server(address, port, publisher, health)
        except ValueError:
            raise ServerError(f"flower_metrics_address must be an IP address, not {address!r}.") from None
        except OSError as error:
            raise ServerError(
                f"Metrics cannot be served on {place(address, port)}: {error.strerror or error}."
            ) from None
        self.port: int = self._server.server_address[1]
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True, name="metrics-http")

    def start(self) -> None:
        """Begins to answer."""
        self._thread.start()

    @property
    def is_alive(self) -> bool:
        """Whether it answers."""
        return self._thread.is_alive()

    def stop(self) -> None:
        """Ends; requests under way are not waited for."""
        if self._thread.is_alive():
            self._server.shutdown()
        self._server.server_close()
