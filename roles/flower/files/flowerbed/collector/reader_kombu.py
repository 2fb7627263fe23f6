"""Reads events by kombu, for RabbitMQ and every transport that has no way of its own.

The queue is ours alone and bounded.  On RabbitMQ it outlives a short absence, so that a restart loses nothing.
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


def read(
    connection: Any,
    queue: Any,
    on_payloads: OnPayloads,
    stats: Stats,
    on_connected: Callable[[], None],
    stop: threading.Event,
) -> None:
    """Consumes the queue until `stop`; raises what kombu and the transport raise."""
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

    beats = connection.supports_heartbeats and connection.heartbeat
    looked = time.monotonic()
    with _kombu.Consumer(connection.channel(), [queue], on_message=on_message, no_ack=True, auto_declare=True):
        on_connected()
        while not stop.is_set():
            try:
                connection.drain_events(timeout=TURN_SECONDS if not payloads else 0.001)
            except TimeoutError:
                hand_over()
            if (now := time.monotonic()) - looked > HEARTBEAT_LOOK_SECONDS:
                looked = now
                if beats:
                    connection.heartbeat_check()
                stats.last_alive = time.time()
        hand_over()
