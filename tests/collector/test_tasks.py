"""The folding of events into one record a task, in every order, with doubles, losses and clocks that differ."""

from __future__ import annotations

import random
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flowerbed.collector.events import Event
from flowerbed.collector.tasks import LEVEL, MOST_MARKS, Change, Folder, Record, exception_class
from flowerbed.redact import MASK, Redactor
from flowerbed.settings import Redact

T0 = 1_700_000_000.0
NOW = T0 + 3600
PRODUCER, A, B = "gen1@web", "celery@a", "celery@b"


def event(kind: str, at: float, host: str = A, uuid: str = "t1", **fields: Any) -> Event:
    return Event(type=f"task-{kind}", uuid=uuid, hostname=host, timestamp=T0 + at, local_received=NOW, **fields)


def sent(at: float = 0, host: str = PRODUCER, retries: int = 0, **fields: Any) -> Event:
    return event("sent", at, host, name="app.add", args="(1,)", kwargs="{}", retries=retries, queue="mail", **fields)


def received(at: float = 1, host: str = A, retries: int = 0, **fields: Any) -> Event:
    return event("received", at, host, name="app.add", args="(1,)", kwargs="{}", retries=retries, **fields)


def started(at: float = 2, host: str = A) -> Event:
    return event("started", at, host)


def succeeded(at: float = 5, host: str = A, runtime: float | None = 3.0) -> Event:
    return event("succeeded", at, host, result="7", runtime=runtime)


def failed(at: float = 5, host: str = A) -> Event:
    return event("failed", at, host, exception="ValueError('no')", traceback="Traceback …")


def retried(at: float = 3, host: str = A) -> Event:
    return event("retried", at, host, exception="OSError('again')", traceback="Traceback …")


def revoked(at: float = 3, host: str = A) -> Event:
    return event("revoked", at, host, terminated=False, expired=True, signum=None)


def rejected(at: float = 3, host: str = A, requeue: bool = False) -> Event:
    return event("rejected", at, host, requeue=requeue)


def folder(**options: Any) -> Folder:
    return Folder(Redactor(Redact(keys=["*password*"])), **options)


def fold(events: list[Event], into: Folder | None = None) -> tuple[Record, list[Change]]:
    into = folder() if into is None else into
    changes = [change for item in events if (change := into.fold(item, NOW))]
    return changes[-1].record, changes


PLAIN = [sent(), received(), started(), succeeded()]
RETRIED = [
    *[sent(0), received(1), started(2), retried(3)],
    *[sent(3.1, A, retries=1), received(4, B, retries=1), started(5, B), retried(6, B)],
    *[sent(6.1, B, retries=2), received(7, A, retries=2), started(8, A)],
]
STORIES = {
    "succeeded": (PLAIN, "SUCCESS"),
    "failed": ([sent(), received(), started(), failed()], "FAILURE"),
    "retried and succeeded": ([*RETRIED, succeeded(9)], "SUCCESS"),
    "retried and failed": ([*RETRIED, failed(9)], "FAILURE"),
    "retried, running": (RETRIED, "STARTED"),
    "retried, waiting": (RETRIED[:8], "RETRY"),
    "retried, received elsewhere": (RETRIED[:6], "RECEIVED"),
    "revoked before it started": ([sent(), received(), revoked()], "REVOKED"),
    "terminated": ([sent(), received(), started(), revoked()], "REVOKED"),
    "rejected": ([sent(), received(), started(), rejected()], "REJECTED"),
    "rejected and failed": ([sent(), received(), started(), rejected(3), failed(3.001)], "FAILURE"),
    "requeued and done elsewhere": (
        [sent(), received(), started(), rejected(3, requeue=True), received(4, B), started(5, B), succeeded(8, B)],
        "SUCCESS",
    ),
    "redelivered after a success": (
        [sent(), received(), started(), succeeded(), received(6, B), started(7, B), failed(8, B)],
        "SUCCESS",
    ),
    "worker killed, redelivered": ([sent(), received(), started(), received(60, B), started(61, B)], "STARTED"),
    "failed with a lost worker, done again": (
        [sent(), received(), started(), failed(), received(60, B), started(61, B), succeeded(62, B)],
        "SUCCESS",
    ),
    "sent only": ([sent()], "PENDING"),
    "received only": ([received()], "RECEIVED"),
}


@pytest.mark.parametrize("name", STORIES)
def test_a_story_in_order(name: str) -> None:
    events, state = STORIES[name]
    assert fold(events)[0].state == state


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_any_order_and_doubles_give_the_same_row(data: st.DataObject) -> None:
    events, state = STORIES[data.draw(st.sampled_from(sorted(STORIES)))]
    doubled = events + data.draw(st.lists(st.sampled_from(events), max_size=4))
    into = folder()
    record, changes = fold(data.draw(st.permutations(doubled)), into)
    assert record == fold(events)[0]
    assert record.state == state
    assert len(changes) == len(events)
    assert into.duplicates == len(doubled) - len(events)
    assert sum(change.queue_seconds is not None for change in changes) == sum(
        change.queue_seconds is not None for change in fold(events)[1]
    )


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_clocks_that_differ(data: st.DataObject) -> None:
    """Each host's clock is wrong by up to ten minutes; within a host events keep their order."""
    name = data.draw(st.sampled_from(sorted(set(STORIES) - {"worker killed, redelivered"})))
    events, state = STORIES[name]
    skew = {host: data.draw(st.floats(-600, 600)) for host in (PRODUCER, A, B)}
    moved = [msgspec.structs.replace(item, timestamp=item.timestamp + skew[item.hostname]) for item in events]
    record, changes = fold(data.draw(st.permutations(moved)))
    assert record.state == state
    for seconds in (record.wait_seconds, record.runtime_seconds):
        assert seconds is None or seconds >= 0
    for change in changes:
        for seconds in (change.queue_seconds, change.prefetch_seconds, change.runtime_seconds):
            assert seconds is None or seconds >= 0


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_what_is_lost_is_missing_and_no_more(data: st.DataObject) -> None:
    events, state = STORIES[data.draw(st.sampled_from(sorted(STORIES)))]
    kept = data.draw(st.lists(st.sampled_from(events), min_size=1, unique_by=id))
    kept.sort(key=events.index)
    record, _ = fold(data.draw(st.permutations(kept)))
    assert record == fold(kept)[0]
    whole = fold(events)[0]
    if events[-1] in kept and whole.finished is not None and whole.finished == events[-1].timestamp:
        assert (record.state, record.worker, record.finished) == (state, whole.worker, whole.finished)
    if any(item.type == "task-received" for item in kept):
        assert record.name == "app.add"


def test_the_whole_row() -> None:
    record, changes = fold(PLAIN)
    assert (record.name, record.queue, record.worker, record.producer) == ("app.add", "mail", A, PRODUCER)
    assert (record.sent, record.received, record.started) == (T0, T0 + 1, T0 + 2)
    assert record.succeeded == record.finished == T0 + 5
    assert (record.wait_seconds, record.runtime_seconds) == (2.0, 3.0)
    assert (record.args, record.kwargs, record.result) == ("(1,)", "{}", "7")
    assert record.precedence == 3 * LEVEL + T0 + 5
    assert [change.kind for change in changes] == ["sent", "received", "started", "succeeded"]
    assert changes[1].queue_seconds == 1
    assert changes[2].prefetch_seconds == 1
    assert changes[3].runtime_seconds == 3
    assert changes[3].before == "STARTED"


def test_no_runtime_of_its_own_is_measured_from_the_start() -> None:
    assert fold([received(), started(2), succeeded(6, runtime=None)])[0].runtime_seconds == 4
    assert fold([received(), failed(6), started(2)])[0].runtime_seconds == 4
    assert fold([received(), started(2), failed(6, B)])[0].runtime_seconds is None


def test_an_eta_is_no_prefetch_time() -> None:
    eta = "2023-11-14T22:14:20+00:00"  # T0 + 60
    _, changes = fold([received(1, eta=eta), started(61)])
    assert changes[-1].prefetch_seconds == 1


def test_a_worker_that_is_gone() -> None:
    into = folder()
    fold([received(), started(), event("received", 1, A, "t2", name="x")], into)
    assert into.running == {"app.add": 1}
    assert [change.kind for change in into.lost(B, NOW)] == []
    (change,) = into.lost(A, NOW)
    assert (change.kind, change.record.id, change.record.lost, change.record.state) == ("lost", "t1", True, "STARTED")
    assert into.running == {}
    assert into.lost(A, NOW) == []
    record, _ = fold([succeeded()], into)
    assert (record.lost, record.state) == (False, "SUCCESS")


def test_running_is_what_runs() -> None:
    into = folder()
    fold([event("started", 1, A, "t2")], into)
    assert into.running == {"": 1}
    fold([event("received", 0, A, "t2", name="later")], into)
    assert into.running == {"later": 1}
    fold([event("succeeded", 2, A, "t2")], into)
    assert into.running == {}


def test_memory_is_bounded() -> None:
    into = folder(most_under_way=10, most_ended=5)
    for number in range(100):
        into.fold(event("started", number, A, str(number)), NOW)
    assert (into.under_way, into.evicted, into.running) == (10, 90, {"": 10})
    for number in range(100):
        into.fold(event("succeeded", number, A, str(number)), NOW)
    assert (into.under_way, into.running) == (0, {})
    assert len(into._ended) == 5
    for number in range(1000):
        into.fold(started(number), NOW)
    assert len(into._under_way["t1"].marks) == MOST_MARKS


def test_a_retried_task_that_never_ends_keeps_its_row() -> None:
    events = []
    for number in range(200):
        events += [received(number, retries=number), started(number + 0.1), retried(number + 0.2)]
    record, _ = fold(events)
    assert (record.state, record.retries, record.retried) == ("RETRY", 199, T0 + 199.2)


def test_the_attempt_decides_about_the_arguments() -> None:
    first = event("received", 1, A, name="n", args="(1,)", retries=0)
    second = event("received", 2, A, name="n", args="(2,)", retries=1)
    assert fold([first, second])[0].args == fold([second, first])[0].args == "(2,)"


def test_texts_are_redacted_and_then_cut() -> None:
    into = folder(longest={"args": 20, "kwargs": 40, "result": 5})
    text = "{'password': 'hunter2', 'x': 1}"
    record, _ = fold(
        [event("received", 1, A, name="n", args="(" + "1" * 50, kwargs=text), succeeded(), failed(4)], into
    )
    assert record.kwargs is not None
    assert record.args is not None
    assert MASK in record.kwargs
    assert "hunter2" not in record.kwargs
    assert (len(record.args), record.args[-1]) == (20, "…")
    assert (record.result, record.exception, record.traceback) == ("7", None, None)


def test_no_texts_at_all() -> None:
    record, _ = fold(PLAIN, folder(longest={}))
    assert (record.args, record.kwargs, record.result) == (None, None, None)


def test_queue_of_a_worker_with_one_queue_stands_in() -> None:
    into = folder()
    into.queues[A] = "only"
    assert fold([received()], into)[0].queue == "only"
    assert fold([sent()], into)[0].queue == "mail"


@pytest.mark.parametrize("at", [-2_000_000_000.0, 100_000_000.0])
def test_times_out_of_reason_are_ours(at: float) -> None:
    assert fold([received(at)])[0].received == NOW


@pytest.mark.parametrize("kind", ["cancelled", "custom", ""])
def test_events_that_say_nothing_of_a_task(kind: str) -> None:
    into = folder()
    assert into.fold(event(kind, 1), NOW) is None
    assert into.fold(Event(type="worker-heartbeat", hostname=A), NOW) is None
    assert into.fold(Event(type="task-started", hostname=A), NOW) is None
    assert into.under_way == 0


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("ValueError('no')", "ValueError"),
        ("kombu.exceptions.OperationalError('x')", "kombu.exceptions.OperationalError"),
        ("KeyError", "KeyError"),
        ("ValueError: no", "ValueError"),
        ("None", None),
        ("", None),
        (None, None),
        ("<Unrepresentable …>", None),
        ("something is wrong", None),
        ("X" * 300, None),
    ],
)
def test_exception_class(text: str | None, name: str | None) -> None:
    assert exception_class(text) == name


def test_a_thousand_tasks_mixed() -> None:
    chance = random.Random(1)
    events = []
    for number in range(1000):
        story, _ = STORIES[chance.choice(sorted(STORIES))]
        events += [msgspec.structs.replace(item, uuid=str(number)) for item in story]
    rows = []
    for _ in range(2):
        chance.shuffle(events)
        into = folder()
        for item in events:
            into.fold(item, NOW)
        rows.append({**into._under_way, **into._ended})
    assert {key: task.record for key, task in rows[0].items()} == {key: task.record for key, task in rows[1].items()}
    assert sum(into.running.values()) == sum(task.record.state == "STARTED" for task in rows[1].values())
