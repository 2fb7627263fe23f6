"""Events as Celery sends them, and what anybody else may send: for the tests of the decoder and of the collector."""

from __future__ import annotations

import base64
import json
import math
import random
from collections.abc import Iterator
from typing import Any

import msgspec

from flowerbed.collector.events import Event

NOW = 1795446161.5
COMMON = {"uuid": "1-2", "hostname": "w1@host", "timestamp": NOW, "utcoffset": -1, "pid": 7, "clock": 9}
RECEIVED = {
    **COMMON,
    "type": "task-received",
    "name": "shop.add",
    "args": "(1, 'é')",
    "kwargs": "{}",
    "root_id": "1-2",
    "parent_id": None,
    "retries": 0,
    "eta": None,
    "expires": "2026-11-23T15:00:00+00:00",
}
SENT = {**RECEIVED, "type": "task-sent", "hostname": "gen1@host", "queue": "q", "exchange": "", "routing_key": "q"}
SUCCEEDED = {**COMMON, "type": "task-succeeded", "result": "3", "runtime": 0.25}
FAILED = {**COMMON, "type": "task-failed", "exception": "ValueError('no')", "traceback": "Traceback:\n  File"}
REVOKED = {**COMMON, "type": "task-revoked", "terminated": True, "signum": 15, "expired": False}
HEARTBEAT = {
    "type": "worker-heartbeat",
    "hostname": "w1@host",
    "timestamp": NOW,
    "utcoffset": -1,
    "pid": 7,
    "clock": 9,
    "freq": 2.0,
    "active": 1,
    "processed": 5,
    "loadavg": [0.5, 1.25, 2],
    "sw_ident": "py-celery",
    "sw_ver": "5.7.0",
    "sw_sys": "Linux",
}
GOOD: list[dict[str, Any]] = [RECEIVED, SENT, SUCCEEDED, FAILED, REVOKED, HEARTBEAT]


def envelope(content: Any, **changes: Any) -> bytes:
    """As kombu's virtual transports put it on the wire (kombu/transport/virtual/base.py)."""
    raw = content if isinstance(content, bytes) else json.dumps(content).encode()
    whole = {
        "body": base64.b64encode(raw).decode(),
        "content-encoding": "utf-8",
        "content-type": "application/json",
        "headers": {"hostname": "w1@host"},
        "properties": {"delivery_mode": 1, "priority": 0, "body_encoding": "base64", "delivery_tag": "x"},
    }
    return json.dumps({**whole, **changes}).encode()


FIELD_NAMES = [field.name for field in msgspec.structs.fields(Event)]


def hostile(count: int) -> Iterator[bytes]:
    """Real messages that are cut, bent, nested, swollen and mixed up, and bytes that are none."""
    chosen = random.Random(4)
    whole = [envelope(item) for item in GOOD] + [envelope(GOOD)] + [json.dumps(item).encode() for item in GOOD]
    values: list[Any] = [
        None, True, -1, 0, 2**63, -(2**63), 10**40, 1e308, math.nan, -math.inf, "", "\0", "\ud800", "x" * 1000,
        [], [[]], {}, {"a": {}}, [None] * 20, "é\U0001f33b", "__proto__", "%s%n", "'; DROP TABLE tasks; --",
    ]  # fmt: skip
    names = [*FIELD_NAMES, "body", "properties", "content-type"]

    def bent() -> bytes:
        item = dict(chosen.choice(GOOD))
        for _ in range(chosen.randrange(1, 5)):
            name = chosen.choice(names)
            if chosen.random() < 0.2:
                item.pop(name, None)
            else:
                item[name] = chosen.choice(values)
        body: Any = [item, *chosen.choices(GOOD, k=chosen.randrange(3))] if chosen.random() < 0.3 else item
        return envelope(body) if chosen.random() < 0.5 else json.dumps(body).encode()

    def cut() -> bytes:
        raw = chosen.choice(whole)
        return raw[: chosen.randrange(len(raw))]

    def flipped() -> bytes:
        raw = bytearray(chosen.choice(whole))
        for _ in range(chosen.randrange(1, 6)):
            raw[chosen.randrange(len(raw))] = chosen.randrange(256)
        return bytes(raw)

    def nested() -> bytes:
        opening = chosen.choice((b"[", b'{"type":', b'{"body":', b'{"properties":{"a":'))
        return opening * chosen.randrange(1, 3000)

    def foreign() -> bytes:
        return chosen.randbytes(chosen.randrange(200))

    makers = [bent, bent, bent, cut, flipped, foreign]
    for number in range(count):
        yield nested() if number % 500 == 0 else chosen.choice(makers)()
