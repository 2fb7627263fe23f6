"""Reads events by kombu, for RabbitMQ and every transport that has no way of its own.

The queue is ours alone and bounded.  On RabbitMQ it outlives a short absence, so that a restart loses nothing: messages
are acknowledged when what they told is written, and what was not comes again.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import kombu
from kombu.utils.uuid import uuid

if TYPE_CHECKING:
    from flowerbed.collector.reader import OnPayloads, Stats

#: what the broker keeps for us at most: messages, bytes, and seconds after we were last there
QUEUE_LENGTH, QUEUE_BYTES, QUEUE_SECONDS = 200_000, 256 * 2**20, 600
#: seconds that one turn may wait, so that a stop is seen
TURN_SECONDS = 0.5
#: seconds between looks at the heartbeat; kombu wants at least two within its interval
HEARTBEAT_LOOK_SECONDS = 5
#: messages to gather before they are handed over
GATHER = 500
#: messages that may wait to be written; while a database is away what is beyond is acknowledged all the same, kept in
#: memory only, and reading goes on
MOST_UNACKED = 20_000
#: seconds between two looks at what is written while something is not, and that the last of it is waited for at the end
WRITTEN_SECONDS, FAREWELL_SECONDS = 0.02, 5.0
#: its types are half there
_kombu: Any = kombu


def queue_for(connection: Any, exchange: str, name: str = "") -> Any:
    """The queue of events; without a name one that nobody else has and that ends with the connection."""
    from celery.events.event import get_exchange  # noqa: PLC0415  # acts when imported

    bound = get_exchange(connection, name=exchange)
    if connection.transport.driver_type != "amqp":
        # the others know neither limits nor expiry, or pay for them
        return _kombu.Queue(name or f"{exchange}.{uuid()}", bound, routing_key="#", auto_delete=True, durable=False)
    return _kombu.Queue(
        name or f"{exchange}.{uuid()}",
        bound,
        routing_key="#",
        # a durable queue, since RabbitMQ 4 wants no others; events themselves are not written to its disk
        durable=bool(name),
        exclusive=not name,
        auto_delete=not name,
        expires=QUEUE_SECONDS,
        max_length=QUEUE_LENGTH,
        max_length_bytes=QUEUE_BYTES,
    )


class _Acknowledging:
    """Tells the broker which messages need not come again.

    `safe` gives how many payloads of all that were ever handed over are written, `before` how many were handed over
    before this channel was there: on a channel messages are numbered from 1, in the order in which they come.
    """

    def __init__(self, channel: Any, before: int, safe: Callable[[], int]) -> None:
        self._channel = channel
        self._before = before
        self._safe = safe
        self._told = 0

    def look(self, handed: int, most: int = MOST_UNACKED) -> bool:
        """Acknowledges what is written, and all but the last `most` of those handed over; True when none is left."""
        number = max(self._safe(), handed - most) - self._before
        if number > self._told:
            self._channel.basic_ack(number, multiple=True)
            self._told = number
        return self._told >= handed - self._before


def read(
    connection: Any,
    queue: Any,
    on_payloads: OnPayloads,
    stats: Stats,
    on_connected: Callable[[], None],
    stop: threading.Event,
    safe: Callable[[], int] | None = None,
) -> None:
    """Consumes the queue until `stop`; raises what kombu and the transport raise.

    `safe` gives how many payloads of all that were ever handed over are written; without it, or when the queue ends
    with the connection, messages are acknowledged as they come.
    """
    payloads: list[bytes] = []

    def on_message(message: Any) -> None:
        body = message.body
        payloads.append(body if isinstance(body, bytes) else str(body).encode("utf-8", "replace"))
        if len(payloads) >= GATHER:
            hand_over()

    def hand_over() -> None:
        if payloads:
            stats.received(len(payloads), sum(map(len, payloads)))
            on_payloads(payloads.copy())
            payloads.clear()

    channel = connection.channel()
    keeps = connection.transport.driver_type == "amqp" and not queue.exclusive
    unsaved = _Acknowledging(channel, stats.payloads, safe) if safe and keeps else None
    beats = connection.supports_heartbeats and connection.heartbeat
    looked = time.monotonic()
    nothing_left = True
    consumer = _kombu.Consumer(channel, [queue], on_message=on_message, no_ack=unsaved is None, auto_declare=True)
    try:
        with consumer:
            on_connected()
            while not stop.is_set():
                try:
                    connection.drain_events(timeout=_patience(bool(payloads), nothing_left))
                except TimeoutError:
                    hand_over()
                if unsaved is not None:
                    nothing_left = unsaved.look(stats.payloads)
                if (now := time.monotonic()) - looked > HEARTBEAT_LOOK_SECONDS:
                    looked = now
                    if beats:
                        connection.heartbeat_check()
                    stats.says_something()
    finally:
        # also what came until the broker had confirmed the end, or the connection broke
        hand_over()
    end = time.monotonic() + FAREWELL_SECONDS
    while unsaved is not None and not unsaved.look(stats.payloads, stats.payloads) and time.monotonic() < end:
        time.sleep(WRITTEN_SECONDS)


def _patience(has_some: bool, nothing_left: bool) -> float:
    """Seconds to wait for the next message."""
    if has_some:
        return 0.001
    return TURN_SECONDS if nothing_left else WRITTEN_SECONDS
