"""Celery's events are read whole, and nothing that anybody can send does harm."""

from __future__ import annotations

import json
import math
import time
from typing import Any

import msgspec
import pytest
from hostile import (
    COMMON,
    FIELD_NAMES,
    GOOD,
    NOW,
    RECEIVED,
    SUCCEEDED,
    envelope,
    hostile,
)
from hypothesis import example, given, settings
from hypothesis import strategies as st

from flowerbed.collector import events
from flowerbed.collector.events import DecodeError, Event, decode

HOSTILE = 100_000


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
    slowest, refusals = 0.0, 0

    for number, payload in enumerate(hostile(HOSTILE)):
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
