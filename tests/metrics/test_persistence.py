"""Counters survive a restart: with the same settings, with others, and when nothing could be saved."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from metrics_support import change, heartbeat, observer, read, samples, value

from flowerbed.metrics import persistence
from flowerbed.metrics.exposition import Writer
from flowerbed.metrics.observe import Observer
from flowerbed.metrics.persistence import GONE, Keeper, load

KEPT = ("celery_tasks_total", "celery_task_failures_total", "celery_task_retries_total", "celery_events_total")


class Table:
    """A database in a dictionary, with a writer as the history's."""

    def __init__(self, *observers: Observer) -> None:
        self.rows: dict[tuple[str, str], float] = {}
        self.writes = 0
        self.batches = 0
        self.works = True
        self.unsaved: dict[tuple[str, str], float] = {}

    def keeper(self, one: Observer) -> Keeper:
        """A collector that starts on this table."""
        self.unsaved.clear()
        keeper = Keeper(one.registry, lambda: self.batches)
        keeper.loaded([(name, labels, number) for (name, labels), number in self.rows.items()])
        keeper.settle()
        return keeper

    def turn(self, keeper: Keeper) -> bool:
        self.unsaved |= {(name, labels): number for name, labels, number in keeper.counters()}
        if not self.works or not self.unsaved:
            return False
        self.writes += len(self.unsaved)
        self.rows |= self.unsaved
        self.unsaved.clear()
        self.batches += 1
        return True


def worked(**options: object) -> Observer:
    one = observer(**options)
    for seconds in (0.02, 0.3, 7.0, 7.0, 99999999.0):
        one.take(heartbeat(), change("succeeded", runtime_seconds=seconds), 0.0)
    one.change(change("failed", error="ValueError"))
    one.change(change("received", queue_seconds=2.5))
    return one


def kept(one: Observer) -> dict[object, float]:
    ours = (*KEPT, "celery_task_runtime", "celery_task_queue_wait")
    return {key: n for key, n in samples(one.registry).items() if key[0].startswith(ours)}


def shown(keeper: Keeper) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    return read(Writer().write(keeper.shown()).decode())


def succeeded(keeper: Keeper) -> float | None:
    labels = {"task": "shop.add", "state": "succeeded", "queue": "orders"}
    return shown(keeper).get(("celery_tasks_total", frozenset(labels.items())))


def test_a_restart_changes_no_counter() -> None:
    table, before = Table(), worked(celery_exporter=True)
    table.turn(table.keeper(before))
    after = observer(celery_exporter=True)
    table.keeper(after)
    assert kept(after) == kept(before)
    assert len(kept(after)) > 50


def test_what_was_counted_before_the_table_could_be_read_is_added() -> None:
    table, before = Table(), worked()
    table.turn(table.keeper(before))
    after = worked()
    table.keeper(after)
    assert value(after.registry, "celery_task_runtime_seconds_count", task="shop.add") == 10
    assert value(after.registry, "celery_tasks_total", task="shop.add", state="failed", queue="orders") == 2


def test_nothing_is_written_nor_shown_before_the_table_was_read() -> None:
    one = worked()
    keeper = Keeper(one.registry, lambda: 0)
    keeper.settle()
    assert keeper.counters() == []
    names = {name for name, _ in shown(keeper)}
    assert "celery_workers_online" in names
    assert "celery_tasks_total" not in names
    keeper.loaded([])
    keeper.settle()
    assert keeper.counters()
    assert succeeded(keeper) == 5


def test_a_table_that_cannot_be_read_is_not_waited_for_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    one = worked()
    keeper = Keeper(one.registry, lambda: 0)
    monkeypatch.setattr(persistence, "PATIENCE_SECONDS", -1)
    keeper.settle()
    assert succeeded(keeper) == 5
    # too late: to add it would look like that many tasks at once
    keeper.loaded([("celery_tasks_total", '{"queue":"orders","state":"succeeded","task":"shop.add"}', 1000.0)])
    keeper.settle()
    assert succeeded(keeper) == 5


def test_only_what_changed_is_written_and_what_failed_is_written_again() -> None:
    table, one = Table(), worked()
    keeper = table.keeper(one)
    assert table.turn(keeper)
    assert not table.turn(keeper)
    first = table.writes
    one.change(change("failed", error="ValueError"))
    table.works = False
    assert not table.turn(keeper)
    one.change(change("succeeded", runtime_seconds=0.02))
    table.works = True
    assert table.turn(keeper)
    assert table.writes == first + 5, "a state and an exception; a state, a bucket and the sum"
    assert not table.turn(keeper)


def test_what_a_scrape_shows_was_saved_before() -> None:
    table, one = Table(), worked()
    keeper = table.keeper(one)
    table.turn(keeper)
    one.change(change("succeeded"))
    assert succeeded(keeper) == 5
    table.works = False
    table.turn(keeper)
    assert succeeded(keeper) == 5
    table.works = True
    table.turn(keeper)
    assert succeeded(keeper) == 6
    assert table.rows["celery_tasks_total", '{"queue":"orders","state":"succeeded","task":"shop.add"}'] == 6


def test_while_the_database_is_away_counters_go_on_and_never_back(monkeypatch: pytest.MonkeyPatch) -> None:
    table, one = Table(), worked()
    keeper = table.keeper(one)
    table.turn(keeper)
    assert succeeded(keeper) == 5
    table.works = False
    for _ in range(3):
        one.change(change("succeeded"))
        table.turn(keeper)
    monkeypatch.setattr(persistence, "SAVED_SECONDS", -1)
    one.change(change("succeeded"))
    assert succeeded(keeper) == 9
    monkeypatch.undo()
    table.works = True
    # what is now saved was taken before that scrape
    table.unsaved |= {("celery_tasks_total", "x"): 8.0}
    table.batches += 1
    assert succeeded(keeper) == 9
    table.turn(keeper)
    one.change(change("succeeded"))
    assert succeeded(keeper) == 9
    table.turn(keeper)
    assert succeeded(keeper) == 10


def test_other_settings_lose_no_count() -> None:
    table, before = Table(), worked(worker_label=True)
    table.turn(table.keeper(before))
    after = observer(buckets=[1, 60])
    table.keeper(after)
    found = samples(after.registry)

    def bucket(le: str) -> float:
        return found["celery_task_runtime_seconds_bucket", frozenset({("task", "shop.add"), ("le", le)})]

    # 7 s was in the bucket up to 10, which is below 60; 99999999 s was in none
    assert [bucket(le) for le in ("1.0", "60.0", "+Inf")] == [2, 4, 5]
    assert value(after.registry, "celery_tasks_total", task="shop.add", state="succeeded", queue="orders") == 5
    again = observer(worker_label=True)
    table.keeper(again)
    labels = {"task": "shop.add", "state": "succeeded", "queue": "orders"}
    assert value(again.registry, "celery_tasks_total", **labels, worker="w1@host1") == 5


def test_series_of_gone_workers_do_not_come_back() -> None:
    table = Table()
    one = observer(worker_label=True, forget_seconds=60)
    keeper = table.keeper(one)
    one.check(0.0, 1)
    one.take(heartbeat(), change("succeeded", runtime_seconds=1.0), 0.0)
    table.turn(keeper)
    assert any("w1@host1" in labels for _, labels in table.rows)
    one.check(1000.0, 1)
    table.turn(keeper)
    assert {number for (_, labels), number in table.rows.items() if "w1@host1" in labels} == {GONE}
    after = observer(worker_label=True)
    table.keeper(after)
    assert not any("w1@host1" in str(labels) for _, labels in samples(after.registry))


def test_rows_that_make_no_sense_are_passed_over() -> None:
    one = observer()
    rows = [
        ("celery_tasks_total", "no json", 1.0),
        ("celery_tasks_total", "[]", 1.0),
        ("celery_tasks_total", "[" * 100_000, 1.0),
        ("celery_tasks_total", '{"task": 1}', 1.0),
        ("celery_tasks_total", '{"task":"a","state":"sent","queue":"q"}', -2.0),
        ("celery_tasks_total", '{"task":"a","state":"sent","queue":"q"}', float("nan")),
        ("celery_tasks_total", '{"task":"a","state":"sent","queue":"q"}', float("inf")),
        ("celery_task_runtime_seconds_bucket", '{"task":"a","le":"soon"}', 1.0),
        ("celery_workers_online", "{}", 1.0),
        ("of_another_version_total", "{}", 1.0),
    ]
    assert load(one.registry, rows) == len(rows)
    assert value(one.registry, "celery_tasks_total", task="a", state="sent", queue="q") is None


def test_a_full_table_stays_within_the_limit() -> None:
    table, before = Table(), observer()
    for number in range(500):
        before.change(change("failed", name=f"t{number}", error="E"))
    table.turn(table.keeper(before))
    after = observer(limit=100)
    table.keeper(after)
    found = [n for (name, _), n in samples(after.registry).items() if name == "celery_task_failures_total"]
    assert len(found) == 101
    assert sum(found) == 500


def test_the_historys_own_writer_keeps_them(tmp_path: Path) -> None:
    """SQLite and the real writer."""
    from flowerbed.history.writer import Writer as HistoryWriter

    def run(one: Observer) -> None:
        keeper = Keeper(one.registry, lambda: writer.stats.batches)
        writer = HistoryWriter(
            f"sqlite:///{tmp_path}/history.db", counters=keeper.counters, on_loaded=keeper.loaded, batch_seconds=0.05
        )
        writer.start()
        deadline = time.monotonic() + 20
        while not (keeper.settled and keeper._safe is not None):
            assert time.monotonic() < deadline, writer.stats.problem
            keeper.settle()
            time.sleep(0.02)
        writer.stop()

    before, after = worked(), observer()
    run(before)
    run(after)
    assert kept(after) == kept(before)
