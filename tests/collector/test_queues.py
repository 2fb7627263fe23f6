"""Queues of a real Redis with real workers, of RabbitMQ by recorded answers and a channel that behaves as py-amqp's."""

from __future__ import annotations

import base64
import http.server
import json
import ssl
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from addon_support import Redis, wait_for
from amqp.exceptions import AccessRefused, NotFound
from celery import Celery
from kombu import Connection
from redis import Redis as Client

from flowerbed.collector import queues
from flowerbed.collector.queues import Consumer, Figures, Queues, ask_by_declaring, read_consumer
from flowerbed.metrics.exposition import Writer
from flowerbed.metrics.registry import Registry
from flowerbed.metrics.waiting import Waiting
from flowerbed.metrics.workers import Workers
from tests.authority import Authority


@pytest.fixture(scope="module")
def redis() -> Iterator[Redis]:
    server = Redis()
    yield server
    server.kill()


@pytest.fixture
def client(redis: Redis) -> Iterator[Any]:
    found = Client.from_url(redis.url)
    found.flushall()
    yield found
    found.close()


def application(url: str, **options: Any) -> Celery:
    app = Celery("shop", broker=url)
    app.conf.update(broker_transport_options=options, task_queue_max_priority=10)
    return app


def asking(url: str, waiting: Waiting | None = None, workers: Workers | None = None, **more: Any) -> Queues:
    options = more.pop("options", {})

    def connect() -> Any:
        return Connection(url, transport_options=options, connect_timeout=2)

    return Queues(connect, waiting or Waiting(), workers or Workers(), timeout=1, **more)


def told(one: Queues, exporter_names: bool = False) -> dict[str, float]:
    registry = Registry()
    one.serve(registry, exporter_names)
    lines = Writer().write(registry.snapshot()).decode().splitlines()
    return {line.rpartition(" ")[0]: float(line.rpartition(" ")[2]) for line in lines if not line.startswith("#")}


# ------------------------------------------------------------------ Redis


def test_priorities_are_added_up(redis: Redis, client: Any) -> None:
    app = application(redis.url)
    for number in range(40):
        app.send_task("shop.add", queue="orders", priority=number % 10)
    assert client.llen("orders") < 40, "kombu did not use several lists"
    one = asking(redis.url, configured=["orders", "empty"])
    one.poll()
    found = told(one)
    assert found['celery_queue_length{queue="orders"}'] == 40
    assert found['celery_queue_length{queue="empty"}'] == 0
    assert found["celery_unacked_messages"] == 0
    assert time.time() - found["flowerbed_queues_success_timestamp_seconds"] < 5


def test_the_applications_own_steps_separator_and_prefix(redis: Redis, client: Any) -> None:
    options = {"priority_steps": list(range(10)), "sep": ":", "global_keyprefix": "shop-"}
    app = application(redis.url, **options)
    for number in range(20):
        app.send_task("shop.add", queue="orders", priority=number % 10)
    assert client.llen("shop-orders:7") == 2
    client.hset("shop-unacked", "a", "1")
    client.hset("unacked", mapping={"a": "of another application", "b": "and another"})
    one = asking(redis.url, configured=["orders"], options=options)
    one.poll()
    found = told(one)
    assert found['celery_queue_length{queue="orders"}'] == 20
    assert found["celery_unacked_messages"] == 1
    assert one._told.queues["orders"].oldest_id is not None


def test_the_oldest_message_is_found_over_all_priorities(redis: Redis, client: Any) -> None:
    app, waiting, now = application(redis.url), Waiting(), time.time()
    for seconds, priority in ((500, 9), (900, 5), (10, 0)):
        result = app.send_task("shop.add", queue="orders", priority=priority)
        waiting.add("orders", result.id, now - seconds)
        app.send_task("shop.add", queue="orders", priority=priority)
    one = asking(redis.url, waiting, configured=["orders", "empty"])
    one.poll()
    found = told(one)
    assert 900 <= found['celery_queue_oldest_seconds{queue="orders"}'] < 905
    assert found['celery_queue_oldest_seconds{queue="empty"}'] == 0


def test_without_events_a_message_is_as_old_as_it_was_first_seen(redis: Redis, client: Any) -> None:
    app = application(redis.url)
    app.send_task("shop.add", queue="orders")
    one = asking(redis.url, configured=["orders"])
    one.poll()
    one._heads["orders"] = (one._heads["orders"][0], time.time() - 77)
    one.poll()
    assert 77 <= told(one)['celery_queue_oldest_seconds{queue="orders"}'] < 80
    client.rpop("orders")
    app.send_task("shop.add", queue="orders")
    one.poll()
    assert told(one)['celery_queue_oldest_seconds{queue="orders"}'] < 2


def test_a_queue_that_the_broker_calls_empty_has_nothing_old(redis: Redis, client: Any) -> None:
    waiting = Waiting()
    waiting.add("orders", "purged", time.time() - 1000)
    one = asking(redis.url, waiting, configured=["orders"])
    one.poll()
    waiting.tidy()
    assert waiting.oldest("orders") is None


def test_what_workers_hold_is_counted(redis: Redis, client: Any) -> None:
    client.hset("unacked", mapping={"a": "1", "b": "2"})
    one = asking(redis.url, configured=["orders"])
    one.poll()
    assert told(one)["celery_unacked_messages"] == 2


def test_keys_and_messages_of_others_spoil_only_themselves(redis: Redis, client: Any) -> None:
    client.set("text", "no list")
    client.lpush("foreign", b"\xff\x00", b"[1, 2]", json.dumps({"headers": {"id": 7}}), "{")
    client.lpush("deep", b"[" * 100_000)
    application(redis.url).send_task("shop.add", queue="orders")
    one = asking(redis.url, configured=["text", "foreign", "deep", "orders"])
    one.poll()
    found = told(one)
    assert {key: n for key, n in found.items() if "length" in key} == {
        'celery_queue_length{queue="foreign"}': 4,
        'celery_queue_length{queue="deep"}': 1,
        'celery_queue_length{queue="orders"}': 1,
    }


def test_queues_are_named_by_settings_workers_and_events(redis: Redis, client: Any) -> None:
    one = asking(redis.url, configured=["a", "b"], seen=lambda: ["b", "c", *(f"x{n}" for n in range(1000))])
    one._consumers = {"w@h": Consumer(("d", "a"))}
    assert one.asked()[:4] == ["a", "b", "d", "c"]
    assert len(one.asked()) < 300


def test_a_broker_that_is_away_is_said_and_old_numbers_end(redis: Redis, client: Any, monkeypatch: Any) -> None:
    own = Redis()
    application(own.url).send_task("shop.add", queue="orders")
    one = asking(own.url, configured=["orders"])
    one.poll()
    own.kill()
    began = time.monotonic()
    one.poll()
    assert time.monotonic() - began < 5
    found = told(one)
    assert found["flowerbed_queues_failures_total"] == 1
    assert found['celery_queue_length{queue="orders"}'] == 1, "a while it is told on"
    assert one.last_error
    assert own.password not in one.last_error
    later = time.monotonic() + 61
    monkeypatch.setattr(queues.time, "monotonic", lambda: later)
    assert 'celery_queue_length{queue="orders"}' not in told(one)


def test_a_broker_that_says_nothing_is_not_waited_for(monkeypatch: Any) -> None:
    import socket

    with socket.create_server(("127.0.0.1", 0)) as silent:
        one = asking(f"redis://127.0.0.1:{silent.getsockname()[1]}/0", configured=["orders"])
        began = time.monotonic()
        one.poll()
        assert one.failures == 1
        assert time.monotonic() - began < 8


def test_workers_tell_their_queues_processes_and_memory(redis: Redis, client: Any, tmp_path: Path) -> None:
    import os
    import subprocess
    import sys

    (tmp_path / "shop.py").write_text(
        "import os\nfrom celery import Celery\napp = Celery('shop', broker=os.environ['URL'])\n"
    )
    plain = ["--without-mingle", "--without-gossip", "-l", "critical"]
    command = ["-A", "shop", "worker", "-c", "2", "-Q", "orders,mail", "-n", "w1@vm", *plain]
    environment = {**os.environ, "URL": redis.url, "PYTHONDONTWRITEBYTECODE": "1"}
    with subprocess.Popen([sys.executable, "-m", "celery", *command], cwd=tmp_path, env=environment) as process:
        try:
            known = Workers()
            known.sign("w1@vm", time.monotonic(), time.time())
            heard: dict[str, Any] = {}
            one = asking(
                redis.url, None, known, app=application(redis.url), workers_interval=60, on_consumers=heard.update
            )

            def answered() -> bool:
                one._asked_workers = None
                one.poll()
                said = one._consumers.get("w1@vm", Consumer())
                return bool(said.queues) and said.concurrency is not None

            wait_for(answered, "the worker", 30)
            found = told(one, exporter_names=True)
            assert found['celery_worker_concurrency{worker="w1@vm"}'] == 2
            assert found['celery_worker_memory_max_bytes{worker="w1@vm"}'] > 10e6
            assert found['celery_queue_consumers{queue="mail"}'] == 1
            assert found['celery_active_worker_count{queue_name="orders"}'] == 1
            assert found['celery_active_process_count{queue_name="orders"}'] == 2
            assert found['celery_queue_length{queue_name="orders"}'] == 0
            assert 'celery_queue_length{queue="orders"}' not in found
            assert sorted(heard["w1@vm"].queues) == ["mail", "orders"]
            # one that is gone consumes no more
            known.known["w1@vm"].online = False
            assert told(one)['celery_queue_consumers{queue="mail"}'] == 0
        finally:
            process.kill()


# ------------------------------------------------------------------ AMQP


class Channel:
    """Declares passively as py-amqp does: NOT_FOUND closes the channel."""

    there = {"orders": (7, 2), "empty": (0, 1)}  # noqa: RUF012

    def __init__(self) -> None:
        self.is_open = True

    def queue_declare(self, queue: str, passive: bool) -> Any:
        assert passive
        assert self.is_open, "used after it was closed"
        if queue == "forbidden":
            self.is_open = False
            raise AccessRefused("ACCESS_REFUSED - access to queue refused", (50, 10), "Queue.declare", 403)
        if queue not in self.there:
            self.is_open = False
            raise NotFound(f"NOT_FOUND - no queue '{queue}' in vhost '/'", (50, 10), "Queue.declare", 404)
        messages, consumers = self.there[queue]
        return SimpleNamespace(queue=queue, message_count=messages, consumer_count=consumers)

    def close(self) -> None:
        self.is_open = False


def test_passive_declaring_goes_on_after_a_queue_that_is_not_there() -> None:
    opened: list[Channel] = []

    def channel() -> Channel:
        opened.append(Channel())
        return opened[-1]

    asked = ["orders", "gone", "empty", "forbidden", "gone too"]
    found = ask_by_declaring(SimpleNamespace(channel=channel), asked, amqp=True)
    assert found.queues == {
        "orders": Figures(7, None, 2),
        "gone": Figures(0, None, 0),
        "empty": Figures(0, None, 1),
        "gone too": Figures(0, None, 0),
    }
    assert found.unacked is None
    assert len(opened) == 3
    assert not any(one.is_open for one in opened)


def test_other_transports_are_asked_the_same_way() -> None:
    connection = Connection("memory://")
    queue = connection.SimpleQueue("orders-in-memory")
    queue.put("x")
    found = ask_by_declaring(connection, ["orders-in-memory", "gone"], amqp=False)
    assert found.queues == {"orders-in-memory": Figures(1), "gone": Figures(0)}
    one = asking("memory://", configured=["orders-in-memory"])
    one.poll()
    assert told(one)['celery_queue_length{queue="orders-in-memory"}'] == 1


#: written in the form that RabbitMQ gives to /api/queues/shop?columns=…; a queue that was just declared has no figures
ANSWER = [
    {"consumers": 2, "messages_ready": 12, "messages_unacknowledged": 8, "name": "orders"},
    {"name": "new"},
    {"consumers": 1, "messages_ready": 0, "messages_unacknowledged": 0, "name": "celery@w1.celery.pidbox"},
]


@pytest.fixture
def api() -> Iterator[Any]:
    seen: list[Any] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        answer = json.dumps(ANSWER).encode()
        status = 200

        def do_GET(self) -> None:
            seen.append(self)
            self.send_response(self.status)
            if self.status == 302:
                self.send_header("Location", "/elsewhere")
            self.end_headers()
            self.wfile.write(self.answer)

        def log_message(self, *args: Any) -> None:
            pass

    server = http.server.HTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield SimpleNamespace(port=server.server_address[1], seen=seen, handler=Handler)
    server.shutdown()
    server.server_close()


def test_the_management_api_tells_what_workers_hold(api: Any) -> None:
    url = f"http://monitor:p%40ss%2Fword@127.0.0.1:{api.port}/api/"
    found = queues.ask_management_api(url, "shop/eu", ["orders", "new", "gone"])
    assert found.queues == {"orders": Figures(12, 8, 2), "new": Figures(), "gone": Figures(0, 0, 0)}
    assert found.unacked == 8
    request = api.seen[0]
    assert request.path.startswith("/api/queues/shop%2Feu?columns=name,messages_ready,")
    assert base64.b64decode(request.headers["Authorization"].split()[1]) == b"monitor:p@ss/word"


def test_the_brokers_own_authority_is_the_apis(tmp_path: Path) -> None:
    authority = Authority.new()
    certificate, key = authority.issue("localhost")
    for name, text in {"ca": authority.pem, "both": certificate + key}.items():
        (tmp_path / name).write_text(text)

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(json.dumps(ANSWER).encode())

        def log_message(self, *args: Any) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    tls.load_cert_chain(tmp_path / "both")
    server.socket = tls.wrap_socket(server.socket, server_side=True)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        url = f"https://localhost:{server.server_address[1]}"
        assert queues.ask_management_api(url, "/", ["orders"], ca_certs=str(tmp_path / "ca")).unacked == 8
        with pytest.raises(OSError, match="CERTIFICATE_VERIFY_FAILED"):
            queues.ask_management_api(url, "/", ["orders"])
    finally:
        server.shutdown()
        server.server_close()


def test_without_the_management_api_amqp_tells(api: Any, caplog: pytest.LogCaptureFixture) -> None:
    """It is said once, and counted each time."""
    api.handler.status = 401
    one = asking(
        "memory://", configured=["orders"], management_api=f"http://monitor:verysecret@127.0.0.1:{api.port}/api"
    )
    there = SimpleNamespace(
        transport=SimpleNamespace(driver_type="amqp"), transport_options={}, ssl=False, virtual_host="shop",
        channel=Channel, release=lambda: None,
    )  # fmt: skip
    one._connect = lambda: there
    for _ in range(3):
        one.poll()
    found = told(one)
    assert found['celery_queue_length{queue="orders"}'] == 7
    assert found["flowerbed_queues_failures_total"] == 3
    assert 'celery_queue_unacked{queue="orders"}' not in found
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert "HTTP 401" in caplog.text
    assert "verysecret" not in caplog.text
    api.handler.status = 200
    one.poll()
    assert told(one)['celery_queue_unacked{queue="orders"}'] == 8
    assert one.last_error == ""


@pytest.mark.parametrize("answer", [b'{"error":"not_authorised"}', b"<html>", b"", b"[" * 100_000])
def test_an_answer_that_is_none_is_an_error(api: Any, answer: bytes) -> None:
    api.handler.answer = answer
    with pytest.raises((ValueError, RecursionError)):
        queues.ask_management_api(f"http://127.0.0.1:{api.port}/api", "/", ["orders"])


def test_the_password_is_not_taken_elsewhere(api: Any) -> None:
    api.handler.status = 302
    with pytest.raises(OSError, match="302"):
        queues.ask_management_api(f"http://monitor:verysecret@127.0.0.1:{api.port}/api", "/", ["orders"])
    assert len(api.seen) == 1


def test_errors_of_the_management_api_hold_no_password(api: Any) -> None:
    api.handler.status = 401
    with pytest.raises(OSError, match="401") as raised:
        queues.ask_management_api(f"http://monitor:verysecret@127.0.0.1:{api.port}/api", "/", ["orders"])
    assert "verysecret" not in str(raised.value)
    with pytest.raises(ValueError, match="must begin with http") as wrong:
        queues.ask_management_api("file:///etc/passwd", "/", ["orders"])
    assert "passwd" not in str(wrong.value)


# ------------------------------------------------------------------ workers' answers


def test_answers_of_workers_are_read_with_care() -> None:
    stats = {"pool": {"processes": [1, 2, 3], "max-concurrency": 8}, "rusage": {"maxrss": 65536}}
    assert read_consumer([{"name": "a"}, {"name": "b"}], stats) == Consumer(("a", "b"), 3, 64 * 2**20)
    assert read_consumer([{"name": "a"}], {"pool": {"max-concurrency": 100}, "rusage": "N/A"}) == Consumer(("a",), 100)
    assert read_consumer(None, None) == Consumer()
    assert queues._merged(Consumer(("a",), 2, 5), Consumer((), None, 7)) == Consumer(("a",), 2, 7)
    assert read_consumer("x", ["y"]) == Consumer()
    assert read_consumer([7, {"name": None}], {"pool": None, "rusage": {"maxrss": -1}}) == Consumer()
    assert queues.sole_queues({"a@h": Consumer(("x",)), "b@h": Consumer(("x", "y")), "c@h": Consumer()}) == {"a@h": "x"}
