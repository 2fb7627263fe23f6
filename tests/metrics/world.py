"""One busy afternoon for all live tests: real workers on a real Redis, two collectors that listen, a real Prometheus.

`ROUND` is what is sent, counted by hand; the tests compare it with what the collectors say.  It is sent twice, with
scrapes in between: to Prometheus a counter that has just appeared has not risen.
"""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import mixin
from addon_support import Redis
from celery import Celery
from live_support import SCRAPE_SECONDS, Collecting, Prometheus, kill, redis, running, shop, worker

#: (task, queue) -> state -> how often in one round
ROUND: dict[tuple[str, str], dict[str, int]] = {
    ("shop.add", "celery"): {"sent": 20, "received": 20, "started": 20, "succeeded": 20},
    ("shop.add", "images"): {"sent": 6, "received": 6, "started": 6, "succeeded": 6},
    ("shop.add", "nobody"): {"sent": 52},
    ("shop.fail", "celery"): {"sent": 3, "received": 3, "started": 3, "failed": 3},
    ("shop.fail_far_away", "celery"): {"sent": 1, "received": 1, "started": 1, "failed": 1},
    ("shop.fail_oddly", "celery"): {"sent": 1, "received": 1, "started": 1, "failed": 1},
    # each attempt is received and started anew; who retries sends the message itself
    ("shop.retry", "celery"): {"sent": 3, "received": 3, "started": 3, "retried": 2, "failed": 1},
    # Celery tells of both
    ("shop.reject", "celery"): {"sent": 1, "received": 1, "started": 1, "rejected": 1, "failed": 1},
    ("shop.progress", "celery"): {"sent": 1, "received": 1, "started": 1, "succeeded": 1},
    ("report.slow", "celery"): {"sent": 2, "received": 2, "started": 2, "succeeded": 2},
    # revoked before a worker had it
    ("shop.late", "celery"): {"sent": 1, "revoked": 1},
}
ROUNDS = 2
#: the one that runs, the one whose worker was killed, and one that waits for its time: once only
LONG: dict[tuple[str, str], dict[str, int]] = {
    ("shop.add", "long"): {"sent": 1, "received": 1},
    ("shop.sleep", "long"): {"sent": 1, "received": 1, "started": 1},
    ("shop.sleep", "gone"): {"sent": 1, "received": 1, "started": 1, "lost": 1},
}
EXPECTED = {key: {state: ROUNDS * number for state, number in states.items()} for key, states in ROUND.items()} | LONG
#: (task, exception) -> failures in one round
FAILURES = {
    ("shop.fail", "ValueError"): 3,
    ("shop.fail_far_away", "OperationalError"): 1,
    ("shop.fail_oddly", "unknown"): 1,
    ("shop.retry", "OSError"): 1,
    ("shop.reject", "unknown"): 1,
}
#: worker -> its queue and processes; two of them are on one host
WORKERS = {"w1@one": ("celery", 2), "w2@one": ("celery", 1), "w3@two": ("images", 1), "w4@two": ("long", 1)}


@dataclass
class World:
    """What runs."""

    directory: Path
    redis: Redis
    app: Celery
    #: with our names, and with celery-exporter's beside them
    ours: Collecting
    compat: Collecting
    prometheus: Prometheus


@contextlib.contextmanager
def world(directory: Path) -> Iterator[World]:
    """Sends everything, and goes on when all of it was counted."""
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(redis())
        celery = {"broker_url": server.url, "result_backend": server.url}
        app = shop(directory, celery)
        collectors = []
        for name, options in (("ours", {}), ("compat", {"compat": "celery-exporter"})):
            one = Collecting(
                directory / name, celery, {"url": f"sqlite:///{directory}/{name}/history.sqlite", "lost_after": 2},
                queues=["celery", "images", "nobody"], task_buckets={"report.*": [1, 60, 604800]}, **options,
            )  # fmt: skip
            collectors.append(stack.enter_context(running(one)))
        ours, compat = collectors
        jobs = {"celery": compat.port, "flowerbed": ours.port}
        labels = {"namespace": "shop", "cluster": "test"}
        rules = [mixin.ALERTS, json.dumps({"groups": [{"name": "dashboards", "rules": recorded()}]})]
        prometheus = stack.enter_context(Prometheus(directory / "prometheus", jobs, rules, labels))
        for name, (queue, processes) in WORKERS.items():
            stack.enter_context(worker(directory, name, "-Q", queue, "-c", str(processes)))
        doomed = stack.enter_context(worker(directory, "w5@gone", "-Q", "gone", "-c", "1"))
        for one in collectors:
            one.wait_number(5, "celery_workers_online", 90)
        made = World(directory, server, app, ours, compat, prometheus)
        send(app, 1)
        for one in collectors:
            wait_counted(one, ROUND)
        time.sleep(2 * SCRAPE_SECONDS)
        for queue in ("gone", "long"):
            app.send_task("shop.sleep", (600,), queue=queue)
        app.send_task("shop.add", (1, 1), queue="long", countdown=3000)
        send(app, 2)
        for one in collectors:
            one.wait_number(1, "celery_tasks_total", task="shop.sleep", queue="gone", state="started")
        kill(doomed)
        for one in collectors:
            wait_counted(one, EXPECTED)
            # the queues are asked every ten seconds
            waiting = EXPECTED["shop.add", "nobody"]["sent"]
            one.wait_number(waiting, "celery_queue_length", **{"queue_name" if one is compat else "queue": "nobody"})
            one.wait_number(len(WORKERS), "celery_workers_online")
        time.sleep(2 * SCRAPE_SECONDS)
        yield made


def wait_counted(one: Collecting, expected: dict[tuple[str, str], dict[str, int]]) -> None:
    """Waits for each number."""
    for (task, queue), states in expected.items():
        for state, number in states.items():
            one.wait_number(number, "celery_tasks_total", task=task, queue=queue, state=state)


def recorded() -> list[dict[str, str]]:
    """The dashboards' expressions as rules."""
    found = enumerate(map(mixin.filled, mixin.expressions()))
    return [{"record": f"dashboard:{number}", "expr": expression} for number, expression in found]


def send(app: Celery, number_of_round: int) -> None:
    """The work of one round."""
    for number in range(20):
        app.send_task("shop.add", (number, 1))
    for number in range(6):
        app.send_task("shop.add", (number, 1), queue="images")
    for priority in (0, 3, 6, 9):
        for number in range(13):
            app.send_task("shop.add", (number, 1), queue="nobody", priority=priority)
    for _ in range(3):
        app.send_task("shop.fail", ("oh",))
    for name in ("fail_far_away", "fail_oddly", "retry", "reject", "progress"):
        app.send_task(f"shop.{name}")
    for seconds in (0.1, 1.5):
        app.send_task("report.slow", (seconds,))
    revoked = f"revoked-{number_of_round}"
    app.control.revoke(revoked)
    app.send_task("shop.late", task_id=revoked, countdown=1)
