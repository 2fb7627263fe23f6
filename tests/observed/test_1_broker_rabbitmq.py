"""The reader and the questions about queues against a real RabbitMQ, over TLS, in a virtual host with a slash."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from celery import Celery
from events_support import Reading, application, hears, send, wait_for, worker
from kombu import Queue

from flowerbed import broker
from flowerbed.collector import reader, reader_kombu
from flowerbed.collector.queues import Figures, Queues
from flowerbed.metrics.waiting import Waiting
from flowerbed.metrics.workers import Workers
from tests.hosts import scenario_secrets
from tests.observed.observed import Observed

VIRTUAL_HOST = "flowerbed/tests"


@pytest.fixture(scope="module")
def amqp(observed: Observed, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Any]]:
    """Celery's settings for a virtual host of these tests' own."""
    ca = tmp_path_factory.mktemp("tls") / "ca.pem"
    ca.write_text(observed.host.run("cat", "/etc/ssl/broker-ca.pem"))
    observed.host.run("rabbitmqctl", "add_vhost", VIRTUAL_HOST)
    observed.host.run("rabbitmqctl", "set_permissions", "-p", VIRTUAL_HOST, "worker", ".*", ".*", ".*")
    password = quote(scenario_secrets()["worker_password"], safe="")
    url = f"amqps://worker:{password}@{observed.host.address}:5671/{quote(VIRTUAL_HOST, safe='')}"
    tls = {"cert_reqs": 2, "ca_certs": str(ca), "server_hostname": "localhost"}
    yield {"broker_url": url, "broker_use_ssl": tls}
    observed.host.run("rabbitmqctl", "delete_vhost", VIRTUAL_HOST)


@pytest.fixture
def queue(amqp: dict[str, Any]) -> Iterator[str]:
    """A name for a queue of events that stays; it is deleted in the end."""
    name = f"celeryev.test-{time.time()}"
    yield name
    with reader.connections(amqp)() as connection:
        connection.default_channel.queue_delete(name)


# ------------------------------------------------------------------ the reader


def test_real_workers(amqp: dict[str, Any], tmp_path: Path) -> None:
    with Reading(amqp) as reading:
        reading.wait_connected()
        assert reading.reader.stats.path == "kombu"
        with worker(tmp_path, amqp, "-E"):
            reading.wait_type("worker-online")
            done = application(amqp).send_task("shop.add", (1, 2))
            assert reading.wait_type("task-succeeded", done.id).result == "3"
            # the worker may be faster than the producer
            reading.wait_type("task-sent", done.id)
            types = sorted(reading.types(done.id))
            assert types == ["task-received", "task-sent", "task-started", "task-succeeded"]


def test_events_are_kept_while_we_restart(amqp: dict[str, Any], queue: str) -> None:
    with Reading(amqp, queue=queue) as reading:
        reading.wait_connected()
        hears(reading, amqp)
    send(amqp, *map(str, range(1000)))
    with Reading(amqp, queue=queue) as reading:
        wait_for(lambda: len(reading.events) >= 1000, "what was sent meanwhile")
        assert [event.uuid for event in reading.events] == list(map(str, range(1000)))


def test_what_was_not_written_comes_again_and_nothing_else(
    amqp: dict[str, Any], queue: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reader_kombu, "FAREWELL_SECONDS", 0.2)
    with Reading(amqp, queue=queue) as reading:
        # a queue that is there keeps what comes
        reading.wait_connected()
    written = 0
    with Reading(amqp, queue=queue, safe=lambda: written) as reading:
        reading.wait_connected()
        send(amqp, *map(str, range(100)))
        wait_for(lambda: len(reading.events) == 100, "all events")
        first = next(number for number, payload in enumerate(reading.payloads) if b'"60"' in payload)
        written = first
    with Reading(amqp, queue=queue, safe=lambda: reading.reader.stats.payloads) as reading:
        wait_for(lambda: reading.events and reading.events[-1].uuid == "99", "the rest")
        assert [event.uuid for event in reading.events] == list(map(str, range(60, 100)))
    with Reading(amqp, queue=queue) as reading:
        reading.wait_connected()
        hears(reading, amqp)
        assert len(reading.events) == 3


def test_reading_goes_on_while_nothing_is_written(
    amqp: dict[str, Any], queue: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reader_kombu, "MOST_UNACKED", 30)
    monkeypatch.setattr(reader_kombu, "FAREWELL_SECONDS", 0.2)
    monkeypatch.setattr(reader_kombu._Acknowledging.look, "__defaults__", (30,))
    with Reading(amqp, queue=queue, safe=lambda: 0) as reading:
        reading.wait_connected()
        for first in range(0, 200, 20):
            send(amqp, *map(str, range(first, first + 20)))
            wait_for(lambda first=first: len(reading.events) == first + 20, "what was sent")


def test_a_queue_that_somebody_deletes(amqp: dict[str, Any], queue: str) -> None:
    with Reading(amqp, queue=queue) as reading, reader.connections(amqp)() as connection:
        reading.wait_connected()
        connection.default_channel.queue_delete(queue)
        reading.wait_connected(2)
        hears(reading, amqp)


def test_the_queue_is_bounded(amqp: dict[str, Any]) -> None:
    with reader.connections(amqp)() as connection:
        bound = reader_kombu.queue_for(connection, "celeryev", "")
        assert (bound.max_length, bound.expires) == (reader_kombu.QUEUE_LENGTH, reader_kombu.QUEUE_SECONDS)
        assert bound.exclusive
        assert not bound.durable


def test_a_stranger_is_refused(amqp: dict[str, Any]) -> None:
    wrong = {**amqp, "broker_url": f"amqps://nobody:word-of-nobody@{amqp['broker_url'].rpartition('@')[2]}"}
    with Reading(wrong, max_wait=0.5) as reading:
        wait_for(lambda: reading.reader.stats.failures > 1, "refusals")
        error = reading.reader.stats.last_error
        assert "AccessRefused" in error
        assert "word-of-nobody" not in error


def test_a_certificate_of_nobodys_is_refused(amqp: dict[str, Any]) -> None:
    with Reading({"broker_url": amqp["broker_url"]}, max_wait=0.5) as reading:
        wait_for(lambda: "certificate" in reading.reader.stats.last_error.lower(), "a refusal")
        assert reading.reader.stats.connects == 0


# ------------------------------------------------------------------ queues


@pytest.fixture
def app(amqp: dict[str, Any]) -> Celery:
    """An application with a queue of priorities that nobody consumes."""
    app = Celery("shop", set_as_current=False)
    broker.configure(app, amqp)
    app.conf.task_queues = [Queue("orders", routing_key="orders", max_priority=10)]
    with app.connection_for_write() as connection:
        app.conf.task_queues[0](connection.default_channel).declare()
        connection.default_channel.queue_purge("orders")
    for number in range(40):
        app.send_task("shop.add", queue="orders", priority=number % 10)
    return app


def asking(app: Celery, **options: Any) -> Queues:
    return Queues(app.connection_for_read, Waiting(), Workers(), configured=["orders", "gone"], **options)


def told(one: Queues) -> Any:
    one.poll()
    return one._told.queues


def test_queues_by_declaring(app: Celery) -> None:
    one = asking(app)
    wait_for(lambda: told(one)["orders"].length == 40, "all priorities")
    assert told(one) == {"orders": Figures(40, None, 0), "gone": Figures(0, None, 0)}
    assert one.failures == 0


def test_a_management_api_that_is_not_there_is_done_without(app: Celery, observed: Observed) -> None:
    for address in (f"https://{observed.host.address}:15671/api/", f"http://monitor:word@{observed.host.address}:9/"):
        one = asking(app, management_api=address)
        wait_for(lambda one=one: told(one)["orders"].length == 40, "all priorities")
        assert one.failures >= 1
        assert one.last_error


def test_a_queue_that_may_not_be_seen_spoils_no_other(app: Celery, observed: Observed) -> None:
    """Not even one that is another connection's own."""
    with app.connection_for_write() as connection:
        connection.default_channel.queue_declare("mine", exclusive=True)
        one = Queues(app.connection_for_read, Waiting(), Workers(), configured=["mine", "orders"])
        wait_for(lambda: told(one).get("orders", Figures()).length == 40, "all priorities")
        assert "mine" not in told(one)
        assert one.failures == 0
