"""Reads Celery's events from the broker, for ever, and hands them over as they came: bytes, not decoded.

The reader waits for nothing but the socket: who gets the payloads must take them at once.  Two ways lead to the broker:
Redis' own (reader_redis.py), and kombu's for every other transport (reader_kombu.py).
"""

from __future__ import annotations

import logging
import random
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import kombu

from flowerbed.broker import as_list, celery_settings, keepalive
from flowerbed.collector import reader_kombu, reader_redis
from flowerbed.settings import SettingsError

#: takes payloads in the order they came in; called in the reader's thread
OnPayloads = Callable[[list[bytes]], None]

#: seconds until the first attempt to come back, and the most between attempts while the broker is merely away: workers
#: send what they kept as soon as they have it again, and whoever subscribes later misses that
FIRST_WAIT, LONGEST_WAIT_AWAY = 0.05, 2.0
#: seconds after which a subscription counts as one that stands, so that the waits begin anew
STEADY_SECONDS = 1
#: seconds within which a broker must take a connection
CONNECT_SECONDS = 5
#: seconds that closing a connection may take
CLOSE_SECONDS = 1
#: seconds between heartbeats on AMQP, which notice that the broker went away without a word
HEARTBEAT_SECONDS = 20
#: errors that do not go away by themselves, by the names of their classes in redis-py and py-amqp
REFUSALS = frozenset(
    ("AuthenticationError", "AuthorizationError", "NoPermissionError", "AccessRefused", "NotAllowed", "InvalidResponse")
)

logger = logging.getLogger(__name__)
#: its types are half there
_kombu: Any = kombu


@dataclass(frozen=True)
class Gap:
    """A time in which nothing could be read; both ends are seconds since 1970."""

    start: float
    end: float


@dataclass
class Stats:
    """How the reader is; written by its thread only, and read by any."""

    #: "redis" or "kombu": the way that is in use, "" before the first connection
    path: str = ""
    payloads: int = 0
    bytes: int = 0
    #: times that the subscription stood, and attempts that failed
    connects: int = 0
    failures: int = 0
    #: when the subscription that stands now began; None while there is none
    connected_since: float | None = None
    #: when a payload came, and when the broker last said anything (answers and heartbeats too); seconds since 1970
    last_read: float | None = None
    last_alive: float | None = None
    #: the latter by the monotonic clock, which nobody sets
    alive: float | None = None
    #: why there is, or last was, no subscription; one line without secrets
    last_error: str = ""
    #: seconds without a subscription, since the reader first had one; a gap that lasts is not in it yet
    away_seconds: float = 0.0
    #: the last gaps, ended ones only
    gaps: deque[Gap] = field(default_factory=lambda: deque(maxlen=100))

    @property
    def reconnects(self) -> int:
        """Times that the subscription stood again."""
        return max(0, self.connects - 1)

    def received(self, payloads: int, size: int) -> None:
        """Counts what came in one read; `size` in bytes."""
        self.bytes += size
        now = self.says_something()
        if payloads:
            self.payloads += payloads
            self.last_read = now

    def says_something(self) -> float:
        """The broker gave a sign of life; gives the time, in seconds since 1970."""
        self.last_alive, self.alive = time.time(), time.monotonic()
        return self.last_alive


class Reader:
    """Keeps a subscription to Celery's events and hands over what comes.

    `connection` makes a kombu connection, see `connections` below; an application has `app.connection_for_read`.
    `max_wait` is the most between two attempts while the broker refuses us, in seconds.
    """

    def __init__(
        self,
        connection: Callable[[], Any],
        on_payloads: OnPayloads,
        *,
        exchange: str = "celeryev",
        queue: str = "",
        max_wait: float = 30,
        safe: Callable[[], int] | None = None,
    ) -> None:
        self.connection = connection
        self.on_payloads = on_payloads
        self.exchange = exchange
        #: name of the queue on AMQP, which must be this reader's alone; see reader_kombu.queue_for
        self.queue = queue
        self.max_wait = max_wait
        #: how many payloads are written, of all that were handed over; see reader_kombu.read
        self.safe = safe
        self.stats = Stats()
        #: since when there is no subscription, and since when there is this one; by the monotonic clock
        self._lost_since: float | None = None
        self._stands_since = 0.0
        self._kombu_only = False

    def run(self, stop: threading.Event) -> None:
        """Reads until `stop` is set; no error ends it."""
        attempt = 0
        while not stop.is_set():
            connects = self.stats.connects
            connection = None
            try:
                connection = self.connection()
                for _ in range(attempt):
                    # the next of several hosts; the first again after the last
                    connection.maybe_switch_next()
                self._read(connection, stop)
            except Exception as error:  # noqa: BLE001  # whatever it is, the next attempt may do better
                stood = self.stats.connects > connects and self._stood_seconds() > STEADY_SECONDS
                attempt = 0 if stood else attempt + 1
                self._failed(error, connection, stop, attempt)
            finally:
                self._disconnected()
                _release(connection)

    def _read(self, connection: Any, stop: threading.Event) -> None:
        """One subscription, until it breaks or the reader is stopped."""
        if not self._kombu_only and reader_redis.fits(connection):
            self.stats.path = "redis"
            try:
                reader_redis.read(connection, self.exchange, self.on_payloads, self.stats, self._connected, stop)
            except reader_redis.UnknownKombuError as error:
                logger.warning("Events are read the slow way: %s.", error)
                self._kombu_only = True
        else:
            self.stats.path = "kombu"
            queue = reader_kombu.queue_for(connection, self.exchange, self.queue)
            reader_kombu.read(connection, queue, self.on_payloads, self.stats, self._connected, stop, self.safe)

    def _connected(self) -> None:
        """Called when the broker has confirmed the subscription."""
        stats = self.stats
        now = stats.says_something()
        stats.connects += 1
        stats.connected_since, self._stands_since = now, time.monotonic()
        if self._lost_since is None:
            logger.info("Reading events.")
            return
        # by the monotonic clock: the other one may have been set meanwhile
        seconds = time.monotonic() - self._lost_since
        stats.gaps.append(Gap(now - seconds, now))
        self._lost_since = None
        stats.away_seconds += seconds
        logger.warning("Reading events again; what was sent within %.1f seconds may be lost.", seconds)

    def _stood_seconds(self) -> float:
        return 0 if self.stats.connected_since is None else time.monotonic() - self._stands_since

    def _disconnected(self) -> None:
        """The subscription is gone: from the last sign of life on, events may be missing."""
        stats = self.stats
        if stats.connected_since is not None:
            self._lost_since = stats.alive
            stats.connected_since = None

    def _failed(self, error: Exception, connection: Any | None, stop: threading.Event, attempt: int) -> None:
        stats = self.stats
        stats.failures += 1
        text = told(error, connection)
        seconds = wait_seconds(attempt, self.max_wait if is_refusal(error) else min(self.max_wait, LONGEST_WAIT_AWAY))
        if text != stats.last_error or stats.connected_since is not None:
            logger.warning("Events cannot be read: %s. Trying again, every %.0f s at most.", text, self.max_wait)
        stats.last_error = text
        self._disconnected()
        stop.wait(seconds)


def connections(celery: dict[str, Any]) -> Callable[[], Any]:
    """What makes kombu connections, from the credentials' broker_url, broker_transport_options and broker_use_ssl.

    A list of URLs is a broker with several hosts; each connection begins with the first.
    """
    settings = celery_settings(celery)
    urls = as_list(settings.get("broker_url"))
    if not urls:
        raise SettingsError("The credentials hold no broker_url, so that there is nothing to read events from.")
    given = dict(settings.get("broker_transport_options") or {})
    options = {**keepalive(urls), "socket_connect_timeout": CONNECT_SECONDS, **given}

    def connect() -> Any:
        is_redis = urls[0].startswith(("redis", "sentinel", "socket"))
        return _kombu.Connection(
            urls,
            ssl=settings.get("broker_use_ssl"),
            transport_options=options if is_redis else given,
            connect_timeout=CONNECT_SECONDS,
            heartbeat=HEARTBEAT_SECONDS,
        )

    return connect


def keep_enabled(app: Any, stop: threading.Event, every: float = 60) -> None:
    """Asks all workers again and again to send events, for those that were started without -E; `every` in seconds.

    Runs in a thread of its own until `stop`: a broadcast may take a while when the broker is away.
    """
    while not stop.is_set():
        try:
            with app.connection_for_write() as connection:
                app.control.enable_events(connection=connection)
        except Exception as error:  # noqa: BLE001  # the reader says what is wrong with the broker
            logger.debug("Workers were not asked for events: %s", type(error).__name__)
        stop.wait(every)


def wait_seconds(attempt: int, longest: float) -> float:
    """How long to wait before the next attempt: doubled each time, capped, and never the same for two readers."""
    return min(longest, FIRST_WAIT * 2.0 ** min(attempt, 20)) * random.uniform(0.5, 1)  # noqa: S311  # no secret


def is_refusal(error: BaseException) -> bool:
    """Whether the broker is there and does not want us: wrong password, no permission, no such virtual host."""
    return any(kind.__name__ in REFUSALS for kind in type(error).__mro__)


def told(error: Exception, connection: Any | None) -> str:
    """An error in one line, without the broker's password."""
    text = " ".join(f"{type(error).__name__}: {error}".split())
    for secret in _passwords(connection):
        text = text.replace(secret, "***")
    return text[:300].rstrip(".: ")


def _passwords(connection: Any | None) -> list[str]:
    if connection is None:
        return []
    found = [connection.password]
    # the sentinels', and the other hosts' of a list
    options = connection.transport_options or {}
    found.append((options.get("sentinel_kwargs") or {}).get("password"))
    found += [url.rpartition("@")[0].rpartition("://")[2].partition(":")[2] for url in connection.alt or ()]
    return sorted({str(word) for word in found if word}, key=len, reverse=True)


def _release(connection: Any | None) -> None:
    if connection is None:
        return
    try:
        # a broker that is gone does not answer a good-bye
        connection.collect(CLOSE_SECONDS)
    except Exception as error:  # noqa: BLE001  # it is gone in any case
        logger.debug("The connection did not close well: %s", type(error).__name__)
