"""Celery's events are read whole, and nothing that anybody can send does harm."""

from __future__ import annotations

import base64
import json
import math
import random
import time
from typing import Any

import msgspec
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from flowerbed.collector import events
from flowerbed.collector.events import DecodeError, Event, decode

HOSTILE = 100_000
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


def refused(payload: bytes) -> DecodeError:
    with pytest.raises(DecodeError) as caught:
        decode(payload)
    return caught.value


def check(event: Event, before: float) -> None:
    """What is promised of every event."""
    # of the declared types and within the declared limits
    plain = msgspec.to_builtins(event)
    assert msgspec.convert(plain, Event) == event
    assert event.type
    assert event.uuid or not event.type.startswith("task-")
    assert event.hostname or not event.type.startswith("worker-") or event.uuid
    assert before <= event.local_received <= time.time()
    assert 0 < event.timestamp <= events.LAST_SECOND
    for value in plain.values():
        for one in value if isinstance(value, list) else [value]:
            assert not isinstance(one, float) or math.isfinite(one)
            if isinstance(one, str):
                assert "\0" not in one
                one.encode("utf-8")


# ---------------------------------------------------------------------- what Celery sends


@pytest.mark.parametrize("item", GOOD, ids=lambda item: item["type"])
def test_every_field_arrives(item: dict[str, Any]) -> None:
    for payload in (envelope(item), json.dumps(item).encode()):
        (event,) = decode(payload)
        assert {name: getattr(event, name) for name in item} == item
        assert event.local_received == pytest.approx(time.time(), abs=5)


def test_a_batch_keeps_its_order() -> None:
    for payload in (envelope(GOOD), json.dumps(GOOD).encode()):
        assert [event.type for event in decode(payload)] == [item["type"] for item in GOOD]
    assert decode(envelope([])) == []


@pytest.mark.parametrize("item", GOOD, ids=lambda item: item["type"])
def test_the_slow_way_gives_the_same(item: dict[str, Any]) -> None:
    (fast,), (slow,) = decode(json.dumps(item).encode()), events._decode_slowly(json.dumps(item).encode())
    slow.local_received = fast.local_received
    assert fast == slow


def test_unknown_fields_are_left_out() -> None:
    (event,) = decode(envelope({**SUCCEEDED, "more": {"deep": [1, {"x": None}]}, "local_received": 5}))
    assert event.uuid == "1-2"
    assert event.local_received > NOW - 10**9 and event.local_received != 5


def test_an_events_own_body_is_no_envelope() -> None:
    (event,) = decode(json.dumps({"body": "text", **COMMON, "type": "task-custom"}).encode())
    assert event.type == "task-custom"


def test_envelopes_of_other_senders() -> None:
    """Keys in another order, and a body that is not base64."""
    whole = json.loads(envelope(SUCCEEDED))
    (event,) = decode(json.dumps(dict(reversed(whole.items()))).encode())
    assert event.runtime == 0.25
    (event,) = decode(envelope(SUCCEEDED, body=json.dumps(SUCCEEDED), properties={}))
    assert event.runtime == 0.25
    (event,) = decode(envelope(SUCCEEDED, **{"content-type": None}))
    assert event.runtime == 0.25


# ---------------------------------------------------------------------- wrong values


@pytest.mark.parametrize(
    ("field", "value", "kept"),
    [
        ("runtime", "fast", None),
        ("runtime", math.nan, None),
        ("runtime", math.inf, None),
        ("runtime", 1e300, None),
        ("runtime", True, None),
        ("runtime", 3, 3.0),
        ("retries", 10**30, None),
        ("retries", 1.5, None),
        ("retries", True, None),
        ("clock", None, 0),
        ("utcoffset", "x", 0),
        ("name", ["shop.add"], None),
        ("name", "n" * 300, "n" * 255),
        ("args", {"a": 1}, None),
        ("args", "a" * 70000, "a" * 65536),
        ("result", "a\0b", "a\ufffdb"),
        ("result", "half \ud83d", "half \ufffd"),
        ("result", "whole \U0001f33b\0", "whole \U0001f33b\ufffd"),
        ("exception", 5, None),
        ("hostname", None, ""),
        ("signum", "SIGTERM", "SIGTERM"),
        ("signum", 1.5, None),
        ("terminated", 1, None),
        ("loadavg", [1, "x", 2], None),
        ("loadavg", [0.0] * 9, None),
        ("loadavg", [math.nan], None),
    ],
)
def test_a_wrong_field_costs_only_itself(field: str, value: Any, kept: Any) -> None:
    (event,) = decode(envelope({**COMMON, "type": "task-failed", field: value}))
    assert getattr(event, field) == kept
    assert event.uuid == "1-2" and event.timestamp == NOW
    check(event, NOW - 10**9)


@pytest.mark.parametrize("value", [None, "yesterday", -1, 0, 1e12, 1e300, math.nan, 10**400, [], True])
def test_an_impossible_time_is_ours(value: Any) -> None:
    before = time.time()
    (event,) = decode(envelope({**SUCCEEDED, "timestamp": value}))
    assert event.timestamp == event.local_received >= before


@pytest.mark.parametrize(
    ("payload", "reason"),
    [
        (b"", "json"),
        (b"\x80\x04K\x01.", "json"),
        (envelope(SUCCEEDED)[:-20], "json"),
        (b'{"body": "e30=", ', "json"),
        (b"[" * 100_000, "json"),
        (b'{"type": "a", "x": ' + b"[" * 100_000, "json"),
        (envelope(b'{"a":' * 100_000), "json"),
        (envelope(b"\xff\xfe"), "json"),
        (envelope(b"1" * 10_000), "json"),
        (b"5", "shape"),
        (b'"text"', "shape"),
        (b"null", "shape"),
        (envelope([[]]), "shape"),
        (envelope("text"), "shape"),
        (envelope({}), "type"),
        (envelope({**COMMON, "type": ""}), "type"),
        (envelope({**COMMON, "type": 5}), "type"),
        (envelope({**COMMON, "type": "t" * 300}), "type"),
        (envelope({"type": "task-started"}), "uuid"),
        (envelope({**COMMON, "type": "task-started", "uuid": ""}), "uuid"),
        (envelope({**COMMON, "type": "task-started", "uuid": 5}), "uuid"),
        (envelope({**COMMON, "type": "task-started", "uuid": "u" * 300}), "uuid"),
        (envelope({"type": "worker-online"}), "hostname"),
        (envelope({"type": "worker-online", "hostname": {}}), "hostname"),
        (envelope(SUCCEEDED, body="e30"), "base64"),
        (envelope(SUCCEEDED, body="%%%%="), "base64"),
        (envelope(SUCCEEDED, body=5), "envelope"),
        (envelope(SUCCEEDED, body=None), "envelope"),
        (envelope(SUCCEEDED, properties=[]), "envelope"),
        (envelope(SUCCEEDED, **{"content-type": "application/x-python-serialize"}), "content_type"),
        (envelope(SUCCEEDED, **{"content-type": {"a": 1}}), "content_type"),
        (b" " * (events.LONGEST_PAYLOAD + 1), "size"),
        (b"[" + b"{}," * events.LARGEST_BATCH + b"{}]", "size"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_is_refused_and_why(payload: bytes, reason: str) -> None:
    error = refused(payload)
    assert (error.reason, error.events) == (reason, [])
    assert reason in events.REASONS


def test_the_good_events_of_a_bad_batch_stay() -> None:
    error = refused(envelope([RECEIVED, {"type": "task-started"}, 5, SUCCEEDED]))
    assert (error.reason, error.count) == ("uuid", 2)
    assert [event.type for event in error.events] == ["task-received", "task-succeeded"]


# ---------------------------------------------------------------------- anything

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=8,
)
FIELD_NAMES = [field.name for field in msgspec.structs.fields(Event)]
ITEM = st.dictionaries(st.sampled_from(FIELD_NAMES), JSON | st.text(), max_size=12)
TYPED = st.builds(
    lambda item, kind: {**item, "type": kind}, ITEM, st.sampled_from(["task-sent", "task-failed", "worker-online", "x"])
)


def survive(payload: bytes) -> None:
    before = time.time()
    try:
        found = decode(payload)
    except DecodeError as error:
        assert error.reason in events.REASONS and error.count >= 1
        found = error.events
    for event in found:
        check(event, before)


@settings(max_examples=300, deadline=None)
@given(JSON | TYPED | st.lists(TYPED, max_size=4))
@example([{"type": "task-x", "uuid": "\ud800"}])
@example({"type": "\0", "uuid": "\0"})
def test_any_json(body: Any) -> None:
    for payload in (envelope(body), json.dumps(body).encode()):
        survive(payload)


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=200))
def test_any_bytes(raw: bytes) -> None:
    for payload in (raw, envelope(raw), b'{"body"' + raw):
        survive(payload)


def test_a_hundred_thousand_hostile_messages() -> None:
    """Real messages that are cut, bent, nested, swollen and mixed up; none takes long."""
    chosen = random.Random(4)
    whole = [envelope(item) for item in GOOD] + [envelope(GOOD)] + [json.dumps(item).encode() for item in GOOD]
    values: list[Any] = [
        None, True, -1, 0, 2**63, -(2**63), 10**40, 1e308, math.nan, -math.inf, "", "\0", "\ud800", "x" * 1000,
        [], [[]], {}, {"a": {}}, [None] * 20, "é\U0001f33b", "__proto__", "%s%n", "'; DROP TABLE tasks; --",
    ]  # fmt: skip
    names = [*FIELD_NAMES, "body", "properties", "content-type"]
    slowest, refusals = 0.0, 0

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
    for number in range(HOSTILE):
        payload = nested() if number % 500 == 0 else chosen.choice(makers)()
        started = time.thread_time()
        before = time.time()
        try:
            found = decode(payload)
        except DecodeError as error:
            found = error.events
            refusals += error.count
            assert error.reason in events.REASONS
        slowest = max(slowest, time.thread_time() - started)
        # the check itself is dear
        if number % 20 == 0:
            for event in found:
                check(event, before)
    assert HOSTILE / 10 < refusals < HOSTILE
    assert slowest < 0.2, "one message held up all others"
