"""The reader hears all of Celery's events, whatever leads to the broker, and comes back after anything."""

from __future__ import annotations

import json
import logging
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import redis
from events_support import Reading, Redis, Sentinel, application, client, free_port, hears, send, wait_for, worker

from flowerbed.collector import reader, reader_redis
from flowerbed.settings import SettingsError
from tests.authority import Authority

#: the properties that kombu wants in its envelope
KOMBU = {"delivery_tag": "x", "delivery_info": {"exchange": "celeryev", "routing_key": ""}}


@pytest.fixture
def server() -> Iterator[Redis]:
    own = Redis()
    yield own
    own.kill()


@pytest.fixture(params=["redis", "kombu"])
def path(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Both ways to Redis: its own, and kombu's, which is taken where the first does not apply."""
    if request.param == "kombu":
        monkeypatch.setattr(reader_redis, "fits", lambda connection: False)
    return str(request.param)


# ---------------------------------------------------------------------- what real workers send


def test_real_workers(server: Redis, tmp_path: Path, path: str) -> None:
    settings = {"broker_url": server.url, "result_backend": server.url}
    with Reading(settings) as reading:
        reading.wait_connected()
        assert reading.reader.stats.path == path
        with worker(tmp_path, settings, "-E"):
            online = reading.wait_type("worker-online")
            assert (online.hostname, online.freq, online.sw_ident) == ("w1@test", 2.0, "py-celery")
            assert online.loadavg and len(online.loadavg) == 3 and online.pid
            # without a backend: what waits for a result would sign off from it when it is collected, Redis there or not
            app = application({"broker_url": server.url})

            added = app.send_task("shop.add", (1, "é\0\ud83d".encode("utf-16", "replace").decode("utf-16")[:1]))
            sent = reading.wait_type("task-sent", added.id)
            assert (sent.name, sent.queue, sent.routing_key, sent.retries) == ("shop.add", "celery", "celery", 0)
            assert sent.hostname.startswith("gen") and sent.root_id == added.id
            reading.wait_type("task-failed", added.id)

            more = {"text": "x" * 5000, "words": ["a", "b"]}
            done = app.send_task("shop.add", (1, 2), more, expires=600)
            received, ended = reading.wait_type("task-received", done.id), reading.wait_type("task-succeeded", done.id)
            assert received.args == "(1, 2)" and received.kwargs and len(received.kwargs) < 1200
            assert received.expires and received.parent_id is None and received.eta is None
            assert ended.result == "3" and ended.runtime is not None and 0 <= ended.runtime < 5
            reading.wait_type("task-sent", done.id)
            # the producer tells of it when the task is sent already, and so at times after the worker
            told = [kind for kind in reading.types(done.id) if kind != "task-sent"]
            assert told == ["task-received", "task-started", "task-succeeded"]
            assert abs(ended.timestamp - ended.local_received) < 5 and ended.timestamp >= received.timestamp

            failed = app.send_task("shop.fail", ("what's this",))
            event = reading.wait_type("task-failed", failed.id)
            assert event.exception == 'ValueError("what\'s this")' and "in fail" in (event.traceback or "")

            retried = app.send_task("shop.retry")
            last = reading.wait_type("task-failed", retried.id)
            assert reading.types(retried.id).count("task-retried") == 2 and "not yet" in (last.exception or "")

            rejected = app.send_task("shop.reject")
            assert reading.wait_type("task-rejected", rejected.id).requeue is False

            expired = app.send_task("shop.add", (1, 2), expires=-5)
            assert reading.wait_type("task-revoked", expired.id).expired is True

            slept = app.send_task("shop.sleep", (60,))
            reading.wait_type("task-started", slept.id)
            app.control.terminate(slept.id)
            revoked = reading.wait_type("task-revoked", slept.id)
            assert revoked.terminated is True and revoked.signum is not None

            own = app.send_task("shop.progress")
            reading.wait_type("task-progress", own.id)
            reading.wait_type("worker-heartbeat")
        reading.wait_type("worker-offline")


def test_workers_are_asked_for_events(server: Redis, tmp_path: Path) -> None:
    settings = {"broker_url": server.url}
    stop = threading.Event()
    app = application(settings)
    with Reading(settings) as reading, worker(tmp_path, settings):
        reading.wait_type("worker-heartbeat")
        first = app.send_task("shop.add", (1, 2))
        asking = threading.Thread(target=reader.keep_enabled, args=(app, stop, 0.5))
        asking.start()
        sent: list[str] = []

        def told() -> bool:
            # one after the other: when the worker has heard of it, nobody knows
            sent.append(app.send_task("shop.add", (1, 2)).id)
            return any(event.type == "task-received" and event.uuid in sent for event in reading.events)

        try:
            wait_for(told, "events of a task")
        finally:
            stop.set()
            asking.join()
        assert "task-succeeded" not in reading.types(first.id)


# ---------------------------------------------------------------------- ways to the broker


def test_database_and_prefix(server: Redis, path: str) -> None:
    """Events of another database or another prefix are not ours; signs of Redis' patterns stand for themselves."""
    base = server.url.removesuffix("/0")
    mine = {"broker_url": f"{base}/3", "broker_transport_options": {"global_keyprefix": "a*[b]?:"}}
    others = [
        {"broker_url": f"{base}/2", "broker_transport_options": mine["broker_transport_options"]},
        {"broker_url": f"{base}/3"},
        {"broker_url": f"{base}/3", "broker_transport_options": {"global_keyprefix": "axbc:"}},
    ]
    if path == "kombu":
        # it does not escape them
        mine["broker_transport_options"] = {"global_keyprefix": "a:"}
    with Reading(mine) as reading:
        reading.wait_connected()
        for other in others:
            send(other, "other")
        hears(reading, mine)
        assert reading.types("other") == []


@pytest.mark.parametrize(
    "options", [{"fanout_patterns": False}, {"fanout_prefix": "/own{db}."}, {"fanout_prefix": False}]
)
def test_fanout_options(server: Redis, path: str, options: dict[str, Any]) -> None:
    celery = {"broker_url": server.url, "broker_transport_options": options}
    with Reading(celery) as reading:
        reading.wait_connected()
        hears(reading, celery)


def test_unix_socket(tmp_path: Path, path: str) -> None:
    own = Redis(f"port %d\nunixsocket {tmp_path}/redis.sock\n")
    try:
        celery = {"broker_url": f"redis+socket://:{own.password}@{tmp_path}/redis.sock?virtual_host=2"}
        with Reading(celery) as reading:
            reading.wait_connected()
            hears(reading, celery)
    finally:
        own.kill()


@pytest.mark.parametrize("version", ["TLSv1.2", "TLSv1.3"])
def test_tls(tmp_path: Path, path: str, version: str) -> None:
    authority = Authority.new()
    certificate, key = authority.issue("localhost")
    for name, text in {"ca": authority.pem, "certificate": certificate, "key": key}.items():
        (tmp_path / name).write_text(text)
    own = Redis(
        f"port 0\ntls-port %d\ntls-cert-file {tmp_path}/certificate\ntls-key-file {tmp_path}/key\n"
        f"tls-ca-cert-file {tmp_path}/ca\ntls-auth-clients no\ntls-protocols {version}\n"
    )
    url = own.url.replace("redis:", "rediss:").replace("127.0.0.1", "localhost")
    envelope = json.dumps({"body": "{}", "properties": KOMBU}).encode()
    celery = {"broker_url": url, "broker_use_ssl": {"ssl_cert_reqs": "CERT_REQUIRED", "ssl_ca_certs": f"{tmp_path}/ca"}}
    try:
        with Reading(celery) as reading:
            reading.wait_connected()
            celery["broker_use_ssl"]["ssl_cert_reqs"] = "required"  # type: ignore[index]
            hears(reading, celery)
            # each is a record of its own
            admin = redis.Redis.from_url(url, ssl_ca_certs=f"{tmp_path}/ca")
            before = len(reading.payloads)
            for _ in range(50):
                with admin.pipeline(transaction=False) as pipeline:
                    for _ in range(100):
                        pipeline.publish("/0.celeryev/x", envelope)
                    pipeline.execute()
            wait_for(lambda: len(reading.payloads) == before + 5000, "5000 payloads", 10)
        with Reading({"broker_url": url}) as untrusting:
            wait_for(lambda: "certificate" in untrusting.reader.stats.last_error.lower(), "a refused certificate")
            assert untrusting.reader.stats.connects == 0
    finally:
        own.kill()


def test_sentinel_and_failover(tmp_path: Path, path: str) -> None:
    watched = Sentinel(tmp_path)
    try:
        with Reading(watched.celery) as reading:
            reading.wait_connected()
            hears(reading, watched.celery)
            watched.master.kill()
            reading.wait_connected(2, 30)
            hears(reading, watched.celery)
    finally:
        watched.kill()


def test_the_second_host_of_a_list(server: Redis, path: str) -> None:
    celery = {"broker_url": [f"redis://127.0.0.1:{free_port()}/0", server.url]}
    with Reading(celery) as reading:
        reading.wait_connected()
        hears(reading, {"broker_url": server.url})


def test_a_transport_without_a_way_of_its_own(tmp_path: Path) -> None:
    celery = {"broker_url": "memory://"}
    with Reading(celery) as reading:
        reading.wait_connected()
        assert reading.reader.stats.path == "kombu"
        hears(reading, celery)


def test_a_kombu_that_has_changed(server: Redis, monkeypatch: pytest.MonkeyPatch) -> None:
    celery = {"broker_url": server.url}
    monkeypatch.setattr(reader_redis, "_channel", lambda connection: connection.another_name)
    with Reading(celery) as reading:
        reading.wait_connected()
        assert reading.reader.stats.path == "kombu"
        hears(reading, celery)


def test_without_hiredis(server: Redis) -> None:
    """In a process of its own, since redis-py looks for it once."""
    program = f"""
import sys, threading
sys.modules["hiredis"] = None
sys.path[:0] = {sys.path!r}
from flowerbed.collector.reader import Reader, connections
stop = threading.Event()
reader = Reader(connections({{"broker_url": {server.url!r}}}), lambda payloads: stop.set())
reader.run(stop)
print(reader.stats.path, reader.stats.payloads)
"""
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True) as process:
        wait_for(lambda: client(server).pubsub_numpat(), "the subscription")
        send({"broker_url": server.url}, "1")
        assert process.communicate(timeout=20)[0].startswith("kombu ")


def test_without_a_broker() -> None:
    with pytest.raises(SettingsError):
        reader.connections({})


# ---------------------------------------------------------------------- coming back


def test_a_broker_that_is_killed(server: Redis, path: str) -> None:
    celery = {"broker_url": server.url}
    with Reading(celery) as reading:
        reading.wait_connected()
        hears(reading, celery)
        server.kill()
        stats = reading.reader.stats
        wait_for(lambda: stats.connected_since is None, "the loss to be seen")
        time.sleep(1.5)
        server.start()
        began = time.monotonic()
        reading.wait_connected(2)
        assert time.monotonic() - began < reader.LONGEST_WAIT_AWAY + 1
        hears(reading, celery)
        assert stats.reconnects == 1 and len(stats.gaps) == 1
        assert 1.4 < stats.away_seconds < 10
        assert stats.gaps[0].end - stats.gaps[0].start == pytest.approx(stats.away_seconds, abs=0.01)


def test_a_broker_that_is_not_there_at_first(server: Redis, path: str) -> None:
    server.kill()
    celery = {"broker_url": server.url}
    with Reading(celery) as reading:
        wait_for(lambda: reading.reader.stats.failures > 2, "some attempts")
        server.start()
        reading.wait_connected()
        hears(reading, celery)
        # nothing was ours yet to be missed
        assert not reading.reader.stats.gaps


def test_a_password_that_is_wrong_for_a_while(server: Redis, path: str, caplog: pytest.LogCaptureFixture) -> None:
    celery, admin, right = {"broker_url": server.url}, client(server), server.password
    with caplog.at_level(logging.DEBUG, "flowerbed"), Reading(celery, max_wait=0.5) as reading:
        reading.wait_connected()
        admin.config_set("requirepass", "another")
        admin.client_kill_filter(_type="pubsub", skipme=True)
        stats = reading.reader.stats
        wait_for(lambda: stats.failures > 3, "refusals")
        assert stats.connected_since is None and "password" in stats.last_error.lower()
        redis.Redis(port=server.port, password="another").config_set("requirepass", right)
        reading.wait_connected(2)
        hears(reading, celery)
        assert right not in caplog.text and right not in stats.last_error
        # not one line for each attempt
        assert len([record for record in caplog.records if record.levelno >= logging.WARNING]) < 6


def test_a_user_who_may_not_subscribe(server: Redis) -> None:
    admin, port = client(server), server.port
    admin.execute_command("ACL", "SETUSER", "bob", "on", ">word-of-bob", "~*", "+@all", "resetchannels")
    with Reading({"broker_url": f"redis://bob:word-of-bob@127.0.0.1:{port}/0"}, max_wait=0.5) as reading:
        wait_for(lambda: "NoPermission" in reading.reader.stats.last_error, "a refusal")
        assert reading.reader.stats.connects == 0 and "word-of-bob" not in reading.reader.stats.last_error
        admin.execute_command("ACL", "SETUSER", "bob", "allchannels")
        reading.wait_connected()


def test_a_full_output_buffer(server: Redis) -> None:
    """Redis throws out who reads too slowly: the reader sees it, says for how long it was deaf, and goes on."""
    admin, held = client(server), threading.Event()
    celery = {"broker_url": server.url}
    with Reading(celery) as reading:
        reading.wait_connected()
        # what nobody may do: to wait in the reader
        reading.reader.on_payloads = lambda payloads: (held.wait(30), reading.payloads.extend(payloads))[1]
        reading.stop.set()
        reading.thread.join(5)
        reading.stop.clear()
        reading.thread = threading.Thread(target=reading.reader.run, args=(reading.stop,), daemon=True)
        reading.thread.start()
        reading.wait_connected(2)
        admin.config_set("client-output-buffer-limit", "pubsub 1mb 1mb 1")
        for _ in range(400):
            admin.publish("/0.celeryev/x", b"x" * 100_000)
            if not admin.client_list(_type="pubsub"):
                break
        else:
            pytest.fail("Redis did not throw the reader out")
        held.set()
        reading.wait_connected(3)
        hears(reading, celery)
        assert reading.reader.stats.gaps


def test_a_broker_that_falls_silent(server: Redis, monkeypatch: pytest.MonkeyPatch) -> None:
    """A stopped Redis keeps its connections: without an answer to PING the reader gives up on it."""
    monkeypatch.setattr(reader_redis, "QUIET_SECONDS", 0.5)
    monkeypatch.setattr(reader_redis, "ANSWER_SECONDS", 1)
    assert server.process is not None
    celery = {"broker_url": server.url, "broker_transport_options": {"socket_timeout": 2}}
    with Reading(celery) as reading:
        reading.wait_connected()
        stats = reading.reader.stats
        alive = stats.last_alive
        wait_for(lambda: stats.last_alive != alive, "an answer to PING")
        time.sleep(3)
        assert stats.connects == 1 and stats.last_read is None
        server.process.send_signal(signal.SIGSTOP)
        wait_for(lambda: stats.connected_since is None, "the silence to be noticed")
        assert stats.last_error == "" or "answer" in stats.last_error or "imeout" in stats.last_error
        server.process.send_signal(signal.SIGCONT)
        reading.wait_connected(2)
        hears(reading, celery)


@pytest.mark.parametrize(
    "answer", [b"", b"-LOADING wait\r\n", b"HTTP/1.1 400 Bad Request\r\n\r\n", b"$999999999999\r\n"]
)
def test_something_else_listens_there(answer: bytes) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        listening.settimeout(0.2)
        end = threading.Event()

        def serve() -> None:
            while not end.is_set():
                try:
                    peer, _ = listening.accept()
                except TimeoutError:
                    continue
                peer.sendall(answer)
                peer.close()

        serving = threading.Thread(target=serve)
        serving.start()
        try:
            port = listening.getsockname()[1]
            with Reading({"broker_url": f"redis://:secret-word@127.0.0.1:{port}/0"}, max_wait=0.2) as reading:
                wait_for(lambda: reading.reader.stats.failures > 3, "attempts")
                assert "secret-word" not in reading.reader.stats.last_error and reading.reader.stats.last_error
        finally:
            end.set()
            serving.join()


# ---------------------------------------------------------------------- all of it


def test_nothing_is_lost_from_the_subscription_on(server: Redis) -> None:
    """Events that are sent in the very moment of subscribing: once Redis has taken it, each of them comes."""
    admin, stop, numbers = client(server), threading.Event(), iter(range(10**9))
    taken: list[int] = []

    def flood() -> None:
        while not stop.is_set():
            number = next(numbers)
            # how many subscribers Redis has given it to
            if admin.publish("/0.celeryev/x", b"%d" % number):
                taken.append(number)

    flooding, looking = threading.Thread(target=flood), client(server)
    flooding.start()
    try:
        for _ in range(10):
            wait_for(lambda: not looking.pubsub_numpat(), "the last subscription to end")
            time.sleep(0.05)
            taken.clear()
            with Reading({"broker_url": server.url}) as reading:
                reading.wait_connected()
                time.sleep(0.2)
            came = [int(payload) for payload in reading.payloads]
            assert len(came) > 10 and came == taken[: len(came)]
    finally:
        stop.set()
        flooding.join()


@pytest.mark.parametrize("make", [lambda number: b"%d" % number, lambda number: b"%d " % number * 50_000])
def test_all_and_in_order(server: Redis, make: Callable[[int], bytes], path: str) -> None:
    count = 20_000 if len(make(1)) < 100 else 60
    admin = client(server)
    made = [make(number) for number in range(count)]
    if path == "kombu":
        wire = [json.dumps({"body": payload.decode(), "properties": KOMBU}).encode() for payload in made]
    else:
        wire = made
    with Reading({"broker_url": server.url}) as reading:
        reading.wait_connected()
        for first in range(0, count, 500):
            with admin.pipeline(transaction=False) as pipeline:
                for payload in wire[first : first + 500]:
                    pipeline.publish("/0.celeryev/x", payload)
                pipeline.execute()
        wait_for(lambda: len(reading.payloads) >= count, "all payloads", 30)
        assert reading.payloads == made
        stats = reading.reader.stats
        assert stats.payloads == count and stats.bytes >= sum(map(len, made)) and stats.last_read


def test_a_huge_message_does_not_fill_the_memory(server: Redis, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reader_redis, "LONGEST_MESSAGE", 2**20)
    celery = {"broker_url": server.url}
    with Reading(celery) as reading:
        reading.wait_connected()
        client(server).publish("/0.celeryev/x", b"x" * 8 * 2**20)
        reading.wait_connected(2)
        hears(reading, celery)


# ---------------------------------------------------------------------- small parts


def test_waits_grow_to_a_cap_and_differ() -> None:
    waits = [reader.wait_seconds(attempt, 30) for attempt in range(60)]
    assert waits[0] <= reader.FIRST_WAIT and max(waits) <= 30 and min(waits[20:]) >= 15
    assert len(set(waits)) > 50


def test_an_error_is_told_without_passwords() -> None:
    urls = ["redis://:pass-one@host/0", "redis://bob:pass-two@host/0"]
    connection = reader.connections({"broker_url": urls})()
    text = reader.told(ValueError("pass-one\n and redis://bob:pass-two@host"), connection)
    assert text == "ValueError: *** and redis://bob:***@host"
