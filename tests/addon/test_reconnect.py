"""After an outage Flower listens again soon, however long the outage was."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from types import SimpleNamespace

import pytest
from addon_support import Flower, Redis, wait_for
from celery import Celery
from flower.events import Events

from flowerbed import reconnect

MAX_SECONDS = 1


@pytest.fixture
def own_redis() -> Iterator[Redis]:
    redis = Redis()
    yield redis
    redis.kill()


def waits(flower: Flower) -> list[float]:
    return [float(number) for number in re.findall(r"trying again in ([\d.]+) seconds", flower.log)]


def test_the_wait_is_capped(flower_process: Callable[..., Flower], own_redis: Redis) -> None:
    settings = {"auth": "none", "broker_reconnect_max_seconds": MAX_SECONDS}
    environment = {"FLOWER_UNAUTHENTICATED_API": "true"}
    flower = flower_process(settings, {"celery": {"broker_url": own_redis.url}}, environment=environment)

    def hears(uuid: str) -> bool:
        app = Celery(broker=own_redis.url, set_as_current=False)
        with app.connection() as connection, app.events.Dispatcher(connection, hostname="w@test") as dispatcher:
            dispatcher.send("task-received", uuid=uuid, name="tests.heard")
        return uuid in flower.request("GET", "/api/tasks").text

    wait_for(lambda: hears("before"), "an event")
    own_redis.kill()
    # Redis's own client adds some seconds of retries to each attempt; uncapped, the second wait would be 2 s
    wait_for(lambda: len(waits(flower)) >= 2, "two attempts", seconds=30)
    assert waits(flower)[:2] == [1, MAX_SECONDS]
    own_redis.start()
    wait_for(lambda: hears("after"), "an event after the outage", seconds=15)
    assert own_redis.password not in flower.log


def test_waits_grow_to_the_cap(monkeypatch: pytest.MonkeyPatch) -> None:
    slept: list[float] = []

    class Stop(BaseException):
        """Ends the endless loop."""

    def sleep(seconds: float) -> None:
        slept.append(seconds)
        if len(slept) == 7:
            raise Stop

    events = SimpleNamespace(capp=Celery(broker="redis://127.0.0.1:1/0", set_as_current=False), on_event=print)
    monkeypatch.setattr(events.capp, "connection", lambda: (_ for _ in ()).throw(OSError("down")))
    monkeypatch.setattr(reconnect, "time", SimpleNamespace(sleep=sleep))
    with pytest.raises(Stop):
        reconnect.capture_for_ever(events, 30)
    assert slept == [2, 4, 8, 16, 30, 30, 30]


def test_unknown_code_is_left_alone(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    def run(self: object) -> None:
        """Something else."""

    monkeypatch.setattr(Events, "run", run)
    assert not reconnect.cap_reconnect(3)
    assert Events.run is run
    assert "not capped" in caplog.text


def test_the_known_code_is_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Events, "run", Events.run)
    before = Events.run
    assert reconnect.cap_reconnect(3)
    assert Events.run is not before
