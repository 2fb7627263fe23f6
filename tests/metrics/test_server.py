"""The server answers whatever clients do, and while others count."""

from __future__ import annotations

import contextlib
import gzip
import http.client
import json
import socket
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest
from metrics_support import change, observer, read

from flowerbed.metrics.server import MOST_REQUESTS, MetricsServer, Publisher, ServerError

health: dict[str, Any] = {"well": True}


@pytest.fixture
def server() -> Iterator[MetricsServer]:
    one = observer()
    for number in range(200):
        one.change(change("succeeded", name=f"t{number}", runtime_seconds=1.0))
    health["well"] = True
    started = MetricsServer(
        "127.0.0.1", 0, Publisher(one.registry.snapshot), lambda: (health["well"], {"reader": "reads"})
    )
    started.start()
    yield started
    started.stop()


def get(server: MetricsServer, path: str, method: str = "GET", **headers: str) -> tuple[int, dict[str, str], bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=5)
    connection.request(method, path, headers={key.replace("_", "-"): text for key, text in headers.items()})
    response = connection.getresponse()
    answer = response.status, dict(response.headers), response.read()
    connection.close()
    return answer


def test_metrics_in_both_formats_and_zipped(server: MetricsServer, monkeypatch: pytest.MonkeyPatch) -> None:
    from flowerbed.metrics import server as module

    monkeypatch.setattr(module, "FRESH_SECONDS", 60)
    status, headers, plain = get(server, "/metrics")
    assert (status, headers["Content-Type"]) == (200, "text/plain; version=0.0.4; charset=utf-8")
    assert len(read(plain.decode())) > 1000
    status, headers, text = get(server, "/metrics?x=1", Accept="application/openmetrics-text;version=1.0.0")
    assert headers["Content-Type"] == "application/openmetrics-text; version=1.0.0; charset=utf-8"
    assert len(read(text.decode(), openmetrics=True)) == len(read(plain.decode()))
    _, headers, zipped = get(server, "/metrics", Accept_Encoding="gzip, deflate")
    assert headers["Content-Encoding"] == "gzip"
    assert gzip.decompress(zipped) == plain


def test_health_is_for_machines(server: MetricsServer) -> None:
    status, _, body = get(server, "/health")
    assert (status, json.loads(body)) == (200, {"status": "ok", "reader": "reads"})
    health["well"] = False
    status, _, body = get(server, "/health")
    assert (status, json.loads(body)["status"]) == (503, "failing")


def test_other_requests_are_refused(server: MetricsServer) -> None:
    assert get(server, "/")[0] == 200
    assert get(server, "/metrics/../../etc/passwd")[0] == 404
    assert get(server, "/metrics", "POST")[0] == 501
    assert get(server, "/metrics", "HEAD")[2] == b""
    with socket.create_connection(("127.0.0.1", server.port), timeout=5) as client:
        client.sendall(b"\x00\xff" * 50 + b"\r\n\r\n")
        assert client.recv(100).startswith((b"HTTP/1.0 400", b"HTTP/1.1 400", b"<!DOCTYPE"))
    assert get(server, "/metrics")[0] == 200


def test_clients_that_say_nothing_do_not_keep_others_out_for_ever(
    server: MetricsServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    from flowerbed.metrics import server as module

    monkeypatch.setattr(module._Handler, "timeout", 0.5)
    idle = [socket.create_connection(("127.0.0.1", server.port)) for _ in range(MOST_REQUESTS + 5)]
    deadline = time.monotonic() + 5
    while True:
        try:
            assert get(server, "/metrics")[0] == 200
            break
        except (OSError, http.client.HTTPException):
            assert time.monotonic() < deadline
            time.sleep(0.1)
    for client in idle:
        client.close()


def test_clients_that_say_a_little_now_and_then_do_not_either(
    server: MetricsServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    from flowerbed.metrics import server as module

    monkeypatch.setattr(module, "LONGEST_SECONDS", 1.0)
    slow = [socket.create_connection(("127.0.0.1", server.port)) for _ in range(MOST_REQUESTS)]
    stop = threading.Event()

    def trickle() -> None:
        while not stop.wait(0.05):
            for client in slow:
                with contextlib.suppress(OSError):
                    client.sendall(b"G")

    thread = threading.Thread(target=trickle)
    thread.start()
    try:
        deadline = time.monotonic() + 5
        while True:
            try:
                assert get(server, "/metrics")[0] == 200
                break
            except (OSError, http.client.HTTPException):
                assert time.monotonic() < deadline
                time.sleep(0.1)
    finally:
        stop.set()
        thread.join()
        for client in slow:
            client.close()


def test_scrapers_at_the_same_time_share_one_snapshot(monkeypatch: pytest.MonkeyPatch) -> None:
    from flowerbed.metrics import server as module

    one = observer()
    publisher = Publisher(one.registry.snapshot)
    first = publisher.text()
    one.change(change("succeeded"))
    assert publisher.text() is first
    monkeypatch.setattr(module, "FRESH_SECONDS", -1)
    assert publisher.text() is not first


def test_a_port_in_use_is_one_sentence(server: MetricsServer) -> None:
    one = observer()
    with pytest.raises(ServerError, match=rf"^Metrics cannot be served on 127\.0\.0\.1:{server.port}: Address already"):
        MetricsServer("127.0.0.1", server.port, Publisher(one.registry.snapshot), lambda: (True, {}))
    with pytest.raises(ServerError, match="must be an IP address, not 'nowhere'"):
        MetricsServer("nowhere", 0, Publisher(one.registry.snapshot), lambda: (True, {}))


def test_counting_and_scraping_at_once_lose_nothing() -> None:
    """One thread counts and makes new series, others take snapshots all the time."""
    one = observer()
    publisher = Publisher(one.registry.snapshot)
    stop, problems = threading.Event(), []

    def scrape() -> None:
        last = 0.0
        while not stop.is_set():
            try:
                publisher._snapshot = None
                found = read(publisher.text().decode())
                total = sum(n for (name, _), n in found.items() if name == "celery_tasks_total")
                assert total >= last
                last = total
            except Exception as error:  # noqa: BLE001
                problems.append(error)

    threads = [threading.Thread(target=scrape) for _ in range(2)]
    for thread in threads:
        thread.start()
    made = [change("succeeded", name=f"t{number % 300}", runtime_seconds=0.5) for number in range(3000)]
    for _ in range(30):
        for each in made:
            one.change(each)
    stop.set()
    for thread in threads:
        thread.join()
    assert problems == []
    publisher._snapshot = None
    found = read(publisher.text().decode())
    assert sum(n for (name, _), n in found.items() if name == "celery_tasks_total") == 90_000
    assert sum(n for (name, _), n in found.items() if name == "celery_task_runtime_seconds_count") == 90_000
