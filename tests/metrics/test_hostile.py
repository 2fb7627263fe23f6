"""Whatever comes over the wire, counting goes on, the text can be read, and there is not too much of it."""

from __future__ import annotations

import json
import math
import random
from typing import Any

from metrics_support import observer, samples

from flowerbed.collector.events import DecodeError, decode
from flowerbed.collector.tasks import Folder
from flowerbed.redact import Redactor
from flowerbed.settings import Redact

TYPES = [
    "task-sent", "task-received", "task-started", "task-succeeded", "task-failed", "task-retried", "task-revoked",
    "task-rejected", "worker-online", "worker-heartbeat", "worker-offline", "worker-", "task-", "x", 'quo"te\n',
]  # fmt: skip
NASTY: list[Any] = [
    None, True, False, 0, -1, 2**63, 1e308, -1e308, float("nan"), float("inf"), "", "\0", "\ud800", '"\n\\', "x" * 3000,
    [], {}, [1], "a@b@c", "@", "ünï", "1970-01-01T00:00:00+00:00", "ValueError(",
]  # fmt: skip
FIELDS = ["name", "queue", "routing_key", "exchange", "runtime", "exception", "retries", "eta", "timestamp", "freq"]
FIELDS += ["active", "processed", "loadavg", "hostname", "clock", "utcoffset", "requeue", "result", "args"]


def test_ten_thousand_hostile_events() -> None:
    chance = random.Random(4)
    one = observer(limit=300, celery_exporter=True, worker_label=True)
    folder = Folder(Redactor(Redact()))
    taken = 0
    for number in range(10_000):
        event: dict[str, Any] = {
            "type": chance.choice(TYPES),
            "uuid": f"u{number % 50}",
            "hostname": f"w{number % 7}@h",
        }
        event["timestamp"] = 1.7e9 + number
        for name in chance.sample(FIELDS, 4):
            event[name] = chance.choice([*NASTY, f"made-up-{number}"])
        try:
            events = decode(json.dumps(event).encode())
        except DecodeError as error:
            events = error.events
        for each in events:
            one.take(each, folder.fold(each, 1.7e9 + number), float(number))
            taken += 1
        if not number % 500:
            one.check(float(number), 1)
    assert taken > 5000
    for openmetrics in (False, True):
        found = samples(one.registry, openmetrics)
        assert len(found) < 5000
        assert not any(math.isnan(number) for number in found.values())
        assert sum(n for (name, _), n in found.items() if name == "celery_events_total") == taken
