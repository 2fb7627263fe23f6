"""Sends work to the application of observed.py; prints the ids of what it sent as JSON.

drive.py mix                    some of everything
drive.py send COUNT QUEUE       tasks with all priorities into a queue
drive.py sleep SECONDS QUEUE    one long task
drive.py flood SECONDS RATE     short tasks at a pace, whatever becomes of the broker, for so long or until a file says
                                that it is enough; prints how many were sent
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable

from celery import chain, chord, group
from observed import LOG, add, app, fail, flaky, hopeless, reject, sleep, spread, total

PATIENCE = 60.0  # seconds
ENOUGH = LOG.with_name("enough")


def wait_until(what: str, uuid: str) -> None:
    """Until the log says so."""
    deadline = time.monotonic() + PATIENCE
    while not any(
        line["what"] == what and line["id"] == uuid for line in map(json.loads, LOG.read_text().splitlines())
    ):
        if time.monotonic() > deadline:
            sys.exit(f"{uuid} was not {what} within {PATIENCE:.0f} s")
        time.sleep(0.2)


def mix() -> list[str]:
    """Successes, failures, retries, rejections, ETAs, priorities, chains, groups and chords; three ways to revoke."""
    # b@ has one process: what comes next waits, and can be called off before it begins
    first = sleep.apply_async((4,), queue="slow")
    # these expire when b@ has them already: what expires in RabbitMQ no worker ever sees
    sent = [add.apply_async((0, 0), queue="slow", expires=3) for _ in range(2)]
    waiting = [add.apply_async((1, number), queue="slow") for number in range(3)]
    last = sleep.apply_async((120,), queue="slow")
    sent += [first, *waiting, last]
    sent += [add.apply_async((number, 1), priority=number % 10) for number in range(30)]
    sent += [add.apply_async((number, 2), {"note": "é" * 10}, queue="other") for number in range(10)]
    sent += [add.apply_async(("one", number)) for number in range(2)]  # TypeError
    sent += [fail.delay(kind) for kind in ("value", "key", "os", "own") for _ in range(3)]
    sent += [flaky.delay() for _ in range(3)]
    sent += [hopeless.delay() for _ in range(2)]
    sent += [reject.delay() for _ in range(2)]
    sent += [add.apply_async((0, 3), countdown=4) for _ in range(3)]
    sent += [chain(add.s(1, 2), add.s(3), add.s(4))()]
    sent += [group(add.s(number, 4) for number in range(4))()]
    sent += [chord([add.s(number, 5) for number in range(5)])(total.s())]
    sent += [spread.delay(3) for _ in range(2)]
    wait_until("started", first.id)
    app.control.revoke([result.id for result in waiting])
    wait_until("started", last.id)
    app.control.revoke(last.id, terminate=True)
    return [result.id for result in sent]


def flood(seconds: float, rate: float) -> int:
    """Sends on while the broker is away: what it does not take is not in the log."""
    ENOUGH.unlink(missing_ok=True)
    sent, now = 0, time.monotonic()
    end, turn = now + seconds, now
    while now < end and not ENOUGH.exists():
        try:
            add.apply_async((sent, 1), retry_policy={"max_retries": 1, "interval_start": 0.1, "interval_max": 0.1})
            sent += 1
        except Exception as error:  # noqa: BLE001  # each client library has errors of its own for a broker that is away
            print(f"not sent: {type(error).__name__}", file=sys.stderr)
            time.sleep(0.2)
        now = time.monotonic()
        # what could not be sent is not made up for
        turn = max(turn + 1 / rate, now - 1)
        time.sleep(max(0.0, turn - now))
    return sent


COMMANDS: dict[str, Callable[..., object]] = {
    "mix": mix,
    "send": lambda count, queue: [
        add.apply_async((number, 6), queue=queue, priority=number % 10).id for number in range(int(count))
    ],
    "sleep": lambda seconds, queue: [sleep.apply_async((float(seconds),), queue=queue).id],
    "flood": lambda seconds, rate: flood(float(seconds), float(rate)),
}

if __name__ == "__main__":
    print(json.dumps(COMMANDS[sys.argv[1]](*sys.argv[2:])))
