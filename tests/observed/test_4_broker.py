"""The broker goes away and comes back: everything is right but for what was done while it was away."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager

from tests.hosts import scenario_secrets, wait_for
from tests.observed.observed import COLLECTOR, Observed, assert_right

#: how long the broker is away; the same was tried with ten minutes by hand
AWAY_SECONDS = 45
#: seconds before the end of a broker in which it may take a message and tell nobody
MARGIN = 1.0


@contextmanager
def watched(observed: Observed) -> Iterator[list[tuple[float, float]]]:
    """Load meanwhile; what is put into the list are times in which things may have been missed."""
    observed.wait_ready()
    before, place = observed.counted(), observed.mark()
    windows: list[tuple[float, float]] = []
    with observed.load():
        yield windows
    work = observed.wait_done(place)
    assert len(work.ids) > 10, "there was hardly any load"
    assert_right(observed, before, work, windows)


def test_a_restart(observed: Observed) -> None:
    reconnects = observed.number("flowerbed_broker_reconnects_total")
    with watched(observed) as windows:
        begin = time.time() - MARGIN
        observed.host.run("systemctl", "restart", observed.broker)
        observed.wait_number(reconnects + 1, "flowerbed_broker_reconnects_total")
        windows.append((begin, observed.wait_connected()))
    observed.wait_ready()
    assert observed.number("flowerbed_broker_away_seconds_total") > 0
    said = observed.journal(begin)
    assert "Events cannot be read" in said
    assert "may be lost" in said


def test_a_long_absence(observed: Observed) -> None:
    """Scrapes answer, workers are not called dead, /health tells, and the reader is back at once."""
    away = observed.number("flowerbed_broker_away_seconds_total")
    with watched(observed) as windows:
        begin = time.time() - MARGIN
        observed.host.run("systemctl", "stop", observed.broker)
        observed.wait_number(0, "flowerbed_broker_connected")
        wait_for("/health to be red", lambda: observed.get("/health")[0] == 503, AWAY_SECONDS)
        wait_for("the time to pass", lambda: time.time() > begin + AWAY_SECONDS, AWAY_SECONDS + 5)
        assert observed.number("celery_workers_online") == 2, "who cannot hear must not call anybody dead"
        assert observed.get("/metrics")[0] == 200
        observed.host.run("systemctl", "start", observed.broker)
        began = time.monotonic()
        end = observed.wait_connected()
        assert time.monotonic() - began < 10
        windows.append((begin, end))
    observed.wait_ready(120)
    assert observed.number("flowerbed_broker_away_seconds_total") - away > AWAY_SECONDS - 5


def change_password(observed: Observed, old: str, new: str) -> None:
    """Also for those who are connected."""
    if observed.on_rabbitmq:
        observed.host.run("rabbitmqctl", "change_password", "monitor", stdin=new)
        observed.host.run("rabbitmqctl", "close_all_user_connections", "monitor", "changed")
        return
    script = """
import json, socket, sys
old, new = json.load(sys.stdin)
def send(connection, *words):
    parts = [word.encode() for word in words]
    connection.sendall(b"*%d\\r\\n" % len(parts) + b"".join(b"$%d\\r\\n%s\\r\\n" % (len(part), part) for part in parts))
    answer = connection.recv(4096)
    assert answer[:1] in b"+:", answer
connection = socket.create_connection(("127.0.0.1", 6379), 5)
send(connection, "AUTH", old)
send(connection, "CONFIG", "SET", "requirepass", new)
send(connection, "CLIENT", "KILL", "TYPE", "pubsub")
send(connection, "CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
print(json.dumps("done"))
"""
    assert observed.host.python(script, [old, new]) == "done"


def test_the_password_is_changed_and_changed_back(observed: Observed) -> None:
    """The reader says so, waits, and comes back; on RabbitMQ, where it has a queue of its own, all is there."""
    password = scenario_secrets()["rabbitmq_password" if observed.on_rabbitmq else "redis_password"]
    other = password[::-1]
    with watched(observed) as windows:
        begin = time.time() - MARGIN
        change_password(observed, password, other)
        observed.wait_number(0, "flowerbed_broker_connected")
        refused = "ACCESS_REFUSED" if observed.on_rabbitmq else "AuthenticationError"
        wait_for("it to say why", lambda: refused in observed.journal(begin), 30)
        wait_for("/health to say why", lambda: observed.health()["reader"] not in ("reading", "connecting"), 30)
        assert password not in json.dumps(observed.health())
        change_password(observed, other, password)
        end = observed.wait_connected()
        if not observed.on_rabbitmq:
            windows.append((begin, end))
    observed.wait_ready(120)
    lines = observed.journal(begin).splitlines()
    assert len(lines) < 40, "not a line for each attempt"


def test_a_broker_that_falls_silent(observed: Observed) -> None:
    """Its connections stay; nobody waits for it without an end, and scrapes answer."""
    process = observed.host.show("MainPID", unit=observed.broker)["MainPID"]
    failures = observed.number("flowerbed_queues_failures_total")
    observed.host.run("kill", "-STOP", process)
    try:
        wait_for("it to be noticed", lambda: observed.number("flowerbed_queues_failures_total") > failures, 60)
        assert observed.get("/metrics")[0] == 200
    finally:
        observed.host.run("kill", "-CONT", process)
    observed.wait_connected()
    observed.wait_ready(120)
    assert observed.host.show("NRestarts", unit=COLLECTOR)["NRestarts"] == "0"
