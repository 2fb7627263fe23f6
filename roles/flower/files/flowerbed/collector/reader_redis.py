"""Reads events from Redis: kombu and redis-py connect, and then only hiredis is between the socket and the payloads.

On Redis the exchange of events is PUBLISH to `<global_keyprefix>/<db>.celeryev/<routing key>`.  Reading the socket
ourselves costs a third of what redis-py's pub/sub does, and lets us bound the length of a message.
"""

from __future__ import annotations

import contextlib
import re
import select
import socket
import threading
import time
import types
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from flowerbed.collector.reader import OnPayloads, Stats

#: bytes of one read; more than the processor's cache likes costs a third
READ_BYTES = 2**16
#: seconds to let events gather when all was read that there was: one turn for many, instead of one for each
GATHER_SECONDS = 0.05
#: seconds of silence after which the broker is asked whether it is there, and seconds it has to answer
QUIET_SECONDS, ANSWER_SECONDS = 10, 10
#: seconds that one read may wait, so that a stop is seen
TURN_SECONDS = 0.5
#: the most of one message, in bytes; what comes in longer is not Celery's, and would only fill the memory
LONGEST_MESSAGE = 32 * 2**20


class UnknownKombuError(Exception):
    """kombu or redis-py have changed: only kombu's own way is left."""


class DeafError(ConnectionError):
    """The broker does not answer, or says what cannot be understood."""


def fits(connection: Any) -> bool:
    """Whether this way can be used; any doubt means kombu's."""
    if connection.transport.driver_type != "redis":
        return False
    try:
        import hiredis  # noqa: F401, PLC0415  # kombu's way works without
        from kombu.transport.redis import Channel  # noqa: PLC0415
    except ImportError:
        return False
    if not issubclass(connection.transport.Channel, Channel):
        return False
    # there every event comes twice, and kombu knows how to tell
    return not (connection.transport_options or {}).get("sentinel_fanout_compat")


def read(
    connection: Any,
    exchange: str,
    on_payloads: OnPayloads,
    stats: Stats,
    on_connected: Callable[[], None],
    stop: threading.Event,
) -> None:
    """Subscribes and reads until `stop`; raises what redis-py, the socket and hiredis raise."""
    redis_connection, pattern = open_subscription(connection, exchange)
    try:
        listen(redis_connection, pattern, on_payloads, stats, on_connected, stop)
    finally:
        with contextlib.suppress(Exception):
            redis_connection.disconnect()


def open_subscription(connection: Any, exchange: str) -> tuple[Any, str]:
    """A connection of redis-py's, signed in, and the pattern to subscribe; what kombu knows is all that it is used for.

    Raises UnknownKombuError when kombu or redis-py are not as they were known, else what redis-py raises.
    """
    try:
        channel = _channel(connection)
        pool = channel.pool
        # the prefix knows the database's number once there is a pool
        name = f"{channel.global_keyprefix}{channel.keyprefix_fanout}{exchange}"
        pattern = escaped(name) + ("/*" if channel.fanout_patterns else "")
        # RESP 3 costs a fifth more for each message, and gives nothing here
        pool.connection_kwargs["protocol"] = 2
        made = pool.make_connection()
        # the reader itself waits and tries again
        made.retry = _no_retry()
    except (AttributeError, TypeError, ImportError) as error:
        raise UnknownKombuError(str(error)) from error
    made.connect()
    if not isinstance(getattr(made, "_sock", None), socket.socket):
        made.disconnect()
        raise UnknownKombuError("redis-py keeps its socket elsewhere")
    return made, pattern


def _channel(connection: Any) -> Any:
    """A channel of kombu's that does not connect: its own PING waits for seconds when the broker is away."""
    transport = connection.transport
    silent = types.SimpleNamespace(ping=lambda: True)
    transport.Channel = type("SilentChannel", (transport.Channel,), {"client": silent})
    return connection.channel()


def listen(
    redis_connection: Any,
    pattern: str,
    on_payloads: OnPayloads,
    stats: Stats,
    on_connected: Callable[[], None],
    stop: threading.Event,
) -> None:
    """Subscribes on a connection and reads it until `stop`."""
    import hiredis  # noqa: PLC0415  # kombu's way works without

    # everything that was answered before has been read by redis-py: from here on the socket is ours
    sock: socket.socket = redis_connection._sock  # kombu uses it as well
    sock.settimeout(TURN_SECONDS)
    replies: Any = hiredis.Reader()
    gets, recv_into = replies.gets, sock.recv_into
    poller = select.poll()
    poller.register(sock, select.POLLIN)
    more_to_read = poller.poll
    buffer = bytearray(READ_BYTES)
    redis_connection.send_command("PSUBSCRIBE", pattern, check_health=False)
    heard, asked, pending, subscribed = time.monotonic(), False, 0, False
    while not stop.is_set():
        try:
            size = recv_into(buffer)
        except TimeoutError:
            silence = time.monotonic() - heard
            if silence > QUIET_SECONDS + ANSWER_SECONDS or (silence > ANSWER_SECONDS and not subscribed):
                raise DeafError(f"no answer within {silence:.0f} seconds") from None
            if silence > QUIET_SECONDS and not asked:
                redis_connection.send_command("PING", check_health=False)
                sock.settimeout(TURN_SECONDS)
                asked = True
            continue
        if not size:
            raise DeafError("the broker closed the connection")
        heard, asked = time.monotonic(), False
        replies.feed(buffer, 0, size)
        payloads: list[bytes] = []
        while (reply := gets()) is not False:
            # ["pmessage", pattern, channel, payload]
            if isinstance(reply, list) and len(reply) == 4:
                payloads.append(reply[3])
            elif not subscribed:
                if isinstance(reply, Exception):
                    raise _as_redis_error(reply)
                if isinstance(reply, list) and reply and reply[0] == b"psubscribe":
                    subscribed = True
                    on_connected()
        stats.received(len(payloads), size)
        if payloads:
            pending = 0
            on_payloads(payloads)
        else:
            pending += size
            if pending > LONGEST_MESSAGE:
                raise DeafError(f"a message of more than {LONGEST_MESSAGE} bytes")
        # a read of TLS brings one record only, however much there is
        if size < READ_BYTES and not more_to_read(0):
            time.sleep(GATHER_SECONDS)


def escaped(text: str) -> str:
    """A text as Redis' patterns want it, so that it stands for itself."""
    return re.sub(r"([\\*?\[\]])", r"\\\1", text)


def _no_retry() -> Any:
    from redis.backoff import NoBackoff  # noqa: PLC0415
    from redis.retry import Retry  # noqa: PLC0415

    return Retry(NoBackoff(), 0)


def _as_redis_error(reply: Exception) -> Exception:
    from redis import exceptions  # noqa: PLC0415

    text = str(reply)
    return exceptions.NoPermissionError(text) if text.startswith("NOPERM") else exceptions.ResponseError(text)
