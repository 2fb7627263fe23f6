"""The index of words: what is in it when, that it follows the history, and that it can be lost."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text

from flowerbed.collector.tasks import Record
from flowerbed.history import paging, words
from flowerbed.history.query import Query
from flowerbed.history.reading import Session
from flowerbed.history.schema import row_of
from flowerbed.history.search import parse
from flowerbed.history.store import Store, open_store
from flowerbed.history.words import Words, file_of, opened

NEVER = threading.Event()


@pytest.fixture(autouse=True)
def quickly(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STATE_DIRECTORY", str(tmp_path))
    monkeypatch.setattr(words, "REST_SECONDS", 0.0)
    monkeypatch.setattr(words, "SHARE", 1.0)
    # pages are not looked through for words, so that what is found is the index's
    monkeypatch.setattr(paging.Pages, "_is_ordered", lambda _: False)


@pytest.fixture
def store(url: str) -> Iterator[Store]:
    store = open_store(url)
    yield store
    store.close()


def task(number: int, **fields: Any) -> tuple[Any, ...]:
    known = {"id": f"t{number}", "seen": float(number), "received": float(number), "finished": float(number)}
    return row_of(Record(**{**known, **fields}))


def found(url: str, search: str) -> list[str]:
    query = Query(url)
    page = query.page(parse(search, 0), limit=10_000)
    query.close()
    assert page.matching_exact
    return [task.id for task in page.tasks]


def frontier(url: str) -> int:
    with opened(file_of(url)) as index:
        assert index is not None
        return index.frontier


def looked_at(url: str, search: str, monkeypatch: pytest.MonkeyPatch) -> int:
    """How many statements looked for words in tasks."""
    asked: list[str] = []
    fetch = Session.fetch

    def listening(self: Session, statement: str, parameters: Any = None) -> Any:
        asked.extend([statement] if "ESCAPE" in statement else [])
        return fetch(self, statement, parameters)

    with monkeypatch.context() as patched:
        patched.setattr(Session, "fetch", listening)
        found(url, search)
    return len(asked)


def test_only_what_the_index_names_is_looked_at(url: str, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(words, "PART_NUMBERS", 64)
    monkeypatch.setattr(words, "STEP_NUMBERS", 10)
    store.write([task(number, args=f"(x{number}x,)", result="same") for number in range(300)])
    Words(url).turn(NEVER)
    with opened(file_of(url)) as index:
        assert index is not None
        assert index.frontier == 301
        assert index.parts == [4, 3, 2, 1, 0]
    assert found(url, "args:x77x") == ["t77"]
    assert looked_at(url, "args:x77x", monkeypatch) == 1
    assert looked_at(url, "args:x777x", monkeypatch) == 0
    assert len(found(url, "result:SAME")) == 300
    assert found(url, '"x2x" OR "x299x"') == ["t299", "t2"]


def test_what_is_not_yet_in_it_is_found_too(url: str, store: Store) -> None:
    store.write([task(1, args="needle one")])
    Words(url).turn(NEVER)
    store.write([task(2, args="needle two"), task(3, args="another")])
    assert found(url, "needle") == ["t2", "t1"]
    assert frontier(url) == 2


def test_it_rests_until_tasks_have_ended(url: str, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(words, "REST_SECONDS", 30.0)
    clock = [100.0]
    monkeypatch.setattr(words.time, "monotonic", lambda: clock[0])
    filling = Words(url)
    store.write([task(1, args="needle")])
    filling.turn(NEVER)
    assert frontier(url) <= 1
    clock[0] += 29
    store.write([task(2, args="needle")])
    filling.turn(NEVER)
    assert frontier(url) <= 1
    clock[0] += 2
    filling.turn(NEVER)
    assert frontier(url) == 2


def test_what_came_after_a_task_was_taken_in(url: str, store: Store) -> None:
    store.write([task(1, args="began", finished=None), task(2, args="began", finished=None)])
    filling = Words(url)
    filling.turn(NEVER)
    store.write([task(1, result="ended well")])
    # both before it is taken in again, and after
    for _ in range(2):
        assert found(url, "result:ended") == ["t1"]
        assert found(url, "args:began") == ["t2", "t1"]
        filling.turn(NEVER)
    with opened(file_of(url)) as index:
        assert index is not None
        assert len(index.late(10)) == 1


def test_parts_go_with_their_tasks(url: str, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(words, "PART_NUMBERS", 64)
    store.write([task(number, args="needle", finished=None) for number in range(300)])
    filling = Words(url)
    filling.turn(NEVER)
    with store.transaction() as connection:
        connection.execute(text("DELETE FROM tasks WHERE seen < 200"))
    filling.turn(NEVER)
    with opened(file_of(url)) as index:
        assert index is not None
        assert index.parts == [4, 3]
        assert len(index.late(1000)) == 100
    assert len(found(url, "needle")) == 100


def test_a_history_that_was_emptied_or_restored(url: str, store: Store) -> None:
    store.write([task(number, args="old needle") for number in range(100)])
    filling = Words(url)
    filling.turn(NEVER)
    with store.transaction() as connection:
        connection.execute(text("DELETE FROM tasks"))
    filling.turn(NEVER)
    assert found(url, "needle") == []
    store.write([task(number, args="new needle") for number in range(50)])
    filling.turn(NEVER)
    assert len(found(url, "needle")) == 50
    assert found(url, "args:old") == []


def test_a_history_with_other_tasks_under_the_same_numbers(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/history.sqlite"
    store = open_store(url)
    store.write([task(number, args="first") for number in range(10)])
    Words(url).turn(NEVER)
    with store.transaction() as connection:
        connection.execute(text("DELETE FROM tasks"))
    store.write([task(100 + number, args="second") for number in range(20)])
    Words(url).turn(NEVER)
    assert len(found(url, "second")) == 20
    store.close()


@pytest.mark.parametrize("damage", [b"not a database, but long enough to be taken for one" * 100, b""])
def test_a_damaged_index_is_made_anew(url: str, store: Store, damage: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    store.write([task(1, args="needle")])
    path = file_of(url)
    assert path is not None
    path.write_bytes(damage)
    assert found(url, "needle") == ["t1"]
    stop = threading.Event()
    waits = iter(range(4))
    monkeypatch.setattr(stop, "wait", lambda _=None: next(waits, None) is None and stop.set())
    monkeypatch.setattr(words, "FAILED_SECONDS", 0.0)
    Words(url).run(stop)
    assert frontier(url) == 2
    assert found(url, "needle") == ["t1"]


def test_an_index_of_another_release_is_not_used(url: str, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    store.write([task(1, args="needle")])
    path = file_of(url)
    assert path is not None
    with sqlite3.connect(path) as connection:
        connection.execute(f"PRAGMA user_version = {words.VERSION + 1}")
    assert found(url, "needle") == ["t1"]


def test_nobody_else_may_read_it(url: str, store: Store) -> None:
    store.write([task(1, args="secret")])
    Words(url).turn(NEVER)
    path = file_of(url)
    assert path is not None
    assert path.stat().st_mode & 0o077 == 0


def test_without_a_place_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("STATE_DIRECTORY")
    url = "postgresql://nobody@localhost/nothing"
    assert file_of(url) is None
    Words(url).turn(NEVER)


def test_the_thread_goes_on_whatever_happens(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    filling, stop, turns = Words(f"sqlite:///{tmp_path}/history.sqlite"), threading.Event(), []

    def turn(_: object) -> None:
        turns.append(1)
        if len(turns) == 3:
            stop.set()
        raise ValueError("something that nobody thought of")

    monkeypatch.setattr(words, "FAILED_SECONDS", 0.0)
    monkeypatch.setattr(filling, "turn", turn)
    filling.run(stop)
    assert len(turns) == 3


def test_without_a_history_nothing_is_lost(tmp_path: Path) -> None:
    stop = threading.Event()
    filling = Words(f"sqlite:///{tmp_path}/history.sqlite")
    thread = threading.Thread(target=filling.run, args=(stop,))
    thread.start()
    stop.set()
    thread.join(10)
    assert not thread.is_alive()
    assert not (tmp_path / "history.sqlite").exists()
