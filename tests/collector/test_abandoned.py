"""When tasks that a worker left STARTED are lost: by time, after a restart, when a new process takes its name."""

from __future__ import annotations

import pytest
from hostile import HEARTBEAT
from process_support import payloads

from flowerbed.collector.abandoned import Abandoned
from flowerbed.collector.events import decode
from flowerbed.metrics.workers import Workers

NEVER = float("inf")


def beat(workers: Workers, abandoned: Abandoned, now: float, **fields: object) -> None:
    (event,) = decode(payloads([{**HEARTBEAT, **fields}])[0])
    workers.event(event, now)
    abandoned.heard(event, now, 1000 + now)


def test_a_silent_worker_is_given_its_time_and_told_once() -> None:
    workers, abandoned = Workers(), Abandoned(300)
    abandoned.check({}, 0, "connection")
    beat(workers, abandoned, 10)
    told = []
    for now in range(11, 800):
        workers.check(now, 0)
        told += [(now, name) for name, _ in abandoned.check(workers.known, now, "connection")]
    assert told == [(310, "w1@host")]
    # back, and gone again
    beat(workers, abandoned, 800)
    abandoned.check(workers.known, 800, "connection")
    workers.check(900, 0)
    assert abandoned.check(workers.known, 900, "connection") == []
    assert abandoned.check(workers.known, 1100, "connection") == [("w1@host", NEVER)]


def test_nobody_is_called_silent_while_we_are_deaf() -> None:
    abandoned = Abandoned(300)
    abandoned.expect(["w1@host"], 0)
    assert abandoned.check({}, 10, "first") == []
    assert abandoned.check({}, 5000, None) == []
    assert abandoned.check({}, 6000, "second") == []
    assert abandoned.check({}, 6299, "second") == []
    assert abandoned.check({}, 6300, "second") == [("w1@host", NEVER)]
    assert abandoned.check({}, 9000, "second") == []


@pytest.mark.parametrize(
    ("second", "is_new"),
    [
        ({"pid": 8, "processed": 0}, True),
        # in a container the pid is always the same
        ({"pid": 7, "processed": 0}, True),
        # only the broker was away
        ({"pid": 7, "processed": 5}, False),
        ({"pid": 8, "type": "worker-heartbeat"}, False),
    ],
)
def test_a_new_process_in_an_old_name(second: dict[str, object], is_new: bool) -> None:
    workers, abandoned = Workers(), Abandoned(300)
    abandoned.check({}, 0, "connection")
    beat(workers, abandoned, 10)
    beat(workers, abandoned, 20, **{"type": "worker-online", **second})
    told = []
    for now in range(20, 700):
        beat(workers, abandoned, now, **{"pid": 8, "processed": 9, **second, "type": "worker-heartbeat"})
        told += abandoned.check(workers.known, now, "connection")
    assert told == ([("w1@host", 1020.0)] if is_new else [])
