"""Bad settings, databases and clients: one sentence, 78 for what can never work; else counting goes on."""

from __future__ import annotations

import contextlib
import importlib.util
import io
import os
import shutil
import signal
import socket
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from addon_support import Redis, free_port, wait_for
from live_support import Collecting, Publisher, redis, running

from flowerbed.__main__ import main
from flowerbed.collector.process import Collector

PASSWORD = "Tr0ub4dor-and-3"
HISTORY = Path(__file__).resolve().parents[1] / "history" / "conftest.py"


@pytest.fixture(scope="module")
def broker() -> Iterator[Redis]:
    with redis() as server:
        yield server


@pytest.fixture(scope="module")
def postgres() -> Iterator[Any]:
    """The same server as that of the history's tests."""
    spec = importlib.util.spec_from_file_location("history_support", HISTORY)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    server = module.Postgres()
    server.sql(f"CREATE ROLE guest LOGIN PASSWORD '{PASSWORD}'")
    server.sql("CREATE DATABASE locked")
    server.sql("CREATE DATABASE foreign_one")
    server.sql("REVOKE ALL ON SCHEMA public FROM PUBLIC", "foreign_one")
    yield server
    server.stop()
    shutil.rmtree(server.directory)


# ------------------------------------------------------------------ what can never work


@pytest.mark.parametrize(
    ("collector", "says"),
    [
        ({"port": 0}, "flower_metrics_port must be from 1 to 65535"),
        ({"port": 70000}, "flower_metrics_port must be from 1 to 65535"),
        ({"address": "localhost"}, "flower_metrics_address must be an IP address, not 'localhost'"),
        ({"address": "192.0.2.1"}, "Metrics cannot be served on 192.0.2.1:"),
        ({"compat": "celery_exporter"}, "flower_metrics_compat must be empty or celery-exporter"),
        ({"buckets": []}, "flower_metrics_buckets must be a list of numbers"),
        ({"buckets": [1, "2"]}, "flower_metrics_buckets must be a list of numbers"),
        ({"buckets": [-1, 2]}, "flower_metrics_buckets must be a list of numbers"),
        ({"buckets": [1, float("inf")]}, "flower_metrics_buckets must be a list of numbers"),
        ({"task_buckets": {"shop.*": 5}}, "flower_metrics_task_buckets: 'shop.*' must have a list of numbers"),
        ({"task_buckets": {"shop.*": []}}, "flower_metrics_task_buckets: 'shop.*' must have a list of numbers"),
        ({"series_limit": 0}, "flower_metrics_series_limit must be 20 or more"),
        ({"tasks_allow": [3]}, "flower_metrics_tasks_allow must be a list of texts"),
        ({"queues": [""]}, "flower_metrics_queues must be a list of texts"),
        ({"series_limits": 5}, "collector.series_limits is not a setting of flowerbed: did you mean series_limit?"),
    ],
    ids=str,
)
def test_a_setting_that_cannot_work_is_one_sentence(
    tmp_path: Path, broker: Redis, collector: dict[str, Any], says: str
) -> None:
    is_refused(Collecting(tmp_path, {"broker_url": broker.url}, {"url": None}, **collector), says, broker.password)


@pytest.mark.parametrize(
    ("history", "says"),
    [
        ({"url": "nonsense"}, "flower_history_url is not the URL of a database"),
        ({"url": f"mysql://flower:{PASSWORD}@db/flower"}, "mysql is not a database that is known"),
        ({"url": f"postgresql://flower:{PASSWORD}@db:port/flower"}, "flower_history_url is not the URL of a database"),
        ({"url": f"postgresql://flower:{PASSWORD}@db"}, "flower_history_url names no database"),
        ({"url": f"postgresql://flower:{PASSWORD}@db:99999/flower"}, "flower_history_url"),
        ({"url": f"postgresql://flower:{PASSWORD}@db/flower?sslmode=sometimes"}, "sslmode must be one of disable"),
        ({"url": f"postgresql://flower:{PASSWORD}@db/flower?sllmode=require"}, "flower_history_url"),
        ({"url": "sqlite:///history.sqlite"}, "flower_history_url names no database, or no whole path"),
        ({"days": -1}, "flower_history_days must be 0 or more"),
        ({"rows": "many"}, "history.rows must be int, not str"),
        ({"text_lengths": {"arg": 5}}, "flower_history_text_lengths: 'arg' is not one of args, kwargs"),
        ({"text_lengths": {"args": -5}}, "flower_history_text_lengths: args must be a number of characters"),
    ],
    ids=str,
)
def test_a_history_that_cannot_be_is_one_sentence(
    tmp_path: Path, broker: Redis, history: dict[str, Any], says: str
) -> None:
    is_refused(Collecting(tmp_path, {"broker_url": broker.url}, history), says, PASSWORD)


@pytest.mark.parametrize(
    ("celery", "says"),
    [
        ({}, "hold no broker_url"),
        ({"broker_url": f"reddis://:{PASSWORD}@broker/0"}, "begins with reddis://, which is not known to Celery"),
        ({"broker_url": f"redis://:{PASSWORD}@broker:port/0"}, "flower_broker_url is not the URL of a broker"),
    ],
    ids=str,
)
def test_a_broker_that_cannot_be_is_one_sentence(tmp_path: Path, celery: dict[str, Any], says: str) -> None:
    is_refused(Collecting(tmp_path, celery, {"url": None}), says, PASSWORD)


def test_a_port_in_use_is_one_sentence(tmp_path: Path, broker: Redis) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        one = Collecting(tmp_path, {"broker_url": broker.url}, {"url": None}, port=port)
        tells(*one.refused(), f"Metrics cannot be served on 127.0.0.1:{port}: Address already in use", broker.password)


def is_refused(one: Collecting, says: str, secret: str) -> None:
    """Ends with one sentence before it has begun; without a process of its own, which would take a second each."""

    def run(_: Collector) -> bool:
        pytest.fail("it runs")

    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stderr(io.StringIO()) as stderr:
        patch.setattr(Collector, "run", run)
        patch.setattr(signal, "signal", lambda *_: None)
        code = main(["collector", "--settings", str(one.settings)])
    tells(code, stderr.getvalue(), says, secret)


def tells(code: int, written: str, says: str, secret: str) -> None:
    assert code == 78, written
    assert says in written
    assert len(written.splitlines()) == 1
    assert secret not in written


# ------------------------------------------------------------------ what may be well in a moment


def goes_on(one: Collecting, publish: Publisher, says: str) -> None:
    """Counts without its history, and tells in one sentence what is wrong with that."""
    one.wait_number(1, "flowerbed_broker_connected")
    wait_for(lambda: says in one.health()["history"], f"{says}: {one.health()}", 40)
    publish("worker-online", freq=60)
    publish("task-received", uuid="1", name="shop.a")
    # for the first minute no counter of a former run is overtaken, so what is counted shows elsewhere
    one.wait_number(1, "flowerbed_history_backlog")
    assert one.number("celery_workers_online") == 1
    assert one.get("/health")[0] == 200, "red is for the reader"
    assert one.number("flowerbed_history_up") == 0
    assert (one.number("flowerbed_history_failures_total") or 0) >= 1
    assert len([line for line in one.log.splitlines() if says in line]) == 1, "said once, not with each attempt"
    assert "Traceback" not in one.log
    for text in (one.log, one.get("/health")[1], one.get("/metrics")[1]):
        assert PASSWORD not in text


@pytest.mark.parametrize(
    ("url", "says"),
    [
        (f"postgresql://flower:{PASSWORD}@127.0.0.1:{{closed}}/history", "cannot be reached"),
        (f"postgresql://flower:{PASSWORD}@nowhere.invalid/history", "cannot be reached"),
        (f"postgresql://guest:{PASSWORD}x@127.0.0.1:{{port}}/locked", "refuses our user or password"),
        (f"postgresql://nobody:{PASSWORD}@127.0.0.1:{{port}}/foreign_one", "refuses our user or password"),
        (f"postgresql://guest:{PASSWORD}@127.0.0.1:{{port}}/nothing", "does not exist"),
        (f"postgresql://guest:{PASSWORD}@127.0.0.1:{{port}}/foreign_one", "schema that our user may use"),
    ],
)
def test_a_postgresql_that_is_away_or_refuses(
    tmp_path: Path, broker: Redis, postgres: Any, url: str, says: str
) -> None:
    url = url.format(port=postgres.port, closed=free_port())
    one = Collecting(tmp_path, {"broker_url": broker.url}, {"url": None})
    # where a password belongs
    one.credentials({"celery": {"broker_url": broker.url}, "history_url": url})
    with running(one):
        goes_on(one, Publisher(broker), says)


def newer(path: Path) -> None:
    with contextlib.closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("CREATE TABLE alembic_version (version_num VARCHAR(32))")
        connection.execute("INSERT INTO alembic_version VALUES ('9999')")


def read_only_file(path: Path) -> None:
    with contextlib.closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("CREATE TABLE other (x)")
    path.chmod(0o444)


def read_only_directory(path: Path) -> None:
    path.parent.chmod(0o555)


def something_else(path: Path) -> None:
    path.write_text("no database at all " * 100)


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (newer, "is of a newer release (its schema is 9999"),
        (read_only_file, "may not be written: look at the owner and mode"),
        (read_only_directory, "cannot be opened: look whether its directory exists and may be written"),
        (something_else, "is a file of something else"),
        (lambda path: path.mkdir(), "cannot be opened"),
        (lambda path: path.parent.rmdir(), "cannot be opened: look whether its directory exists"),
    ],
    ids=["newer", "file", "directory", "something", "folder", "missing"],
)
def test_an_sqlite_that_cannot_be_used(tmp_path: Path, broker: Redis, spoil: Callable[[Path], None], says: str) -> None:
    path = tmp_path / "place" / "history.sqlite"
    path.parent.mkdir()
    spoil(path)
    one = Bound(tmp_path / "collector", {"broker_url": broker.url}, {"url": f"sqlite:///{path}"})
    try:
        with running(one):
            goes_on(one, Publisher(broker), says)
    finally:
        if path.parent.exists():
            path.parent.chmod(0o755)


class Bound(Collecting):
    """A collector that may not write what modes forbid, even when the tests are run by root."""

    @property
    def command(self) -> list[str]:
        plain = super().command
        return ["setpriv", "--bounding-set=-dac_override,-dac_read_search", *plain] if os.getuid() == 0 else plain


# ------------------------------------------------------------------ clients


def test_hostile_clients_keep_nobody_from_counting_or_scraping(tmp_path: Path, broker: Redis) -> None:
    one = Collecting(tmp_path, {"broker_url": broker.url}, {"url": None})
    publish = Publisher(broker)
    with running(one):
        one.wait_number(1, "flowerbed_broker_connected")
        idle = [socket.create_connection(("127.0.0.1", one.port)) for _ in range(200)]
        for number in range(50):
            publish("task-received", uuid=str(number), name="shop.a")
        assert is_closed(one, b"GET /metrics HTTP/1.1\r\nX: " + b"a" * 1_000_000)
        assert is_closed(one, b"GET /metrics HTTP/1.1\r\n" + b"X: a\r\n" * 100_000)
        assert is_closed(one, b"GET /" + b"a" * 1_000_000)
        assert is_closed(one, os.urandom(100_000))
        assert is_closed(one, b"POST /metrics HTTP/1.1\r\nContent-Length: 99999999999\r\n\r\n" + b"x" * 100_000)
        # within the ten seconds that a silent client is given
        one.wait_number(50, "celery_tasks_total", 30, state="received")
        for client in idle:
            client.close()
        wait_for(lambda: one.get("/metrics")[0] == 200, "an answer")

        statuses: list[int] = []
        threads = [threading.Thread(target=lambda: statuses.append(one.get("/metrics")[0])) for _ in range(40)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        # 16 at once are answered, who comes on top of that is sent away
        assert set(statuses) <= {0, 200}
        assert statuses.count(200) >= 10
        assert one.health()["status"] == "ok"
        assert "Traceback" not in one.log
        assert (one.number("process_resident_memory_bytes") or 0) < 150e6


def is_closed(one: Collecting, request: bytes) -> bool:
    """Sends this and reads until the other side closes; never an answer of 200."""
    deadline = time.monotonic() + 20
    while True:
        try:
            with socket.create_connection(("127.0.0.1", one.port), timeout=15) as client:
                with contextlib.suppress(OSError):
                    client.sendall(request)
                answer = b""
                with contextlib.suppress(ConnectionError):
                    while part := client.recv(4096):
                        answer += part
                return b" 200 " not in answer[:20]
        except TimeoutError:
            assert time.monotonic() < deadline


def test_the_process_ends_well_while_clients_hang(tmp_path: Path, broker: Redis) -> None:
    one = Collecting(tmp_path, {"broker_url": broker.url}, {"url": f"sqlite:///{tmp_path}/history.sqlite"})
    with running(one):
        one.wait_number(1, "flowerbed_broker_connected")
        clients = [socket.create_connection(("127.0.0.1", one.port)) for _ in range(20)]
        began = time.monotonic()
        assert one.stop() == 0
        assert time.monotonic() - began < 15
        for client in clients:
            client.close()
