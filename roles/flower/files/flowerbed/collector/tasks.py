"""Folds Celery's task events into one record a task, in whatever order, number and time they come.

What is known of a task is a set of facts, and every rule here is a maximum, a minimum or "the first that is known", so
that the order of arrival does not matter.  Which state holds:

1. SUCCESS, as for Celery's result backends, which never replace a success (redelivered tasks run twice);
2. FAILURE, REVOKED or REJECTED for good: the latest by the senders' clocks;
3. RECEIVED, STARTED, RETRY or REJECTED with requeue: the latest attempt; `retries` tells the attempts of two hosts
   apart, since their clocks may differ, and time tells within a host;
4. PENDING, when all that is known is that it was sent.
"""

from __future__ import annotations

import re
from collections import OrderedDict
from collections.abc import Iterable, Mapping
from datetime import datetime
from sys import intern
from typing import TYPE_CHECKING

import msgspec

if TYPE_CHECKING:
    from flowerbed.collector.events import Event
    from flowerbed.redact import Redactor

PENDING, RECEIVED, STARTED, RETRY = "PENDING", "RECEIVED", "STARTED", "RETRY"
SUCCESS, FAILURE, REVOKED, REJECTED = "SUCCESS", "FAILURE", "REVOKED", "REJECTED"
#: phases of a task, in the order in which they hold when two have the same time
_SENT, _RECEIVED, _STARTED, _RETRIED, _REQUEUED, _REJECTED, _REVOKED, _FAILED, _SUCCEEDED = range(9)
_STATES = (PENDING, RECEIVED, STARTED, RETRY, REJECTED, REJECTED, REVOKED, FAILURE, SUCCESS)
#: how much a phase says: the rules 4, 3, 2 and 1 above
_LEVELS = (0, 1, 1, 1, 1, 2, 2, 2, 3)
LEVEL = 1e11
#: type of an event -> kind of a Change and the Record's field for its time, and its phase
_KINDS = {
    "task-sent": ("sent", _SENT),
    "task-received": ("received", _RECEIVED),
    "task-started": ("started", _STARTED),
    "task-retried": ("retried", _RETRIED),
    "task-rejected": ("rejected", _REJECTED),
    "task-revoked": ("revoked", _REVOKED),
    "task-failed": ("failed", _FAILED),
    "task-succeeded": ("succeeded", _SUCCEEDED),
}
#: times before 2000 and further ahead of our clock than this are not believed, in seconds
EARLIEST, AHEAD = 946684800.0, 86400.0
#: how long texts are kept, in characters; 0 keeps none
LONGEST = {"args": 1024, "kwargs": 1024, "result": 1024, "exception": 1024, "traceback": 16384}
#: the most events of one task that are remembered: a task may be retried for ever
MOST_MARKS = 64
#: what a column of 32 bits takes
MOST_RETRIES = 2**31 - 1
_CLASS = re.compile(r"[^\W\d][\w.]{0,127}(?=[(:]|\Z)")

#: an event that was folded: time, phase, host, retries (-1 when not told)
_Mark = tuple[float, int, str, int]


class Record(msgspec.Struct, kw_only=True, gc=False):
    """What is known of a task: the columns of the history, in their order; None is "not known".

    Times are seconds since 1970 by the clock of who sent the event, durations are seconds and never negative.
    """

    id: str
    #: None as long as neither task-sent nor task-received was seen
    name: str | None = None
    state: str = PENDING
    #: which of two states holds is the one with the larger precedence: level * 1e11 + seconds since 1970
    precedence: float = 0.0
    queue: str | None = None
    #: full node name of the worker that said the last word
    worker: str | None = None
    #: who sent it first
    producer: str | None = None
    root_id: str | None = None
    parent_id: str | None = None
    group_id: str | None = None
    #: the first time
    sent: float | None = None
    #: of the latest attempt
    received: float | None = None
    started: float | None = None
    #: the last time of each
    succeeded: float | None = None
    failed: float | None = None
    retried: float | None = None
    revoked: float | None = None
    rejected: float | None = None
    #: when it ended for good, whichever way; None while it is under way
    finished: float | None = None
    #: from sent (else from received) to the first start; an ETA is waited for too
    wait_seconds: float | None = None
    #: what the worker measured; for failures from started to failed
    runtime_seconds: float | None = None
    retries: int = 0
    #: texts, redacted and cut
    args: str | None = None
    kwargs: str | None = None
    result: str | None = None
    exception: str | None = None
    traceback: str | None = None
    #: ISO 8601, as the event has them
    eta: str | None = None
    expires: str | None = None
    #: it was left STARTED by a worker that is gone
    lost: bool = False
    #: JSON
    tags: str | None = None
    #: by our clock: the first event that came of it, and the last
    seen: float = 0.0
    updated: float = 0.0


class Change(msgspec.Struct, kw_only=True, gc=False):
    """What one event did; doubled events make no Change, so that each can be counted once."""

    #: sent, received, started, succeeded, failed, retried, revoked, rejected; or lost
    kind: str
    #: after the merge; the Folder goes on changing it, so copy what is kept
    record: Record
    #: the state that held before, None for a task that was not known; `record.state` is the one that holds now
    before: str | None
    #: the worker that sent the event; for `sent` the producer
    hostname: str
    #: when, by the clock of that host
    timestamp: float
    #: seconds from sent to received, one value for each attempt, never negative: on whichever of the two came last
    queue_seconds: float | None = None
    #: started: seconds from received, or from the ETA if that was later, to started, on one host
    prefetch_seconds: float | None = None
    #: succeeded: what the worker measured; failed, retried and revoked: since started
    runtime_seconds: float | None = None
    #: failed, retried: class of the exception, `ValueError` or `kombu.exceptions.OperationalError`; None when not told
    error: str | None = None
    #: rejected: whether it goes back to the queue
    requeue: bool | None = None


class _Task(msgspec.Struct, gc=False):
    """A record and what is needed to merge more into it."""

    record: Record
    marks: list[_Mark] = []
    #: the worker of all marks; "" once there are several, None before the first
    host: str | None = None
    #: what holds: level, time, phase and host of the event that said it
    word: tuple[int, float, int, str] = (-1, 0.0, -1, "")
    #: retries of the event that the description (name, arguments …) is of; -1 for none
    described: int = -1
    #: the same of the queue, of task-sent only
    queued: int = -1
    #: level and time of the event that the exception is of
    error: tuple[int, float] = (-1, 0.0)
    first_received: float | None = None
    first_started: float | None = None
    #: what the worker measured, and when it said so
    measured: float | None = None
    #: key in Folder.running; None when it does not run
    running_as: str | None = None


class Folder:
    """The tasks under way, and the last ones that ended so that late and doubled events are known as such.

    `running` is task name ("" when unknown) -> tasks that run now.  `duplicates` counts events that changed nothing,
    `evicted` tasks under way that were forgotten because there were too many (their rows stay, and what comes later
    is merged into them by the history).  `queues` is worker -> the queue it consumes, for workers with only one: it
    stands in for task-sent, and whoever learns it may fill it in.  For one thread.
    """

    def __init__(
        self,
        redactor: Redactor,
        longest: Mapping[str, int] | None = None,
        most_under_way: int = 50_000,
        most_ended: int = 20_000,
    ) -> None:
        """`longest` is the most characters kept of each text (LONGEST when not given; an empty one keeps none)."""
        self.running: dict[str, int] = {}
        self.queues: dict[str, str] = {}
        self.duplicates = 0
        self.evicted = 0
        self._redactor = redactor
        limits = LONGEST if longest is None else longest
        self._longest = {text: limits.get(text, 0) for text in LONGEST}
        self._keeps_texts = any(self._longest.values())
        self._most_under_way = most_under_way
        self._most_ended = most_ended
        # a plain dictionary looks for its oldest entry among all that it has lost
        self._under_way: OrderedDict[str, _Task] = OrderedDict()
        self._ended: OrderedDict[str, _Task] = OrderedDict()
        #: those that ended since forget_texts()
        self._texted: list[Record] = []

    @property
    def under_way(self) -> int:
        """How many tasks under way are known."""
        return len(self._under_way)

    # ------------------------------------------------------------------ folding

    def fold(self, event: Event, now: float) -> Change | None:
        """Takes in one event; None when it is no task's, of an unknown type, or doubled.  `now` is time.time()."""
        found = _KINDS.get(event.type)
        if found is None or not event.uuid:
            return None
        kind, phase = found
        if phase == _REJECTED and event.requeue:
            phase = _REQUEUED
        # the same few names come again and again, each time as a text of its own
        time, host = event.timestamp, intern(event.hostname)
        if not EARLIEST <= time <= now + AHEAD:
            time = now
        retries = event.retries
        mark = (time, phase, host, -1 if retries is None or retries < 0 else min(retries, MOST_RETRIES))

        task = self._under_way.get(event.uuid) or self._ended.get(event.uuid)
        if task is None:
            before = None
            task = self._task(event.uuid, now)
        elif mark in task.marks:
            self.duplicates += 1
            return None
        else:
            before = task.record.state
        record = task.record
        record.updated = now
        change = Change(kind=kind, record=record, before=before, hostname=host, timestamp=time)

        if phase <= _RECEIVED:
            self._describe(task, event, phase, mark)
            change.queue_seconds = _queue_seconds(task, mark)
        elif phase >= _RETRIED:
            self._conclude(task, event, phase, time, change)
        task.marks.append(mark)
        if len(task.marks) > MOST_MARKS:
            task.marks.remove(min(task.marks))
        if phase and task.host != host:
            task.host = host if task.host is None else ""
        _place(task, mark)
        if phase == _STARTED:
            change.prefetch_seconds = _prefetch_seconds(task, mark)
        if task.first_started is not None or record.finished is not None:
            _measure(task)
        if phase >= _RETRIED:
            change.runtime_seconds = (
                _since_start(task, time, host) if event.runtime is None else max(event.runtime, 0.0)
            )
        if record.finished is not None or task.running_as is not None or record.state == STARTED:
            self._keep(task)
        return change

    def forget_texts(self) -> None:
        """Drops the texts of tasks that ended, once they are handed over: rows keep theirs when later ones have none.

        They could be a hundred times the rest.
        """
        for record in self._texted:
            record.args = record.kwargs = record.result = record.exception = record.traceback = None
        self._texted.clear()

    def restore(self, records: Iterable[Record]) -> None:
        """Takes in tasks of a former run, the oldest first; those that are known already are left as they are.

        Their events are known again by time and host, so that doubled ones are seen as such.
        """
        for record in records:
            if record.id not in self._under_way and record.id not in self._ended:
                # in the room that there is: what is under way now is not forgotten for it
                if record.finished is None and len(self._under_way) >= self._most_under_way:
                    continue
                task = _restored(record)
                self._under_way[record.id] = task
                self._keep(task)

    def running_on(self) -> set[str]:
        """Workers that tasks run on, as far as is known."""
        return {
            task.record.worker
            for task in self._under_way.values()
            if task.record.worker and task.record.state == STARTED and not task.record.lost
        }

    def lost(self, worker: str, now: float, before: float | None = None) -> list[Change]:
        """Marks what a worker that is gone has left STARTED; the next thing heard of the task takes the mark away.

        With `before`, only tasks of which nothing was heard since (seconds by our clock).
        """
        changes = []
        for task in self._under_way.values():
            record = task.record
            if before is not None and record.updated >= before:
                continue
            if record.worker == worker and record.state == STARTED and not record.lost:
                record.lost, record.updated = True, now
                self._count(task)
                changes.append(Change(kind="lost", record=record, before=STARTED, hostname=worker, timestamp=now))
        return changes

    def _task(self, uuid: str, now: float) -> _Task:
        if len(self._under_way) >= self._most_under_way:
            _, oldest = self._under_way.popitem(last=False)
            self._stop_counting(oldest)
            self.evicted += 1
        task = self._under_way[uuid] = _Task(Record(id=uuid, seen=now, updated=now))
        return task

    def _describe(self, task: _Task, event: Event, phase: int, mark: _Mark) -> None:
        """Fields of task-sent and task-received; of the latest attempt where they differ."""
        record, attempt = task.record, max(mark[3], 0)
        time = mark[0]
        if phase == _SENT:
            if record.sent is None or time < record.sent:
                record.sent, record.producer = time, mark[2] or None
            queue = event.queue or (None if event.exchange else event.routing_key)
            if queue and (attempt > task.queued or task.queued < 0):
                record.queue, task.queued = intern(queue), attempt
        else:
            if task.first_received is None or time < task.first_received:
                task.first_received = time
            if record.queue is None or task.queued < 0:
                record.queue = self.queues.get(event.hostname) or record.queue
        record.retries = max(record.retries, attempt)
        later = attempt > task.described
        if later:
            task.described = attempt
        if event.name and (later or record.name is None):
            record.name = intern(event.name)
        record.root_id = record.root_id or event.root_id
        record.parent_id = record.parent_id or event.parent_id
        record.group_id = record.group_id or event.group_id
        if later:
            record.eta = event.eta or (record.eta if attempt == 0 else None)
            record.expires = event.expires or record.expires
        else:
            record.eta = record.eta or (event.eta if attempt == task.described else None)
            record.expires = record.expires or event.expires
        if self._keeps_texts:
            # task-sent and task-received of one attempt hold the same
            if event.args is not None and (later or record.args is None):
                record.args = self._text(record.name, "args", event.args)
            if event.kwargs is not None and (later or record.kwargs is None):
                record.kwargs = self._text(record.name, "kwargs", event.kwargs)

    def _conclude(self, task: _Task, event: Event, phase: int, time: float, change: Change) -> None:
        """Fields of what ends a task or an attempt."""
        record = task.record
        if phase == _SUCCEEDED:
            if record.succeeded is None or time >= record.succeeded:
                record.succeeded = time
                task.measured = event.runtime
                if self._keeps_texts:
                    record.result = self._text(record.name, "result", event.result)
        elif phase in (_FAILED, _RETRIED):
            if phase == _FAILED:
                record.failed = time if record.failed is None else max(time, record.failed)
            else:
                record.retried = time if record.retried is None else max(time, record.retried)
            change.error = exception_class(event.exception)
            order = (_LEVELS[phase], time)
            if order >= task.error:
                task.error = order
                if self._keeps_texts:
                    record.exception = self._text(record.name, "exception", event.exception)
                    record.traceback = self._text(record.name, "traceback", event.traceback)
        elif phase == _REVOKED:
            record.revoked = time if record.revoked is None else max(time, record.revoked)
        else:
            record.rejected = time if record.rejected is None else max(time, record.rejected)
            change.requeue = phase == _REQUEUED

    def _text(self, name: str | None, field: str, text: str | None) -> str | None:
        """A text as it is kept: redacted first, so that nothing is missed because its beginning was cut off."""
        longest = self._longest[field]
        if text is None or not longest:
            return None
        text = str(self._redactor.field(name, field, text))
        return text if len(text) <= longest else text[: longest - 1] + "…"

    def _keep(self, task: _Task) -> None:
        """Puts a task where it belongs now, and counts it where it belongs now."""
        record = task.record
        if record.finished is not None and self._under_way.pop(record.id, None) is not None:
            self._ended[record.id] = task
            if len(self._ended) > self._most_ended:
                self._ended.popitem(last=False)
            if self._keeps_texts:
                self._texted.append(record)
        self._count(task)

    def _count(self, task: _Task) -> None:
        record = task.record
        key = (record.name or "") if record.state == STARTED and not record.lost else None
        if key != task.running_as:
            self._stop_counting(task)
            if key is not None:
                self.running[key] = self.running.get(key, 0) + 1
                task.running_as = key

    def _stop_counting(self, task: _Task) -> None:
        if task.running_as is not None:
            self.running[task.running_as] -= 1
            if not self.running[task.running_as]:
                del self.running[task.running_as]
            task.running_as = None


# ------------------------------------------------------------------ rules


def exception_class(text: str | None) -> str | None:
    """`ValueError` of "ValueError('no')", with its module where the text has it; None where there is none."""
    found = _CLASS.match(text) if text else None
    return found.group() if found and found.group() != "None" else None


def _restored(record: Record) -> _Task:
    """A task as it was folded, as far as a row tells: of several attempts only the last."""
    worker, retries = intern(record.worker or ""), record.retries
    times: tuple[tuple[float | None, int, str, int], ...] = (
        (record.sent, _SENT, intern(record.producer or ""), 0),
        (record.received, _RECEIVED, worker, retries),
        (record.started, _STARTED, worker, -1),
        (record.retried, _RETRIED, worker, -1),
        (record.rejected, _REQUEUED if record.finished is None else _REJECTED, worker, -1),
        (record.revoked, _REVOKED, worker, -1),
        (record.failed, _FAILED, worker, -1),
        (record.succeeded, _SUCCEEDED, worker, -1),
    )
    task = _Task(record)
    task.marks = [(time, phase, host, number) for time, phase, host, number in times if time is not None]
    phases = [mark for mark in task.marks if _STATES[mark[1]] == record.state]
    if phases:
        time, phase, host, _ = max(phases)
        task.word = (_LEVELS[phase], time, phase, host)
        if record.exception is not None:
            task.error = (_LEVELS[phase], time)
    task.host = worker or None
    if record.name is not None:
        record.name, task.described = intern(record.name), retries
    if record.queue is not None and record.sent is not None:
        record.queue, task.queued = intern(record.queue), retries
    task.first_received, task.first_started = record.received, record.started
    if record.state == SUCCESS:
        task.measured = record.runtime_seconds
    return task


def _place(task: _Task, mark: _Mark) -> None:
    """Lets an event say its word on the state, and on when the latest attempt was received and started."""
    record = task.record
    time, phase, host, _ = mark
    if phase == _STARTED and (task.first_started is None or time < task.first_started):
        task.first_started = time
    level = _LEVELS[phase]
    if level == 1:
        if not task.host:
            _place_among_hosts(task)
            return
        if phase == _RECEIVED:
            record.received = time if record.received is None else max(time, record.received)
        elif phase == _STARTED:
            record.started = time if record.started is None else max(time, record.started)
    word = (level, time, phase, host)
    if word > task.word:
        task.word = word
        _say(record, phase, host, level * LEVEL + time)
        if level > 1:
            record.finished = time


def _say(record: Record, phase: int, host: str, precedence: float) -> None:
    record.state, record.precedence, record.lost = _STATES[phase], precedence, False
    if phase != _SENT:
        record.worker = host or record.worker


def _place_among_hosts(task: _Task) -> None:
    """The same when several workers had the task: their clocks may differ, so attempts are told apart by `retries`."""
    record = task.record
    attempts: dict[str, int] = {}
    highest = 0
    ordered = []
    for mark in sorted(mark for mark in task.marks if _LEVELS[mark[1]] == 1):
        time, phase, host, retries = mark
        if phase == _RECEIVED:
            attempts[host] = retries if retries >= 0 else highest
        attempt = attempts.get(host, highest)
        highest = max(highest, attempt)
        if phase == _RETRIED:
            highest = max(highest, attempt + 1)
            attempts.pop(host, None)
        ordered.append((attempt, time, phase, host))
    ordered.sort()
    for _, time, phase, _ in ordered:
        if phase == _RECEIVED:
            record.received = time
        elif phase == _STARTED:
            record.started = time
    _, _, phase, host = ordered[-1]
    if task.word[0] <= 1:
        # never less than was said before, else the history would not take it
        latest = max(time for _, time, _, _ in ordered)
        task.word = (1, latest, phase, host)
        _say(record, phase, host, LEVEL + latest)


def _measure(task: _Task) -> None:
    """How long the task waited and ran, as far as is known."""
    record = task.record
    begin = task.first_received if record.sent is None else record.sent
    if task.first_started is not None and begin is not None:
        record.wait_seconds = max(task.first_started - begin, 0.0)
    _, time, phase, host = task.word
    if phase == _SUCCEEDED and task.measured is not None:
        record.runtime_seconds = max(task.measured, 0.0)
    elif record.finished is not None and record.started is not None:
        record.runtime_seconds = _since_start(task, time, host)


def _since_start(task: _Task, end: float, host: str) -> float | None:
    """Seconds since the last start on the same host before the end."""
    times = [mark[0] for mark in task.marks if mark[1] == _STARTED and mark[2] == host and mark[0] <= end]
    return end - max(times) if times else None


def _queue_seconds(task: _Task, mark: _Mark) -> float | None:
    """Seconds from sent to received of one attempt, when the other of the two is known and it is the first such."""
    if not task.marks:
        return None
    time, phase, _, retries = mark
    others = [other for other in task.marks if other[1] <= _RECEIVED and other[3] == retries]
    if not others or any(other[1] == phase for other in others):
        return None
    other_time = min(others)[0]
    return max(time - other_time if phase == _RECEIVED else other_time - time, 0.0)


def _prefetch_seconds(task: _Task, mark: _Mark) -> float | None:
    """Seconds from received (or from the ETA, when that was later) to started."""
    time, _, host, _ = mark
    times = [other[0] for other in task.marks if other[1] == _RECEIVED and other[2] == host and other[0] <= time]
    if not times:
        return None
    begin = max(times)
    if task.record.eta is not None:
        begin = max(begin, _seconds(task.record.eta) or begin)
    return max(time - begin, 0.0)


def _seconds(text: str) -> float | None:
    """Seconds since 1970 of an ISO 8601 time; None when it is none or has no zone."""
    try:
        moment = datetime.fromisoformat(text)
        return moment.timestamp() if moment.tzinfo else None
    except (ValueError, OverflowError):
        return None
