"""How long Celery's queues are, how long their oldest messages have waited, and who consumes them.

Asked in a thread of its own, never within a scrape: asking workers takes a second, and a broker may not answer at all.
What was told last stays for a while; then it is not told any more, since an old number looks like a true one.

By broker: Redis keeps a queue as a list for each priority, added up here, and what workers hold in one hash for all
queues.  RabbitMQ tells ready messages and consumers by a passive declaration, and what workers hold by the management
API where that is given, some seconds late.  Every other transport of kombu's is asked by a passive declaration.
"""

from __future__ import annotations

import base64
import json
import logging
import ssl
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, unquote, urlsplit

import msgspec
from kombu.exceptions import ChannelError
from redis import Redis

from flowerbed.addresses import bracketed
from flowerbed.metrics import compat, names
from flowerbed.metrics.registry import Labels, Registry, clean
from flowerbed.metrics.workers import Workers

if TYPE_CHECKING:
    from flowerbed.metrics.waiting import Waiting

logger = logging.getLogger(__name__)

#: queues that are asked for, of those that were only seen in events, and of all
MOST_QUEUES, MOST_ASKED = 200, 1000
#: the most of an answer of the management API, in bytes
LARGEST_ANSWER = 16 * 2**20
#: numbers older than this many rounds, and at least so many seconds, are not told
STALE_ROUNDS, STALE_SECONDS = 4, 60.0
#: how an AMQP broker says that there is no such queue
NOT_FOUND = 404


@dataclass(frozen=True)
class Figures:
    """One queue; None is "not told"."""

    length: int | None = None
    unacked: int | None = None
    consumers: int | None = None
    #: id of the task whose message is the oldest
    oldest_id: str | None = None


@dataclass(frozen=True)
class Told:
    """What a broker told in one round."""

    queues: Mapping[str, Figures] = field(default_factory=dict)
    #: of all queues together
    unacked: int | None = None


@dataclass(frozen=True)
class Consumer:
    """What a worker says of itself."""

    queues: tuple[str, ...] = ()
    concurrency: int | None = None
    memory_bytes: int | None = None


# ------------------------------------------------------------------ brokers


class _Headers(msgspec.Struct):
    id: str | None = None


class _Properties(msgspec.Struct):
    correlation_id: str | None = None


class _Message(msgspec.Struct):
    """What is looked at of a message in Redis; its body is passed over."""

    headers: _Headers = msgspec.field(default_factory=_Headers)
    properties: _Properties = msgspec.field(default_factory=_Properties)


_decode = msgspec.json.Decoder(_Message).decode


def message_id(message: bytes | str | None) -> str | None:
    """The task's id in a message as kombu keeps it in Redis; None where there is none."""
    if message is None:
        return None
    try:
        found = _decode(message)
    except (ValueError, RecursionError):
        return None
    return found.headers.id or found.properties.correlation_id


def ask_redis(channel: Any, queues: Iterable[str], sent: Callable[[str, str], float | None]) -> Told:
    """Lengths over all priorities, and the oldest message, in one round trip.

    The channel is kombu's, so that `priority_steps`, `sep`, `global_keyprefix` and the key of what is unacknowledged
    are those of the connection's transport options.  A message is read whole, so only the last of each list is.
    """
    asked = list(queues)
    steps = list(dict.fromkeys(int(step) for step in channel.priority_steps))
    # kombu's client puts its prefix before the keys of the commands that it uses itself, and of no others
    plain, prefix = Redis(connection_pool=channel.client.connection_pool), channel.global_keyprefix
    with plain.pipeline(transaction=False) as pipe:
        for queue in asked:
            for step in steps:
                # kombu's own naming: the plain name for priority 0
                key = prefix + (f"{queue}{channel.sep}{step}" if step else queue)
                pipe.llen(key)
                pipe.lindex(key, -1)
        pipe.hlen(prefix + channel.unacked_key)
        # a key may be of another kind: that spoils one queue, not all
        answers = pipe.execute(raise_on_error=False)
    found = {}
    for number, queue in enumerate(asked):
        ours = answers[number * 2 * len(steps) : (number + 1) * 2 * len(steps)]
        lengths, messages = ours[::2], ours[1::2]
        if any(isinstance(answer, Exception) for answer in ours):
            logger.debug("%s is not a queue in Redis.", queue)
            continue
        ids = [one for one in map(message_id, messages) if one is not None]
        # the oldest of the priorities' oldest; one whose age is not known comes last
        ids.sort(key=lambda one: sent(queue, one) or float("inf"))
        found[queue] = Figures(length=sum(lengths), oldest_id=ids[0] if ids else None)
    held = answers[-1]
    return Told(found, held if isinstance(held, int) else None)


def ask_by_declaring(connection: Any, queues: Iterable[str], amqp: bool) -> Told:
    """Lengths and, on AMQP, consumers by passive declarations; a queue that is not there is empty.

    An AMQP broker closes the channel when it says NOT_FOUND, so that the next queue gets a new one.  A queue that is
    refused, or that is another connection's own, is left out.
    """
    found = {}
    channel = None
    try:
        for queue in queues:
            if channel is None:
                channel = connection.channel()
            try:
                answer = channel.queue_declare(queue=queue, passive=True)
                found[queue] = Figures(
                    length=int(answer.message_count), consumers=int(answer.consumer_count) if amqp else None
                )
            except ChannelError as error:
                if _code(error) == NOT_FOUND or "NOT_FOUND" in str(error):
                    found[queue] = Figures(length=0, consumers=0 if amqp else None)
                else:
                    logger.debug("The broker does not tell about queue %s: %s", queue, type(error).__name__)
            if amqp and not _is_open(channel):
                channel = None
    finally:
        if channel is not None:
            channel.close()
    return Told(found)


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_: Any) -> None:
        """Follows none."""


def ask_management_api(
    url: str, virtual_host: str, queues: Iterable[str], timeout: float = 5, ca_certs: str | None = None
) -> Told:
    """Lengths, what workers hold, and consumers from RabbitMQ's management API; `url` may hold user and password.

    `ca_certs` is a PEM file of authorities to trust beside the system's.  Raises OSError or ValueError; no text of
    these holds the password.
    """
    parts = urlsplit(url)
    host = bracketed(parts.hostname or "")
    port = f":{parts.port}" if parts.port else ""
    path = parts.path.rstrip("/") or "/api"
    if parts.scheme not in ("http", "https"):
        raise ValueError("broker_api must begin with http:// or https://.")
    columns = "name,messages_ready,messages_unacknowledged,consumers"
    address = f"{parts.scheme}://{host}{port}{path}/queues/{quote(virtual_host, safe='')}?columns={columns}"
    request = urllib.request.Request(address, headers={"Accept": "application/json"})  # noqa: S310  # checked above
    if parts.username is not None:
        pair = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
        request.add_header("Authorization", "Basic " + base64.b64encode(pair.encode()).decode())
    # as it is given: no proxy of the environment's, and no other place that would get the password
    tls = ssl.create_default_context()
    if ca_certs:
        tls.load_verify_locations(ca_certs)
    opener = urllib.request.build_opener(
        urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=tls), _NoRedirect()
    )
    with opener.open(request, timeout=timeout) as response:
        text = response.read(LARGEST_ANSWER + 1)
    if len(text) > LARGEST_ANSWER:
        raise ValueError("the management API answers with more than 16 MiB")
    return read_management_answer(text, queues)


def read_management_answer(text: bytes, queues: Iterable[str]) -> Told:
    """The figures of the queues that are asked for; raises ValueError when it is no list of queues."""
    answer = json.loads(text)
    if not isinstance(answer, list):
        raise ValueError("the management API did not answer with a list of queues")
    there = {one.get("name"): one for one in answer if isinstance(one, dict)}
    found = {}
    for queue in queues:
        if (one := there.get(queue)) is None:
            found[queue] = Figures(length=0, unacked=0, consumers=0)
        else:
            # a queue that was just made has no figures yet
            found[queue] = Figures(
                length=_whole(one.get("messages_ready")),
                unacked=_whole(one.get("messages_unacknowledged")),
                consumers=_whole(one.get("consumers")),
            )
    return Told(found, sum(one.unacked or 0 for one in found.values()))


def ask_workers(app: Any, connection: Any, timeout: float) -> dict[str, Consumer]:
    """What workers say of their queues, processes and memory; two broadcasts of `timeout` seconds each."""
    inspect = app.control.inspect(timeout=timeout, connection=connection)
    queues, stats = inspect.active_queues() or {}, inspect.stats() or {}
    return {name: read_consumer(queues.get(name), stats.get(name)) for name in {*queues, *stats}}


def read_consumer(queues: Any, stats: Any) -> Consumer:
    """One worker's answers to active_queues and stats; whatever is not as Celery sends it is not told."""
    consumed = [one.get("name") for one in queues if isinstance(one, dict)] if isinstance(queues, list) else []
    pool = stats.get("pool") if isinstance(stats, dict) else None
    usage = stats.get("rusage") if isinstance(stats, dict) else None
    pool, usage = pool if isinstance(pool, dict) else {}, usage if isinstance(usage, dict) else {}
    processes = pool.get("processes")
    concurrency = len(processes) if isinstance(processes, list) else _whole(pool.get("max-concurrency"))
    # in kB on Linux (getrusage(2))
    memory = _whole(usage.get("maxrss"))
    return Consumer(
        tuple(name for name in consumed if isinstance(name, str)),
        concurrency,
        memory * 1024 if memory else None,
    )


# ------------------------------------------------------------------ the thread


class Queues:
    """Asks now and then, and gives the last answers to the metrics.

    `connection` makes a kombu connection (with time-outs, or a silent broker would be waited for), `app` is a Celery
    application on the same broker, for asking workers; None asks none.  Names of queues are `configured`, those that
    workers consume, and those that events told (`seen`).  Intervals and `timeout` are in seconds; a workers_interval
    of 0 asks no worker.
    """

    def __init__(
        self,
        connection: Callable[[], Any],
        waiting: Waiting,
        workers: Workers,
        *,
        app: Any = None,
        configured: Iterable[str] = (),
        seen: Callable[[], Iterable[str]] = tuple,
        management_api: str | None = None,
        interval: float = 10,
        workers_interval: float = 60,
        timeout: float = 5,
        on_consumers: Callable[[Mapping[str, Consumer]], None] | None = None,
    ) -> None:
        self._connect = connection
        self._waiting = waiting
        self._workers = workers
        self._app = app
        self._configured = list(dict.fromkeys(configured))
        self._management_api = management_api
        self._interval = interval
        self._workers_interval = workers_interval
        self._timeout = timeout
        self._on_consumers = on_consumers
        self._seen = seen
        self._heads: dict[str, tuple[str, float]] = {}
        self._told = Told()
        self._told_at: float | None = None
        self._consumers: dict[str, Consumer] = {}
        self._asked_workers: float | None = None
        self._asked_of: frozenset[str] = frozenset()
        self._transport = ""
        self.success_timestamp: float | None = None
        self.failures = 0
        self.last_error = ""

    def asked(self) -> list[str]:
        """Queues to ask for: configured, consumed by workers, seen in events."""
        consumed = [queue for consumer in self._consumers.values() for queue in consumer.queues]
        seen = list(self._seen())[:MOST_QUEUES]
        return list(dict.fromkeys((*self._configured, *consumed, *seen)))[:MOST_ASKED]

    def run(self, stop: threading.Event) -> None:
        """Asks until `stop` is set; no error ends it."""
        while not stop.is_set():
            self.poll()
            stop.wait(self._interval)

    def poll(self) -> None:
        """One round, on a connection of its own: it costs little, and no old one can hang."""
        connection = None
        try:
            connection = self._connect()
            began = time.time()
            self._transport = str(connection.transport.driver_type)
            connection.transport_options = {**self._time_outs(), **(connection.transport_options or {})}
            self._ask_workers(connection)
            self.last_error = self._round(connection, began)
            self.success_timestamp = time.time()
            self._told_at = time.monotonic()
        except Exception as error:  # noqa: BLE001  # whatever it is, the next round may do better
            self._failed("The broker does not tell about its queues", error)
        finally:
            if connection is not None:
                _close(connection)

    def serve(self, registry: Registry, exporter_names: bool = False) -> None:
        """Gives the figures to the metrics."""
        give = registry.source
        length = compat.QUEUE_LENGTH if exporter_names else names.QUEUE_LENGTH
        give(length, lambda: self._each(lambda queue: self._fresh().queues[queue].length))
        give(names.QUEUE_UNACKED, lambda: self._each(lambda queue: self._fresh().queues[queue].unacked))
        give(names.QUEUE_CONSUMERS, lambda: self._each(self._number_of_consumers))
        give(names.QUEUE_OLDEST, lambda: self._each(self._oldest_seconds))
        give(names.UNACKED, lambda: self._fresh().unacked)
        give(names.QUEUES_POLLED, lambda: self.success_timestamp)
        give(names.QUEUES_FAILED, lambda: self.failures)
        give(names.WORKER_CONCURRENCY, lambda: self._each_worker(lambda one: one.concurrency))
        give(names.WORKER_MEMORY, lambda: self._each_worker(lambda one: one.memory_bytes))
        if exporter_names:
            give(compat.CONSUMERS, lambda: self._each(lambda queue: self._fresh().queues[queue].consumers))
            give(compat.WORKER_COUNT, lambda: self._each(lambda queue: len(self._consuming(queue))))
            give(compat.PROCESS_COUNT, lambda: self._each(self._processes))

    # ------------------------------------------------------------------ asking

    def _failed(self, what: str, error: Exception) -> str:
        """Counts a failure and says it once; gives its name, since its text may hold an address with a password."""
        self.failures += 1
        name = type(error).__name__
        if isinstance(error, urllib.error.HTTPError):
            name = f"HTTP {error.code}"
        if name != self.last_error:
            logger.warning("%s: %s.", what, name)
        self.last_error = name
        return name

    def _time_outs(self) -> dict[str, float]:
        """Transport options without which a broker that went silent would be waited for without an end."""
        if self._transport == "redis":
            return {"socket_timeout": self._timeout, "socket_connect_timeout": self._timeout}
        if self._transport == "amqp":
            return {"read_timeout": self._timeout, "write_timeout": self._timeout}
        return {}

    def _round(self, connection: Any, began: float) -> str:
        """Asks for all queues; gives the error of a management API that was done without, "" when all was well."""
        queues, error = self.asked(), ""
        if self._transport == "redis":
            # not the default channel: kombu tries for ever to get that
            told = ask_redis(connection.channel(), queues, self._waiting.sent)
        else:
            told = ask_by_declaring(connection, queues, amqp=self._transport == "amqp")
        if self._transport == "amqp" and self._management_api:
            try:
                told = _completed(told, self._ask_management_api(self._management_api, connection, queues))
            except (OSError, ValueError) as failure:
                error = self._failed("RabbitMQ's management API does not tell what workers hold", failure)
        self._take(told, began)
        return error

    def _ask_management_api(self, url: str, connection: Any, queues: list[str]) -> Told:
        # the broker's own authority is the API's, as a rule
        ca_certs = connection.ssl.get("ca_certs") if isinstance(connection.ssl, dict) else None
        return ask_management_api(url, connection.virtual_host or "/", queues, self._timeout, ca_certs)

    def _ask_workers(self, connection: Any) -> None:
        """Asks workers when it is time, or at once when others are online than those who were asked."""
        if self._app is None or not self._workers_interval:
            return
        online = frozenset(name for name, one in self._workers.known.copy().items() if one.online)
        now = time.monotonic()
        due = self._asked_workers is None or now - self._asked_workers >= self._workers_interval
        if not due and online <= self._asked_of:
            return
        self._asked_workers, self._asked_of = now, online
        answers = ask_workers(self._app, connection, timeout=1)
        # who is online and did not answer was busy: what it said before still holds
        kept = {name: one for name, one in self._consumers.items() if name in online}
        self._consumers = {**kept, **{name: _merged(kept.get(name), one) for name, one in answers.items()}}
        if self._on_consumers is not None:
            self._on_consumers(self._consumers)

    def _take(self, told: Told, began: float) -> None:
        for queue, figures in told.queues.items():
            if figures.length == 0:
                self._waiting.empty(queue, began)
            if figures.oldest_id is None:
                self._heads.pop(queue, None)
            elif self._heads.get(queue, ("", 0.0))[0] != figures.oldest_id:
                self._heads[queue] = figures.oldest_id, began
        self._told = told

    # ------------------------------------------------------------------ giving

    def _fresh(self) -> Told:
        if self._told_at is None or time.monotonic() - self._told_at > max(
            STALE_ROUNDS * self._interval, STALE_SECONDS
        ):
            return Told()
        return self._told

    def _each(self, figure: Callable[[str], float | None]) -> dict[Labels, float]:
        told = ((queue, figure(queue)) for queue in self._fresh().queues)
        return {(clean(queue),): value for queue, value in told if value is not None}

    def _oldest_seconds(self, queue: str) -> float | None:
        """The age of the oldest message by its task-sent event; else since it was first seen at the head, at least."""
        figures = self._fresh().queues[queue]
        if not figures.length:
            return None if figures.length is None else 0.0
        if figures.oldest_id is not None:
            since = self._waiting.sent(queue, figures.oldest_id) or self._heads.get(queue, ("", 0.0))[1]
        else:
            since = self._waiting.oldest(queue) or 0.0
        return max(time.time() - since, 0.0) if since else None

    def _number_of_consumers(self, queue: str) -> float | None:
        """The broker's word; else the workers', when they were asked."""
        if (told := self._fresh().queues[queue].consumers) is not None:
            return told
        return len(self._consuming(queue)) if self._asked_workers is not None else None

    def _consuming(self, queue: str) -> list[Consumer]:
        """Workers that consume a queue and are not known to be gone."""
        known = self._workers.known
        return [
            one
            for name, one in self._consumers.items()
            if queue in one.queues and (name not in known or known[name].online)
        ]

    def _processes(self, queue: str) -> int:
        return sum(one.concurrency or 0 for one in self._consuming(queue))

    def _each_worker(self, figure: Callable[[Consumer], int | None]) -> dict[Labels, float]:
        known = self._workers.known.copy()
        told = ((name, figure(one)) for name, one in self._consumers.items() if name in known)
        return {(clean(name),): value for name, value in told if value is not None}


def _completed(declared: Told, api: Told) -> Told:
    """What was declared, which is of this moment, with what only the management API tells, which lags by seconds."""
    queues = dict(api.queues)
    for queue, figures in declared.queues.items():
        unacked = queues[queue].unacked if queue in queues else None
        queues[queue] = Figures(length=figures.length, unacked=unacked, consumers=figures.consumers)
    return Told(queues, api.unacked)


def _merged(before: Consumer | None, now: Consumer) -> Consumer:
    """What a worker said now, and before where it left something unanswered."""
    if before is None:
        return now
    return Consumer(
        now.queues or before.queues, now.concurrency or before.concurrency, now.memory_bytes or before.memory_bytes
    )


def sole_queues(consumers: Mapping[str, Consumer]) -> dict[str, str]:
    """Worker -> its queue, of the workers that consume one only: it is the queue of all that they receive."""
    return {name: one.queues[0] for name, one in consumers.items() if len(one.queues) == 1}


def _whole(value: Any) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else None


def _code(error: Exception) -> Any:
    return getattr(error, "reply_code", None) or getattr(error, "code", None)


def _is_open(channel: Any) -> bool:
    is_open = getattr(channel, "is_open", True)
    return bool(is_open)


def _close(connection: Any) -> None:
    try:
        connection.release()
    except Exception as error:  # noqa: BLE001  # it is given up anyway
        logger.debug("A connection was not closed well: %s", type(error).__name__)
