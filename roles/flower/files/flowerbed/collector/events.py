"""Celery's events from the wire: what of them the collector keeps, and a decoder that nothing hostile can hurt.

An event is what Celery's dispatcher publishes (celery/events/event.py); which type carries which fields is in
celery/worker/request.py, worker/strategy.py, worker/heartbeat.py and app/amqp.py.  Everything here may come from
anybody who can reach the broker.
"""

from __future__ import annotations

import base64
import json
import math
import time
import typing
from types import NoneType, UnionType
from typing import Annotated, Any

import msgspec
from msgspec import Meta

#: the most of an id, a host name or the name of a task, a queue or a type, in characters
LONGEST_NAME = 255
#: the most of any other text, in characters; Celery cuts arguments and results at 1 kB, tracebacks nowhere
LONGEST_TEXT = 65536
#: the last second that datetime knows, 9999-12-31
LAST_SECOND = 253402300799
#: what both databases take for a whole number
LARGEST = 2**63 - 1
#: the most of a payload, in bytes, and of the events in it; Celery's dispatcher sends batches of up to 24
LONGEST_PAYLOAD = 8 * 2**20
LARGEST_BATCH = 10_000
#: the most of a list in an event: loadavg has three
LONGEST_LIST = 8
#: every reason a payload or an event can be refused for: few, since they become the values of a label
REASONS = (
    "size",  # more than LONGEST_PAYLOAD or LARGEST_BATCH
    "envelope",  # JSON with a body that is not kombu's
    "base64",  # a body that says it is base64 and is not
    "content_type",  # pickle, YAML, … are never read
    "json",
    "shape",  # JSON, but no event and no list of them
    "type",  # no type, or none that is a short text
    "uuid",  # a task's event without an id, or with one that is too long: cut, two ids could become one
    "hostname",  # a worker's event without a usable name
    "unexpected",  # an error of ours while it was taken in
)

Name = Annotated[str, Meta(max_length=LONGEST_NAME)]
Text = Annotated[str, Meta(max_length=LONGEST_TEXT)]
Seconds = Annotated[float, Meta(ge=0, le=LAST_SECOND)]
Duration = Annotated[float, Meta(ge=-LAST_SECOND, le=LAST_SECOND)]
Whole = Annotated[int, Meta(ge=-LARGEST, le=LARGEST)]


class Event(msgspec.Struct, kw_only=True, gc=False):
    """One event; what its type does not carry is None.

    Sure of every event: `type` is not empty, task events have a `uuid`, worker events a `hostname`; times are within
    what datetime can show, whole numbers within 64 bits, durations finite; no text holds a NUL or half a surrogate.
    """

    #: `task-received`, `worker-heartbeat`, … or a type of the application's own
    type: Annotated[str, Meta(min_length=1, max_length=LONGEST_NAME)]
    #: the task's id; "" for events that are not a task's
    uuid: Name = ""
    #: full node name of the worker, `celery@host`; of task-sent the producer's, `gen1234@host`; "" when missing
    hostname: Name = ""
    #: when it happened, by the sender's clock: seconds since 1970; `local_received` when missing or impossible
    timestamp: Seconds = 0.0
    #: the sender's offset from UTC in whole hours, west is positive (time.timezone); `timestamp` is UTC without it
    utcoffset: Whole = 0
    #: Celery's logical clock
    clock: Whole = 0
    #: when it came here, by our clock; never what the wire says
    local_received: float = 0.0
    #: of the process that sent it
    pid: Whole | None = None

    # task-sent and task-received
    name: Name | None = None
    args: Text | None = None
    kwargs: Text | None = None
    retries: Whole | None = None
    #: ISO 8601
    eta: Name | None = None
    expires: Name | None = None
    root_id: Name | None = None
    parent_id: Name | None = None
    #: Celery 5.7 sends none; other senders may
    group_id: Name | None = None
    # task-sent only
    queue: Name | None = None
    exchange: Name | None = None
    routing_key: Name | None = None

    # how it ended
    result: Text | None = None
    #: seconds
    runtime: Duration | None = None
    exception: Text | None = None
    traceback: Text | None = None
    # task-revoked
    terminated: bool | None = None
    #: number of the signal; some senders give its name, which is kept as text
    signum: Whole | Name | None = None
    expired: bool | None = None
    # task-rejected
    requeue: bool | None = None

    # workers
    #: seconds between two heartbeats
    freq: Duration | None = None
    #: tasks that run now, and tasks done since the start
    active: Whole | None = None
    processed: Whole | None = None
    #: of 1, 5 and 15 minutes
    loadavg: Annotated[list[Duration], Meta(max_length=LONGEST_LIST)] | None = None
    #: software and its version, and the operating system: `py-celery`, `5.7.0`, `Linux`
    sw_ident: Name | None = None
    sw_ver: Name | None = None
    sw_sys: Name | None = None


class DecodeError(ValueError):
    """A payload is not, or not altogether, what Celery sends.

    `reason` is one of REASONS (of the first one, where several events were refused), `count` the number of events that
    were refused, and `events` holds those of the same batch that were good.
    """

    def __init__(self, reason: str, count: int = 1, events: list[Event] | None = None) -> None:
        super().__init__(reason)
        self.reason = reason
        self.count = count
        self.events = events or []


class _Properties(msgspec.Struct):
    body_encoding: str | None = None


class _Envelope(msgspec.Struct, rename={"content_type": "content-type"}):
    """kombu's envelope (kombu/transport/virtual/base.py); msgspec turns base64 into bytes."""

    body: bytes
    properties: _Properties
    content_type: str | None = None


_decode_envelope = msgspec.json.Decoder(_Envelope).decode
_decode_events = msgspec.json.Decoder(Event | Annotated[list[Event], Meta(max_length=LARGEST_BATCH)]).decode


def decode(payload: bytes) -> list[Event]:
    """The events of a payload: kombu's envelope (Redis), or the bare body of a message (AMQP).

    Raises DecodeError, and nothing else.  A field of a wrong type, or out of range, is None or its default, a text
    that is too long is cut; only without a type, a task's id or a worker's name is an event refused.
    """
    if len(payload) > LONGEST_PAYLOAD:
        raise DecodeError("size")
    body = _body(payload)
    # what the databases cannot store is rare enough for the slow way
    if b"\\" in body and b"\\u0000" in body:
        return _decode_slowly(body)
    try:
        decoded = _decode_events(body)
    except (ValueError, RecursionError):
        return _decode_slowly(body)
    events = decoded if type(decoded) is list else [decoded]
    now = time.time()
    for event in events:
        event.local_received = now
        if not event.timestamp:
            event.timestamp = now
        if not event.uuid and _problem(event):
            return _decode_slowly(body)
    return events


def _body(payload: bytes) -> bytes:
    """What is in the envelope; the payload itself where there is none."""
    if payload[:7] != b'{"body"' and not _is_envelope(payload):
        return payload
    try:
        envelope = _decode_envelope(payload)
    except (ValueError, RecursionError):
        return _body_slowly(payload)
    if envelope.properties.body_encoding != "base64":
        return _body_slowly(payload)
    _check_content_type(envelope.content_type)
    return envelope.body


def _is_envelope(payload: bytes) -> bool:
    """Whether a payload that does not begin as kombu's do is an envelope all the same: others may order its keys."""
    if b'"body"' not in payload or payload[:1] == b"[":
        return False
    found = _loads(payload)
    return isinstance(found, dict) and "body" in found and "type" not in found


def _body_slowly(payload: bytes) -> bytes:
    """For envelopes that are not quite kombu's; raises DecodeError where there is nothing to be had."""
    envelope = _loads(payload)
    if not isinstance(envelope, dict):
        raise DecodeError("shape")
    if "type" in envelope:
        # an event of somebody's own that has a field `body`
        return payload
    body, properties = envelope.get("body"), envelope.get("properties")
    _check_content_type(envelope.get("content-type"))
    if not isinstance(body, str) or not isinstance(properties, dict):
        raise DecodeError("envelope")
    if properties.get("body_encoding") != "base64":
        return body.encode("utf-8", "replace")
    try:
        return base64.b64decode(body, validate=True)
    except ValueError:
        raise DecodeError("base64") from None


def _check_content_type(content_type: Any) -> None:
    if content_type not in (None, "application/json"):
        raise DecodeError("content_type")


def _loads(text: bytes) -> Any:
    """JSON as Python writes it, which knows NaN and halves of surrogates."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        raise DecodeError("json") from None


def _problem(event: Event) -> str | None:
    """Why an event is refused that has no id."""
    if event.type.startswith("task-"):
        return "uuid"
    return "hostname" if event.type.startswith("worker-") and not event.hostname else None


# ---------------------------------------------------------------------- the slow way, field by field


def _decode_slowly(body: bytes) -> list[Event]:
    """The same for bodies that hold something wrong: each event and each field by itself."""
    found = _loads(body)
    items = found if isinstance(found, list) else [found]
    if len(items) > LARGEST_BATCH:
        raise DecodeError("size")
    events, reasons = [], []
    now = time.time()
    for item in items:
        try:
            events.append(_event(item, now))
        except DecodeError as error:
            reasons.append(error.reason)
    if reasons:
        raise DecodeError(reasons[0], len(reasons), events)
    return events


def _event(item: Any, now: float) -> Event:
    if not isinstance(item, dict):
        raise DecodeError("shape")
    if not isinstance(item.get("type"), str) or not 0 < len(item["type"]) <= LONGEST_NAME:
        raise DecodeError("type")
    if isinstance(item.get("uuid"), str) and len(item["uuid"]) > LONGEST_NAME:
        raise DecodeError("uuid")
    fitting = ((name, _fitting(item[name], kinds, longest)) for name, kinds, longest in _FIELDS if name in item)
    event = Event(**{name: value for name, value in fitting if value is not None})
    event.local_received = now
    if not 0 < event.timestamp <= LAST_SECOND:
        event.timestamp = now
    if not event.uuid and (reason := _problem(event)):
        raise DecodeError(reason)
    return event


def _fitting(value: Any, kinds: tuple[type, ...], longest: int) -> Any:
    """The value as a field can hold it; None where it cannot."""
    kind = type(value)
    if kind is int and int not in kinds and float in kinds:
        kind, value = float, float(value) if abs(value) <= LAST_SECOND else math.nan
    if kind not in kinds:
        return None
    if kind is str:
        return _storable(value[:longest])
    if kind is int:
        return value if abs(value) <= LARGEST else None
    if kind is float:
        return value if abs(value) <= LAST_SECOND else None
    if kind is list:
        return (
            value
            if len(value) <= LONGEST_LIST and all(_fitting(one, (float,), 0) is not None for one in value)
            else None
        )
    return value


def _storable(text: str) -> str:
    """Without what neither UTF-8 nor PostgreSQL can hold."""
    return text.replace("\0", "\ufffd").encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def _fields() -> list[tuple[str, tuple[type, ...], int]]:
    """Name, classes and longest text of every field that comes over the wire."""
    found = []
    for name, hint in typing.get_type_hints(Event).items():
        kinds = (
            typing.get_args(hint) if isinstance(hint, UnionType) or typing.get_origin(hint) is typing.Union else (hint,)
        )
        classes = tuple(typing.get_origin(kind) or kind for kind in kinds if kind is not NoneType)
        longest = LONGEST_TEXT if name in ("args", "kwargs", "result", "exception", "traceback") else LONGEST_NAME
        if name != "local_received":
            found.append((name, classes, longest))
    return found


_FIELDS = _fields()
